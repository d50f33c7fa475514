"""The side of a store that publishing needs: adding versions, moving the production pointer."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

import pyarrow.fs as pafs

from training.bundle_writer import write_manifest
from training.errors import UserError
from training.model.bundle import Bundle
from training.model.manifest import MANIFEST, Manifest
from training.model.store import BUNDLES, POINTER, BundleStore, Production

_KEPT_PREVIOUS = 20
_UPLOADS_AT_ONCE = 8


class Store(BundleStore):
    """A store that can be written. Methods may raise OSError when it cannot be reached."""

    @classmethod
    def open(cls, url: str) -> Self:
        """See BundleStore; UserError for an address that is none."""
        try:
            return super().open(url)
        except ValueError as error:
            raise UserError(f"--store {error}") from None

    @property
    def address(self) -> str:
        """The store's address wherever it is written: absolute, without a final slash."""
        return self.root if self.is_local else f"s3://{self.root}"

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty directory to write a bundle in: beside the versions, or local for S3."""
        if not self.is_local:
            with tempfile.TemporaryDirectory(prefix="marquee-publish-") as local:
                yield Path(local)
            return
        bundles = Path(self.root) / BUNDLES
        directory = bundles / f".publishing-{uuid4().hex}"
        try:
            directory.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"--store {self.url} is a file: name a directory") from None
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def add(self, directory: Path, manifest: Manifest) -> str:
        """Verify the staged bundle and make it the next version, whose number is returned.

        A local directory takes its number by a rename, which two publishers cannot both do. S3
        has no such operation here: the number is taken by the first file that is there, so two
        publishers that start within a moment could mix their files. Checksums would refuse the
        mixture; let one job at a time publish to one S3 store.
        """
        _stamp(directory, manifest, self._next_version())
        Bundle.open(directory)
        return self._rename(directory, manifest) if self.is_local else self._upload(directory)

    def promote(self, version: str) -> Production:
        """Point production at a published version. The bundle is the caller's to verify."""
        current = self.pointer()
        if current is None:
            return self._point(version, [])
        if current.version == version:
            return current
        return self._point(version, [current.version, *current.previous])

    def rollback(self) -> Production:
        """Point production at the version before the current one; UserError if there is none."""
        current = self.pointer()
        if current is None or not current.previous:
            raise UserError(
                f"store {self.url} has no earlier production version to roll back to: "
                "choose one with `marquee promote VERSION`"
            )
        return self._point(current.previous[0], current.previous[1:])

    def _next_version(self) -> str:
        taken = self.taken_versions()
        return str(int(taken[-1]) + 1 if taken else 1)

    def _rename(self, directory: Path, manifest: Manifest) -> str:
        while True:
            version = self._next_version()
            _stamp(directory, manifest, version)
            target = Path(self.bundle_path(version))
            try:
                directory.rename(target)
            except OSError:
                if not target.exists():  # else another publisher took the number: try the next
                    raise
            else:
                return version

    def _upload(self, directory: Path) -> str:
        manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
        target = self.bundle_path(manifest.version)
        try:
            with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
                names = [(directory / name, f"{target}/{name}") for name in manifest.files]
                list(pool.map(lambda pair: self._put_file(*pair), names))
            self._put_file(directory / MANIFEST, f"{target}/{MANIFEST}")
        except BaseException:
            with suppress(OSError):
                self.filesystem.delete_dir(target)
            raise
        return manifest.version

    def _put_file(self, source: Path, target: str) -> None:
        local = pafs.LocalFileSystem()
        pafs.copy_files(
            str(source), target, source_filesystem=local, destination_filesystem=self.filesystem
        )

    def _point(self, version: str, previous: list[str]) -> Production:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        pointer = Production(version=version, previous=previous[:_KEPT_PREVIOUS], changed_at=now)
        content = pointer.model_dump_json(indent=1) + "\n"
        path = f"{self.root}/{POINTER}"
        # An S3 object appears whole; a local file needs the rename.
        aside = f"{path}.{uuid4().hex}" if self.is_local else path
        with self.filesystem.open_output_stream(aside) as stream:
            stream.write(content.encode())
        if aside != path:
            self.filesystem.move(aside, path)
        return pointer


def _stamp(directory: Path, manifest: Manifest, version: str) -> None:
    write_manifest(directory, manifest.model_copy(update={"version": version}))
