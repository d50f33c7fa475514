"""A bundle's manifest: what is in the directory, where it came from, and a checksum per file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"


class BundleError(Exception):
    """Not a usable bundle. The message is one line: which file, what is wrong, what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


VERB = "liked"


class Entity(_Record):
    """What the catalogue holds; `id_field` is the item's key in requests and responses.

    verb: what users have done with the items, as in "Because you watched ...".
    """

    name: str
    verb: str = VERB
    id_field: Literal["movie_id", "item_id"]
    id_type: Literal["int", "str"]


class DataRecord(_Record):
    """The prepared data the bundle was made from."""

    fingerprint: str
    statistics: dict[str, Any]


class SplitRecord(_Record):
    """The split that chose the model; `hash` identifies its folds."""

    protocol: str
    k_core: int
    seed: int
    hash: str


class TrackingRecord(_Record):
    """Where MLflow recorded the training; `run_id` is None for a run that it did not record."""

    uri: str
    run_id: str | None


class FileRecord(_Record):
    """Size and checksum of one file."""

    sha256: str
    bytes: int


class Manifest(_Record):
    """`manifest.json`. `metrics` is the run's evaluation, empty when it was never evaluated."""

    format: Literal[1]
    version: str = Field(pattern=r"^[1-9][0-9]*$")
    created_at: str
    entity: Entity
    dimension: int
    n_users: int
    n_items: int
    genres: list[str]
    data: DataRecord
    split: SplitRecord
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    tracking: TrackingRecord
    files: dict[str, FileRecord]

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise ValueError(f"file name {name!r} leaves the bundle")
        return files


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read `path/manifest.json`; BundleError when absent, malformed or of another format."""
    file = path / MANIFEST
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle directory; check the store and the version")
    try:
        return parse_manifest(file.read_bytes(), str(file))
    except FileNotFoundError:
        raise BundleError(
            f"{file}: missing, so the bundle is half-written; publish it again"
        ) from None


def parse_manifest(content: bytes, source: str) -> Manifest:
    """Check a manifest's JSON; `source` names it in the BundleError."""
    try:
        fields = json.loads(content)
    except ValueError:
        raise BundleError(f"{source}: not valid JSON; publish the run again") from None
    found = fields.get("format") if isinstance(fields, dict) else None
    if found != FORMAT:
        raise BundleError(
            f"{source}: format {found!r}, but this release reads format {FORMAT}; "
            "publish the run again with this release"
        )
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise BundleError(f"{source}: {field}: {first['msg']}; publish the run again") from None
