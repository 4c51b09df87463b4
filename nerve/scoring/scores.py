"""Scores of a predicted mask against the true one, and of many frames together.

Masks are arrays `(height, width)` of one size, uint8 of 0 and 1, or bool for `dice`.
"""

from collections.abc import Hashable, Iterable, Iterator

import cv2
import numpy as np

from nerve.files import run_length

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
RESAMPLES = 2000  # of the bootstrap
# what evaluate.py writes of PREDICTED, behind its name: all frames, each, each clip
WRITTEN = ("scores.json", "scores.csv", "clips.csv")
MISSED = 0.1  # Dice below which a nerve counts as missed
LEVELS = np.arange(1, 20)  # twentieths: thresholds tried for the best constant mask


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Dice overlap of two binary masks, `2 |A and B| / (|A| + |B|)`.

    They are `(height, width)`, bool or 0 and 1. It is 1 where both are empty, 0 where only
    one is.

    Source: https://www.kaggle.com/c/ultrasound-nerve-segmentation/overview/evaluation
    """
    total = np.count_nonzero(truth) + np.count_nonzero(predicted)
    overlap = np.count_nonzero(np.logical_and(truth, predicted))
    return 2.0 * overlap / total if total else 1.0


def outline_distances(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the distance of each outline pixel of `mask` to the outline of `other`."""
    outline, goal = (m - cv2.erode(m, CROSS, borderValue=0) for m in (mask, other))
    distance = cv2.distanceTransform(1 - goal, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance[outline > 0]


def hausdorff_95(truth: np.ndarray, predicted: np.ndarray) -> float:
    """95 % Hausdorff distance of two masks' outlines, in pixels.

    The larger of both directions' 95th percentiles of the distance from an outline pixel
    to the nearest one of the other mask. Both are uint8 `(height, width)` of 0 and 1, not
    empty.

    Source: https://arxiv.org/abs/2206.01653 (Metrics Reloaded).
    """
    both = (truth, predicted), (predicted, truth)
    return float(max(np.percentile(outline_distances(*pair), 95) for pair in both))


def centroid_distance(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Distance of two masks' centres of mass, in pixels; neither may be empty."""
    centres = [np.argwhere(mask).mean(axis=0) for mask in (truth, predicted)]
    return float(np.linalg.norm(centres[0] - centres[1]))


def frame_scores(truth: np.ndarray, predicted: np.ndarray) -> dict:
    """Return the scores of one frame's masks, uint8 `(height, width)` of 0 and 1.

    Areas and distances are in pixels; there is no distance where a mask is empty.
    """
    overlap = dice(truth, predicted)
    row = {
        "area": int(np.count_nonzero(truth)),
        "predicted_area": int(np.count_nonzero(predicted)),
        "dice": overlap,
        "iou": overlap / (2 - overlap),
        "hausdorff_95": None,
        "centroid_distance": None,
    }
    if row["area"] and row["predicted_area"]:
        row["hausdorff_95"] = hausdorff_95(truth, predicted)
        row["centroid_distance"] = centroid_distance(truth, predicted)
    return row


def bootstrap(
    values: np.ndarray, clusters: np.ndarray, seed: int = 0
) -> list[float] | None:
    """Return the 95 % percentile interval of the mean, resampling whole clusters.

    Array `(N,)` of clusters: the subject of each value. `[low, high]`, or None of fewer
    than two.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    _, index = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    if len(counts) < 2:
        return None
    rng = np.random.default_rng(seed)
    picks = (rng.integers(len(counts), size=len(counts)) for _ in range(RESAMPLES))
    means = [sums[pick].sum() / counts[pick].sum() for pick in picks]
    return np.percentile(means, [2.5, 97.5]).tolist()


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None where none is left."""
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def summarize(rows: list[dict], clusters: list | np.ndarray) -> dict:
    """Return the scores of many frames, in the order of the printed table.

    A score that is not defined is None.

    Args:
        rows: `frame_scores` of each frame.
        clusters: Its subject, or its own number where subjects are unknown.
    """
    values = np.array([row["dice"] for row in rows])
    clusters = np.array(clusters)
    nerve = np.array([row["area"] > 0 for row in rows])
    found = np.array([row["predicted_area"] > 0 for row in rows])
    with_nerve, dice = [row for row in rows if row["area"] > 0], values[nerve]
    return {
        "frames": len(rows),
        "frames_with_nerve": int(nerve.sum()),
        "challenge_dice": float(values.mean()),
        "challenge_dice_interval": bootstrap(values, clusters),
        "predicting_nothing": float(1 - nerve.mean()),
        "nerve_dice": mean(dice),
        "nerve_dice_interval": bootstrap(dice, clusters[nerve]),
        "nerve_dice_median": float(np.median(dice)) if len(dice) else None,
        "nerve_iou": mean(row["iou"] for row in with_nerve),
        "share_below_0.1": mean(dice < MISSED),
        "hausdorff_95": mean(row["hausdorff_95"] for row in rows),
        "centroid_distance": mean(row["centroid_distance"] for row in rows),
        "sensitivity": mean(found[nerve]),
        "specificity": mean(~found[~nerve]),
    }


def best_constant_mask(
    truth: Iterable[tuple[np.ndarray, Hashable]], num_pixels: int
) -> float | None:
    """Return the Dice over frames with a nerve of the best mask that never changes.

    The mask is where at least a share of the true masks has nerve; the share is the best
    of 19. Frames of a subject are scored by a mask of the other subjects' frames, where
    two or more are named. None where no frame has a nerve.

    Args:
        truth: Of each frame `(runs, subject)`: its mask as of `run_length.parse`, and
            whose it is, or None.
        num_pixels: Of a frame.
    """
    frames = [(runs, subject) for runs, subject in truth if len(runs)]
    if not frames:
        return None
    groups, total = {}, np.zeros(num_pixels, np.int32)
    for runs, subject in frames:
        groups.setdefault(subject, []).append(runs)
        total[run_length.run_pixels(runs)] += 1
    values = []
    for mine in groups.values():
        others, size = total.copy(), len(frames)
        if len(groups) > 1:
            size -= len(mine)
            for runs in mine:
                others[run_length.run_pixels(runs)] -= 1
        masks = 20 * others >= LEVELS[:, None] * size
        areas = masks.sum(axis=1)
        for runs in mine:
            overlap = masks[:, run_length.run_pixels(runs)].sum(axis=1)
            values.append(2 * overlap / (areas + runs[:, 1].sum()))
    return float(np.mean(values, axis=0).max())


def format_scores(summary: dict, digits: int) -> Iterator[tuple[str, str, str]]:
    """Yield `(name, value, interval)` of a summary as text; '-' where it is not defined."""
    for name, value in summary.items():
        if not name.endswith("_interval"):
            text = "-" if value is None else f"{value:.{digits}f}"
            ends = summary.get(f"{name}_interval") or ()
            interval = " to ".join(f"{end:.{digits}f}" for end in ends)
            yield name, str(value) if isinstance(value, int) else text, interval


def format_table(summary: dict) -> str:
    """Return a summary as lines of text."""
    return "\n".join(
        f"{name:26}{value}" + (f"  (95 % interval {interval})" if interval else "")
        for name, value, interval in format_scores(summary, 4)
    )
