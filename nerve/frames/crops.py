"""Pairs of crops of a frame, one with its nerve and one without, otherwise alike.

Where nearly all frames at hand show a nerve, they stand in for frames without one: size,
zoom and border say nothing about which of the two is which.
"""

import numpy as np

SHARES = 0.5, 0.75  # least and most, of the frame's height and width
TRIES, PLACES = 20, 10  # random shares, and places for each


def crop_pair(
    frame: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return `[(crop, its mask)]`: with the whole nerve, and without any of it.

    They are views of one size of frame and mask, uint8 `(rows, columns)`, this above 0
    where nerve; none where no place for both was found.
    """
    area = np.count_nonzero(mask)
    for _ in range(TRIES if area else 0):
        share, pair = rng.uniform(*SHARES), {}
        height, width = (max(1, round(share * size)) for size in frame.shape)
        for _ in range(PLACES):
            top = rng.integers(frame.shape[0] - height + 1)
            left = rng.integers(frame.shape[1] - width + 1)
            part = slice(top, top + height), slice(left, left + width)
            inside = np.count_nonzero(mask[part])
            if inside in (0, area):
                pair[inside > 0] = frame[part], mask[part]
        if len(pair) == 2:
            return [pair[True], pair[False]]
    return []
