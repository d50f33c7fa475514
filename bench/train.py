"""How fast the towers are trained: events, multiplications, growth, and beside RecTools' SASRec.

One process with all its threads, without Ray, on made-up events: the time of a step does not depend
on what is in it. An epoch is the steps alone, without validation.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.towers import Report
from training.baselines import Events
from training.fit import Learner, TrainingData
from training.recipe import Recipe
from training.sasrec import SasrecSettings, fit_sasrec, rectools_directory

LEAST_EVENTS = 20  # of a user, as in MovieLens
MEAN_EVENTS = 165  # of a user, as in MovieLens 1M
ACTIVITY_SIGMA = 1.1
FEATURES = 30  # of an item: genres and years
COUNTED_EVENTS = 20_000  # whose multiplications are counted
GEMM_S = 0.2  # time that each shape is repeated for
EQUAL = {"encoder": "transformer", "transformer_blocks": 2, "transformer_heads": 4}

_aten = torch.ops.aten


@dataclass(frozen=True)
class Gemm:
    """A matrix product of batch x m x k by k x n numbers."""

    batch: int
    m: int
    k: int
    n: int
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.m * self.k * self.n


class GemmCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products of what runs inside it, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[Gemm] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _aten.mm.default:
            self._add(1, args[0], args[1])
        elif func is _aten.addmm.default:
            self._add(1, args[1], args[2])
        elif func is _aten.bmm.default:
            self._add(len(args[0]), args[0], args[1])
        return func(*args, **(kwargs or {}))

    def _add(self, batch: int, left: Tensor, right: Tensor) -> None:
        m, k = left.shape[-2:]
        self.counts[Gemm(batch, m, k, right.shape[-1], left.dtype)] += 1

    @property
    def flops(self) -> int:
        """Of all products together."""
        return sum(gemm.flops * count for gemm, count in self.counts.items())


def bench_train(
    sizes: tuple[int, ...],
    *,
    items: int,
    compared_events: int,
    recipe: Recipe,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Figures for made-up data sets of `sizes` events.

    compared_events: of the data set that RecTools' SASRec and our transformer of its size learn
        one epoch from; 0, or RecTools not installed, leaves the comparison out.
    """
    figures: dict[str, Any] = {
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "items": items,
        "recipe": {"encoder": recipe.encoder, "loss": recipe.loss},
        "sizes": {},
    }
    for size in sizes:
        report(f"One epoch of {size:,} events")
        figures["sizes"][str(size)] = _measured(recipe, made_up(size, items, seed), seed)
    first, last = (figures["sizes"][str(size)] for size in (sizes[0], sizes[-1]))
    if len(sizes) > 1:
        times = last["epoch_s"] / first["epoch_s"]
        figures["growth"] = {"events": sizes[-1] / sizes[0], "time": round(times, 2)}
    if compared_events and rectools_directory() is not None:
        figures["sasrec"] = _compared(recipe, made_up(compared_events, items, seed), seed, report)
    return figures


def made_up(events: int, items: int, seed: int) -> TrainingData:
    """Users with log-normal numbers of events, items by Zipf; nothing in it can be learned."""
    rng = np.random.default_rng(seed)
    users = max(events // MEAN_EVENTS, 1)
    weight = rng.lognormal(0, ACTIVITY_SIGMA, users)
    counts = LEAST_EVENTS + np.floor(
        weight / weight.sum() * max(events - users * LEAST_EVENTS, 0)
    ).astype(np.int64)
    counts[0] = max(counts[0] + events - counts.sum(), 1)  # what rounding left over
    share = np.cumsum(1 / np.arange(1, items + 1))
    item = np.searchsorted(share / share[-1], rng.random(int(counts.sum()))).astype(np.int32)
    user = np.repeat(np.arange(users), counts).astype(np.int32)
    train = Events(user, item, None, users, items)
    validation = Events(user[:1], item[:1], None, users, items)
    features = rng.random((items, FEATURES)).astype(np.float32)
    return TrainingData(train, validation, features, np.ones(items, bool))


def _measured(recipe: Recipe, data: TrainingData, seed: int) -> dict[str, Any]:
    """An epoch's time, and what it multiplied beside products of the same shapes alone."""
    events = len(data.train.item)
    small = made_up(min(COUNTED_EVENTS, events), data.train.n_items, seed)
    counter = GemmCounter()
    with counter:  # first: it warms up, too
        Learner(recipe, small, seed=seed).run_epoch(0)
    seconds = _epoch_s(recipe, data, seed)
    achieved = counter.flops * events / len(small.train.item) / seconds
    alone = counter.flops / gemm_s(counter.counts)
    return {
        "events": events,
        "epoch_s": float(f"{seconds:.3g}"),
        "events_per_s": round(events / seconds),
        "gflop_per_s": float(f"{achieved / 1e9:.3g}"),
        "gemm_gflop_per_s": float(f"{alone / 1e9:.3g}"),
        "of_gemm": round(achieved / alone, 3),
    }


def _epoch_s(recipe: Recipe, data: TrainingData, seed: int) -> float:
    learner = Learner(recipe, data, seed=seed)
    began = time.perf_counter()
    learner.run_epoch(0)
    return time.perf_counter() - began


def gemm_s(counts: Counter[Gemm]) -> float:
    """Time of all these products, each shape repeated and its share of the time counted.

    Shapes that differ in the number of rows alone, as batches of unlike lengths do, are measured
    once, at the largest.
    """
    alike: dict[tuple[int, int, int, torch.dtype], list[Gemm]] = {}
    for gemm in counts:
        alike.setdefault((gemm.batch, gemm.k, gemm.n, gemm.dtype), []).append(gemm)
    total = 0.0
    for group in alike.values():
        largest = max(group, key=lambda gemm: gemm.flops)
        flops = sum(gemm.flops * counts[gemm] for gemm in group)
        total += flops / _rate(largest)
    return total


def _rate(gemm: Gemm) -> float:
    """FLOP/s of one product, repeated."""
    left = torch.rand(gemm.batch, gemm.m, gemm.k).to(gemm.dtype)
    right = torch.rand(gemm.batch, gemm.k, gemm.n).to(gemm.dtype)
    out = torch.bmm(left, right)
    began, repeats = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < GEMM_S:
        torch.bmm(left, right, out=out)
        repeats += 1
    return gemm.flops * repeats / seconds


def _compared(recipe: Recipe, data: TrainingData, seed: int, report: Report) -> dict[str, Any]:
    """An epoch of RecTools' SASRec and of our transformer, of equal width, blocks and history."""
    settings = SasrecSettings(n_factors=128, n_blocks=2, n_heads=4, epochs=1)
    equal = recipe.model_copy(update={**EQUAL, "history_length": settings.session_max_len})
    report(f"One epoch of our transformer, {len(data.train.item):,} events")
    ours = _epoch_s(equal, data, seed)
    report("One epoch of our own tower")
    tower = _epoch_s(recipe, data, seed)
    report("One epoch of RecTools' SASRec")
    theirs = fit_sasrec(data.train, seed, settings).seconds
    return {
        "events": len(data.train.item),
        "shape": {"width": 128, "blocks": 2, "heads": 4, "history": settings.session_max_len},
        "transformer_epoch_s": round(ours, 1),
        "tower_epoch_s": round(tower, 1),
        "rectools_epoch_s": round(theirs, 1),
        "rectools_over_transformer": round(theirs / ours, 2),
        "rectools_over_tower": round(theirs / tower, 2),
    }
