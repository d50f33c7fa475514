"""Fits the towers on Ray Train workers. A checkpoint follows every epoch.

A run that was killed goes on from its last whole checkpoint. All that is random is drawn from the
seed, the epoch and the worker's rank, so it ends where it would have ended.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray
import torch
from ray import train
from ray.actor import ActorHandle
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from training.checkpoints import Storage
from training.data.ray_session import ray_session
from training.fit import CPU, BrokenState, Learner, TrainingData, epochs_saved
from training.model.two_tower import UserTower
from training.run import Epoch, Run
from training.workers import Workers

OnEpoch = Callable[[Epoch], None]
Report = Callable[[str], None]

_RUN_NAME = "towers"  # resuming is starting again under the same name in the same storage
_SELECTION = "ndcg"
_POLL_S = 0.2


@dataclass(frozen=True)
class Fitted:
    """The user tower of the best epoch, holding its item vectors, and what was reported."""

    tower: UserTower
    best: Epoch
    epochs: list[Epoch]


@dataclass(frozen=True)
class Saved:
    """A checkpoint that can be read, and the epochs up to it."""

    checkpoint: train.Checkpoint
    epochs: list[Epoch]


def fit_towers(
    run: Run,
    data: TrainingData,
    workers: Workers,
    storage: Storage,
    on_epoch: OnEpoch,
    report: Report,
) -> Fitted:
    """Train until the recipe's last epoch, or until `patience` epochs brought nothing better.

    storage: of the checkpoints; those of the same run are gone on with.
    on_epoch: called after each epoch that runs now, from another thread.
    report: told of checkpoints that were cut off.
    """
    begun, broken = saved(storage)
    if broken:
        last = f"going on after epoch {len(begun[-1].epochs)}" if begun else "beginning again"
        report(f"{storage.address}: {broken} was cut off, {last}")
    with ray_session(_bytes(data)) as cpus:
        # On this node: if another one dies, the workers that are left go on.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        log = ray.remote(num_cpus=0, scheduling_strategy=here)(_EpochLog).remote()
        config = {
            "run": run,
            "data": ray.put(data),
            "log": log,
            "gpu": workers.gpu,
            "from": begun[-1].checkpoint if begun else None,
        }
        storage.forget(_RUN_NAME)
        trainer = TorchTrainer(
            _work,
            train_loop_config=config,
            scaling_config=workers.scaling(cpus),
            run_config=_run_config(storage, workers.most_failures),
            torch_config=TorchConfig(backend=workers.backend),
        )
        with _following(log, on_epoch):
            trainer.fit()
    whole, _ = saved(storage)
    epochs = whole[-1].epochs
    # Of epochs that were run again after a failure, the ones that led to the end.
    kept = [some for some in whole if some.epochs == epochs[: len(some.epochs)]]
    best = max(kept, key=lambda some: some.epochs[-1].ndcg)
    learner = Learner(run.recipe, data, seed=run.seed)
    _load(learner, best.checkpoint)
    return Fitted(learner.tower(), best.epochs[-1], epochs)


def saved(storage: Storage) -> tuple[list[Saved], str | None]:
    """The whole checkpoints of a run, of fewer epochs first, of as many the older first.

    Also the name of the newest checkpoint of all, where that one cannot be read.
    """
    whole, broken = list[Saved](), None
    for checkpoint in storage.checkpoints(_RUN_NAME):
        try:
            with checkpoint.as_directory() as directory:
                epochs = [Epoch(**epoch) for epoch in epochs_saved(Path(directory))]
        except BrokenState:
            broken = Path(checkpoint.path).name
        else:
            whole.append(Saved(checkpoint, epochs))
            broken = None
    return sorted(whole, key=lambda some: len(some.epochs)), broken


def _work(config: dict[str, Any]) -> None:
    """What every worker does: epochs, until they are all done or stop getting better."""
    run: Run = config["run"]
    context = train.get_context()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(cores // context.get_local_world_size(), 1))
    rank = context.get_world_rank()
    device = get_device() if config["gpu"] else CPU
    if config["gpu"] and device.type == "cpu":
        raise RuntimeError("Ray gave this worker a GPU that its PyTorch cannot use")
    learner = Learner(
        run.recipe,
        ray.get(config["data"]),
        seed=run.seed,
        rank=rank,
        workers=context.get_world_size(),
        device=device,
    )
    checkpoint = train.get_checkpoint() or config["from"]
    epochs = _load(learner, checkpoint) if checkpoint else []
    while not _done(epochs, run):
        started = time.monotonic()
        loss = learner.run_epoch(len(epochs))
        ndcg = learner.validate()
        seconds = round(time.monotonic() - started, 2)
        epochs.append(Epoch(epoch=len(epochs) + 1, loss=loss, ndcg=ndcg, seconds=seconds))
        _report(learner, epochs, rank)
        if rank == 0:
            ray.get(config["log"].add.remote(epochs[-1]))


def _report(learner: Learner, epochs: list[Epoch], rank: int) -> None:
    """Report the last epoch with a checkpoint, which all workers hold and the first one writes."""
    metrics = {_SELECTION: epochs[-1].ndcg}
    if rank != 0:
        train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as directory:
        learner.save(Path(directory), [epoch.model_dump() for epoch in epochs])
        train.report(metrics, checkpoint=train.Checkpoint.from_directory(directory))


def _load(learner: Learner, checkpoint: train.Checkpoint) -> list[Epoch]:
    """Take up a checkpoint; returns the epochs up to it."""
    with checkpoint.as_directory() as directory:
        return [Epoch(**epoch) for epoch in learner.load(Path(directory))]


def _done(epochs: list[Epoch], run: Run) -> bool:
    """Whether all epochs have run, or the last `patience` of them brought nothing better."""
    if len(epochs) >= run.recipe.epochs:
        return True
    scores = [epoch.ndcg for epoch in epochs]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= run.recipe.patience


def _run_config(storage: Storage, most_failures: int) -> train.RunConfig:
    return storage.run_config(
        _RUN_NAME,
        # A worker that is lost takes all down; they start again from the last epoch's checkpoint.
        failure_config=train.FailureConfig(max_failures=most_failures),
        checkpoint_config=train.CheckpointConfig(
            num_to_keep=1,  # the best; Ray keeps the latest besides
            checkpoint_score_attribute=_SELECTION,
            checkpoint_score_order="max",
        ),
    )


def _bytes(data: TrainingData) -> int:
    events = (data.train, data.validation)
    columns = [column for part in events for column in (part.user, part.item)]
    return sum(array.nbytes for array in (*columns, data.item_features, data.catalogue))


class _EpochLog:
    """An actor that the first worker tells of its epochs and that the driver asks."""

    def __init__(self) -> None:
        self._epochs: list[Epoch] = []

    def add(self, epoch: Epoch) -> None:
        self._epochs.append(epoch)

    def since(self, count: int) -> list[Epoch]:
        """The epochs after the first `count`."""
        return self._epochs[count:]


@contextmanager
def _following(log: ActorHandle, on_epoch: OnEpoch) -> Iterator[None]:
    """Call `on_epoch` for every epoch in the log while the block runs, and at its end."""
    ended, failures = Event(), list[Exception]()

    def follow() -> None:
        seen, last_look = 0, False
        while not last_look:
            last_look = ended.wait(_POLL_S)
            for epoch in ray.get(log.since.remote(seen)):
                on_epoch(epoch)
                seen += 1

    def guarded() -> None:
        try:
            follow()
        except Exception as failure:  # carried over to the caller's thread
            failures.append(failure)

    follower = Thread(target=guarded, name="epoch-log", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
    if failures:
        raise failures[0]
