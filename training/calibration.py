"""Turns a ranker's scores into chances: Platt scaling, a logistic curve of the score.

Platt, Probabilistic Outputs for Support Vector Machines, 1999.
"""

import numpy as np

_ITERATIONS = 30
_RIDGE = 1e-6


def calibrated(scores: np.ndarray, relevant: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Chances float64 [N] of scores [N]; each part's curve is fitted on the other parts.

    relevant: bool [N]. part: int [N], at least two different ones.
    """
    chance = np.empty(len(scores))
    for held_out in np.unique(part):
        mine = part == held_out
        slope, shift = logistic_curve(scores[~mine], relevant[~mine])
        chance[mine] = _sigmoid(slope * scores[mine] + shift)
    return chance


def logistic_curve(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Slope and shift that make sigmoid(slope * score + shift) most likely, by Newton's method."""
    spread, centre = max(float(scores.std()), 1e-9), float(scores.mean())
    inputs = np.stack([(scores - centre) / spread, np.ones(len(scores))])
    share = np.clip(relevant.mean(), 1e-6, 1 - 1e-6)
    weights = np.array([0.0, np.log(share / (1 - share))])
    for _ in range(_ITERATIONS):
        chance = _sigmoid(weights @ inputs)
        gradient = inputs @ (chance - relevant) + _RIDGE * weights
        curvature = (inputs * (chance * (1 - chance))) @ inputs.T + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    return float(weights[0] / spread), float(weights[1] - weights[0] * centre / spread)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-v)), without overflow."""
    half: np.ndarray = 0.5 * (1 + np.tanh(values / 2))
    return half
