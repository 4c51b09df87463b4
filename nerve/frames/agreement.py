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
    """Yield each row of thumbnails, float32 `(N, pixels)`, with its correlations to all.

    They are 0 where they are below `least`.
    """
    for start in range(0, len(thumbnails), BLOCK):
        values = thumbnails[start : start + BLOCK] @ thumbnails.T
        yield from enumerate(np.where(values >= least, values, 0), start)


def find_near_identical(
    images: np.ndarray, groups: np.ndarray, similarity: float
) -> list[dict[int, float]]:
    """Return, for each frame, `{row: correlation}` of others near-identical to it.

    Args:
        images: uint8 array `(N, height, width)`.
        groups: int array `(N,)`; only frames of one group are compared.
        similarity: Correlation of two frames' greys from which they are near-identical.
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


def list_contradictory(
    path: Path, train: Extracted, labels: np.ndarray, near: list[dict[int, float]]
) -> None:
    """List near-identical frames whose masks contradict each other, in a CSV.

    They agree by the mean Dice of a mask with those of its near-identical frames, of which
    the one that agrees least is named; two empty masks agree.

    Args:
        labels: uint8 array `(N, height, width)`, 0 to 255; 128 and more is nerve.
        near: As of `find_near_identical`.
    """
    count = 0
    with atomic.write_csv(path, COLUMNS) as writer:
        for row, others in enumerate(near):
            if not others:
                continue
            mine = labels[row] >= 128
            dice = [(scores.dice(mine, labels[r] >= 128), r) for r in others]
            agreement = np.mean([value for value, _ in dice])
            if agreement < CONTRADICTORY:
                count, (worst, other) = count + 1, min(dice)
                frames = [(train.subject[r], train.image[r]) for r in (row, other)]
                values = f"{agreement:.4f}", len(others)
                pair = f"{others[other]:.4f}", f"{worst:.4f}"
                writer.writerow([*frames[0], *values, *frames[1], *pair])
    pairs = sum(map(len, near)) // 2
    print(f"{pairs} near-identical pairs; {count} frames contradict theirs: {path.name}")
