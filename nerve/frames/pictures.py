"""Pictures of people's own: frames as grey arrays, masks by class."""

import contextlib
import io
import re
import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nerve.command import refusing

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
MOST_CLASSES = 32  # of a mask; more greys are a photograph or soft edges
MOST_LABELS = 256  # likewise where --label says which counts
MAX_PIXELS = 1 << 26  # of one; a header that claims more is broken or an attack
# what Pillow raises of damaged files
DAMAGED = (OSError, SyntaxError, KeyError, TypeError, ValueError, MemoryError)
DAMAGED += (struct.error, Image.DecompressionBombError)


def check_file(path: Path, folder: Path) -> None:
    """Refuse what is no file, and what lies in `folder` by a link out of it alone."""
    linked = path.is_symlink() or path.parent != folder
    if linked and folder.resolve() not in path.resolve().parents:
        raise ValueError(f"{path} is a link out of {folder}; put the file itself there")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")


def bits_of(image: Image.Image, path: Path) -> int:
    """Return the bits a channel of a picture as it is stored; Pillow drops some."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            return file.read(25)[24]  # of its header
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # BitsPerSample
    return 8


def open_whole(source: Path | io.BytesIO, formats: Collection[str]) -> Image.Image:
    """Return a picture opened by Pillow, which passes over the checksums of a PNG's pixels.

    Raises:
        Exception: one of `DAMAGED`, also where a checksum differs.
    """
    image = Image.open(source, formats=formats)
    if image.format != "PNG":
        return image
    image.verify()
    if isinstance(source, io.BytesIO):
        source.seek(0)
    return Image.open(source, formats=formats)


def open_picture(path: Path, deep: bool = False) -> Image.Image:
    """Return a picture opened by Pillow, of at most MAX_PIXELS and 8 bits a channel.

    It lies as it is stored: see `turn`. Where it may be `deep`, it may have one channel of
    more bits, as numbers of classes have.

    Raises:
        ValueError: no picture, a larger one, one of more bits, or one of several pages.
    """
    with refusing(f"{path} is not a whole picture", *DAMAGED):
        image = open_whole(path, FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{path} claims to be {image.height} x {image.width}")
    single = image.mode.startswith(("I", "F"))
    if not (single and deep) and (single or bits_of(image, path) > 8):
        raise ValueError(
            f"{path} has more than 8 bits a channel (Pillow's mode {image.mode}); save it "
            f"with 8{'' if deep else ', scaled as on the screen of the device'}"
        )
    if image.format == "TIFF" and image.is_animated:
        said = f"{path} holds several pages; save each as a file of its own"
        raise ValueError(f"{said} (with ImageMagick: convert IN.tif OUT_%05d.png)")
    return image


def turn(image: Image.Image) -> None:
    """Read a picture's pixels, and turn them in place as EXIF says and viewers do."""
    image.filename = ""  # else Pillow 12.3 maps a raw TIFF as if it were turned already
    image.load()
    with contextlib.suppress(*DAMAGED):  # viewers, too, show the picture as it lies
        ImageOps.exif_transpose(image, in_place=True)


def read_picture(path: Path) -> np.ndarray:
    """Return a picture as uint8 grey `(height, width)`; errors are of `open_picture`."""
    with open_picture(path) as image, refusing(f"{path} is not a whole picture", *DAMAGED):
        turn(image)
        grey = np.asarray(image.convert("L"))
        alpha = np.asarray(image.getchannel("A")) if "A" in image.getbands() else grey
    if np.ptp(alpha) and not np.ptp(grey):
        raise ValueError(f"{path} is drawn in transparency; save it in greys")
    return grey


def find_colours(values: np.ndarray) -> tuple[np.ndarray, dict[int, bytes]]:
    """Return a coloured mask as numbers, and the colours that they stand for, if any.

    It is uint8 `(height, width, channels)`, without an alpha channel.
    """
    if (values == values[..., :1]).all():
        return values[..., 0], {}
    size = values.shape[2]
    numbers = values.astype(np.int64) @ 256 ** np.arange(size)[::-1]
    return numbers, {n: n.to_bytes(size, "big") for n in np.unique(numbers).tolist()}


def read_classes(path: Path, label: str | None) -> tuple[np.ndarray, dict, int]:
    """Return `(values, names, white)` of a mask drawn as a picture; `label` as `read_mask`.

    They are whole numbers, `(height, width)`, of a palette the indices; what each but 0 is
    called: "#rrggbb" of a colour, of a palette's where no number is asked for, else itself;
    and the number that is white.
    """
    with open_picture(path, deep=True) as image:
        bits, mode, palette = bits_of(image, path), image.mode, image.getpalette() or []
        with refusing(f"{path} is not a whole picture", *DAMAGED):
            turn(image)
            values = np.asarray(image)
        opaque = [k for k, band in enumerate(image.getbands()) if band.upper() != "A"]
    if image.format == "JPEG":  # which has rings about what was 0 or 255
        if label is not None:
            said = f"{path} is a JPEG, which changes the numbers of classes"
            raise ValueError(f"{said}; save masks as PNG")
        if 0 < values.max() < 128:
            raise ValueError(f"{path} is a JPEG of dark greys; save masks as PNG")
        values = np.where(values >= 128, np.uint8(255), np.uint8(0))
    colours = {}
    if values.ndim == 3:
        seen, alpha = values[..., opaque], np.delete(values, opaque, axis=2)
        if alpha.size and np.ptp(alpha) and not np.ptp(seen):
            raise ValueError(f"{path} is drawn in transparency; save it as white on black")
        values, colours = find_colours(seen)
    elif mode == "P" and not (label or "").isdecimal():
        entries = [bytes(palette[k : k + 3]) for k in range(0, len(palette), 3)]
        colours = {k: entry for k, entry in enumerate(entries) if len(set(entry)) > 1}
    elif mode == "1":
        values = values.astype(np.uint8)
    elif mode == "L" and bits < 8:
        values = values // (255 // (2**bits - 1))  # Pillow stretches them to 255
    elif values.dtype.kind == "f":
        if not np.isin(values, range(1 << 16)).all():
            raise ValueError(f"{path} holds numbers that are no classes, such as fractions")
        values = values.astype(np.int32)
    found = [value for value in np.unique(values).tolist() if value]
    names = {k: f"#{colours[k].hex()}" if k in colours else k for k in found}
    return values, names, 2**bits - 1


def read_mask(path: Path, label: str | None) -> tuple[np.ndarray, frozenset]:
    """Return a mask drawn as a picture, uint8 `(height, width)`, 0 or 255, and its labels.

    These are its numbers or colours, without 0 and black.

    Args:
        label: What is nerve, the number of a class or a colour "#rrggbb"; None where masks
            hold 0 and 1 or 255, or one colour.

    Raises:
        ValueError: several classes and no label, a label that is neither, no whole
            picture, or no whole numbers.
    """
    values, names, white = read_classes(path, label)
    if len(names) >= (MOST_CLASSES if label is None else MOST_LABELS):
        said = f"{path} holds {len(names)} greys: no mask, or one with soft edges"
        raise ValueError(f"{said}; save it with 0 and 255 alone")
    if label is not None:
        if not re.fullmatch("[0-9]{1,9}|#[0-9a-f]{6}", label):
            raise ValueError(f"--label {label}; expected a number for masks such as {path}")
        wanted = label if label.startswith("#") else int(label)
        values = np.isin(values, [value for value in names if names[value] == wanted])
    elif len(names) > 1 or not all(
        isinstance(name, str) or name in (1, 255, white) for name in names.values()
    ):
        text = ", ".join(map(str, [0, *names.values()][:8]))
        said = "say which is nerve: --label VALUE"
        raise ValueError(f"{path} holds the values {text}; {said}")
    return np.where(values != 0, np.uint8(255), np.uint8(0)), frozenset(names.values())
