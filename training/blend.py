"""Blends the learned tower with a linear one and with popularity, and squeezes them into one.

Each part is good at something else: the learned tower at order, the linear one at what goes with
what, popularity at what everybody watches. How much each counts is chosen on the users that chose
the epoch, and the blend is kept only where it helps them beyond chance. Shape legend as in
training/model/blend.py; C choosing users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from training.baselines import Events, recency_weights
from training.evaluate import Known, rank_catalogue
from training.linear import fit_linear
from training.metrics import Interval, gain_interval, hit_matrix, user_metrics
from training.model.blend import BlendedTower, Part, Tower, part_vectors, width
from training.model.two_tower import DIMENSION, UserTower

CUTOFF = 10
LEARNED, LINEAR, POPULARITY, RECENT = "learned", "linear", "popularity", "recent popularity"
# Weights tried of a part. Scores of the linear one are some thirty times as close together as the
# learned one's, so that at the end of the list the learned tower only breaks ties.
_STEPS = (0.0, 0.1, 0.25, 0.5, *(2.0**power for power in range(11)))
_ROUNDS = 3
_CHOOSING_USERS = 2_000  # at most, drawn; they are scored some hundred times
_MAP_USERS = 20_000  # at most, drawn: whose scores the map keeps


@dataclass(frozen=True)
class Blend:
    """weights: of each part's scores. ndcg: NDCG@10 of each part alone and of the blend, on the
    choosing users. gain: of the blend over the learned tower, there."""

    weights: dict[str, float]
    ndcg: dict[str, float]
    gain: Interval

    @property
    def kept(self) -> bool:
        """Whether the gain is more than chance: its interval is above zero."""
        return self.gain.low > 0

    def summary(self) -> dict[str, Any]:
        """What run.json records."""
        return {
            "kept": self.kept,
            "weights": self.weights,
            f"ndcg@{CUTOFF}": self.ndcg,
            f"ndcg@{CUTOFF}_gain": asdict(self.gain),
        }

    def describe(self) -> str:
        """One line for people."""
        used = " + ".join(f"{weight:g} {name}" for name, weight in self.weights.items() if weight)
        verdict = "kept" if self.kept else "not kept, the learned tower serves alone"
        return f"blend: {used}, validation NDCG@{CUTOFF} {self.gain.as_gain}, {verdict}"


def choose_blend(
    learned: UserTower, known: Known, validation: Events, seed: int
) -> tuple[Blend, Tower]:
    """Weights of the parts, chosen on VALIDATION, and the tower they make of TRAIN: the learned one
    itself where the blend is not kept.

    known: TRAIN and what may be recommended. validation: the events of the choosing users.
    """
    users = _draw(np.unique(validation.user), _CHOOSING_USERS, seed)
    judge = _Judge(known, validation, users)
    linear = fit_linear(known.events, DIMENSION - 1)
    scores = {
        name: bias + np.zeros((len(users), 1), np.float32)
        for name, bias in popularities(known.events).items()
    }
    for name, part in ((LEARNED, learned), (LINEAR, linear)):
        history = known.histories(users)
        scores[name] = part.encode_ragged(*history, users) @ part.item_vectors.numpy().T
    each = {name: judge.ndcg(score) for name, score in scores.items()}
    weights = _climb(scores, float(each[LEARNED].mean()), judge)
    each["blend"] = judge.ndcg(sum(weights[name] * score for name, score in scores.items()))
    blend = Blend(
        weights,
        {name: float(ndcg.mean()) for name, ndcg in each.items()},
        gain_interval(each[LEARNED], each["blend"], seed=seed),
    )
    if not blend.kept:
        return blend, learned
    return blend, blend_towers(learned, known.events, weights, seed, linear=linear)


def blend_towers(
    learned: UserTower,
    events: Events,
    weights: Mapping[str, float],
    seed: int,
    *,
    linear: Part | None = None,
) -> BlendedTower:
    """The learned tower, the linear tower and the popularity of `events`, weighted, as one tower.

    linear: the linear tower where it has been fitted on these events already.
    """
    parts: list[Part] = [learned]
    shares = [weights[LEARNED]]
    if weights[LINEAR]:
        parts.append(linear or fit_linear(events, DIMENSION - 1))
        shares.append(weights[LINEAR])
    users = _draw(np.unique(events.user), _MAP_USERS, seed)
    history = Known(events, np.ones(events.n_items, bool)).histories(users)
    vectors = part_vectors(parts, *history, users)
    items = [
        share * part.item_vectors.numpy()[:, : width(part)]
        for part, share in zip(parts, shares, strict=True)
    ]
    mix, item_vectors = _squeeze(vectors, np.concatenate(items, axis=1))
    biases = weights[LEARNED] * learned.item_vectors.numpy()[:, -1]
    for name, score in popularities(events).items():
        biases = biases + weights[name] * score
    whole = np.concatenate([item_vectors, biases[:, None]], axis=1).astype(np.float32)
    return BlendedTower(parts, torch.from_numpy(mix), torch.from_numpy(whole))


def popularities(events: Events) -> dict[str, np.ndarray]:
    """Biases float32 [I] that items can have: logarithms of their events, all and recent ones."""
    counts = np.bincount(events.item, minlength=events.n_items)
    biases = {POPULARITY: np.log1p(counts).astype(np.float32)}
    if events.timestamp is not None:
        weight = recency_weights(events.timestamp)
        recent = np.bincount(events.item, weight, minlength=events.n_items)
        biases[RECENT] = np.log1p(recent).astype(np.float32)
    return biases


class _Judge:
    """NDCG@10 of score matrices [C, I] for the choosing users."""

    def __init__(self, known: Known, validation: Events, users: np.ndarray) -> None:
        self._known, self._users = known, users
        self._relevant, self._offsets = validation.histories(users)

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """Of each user, float [C]."""
        known, users = self._known, self._users
        lists = rank_catalogue(
            lambda some: scores[np.searchsorted(users, some)], users, known, CUTOFF
        )
        hits = hit_matrix(lists.items, self._relevant, self._offsets, scores.shape[1])
        return user_metrics(hits, np.diff(self._offsets), CUTOFF)["ndcg"]


def _climb(scores: Mapping[str, np.ndarray], alone: float, judge: _Judge) -> dict[str, float]:
    """Weights that are best one at a time, in turns, starting from the learned tower alone.

    The learned tower keeps weight 1: a blend without it would make its training pointless, and
    where it helps little the others get large weights. alone: its own NDCG@10.
    """
    weights = {name: 1.0 if name == LEARNED else 0.0 for name in scores}
    total, best = scores[LEARNED].copy(), alone
    for _ in range(_ROUNDS):
        before = best
        for name in (LINEAR, *(n for n in scores if n not in (LEARNED, LINEAR))):
            rest = total - weights[name] * scores[name]
            for step in _STEPS:
                ndcg = float(judge.ndcg(rest + step * scores[name]).mean())
                if ndcg > best:
                    best, weights[name] = ndcg, step
            total = rest + weights[name] * scores[name]
        if best == before:
            break
    return weights


def _squeeze(vectors: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A map float32 [S, D - 1] and item vectors [I, D - 1] that keep `vectors` @ `items`.T best.

    vectors: float32 [users, S]. items: float32 [I, S]. Best in the squared error of scores, over
    these users and all items, up to a shift of all items' scores of a user, which changes no
    order: a singular value decomposition of the scores, computed from the users' second moments.
    Each coordinate's strength goes in equal parts to users and items.
    """
    centred = items.astype(np.float64) - items.mean(axis=0)
    moments = vectors.T.astype(np.float64) @ vectors / len(vectors)
    strengths, axes = np.linalg.eigh(moments)
    roots = np.sqrt(np.maximum(strengths, 1e-9 * strengths.max()))
    root, inverse = (axes * roots) @ axes.T, (axes / roots) @ axes.T
    # The left singular vectors of root @ centred.T, from its small square.
    squares, left = np.linalg.eigh(root @ (centred.T @ centred) @ root)
    kept = np.argsort(-squares)[: DIMENSION - 1]
    values = np.sqrt(np.maximum(squares[kept], 1e-12 * squares.max()))
    left = left[:, kept]
    mix = (inverse @ left * np.sqrt(values)).astype(np.float32)
    item_vectors = (centred @ root @ left / np.sqrt(values)).astype(np.float32)
    return mix, item_vectors


def _draw(users: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the users, ascending."""
    if len(users) <= most:
        return users
    drawn: Sequence[int] = np.random.default_rng(seed).permutation(users)[:most]
    return np.sort(drawn)
