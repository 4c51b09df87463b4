"""Millimetres: which spacing holds where in the frames of a DICOM file."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CENTIMETRES = 3  # DICOM's code of a region's physical units
AGREE = 0.01  # relative difference of two spacings that say the same
EVERYWHERE = slice(None), slice(None)


class Region(NamedTuple):
    """A part of the frames, and its spacing."""

    rows: slice
    columns: slice
    spacing: tuple[float, float] | None  # mm from row to row and column; None: no length


def in_mm(row: float, column: float, unit: float) -> tuple[float, float] | None:
    """Return a (row, column) spacing in mm, or None where it is none; `unit` is in mm."""
    spacing = abs(float(row)) * unit, abs(float(column)) * unit
    return spacing if all(0 < value < np.inf for value in spacing) else None


def read_region(item) -> Region:
    """Return a region of ultrasound; one that does not say where it lies is everywhere."""
    place, spacing = EVERYWHERE, None
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        names = ("MinY0", "MaxY1", "MinX0", "MaxX1")
        ends = [item.get(f"RegionLocation{name}") for name in names]
        if None not in ends:
            top, bottom, left, right = (max(0, end) for end in ends)
            place = slice(top, bottom + 1), slice(left, right + 1)
        if item.PhysicalUnitsXDirection == item.PhysicalUnitsYDirection == CENTIMETRES:
            spacing = in_mm(item.PhysicalDeltaY, item.PhysicalDeltaX, 10)
    return Region(*place, spacing)


def same(spacings: list[tuple[float, float] | None]) -> bool:
    """Tell whether spacings are there and say the same."""
    if None in spacings:
        return False
    return np.allclose(spacings, spacings[:1] * len(spacings), rtol=AGREE, atol=0)


def read_regions(dataset) -> tuple[list[Region], list[str]]:
    """Return what a DICOM file says of spacing, and notes of what speaks against it.

    Its tag holds everywhere, beside its regions.
    """
    items = dataset.get("SequenceOfUltrasoundRegions") or ()
    regions, notes, tag = [read_region(item) for item in items], [], None
    height, width = dataset.Rows + 1, dataset.Columns + 1  # more by one: some count from 1
    if any((r.rows.stop or 0) > height or (r.columns.stop or 0) > width for r in regions):
        regions = [region._replace(spacing=None) for region in regions]
        notes.append("its regions reach beyond its pixels: none of them gives millimetres")
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        tag = in_mm(*dataset.PixelSpacing, 1)
    if tag is None:
        return regions, notes
    others = [region.spacing for region in regions if region.spacing]
    if not same([tag, *others]):
        tags, *texts = ("{:.4g} x {:.4g} mm".format(*each) for each in (tag, *others))
        notes.append(
            f"its Pixel Spacing is {tags}, its regions say {', '.join(texts)}: nothing is "
            "given in mm where they differ"
        )
    return [Region(*EVERYWHERE, tag), *regions], notes


def spacing_at(mask: np.ndarray, regions: Sequence[Region]) -> tuple[float, float] | None:
    """Return the spacing, (row, column) in mm, of the place where a mask lies.

    None where regions say different ones there, or some of it lies in none. Of an empty
    mask, uint8 `(height, width)`, it is any.
    """
    if not mask.any():
        return next((region.spacing for region in regions if region.spacing), None)
    outside, held = mask.copy(), []
    for rows, columns, spacing in regions:
        if mask[rows, columns].any():
            held.append(spacing)
            outside[rows, columns] = 0
    return held[0] if held and same(held) and not outside.any() else None
