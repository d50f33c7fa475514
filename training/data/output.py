"""Directories that appear whole or not at all."""

import errno
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.data.locations import reason
from training.errors import UserError

NO_ROOM_OR_RIGHT = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
)


@contextmanager
def staged_directory(out: Path, *, marker: str) -> Iterator[Path]:
    """A new sibling directory to write to, renamed to `out` when the block ends well.

    An existing `out` is replaced when it is empty or holds the file `marker`, that is when it
    was made by the same command; anything else there is the user's own, and a UserError. The
    replacement is two renames: a reader sees the old directory, for an instant none, or the new.
    What a killed run left beside `out` is cleared away; a run that is under way is a UserError.
    """
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _recover(out)
            check_replaceable(out, marker)
            staging = out.with_name(f".{out.name}.new")
            try:
                staging.mkdir()
                yield staging
                _swap(staging, out)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        if error.errno not in NO_ROOM_OR_RIGHT:
            raise
        raise UserError(f"cannot write in {out.parent}: {reason(error)}") from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock on `out`, which ends with its process however that ends."""
    path = out.with_name(f".{out.name}.lock")
    try:
        lock = path.open("w")
    except OSError as error:
        raise UserError(f"cannot write in {out.parent}: {reason(error)}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is writing {out}: wait for its end") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _recover(out: Path) -> None:
    """Clear away what a killed run left; one killed between its two renames gets `out` back."""
    old = out.with_name(f".{out.name}.old")
    if old.exists() and not out.exists():
        old.rename(out)
    for left in (old, out.with_name(f".{out.name}.new")):
        if left.exists():
            shutil.rmtree(left)


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
    old = out.with_name(f".{out.name}.old")
    out.rename(old)
    try:
        staging.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)
