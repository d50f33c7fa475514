"""Files by path or s3:// address, read the same way.

S3 is reached as the bundle store reaches it: the endpoint from AWS_ENDPOINT_URL, credentials from
the usual AWS places.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs

from training.errors import UserError
from training.model.store import s3_filesystem

S3 = "s3://"


def locate(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or s3:// address, and the path inside it."""
    if address.startswith(S3):
        return s3_filesystem(), address.removeprefix(S3).strip("/")
    if "://" in address:
        raise UserError(f"{address} is neither a path nor s3://bucket/key")
    return pafs.LocalFileSystem(), address


def file_size(address: str) -> int | None:
    """Bytes of a file; None when there is no such file."""
    info = _info(address)
    return info.size if info.is_file else None


def is_directory(address: str) -> bool:
    return bool(_info(address).type == pafs.FileType.Directory)


def list_files(directory: str) -> list[str]:
    """Addresses of the files in and under a directory, in order of their names.

    Hidden files and those that begin with an underscore (`_SUCCESS`) are left out.
    """
    filesystem, path = locate(directory)
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise UserError(f"{directory} cannot be listed: {reason(error)}") from error
    prefix = S3 if directory.startswith(S3) else ""
    files = (info for info in found if info.is_file)
    return sorted(
        f"{prefix}{info.path}"
        for info in files
        if not any(part[0] in "._" for part in PurePosixPath(info.path).relative_to(path).parts)
    )


def open_file(address: str) -> pa.NativeFile:
    """The file, for reading anywhere in it; UserError when it cannot be opened."""
    filesystem, path = locate(address)
    with _readable(address):
        return filesystem.open_input_file(path)


def open_stream(address: str, compression: str | None = None) -> pa.NativeFile:
    """The file's (decompressed) bytes from the first to the last."""
    filesystem, path = locate(address)
    with _readable(address):
        return filesystem.open_input_stream(path, compression=compression)


def read_bytes(address: str) -> bytes:
    """The whole file; one whose name ends in .gz is decompressed."""
    compression = "gzip" if address.endswith(".gz") else None
    with _readable(address), open_stream(address, compression) as stream:
        return bytes(stream.read())


def join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    number = getattr(error, "errno", None)  # Arrow puts it among words of its own
    text = (os.strerror(number) if number else str(error)) or type(error).__name__
    return text.splitlines()[0][:300]


@contextmanager
def _readable(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{address} cannot be read: {reason(error)}") from error


def _info(address: str) -> pafs.FileInfo:
    filesystem, path = locate(address)
    try:
        return filesystem.get_file_info(path)
    except OSError as error:
        raise UserError(f"{address} cannot be reached: {reason(error)}") from error
