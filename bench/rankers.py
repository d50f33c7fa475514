"""Compares the second stage's kinds on one run: what each brings, and what it costs a request.

All are cross-fitted on the same candidates of the same validation users, as `marquee train` does
with the one that the recipe names; TEST is not read.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.blend import blend_towers
from training.data.dataset import Dataset, load
from training.data.splits import TRAIN, Split
from training.evaluate import fold_events
from training.model.blend import BlendedTower, Tower, load_tower
from training.model.rankers import RankingModel
from training.model.ranking import DEEP, LAMBDAMART, RANKER_FEATURES, XGBOOST
from training.model.two_tower import UserTower
from training.rank import candidate_groups, cross_fit, divide_validation, parts, quality_of
from training.ranker_fit import Groups
from training.run import MODEL, Run

KINDS = (LAMBDAMART, XGBOOST, *DEEP)
CANDIDATES = 100  # that serving ranks by default
_REQUESTS = 300  # whose cost is measured


def bench_rankers(
    directory: Path,
    *,
    kinds: tuple[str, ...],
    workers: int,
    most_users: int | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Figures of each kind for the finished run in `directory`.

    workers: of Ray Train, for the deep kinds. most_users: drawn of those that train the run's
        ranker; None is all of them.
    """
    run = Run.read(directory)
    dataset = load(run.data)
    cut = run.split(dataset)
    users = divide_validation(cut, dataset.user, run.recipe, run.seed).ranker
    if most_users is not None and most_users < len(users):
        users = np.sort(np.random.default_rng(run.seed).permutation(users)[:most_users])
    report(f"Candidates of {len(users)} users")
    tower = tower_of_train(directory, run, dataset, cut)
    groups = candidate_groups(dataset, cut, users, tower, run.recipe.candidates, run.seed)
    own = quality_of(
        groups,
        np.nan_to_num(groups.rows[:, :, RANKER_FEATURES.index("tower_score")], nan=-np.inf),
        parts(groups, run.seed),
        run.seed,
    )
    figures: dict[str, Any] = {
        "protocol": run.protocol,
        "split_hash": cut.hash,
        "seed": run.seed,
        "users": len(users),
        "candidates": run.recipe.candidates,
        "request_candidates": min(CANDIDATES, run.recipe.candidates),
        "rankers": {"tower": own.to_json()},
    }
    for kind in kinds:
        report(f"Fitting {kind}")
        recipe = run.recipe.model_copy(update={"ranker": kind})
        began = time.perf_counter()
        model, quality = cross_fit(groups, recipe, run.seed, workers=workers)
        seconds = round(time.perf_counter() - began, 1)
        cost = {"fit_s": seconds, "ms_per_request": request_ms(model, groups)}
        figures["rankers"][kind] = quality.to_json() | cost
        report(f"{kind}: {figures['rankers'][kind]}")
    return figures


def tower_of_train(directory: Path, run: Run, dataset: Dataset, cut: Split) -> Tower:
    """The run's tower before its blend learned VALIDATION, on which rankers are to be judged."""
    tower = load_tower(directory / MODEL)
    if run.blend is None or not isinstance(tower, BlendedTower):
        return tower
    learned = tower.parts[0]
    assert isinstance(learned, UserTower)
    return blend_towers(learned, fold_events(dataset, cut, TRAIN), run.blend["weights"], run.seed)


def request_ms(model: RankingModel, groups: Groups) -> float:
    """Median time to score one user's first candidates, on one thread, milliseconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        for number in range(_REQUESTS):
            rows = np.ascontiguousarray(groups.rows[number % len(groups.rows), :CANDIDATES])
            began = time.perf_counter()
            model.predict(rows)
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return round(1000 * float(np.median(times)), 3)
