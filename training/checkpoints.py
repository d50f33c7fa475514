"""Where Ray Train keeps a training's checkpoints: a directory, or a place on S3.

Ray's record of the checkpoints and the checkpoints themselves are written in place, so that a kill
can leave half of either, and with half a record Ray refuses to go on. So its record is put away
before a training goes on, and what counts is which of the checkpoints can be read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.fs as pafs
from ray import train

from training.data.locations import S3, locate, reason
from training.errors import UserError

_PREFIX = "checkpoint_"  # Ray's, followed by the time
_RECORD = "checkpoint_manager_snapshot.json"  # Ray's


@dataclass(frozen=True)
class Storage:
    """A directory that all nodes of the cluster reach, open for writing."""

    address: str
    filesystem: pafs.FileSystem
    path: str

    @classmethod
    def open(cls, address: str) -> "Storage":
        """The directory, made if it is not there; UserError if that cannot be."""
        filesystem, path = locate(address)
        try:
            filesystem.create_dir(path, recursive=True)
        except OSError as error:
            raise UserError(f"checkpoints cannot be kept in {address}: {reason(error)}") from error
        return cls(address, filesystem, path)

    def run_config(self, name: str, **settings: Any) -> train.RunConfig:
        """Ray Train's settings for a run of that name, whose files go into this directory."""
        filesystem = self.filesystem if self.address.startswith(S3) else None
        return train.RunConfig(
            name=name,
            storage_path=self.path,
            storage_filesystem=filesystem,
            **settings,
        )

    def checkpoints(self, name: str) -> list[train.Checkpoint]:
        """Those of the run `name`, whole or not, the oldest first."""
        found = self.filesystem.get_file_info(
            pafs.FileSelector(f"{self.path}/{name}", allow_not_found=True)
        )
        paths = sorted(info.path for info in found if info.base_name.startswith(_PREFIX))
        return [train.Checkpoint(path, self.filesystem) for path in paths]

    def forget(self, name: str) -> None:
        """Put Ray's record of the run away; its checkpoints stay."""
        record = f"{self.path}/{name}/{_RECORD}"
        if self.filesystem.get_file_info(record).is_file:
            self.filesystem.delete_file(record)

    def remove(self, name: str) -> None:
        """Delete the run with its checkpoints, if it is there."""
        directory = f"{self.path}/{name}"
        if self.filesystem.get_file_info(directory).type == pafs.FileType.Directory:
            self.filesystem.delete_dir(directory)


@contextmanager
def local_files(checkpoint: train.Checkpoint) -> Iterator[Path]:
    """The checkpoint as a directory of this machine.

    Ray's own download takes the mark of a directory on S3 for a file in it, and fails.
    """
    filesystem, root = checkpoint.filesystem, checkpoint.path
    if isinstance(filesystem, pafs.LocalFileSystem):
        yield Path(root)
        return
    with TemporaryDirectory(prefix="marquee-checkpoint-") as directory:
        for info in filesystem.get_file_info(pafs.FileSelector(root, recursive=True)):
            name = info.path.removeprefix(root).strip("/")
            if info.is_file and name:
                target = Path(directory) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with filesystem.open_input_stream(info.path) as stream:
                    target.write_bytes(stream.read())
        yield Path(directory)
