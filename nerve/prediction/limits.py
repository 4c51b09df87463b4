"""Limits that turn probabilities into masks, judged on frames whose truth is known."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve import machine
from nerve.frames.geometry import Geometry
from nerve.prediction.inference import Prediction, presence
from nerve.records import Limits
from nerve.scoring import scores

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 16))
STEPS = 40  # values tried of `smallest_area`, and of `presence`


class Measures(NamedTuple):
    """What the limits decide upon: of one frame, or arrays of all."""

    dice: np.ndarray  # of the mask at each of THRESHOLDS: (N, len(THRESHOLDS))
    area: np.ndarray  # of it, likewise, as `Geometry.area_share`
    presence: np.ndarray  # (N,)
    empty: np.ndarray  # (N,), whether the true mask is


def measure_frame(
    truth: np.ndarray, geometry: Geometry, probability: np.ndarray
) -> Measures:
    """Measure one frame's masks at all thresholds.

    `truth` is `(rows, columns)`, above 0 where nerve; `probability` float32 in [0, 1].
    """
    part, truth = geometry.back(probability), truth > 0
    masks = [part >= threshold for threshold in THRESHOLDS]
    return Measures(
        np.array([scores.dice(truth, geometry.whole(mask)) for mask in masks]),
        np.array([geometry.area_share(mask) for mask in masks]),
        presence(probability),
        not truth.any(),
    )


def measure(predictions: Iterable[Prediction], masks: Iterable[np.ndarray]) -> Measures:
    """Measure each frame's masks at all thresholds, beside the true `masks`."""

    def work(pair):
        truth, found = pair
        return measure_frame(truth, found.geometry, found.probability)

    pairs = zip(masks, predictions, strict=True)
    results = tqdm(machine.map_threads(work, pairs), "frames", disable=None)
    return Measures(*map(np.array, zip(*results, strict=True)))


def candidates(values: np.ndarray) -> np.ndarray:
    """Return limits to try: 0, and values between the smallest and the largest."""
    return np.unique([0.0, *np.quantile(values, np.linspace(0, 1, STEPS))])


def search(measures: Measures) -> tuple[Limits, float]:
    """Return the limits under which the mean Dice is highest, the lowest of equal ones.

    Beside them that mean: an empty mask scores 1 against an empty one, else 0.
    """
    best, (dice, area, presence, empty) = None, measures
    for k, threshold in enumerate(THRESHOLDS):
        presences, areas = candidates(presence), candidates(area[:, k])
        kept = presence[:, np.newaxis] >= presences  # (N, presences)
        for smallest in areas:
            shown = kept & (area[:, k] >= smallest)[:, np.newaxis]
            means = np.where(shown, dice[:, [k]], empty[:, np.newaxis]).mean(axis=0)
            score = means.max()
            if best is None or score > best[1] + 1e-9:
                least = float(presences[means.argmax()])
                best = Limits(threshold, float(smallest), least), float(score)
    return best


def score_at(measures: Measures, limits: Limits) -> np.ndarray:
    """Return the challenge's Dice of each frame, `(N,)`, under limits that weights have.

    Of the thresholds tried the nearest is taken.
    """
    dice, area, presence, empty = measures
    k = np.abs(np.array(THRESHOLDS) - limits.threshold).argmin()
    shown = (presence >= limits.least_presence) & (area[:, k] >= limits.smallest_area)
    return np.where(shown, dice[:, k], empty)
