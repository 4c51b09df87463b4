"""Masks, overlays and a table of people's own frames: pictures, videos, DICOM, a camera."""

import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from skimage.measure import label
from tqdm import tqdm

from nerve.command import undisturbed
from nerve.files import atomic
from nerve.frames import foreign
from nerve.frames.overlays import PREDICTION_COLOUR, outline, write_picture
from nerve.frames.sources import Source, is_camera, open_source
from nerve.frames.spacing import Region, spacing_at
from nerve.frames.videos import silent
from nerve.prediction import advice, dicom_seg, sureness
from nerve.prediction.inference import (
    Prediction,
    find_masks,
    keep_share,
    predict_frames,
    presence,
    smooth,
)
from nerve.records import Inputs, Limits, Trained

SMOOTHING = 0.3  # share of the frames before, in a video: benchmarks/video.py
COLUMNS = ("name", "frame", "height", "width", "sure", "unlike", "presence", "highest")
COLUMNS += ("parts", "area", "area_mm2", "centroid_row", "centroid_column")
COLUMNS += ("longest_axis", "longest_axis_mm")
NOT_KNOWN = "not known"


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


def assess(found: Prediction, trained: Trained) -> tuple[str, str]:
    """Return how sure a nerve is there, 0 to 1, and how unlike the training frames it is.

    Above 1 it is foreign to the weights. What these do not tell is NOT_KNOWN.
    """
    sure = unlike = None
    if trained.calibration:
        sure = sureness.sure(presence(found.probability), trained.calibration)
    if found.look is not None:
        unlike = foreign.unlike(found.look, trained.looks)
    return tuple(NOT_KNOWN if v is None else f"{v:.2f}" for v in (sure, unlike))


def describe(
    name: str,
    number: int,
    found: Prediction,
    regions: Sequence[Region],
    trained: Trained,
) -> list:
    """Return a frame's row of frames.csv: the values of COLUMNS.

    Args:
        name: Of the file that it is from.
        number: Of the frame in it, from 1.
        found: The frame with its mask.
        regions: Where frames of the file have which spacing.
        trained: The weights' record.
    """
    presences = f"{presence(found.probability):.4f}", f"{found.probability.max():.4f}"
    row = [atomic.as_text(name), number, *found.frame.shape, *assess(found, trained)]
    spacing = spacing_at(found.mask, regions)
    return [*row, *presences, *measure_mask(found.mask, spacing)]


@contextlib.contextmanager
def write_video(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends an RGB picture to an MP4, named at the end.

    Where the frames end in an error or by Ctrl-C, those so far are kept. Where MPEG-4
    takes no frames of that size, one line says so, and nothing is written.
    """
    # OpenCV goes by the suffix, and crashes at names that are not UTF-8
    making = path.with_name(".overlay.tmp.mp4")
    writer, size = None, None
    # MPEG-4 takes no fraction whose terms are above 65,535: 66.667 is 66667 / 1000
    rate = max(0.01, round(rate, 2 if rate < 600 else 1))

    def append(picture):
        nonlocal writer, size
        if writer is None:
            size = picture.shape[1::-1]  # cv2: width first
            code = cv2.VideoWriter_fourcc(*"mp4v")
            with silent():
                writer = cv2.VideoWriter(str(making), code, rate, size)
            if not writer.isOpened():
                print(
                    f"note: no {path}: MPEG-4 cannot be written of {size[1]} x {size[0]} "
                    f"pixels at {rate} frames/s"
                )
        if writer.isOpened():
            writer.write(np.ascontiguousarray(cv2.resize(picture, size)[..., ::-1]))

    try:
        yield append
    finally:
        if writer is not None and writer.isOpened():
            writer.release()
            os.replace(making, path)


def open_limited(path: Path, most_frames: int | None) -> Source:
    """Return a source, of `most_frames` at most; None is no limit."""
    source = open_source(path)
    return source._replace(frames=itertools.islice(source.frames, most_frames))


def predict_source(
    model, source: Source, inputs: Inputs, smoothing: float
) -> Iterator[Prediction]:
    """Yield the probabilities of a source's frames; a camera's as they come.

    Args:
        smoothing: Share of the frames before, where they follow each other in time.
    """
    if source.kind == "camera":
        for frame in source.frames:
            yield from predict_frames(model, [frame], inputs)
        return
    predictions = predict_frames(model, source.frames, inputs, source.moving)
    yield from smooth(predictions, smoothing) if source.moving else predictions


def find_in_source(
    model, source: Source, inputs: Inputs, limits: Limits, smoothing: float
) -> Iterator[Prediction]:
    """Yield a source's frames with their masks; of a camera none is read ahead."""
    predictions = predict_source(model, source, inputs, smoothing)
    if source.kind == "camera":
        for found in predictions:
            yield from find_masks([found], limits)
    else:
        yield from find_masks(predictions, limits)


def predict_all(
    model, paths: list[Path], inputs: Inputs, smoothing: float, most_frames: int | None
) -> Iterator[Prediction]:
    """Yield the probabilities of all files that can be read, as `predict_source` does."""
    for path in paths:
        with contextlib.suppress(ValueError, OSError):
            source = open_limited(path, most_frames)
            yield from predict_source(model, source, inputs, smoothing)


def remove_earlier(source: Source, out: Path) -> None:
    """Remove what an earlier run wrote of a source, which may have had more frames."""
    stem, suffix = source.stem, ".mp4" if source.moving else ".png"
    paths = [out / "masks" / f"{stem}.png", out / "overlays" / f"{stem}{suffix}"]
    if source.moving:
        name = re.compile(re.escape(stem) + r"_[0-9]{5,}\.png")
        paths[:1] = [p for p in (out / "masks").iterdir() if name.fullmatch(p.name)]
    if source.kind == "dicom":
        paths.append(out / "segmentations" / f"{stem}.dcm")
    for path in paths:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def collect_masks(
    source: Source, out: Path, lacking: list[str]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that takes the masks of a DICOM file, written as a Segmentation.

    What hinders that is added to `lacking`: an error in between stays the one seen.
    """
    masks = []
    try:
        yield masks.append
    finally:
        if masks:
            path = out / "segmentations" / f"{source.stem}.dcm"
            try:
                dicom_seg.write(source.path, masks, path)
            except (ValueError, OSError) as error:
                lacking.append(str(error))


def write_frame(
    found: Prediction,
    number: int,
    source: Source,
    out: Path,
    append: Callable[[np.ndarray], None],
) -> None:
    """Write the mask and the overlay of a source's frame; of a video, `append` has it."""
    picture = outline(found.frame, found.mask, PREDICTION_COLOUR)
    stem = source.stem
    if source.moving:
        append(picture)
        stem = f"{source.stem}_{number:05}"
    else:
        write_picture(out / "overlays" / f"{stem}.png", picture)
    write_picture(out / "masks" / f"{stem}.png", found.mask * 255)


def write_found(
    found: Iterator[Prediction], source: Source, out: Path, seen: tuple, keep
) -> int:
    """Write masks, overlays and table rows of one source; return its number of frames.

    Args:
        seen: `(writer, watch)`: csv writer of frames.csv, and what is to see all frames.
        keep: Takes each mask, uint8 `(height, width)` of 0 and 1; or None.
    """
    number, begin, (writer, watch) = 0, time.monotonic(), seen
    overlay = out / "overlays" / f"{source.stem}.mp4"
    with write_video(overlay, source.rate) as append:
        for frame in found:
            with undisturbed():  # a mask without its row would be nobody's
                number += 1
                row = describe(source.name, number, frame, source.regions, watch.trained)
                write_frame(frame, number, source, out, append)
                writer.writerow(row)
                watch.see(frame)
                if keep:
                    keep(frame.mask)
    if source.moving:
        end = f": {overlay}" if overlay.exists() else ""
        rate = number / max(time.monotonic() - begin, 1e-9)
        print(f"{source.name}: {number} frames, {rate:.1f} frames/s{end}")
    return number


def predict(
    model,
    trained: Trained,
    paths: list[Path],
    out: Path,
    smoothing: float = SMOOTHING,
    most_frames: int | None = None,
    prevalence: float | None = None,
    segmentations: bool = False,
) -> advice.Watch:
    """Predict pictures, videos and DICOM files, or a camera.

    Args:
        paths: The files, or the camera's number, as `sources.list_files` returned them.
        smoothing: Share of the frames before in a video's probabilities.
        most_frames: Of each source; None for all.
        segmentations: Whether to write DICOM Segmentations, too.

    Returns:
        What was seen of all frames.

    Raises:
        ValueError: sources were left out, or have no segmentation; all others are done.
    """
    for folder in ("masks", "overlays"):
        atomic.make_folder(out / folder)
    watch, failed, lacking, stopped = advice.Watch(trained), [], [], False
    inputs, kinds = trained.inputs, set()
    if prevalence is not None and is_camera(paths[0]):
        raise ValueError("--prevalence ranks a set of frames; a camera has no end")
    everything = predict_all(model, paths, inputs, smoothing, most_frames)
    limits = keep_share(everything, prevalence, trained.limits)

    def predict_file(source, keep):
        remove_earlier(source, out)
        found = find_in_source(model, source, inputs, limits, smoothing)
        total = min(filter(None, (source.count, most_frames)), default=None)
        bar = tqdm(found, source.name, total, unit=" frames", disable=None)
        write_found(bar, source, out, (writer, watch), keep)
        for note in source.notes:
            print(f"note: {note}")

    with atomic.write_csv(out / "frames.csv", COLUMNS) as writer:
        try:
            for path in paths:
                try:
                    source = open_limited(path, most_frames)
                    kinds.add(source.kind)
                    kept = contextlib.nullcontext()
                    if segmentations and source.kind == "dicom":
                        kept = collect_masks(source, out, lacking)
                    with kept as keep:
                        predict_file(source, keep)
                except (ValueError, OSError) as error:
                    failed.append(str(error))
        except KeyboardInterrupt:
            stopped = True
    print(f"{watch.frames} frames, {watch.positive} with a nerve: {out}/frames.csv")
    if segmentations and "dicom" not in kinds and not failed:
        print("note: no segmentation: --dicom-seg is of DICOM files, and there is none")
    for error in failed:
        print(f"left out: {error}", file=sys.stderr)
    for error in lacking:
        print(f"no segmentation: {error}", file=sys.stderr)
    if stopped:
        raise KeyboardInterrupt("stopped: what was found so far is written")
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} files were left out")
    if lacking:
        raise ValueError(f"{len(lacking)} of {len(paths)} files have no segmentation")
    return watch
