"""Prepared data on S3: written aside, shown by one file at the end, read through a download.

    s3://bucket/data/statistics.json        says in `folder` which of these is the data
    s3://bucket/data/data-1f0c.../...       a prepared directory
    s3://bucket/data/data-77ab.../...       the one before it, for those who still read it

An object appears whole and there is no rename, so the one small file that names the folder is
what makes an upload the data: who is killed before leaves what was there. Let one run at a time
write to an address; two would clear away each other's uploads.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pyarrow.fs as pafs

from training.data.locations import S3, file_size, join, locate, read_bytes, reason
from training.errors import UserError

MARKER = "statistics.json"  # of a prepared directory; the one file that is written last
UPLOAD = "data-"


@contextmanager
def fetched(address: str | Path) -> Iterator[Path]:
    """A prepared directory to read: the local one, or a download that lives as long as the block.

    UserError for an s3:// address without prepared data.
    """
    if not is_remote(address):
        yield Path(address)
        return
    with _aside(str(address)) as directory:
        _download(str(address), directory)
        yield directory


@contextmanager
def output(address: str | Path, *, append: bool) -> Iterator[Path]:
    """A local directory for `prepare`, uploaded to an s3:// `address` when the block ends well.

    A local `address` is that directory itself. append: it begins as what is there.
    UserError before anything is done for an address that is not ours to replace.
    """
    if not is_remote(address):
        yield Path(address)
        return
    replaced = _check_replaceable(str(address))
    with _aside(str(address)) as directory:
        if append:
            _download(str(address), directory)
        yield directory
        _upload(directory, str(address), replaced)


def is_remote(address: str | Path) -> bool:
    return str(address).startswith(S3)


@contextmanager
def _aside(address: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="marquee-s3-") as aside:
        yield Path(aside) / (address.rstrip("/").rpartition("/")[2] or "data")


def _download(address: str, directory: Path) -> None:
    filesystem, path = locate(address)
    folder = _current(address)
    if folder is None:
        raise UserError(
            f"{address} is not a prepared data set (no {MARKER}): "
            f"make one with `marquee prepare INPUT {address}`"
        )
    try:
        directory.mkdir()
        pafs.copy_files(
            f"{path}/{folder}",
            str(directory),
            source_filesystem=filesystem,
            destination_filesystem=pafs.LocalFileSystem(),
        )
    except OSError as error:
        raise UserError(f"{address} cannot be fetched to {directory}: {reason(error)}") from error


def _current(address: str) -> str | None:
    """The folder that is the data; None when there is none yet."""
    marker = join(address, MARKER)
    if file_size(marker) is None:
        return None
    try:
        return str(json.loads(read_bytes(marker))["folder"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{marker} names no folder: it was not written by `marquee prepare` to S3"
        ) from error


def _check_replaceable(address: str) -> str | None:
    """The folder that is there already; UserError when something else is, or no bucket."""
    filesystem, path = locate(address)
    try:
        bucket = filesystem.get_file_info(path.partition("/")[0])
        if bucket.type != pafs.FileType.Directory:
            raise UserError(f"{address}: there is no such bucket; make it, or name another one")
        found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    except OSError as error:
        raise UserError(f"{address} cannot be reached: {reason(error)}") from error
    current = _current(address)
    if current is None and any(not info.base_name.startswith(UPLOAD) for info in found):
        raise UserError(
            f"{address} holds something that was not written by this command (no {MARKER} in "
            f"it): choose another output"
        )
    return current


def _upload(directory: Path, address: str, replaced: str | None) -> None:
    filesystem, path = locate(address)
    folder = f"{UPLOAD}{uuid4().hex[:12]}"
    statistics = json.loads((directory / MARKER).read_bytes())
    try:
        pafs.copy_files(
            str(directory),
            f"{path}/{folder}",
            source_filesystem=pafs.LocalFileSystem(),
            destination_filesystem=filesystem,
        )
        with filesystem.open_output_stream(f"{path}/{MARKER}") as stream:
            stream.write((json.dumps(statistics | {"folder": folder}, indent=2) + "\n").encode())
        for info in filesystem.get_file_info(pafs.FileSelector(path)):
            if info.base_name.startswith(UPLOAD) and info.base_name not in (folder, replaced):
                filesystem.delete_dir(info.path)
    except OSError as error:
        raise UserError(f"cannot write to {address}: {reason(error)}") from error
