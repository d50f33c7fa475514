"""Directories that appear whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import UserError

NO_ROOM_OR_RIGHT = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG)


@contextmanager
def staged_directory(out: Path, *, marker: str) -> Iterator[Path]:
    """A new sibling directory to write to, renamed to `out` when the block ends well.

    An existing `out` is replaced when it is empty or holds the file `marker`, that is when it
    was made by the same command; anything else there is the user's own, and a UserError. The
    replacement is two renames: a reader sees the old directory, for an instant none, or the new.
    """
    out = out.resolve()
    check_replaceable(out, marker)
    staging = out.with_name(f".{out.name}.{os.getpid()}.new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write in {out.parent}: {error.strerror}") from error
    try:
        yield staging
        _swap(staging, out)
    except OSError as error:
        if error.errno not in NO_ROOM_OR_RIGHT:
            raise
        raise UserError(f"cannot write in {out.parent}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_replaceable(out: Path, marker: str) -> None:
    """UserError when writing to `out` would destroy what another program or a person put there."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} exists and is not a directory: choose another output")
    if any(out.iterdir()) and not (out / marker).exists():
        raise UserError(
            f"{out} exists and was not written by this command (no {marker} in it): "
            f"choose another output"
        )


def _swap(staging: Path, out: Path) -> None:
    """Put `staging` in the place of `out`; the old one comes back if that fails."""
    if not out.exists():
        staging.rename(out)
        return
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    out.rename(old)
    try:
        staging.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)
