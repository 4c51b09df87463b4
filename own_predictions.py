"""Masks, overlays and a table of people's own frames: pictures, videos, DICOM, a camera."""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from skimage.measure import label
from tqdm import tqdm

import advice
import dicom_seg
import stage
from frames import Source, list_files, open_source
from inference import find_masks, keep_share, presence
from overlays import PREDICTION_COLOUR, outline, write_picture

SMOOTHING = 0.3  # share of the frames before, in a video: benchmarks/video.py
COLUMNS = ("name", "frame", "height", "width", "presence", "highest", "parts", "area")
COLUMNS += ("area_mm2", "centroid_row", "centroid_column", "longest_axis")
COLUMNS += ("longest_axis_mm",)


def measure_mask(mask: np.ndarray, spacing: tuple[float, float] | None) -> list:
    """Return what the table says of a mask, from `parts` on; "" where it is not defined.

    Args:
        mask: uint8 array `(height, width)`, 0 and 1.
        spacing: (row, column) in millimetres, or None.

    Returns:
        Number of parts; area in pixels and mm2; row and column of the centre of mass;
        greatest distance of two pixels' centres, in pixels and mm.
    """
    area = int(np.count_nonzero(mask))
    if not area:
        return [0, 0, "" if spacing is None else "0", *[""] * 4]
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = cv2.convexHull(np.concatenate(contours))[:, 0].astype(np.float64)

    def longest(points):
        return np.linalg.norm(points[:, np.newaxis] - points, axis=2).max()

    row, column = (places.mean() for places in np.nonzero(mask))
    area_mm2 = axis_mm = ""
    if spacing is not None:
        area_mm2 = f"{area * spacing[0] * spacing[1]:.2f}"
        axis_mm = f"{longest(points * (spacing[1], spacing[0])):.2f}"
    return [
        label(mask).max(),
        area,
        area_mm2,
        f"{row:.1f}",
        f"{column:.1f}",
        f"{longest(points):.1f}",
        axis_mm,
    ]


@contextlib.contextmanager
def write_video(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends an RGB picture to an MP4, named when it is whole."""
    making = path.with_name(f".{path.stem}.tmp.mp4")  # OpenCV goes by the suffix
    writer, size = None, None

    def append(picture):
        nonlocal writer, size
        if writer is None:
            size = picture.shape[1::-1]  # cv2: width first
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(making), code, rate, size)
            if not writer.isOpened():
                raise ValueError(f"{path} cannot be written by this OpenCV")
        writer.write(np.ascontiguousarray(cv2.resize(picture, size)[..., ::-1]))

    try:
        yield append
    finally:
        if writer is not None:
            writer.release()
            os.replace(making, path)


def find_in_source(model, source: Source, settings: dict) -> Iterator[tuple]:
    """Yield what `find_masks` does of a source's frames; a camera's as they come."""
    if source.kind == "camera":
        for frame in source.frames:
            yield from find_masks(model, [frame], settings)
    else:
        share = settings["smoothing"] if source.moving else 0.0
        yield from find_masks(model, source.frames, settings, share)


def write_found(
    found: Iterator[tuple],
    source: Source,
    out: Path,
    writer,
    watch: advice.Watch,
    keep: bool,
) -> list[np.ndarray]:
    """Write masks, overlays and table rows of one source.

    Args:
        found: `(frame, probability, mask, pixels)` of each frame.
        source: Where they are from.
        out: Folder to write.
        writer: csv writer of frames.csv.
        watch: What is to see all of them.
        keep: Whether to return the masks, uint8 arrays of 0 and 1; else an empty list.
    """
    kept, number, begin = [], 0, time.monotonic()
    overlay = out / "overlays" / f"{source.stem}.mp4"
    with write_video(overlay, source.rate) as append:
        for number, (frame, probability, mask, _) in enumerate(found, 1):
            watch.see(frame, probability, mask)
            picture = outline(frame, mask, PREDICTION_COLOUR)
            if source.moving:
                append(picture)
                stem = f"{source.stem}_{number:05}"
            else:
                stem = source.stem
                write_picture(out / "overlays" / f"{stem}.png", picture)
            write_picture(out / "masks" / f"{stem}.png", mask * 255)
            values = f"{presence(probability):.4f}", f"{probability.max():.4f}"
            row = [stage.as_text(source.name), number, *frame.shape, *values]
            writer.writerow([*row, *measure_mask(mask, source.spacing)])
            if keep:
                kept.append(mask)
    if source.moving:
        rate = number / max(time.monotonic() - begin, 1e-9)
        print(f"{source.name}: {number} frames, {rate:.1f} frames/s: {overlay}")
    return kept


def predict(
    model,
    name: Path,
    out: Path,
    settings: dict,
    limit: int | None,
    segmentations: bool,
) -> advice.Watch:
    """Predict a picture, video or DICOM file, a folder of them, or a camera.

    Args:
        model: The U-Net.
        name: The file, the folder, or the camera's number.
        out: Folder to write.
        settings: The weights' record, with `prevalence`, and `smoothing` of what moves.
        limit: Frames of each source, at most; None for all.
        segmentations: Whether to write DICOM Segmentations, too.

    Returns:
        What was seen of all frames.

    Raises:
        ValueError: sources were left out; all others are done.
    """
    for folder in ("masks", "overlays"):
        stage.make_folder(out / folder)
    camera = str(name).isdecimal() and not name.exists()
    paths = [name] if camera else list_files(name)
    watch, failed, stopped = advice.Watch(), [], False
    if settings["prevalence"] is not None:
        if camera:
            raise ValueError("--prevalence ranks a set of frames; a camera has no end")
        settings = keep_share(model, every_frame(paths), settings)
    with stage.write_csv(out / "frames.csv", COLUMNS) as writer:
        try:
            for path in paths:
                try:
                    source = open_source(path)
                    first = itertools.islice(source.frames, limit)
                    found = find_in_source(
                        model, source._replace(frames=first), settings
                    )
                    total = min(filter(None, (source.count, limit)), default=None)
                    bar = tqdm(found, source.name, total, unit=" frames", disable=None)
                    keep = segmentations and source.kind == "dicom"
                    masks = write_found(bar, source, out, writer, watch, keep)
                    if masks:
                        folder = out / "segmentations"
                        dicom_seg.write(path, masks, folder / f"{source.stem}.dcm")
                except ValueError as error:
                    failed.append(str(error))
        except KeyboardInterrupt:
            stopped = True
    print(f"{watch.frames} frames, {watch.positive} with a nerve: {out}/frames.csv")
    for error in failed:
        print(f"left out: {error}", file=sys.stderr)
    if stopped:
        raise KeyboardInterrupt("stopped: what was found so far is written")
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} files were left out")
    return watch


def every_frame(paths: list[Path]) -> Iterator[np.ndarray]:
    """Yield all frames of all files that can be read."""
    for path in paths:
        with contextlib.suppress(ValueError):
            yield from open_source(path).frames
