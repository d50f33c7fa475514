"""What each stage costs by itself: real histories through the served bundle, in this process.

``python -m bench.stages BUNDLE`` prints JSON; `measure` runs it in a process of its own with one
thread for its products, as a replica has. Times are of the processor, the median of many batches:
on an idle machine they are those of the wall clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

_BATCHES = (1, 16, 64)
_REPEATS = 60
_CANDIDATES = 100
_SLATE = 10


def measure(bundle: Path) -> dict[str, Any]:
    """Batch size -> stage -> milliseconds per query. Raises CalledProcessError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.stages", str(bundle)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def run(path: Path) -> dict[str, dict[str, float]]:
    """The same in this process."""
    import numpy as np

    from app.adapters.indexes import open_index
    from app.adapters.local_stages import LocalStages
    from app.settings import Settings
    from training.model.bundle import Bundle

    bundle = Bundle.open(path, verify=False)
    settings = Settings(store=str(path), qdrant_url="")
    stages = LocalStages(
        lambda version: path,
        lambda found: open_index(settings, found),
        rank_depth=_CANDIDATES,  # more than is ranked by default
    )
    users = np.random.default_rng(0).choice(bundle.user_ids, max(_BATCHES) * 4).tolist()
    return {str(size): _Batch(bundle, stages, users, size).costs() for size in _BATCHES}


class _Batch:
    """Stage by stage over batches of one size."""

    def __init__(self, bundle: Any, stages: Any, users: list[Any], size: int) -> None:
        from app.models import Model

        self._model = Model.load(bundle)
        self._stages = stages
        self._size = size
        self._batches = [users[n : n + size] for n in range(0, len(users) - size + 1, size)]

    def costs(self) -> dict[str, float]:
        times: dict[str, list[float]] = {}
        with asyncio.Runner() as runner:
            for repeat in range(_REPEATS):
                batch = self._batches[repeat % len(self._batches)]
                runner.run(self._walk(batch, times))
        return {
            f"{stage}_ms": round(median(taken[5:]) * 1000 / self._size, 4)
            for stage, taken in times.items()
        }

    async def _walk(self, users: list[Any], times: dict[str, list[float]]) -> None:
        from app.domain import Query, SearchFilter, UserEvents
        from app.stages.history import batch_histories, known

        def clock(stage: str, since: float) -> None:
            times.setdefault(stage, []).append(process_time() - since)

        model, version = self._model, self._model.version
        since = process_time()
        who = [user.decode() if isinstance(user, bytes) else user for user in users]
        found = [known(model.bundle, Query(user), UserEvents()) for user in who]
        histories = batch_histories(found)
        clock("history", since)
        since = process_time()
        vectors = await self._stages.embed(version, histories)
        clock("embed", since)
        wanted = [SearchFilter(exclude=user.excluded) for user in found]
        since = process_time()
        limits = [_CANDIDATES] * len(found)
        candidates = await self._stages.retrieve(version, vectors, wanted, limits)
        clock("retrieve", since)
        since = process_time()
        await self._stages.rank(version, histories, candidates)
        clock("rank", since)
        since = process_time()
        rows = [row for row, user in enumerate(found) if len(user.history)]
        items = [candidates.items[row, :_SLATE] for row in rows]
        scores = [candidates.scores[row, :_SLATE] for row in rows]
        because = model.explain.because(items, [found[row].history for row in rows])
        model.render.slates(items, scores, because)
        clock("slate", since)


def main() -> None:
    """Measure the bundle named on the command line; JSON on stdout."""
    json.dump(run(Path(sys.argv[1])), sys.stdout)


if __name__ == "__main__":
    main()
