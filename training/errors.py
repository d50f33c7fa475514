"""The error that a user can mend."""


class UserError(Exception):
    """A mistake of the user. The message is one line: what, where, and what to do instead.

    The command line prints it as ``error: ...`` and exits with status 2, without a traceback.
    """
