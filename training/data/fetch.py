"""Download a MovieLens data set by name from the GroupLens file server."""

import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from training.data.output import staged_directory
from training.errors import UserError

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
NAMES = (
    "ml-latest-small",
    "ml-latest",
    "ml-100k",
    "ml-1m",
    "ml-10m",
    "ml-20m",
    "ml-25m",
    "ml-32m",
)
TIMEOUT_S = 20.0  # without a byte
BLOCK_BYTES = 2**18
MARKER = ".fetched"  # tells a later fetch that the directory is its to replace

Progress = Callable[[int, int | None], None]
"""Is told the bytes so far and the bytes in all, where the server says."""


def fetch(
    name: str,
    out: Path,
    *,
    mirror: str = GROUPLENS,
    progress: Progress = lambda done, total: None,
) -> None:
    """Put the files of the MovieLens data set `name` into the directory `out`.

    UserError for an unknown name, no network, a broken download, or an `out` not ours to
    replace; `out` is then as it was.
    """
    if name not in NAMES:
        raise UserError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    url = f"{mirror.rstrip('/')}/{name}.zip"
    with staged_directory(out, marker=MARKER) as staging, tempfile.TemporaryFile() as archive:
        try:
            _download(url, archive, progress)
        except (OSError, urllib.error.URLError) as error:
            raise UserError(
                f"cannot download {url} ({_reason(error)}): without a network, "
                f"`marquee data synth {out}` makes a data set of the same shape"
            ) from error
        try:
            _unpack(archive, staging)
        except (zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{url} is not a whole zip archive ({error}): try again") from error
        (staging / MARKER).write_text(url + "\n", "utf-8")


def _download(url: str, file: IO[bytes], progress: Progress) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        done = 0
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            done += len(block)
            progress(done, total)
    if total is not None and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _unpack(file: IO[bytes], directory: Path) -> None:
    """The files of the archive's one folder, by their bare names: no path in it is trusted."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if member.is_dir() or len(path.parts) > 2 or path.name in ("", ".", ".."):
                continue
            with archive.open(member) as source, (directory / path.name).open("wb") as target:
                shutil.copyfileobj(source, target)


def _reason(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason)
