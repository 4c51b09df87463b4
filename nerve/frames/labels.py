"""Masks as outlines that labelme and CVAT open, to be corrected there.

What comes back is read by `outlines.py`, which also says here how well outlines fit.
"""

import contextlib
import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from skimage.measure import find_contours

from nerve.files import atomic
from nerve.frames.outlines import HOLES, Drawing, Shape, draw_mask, measure
from nerve.frames.overlays import write_picture
from nerve.scoring.scores import dice

FORMATS = ("labelme", "cvat")
NERVE = "nerve"  # what outlines are called that are no holes
LABELME = "6.3.1"  # the version in which they were looked at
CVAT = "annotations.xml"
# pixels by which an outline may leave that of the pixels, the coarsest first
TOLERANCES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
CLOSE = 0.996  # Dice to the mask at which an outline is good enough: some 22 points
SMALL = 64  # pixels of a part below which its stairs are its shape
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def trace(mask: np.ndarray) -> list[Shape]:
    """Return the outlines of a mask, large ones first, so that holes are cut in order.

    They have as few points as leave a Dice of CLOSE, once read again.

    Args:
        mask: uint8 array `(height, width)`, 0 and 1.

    Returns:
        Polygons of columns and rows, in which pixels are squares of side 1 and the corner
        of the frame is 0, 0; none of an empty mask.
    """
    left, top, width, height = cv2.boundingRect(mask)
    part = mask[top : top + height, left : left + width]
    # between the centres of pixels; diagonal neighbours are parts of their own
    exact = [(measure(line), line) for line in find_contours(np.pad(part, 1), 0.5)]
    exact.sort(key=lambda line: -abs(line[0]))
    smooth = [(area, smooth_line(line, area)) for area, line in exact]
    for tolerance, lines in itertools.product(TOLERANCES, (smooth, exact)):
        shapes = [make_shape(line, area, tolerance) for area, line in lines]
        with contextlib.suppress(ValueError):  # a thin part without an area now
            found = draw_mask(Drawing("", part.shape, shapes), part.shape, NERVE)
            if dice(part, found.mask) >= CLOSE:
                break
    return [s._replace(points=np.round(s.points + (left, top), 2)) for s in shapes]


def smooth_line(line: np.ndarray, area: float) -> np.ndarray:
    """Return a closed line without the stairs of pixels; one around few as it is."""
    if abs(area) < SMALL:
        return line
    points = line[:-1]
    points = sum(np.roll(points, step, axis=0) for step in (-1, 0, 1)) / 3
    return np.concatenate([points, points[:1]])


def make_shape(line: np.ndarray, area: float, tolerance: float) -> Shape:
    """Return a closed line of a padded mask as a polygon of fewer points.

    Small parts are kept more exactly: an eighth of their side is the most they change.
    """
    line = line[:-1, ::-1].astype(np.float32)
    line = cv2.approxPolyDP(line, min(tolerance, np.sqrt(abs(area)) / 8), True)[:, 0]
    # from centres, counted from the padding
    points = np.round(line.astype(np.float64) - 0.5, 2)
    return Shape(HOLES[0] if area < 0 else NERVE, "polygon", points)


def to_labelme(shapes: list[Shape], name: str, size: tuple[int, int]) -> dict:
    """Return what labelme keeps of the outlines on a picture that lies beside its file."""
    alike = {"group_id": None, "description": "", "shape_type": "polygon"}
    alike |= {"flags": {}, "mask": None}
    drawn = [{"label": s.label, "points": s.points.tolist(), **alike} for s in shapes]
    record = {"version": LABELME, "flags": {}, "shapes": drawn, "imagePath": name}
    return record | {"imageData": None, "imageHeight": size[0], "imageWidth": size[1]}


def to_cvat(shapes: list[Shape], name: str, size: tuple[int, int], number: int) -> str:
    """Return what CVAT for images 1.1 keeps of the outlines on a picture, as a line.

    A name that XML does not take is a ValueError.
    """
    if NO_XML.search(name):
        raise ValueError(f"{name!r} holds characters that XML does not take; rename it")
    about = {"id": number, "name": name, "width": size[1], "height": size[0]}
    image = ElementTree.Element("image", {key: str(about[key]) for key in about})
    for order, shape in enumerate(shapes):
        hole, points = shape.label in HOLES, shape.points.tolist()
        about = {"label": HOLES[1] if hole else shape.label, "source": "auto"}
        about |= {"occluded": "0", "z_order": str(order)}
        about["points"] = ";".join(f"{column},{row}" for column, row in points)
        ElementTree.SubElement(image, "polygon", about)
    return ElementTree.tostring(image, encoding="unicode") + "\n"


@contextlib.contextmanager
def writing(folder: Path, kind: str) -> Iterator[Callable]:
    """Yield a function that writes frames, and their masks as outlines, into a folder.

    It takes a name without suffix, the frame, uint8 `(height, width)`, and its mask, 0 and
    1. A frame whose mask is empty is there, too, for what was not found. The kind is one of
    FORMATS; for CVAT there is one file, whole at the end.
    """
    atomic.make_folder(folder)
    numbers, one_file = itertools.count(), contextlib.nullcontext()
    if kind == "cvat":
        one_file = atomic.write_text(folder / CVAT)

    def write(name, frame, mask):
        picture, shapes = f"{name}.png", trace(mask)
        atomic.make_folder((folder / picture).parent)
        if kind == "cvat":
            file.write(to_cvat(shapes, picture, mask.shape, next(numbers)))
        else:
            record = to_labelme(shapes, Path(picture).name, mask.shape)
            atomic.write_json(folder / f"{name}.json", record)
        write_picture(folder / picture, frame)

    with one_file as file:
        if kind == "cvat":
            file.write('<?xml version="1.0" encoding="utf-8"?>\n')
            file.write("<annotations>\n<version>1.1</version>\n")
        yield write
        if kind == "cvat":
            file.write("</annotations>\n")
