"""Pictures of people's own: frames as grey arrays, masks by class."""

import collections
import contextlib
import re
import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from nerve.command import refusing

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
MOST_CLASSES = 32  # of a mask; more greys are a photograph or soft edges
MAX_PIXELS = 1 << 26  # of one; a header that claims more is broken or an attack
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # Pillow's
BAD_EXIF = (*DAMAGED, struct.error)  # viewers, too, show the picture as it lies
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
# what a PNG may have its orientation in, some behind the pixels
ORIENTED = re.compile(rb"eXIf|profile type exif|com\.adobe\.xmp")


def list_pictures(path: Path) -> list[Path]:
    """Return the pictures of a folder, or the one named.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: no picture, or two that differ by their suffix alone.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; expected a picture or a folder")
    paths = [path]
    if path.is_dir():
        paths = sorted(
            p
            for p in path.iterdir()
            if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        )
        if not paths:
            raise ValueError(f"{path} holds no picture ({', '.join(SUFFIXES)})")
    stems = collections.Counter(p.stem for p in paths)
    stem, count = stems.most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{path} holds {count} pictures called {stem}; their masks would be one file"
        )
    return paths


def bits_of(image: Image.Image, path: Path) -> int:
    """Return the bits a channel of a picture as it is stored; Pillow drops some."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            return file.read(25)[24]  # of its header
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # BitsPerSample
    return 8


def open_picture(path: Path) -> Image.Image:
    """Return a picture opened by Pillow, of at most MAX_PIXELS and 8 bits a channel.

    It lies as it is stored: see `turn`.

    Raises:
        ValueError: no picture, a larger one, one of more bits, or one of several pages.
    """
    with refusing(f"{path} is not a whole picture", *DAMAGED):
        image = Image.open(path, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{path} claims to be {image.height} x {image.width}")
    if image.mode.startswith(("I", "F")) or bits_of(image, path) > 8:
        raise ValueError(
            f"{path} has more than 8 bits a channel (Pillow's mode {image.mode}); "
            "save it with 8, scaled as on the screen of the device"
        )
    if image.format == "TIFF" and image.is_animated:
        raise ValueError(
            f"{path} holds several pages; save each as a file of its own (with "
            "ImageMagick: convert IN.tif OUT_%05d.png)"
        )
    return image


def turn(image: Image.Image) -> None:
    """Read a picture's pixels, and turn them in place as EXIF says and viewers do."""
    image.filename = ""  # else Pillow 12.3 maps a raw TIFF as if it were turned already
    image.load()
    with contextlib.suppress(*BAD_EXIF):
        ImageOps.exif_transpose(image, in_place=True)


def find_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a picture as `turn` leaves it, mostly from its header.

    Raises:
        ValueError: as of `open_picture`.
    """
    with open_picture(path) as image:
        size = image.height, image.width
        if image.format == "TIFF":  # Pillow gives the turned size
            return size
        if image.format == "PNG" and not ORIENTED.search(path.read_bytes()):
            return size
        with contextlib.suppress(*BAD_EXIF):
            if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
                return size[::-1]
        return size


def read_picture(path: Path) -> np.ndarray:
    """Return a picture as a uint8 grey array `(height, width)`; colour becomes grey.

    Raises:
        ValueError: not a whole picture, or of more than 8 bits a channel.
    """
    with open_picture(path) as image, refusing(f"{path} is not a whole picture", *DAMAGED):
        turn(image)
        return np.asarray(image.convert("L"))


def flatten_colours(values: np.ndarray, path: Path) -> np.ndarray:
    """Return one channel of a mask drawn in one colour, or in greys.

    Args:
        values: uint8 array `(height, width, channels)`, without an alpha channel.

    Raises:
        ValueError: it holds several colours.
    """
    if (values == values[..., :1]).all():
        return values[..., 0]
    colours = np.unique(values.reshape(-1, values.shape[2]), axis=0)
    if np.count_nonzero(colours.any(axis=1)) > 1:
        raise ValueError(
            f"{path} is drawn in several colours; save it as a palette picture, or in "
            "greys that are the numbers of classes"
        )
    return values.max(axis=2)


def read_mask(path: Path, label: str | None) -> np.ndarray:
    """Return a mask drawn as a picture, uint8 `(height, width)`, 0 or 255.

    Args:
        path: The picture. Of a palette the indices count, not the colours.
        label: The class that is nerve, a number; None where masks hold 0 and 1 or 255.

    Raises:
        ValueError: several classes and no label, a label that is no number, or given for
            a JPEG; a picture of several colours, or not a whole picture.
    """
    with open_picture(path) as image:
        with refusing(f"{path} is not a whole picture", *DAMAGED):
            turn(image)
            values = np.asarray(image)
        lossy = image.format == "JPEG"
        opaque = [k for k, band in enumerate(image.getbands()) if band.upper() != "A"]
    if lossy and label is not None:
        raise ValueError(
            f"{path} is a JPEG, which changes the numbers of classes; save masks as PNG"
        )
    if values.ndim == 3 and lossy:
        values = values.max(axis=2)
    elif values.ndim == 3:
        values = flatten_colours(values[..., opaque], path)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if lossy:  # rings about what was 0 or 255
        if 0 < values.max() < 128:
            raise ValueError(f"{path} is a JPEG of dark greys; save masks as PNG")
        values = np.where(values >= 128, np.uint8(255), np.uint8(0))
    if label is not None:
        if not label.isdecimal():
            raise ValueError(f"--label {label}; expected a number for masks such as {path}")
        return np.where(values == int(label), np.uint8(255), np.uint8(0))
    found = np.unique(values)
    if len(found) > MOST_CLASSES:
        raise ValueError(
            f"{path} holds {len(found)} greys: no mask, or one with soft edges; save it "
            "with 0 and 255 alone"
        )
    if not set(found) <= {0, 1} and not set(found) <= {0, 255}:
        text = ", ".join(map(str, found[:8]))
        raise ValueError(f"{path} holds the values {text}; say which is nerve: --label N")
    return np.where(values > 0, np.uint8(255), np.uint8(0))
