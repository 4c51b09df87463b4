"""Pictures of people's own: frames as grey arrays, masks by class."""

import contextlib
import re
import struct
from collections.abc import Collection
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


def check_file(path: Path) -> None:
    """Refuse what is no file, and a link out of the folder that it lies in."""
    folder = path.parent
    if path.is_symlink() and folder.resolve() not in path.resolve().parents:
        raise ValueError(f"{path} is a link out of {folder}; put the file itself there")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the sorted files of a folder with one of some suffixes, but hidden ones.

    Raises:
        ValueError: as of `check_file`.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
    paths = [path for path in paths if not path.name.startswith(".")]
    for path in paths:
        check_file(path)
    return paths


def bits_of(image: Image.Image, path: Path) -> int:
    """Return the bits a channel of a picture as it is stored; Pillow drops some."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            return file.read(25)[24]  # of its header
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # BitsPerSample
    return 8


def open_picture(path: Path, deep: bool = False) -> Image.Image:
    """Return a picture opened by Pillow, of at most MAX_PIXELS and 8 bits a channel.

    It lies as it is stored: see `turn`.

    Args:
        deep: Whether it may have one channel of more bits, as numbers of classes have.

    Raises:
        ValueError: no picture, a larger one, one of more bits, or one of several pages.
    """
    with refusing(f"{path} is not a whole picture", *DAMAGED):
        image = Image.open(path, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{path} claims to be {image.height} x {image.width}")
    single = image.mode.startswith(("I", "F"))
    if not (single and deep) and (single or bits_of(image, path) > 8):
        raise ValueError(
            f"{path} has more than 8 bits a channel (Pillow's mode {image.mode}); save it "
            f"with 8{'' if deep else ', scaled as on the screen of the device'}"
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


def flatten_colours(values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
    """Return one channel of a mask drawn in one colour, or in greys; and that colour.

    Args:
        values: uint8 array `(height, width, channels)`, without an alpha channel.

    Raises:
        ValueError: it holds several colours.
    """
    if (values == values[..., :1]).all():
        return values[..., 0], []
    colours = np.unique(values.reshape(-1, values.shape[2]), axis=0)
    colours = colours[colours.any(axis=1)]
    if len(colours) > 1:
        raise ValueError(
            f"{path} is drawn in several colours; save it as a palette picture, or in "
            "greys that are the numbers of classes"
        )
    return values.any(axis=2) * np.uint8(255), colours[0].tolist()


def read_classes(path: Path, numbered: bool) -> tuple[np.ndarray, str | None, int]:
    """Return `(values, colour, white)` of a mask drawn as a picture.

    Args:
        numbered: Whether its numbers count, which a JPEG does not keep.

    Returns:
        Its whole numbers, `(height, width)`, of a palette the indices; the one colour but
        black that it is drawn in, as "#rrggbb", or None; and the number that is white.
    """
    with open_picture(path, deep=True) as image:
        bits, palette = bits_of(image, path), image.getpalette() or []
        with refusing(f"{path} is not a whole picture", *DAMAGED):
            turn(image)
            values = np.asarray(image)
        lossy, mode = image.format == "JPEG", image.mode
        opaque = [k for k, band in enumerate(image.getbands()) if band.upper() != "A"]
    if lossy and numbered:
        raise ValueError(
            f"{path} is a JPEG, which changes the numbers of classes; save masks as PNG"
        )
    if lossy:  # rings about what was 0 or 255
        if 0 < values.max() < 128:
            raise ValueError(f"{path} is a JPEG of dark greys; save masks as PNG")
        values = np.where(values >= 128, np.uint8(255), np.uint8(0))
    colour, found = [], []
    if mode == "1":
        values = values.astype(np.uint8)
    elif mode == "L" and bits < 8:
        values = values // (255 // (2**bits - 1))  # Pillow stretches them to 255
    elif mode == "P":
        found = np.flatnonzero(np.bincount(values.ravel())[1:]) + 1
        colour = palette[3 * found[0] : 3 * found[0] + 3] if len(found) == 1 else []
    elif values.ndim == 3:
        values, colour = flatten_colours(values[..., opaque], path)
    elif values.dtype.kind == "f":
        if not np.isin(values, range(1 << 16)).all():
            raise ValueError(f"{path} holds numbers that are no classes, such as fractions")
        values = values.astype(np.int32)
    grey = len(set(colour)) < 2
    return values, None if grey else f"#{bytes(colour).hex()}", 2**bits - 1


def read_mask(path: Path, label: str | None) -> tuple[np.ndarray, frozenset]:
    """Return a mask drawn as a picture, and what it holds.

    Args:
        label: What is nerve: the number of a class, or the colour "#rrggbb" of a mask that
            is drawn in one; None where masks hold 0 and 1 or 255.

    Returns:
        `(mask, labels)`: uint8 `(height, width)`, 0 or 255; and its numbers but 0, or
        its colour where no number is asked for.

    Raises:
        ValueError: several classes and no label, a label that is neither, or as of
            `read_classes`.
    """
    numbered = label is not None and label.isdecimal()
    values, colour, white = read_classes(path, label is not None)
    found = np.unique(values)
    labels = frozenset(found[found != 0].tolist())
    if numbered:
        return np.where(values == int(label), np.uint8(255), np.uint8(0)), labels
    if label is not None and not re.fullmatch("#[0-9a-f]{6}", label):
        raise ValueError(f"--label {label}; expected a number for masks such as {path}")
    if len(found) > MOST_CLASSES:
        raise ValueError(
            f"{path} holds {len(found)} greys: no mask, or one with soft edges; save it "
            "with 0 and 255 alone"
        )
    if not any(set(found) <= {0, value} for value in (1, 255, white)):
        text = ", ".join(map(str, found[:8]))
        raise ValueError(f"{path} holds the values {text}; say which is nerve: --label N")
    mask = np.where(values != 0, np.uint8(255), np.uint8(0))
    labels = frozenset([colour]) if colour and labels else labels
    return mask * np.uint8(label in (None, *labels)), labels
