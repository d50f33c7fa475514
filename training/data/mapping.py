"""dataset.yaml: where a data set's files and columns are, said once.

entity: song
events:
  path: plays/            # a csv or Parquet file, gzipped or not, or a directory of them
  user: listener
  item: song
  rating: stars           # optional, like time and rating_range
  time: played_at
  rating_range: [1, 5]
items:                    # optional
  path: songs.parquet
  id: song                # the same name as in the events unless said
  title: name             # optional, like categories and year
  categories: styles
  year: released
  lists: {moods: ";"}     # text columns that hold several values
"""

from pathlib import PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from training.data.locations import file_size, join, read_bytes
from training.data.movielens import detect
from training.data.sources import CatalogueFile, Source, generic
from training.errors import UserError
from training.model.manifest import VERB

FILE_NAME = "dataset.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Events(_Part):
    path: str
    user: str
    item: str
    rating: str | None = None
    time: str | None = None
    rating_range: tuple[float, float] | None = None

    @field_validator("rating_range")
    @classmethod
    def _ascends(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError("the lower bound comes first")
        return bounds


class _Items(_Part):
    path: str
    id: str | None = None
    title: str | None = None
    categories: str | None = None
    year: str | None = None
    lists: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)


class _Mapping(_Part):
    entity: str = Field("item", min_length=1)
    verb: str = Field(VERB, min_length=1)
    events: _Events
    items: _Items | None = None


def find_mapping(path: str) -> str | None:
    """The dataset.yaml that `path` names or, a directory, holds."""
    if path.endswith((".yaml", ".yml")):
        return path
    inside = join(path, FILE_NAME)
    return inside if file_size(inside) is not None else None


def described_source(path: str) -> Source:
    """The source that says itself what it is: by a dataset.yaml or MovieLens' file names."""
    mapping = find_mapping(path)
    return detect(path) if mapping is None else read_mapping(mapping)


def read_mapping(path: str) -> Source:
    """The source that a dataset.yaml describes; paths in it are relative to its directory."""
    if file_size(path) is None:
        raise UserError(f"{path} does not exist: name a dataset.yaml")
    try:
        content = yaml.safe_load(read_bytes(path))
        if not isinstance(content, dict):
            raise UserError(f"{path} says nothing of events: see docs/data.md for an example")
        mapping = _Mapping.model_validate(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where} is not YAML: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {field}: {first['msg'].lower()}") from error
    events = mapping.events
    return generic(
        _beside(path, events.path),
        user=events.user,
        item=events.item,
        rating=events.rating,
        time=events.time,
        catalogue=_catalogue(path, mapping),
        rating_range=events.rating_range,
        entity=mapping.entity,
        verb=mapping.verb,
    )


def _catalogue(path: str, mapping: _Mapping) -> CatalogueFile | None:
    items = mapping.items
    if items is None:
        return None
    named: dict[str, Any] = {
        "title": items.title,
        "genres": items.categories,
        "year": items.year,
    }
    return CatalogueFile(
        _beside(path, items.path),
        "columns",
        items.id or mapping.events.item,
        tuple((word, column) for word, column in named.items() if column),
        tuple(items.lists.items()),
    )


def _beside(path: str, other: str) -> str:
    if "://" in other or PurePosixPath(other).is_absolute():
        return other
    directory = path.rpartition("/")[0] or "."
    return join(directory, other)
