"""Frames and masks of people's own, in any names and sizes, as extract_data.py takes them.

Masks are pictures (of classes, with --label), or outlines drawn in labelme (a .json beside
each frame's name) or CVAT (one .xml, "CVAT for images 1.1").
"""

import collections
import contextlib
import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nerve import machine
from nerve.command import refusing
from nerve.frames import pictures
from nerve.frames.geometry import Geometry
from nerve.frames.outlines import fill, read_cvat, read_labelme
from nerve.frames.pictures import list_pictures, read_mask, read_picture

CHANGED = 2  # greys by which a pixel must differ between frames to count as picture
SUFFIX = "_mask"  # that a mask's name may have after its frame's
OPENED = 7  # pixels: strips and letters thinner than that are no picture


def list_outlines(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder that end in `suffix`, without hidden ones."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == suffix)
    return [path for path in paths if not path.name.startswith(".")]


def find_pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Return `[(frame, its mask or outlines)]` as paths, paired by stem.

    Raises:
        ValueError: frames without a mask, or the other way round; it names them.
    """
    paths = list_pictures(images)
    if masks.exists() and images.samefile(masks):
        paths = [path for path in paths if not path.stem.endswith(SUFFIX)]
    frames = {path.stem: path for path in paths}
    if not masks.exists():
        raise FileNotFoundError(f"{masks} is missing; expected masks of {images}/")
    paths = [masks] if masks.is_file() else list_outlines(masks, ".xml")
    if paths:
        if len(paths) > 1 or paths[0].suffix.lower() != ".xml":
            raise ValueError(f"{masks} is neither a folder of masks nor one .xml of CVAT")
        return [(frame, paths[0]) for frame in frames.values()]
    outlines = list_outlines(masks, ".json")
    found = {path.stem: path for path in outlines or list_pictures(masks)}
    named = {n.removesuffix(SUFFIX): p for n, p in found.items() if n.endswith(SUFFIX)}
    if named and (images.samefile(masks) or len(named) == len(found)):
        found = named  # as the challenge's
    for mine, others, what in ((frames, found, "mask"), (found, frames, "frame")):
        if missing := sorted(set(mine) - set(others)):
            names = ", ".join(missing[:5]) + ", ..." * (len(missing) > 5)
            raise ValueError(
                f"{len(missing)} of {len(mine)} lack a {what} of their name in "
                f"{masks if what == 'mask' else images}/ (NAME or NAME{SUFFIX}): {names}"
            )
    return [(frames[stem], found[stem]) for stem in frames]


def read_pair(
    pair: tuple[Path, Path], label: str | None, cvat: dict | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `(frame, mask)` of a pair of paths, uint8, of one size each.

    Args:
        pair: (frame, mask) as `find_pairs` returns them.
        label: The class or name that is nerve, or None.
        cvat: What `read_cvat` returned of it, where the mask is an .xml.
    """
    path, mask_path = pair
    frame = read_picture(path)
    suffix = mask_path.suffix.lower()
    if suffix in (".xml", ".json"):
        if suffix == ".xml" and path.stem not in cvat:
            raise ValueError(f"{mask_path} says nothing of {path.name}")
        outlines = cvat[path.stem] if suffix == ".xml" else read_labelme(mask_path, label)
        polygons, shape = outlines
        if shape == frame.shape:
            try:
                mask = fill(polygons, shape)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{mask_path}: {error}") from error
    else:
        mask = read_mask(mask_path, label)
        shape = mask.shape
    if shape != frame.shape:
        raise ValueError(
            f"{mask_path} is of {shape[0]} x {shape[1]} pixels, {path.name} of "
            f"{frame.shape[0]} x {frame.shape[1]}"
        )
    return frame, mask


def name_subjects(
    names: list[str], pattern: str | None, table: Path | None
) -> list[str] | None:
    """Return each frame's subject as text, or None where nothing names them.

    Args:
        pattern: Regular expression; its first group, or all of it, is the subject.
        table: CSV with the columns `name` (of the file, or its stem) and `subject`.
    """
    if pattern:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"--subject-pattern {pattern!r}: {error}") from error
        matches, group = map(expression.search, names), min(1, expression.groups)
        found = [match and match[group] for match in matches]
        lacking = f"--subject-pattern {pattern!r} finds none in"
    elif table:
        text = f"{table} is no CSV with the columns name and subject"
        with (
            refusing(text, KeyError, UnicodeDecodeError, csv.Error),
            open(table, newline="", encoding="utf-8-sig") as file,
        ):
            rows = {row["name"]: row["subject"] for row in csv.DictReader(file)}
        found = [rows.get(name, rows.get(Path(name).stem)) for name in names]
        lacking = f"{table} names no subject for"
    else:
        return None
    for name, subject in zip(names, found, strict=True):
        if not subject:
            raise ValueError(f"{lacking} {name}")
    return found


def find_size(path: Path) -> tuple[int, int] | None:
    """Return (height, width) of a picture; None of a damaged one, refused later."""
    with contextlib.suppress(ValueError):
        return pictures.find_size(path)


def find_crop(frames: Iterable[np.ndarray]) -> list[int] | None:
    """Return where frames of one size change: top, left, height, width; None without two.

    Burned-in text and borders are the same in all of them.

    Args:
        frames: Iterable of uint8 arrays of one size.
    """
    low = high = None
    count = 0
    for frame in frames:
        low = frame.copy() if low is None else np.minimum(low, frame)
        high = frame.copy() if high is None else np.maximum(high, frame)
        count += 1
    if count < 2:
        return None
    moving = (high.astype(int) - low > CHANGED).astype(np.uint8)
    square = np.ones((OPENED, OPENED), np.uint8)
    moving = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, square)
    moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, square)
    number, _, parts, _ = cv2.connectedComponentsWithStats(moving)
    if number < 2:
        return None
    left, top, width, height, _ = parts[1 + parts[1:, cv2.CC_STAT_AREA].argmax()].tolist()
    return [top, left, height, width]


def find_crops(
    pairs: list[tuple[Path, Path]], sizes: list[tuple[int, int] | None]
) -> dict[str, list[int]]:
    """Return `{"HxW": crop}` of the sizes of which there is more than one frame."""

    def read(path):  # a damaged frame is refused when it is extracted
        with contextlib.suppress(ValueError):
            return read_picture(path)

    crops = {}
    for size in sorted(set(sizes) - {None}):
        same = [frame for (frame, _), s in zip(pairs, sizes, strict=True) if s == size]
        whole = (frame for frame in machine.map_threads(read, same) if frame is not None)
        if crop := find_crop(whole):
            crops[f"{size[0]}x{size[1]}"] = crop
    return crops


class Own(NamedTuple):
    """A frame of people's own."""

    name: str
    size: list[int] | None  # (height, width) as it is; None of a damaged one


class Plan(NamedTuple):
    """What becomes of people's own frames, settled before any is written."""

    frames: dict[tuple[int, int], Own]  # by (subject, image), both from 1
    size: tuple[int, int]  # (height, width) of the arrays
    read: Callable  # such a key to `(frame, mask)`, uint8 of `size`
    subjects_known: bool
    subject_names: dict[str, str]  # {number: name}
    crops: dict[str, list[int]]


def plan(
    pairs: list[tuple[Path, Path]],
    crop: bool,
    label: str | None,
    pattern: str | None,
    table: Path | None,
) -> Plan:
    """Settle what becomes of people's own frames.

    Frames of another size than most, after cropping, are letterboxed into it.

    Args:
        crop: Whether to cut what is the same in all frames of a size.
    """
    names = [path.name for path, _ in pairs]
    sizes = [find_size(path) for path, _ in pairs]
    if not any(sizes):
        read_picture(pairs[0][0])  # says what is wrong
    crops = find_crops(pairs, sizes) if crop else {}
    shown = [tuple(crops.get(f"{h}x{w}", (0, 0, h, w))[2:]) for h, w in filter(None, sizes)]
    size = collections.Counter(shown).most_common(1)[0][0]
    known = name_subjects(names, pattern, table)
    subjects = known or [Path(name).stem for name in names]
    numbers = {name: k for k, name in enumerate(sorted(set(subjects)), 1)}
    frames = {
        (numbers[subject], image): Own(name, own and list(own))
        for image, (subject, name, own) in enumerate(
            zip(subjects, names, sizes, strict=True), 1
        )
    }
    xml = {mask for _, mask in pairs if mask.suffix.lower() == ".xml"}
    cvat = read_cvat(xml.pop(), label) if xml else None

    def read(frame):
        image, mask = read_pair(pairs[frame[1] - 1], label, cvat)
        geometry = Geometry.of(image.shape, size, size[1] / size[0], crops)
        mask = np.where(geometry.fit(mask) >= 128, np.uint8(255), np.uint8(0))
        return geometry.fit(image), mask

    subject_names = {str(number): name for name, number in numbers.items()}
    return Plan(frames, size, read, known is not None, subject_names, crops)
