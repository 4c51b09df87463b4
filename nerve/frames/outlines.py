"""Outlines and brush masks of labelme, CVAT and COCO, and the masks they make."""

import base64
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from skimage import draw

from nerve.command import listed, refusing
from nerve.frames import dicom, pictures, videos

MAX_TEXT = 1 << 28  # bytes of outlines in one file
BEYOND = 2  # pixels by which a point may lie outside its frame
HOLES = ("_background_", "background")  # what labelme and CVAT call a label that is none
KNOWN = (*pictures.SUFFIXES, *videos.SUFFIXES, *dicom.SUFFIXES)
SUFFIX = re.compile(rf"({'|'.join(KNOWN)}|.webp|.json)$".replace(".", r"\."), re.IGNORECASE)
NESTED = "outlines within others, which change nothing; call a hole _background_"
CROSSED = "outlines that cross themselves and lose area"
DAMAGED = (*pictures.DAMAGED, AttributeError, OverflowError, RecursionError)


class Shape(NamedTuple):
    """Something drawn on a frame, as its file holds it: checked where it is painted."""

    label: str
    kind: str  # "polygon" or one of BRUSHES; any other is refused
    points: Any  # of a polygon: columns and rows; else left, top, width and height
    pixels: Any = None  # within these: lengths of runs, or base64


class Drawing(NamedTuple):
    """All that is drawn on a frame."""

    where: str  # for messages
    size: tuple  # (height, width) that its file gives; None where it gives none
    shapes: list[Shape]
    picture: str | None = None  # stem of the one drawn on, where only its file says so


class Marked(NamedTuple):
    """A frame's mask, and what else its files say."""

    mask: np.ndarray  # uint8 (height, width), 0 or 255
    labels: frozenset  # all that they hold: numbers or names
    remarks: frozenset = frozenset()  # what is strange about its outlines

    def joined(self, other: Self) -> Self:
        """Return this mask and another one of the frame as one."""
        return Marked(*(mine | others for mine, others in zip(self, other, strict=True)))


def clean(text: Any) -> str:
    """Return a name or label in the one Unicode form in which they are compared."""
    return unicodedata.normalize("NFC", str(text))


def stem_of(name: Any, folders: int = 0) -> str:
    """Return what a file is called without its suffix, below the last of its folders.

    "1.2.840.1" of a DICOM file has none.
    """
    parts = re.split(r"[\\/]", clean(name))
    return SUFFIX.sub("", "/".join(parts[-1 - folders :]))


def paint_polygon(points: Any, size: tuple[int, int]) -> np.ndarray:
    """Return where a polygon lies on a frame, bool `(height, width)`."""
    points = np.array(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError("an outline that is no list of points")
    points = points[:, ::-1]
    if not ((points >= -BEYOND) & (points <= np.add(size, BEYOND))).all():
        raise ValueError(f"an outline outside the frame of {size[0]} x {size[1]} pixels")
    # of pixels, whose centres lie at halves
    return draw.polygon2mask(size, points - 0.5)


def read_runs(lengths: Any, height: int, width: int) -> np.ndarray:
    """Return the bool array `(height, width)` of runs along its rows, the first of 0."""
    if isinstance(lengths, str):
        raise ValueError("compressed RLE; import it in CVAT, export CVAT for images 1.1")
    lengths, area = np.array(lengths, np.int64), height * width
    within = lengths.ndim == 1 and ((lengths >= 0) & (lengths <= area)).all()
    if not within or lengths.sum() != area:
        raise ValueError("a brush mask whose runs do not fill its box")
    return np.repeat(np.arange(len(lengths)) % 2 > 0, lengths).reshape(height, width)


def read_png(text: Any, height: int, width: int) -> np.ndarray:
    """Return the bool array `(height, width)` of a picture in base64."""
    content = io.BytesIO(base64.b64decode(text, validate=True))
    with pictures.open_whole(content, ("PNG",)) as image:
        if image.size != (width, height):
            raise ValueError("a brush mask of another size than its box")
        return np.asarray(image.convert("L")) > 0


# how a brush mask is kept: within a box by CVAT and labelme, of the whole frame by COCO
BRUSHES = {
    "runs": read_runs,
    "columns": lambda lengths, height, width: read_runs(lengths, width, height).T,
    "png": read_png,
}


def paint(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """Return where a shape lies on a frame, bool `(height, width)`, somewhere True."""
    if shape.kind == "polygon":
        mask = paint_polygon(shape.points, size)
    elif shape.kind in BRUSHES:
        mask = np.zeros(size, bool)
        left, top, width, height = map(int, shape.points)
        part = mask[top : top + height, left : left + width]
        whole = shape.kind != "columns" or part.shape == size
        if min(left, top) < 0 or part.shape != (height, width) or not whole:
            sides = f"{size[0]} x {size[1]} pixels"
            raise ValueError(f"a brush mask outside the frame's {sides}")
        part[...] = BRUSHES[shape.kind](shape.pixels, height, width)
    else:
        raise ValueError(f"{shape.kind!r:.40}; expected polygons and brush masks alone")
    if not mask.any():
        raise ValueError("an outline without an area")
    return mask


def measure(line: np.ndarray) -> float:
    """Return the area within a closed line of rows and columns; of a hole below 0."""
    rows, columns = line.T
    return float(columns[:-1] @ rows[1:] - rows[:-1] @ columns[1:]) / 2


def edge_of(line: np.ndarray) -> float:
    """Return by how many pixels an area may differ, as those at its edge count or not."""
    return float(np.abs(np.diff(line, axis=0)).sum()) / 2 + BEYOND


def closed(points: Any) -> np.ndarray:
    """Return the points of a polygon, and the first again, as floats `(N + 1, 2)`."""
    return np.array([*points, points[0]], np.float64)


def crosses(points: Any, place: np.ndarray) -> bool:
    """Tell whether a polygon crosses itself, by the area that is left of it."""
    line = np.clip(closed(points), 0, place.shape[::-1])
    return abs(abs(measure(line)) - np.count_nonzero(place)) > edge_of(line)


def contradicts(drawn: dict, parts: list[list]) -> bool:
    """Tell whether bbox or area of an annotation of COCO are not those of its polygons.

    Some programs give the area of the box.
    """
    lines = [closed(points) for points in parts]
    corners = [side(np.concatenate(lines), axis=0) for side in (np.min, np.max)]
    box, area = np.array([corners[0], corners[1] - corners[0]]), drawn.get("area")
    said = np.reshape(drawn.get("bbox") or box, (2, 2))
    found = sum(abs(measure(line)) for line in lines)
    areas = np.subtract([found, said[1].prod()], area or found)
    near = np.abs(areas).min() <= sum(map(edge_of, lines))
    return not (near and (np.abs(said - box) <= BEYOND).all())


def draw_mask(drawing: Drawing, size: tuple[int, int], label: str | None) -> Marked:
    """Return the mask of a label, or of the only one; holes are cut in the order drawn.

    Raises:
        ValueError: several labels and none is given, or a shape that makes no area.
    """
    labels = {s.label for s in drawing.shapes if s.label.casefold() not in HOLES}
    wanted = labels if label is None else {label}
    if len(wanted) > 1:
        names = ", ".join(sorted(f"{name!r:.40}" for name in labels)[:8])
        said = f"holds the labels {names}; say which is nerve: --label NAME"
        raise ValueError(f"{drawing.where} {said}")
    mask, remarks = np.zeros(size, np.uint8), set()
    with refusing(f"{drawing.where} cannot be drawn", *DAMAGED):
        for shape in drawing.shapes:
            if shape.label in wanted:
                place = paint(shape, size)
                if mask[place].all():
                    remarks.add(NESTED)
                if shape.kind == "polygon" and crosses(shape.points, place):
                    remarks.add(CROSSED)
                mask[place] = 255
            elif shape.label not in labels:
                mask[paint(shape, size)] = 0
        if wanted & labels and not mask.any():
            raise ValueError("holes cover all of its outlines")
    return Marked(mask, frozenset(labels), frozenset(remarks))


def read_text(path: Path) -> str:
    """Return what a file of outlines holds."""
    if path.stat().st_size > MAX_TEXT:
        raise ValueError(f"{path} has more than {MAX_TEXT >> 20} MB; expected outlines")
    return path.read_text(encoding="utf-8-sig")


def read_labelme(path: Path) -> Drawing:
    """Return what is drawn in a file of labelme."""
    shapes = []
    with refusing(f"{path} is no file of labelme", *DAMAGED):
        record = json.loads(read_text(path))
        for shape in record["shapes"]:
            label, kind = clean(shape["label"]), str(shape.get("shape_type", "polygon"))
            points, pixels = shape["points"], shape.get("mask")
            if kind == "mask":
                (left, top), (right, bottom) = (map(int, point) for point in points)
                kind, points = "png", (left, top, right - left + 1, bottom - top + 1)
            shapes.append(Shape(label, kind, points, pixels))
        size = record.get("imageHeight"), record.get("imageWidth")
        picture = stem_of(record.get("imagePath") or "") or None
    return Drawing(str(path), size, shapes, picture)


def read_element(element: ElementTree.Element) -> Shape:
    """Return a shape of CVAT's."""
    label, get = clean(element.get("label")), element.get
    if element.tag == "polygon":
        points = [point.split(",") for point in get("points").split(";")]
        return Shape(label, "polygon", points)
    if element.tag == "mask":
        box = [get(name) for name in ("left", "top", "width", "height")]
        return Shape(label, "runs", box, get("rle").split(","))
    return Shape(label, element.tag, None)


def read_cvat(path: Path) -> list[tuple[str, Drawing]]:
    """Return `[(name of a picture, drawing)]` of a file of CVAT for images 1.1."""
    found = []
    with refusing(f"{path} is no .xml of CVAT for images 1.1", *DAMAGED):
        text = read_text(path)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("it defines entities, which CVAT never does")
        root = ElementTree.fromstring(text)
        if root.tag != "annotations" or root.find("track") is not None:
            what = "CVAT for video" if root.tag == "annotations" else f"{root.tag!r:.40}"
            raise ValueError(f"it is {what}; export it as CVAT for images 1.1")
        for image in root.iter("image"):
            name = image.get("name")
            size = int(image.get("height")), int(image.get("width"))
            drawn = [element for element in image if element.tag != "tag"]
            drawn.sort(key=lambda element: int(element.get("z_order", 0)))
            shapes = [read_element(element) for element in drawn]
            found.append((name, Drawing(f"{path}, {name!r:.80},", size, shapes)))
    return found


def read_coco(path: Path) -> list[tuple[str, Drawing]]:
    """Return `[(name of a picture, drawing)]` of a file of COCO."""
    text = "is called as no frame and is no file of COCO, which many programs export"
    with refusing(f"{path} {text}", *DAMAGED):
        record = json.loads(read_text(path))
        labels = {kind["id"]: clean(kind["name"]) for kind in record["categories"]}
        found, doubted = {}, []
        for image in record["images"]:
            name, size = image["file_name"], (image.get("height"), image.get("width"))
            found[image["id"]] = name, Drawing(f"{path}, {name!r:.80},", size, [])
        if len(found) + len(labels) < len(record["images"]) + len(record["categories"]):
            raise ValueError("two pictures or two categories have one id")
        for drawn in record["annotations"]:
            label, parts = labels[drawn["category_id"]], drawn.get("segmentation")
            shapes = found[drawn["image_id"]][1].shapes
            if not parts:
                shapes.append(Shape(label, "box", None))
            elif isinstance(parts, dict):
                box = [0, 0, *reversed(parts["size"])]
                shapes.append(Shape(label, "columns", box, parts["counts"]))
            else:
                parts = [list(zip(p[::2], p[1::2], strict=True)) for p in parts]
                shapes += [Shape(label, "polygon", points) for points in parts]
                if all(parts) and contradicts(drawn, parts):
                    doubted.append(found[drawn["image_id"]][0])
    if doubted:
        said = f"{len(doubted)} outlines contradict their bbox or area, damaged or redrawn"
        print(f"warning: {path}: {said}: {listed(map(str, doubted))}")
    return list(found.values())
