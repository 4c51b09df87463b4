"""Which frames are held out: whole subjects, and those that share a sweep together."""

from pathlib import Path

import numpy as np
import scipy.sparse

from nerve.files.arrays import scratch_array
from nerve.frames.agreement import find_alike
from nerve.frames.geometry import normalized_thumbnail

VALIDATION_SHARE = 635 / 5635  # the classic 5,000 : 635 of the challenge's frames
THUMBNAIL = 16  # rows and columns; enough to tell one sweep from another
# Of one sweep are two frames whose thumbnails differ by at most this share of what two
# frames of the set differ by on average: by 1 - correlation, so that where all show one
# fan on black, that fan does not count. In the challenge, where it comes to a correlation
# of 0.95, those of two subjects reach 0.82; of 17 and 18, which are one sweep, 1.00.
SAME_SWEEP = 0.08
IDENTICAL = 1e-3  # likewise, in any set
COUNTED = "those that share near-identical frames count as one"
SPLIT_TRIES = 2000  # random choices of whole subjects, of which the best is taken


def find_sweeps(images: np.ndarray, subjects: np.ndarray, folder: Path) -> dict[int, int]:
    """Return `{subject: group}`, of one group those that share near-identical frames.

    They are one sweep under two names. A group is called after its smallest subject.

    Args:
        images: uint8 array `(N, height, width)`.
    """
    names, index = np.unique(subjects, return_inverse=True)
    shape = (len(images), THUMBNAIL * THUMBNAIL)
    thumbnails = scratch_array(folder, shape, np.float32)
    for row, image in enumerate(images):
        thumbnails[row] = normalized_thumbnail(image, THUMBNAIL, THUMBNAIL)
    mean = thumbnails.mean(axis=0)
    limit = 1 - max(SAME_SWEEP * (1 - mean @ mean), IDENTICAL)
    linked = scipy.sparse.lil_array((len(names), len(names)), dtype=bool)
    for row, alike in find_alike(thumbnails, limit):
        linked[index[row], index[np.flatnonzero(alike)]] = True
    _, group = scipy.sparse.csgraph.connected_components(linked, directed=False)
    _, first = np.unique(group, return_index=True)  # of each its smallest subject
    return dict(zip(names.tolist(), names[first[group]].tolist(), strict=True))


def choose_validation(groups: np.ndarray, nerve: np.ndarray, seed: int) -> np.ndarray:
    """Choose whole groups of subjects for validation.

    Args:
        groups: int array `(N,)`, the group of each frame.
        nerve: bool array `(N,)`, whether the frame shows a nerve.

    Returns:
        bool array `(N,)`, True for validation: of 2,000 random choices the one nearest to
        635 of 5,635 frames, and to the same share of frames with a nerve.
    """
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        said = f"only one subject ({COUNTED}): no split by subject is possible"
        raise ValueError(f"{said}; choose --split frames (leaky) or --split none")
    sizes, positives = np.bincount(index), np.bincount(index, nerve)
    target, share = VALIDATION_SHARE * len(groups), nerve.mean()
    rng = np.random.default_rng(seed)
    best = None
    for _ in range(SPLIT_TRIES):
        order = rng.permutation(len(names))
        totals = sizes[order].cumsum()
        count = 1 + np.abs(totals[:-1] - target).argmin()
        chosen, total = order[:count], totals[count - 1]
        penalty = abs(total / target - 1) + abs(positives[chosen].sum() / total - share)
        if best is None or penalty < best[0] - 1e-12:
            best = penalty, chosen
    return np.isin(index, best[1])


def choose_fold(
    groups: np.ndarray, nerve: np.ndarray, folds: int, fold: int, seed: int
) -> np.ndarray:
    """Return the bool array `(N,)` of the frames in one of `folds` parts.

    Groups of subjects are dealt out, the largest first, each to the part with the fewest
    frames so far, and where these are equal, the fewest with a nerve.
    """
    names, index = np.unique(groups, return_inverse=True)
    if folds > len(names):
        there = f"there are {len(names)} subjects to deal ({COUNTED})"
        raise ValueError(f"--folds {folds}, but {there}")
    sizes, positives = np.bincount(index), np.bincount(index, nerve)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    totals, part_of = np.zeros((2, folds)), np.zeros(len(names), int)
    for k in order:
        part = part_of[k] = np.lexsort(totals)[0]  # by the last of the keys first
        totals[:, part] += positives[k], sizes[k]
    return part_of[index] == fold


def split_frames(
    split: str,
    groups: np.ndarray,
    nerve: np.ndarray,
    folds: int | None,
    fold: int | None,
    seed: int,
) -> np.ndarray:
    """Return the bool array `(N,)` of the validation frames, for a `--split`.

    Groups and nerve are as of `choose_validation`, folds and fold as of `choose_fold`.
    """
    if split == "none":
        return np.zeros(len(groups), bool)
    if split == "frames":
        order = np.random.default_rng(seed).permutation(len(groups))
        return order < max(1, round(VALIDATION_SHARE * len(groups)))
    if folds:
        return choose_fold(groups, nerve, folds, fold, seed)
    return choose_validation(groups, nerve, seed)
