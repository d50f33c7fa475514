"""What both Qdrant adapters do alike: when to scan, what is short, hits as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from app.domain import Candidates, SearchFilter
from training.model.bundle import FULL_SCAN_KB, Bundle

# HNSW's beam is as wide as the limit. From about this many results on, an exact scan of 62,000
# items takes no longer than the beam and misses nothing (the beam found 84% of the top 1000).
EXACT_FROM_LIMIT = 256


class Hit(Protocol):
    """A scored point; its id is an item_idx."""

    @property
    def id(self) -> int: ...

    @property
    def score(self) -> float: ...


def is_approximate(bundle: Bundle) -> bool:
    """Whether searches may go through the HNSW graph, and so may miss items."""
    return bundle.item_vectors.nbytes > FULL_SCAN_KB * 1024


def has_conditions(wanted: SearchFilter) -> bool:
    """Whether anything but the exclusions decides which items match."""
    return bool(
        wanted.genres
        or wanted.min_rating is not None
        or wanted.year_from is not None
        or wanted.year_to is not None
    )


def least_rating(min_rating: float) -> float:
    """The bound to compare float32 averages with, so that 3.6 finds what is shown as 3.6."""
    return float(np.float32(min_rating))


def short_rows(rows: Sequence[Sequence[object]], limits: Sequence[int]) -> list[int]:
    """Rows with fewer hits than asked for.

    The graph comes back short under a filter that cuts it into islands. Such rows are searched
    again exactly, so that in the end a row is short only when the catalogue has no more.
    """
    return [
        b for b, (hits, limit) in enumerate(zip(rows, limits, strict=True)) if len(hits) < limit
    ]


def as_candidates(rows: Sequence[Sequence[Hit]]) -> Candidates:
    """Rows of hits, best first, as arrays padded with item -1 and score -inf."""
    width = max(map(len, rows), default=0)
    items = np.full((len(rows), width), -1, np.int32)
    scores = np.full((len(rows), width), -np.inf, np.float32)
    for b, hits in enumerate(rows):
        items[b, : len(hits)] = [hit.id for hit in hits]
        scores[b, : len(hits)] = [hit.score for hit in hits]
    return Candidates(items, scores)


def merge_rows(n_rows: int, parts: Mapping[tuple[int, ...], Candidates]) -> Candidates:
    """Candidates of parts of a batch as those of the batch; a key names its part's rows."""
    width = max((part.items.shape[1] for part in parts.values()), default=0)
    items = np.full((n_rows, width), -1, np.int32)
    scores = np.full((n_rows, width), -np.inf, np.float32)
    for rows, part in parts.items():
        items[list(rows), : part.items.shape[1]] = part.items
        scores[list(rows), : part.items.shape[1]] = part.scores
    return Candidates(items, scores)
