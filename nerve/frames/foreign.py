"""How unlike the training frames a frame looks: another machine, setting or subject matter.

A frame is described by its greys and its texture, and compared with the training frames of
each source by the Mahalanobis distance. It says nothing about what the frame shows.

Source: https://arxiv.org/abs/1807.03888, section 2.1 (there of a network's features, one
Gaussian a class; here of the frame itself, one a source).
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from nerve import machine
from nerve.records import Look

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)  # of the greys
SCALES = 3  # at which neighbouring pixels are compared, each half of the one before
PARTS = 10  # that subjects are dealt into
FEW = 3  # subjects below which no limit is known
SHRINKAGE = 0.1  # of the correlations towards none
CALLED = 0.03  # share of the frames of subjects held out that are called foreign


def describe(image: np.ndarray) -> np.ndarray:
    """Return what a frame looks like, float64 `(13,)`.

    These are quantiles of the greys, 0 to 1; and the logarithm of the mean absolute
    difference of neighbours in a row, and in a column, at each scale.

    Args:
        image: uint8 array `(height, width)` as the network gets it, without letterbox.
    """
    shares = np.bincount(image.ravel(), minlength=256).cumsum() / image.size
    found = list(np.searchsorted(shares, QUANTILES) / 255)
    small = image.astype(np.float32) / 255
    for scale in range(SCALES):
        height, width = (max(2, size >> scale) for size in image.shape)
        small = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
        for axis in (1, 0):
            found.append(np.log(np.abs(np.diff(small, axis=axis)).mean() + 1e-3))
    return np.array(found)


def fit(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and inverse covariance of some frames' descriptions, `(N, 13)`."""
    scale = looks.std(axis=0) + 1e-3
    correlation = np.cov(((looks - looks.mean(axis=0)) / scale).T)
    correlation = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(len(scale))
    return looks.mean(axis=0), np.linalg.inv(correlation) / np.outer(scale, scale)


def distance(looks: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return the squared Mahalanobis distances of descriptions `(..., 13)`."""
    offset = looks - mean
    return np.einsum("...j,jk,...k->...", offset, inverse, offset)


def learn(images: Iterable[np.ndarray], groups: np.ndarray) -> Look | None:
    """Return what a source's training frames look like; None of fewer than FEW subjects.

    The limit is the distance below which all but CALLED of the frames lie that were held
    out, groups, int `(N,)`, as a whole.
    """
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < FEW:
        return None
    looks = np.array(list(machine.map_threads(describe, images)))
    part = np.random.default_rng(0).permutation(len(names))[index] % PARTS
    held_out = np.empty(len(looks))
    for k in np.unique(part):
        mine = part == k
        held_out[mine] = distance(looks[mine], *fit(looks[~mine]))
    mean, inverse = fit(looks)
    limit = max(1e-6, float(np.quantile(held_out, 1 - CALLED)))  # above 0 of equal frames
    return Look(mean.tolist(), inverse.tolist(), limit)


def unlike(look: np.ndarray, known: Sequence[Look]) -> float | None:
    """Return how unlike all sources a frame of this look is: above 1, foreign to each.

    That is its distance to the nearest by its limit, 0 or more; None where there are none.
    """
    ratios = [
        distance(look, np.array(source.mean), np.array(source.inverse)) / source.limit
        for source in known
    ]
    return float(np.sqrt(min(ratios))) if ratios else None
