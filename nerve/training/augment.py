"""Random changes of a training frame and its mask, such as another probe or hand makes."""

import dataclasses
import functools
import string

import cv2
import numpy as np

from nerve.frames.crops import crop_pair
from nerve.frames.geometry import resize
from nerve.records import Augmentation

LETTERS = [*string.ascii_uppercase, *string.digits, ".", "+", "cm"]
DEPTHS = 5  # at which the gain of a frame is drawn
GRAINS = 3  # pixels, largest of the added speckle


def random_matrix(
    changes: Augmentation, rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
    """Return a random affine map about the frame's centre, float64 `(2, 3)`.

    Flip left to right, rotation, scale, shear and shift; it maps (column, row, 1) of the
    frame to (column, row) of the result. An enlarged frame is shifted to any of its parts,
    a reduced one to any place, so that frames without the nerve come about, too.
    """
    angle = np.deg2rad(rng.uniform(-changes.rotation, changes.rotation))
    scale = np.exp(rng.uniform(*np.log(changes.scale)))
    shear = rng.uniform(-changes.shear, changes.shear)
    flip = -1.0 if rng.random() < changes.flips else 1.0
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    turn = turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([flip, 1.0])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = rng.uniform(-changes.shift, changes.shift, 2)
    shift += rng.uniform(-0.5, 0.5, 2) * abs(scale - 1)
    return np.column_stack([turn, centre - turn @ centre + shift * (width, height)])


def move(
    image: np.ndarray, mask: np.ndarray, changes: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame, 0 to 1, and its mask, moved alike.

    What comes in from outside is black, or the mirror image of frame and mask.
    """
    height, width = image.shape
    matrix = random_matrix(changes, rng, height, width)
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale < 1:  # each pixel of the result is to stand for several
        image = cv2.GaussianBlur(image, (0, 0), 0.35 / scale)
    black = rng.random() < changes.black_borders
    border = cv2.BORDER_CONSTANT if black else cv2.BORDER_REFLECT_101
    size, flags = (width, height), cv2.INTER_LINEAR  # cv2: width first
    how = {"M": matrix, "dsize": size, "flags": flags, "borderMode": border}
    return cv2.warpAffine(image, **how), cv2.warpAffine(mask, **how)


def change_texture(
    image: np.ndarray, changes: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Return a frame, 0 to 1, with another sharpness, and perhaps with speckle added."""
    kind = rng.random()
    if kind < changes.filtered / 2:
        image = cv2.GaussianBlur(image, (0, 0), max(0.2, rng.uniform(0, changes.blur)))
    elif kind < changes.filtered:
        blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 2.0))
        image = image + rng.uniform(0, changes.sharpen) * (image - blurred)
    if rng.random() < 0.5:
        height, width = image.shape
        grain = rng.integers(1, GRAINS + 1)
        shape = height // grain + 1, width // grain + 1
        noise = cv2.resize(rng.standard_normal(shape, np.float32), (width, height))
        image = image * (1 + rng.uniform(0, changes.speckle) * noise)
    return image


def change_grey(
    image: np.ndarray, changes: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Return a frame, 0 to 1, with another black and white level, gamma and depth gain."""
    black = rng.uniform(-0.3 * changes.black_level, changes.black_level)
    white = 1 + rng.uniform(-changes.white_level, changes.white_level)
    image = np.clip((image - black) / (white - black), 0, 1.2)
    image **= np.float32(np.exp(rng.uniform(-changes.gamma, changes.gamma)))
    slope = rng.uniform(-changes.slope, changes.slope)
    gains = rng.normal(0, changes.depth_gain, DEPTHS) + np.linspace(-slope, slope, DEPTHS)
    rows = np.linspace(0, DEPTHS - 1, len(image))
    gain = np.interp(rows, np.arange(DEPTHS), gains).astype(np.float32)[:, np.newaxis]
    image = np.clip(image * (1 + 2 * gain) + 0.3 * gain * (image > 0), 0, 1)
    return image * np.float32(np.exp(rng.uniform(-changes.gain, changes.gain)))


def draw_fan(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return where the fan of a curved probe lies in a frame, bool `(height, width)`."""
    angle, apex = rng.uniform(0.35, 0.9), -rng.uniform(0.02, 0.8) * height
    column = (0.5 + rng.uniform(-0.1, 0.1)) * width
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    distance = np.hypot(rows - apex, columns - column)
    near = -apex + rng.uniform(0, 0.1) * height
    far = (height - apex) * rng.uniform(0.9, 1.05)
    within = np.abs(np.arctan2(columns - column, rows - apex)) < angle
    return within & (near < distance) & (distance < far)


def draw_letters(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return words near the upper and lower border, float32 `(height, width)`, 0 to 1."""
    drawn = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 5)):
        word = "".join(rng.choice(LETTERS, rng.integers(1, 7)))
        row = rng.choice([rng.uniform(0.05, 0.2), rng.uniform(0.8, 1.0)])
        place = int(rng.uniform(0, 0.85) * width), int(row * height)
        font, size = cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.2, 0.4)
        drawn = cv2.putText(drawn, word, place, font, size, 255)
    return drawn * np.float32(rng.uniform(0.5, 1) / 255)


@functools.cache
def halve(changes: Augmentation) -> Augmentation:
    """Return changes of half the size; as many frames are flipped, filtered and cut."""
    same = ("flips", "black_borders", "filtered", "fans", "letters", "scale", "crops")
    half = {n: v / 2 for n, v in dataclasses.asdict(changes).items() if n not in same}
    scale = tuple(np.sqrt(changes.scale).tolist())
    return dataclasses.replace(changes, **half, scale=scale)


def augment(
    image: np.ndarray, mask: np.ndarray, changes: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random variant of a frame and of its mask, moved alike.

    Args:
        image: float32 array `(height, width)`, scaled as by preprocess.py; its darkest grey
            counts as black.
        mask: float32 array, same shape, 0 to 1.
    """
    if rng.random() < changes.halved:
        changes = halve(changes)
    if rng.random() < changes.crops and (pair := crop_pair(image, mask, rng)):
        shape = image.shape
        image, mask = (resize(part, *shape) for part in pair[rng.integers(2)])
    low, span = image.min(), max(np.ptp(image), np.float32(1e-6))
    image, mask = move((image - low) / span, mask, changes, rng)
    image = change_grey(change_texture(image, changes, rng), changes, rng)
    if rng.random() < changes.fans:
        fan = draw_fan(*image.shape, rng)
        image, mask = image * fan, mask * fan
    if rng.random() < changes.letters:
        image = np.maximum(image, draw_letters(*image.shape, rng))
    return image * span + low, mask
