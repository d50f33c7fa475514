"""Fits the deep rankers on Ray Train workers: each takes its share of every batch of users.

All sets of one request (the parts of cross-fitting, and the whole) are fitted one after another by
the same workers, because starting workers takes longer than a small fit.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.checkpoints import Storage
from training.data.ray_session import ray_session
from training.model.deep_ranker import DeepRanker, quantiles
from training.model.ranking import RANKER_FILES
from training.recipe import Recipe

Lists = tuple[np.ndarray, np.ndarray]  # rows float32 [N, K, F], hits bool [N, K]

_RUN_NAME = "ranker"
_USERS_AT_ONCE = 64  # in a step, all workers together
_MOST_FAILURES = 2


def fit_deep(
    sets: Sequence[Lists], recipe: Recipe, seed: int, *, workers: int, storage: Storage | None
) -> list[DeepRanker]:
    """A ranker of the recipe's kind for each set. The users of a set all have a hit."""
    n_bytes = sum(rows.nbytes + hits.nbytes for rows, hits in sets)
    with _place(storage) as place, ray_session(n_bytes) as cpus:
        share = min(1.0, (cpus - 1) / workers)
        config = {"sets": ray.put(list(sets)), "recipe": recipe, "seed": seed}
        trainer = TorchTrainer(
            _work,
            train_loop_config=config,
            scaling_config=train.ScalingConfig(
                num_workers=workers, resources_per_worker={"CPU": share}
            ),
            run_config=place.run_config(
                _RUN_NAME, failure_config=train.FailureConfig(max_failures=_MOST_FAILURES)
            ),
            torch_config=TorchConfig(backend="gloo"),
        )
        result = trainer.fit()
        assert result.checkpoint is not None
        with result.checkpoint.as_directory() as fitted:
            return [_load(Path(fitted) / str(number), recipe) for number in range(len(sets))]


def fit_lists(
    lists: Lists, recipe: Recipe, seed: int, *, rank: int = 0, workers: int = 1
) -> DeepRanker:
    """One ranker, as worker `rank` of `workers` fits it. Nothing depends on their number."""
    rows, hits = lists
    torch.manual_seed(seed)
    filled = ~np.isnan(rows[:, :, 0])
    ranker = DeepRanker(recipe.ranker, torch.from_numpy(quantiles(rows[filled])))
    step = DistributedDataParallel(ranker) if workers > 1 else ranker
    optimiser = torch.optim.AdamW(ranker.parameters(), lr=recipe.ranker_step_size)
    rng = np.random.default_rng(seed)
    for _ in range(recipe.ranker_epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(order), _USERS_AT_ONCE):
            batch = order[start : start + _USERS_AT_ONCE]
            mine = batch[rank::workers]
            if not len(mine):  # a worker must take part; its share counts nothing
                mine, weight = batch[:1], 0.0
            else:
                weight = 1.0
            loss = weight * _loss(step, rows[mine], hits[mine], filled[mine]) / len(batch)
            optimiser.zero_grad()
            # Workers' gradients are averaged, and each holds a part of the sum.
            (loss * workers).backward()
            optimiser.step()
    return ranker.eval()


def _loss(model: nn.Module, rows: np.ndarray, hits: np.ndarray, filled: np.ndarray) -> Tensor:
    """Cross-entropy of each user's hits among the user's candidates, summed over users."""
    users, slots, width = rows.shape
    scores = model(torch.from_numpy(rows.reshape(-1, width))).view(users, slots)
    scores = scores.masked_fill(~torch.from_numpy(filled), -torch.inf)
    target = torch.from_numpy(hits).float()
    share = target / target.sum(1, keepdim=True).clamp(min=1)
    logs = scores.log_softmax(1).masked_fill(share == 0, 0)
    return -(share * logs).sum()


def _work(config: dict[str, Any]) -> None:
    """What every worker does; the first one writes the rankers."""
    context = train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(cores // context.get_local_world_size(), 1))
    sets = ray.get(config["sets"])
    with tempfile.TemporaryDirectory() as directory:
        for place, lists in enumerate(sets):
            ranker = fit_lists(lists, config["recipe"], config["seed"], rank=rank, workers=workers)
            if rank == 0:
                (Path(directory) / str(place)).mkdir()
                ranker.save(Path(directory) / str(place))
        checkpoint = train.Checkpoint.from_directory(directory) if rank == 0 else None
        train.report({}, checkpoint=checkpoint)


def _load(directory: Path, recipe: Recipe) -> DeepRanker:
    return DeepRanker.load(directory / RANKER_FILES[recipe.ranker], recipe.ranker)


@contextmanager
def _place(storage: Storage | None) -> Iterator[Storage]:
    """Where Ray Train keeps its state, without what an earlier fit has left there."""
    if storage is None:
        with tempfile.TemporaryDirectory(prefix="marquee-ranker-") as directory:
            yield Storage.open(directory)
        return
    storage.remove(_RUN_NAME)
    yield storage
    storage.remove(_RUN_NAME)
