"""Near-identical frames, and how far their masks agree."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nerve import machine
from nerve.files import atomic
from nerve.frames.geometry import normalized_thumbnail
from nerve.records import Extracted
from nerve.scoring import scores

COMPARED = (48, 64)  # rows and columns at which frames are compared
BLOCK = 256  # frames compared with all others at a time
CONTRADICTORY = 0.5  # agreement below which a mask contradicts the others'
COLUMNS = ("subject", "img", "agreement", "near_identical", "other_subject")
COLUMNS += ("other_img", "similarity", "dice")


def find_alike(thumbnails: np.ndarray, least: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row with its correlations to all rows, 0 where these are below `least`.

    Args:
        thumbnails: float32 array `(N, pixels)` of `geometry.normalized_thumbnail`.
    """
    for start in range(0, len(thumbnails), BLOCK):
        values = thumbnails[start : start + BLOCK] @ thumbnails.T
        yield from enumerate(np.where(values >= least, values, 0), start)


def find_near_identical(
    images: np.ndarray, groups: np.ndarray, similarity: float
) -> list[dict[int, float]]:
    """Return, for each frame, the other frames that are near-identical to it.

    Args:
        images: uint8 array `(N, height, width)`.
        groups: int array `(N,)`; only frames of one group are compared.
        similarity: Correlation of two frames' greys from which they are near-identical.

    Returns:
        List of N dicts `{row: correlation}`.
    """
    found = [None] * len(images)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        small = machine.map_threads(
            lambda row: normalized_thumbnail(images[row], *COMPARED), rows
        )
        for k, values in find_alike(np.stack(list(small)), similarity):
            near = np.flatnonzero(values)
            found[rows[k]] = {int(rows[n]): float(values[n]) for n in near if n != k}
    return found


def measure_agreement(
    labels: np.ndarray, near: list[dict[int, float]]
) -> tuple[np.ndarray, list]:
    """Return the mean Dice of each mask with those of its near-identical frames.

    Args:
        labels: uint8 array `(N, height, width)`, 0 to 255; 128 and more is nerve.

    Returns:
        `(agreement, worst)`: float array `(N,)`, 1.0 for a frame without others (two empty
        masks agree); and for each frame `(Dice, row)` of the other that agrees least, or
        None.
    """
    agreement, worst = np.ones(len(near)), [None] * len(near)
    for row, others in enumerate(near):
        if others:
            mine = labels[row] >= 128
            dice = [(scores.dice(mine, labels[r] >= 128), r) for r in others]
            agreement[row] = np.mean([value for value, _ in dice])
            worst[row] = min(dice)
    return agreement, worst


def list_contradictory(
    path: Path, train: Extracted, labels: np.ndarray, near: list[dict[int, float]]
) -> None:
    """List near-identical frames whose masks contradict each other, in a CSV.

    Args:
        path: CSV to write.
        labels: uint8 array `(N, height, width)`, 0 to 255; 128 and more is nerve.
    """
    agreement, worst = measure_agreement(labels, near)
    rows = np.flatnonzero(agreement < CONTRADICTORY).tolist()
    with atomic.write_csv(path, COLUMNS) as writer:
        for row in rows:
            dice, other = worst[row]
            frames = [(train.subject[r], train.image[r]) for r in (row, other)]
            values = f"{agreement[row]:.4f}", len(near[row])
            pair = f"{near[row][other]:.4f}", f"{dice:.4f}"
            writer.writerow([*frames[0], *values, *frames[1], *pair])
    pairs = sum(map(len, near)) // 2
    contradict = f"{len(rows)} frames contradict theirs: {path.name}"
    print(f"{pairs} near-identical pairs; {contradict}")
