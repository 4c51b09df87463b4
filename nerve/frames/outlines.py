"""Outlines drawn in labelme or CVAT, and the masks they make."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from skimage import draw

MAX_TEXT = 1 << 28  # bytes of outlines in one file
MAX_PLACE = 1e6  # pixels, of an outline's point


def fill(polygons: list, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask of outlines, uint8 `(height, width)`, 0 or 255.

    Args:
        polygons: Lists of (column, row), in pixels from the upper left corner.
        shape: (height, width).
    """
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.shape[1:] != (2,) or not np.abs(points).max(initial=0) < MAX_PLACE:
            raise ValueError("an outline that is no list of points")
        # of pixels, whose centres lie at halves
        mask[draw.polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, shape)] = 255
    return mask


def read_text(path: Path) -> bytes:
    """Return a file's bytes, refused where they are too many."""
    if path.stat().st_size > MAX_TEXT:
        raise ValueError(f"{path} has more than {MAX_TEXT >> 20} MB; expected outlines")
    return path.read_bytes()


def read_labelme(path: Path, label: str | None) -> tuple[list, tuple[int, int]]:
    """Return `(polygons, shape)` of a file of labelme; of one label, or of all."""
    try:
        record = json.loads(read_text(path))
        shape = int(record["imageHeight"]), int(record["imageWidth"])
        shapes = [s for s in record["shapes"] if label in (None, s["label"])]
        kinds = {s.get("shape_type", "polygon") for s in shapes}
        polygons = [s["points"] for s in shapes]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no file of labelme ({error!r:.80})") from error
    if kinds - {"polygon"}:
        raise ValueError(f"{path} holds {', '.join(kinds)}; expected polygons alone")
    return polygons, shape


def read_cvat(path: Path, label: str | None) -> dict[str, tuple[list, tuple[int, int]]]:
    """Return `{name: (polygons, shape)}` of a file of CVAT; of one label, or of all.

    Raises:
        ValueError: it is none, holds other shapes than polygons (brush masks, boxes), or
            two pictures of one name.
    """
    content = read_text(path)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{path} defines entities, which CVAT never does")
    found, names, kinds = {}, [], set()
    try:
        for image in ElementTree.fromstring(content).iter("image"):
            polygons = [
                [
                    tuple(map(float, point.split(",")))
                    for point in p.get("points").split(";")
                ]
                for p in image.iter("polygon")
                if label in (None, p.get("label"))
            ]
            shape = int(image.get("height")), int(image.get("width"))
            names.append(Path(image.get("name")).stem)
            found[names[-1]] = polygons, shape
            mine = [e for e in image if label in (None, e.get("label"))]
            kinds |= {e.tag for e in mine} - {"polygon", "tag"}
    except (ElementTree.ParseError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no .xml of CVAT ({error!r:.80})") from error
    if kinds:
        raise ValueError(
            f"{path} holds {', '.join(sorted(kinds))}; expected polygons alone"
        )
    if len(found) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} holds several pictures called {twice}")
    return found
