"""How good the neighbours of items are: by the tower's vectors and by who has what.

``python -m bench.neighbours BUNDLE [TITLE ...]`` prints JSON: figures that need nobody's eye,
and the neighbours of the films whose titles begin so.

series  Of the other films of an item's series or remakes, the share among its ten neighbours.
        Titles that are alike up to a number or a colon are of one series.
genres  The mean Jaccard index of the genres of an item and its ten neighbours.
next    Of users whose last item is left out of the counting, the share for whom it is among the ten
        neighbours of the one before. A bundle's vectors knew it or not as its split says:
        under leave-one-out they did not.

Series and genres are means over the items that at least 20 users have.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.domain import Float32s, Int32s, Int64s
from app.stages.explain import ExplainStage
from training.model.bundle import Bundle
from training.neighbours import neighbours

_K = 10
_USERS_LEAST = 20


def run(path: Path, titles: list[str]) -> dict[str, Any]:
    """Way -> figures and the neighbours of `titles`."""
    bundle = Bundle.open(path, verify=False)
    shown = [_named(bundle, title) for title in titles]
    met = np.bincount(bundle.user_history, minlength=len(bundle.items)) >= _USERS_LEAST
    ways = {
        "vectors": (_by_vectors(bundle),) * 2,
        "co-consumption": (
            _by_users(bundle, bundle.user_history, bundle.user_offsets),
            _by_users(bundle, *_without_last(bundle)),
        ),
    }
    return {
        way: {
            "series": _series(bundle, met, near),
            "genres": _genres(bundle, met, near),
            "next": _next(bundle, near_before),
            "of": {
                bundle.items.titles[item]: [bundle.items.names[i] for i in near[item].tolist()]
                for item in shown
            },
        }
        for way, (near, near_before) in ways.items()
    }


def _by_vectors(bundle: Bundle) -> Int32s:
    nobody = np.empty((len(bundle.items), 0))
    return _served(bundle, nobody.astype(np.int32), nobody.astype(np.float32))


def _by_users(bundle: Bundle, history: Int32s, offsets: Int64s) -> Int32s:
    return _served(bundle, *neighbours(history, offsets, len(bundle.items)))


def _served(bundle: Bundle, near: Int32s, weight: Float32s) -> Int32s:
    """int32 [I, 10]: what `/similar` answers."""
    stage = ExplainStage(replace(bundle, neighbours=near, neighbour_weights=weight))
    return np.stack([stage.neighbours(item, _K)[0] for item in range(len(bundle.items))])


def _without_last(bundle: Bundle) -> tuple[Int32s, Int64s]:
    """Histories and offsets, each without its last event."""
    offsets = bundle.user_offsets
    lengths = np.diff(offsets)
    history = np.delete(bundle.user_history, offsets[1:][lengths > 0] - 1)
    return history, np.concatenate([[0], np.cumsum(np.maximum(lengths - 1, 0))])


def _series(bundle: Bundle, met: np.ndarray, near: Int32s) -> float:
    members = defaultdict(list)
    for item in np.flatnonzero(met).tolist():
        members[_stem(bundle.items.names[item])].append(item)
    shares = [
        np.isin([other for other in series if other != item], near[item]).mean()
        for series in members.values()
        if len(series) > 1
        for item in series
    ]
    return round(float(np.mean(shares)), 3)


def _stem(name: str) -> str:
    """ "toy story" of "Toy Story 2", "star wars" of "Star Wars: Episode IV - A New Hope"."""
    first = re.split(r"[:(]| - ", name.lower())[0]
    return re.sub(r"( part)?( [ivx]+| \d+)*$", "", first.strip())


def _genres(bundle: Bundle, met: np.ndarray, near: Int32s) -> float:
    has = bundle.genre_matrix > 0
    both = (has[:, None] & has[near]).sum(axis=2)
    either = (has[:, None] | has[near]).sum(axis=2)
    return round(float((both / np.maximum(either, 1))[met].mean()), 3)


def _next(bundle: Bundle, near: Int32s) -> float:
    ends = bundle.user_offsets[1:][np.diff(bundle.user_offsets) > 1]
    last, before = bundle.user_history[ends - 1], bundle.user_history[ends - 2]
    return round(float((near[before] == last[:, None]).any(axis=1).mean()), 4)


def _named(bundle: Bundle, title: str) -> int:
    found = [i for i, name in enumerate(bundle.items.names) if name.startswith(title)]
    if not found:
        raise SystemExit(f"no title begins with {title!r}")
    return found[0]


def main() -> None:
    """Measure the bundle named on the command line; JSON on stdout."""
    json.dump(run(Path(sys.argv[1]), sys.argv[2:]), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
