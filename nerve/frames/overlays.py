"""Outlines of masks drawn over frames, and pictures written."""

from pathlib import Path

import cv2
import numpy as np

from nerve.files import atomic

TRUTH_COLOUR = (0, 200, 0)  # green
PREDICTION_COLOUR = (255, 140, 0)  # orange
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # a pixel and its neighbours


def evenly(count: int, total: int) -> np.ndarray:
    """Return up to `count` evenly spaced numbers below `total`, an int array."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def outline(
    image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]
) -> np.ndarray:
    """Return an RGB picture with a mask's outline drawn, two pixels wide.

    The image is uint8, `(height, width)` grey or `(height, width, 3)` RGB; the mask
    `(height, width)`, 0 and 1.
    """
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image.copy()
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, CROSS)
    picture[edge > 0] = colour
    return picture


def encode_png(picture: np.ndarray) -> bytes:
    """Return a grey or RGB uint8 array as the bytes of a PNG."""
    if picture.ndim == 3:
        picture = picture[..., ::-1]  # cv2 writes blue first
    return cv2.imencode(".png", picture)[1].tobytes()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a grey or RGB uint8 array as PNG."""
    atomic.write_bytes(path, encode_png(picture))
