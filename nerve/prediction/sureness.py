"""How sure a nerve is there: the network's presence, calibrated on subjects held out."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from nerve.records import Calibration

PARTS = 5  # that subjects are dealt into, to measure the error
BINS = 10  # of probability
FEW = 20  # frames with a nerve, or without, below which nothing is known


def to_logit(presence: np.ndarray) -> np.ndarray:
    """Return the logit of presences in [0, 1], kept finite."""
    return logit(np.clip(presence, 1e-4, 1 - 1e-4))


def sure(presence: float, calibration: Calibration) -> float:
    """Return the probability in (0, 1) that a frame of some presence shows a nerve."""
    x = calibration.slope * to_logit(np.array(presence)) + calibration.intercept
    return float(expit(x))


def fit(presence: np.ndarray, nerve: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of a logistic regression on the presence's logit.

    Args:
        presence: float array `(N,)` in [0, 1].
        nerve: bool array `(N,)`, whether the frames show a nerve.

    Source: Platt, Probabilistic outputs for support vector machines, 1999, section 2.
    """
    x, sign = to_logit(presence), np.where(nerve, -1.0, 1.0)

    def loss(weights):
        return np.logaddexp(0, sign * (weights[0] * x + weights[1])).mean()

    return tuple(minimize(loss, [1.0, 0.0], method="Nelder-Mead").x.tolist())


def calibration_error(probability: np.ndarray, nerve: np.ndarray) -> float:
    """Return the mean distance of probability and frequency, frames taken by BINS.

    Source: https://arxiv.org/abs/1706.04599, equation 3.
    """
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, probability - nerve)  # of the sums
    return float(np.abs(gaps).sum() / len(nerve))


def calibrate(
    presence: np.ndarray, nerve: np.ndarray, subjects: np.ndarray, crops: bool
) -> Calibration | None:
    """Fit on all frames; the error is of subjects held out from a fit on the others.

    Args:
        presence: As of `fit`; likewise `nerve`.
        subjects: Array `(N,)`, the subject of each frame.
        crops: Whether these are pairs of crops.

    Returns:
        None where fewer than FEW frames show a nerve, or none, or PARTS subjects are not
        there.
    """
    names, index = np.unique(subjects, return_inverse=True)
    if min(nerve.sum(), (~nerve).sum()) < FEW or len(names) < PARTS:
        return None
    part = np.random.default_rng(0).permutation(len(names))[index] % PARTS
    probability = np.empty(len(presence))
    for k in range(PARTS):
        slope, intercept = fit(presence[part != k], nerve[part != k])
        probability[part == k] = expit(slope * to_logit(presence[part == k]) + intercept)
    error = calibration_error(probability, nerve)
    return Calibration(*fit(presence, nerve), error, len(nerve), len(names), crops)
