"""SASRec as RecTools has it, a baseline for tests and measurements only.

RecTools asks for another pandas than the lock has, so it lives in a directory of its own, which
`make rectools` fills, and runs in a process of its own, which is this module's `main`.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from training.baselines import Events, Scorer
from training.errors import UserError

DIRECTORY = "MARQUEE_RECTOOLS"  # names the directory, .rectools without it
LISTED = 200  # items a user; all others score -inf


@dataclass(frozen=True)
class SasrecSettings:
    """Shape and length of the training: the shape that published figures are of, untuned."""

    n_factors: int = 64
    n_blocks: int = 2
    n_heads: int = 1
    session_max_len: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    epochs: int = 20


@dataclass(frozen=True)
class Sasrec:
    """A trained SASRec: lists int32 [U, LISTED], -1 behind the end, scores, seconds of training."""

    items: np.ndarray
    scores: np.ndarray
    n_items: int
    seconds: float

    def __call__(self, users: np.ndarray) -> np.ndarray:
        """Scores float32 [b, I] of user_idx int [b]."""
        scores = np.full((len(users), self.n_items), -np.inf, np.float32)
        row, place = np.nonzero(self.items[users] >= 0)
        scores[row, self.items[users][row, place]] = self.scores[users][row, place]
        return scores


def rectools_directory() -> Path | None:
    """Where RecTools is, None when it is not installed."""
    directory = Path(os.environ.get(DIRECTORY, ".rectools"))
    return directory if (directory / "rectools").is_dir() else None


def sasrec(events: Events, seed: int) -> Scorer:
    """A Scorer of events in order of user and time; UserError without RecTools."""
    return fit_sasrec(events, seed, SasrecSettings())


def fit_sasrec(events: Events, seed: int, settings: SasrecSettings) -> Sasrec:
    """Train in another process; UserError when RecTools is missing or fails."""
    directory = rectools_directory()
    if directory is None:
        raise UserError("sasrec needs RecTools, which `make rectools` installs in .rectools")
    with TemporaryDirectory(prefix="marquee-sasrec-") as work:
        np.savez(Path(work) / "in.npz", user=events.user, item=events.item)
        request = asdict(settings) | {"seed": seed, "n_users": events.n_users}
        root = Path(__file__).parents[1]
        path = os.pathsep.join([str(directory.absolute()), str(root)])
        done = subprocess.run(
            [sys.executable, "-m", "training.sasrec", work, json.dumps(request)],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise UserError(f"RecTools' SASRec failed ({said}): leave sasrec out of --models")
        with np.load(Path(work) / "out.npz") as out:
            return Sasrec(out["items"], out["scores"], events.n_items, float(out["seconds"]))


def main(work: Path, request: dict[str, float]) -> None:
    """Train on work/in.npz and write lists, scores and seconds to work/out.npz."""
    import pandas as pd
    import torch
    from pytorch_lightning import Trainer, seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    seed_everything(int(request.pop("seed")))
    n_users, epochs = int(request.pop("n_users")), int(request.pop("epochs"))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with np.load(work / "in.npz") as events:
        user, item = events["user"], events["item"]
    when = pd.Timestamp(0) + pd.to_timedelta(np.arange(len(user)), unit="s")  # the order is enough
    columns = {Columns.User: user, Columns.Item: item, Columns.Weight: 1.0, Columns.Datetime: when}
    data = Dataset.construct(pd.DataFrame(columns))

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    model = SASRecModel(**request, dropout_rate=0.2, loss="softmax", get_trainer_func=trainer)
    started = time.perf_counter()
    model.fit(data)
    seconds = time.perf_counter() - started
    lists = model.recommend(np.unique(user), data, k=LISTED, filter_viewed=True)
    items = np.full((n_users, LISTED), -1, np.int32)
    scores = np.full((n_users, LISTED), -np.inf, np.float32)
    place = lists[Columns.User].to_numpy(), lists[Columns.Rank].to_numpy() - 1
    items[place] = lists[Columns.Item].to_numpy()
    scores[place] = lists[Columns.Score].to_numpy()
    np.savez(work / "out.npz", items=items, scores=scores, seconds=seconds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
