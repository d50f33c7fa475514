"""Exact search of a small catalogue: one matrix product for the whole batch (docs/adr/0025).

The product of all users with all items is one call, where the engine makes a Python object of every
hit. So it is quicker even where the engine walks through a graph, and misses nothing (of large
catalogues, an item in 10^9, see ByteProduct). Requests with conditions on the items are not for
this: the engine has the payload indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.domain import Candidates, Float32s, Int32s, Int64s

# Vectors up to this are scanned: 80,000 items of 128 coordinates. It grows with the items, the
# engine's walk hardly does.
SCAN_BYTES = 40 * 2**20

# From 16,000 items of 128 coordinates the product is most of a scan, and multiplying bytes is
# worth the import of torch.
_IN_BYTES_FROM = 8 * 2**20

# Items whose scores are compared group by group: so many groups leave few of the best in one
# group, and looking for the largest of their maxima takes a hundredth of a millisecond.
_GROUPS = 2048

_LARGEST_BYTE = 127

# An item among the best is overlooked when rounding errors of so many standard deviations meet:
# one in 10^9.
_DEVIATIONS = 6


class ExactScan:
    """Item vectors in memory, item_idx as rows."""

    def __init__(self, item_vectors: Float32s, *, in_bytes: bool | None = None) -> None:
        """item_vectors: float32[I,D], of which a copy is kept.

        in_bytes: multiply bytes first; None: where that is quicker.
        """
        n_items = len(item_vectors)
        width = -(-n_items // _GROUPS) * min(n_items, _GROUPS)  # whole groups
        if in_bytes is None:
            in_bytes = item_vectors.nbytes >= _IN_BYTES_FROM and multiplies_bytes()
        self._product: _Product = (ByteProduct if in_bytes else FloatProduct)(item_vectors, width)
        self._n_items = n_items

    def search(
        self, vectors: Float32s, excluded: Sequence[Int32s], limits: Sequence[int]
    ) -> Candidates:
        """vectors float32[B,D] -> at most limits[b] items for row b, best first, none of
        excluded[b] (item_idx). Equal scores come in no promised order."""
        width = min(max(limits, default=0), self._n_items)
        items = np.full((len(vectors), width), -1, np.int32)
        scores = np.full((len(vectors), width), -np.inf, np.float32)
        if not items.size:
            return Candidates(items, scores)
        compared, slack = self._product.of(vectors)
        never = _least(compared)
        compared[:, self._n_items :] = never
        for row, absent in enumerate(excluded):
            compared[row, absent] = never
        floors = _floors(compared, width)
        filled = 0
        for row, (limit, floor) in enumerate(zip(limits, floors.tolist(), strict=True)):
            enough = max(floor - slack[row], never)
            among = np.flatnonzero(compared[row] >= enough)
            if enough == never:
                among = among[compared[row, among] > never]
            exact = self._product.exactly(vectors[row], among, compared[row])
            best = np.argsort(-exact)[:limit]
            items[row, : len(best)], scores[row, : len(best)] = among[best], exact[best]
            filled = max(filled, len(best))
        return Candidates(items[:, :filled], scores[:, :filled])


class _Product(Protocol):
    """Users times items: numbers to compare, and exact scores of those that may win."""

    def of(self, vectors: Float32s) -> tuple[npt.NDArray[Any], Sequence[float]]:
        """float32[B,D] -> [B,W] to compare within a row and, for each row, how far an item may
        lie below another one there and have the higher score."""

    def exactly(self, vector: Float32s, items: Int64s, compared: npt.NDArray[Any]) -> Float32s:
        """float32[D], columns of that vector's row of the product -> their scores."""


class FloatProduct:
    """The scores themselves."""

    def __init__(self, item_vectors: Float32s, width: int) -> None:
        """item_vectors: float32[I,D], filled up with zeros to `width` items."""
        self._columns = np.zeros((item_vectors.shape[1], width), np.float32)
        self._columns[:, : len(item_vectors)] = item_vectors.T

    def of(self, vectors: Float32s) -> tuple[Float32s, Sequence[float]]:
        """See _Product: exact, so nothing lies below."""
        return vectors @ self._columns, [0.0] * len(vectors)

    def exactly(self, vector: Float32s, items: Int64s, compared: Float32s) -> Float32s:
        """See _Product."""
        scores: Float32s = compared[items]
        return scores


class ByteProduct:
    """Both sides rounded to bytes, a quarter of the memory and of the time; what is close enough
    to win is scored from the vectors as they are.

    Few coordinates of trained vectors are large, above all the item's bias, and would make a step
    that is coarse for the others. So both sides are turned into another basis, a random one, in
    which all coordinates are about as large, and the items' mean is taken away, which adds the same
    to all of a user's scores.

    With u = a u' + e and v = b v' + f (a, b the steps, u' and v' whole numbers), u.v differs from
    a b u'.v' by u.f + e.(b v'). Rounding errors of D coordinates know nothing of each other nor of
    the vectors, so that the standard deviation of this is
    ``sqrt((|u|^2 |f|^2 + |e|^2 |b v'|^2) / D)``.
    """

    def __init__(self, item_vectors: Float32s, width: int) -> None:
        """item_vectors: float32[I,D], filled up with zeros to `width` items."""
        import torch  # a second and 150 MB, only for catalogues that gain by it

        self._vectors = np.asarray(item_vectors)  # a memory map's own indexing is slow
        self._basis = _basis(item_vectors.shape[1])
        turned = (self._vectors - self._vectors.mean(axis=0)) @ self._basis
        rounded, step = _rounded(turned, np.abs(turned).max())
        self._step = float(step)
        known = rounded.astype(np.float32) * step
        self._largest_error = float(np.linalg.norm(turned - known, axis=1).max())
        self._largest_norm = float(np.linalg.norm(known, axis=1).max())
        filled = np.zeros((width, item_vectors.shape[1]), np.int8)
        filled[: len(rounded)] = rounded
        self._columns = torch.from_numpy(filled).t()
        self._from_numpy, self._multiply = torch.from_numpy, torch._int_mm

    def of(self, vectors: Float32s) -> tuple[Int32s, Sequence[float]]:
        """See _Product: int32, in products of the two steps."""
        turned = vectors @ self._basis
        rounded, steps = _rounded(turned, np.abs(turned).max(axis=1, keepdims=True))
        compared: Int32s = self._multiply(self._from_numpy(rounded), self._columns).numpy()
        errors = np.linalg.norm(turned - rounded * steps, axis=1)
        deviation = np.hypot(
            np.linalg.norm(vectors, axis=1) * self._largest_error, errors * self._largest_norm
        ) / np.sqrt(vectors.shape[1])
        # Two such errors lie between an item and the floor.
        slack = _DEVIATIONS * np.sqrt(2) * deviation / (steps[:, 0] * self._step)
        # Whole numbers: NumPy compares int32 with a float at a third of the speed.
        return compared, [int(units) + 1 for units in slack]

    def exactly(self, vector: Float32s, items: Int64s, compared: Int32s) -> Float32s:
        """See _Product."""
        scores: Float32s = self._vectors.take(items, axis=0) @ vector
        return scores


def multiplies_bytes() -> bool:
    """Whether the processor has instructions for it; without them floats are the quicker."""
    import torch

    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_vnni") or has.get("amx_int8"))


def _basis(dimensions: int) -> Float32s:
    """A random orthonormal basis, float32[D,D], always the same."""
    directions = np.random.default_rng(0).normal(size=(dimensions, dimensions))
    basis: Float32s = np.linalg.qr(directions)[0].astype(np.float32)
    return basis


def _rounded(
    values: Float32s, largest: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """`values` as int8 in steps of a 127th of `largest`, and the steps."""
    least = _LARGEST_BYTE * np.finfo(np.float32).tiny  # of a row of zeros
    steps = (np.maximum(largest, least) / _LARGEST_BYTE).astype(np.float32)
    return np.rint(values / steps).astype(np.int8), steps


def _floors(compared: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """For each row a value that at least `width` of its columns reach, and few more.

    The `width` groups with the largest maxima hold an item each that reaches the least of these.
    """
    rows, columns = compared.shape
    groups = min(columns, _GROUPS)
    if width > groups:
        return np.full(rows, _least(compared))
    # Column c belongs to group c % groups, so that the maxima are taken along whole rows.
    maxima = compared.reshape(rows, columns // groups, groups).max(axis=1)
    floors: npt.NDArray[Any] = np.partition(maxima, groups - width, axis=1)[:, groups - width]
    return floors


def _least(compared: npt.NDArray[Any]) -> float:
    """What stands for "never" in the product."""
    return -np.inf if compared.dtype.kind == "f" else int(np.iinfo(compared.dtype).min)
