"""Where bundles live: a directory or s3://bucket/prefix. This is the side that serving needs.

STORE/bundles/<version>/   one bundle; visible once its manifest.json is there, then immutable
STORE/production.json      the version that should answer and those it replaced, newest first

S3 is reached through pyarrow.fs: the endpoint from AWS_ENDPOINT_URL (empty: AWS itself), the
region from AWS_REGION or AWS_DEFAULT_REGION, credentials from the usual AWS places.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, ValidationError

from training.model.manifest import MANIFEST, BundleError, Manifest, parse_manifest

BUNDLES = "bundles"
POINTER = "production.json"


class Production(BaseModel):
    """`production.json`. `previous` are the versions to roll back to, newest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    previous: list[str]
    changed_at: str


@dataclass(frozen=True)
class BundleStore:
    """Reads a store. Every method may raise OSError when the store cannot be reached.

    root: the store's path inside `filesystem`. url: how its user wrote it.
    """

    url: str
    filesystem: pafs.FileSystem
    root: str

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at a directory or an s3:// address; ValueError for another kind of address.

        Looks at nothing yet: a store without a directory is an empty one.
        """
        if url.startswith("s3://"):
            root = url.removeprefix("s3://").strip("/")
            if not root:
                raise ValueError(f"{url!r} names no bucket; write s3://bucket/prefix")
            return cls(url, s3_filesystem(), root)
        if "://" in url:
            raise ValueError(f"{url!r} is neither a directory nor s3://bucket/prefix")
        return cls(url, pafs.LocalFileSystem(), str(Path(url).absolute()))

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def bundle_path(self, version: str) -> str:
        """The bundle's path inside `filesystem`."""
        return f"{self.root}/{BUNDLES}/{version}"

    def versions(self) -> list[str]:
        """The published versions, oldest first."""
        return [name for name in self.taken_versions() if self._read(self._manifest_path(name))]

    def taken_versions(self) -> list[str]:
        """The published versions and those whose upload has not ended, oldest first."""
        found = pafs.FileSelector(f"{self.root}/{BUNDLES}", allow_not_found=True)
        names = (info.base_name for info in self.filesystem.get_file_info(found))
        return sorted((name for name in names if name.isdecimal()), key=int)

    def pointer(self) -> Production | None:
        """The production pointer; None before the first promotion, BundleError when malformed."""
        content = self._read(f"{self.root}/{POINTER}")
        if content is None:
            return None
        try:
            return Production.model_validate_json(content)
        except ValidationError:
            raise BundleError(
                f"{self.url}/{POINTER}: not a production pointer; run `marquee promote` again"
            ) from None

    def production(self) -> str | None:
        """The version that should answer, None before the first promotion."""
        pointer = self.pointer()
        return pointer.version if pointer else None

    def left_behind(self) -> list[str]:
        """Versions that serving need not have at hand, oldest first: all before the one that
        should answer, but for the one that it replaced. Those after it may be staged.
        """
        pointer = self.pointer()
        if pointer is None:
            return []
        return [
            version
            for version in self.taken_versions()
            if int(version) < int(pointer.version) and version not in pointer.previous[:1]
        ]

    def manifest(self, version: str) -> Manifest:
        """A published version's manifest; BundleError when there is none or it is malformed."""
        source = f"{self.url}/{BUNDLES}/{version}/{MANIFEST}"
        return parse_manifest(self._manifest_bytes(version), source)

    def fetch(self, version: str, cache_dir: Path) -> Path:
        """A local directory with the version's bundle, not yet verified; BundleError if unknown.

        A local store's own directory, or a download in `cache_dir`. Downloads are named after
        the manifest's content, so that stores can share a cache, and appear only when whole.
        """
        content = self._manifest_bytes(version)
        if self.is_local:
            return Path(self.bundle_path(version))
        target = cache_dir / _download_name(version, content)
        if not target.is_dir():
            self._download(version, target)
        return target

    def remove_downloads(self, cache_dir: Path, *, keep: str) -> None:
        """Remove from `cache_dir` this store's versions left behind, other than `keep`.

        Who still reads one keeps its files until they are closed, as Linux does it. Downloads of
        versions that the store no longer has stay: they may be another store's.
        """
        for version in self.left_behind():
            if version != keep and any(cache_dir.glob(f"{version}-*")):
                name = _download_name(version, self._manifest_bytes(version))
                shutil.rmtree(cache_dir / name, ignore_errors=True)

    def _download(self, version: str, target: Path) -> None:
        aside = target.with_name(f".{target.name}-{uuid4().hex}")
        aside.mkdir(parents=True)
        try:
            pafs.copy_files(
                self.bundle_path(version),
                str(aside),
                source_filesystem=self.filesystem,
                destination_filesystem=pafs.LocalFileSystem(),
            )
            try:
                aside.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first, with the same content
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _manifest_path(self, version: str) -> str:
        return f"{self.bundle_path(version)}/{MANIFEST}"

    def _manifest_bytes(self, version: str) -> bytes:
        content = self._read(self._manifest_path(version))
        if content is None:
            if version in self.taken_versions():
                raise BundleError(
                    f"{self.url}/{BUNDLES}/{version}/{MANIFEST}: missing, so the bundle is "
                    "half-written; publish it again"
                )
            raise BundleError(
                f"{self.url} has no version {version!r}; `marquee versions` lists those it has"
            )
        return content

    def _read(self, path: str) -> bytes | None:
        """A small file's content, None when it is not there."""
        try:
            with self.filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())
        except (FileNotFoundError, NotADirectoryError):
            return None


def _download_name(version: str, manifest: bytes) -> str:
    return f"{version}-{hashlib.sha256(manifest).hexdigest()[:12]}"


def s3_filesystem() -> pafs.S3FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    # An explicit region: without one Arrow asks AWS where the bucket is.
    return pafs.S3FileSystem(endpoint_override=endpoint or None, region=region)
