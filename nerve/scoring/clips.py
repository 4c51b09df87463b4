"""Scores of whole clips: nerve found, missed, false structure, delay, flicker, areas.

A clip's nerve is one object in space and time, and so is what was outlined in the clip.
They match from an intersection over union of 0.5 on, counted over all frames together:
sum |A and B| / sum |A or B|. A single frame is a clip of one. Everywhere `rows` are
`scores.frame_scores` of a clip's frames in the order of time, and `overlap` is the
intersection over union from which on outlines match.

Source: https://arxiv.org/abs/1905.04804 (Video Instance Segmentation, ICCV 2019: this
ratio; 0.5 is the lowest of its thresholds, which are COCO's). There, too, an object that
nothing matches is missed, and what matches no object is false.
"""

from collections.abc import Hashable, Iterable

import numpy as np
from scipy.stats import binomtest

from nerve.scoring import scores

OVERLAP = 0.5  # intersection over union from which on two outlines match


def clip_iou(rows: list[dict]) -> float | None:
    """Return the intersection over union of a clip; None where both are empty."""
    total = sum(row["area"] + row["predicted_area"] for row in rows)
    overlap = sum(row["dice"] * (row["area"] + row["predicted_area"]) / 2 for row in rows)
    return float(overlap / (total - overlap)) if total else None


def judge(rows: list[dict], overlap: float) -> tuple[bool | None, bool]:
    """Return whether the nerve of a clip, or of a frame, was found, and a false structure.

    A nerve is found where it matches the outlines of the frames that show it; None where
    none does. An outline is false where it does not match the nerve over all frames, also
    those that show none. So a nerve may be found and outlined long after it is out of
    sight, or be missed and another place outlined.
    """
    shown = [row for row in rows if row["area"]]
    outlined = any(row["predicted_area"] for row in rows)
    found = bool(clip_iou(shown) >= overlap) if shown else None
    return found, outlined and bool(clip_iou(rows) < overlap)


def flicker(masks: Iterable[np.ndarray]) -> list[float]:
    """Return 1 - Dice of each two neighbouring masks of a clip.

    Pairs that are both empty, or differ in size, are left out. It holds true movement,
    too: read it beside that of the true masks. They are `(height, width)`, bool or 0 and 1.

    Source: the mean IoU of neighbouring masks measures the consistency of videos
    (Varghese et al., CVPR Workshops 2020), there after optical flow, here without it.
    """
    values, before = [], None
    for mask in masks:
        same = before is not None and before.shape == mask.shape
        if same and (mask.any() or before.any()):
            values.append(1 - scores.dice(before, mask))
        before = mask
    return values


def frames_until_found(rows: list[dict], overlap: float) -> int | None:
    """Return how many frames a nerve shows before the first in which it is found.

    The frames between count, with a nerve or without. None where there is no nerve, or
    none is found.
    """
    shown = [k for k, row in enumerate(rows) if row["area"]]
    found = [k for k in shown if judge(rows[k : k + 1], overlap)[0]]
    return found[0] - shown[0] if found else None


def area_differences(rows: list[dict]) -> list[int]:
    """Return predicted - true area, in pixels, of frames in which both outline a nerve."""
    both = [row for row in rows if row["area"] and row["predicted_area"]]
    return [row["predicted_area"] - row["area"] for row in both]


def score_clip(rows: list[dict], overlap: float = OVERLAP) -> dict:
    """Return counts of frames, and what `judge` and `frames_until_found` say of a clip.

    `iou` is over all frames, `nerve_iou` over those that show the nerve; None where there
    is no nerve.
    """
    found, false = judge(rows, overlap)
    frames = [judge([row], overlap) for row in rows]
    shown = [row for row in rows if row["area"]]
    return {
        "frames": len(rows),
        "frames_with_nerve": len(shown),
        "iou": clip_iou(rows),
        "nerve_iou": clip_iou(shown),
        "found": None if found is None else int(found),
        "false_structure": int(false),
        "frames_found": sum(found is True for found, _ in frames),
        "frames_missed": sum(found is False for found, _ in frames),
        "frames_false": sum(false for _, false in frames),
        "frames_until_found": frames_until_found(rows, overlap),
    }


def limits_of_agreement(clips: list[list[float]]) -> tuple[float, float, float] | None:
    """Return `(bias, low, high)` of differences: their mean, and where 95 % of them lie.

    `bias -+ 1.96 sqrt(within + between)`: the variance within clips, and between their
    means beyond what that explains, as frames of a clip are alike. None with fewer than
    two differences.

    Source: Bland and Altman, Statistical Methods in Medical Research 8 (1999) 135-160,
    the section on pairs of measurements whose true value varies.
    """
    clips = [np.array(values, float) for values in clips if len(values)]
    counts = np.array([len(values) for values in clips])
    total = int(counts.sum())
    if total < 2:
        return None
    everything = np.concatenate(clips)
    bias, means = everything.mean(), np.array([values.mean() for values in clips])
    variance = everything.var(ddof=1)
    if 1 < len(clips) < total:
        within = sum(((values - values.mean()) ** 2).sum() for values in clips)
        within /= total - len(clips)
        between = (counts * (means - bias) ** 2).sum() / (len(clips) - 1)
        size = (total - (counts**2).sum() / total) / (len(clips) - 1)
        variance = within + max(0, between - within) / size
    margin = 1.96 * variance**0.5
    return float(bias), float(bias - margin), float(bias + margin)


def share(values: list[bool]) -> tuple[float | None, list[float] | None]:
    """Return the share that is true of independent clips, and its 95 % interval, or None.

    Source: Wilson, Journal of the American Statistical Association 22 (1927) 209-212.
    """
    if not values:
        return None, None
    interval = binomtest(sum(values), len(values)).proportion_ci(method="wilson")
    return float(np.mean(values)), [float(interval.low), float(interval.high)]


def share_of_frames(clips: list[list[bool]]) -> tuple[float | None, list[float] | None]:
    """Return the share that is true of all clips' frames, and its interval by clip."""
    numbers = np.repeat(np.arange(len(clips)), [len(values) for values in clips])
    if not len(numbers):
        return None, None
    values = np.concatenate(clips).astype(float)
    return float(values.mean()), scores.bootstrap(values, numbers)


def median_delay(clips: list[dict]) -> float | None:
    """Return the median `frames_until_found` of clips with a nerve.

    One never found counts as infinitely late: None where that is half of them or more.
    """
    delays = [clip["frames_until_found"] for clip in clips if clip["frames_with_nerve"]]
    delays = [np.inf if delay is None else delay for delay in delays]
    median = float(np.median(delays)) if delays else np.inf
    return median if np.isfinite(median) else None


def summarize(
    rows: dict[Hashable, list[dict]],
    overlap: float = OVERLAP,
    spacing: tuple[float, float] | None = None,
) -> dict:
    """Return the scores of clips together.

    Args:
        rows: `{clip: scores.frame_scores of its frames, in the order of time}`.
        spacing: mm from row to row and from column to column; None for areas in pixels.

    Returns:
        Dict in the order of the printed table; None where a score is not defined. Those
        of clips have Wilson's interval, those of frames one of a bootstrap by clip.
    """
    clips = [score_clip(frames, overlap) for frames in rows.values()]
    shown = [clip for clip in clips if clip["frames_with_nerve"]]
    found = [clip["found"] == 1 for clip in shown]
    judged = [[judge([row], overlap) for row in frames] for frames in rows.values()]
    hits = [[hit for hit, _ in frames if hit is not None] for frames in judged]
    shares = {
        "nerve_found": share(found),
        "nerve_missed": share([not hit for hit in found]),
        "false_structure": share([clip["false_structure"] == 1 for clip in clips]),
        "matched_throughout": share([clip["iou"] >= overlap for clip in shown]),
        "frames_found": share_of_frames(hits),
        "frames_missed": share_of_frames([[not hit for hit in clip] for clip in hits]),
        "frames_false": share_of_frames([[false for _, false in c] for c in judged]),
    }
    summary = {"clips": len(clips), "clips_with_nerve": len(found), "overlap": overlap}
    for name, (value, interval) in shares.items():
        summary |= {name: value, f"{name}_interval": interval}
    summary["frames_until_found"] = median_delay(clips)
    pixel, unit = (spacing[0] * spacing[1], "mm2") if spacing else (1, "pixels")
    differences = [area_differences(frames) for frames in rows.values()]
    limits = limits_of_agreement(differences) or (None,) * 3
    for name, value in zip(("bias", "low", "high"), limits, strict=True):
        summary[f"area_{name}_{unit}"] = None if value is None else value * pixel
    return summary
