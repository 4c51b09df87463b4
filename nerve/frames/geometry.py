"""How a frame gets to another size, stretched or with its aspect kept; and back."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import cv2
import numpy as np

SAME_ASPECT = 0.02  # share by which two aspects may differ and one be stretched
BLACK = 12  # greys up to this are border
SPARSE = 0.03  # share of a row or column up to which brighter pixels are letters and marks
LEAST_CONTENT = 0.1  # of a frame: where less is left, it is a dark frame without borders


class Box(NamedTuple):
    """A part of an array, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, array: np.ndarray) -> np.ndarray:
        """Return the view of an array `(rows, columns)` that lies in the box."""
        return array[self.top : self.top + self.height, self.left : self.left + self.width]

    @property
    def area(self) -> int:
        """Its pixels."""
        return self.height * self.width

    def within(self, part: Self) -> Self:
        """Return a part of this box as one of the array."""
        return part._replace(top=self.top + part.top, left=self.left + part.left)

    def joined(self, other: Self) -> Self:
        """Return the smallest box that holds both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        bottom = max(self.top + self.height, other.top + other.height)
        right = max(self.left + self.width, other.left + other.width)
        return type(self)(top, left, bottom - top, right - left)


class Geometry(NamedTuple):
    """How a frame of one size lies in an array of another."""

    shape: tuple[int, int]  # (height, width) of the frame
    size: tuple[int, int]  # of the array
    crop: Box  # the part of the frame that is looked at
    inner: Box  # where it lies in the array; 0 beside it

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        size: tuple[int, int],
        aspect: float,
        crops: Mapping[str, Sequence[int]],
        frame: np.ndarray | None = None,
    ) -> Self:
        """Return the geometry of frames of one size.

        Args:
            shape: (height, width) of the frames, in pixels.
            aspect: Width by height of the frames that fill the array. Others than these are
                not stretched.
            crops: `{"HxW": [top, left, height, width]}` of the sizes that are cropped.
            frame: uint8 array of `shape`, whose black borders are cropped, too; or None.
        """
        crop = Box(*crops.get(f"{shape[0]}x{shape[1]}", (0, 0, *shape)))
        if frame is not None:
            crop = crop.within(find_content(crop.of(frame)))
        height, width = size
        own = crop.width / crop.height
        if abs(own / aspect - 1) <= SAME_ASPECT:
            return cls(shape, size, crop, Box(0, 0, height, width))
        inner_height = max(1, round(height * min(1.0, aspect / own)))
        inner_width = max(1, round(width * min(1.0, own / aspect)))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        return cls(shape, size, crop, Box(top, left, inner_height, inner_width))

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Return a frame, or a mask of 0 to 255, uint8 of `shape`, as one of `size`."""
        inner = resize(self.crop.of(image), self.inner.height, self.inner.width)
        if inner.shape == self.size:
            return inner
        result = np.zeros(self.size, image.dtype)
        self.inner.of(result)[...] = inner
        return result

    def fit_mask(self, mask: np.ndarray, soft: bool = False) -> np.ndarray:
        """Return a uint8 mask of 0 or 255 as one of `size`.

        Soft, it keeps each pixel's share of nerve, 0 to 255; else 255 where that is half.
        """
        if not mask.any():  # as most are
            return np.zeros(self.size, np.uint8)
        small = self.fit(mask)
        return small if soft else np.where(small >= 128, np.uint8(255), np.uint8(0))

    def kept(self, mask: np.ndarray, fitted: np.ndarray) -> float:
        """Return the share of a mask's area, not 0, that `fit_mask` left of it."""
        left = fitted.sum(dtype=np.int64) / (255 * fitted.size)
        return float(left / self.area_share(mask))

    def back(self, probability: np.ndarray) -> np.ndarray:
        """Return a float32 map of `size` as one of the part that is looked at."""
        return resize(self.inner.of(probability), self.crop.height, self.crop.width)

    def whole(self, part: np.ndarray) -> np.ndarray:
        """Return an array of the part that is looked at as one of `shape`, 0 beside it."""
        if part.shape == self.shape:
            return part
        result = np.zeros(self.shape, part.dtype)
        self.crop.of(result)[...] = part
        return result

    def area_share(self, mask: np.ndarray) -> float:
        """Return a mask's share of what training sees as one frame: letterboxes included.

        It is of `shape`, or of the part looked at, and 0 where there is no nerve.
        """
        share = np.count_nonzero(mask) / self.crop.area
        return share * self.inner.area / (self.size[0] * self.size[1])


def find_content(frame: np.ndarray) -> Box:
    """Return what is left of a frame, uint8, without black borders; all where little is.

    Letters and marks in the borders do not count.
    """
    lit = frame > BLACK
    rows, columns = (np.flatnonzero(lit.mean(axis=axis) > SPARSE) for axis in (1, 0))
    whole = Box(0, 0, *frame.shape)
    if not len(rows) or not len(columns):
        return whole
    top, left = int(rows[0]), int(columns[0])
    box = Box(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)
    return box if box.area >= LEAST_CONTENT * whole.area else whole


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a frame or mask `(rows, columns)`, uint8 or float32, as `(height, width)`.

    Where it shrinks, each pixel is the mean of the area it covers (no aliasing); where it
    grows, linear interpolation.
    """
    rows, columns = image.shape
    least = min(width, columns), min(height, rows)  # cv2: width first
    image = cv2.resize(image, least, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def normalized_thumbnail(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a frame's greys for correlations: float32 `(pixels,)` of mean 0 and norm 1.

    A flat frame gives zeros.
    """
    flat = resize(image, height, width).ravel().astype(np.float32)
    flat -= flat.mean()
    return flat / max(np.linalg.norm(flat), 1e-6)
