"""The run directory: what `marquee train` writes and `evaluate` and `publish` read.

RUN/run.json     this module's record of the run
RUN/model/       the tower and the ranker, there once the run is finished
RUN/checkpoints/ Ray Train's storage
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from training.data.dataset import Dataset
from training.data.splits import Split, split
from training.errors import UserError
from training.recipe import Recipe

FORMAT = 1
RECORD = "run.json"
MODEL = "model"
CHECKPOINTS = "checkpoints"


class Epoch(BaseModel):
    """One pass over the training events. `ndcg` is of the users that choose the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    loss: float
    ndcg: float
    seconds: float


class Run(BaseModel):
    """run.json. `data` is the absolute path of the prepared data, `fingerprint` its input's.

    `checkpoints`: where Ray Train keeps them, if not in the run. `workers`, `gpu`: of the last
    time that it was gone on with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    status: Literal["running", "failed", "finished"]
    data: str
    fingerprint: str
    protocol: str
    k_core: int
    seed: int
    split_hash: str
    workers: int
    gpu: bool = False
    recipe: Recipe
    checkpoints: str | None = None
    mlflow_run_id: str | None = None
    epochs: list[Epoch] = []
    best_epoch: int | None = None
    blend: dict[str, Any] | None = None
    ranker: dict[str, Any] | None = None
    seconds: dict[str, float] = {}

    @classmethod
    def read(cls, directory: Path) -> "Run":
        """The record of a run directory; UserError when there is none that can be read."""
        try:
            return cls.model_validate_json((directory / RECORD).read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(
                f"{directory} is not a training run (no readable {RECORD}): make one with "
                f"`marquee train DATA --out {directory}`"
            ) from error

    def write(self, directory: Path) -> None:
        """Replace the record as a whole."""
        new = directory / f".{RECORD}.new"
        new.write_text(json.dumps(self.model_dump(), indent=2) + "\n", "utf-8")
        new.rename(directory / RECORD)

    def updated(self, **fields: Any) -> "Run":
        """A copy with some fields changed."""
        return self.model_copy(update=fields)

    def split(self, dataset: Dataset) -> Split:
        """The run's own split of its data; UserError when the data is another by now."""
        cut = split(dataset, self.protocol, k_core=self.k_core, seed=self.seed)
        if (dataset.fingerprint, cut.hash) != (self.fingerprint, self.split_hash):
            raise UserError(
                f"{dataset.path} is not the data this run was trained on (it was prepared again "
                f"from other input): train a new run on it"
            )
        return cut
