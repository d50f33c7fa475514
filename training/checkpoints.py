"""Where Ray Train keeps a training's checkpoints: a directory, or a place on S3.

Ray's record of the checkpoints and the checkpoints themselves are written in place, so that a kill
can leave half of either, and with half a record Ray refuses to go on. So its record is put away
before a training goes on, and what counts is which of the checkpoints can be read.
"""

from dataclasses import dataclass
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
        paths = [
            info.path
            for info in found
            if info.type == pafs.FileType.Directory and info.base_name.startswith(_PREFIX)
        ]
        return [train.Checkpoint(path, self.filesystem) for path in sorted(paths)]

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
