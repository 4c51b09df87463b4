"""The challenge's raw folder: its TIFFs, read and checked one by one."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import TiffImagePlugin

from nerve.command import refusing
from nerve.files import atomic, run_length
from nerve.frames.pictures import DAMAGED, MAX_PIXELS, check_file

NAMES = {
    "train": re.compile(r"([1-9]\d{0,8})_([1-9]\d{0,8})(?:_mask)?\.tif", re.ASCII),
    "test": re.compile(r"([1-9]\d{0,8})\.tif", re.ASCII),
}
EXAMPLES = {"train": "12_7.tif and 12_7_mask.tif", "test": "12.tif"}
ORIENTATION = 274  # TIFF tag; 1 is upright
PROBES = 9  # frames looked at to find the size that most have


class GreyTiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF, which after decoding does not read the directory twice more.

    It would look for camera tags there, which takes as long as a third of the decoding.
    """

    def load_end(self) -> None:
        """Do nothing; `read_tiff` refuses the one tag that would change the pixels."""


def find_folders(raw: Path) -> list[Path]:
    """Return the folders train/ and test/ of the challenge that are there."""
    folders = [raw / name for name in NAMES if (raw / name).is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"{raw}/ holds neither train/ nor test/; unpack the challenge's train.zip and "
            "test.zip there, make a phantom (python phantom.py), or name folders of your "
            "own: --images and --masks"
        )
    return folders


def of_any_scanner(raw: Path) -> bool:
    """Tell whether a folder is a phantom whose subjects each have another scanner."""
    path = raw / "phantom.json"
    record = atomic.read_record(path, "python phantom.py") if path.exists() else {}
    parameters = record.get("parameters")
    return isinstance(parameters, dict) and parameters.get("nerve") == "limb"


def list_folder(folder: Path) -> list[str]:
    """Return the names of a folder's frames; hidden files (`.DS_Store`) are passed over.

    Raises:
        ValueError: a name of another form, a folder, or a link out of `folder`.
    """
    names = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if not NAMES[folder.name].fullmatch(path.name):
            expected = f"expected only names such as {EXAMPLES[folder.name]}"
            raise ValueError(f"{folder} holds {path.name!r}; {expected}")
        check_file(path, folder)
        names.append(path.name)
    return names


def list_frames(folder: Path, table: dict | None) -> list[tuple[int, ...]]:
    """Return the sorted frames that a folder holds or, by its table, should hold.

    They are `(subject, image)`, or `(image,)` of test frames, which have no table.
    """
    matches = map(NAMES[folder.name].fullmatch, list_folder(folder))
    frames = {tuple(map(int, match.groups())) for match in matches}
    frames.update(table or ())
    if not frames:
        raise ValueError(f"{folder} holds no frames; unpack the challenge's data there")
    return sorted(frames)


def read_tiff(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return a grey TIFF, uint8 `(height, width)`; Pillow raises on damaged LZW data.

    Raises:
        ValueError: missing, damaged, not 8-bit grey, several pages, or not of `size`,
            (height, width).
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; unpack the download again") from error
    if not content:
        raise ValueError(f"{path} is empty (0 bytes); download it again")
    with refusing(f"{path} is not a whole TIFF", *DAMAGED):
        image = GreyTiff(io.BytesIO(content))
        num_pages, turned = image.n_frames, image.tag_v2.get(ORIENTATION, 1)
    found = (image.height, image.width)
    if found[0] * found[1] > MAX_PIXELS:
        raise ValueError(f"{path} claims to be {found[0]} x {found[1]} pixels")
    if size is not None and found != size:
        sizes = "{} x {} pixels, other frames {} x {}".format(*found, *size)
        raise ValueError(f"{path} is {sizes}; all must be of one size")
    if image.mode != "L":
        said = f"{path} is of Pillow's mode {image.mode}"
        raise ValueError(f"{said}; expected 8-bit grey (L)")
    if turned != 1:
        raise ValueError(f"{path} is stored turned (TIFF orientation {turned})")
    if num_pages != 1:
        raise ValueError(f"{path} has {num_pages} pages; expected one")
    with refusing(f"{path} is not a whole TIFF", *DAMAGED):
        return np.asarray(image)


def check_mask(mask: np.ndarray, path: Path, pixels: str | None) -> None:
    """Refuse a mask with greys, or one that differs from its row of `train_masks.csv`.

    It is uint8 `(height, width)`; `pixels` is its run-length encoding there, or None.
    """
    area = np.count_nonzero(mask)
    if area != np.count_nonzero(mask == 255):
        values = ", ".join(map(str, np.unique(mask)[:8]))
        raise ValueError(f"{path} holds the values {values}; a mask holds only 0 and 255")
    if pixels is None:
        return
    try:
        covered = run_length.run_pixels(run_length.parse(pixels, mask.size))
    except ValueError as error:
        raise ValueError(f"train_masks.csv, row of {path.name}: {error}") from error
    height = mask.shape[0]  # pixels are numbered down the columns
    if area != covered.size or not mask[covered % height, covered // height].all():
        row = f"its row of train_masks.csv ({covered.size}); download both again"
        raise ValueError(f"{path} ({area} pixels of nerve) differs from {row}")


def read_pair(
    frame: tuple[int, int], folder: Path, size: tuple[int, int], table: dict | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked `(image, mask)` of a frame (subject, image), each uint8."""
    subject, image = frame
    path = folder / f"{subject}_{image}_mask.tif"
    if table is not None and frame not in table:
        raise ValueError(f"train_masks.csv has no row for {subject},{image}")
    mask = read_tiff(path, size)
    check_mask(mask, path, None if table is None else table[frame])
    return read_tiff(folder / f"{subject}_{image}.tif", size), mask


def plan(folder: Path, size: tuple[int, int]) -> tuple[list[tuple], Callable]:
    """Return `(frames, read)` of `raw/train` or `raw/test`.

    The frames are tuples of numbers; `read` returns the checked arrays of one as a tuple.
    """
    if folder.name == "test":
        frames = list_frames(folder, None)
        return frames, lambda frame: (read_tiff(folder / f"{frame[0]}.tif", size),)
    path = folder.parent / "train_masks.csv"
    table = run_length.read_train_masks(path) if path.exists() else None
    return list_frames(folder, table), lambda frame: read_pair(frame, folder, size, table)


def find_size(folder: Path) -> tuple[int, int]:
    """Return the (height, width) that most of a few evenly spaced frames have."""
    names = sorted(list_folder(folder))
    sizes, why = [], "it is empty"
    for name in names[:: len(names) // PROBES + 1]:
        try:
            sizes.append(read_tiff(folder / name).shape)
        except ValueError as error:
            why = error  # reported when its turn comes, or if there is no other
    if not sizes:
        said = f"{folder} holds no readable TIFF ({why})"
        raise ValueError(f"{said}; unpack the download again")
    return max(sizes, key=sizes.count)
