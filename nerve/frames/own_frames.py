"""Frames and masks of people's own, in any names and sizes, as extract_data.py takes them.

Masks are pictures (of classes, with --label), or outlines and brush masks drawn in labelme
(a .json of each frame's name), CVAT (one .xml, "CVAT for images 1.1") or COCO (one .json).
"""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nerve import machine
from nerve.command import listed, quoted
from nerve.frames.geometry import Geometry
from nerve.frames.outlines import Drawing, Marked, draw_mask, read_labelme, stem_of
from nerve.frames.pairs import join_spellings, name_subjects
from nerve.frames.pictures import SUFFIXES, read_mask
from nerve.frames.sources import open_source

CHANGED = 2  # greys by which a pixel must differ between frames to count as picture
OPENED = 7  # pixels: strips and letters thinner than that are no picture
HOLLOW = 2  # times its own area that a mask surrounds: an outline, no area

Pair = tuple[Path, list[Path | Drawing]]  # a frame and its masks, as of `pairs.find_pairs`


def read_frame(path: Path) -> tuple[np.ndarray, Sequence[str]]:
    """Return a picture or a still of DICOM, uint8 grey `(height, width)`, and its notes.

    Raises:
        ValueError: as of `open_source`, or it is a loop.
    """
    source = open_source(path)
    frame, *more = itertools.islice(source.frames, 2)
    if more:
        raise ValueError(
            f"{path} holds several frames; write each as a picture, with outlines to "
            f"correct: python predict.py --input {quoted(path)} --labels labelme"
        )
    return frame, source.notes


def read_marked(
    source: Path | Drawing, name: str, size: tuple[int, int], label: str | None
) -> Marked:
    """Return one mask of the frame of a name and size; `label` is what is nerve, or None.

    Raises:
        ValueError: it cannot be read, or is of another frame or size.
    """
    if isinstance(source, Path) and source.suffix.lower() in SUFFIXES:
        where, marked = source, Marked(*read_mask(source, label))
        found = marked.mask.shape
    else:
        drawing = source if isinstance(source, Drawing) else read_labelme(source)
        if drawing.picture not in (None, stem_of(name)):
            raise ValueError(
                f"{drawing.where} is drawn on {drawing.picture!r:.80} (its imagePath), not "
                f"on {name}; give it that picture's name, or imagePath the new one of a "
                "picture that was renamed"
            )
        where, found = drawing.where, size if None in drawing.size else drawing.size
        marked = draw_mask(drawing, size, label) if found == size else None
    if found != size:
        other = f"{found[0]!r:.20} x {found[1]!r:.20} pixels"
        raise ValueError(f"{where} is of {other}, {name} of {size[0]} x {size[1]}")
    return marked


def read_pair(pair: Pair, label: str | None) -> tuple[np.ndarray, Marked, Sequence[str]]:
    """Return the uint8 frame of a pair, all its masks as one of its size, and notes."""
    path, masks = pair
    frame, notes = read_frame(path)
    result = Marked(np.zeros(frame.shape, np.uint8), frozenset())
    for source in masks:
        result = result.joined(read_marked(source, path.name, frame.shape, label))
    return frame, result, notes


def find_size(path: Path) -> tuple[int, int] | None:
    """Return (height, width) of a frame; None of a damaged one, refused later."""
    with contextlib.suppress(ValueError):
        return read_frame(path)[0].shape


def find_crop(pairs: list[Pair], label: str | None) -> list[int] | None:
    """Return where frames of one size change or a mask is: top, left, height, width.

    Burned-in text and borders are the same in all of them. None without two frames.
    """

    def read(pair):  # a damaged one is refused when it is extracted
        with contextlib.suppress(ValueError):
            return read_pair(pair, label)

    low, high, marked, count = 255, 0, 0, 0
    for frame, mine, _ in filter(None, machine.map_threads(read, pairs)):
        low, high = np.minimum(low, frame), np.maximum(high, frame)
        marked = np.maximum(marked, mine.mask)
        count += 1
    if count < 2:
        return None
    moving = (high.astype(int) - low > CHANGED).astype(np.uint8)
    square = np.ones((OPENED, OPENED), np.uint8)
    moving = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, square)
    moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, square)
    number, part_of, parts, _ = cv2.connectedComponentsWithStats(moving)
    if number < 2:
        return None
    largest = 1 + parts[1:, cv2.CC_STAT_AREA].argmax()
    left, top, width, height = cv2.boundingRect(marked | (part_of == largest))
    return [top, left, height, width]


def find_crops(
    pairs: list[Pair], sizes: list[tuple[int, int] | None], label: str | None
) -> dict[str, list[int]]:
    """Return `{"HxW": crop}` of the sizes of which there is more than one frame."""
    crops = {}
    for size in sorted(set(sizes) - {None}):
        same = [pair for pair, s in zip(pairs, sizes, strict=True) if s == size]
        if crop := find_crop(same, label):
            crops[f"{size[0]}x{size[1]}"] = crop
    return crops


class Seen(NamedTuple):
    """What reading a frame's masks brought up."""

    name: str
    labels: frozenset  # as of `Marked`
    shown: bool  # whether the mask shows anything
    remarks: list[str]


def remark(marked: Marked, geometry: Geometry, fitted: np.ndarray) -> list[str]:
    """Return what a user should know about a mask and what fitting it left."""
    contours, _ = cv2.findContours(marked.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    surrounded = sum(cv2.contourArea(cv2.convexHull(line)) for line in contours)
    area, texts = np.count_nonzero(marked.mask), [*marked.remarks]
    if surrounded > HOLLOW * area:
        texts.append("masks that are lines around an area (outlines?); fill them")
    if area > marked.mask.size / 2:
        texts.append("masks that cover more than half of them (inverted?)")
    if area and geometry.kept(marked.mask, fitted) < 0.5:
        texts.append("masks that lost more than half of their area by letterboxing")
    return texts


def count_labels(seen: Iterable[Seen], label: str | None) -> str:
    """Return the labels but one, each with the number of frames that hold it."""
    count = collections.Counter(name for frame in seen for name in frame.labels)
    most = sorted(count.items(), key=lambda item: (-item[1], str(item[0])))
    texts = [f"{name!r:.40} ({number})" for name, number in most if str(name) != label]
    return ", ".join(texts[:8]) + ", ..." * (len(texts) > 8)


def judge(seen: list[Seen], label: str | None) -> list[str]:
    """Return what must be said of the masks that were read.

    Raises:
        ValueError: they hold several labels, and none is given.
    """
    labels, lines = frozenset().union(*(frame.labels for frame in seen)), []
    if label is None and len(labels) > 1:
        said = f"masks hold several labels (in so many frames): {count_labels(seen, None)}"
        if not all(isinstance(name, int) for name in labels):
            raise ValueError(f"{said}; say which is nerve: --label NAME")
        lines.append(f"note: {said}; each is taken for the nerve")
    if label is not None:
        alone = [frame for frame in seen if frame.labels and not frame.shown]
        if passed := count_labels((frame for frame in seen if frame.shown), label):
            lines.append(f"note: passed over beside --label {label}: {passed}")
        if passed := count_labels(alone, label):
            lines.append(f"warning: {len(alone)} frames hold other labels alone: {passed}")
    for text in sorted({text for frame in seen for text in frame.remarks}):
        names = [frame.name for frame in seen if text in frame.remarks]
        lines.append(f"warning: {len(names)} frames have {text}: {listed(names)}")
    return lines


class Plan(NamedTuple):
    """What becomes of people's own frames, settled before any is written."""

    frames: list[tuple[int, int]]  # sorted (subject, image), both from 1
    names: list[str]  # of each image; likewise:
    sizes: list[tuple[int, int] | None]  # (height, width) as it is; None of a damaged one
    size: tuple[int, int]  # (height, width) of the arrays
    read: Callable  # one of `frames` to `(frame, mask)`, uint8 of `size`
    seen: list[Seen]  # of the frames that were read
    subjects_known: bool
    subject_names: dict[str, str]  # {number: name}
    crops: dict[str, list[int]]


def plan(
    images: Path,
    pairs: list[Pair],
    crop: bool,
    label: str | None,
    pattern: str | None,
    table: Path | None,
) -> Plan:
    """Settle what becomes of people's own frames.

    Frames of another size than most, after cropping, are letterboxed into it. To `crop` is
    to cut what is the same in all frames of a size, and no mask.
    """
    names = [path.relative_to(images).as_posix() for path, _ in pairs]
    known = name_subjects(names, pattern, table)
    sizes = list(machine.map_threads(find_size, [path for path, _ in pairs]))
    if not any(sizes):
        read_frame(pairs[0][0])  # says what is wrong
    crops = find_crops(pairs, sizes, label) if crop else {}
    shown = [tuple(crops.get(f"{h}x{w}", (0, 0, h, w))[2:]) for h, w in filter(None, sizes)]
    size = collections.Counter(shown).most_common(1)[0][0]
    subjects = join_spellings(known) if known else [stem_of(name) for name in names]
    numbers = {name: k for k, name in enumerate(sorted(set(subjects)), 1)}
    frames = sorted((numbers[name], image) for image, name in enumerate(subjects, 1))
    seen = []

    def read(frame):
        place = frame[1] - 1
        image, marked, notes = read_pair(pairs[place], label)
        for note in notes:
            print(f"note: {note}")
        geometry = Geometry.of(image.shape, size, size[1] / size[0], crops)
        mask = geometry.fit_mask(marked.mask)
        shown, remarks = bool(marked.mask.any()), remark(marked, geometry, mask)
        if shown and not np.ptp(image):
            remarks.append("masks though they are of one grey")
        seen.append(Seen(names[place], marked.labels, shown, remarks))
        return geometry.fit(image), mask

    people = {str(number): name for name, number in numbers.items()}
    return Plan(frames, names, sizes, size, read, seen, known is not None, people, crops)
