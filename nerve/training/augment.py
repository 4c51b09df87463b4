"""Random changes of a training frame and its mask, such as another probe or hand makes."""

import cv2
import numpy as np

from nerve.records import Augmentation


def random_matrix(
    changes: Augmentation, rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
    """Return a random affine map about the frame's centre, float64 `(2, 3)`.

    Flip left to right, rotation, scale, shear and shift; it maps (column, row, 1) of the
    frame to (column, row) of the result.
    """
    angle = np.deg2rad(rng.uniform(-changes.rotation, changes.rotation))
    scale = np.exp(rng.uniform(*np.log(changes.scale)))
    shear = rng.uniform(-changes.shear, changes.shear)
    flip = -1.0 if rng.random() < changes.flips else 1.0
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    turn = turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([flip, 1.0])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = rng.uniform(-changes.shift, changes.shift, 2) * (width, height)
    return np.column_stack([turn, centre - turn @ centre + shift])


def change_grey(
    image: np.ndarray, changes: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Return a scaled frame with another gain, brightness, gamma, depth gain and blur.

    Args:
        image: float32 array `(height, width)`, mean about 0, standard deviation about 1.
        changes: How far the draws go; likewise `rng`, which gives them.
    """
    low, high = float(image.min()), float(image.max())
    span = max(high - low, 1e-6)
    image = (image - low) / span
    np.power(image, np.exp(rng.uniform(-changes.gamma, changes.gamma)), out=image)
    image = image * span + low
    depth = np.linspace(-0.5, 0.5, len(image), dtype=np.float32)[:, np.newaxis]
    image *= np.exp(rng.uniform(-changes.gain, changes.gain))
    slope = rng.uniform(-changes.slope, changes.slope)
    image += depth * slope + rng.uniform(-changes.offset, changes.offset)
    sigma = rng.uniform(0, changes.blur)
    if rng.random() < changes.blurred and sigma > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    return image


def augment(
    image: np.ndarray, mask: np.ndarray, changes: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random variant of a frame and of its mask, moved alike.

    Args:
        image: float32 array `(height, width)`, scaled as by preprocess.py.
        mask: float32 array, same shape, 0 to 1.
        rng: `np.random.Generator`; the same state gives the same variant.

    Returns:
        Two float32 arrays of the same shape. What comes in from outside of the frame is
        its mirror image; there the mask is mirrored too.
    """
    height, width = image.shape
    matrix = random_matrix(changes, rng, height, width)
    image, mask = (
        cv2.warpAffine(
            array,
            matrix,
            (width, height),  # cv2: width first
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for array in (image, mask)
    )
    return change_grey(image, changes, rng), mask
