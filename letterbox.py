"""Frames brought to another size, stretched or with their aspect kept; and back."""

import cv2
import numpy as np

SAME_ASPECT = 0.02  # share by which two aspects may differ and one be stretched


def place(
    shape: tuple[int, int], size: tuple[int, int], aspect: float
) -> tuple[int, int, int, int]:
    """Return where a frame lies in an array of another aspect: top, left, height, width.

    Args:
        shape: (height, width) of the frame, in pixels.
        size: (height, width) of the array.
        aspect: Width by height of the frames that fill the array.
    """
    height, width = size
    own = shape[1] / shape[0]
    if abs(own / aspect - 1) <= SAME_ASPECT:
        return 0, 0, height, width
    inner_height = max(1, round(height * min(1.0, aspect / own)))
    inner_width = max(1, round(width * min(1.0, own / aspect)))
    return (
        (height - inner_height) // 2,
        (width - inner_width) // 2,
        inner_height,
        inner_width,
    )


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a grey frame or mask at another size.

    Args:
        image: uint8 array `(rows, columns)`, or float32 of probabilities.
        height: Rows wanted, in pixels.
        width: Columns wanted, in pixels.

    Returns:
        Array `(height, width)` of the same dtype. Where it shrinks, each pixel is the mean
        of the area it covers (no aliasing); where it grows, linear interpolation.
    """
    rows, columns = image.shape
    least = min(width, columns), min(height, rows)  # cv2: width first
    image = cv2.resize(image, least, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def normalized_thumbnail(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a frame's greys for correlations: float32 `(pixels,)` of mean 0 and norm 1.

    Args: as of `resize`; a flat frame gives zeros.
    """
    flat = resize(image, height, width).ravel().astype(np.float32)
    flat -= flat.mean()
    return flat / max(np.linalg.norm(flat), 1e-6)


def letterbox(image: np.ndarray, height: int, width: int, aspect: float) -> np.ndarray:
    """Return a frame resized without being stretched, 0 beside it.

    Args:
        image: uint8 array `(rows, columns)`.
        height: Rows wanted, in pixels.
        width: Columns wanted, in pixels.
        aspect: As of `place`.
    """
    top, left, inner_height, inner_width = place(image.shape, (height, width), aspect)
    inner = resize(image, inner_height, inner_width)
    if inner.shape == (height, width):
        return inner
    result = np.zeros((height, width), image.dtype)
    result[top : top + inner_height, left : left + inner_width] = inner
    return result


def take_out(array: np.ndarray, shape: tuple[int, int], aspect: float) -> np.ndarray:
    """Return a probability map at the size of the frame that `letterbox` put into it."""
    top, left, height, width = place(shape, array.shape, aspect)
    return resize(array[top : top + height, left : left + width], *shape)
