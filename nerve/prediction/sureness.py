"""How sure a nerve is there: the network's presence, calibrated on subjects held out."""

import numpy as np
from scipy.optimize import isotonic_regression

from nerve.records import Calibration

PARTS = 5  # that subjects are dealt into, to measure the error
BINS = 10  # of probability
FEW = 20  # frames with a nerve, or without, below which nothing is known


def fit(presence: np.ndarray, nerve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of an isotonic regression, presences and probabilities.

    A frame with a nerve at presence 0 and one without at 1 are added, so that nothing is
    ever certain.

    Args:
        presence: float array `(N,)` in [0, 1].
        nerve: bool array `(N,)`, whether the frames show a nerve.

    Source: Zadrozny and Elkan, Transforming classifier scores into accurate multiclass
    probability estimates, 2002, section 3.
    """
    presence, nerve = np.append(presence, (0.0, 1.0)), np.append(nerve, (1.0, 0.0))
    x, index, counts = np.unique(presence, return_inverse=True, return_counts=True)
    found = isotonic_regression(np.bincount(index, nerve) / counts, weights=counts)
    # the first and the last of each level
    ends = np.unique([found.blocks[:-1], found.blocks[1:] - 1])
    return x[ends], found.x[ends]


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

    Arguments as of `fit`; `crops` tells whether these are pairs of crops.

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
        corners = fit(presence[part != k], nerve[part != k])
        probability[part == k] = np.interp(presence[part == k], *corners)
    error = calibration_error(probability, nerve)
    corners = (values.tolist() for values in fit(presence, nerve))
    return Calibration(*corners, error, len(nerve), len(names), crops)
