"""Masks, overlays and a table of people's own frames: pictures, videos, DICOM, a camera."""

import contextlib
import itertools
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
from nerve.frames.video_writing import write_video
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
from nerve.scoring import scores

SMOOTHING = 0.3  # share of the frames before, in a video: benchmarks/video.py
COLUMNS = ("name", "frame", "height", "width", "sure", "unlike", "presence", "highest")
COLUMNS += ("parts", "area", "area_mm2", "centroid_row", "centroid_column")
COLUMNS += ("longest_axis", "longest_axis_mm")
NOT_KNOWN = "not known"
FOLDERS = ("masks", "overlays", "segmentations")  # of results


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


def in_a_line(error: Exception, path: Path) -> str:
    """Return what went wrong with a file, which is named."""
    said = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError) or not said:  # which none foresaw
        said = f"{type(error).__name__} {said:.200}".rstrip()
    return said if path.name in said else f"{path}: {said}"


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
        with contextlib.suppress(Exception):  # said when its masks are made
            source = open_limited(path, most_frames)
            yield from predict_source(model, source, inputs, smoothing)


def list_earlier(source: Source, out: Path) -> list[Path]:
    """Return what a run may have written of a source, perhaps of more frames."""
    stem, suffix = source.stem, ".mp4" if source.moving else ".png"
    paths = [out / "masks" / f"{stem}.png", out / "overlays" / f"{stem}{suffix}"]
    if source.moving:
        name = re.compile(re.escape(stem) + r"_[0-9]{5,}\.png")
        paths[:1] = [p for p in (out / "masks").glob("*") if name.fullmatch(p.name)]
    if source.kind == "dicom":
        paths.append(out / "segmentations" / f"{stem}.dcm")
    return paths


def check_out(paths: list[Path], out: Path) -> None:
    """Refuse a folder for results in which others' files would be replaced.

    Args:
        paths: As of `predict`.

    Raises:
        ValueError: what is read lies in it, or masks that no run has written.
    """
    places = [place for place in (out, *(out / name for name in FOLDERS)) if place.exists()]
    files = [path for path in paths if not is_camera(path)]
    for folder in {p.parent for path in files for p in (path.absolute(), path.resolve())}:
        for place in filter(folder.samefile, places):
            raise ValueError(
                f"--out {out}: frames to read lie in {place}, where results are written; "
                "choose another folder"
            )
    marks = ".lock", "frames.csv", "validation.csv", "submission.csv"
    if any(map(any, map(Path.iterdir, places[1:]))) and not any(
        (out / name).exists() for name in marks
    ):
        raise ValueError(
            f"--out {out} holds masks or overlays that no run of predict.py has written; "
            "choose another folder"
        )


@contextlib.contextmanager
def collect_masks(
    source: Source, folder: Path, lacking: list[str]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that takes the masks of a DICOM file, written as a Segmentation.

    What hinders that is added to `lacking`: an error in between stays the one seen.
    """
    masks = []
    try:
        yield lambda mask: masks.append(np.packbits(mask))
    finally:
        if masks:
            path = folder / "segmentations" / f"{source.stem}.dcm"
            try:
                dicom_seg.write(source.path, masks, path)
            except atomic.DiskFull:
                raise
            except Exception as error:  # of packages of others
                lacking.append(in_a_line(error, source.path))


def mask_path(folder: Path, source: Source, number: int) -> Path:
    """Return where the mask of a source's frame lies below a folder of results."""
    end = f"_{number:05}" if source.moving else ""
    return folder / "masks" / f"{source.stem}{end}.png"


def write_frame(
    found: Prediction,
    number: int,
    source: Source,
    folder: Path,
    append: Callable[[np.ndarray, float], None],
) -> None:
    """Write the mask and the overlay of a source's frame; of a video, `append` has it."""
    picture = outline(found.frame, found.mask, PREDICTION_COLOUR)
    if source.moving:
        append(picture, source.time_of(number))
    else:
        write_picture(folder / "overlays" / f"{source.stem}.png", picture)
    write_picture(mask_path(folder, source, number), found.mask * 255)


def write_found(
    found: Iterator[Prediction], source: Source, folder: Path, seen: tuple, keep
) -> int:
    """Write masks, overlays and table rows of one source; return its number of frames.

    Args:
        seen: `(writer, watch)`: csv writer of frames.csv, and what is to see all frames.
        keep: Takes each mask, uint8 `(height, width)` of 0 and 1; or None.
    """
    number, begin, (writer, watch) = 0, time.monotonic(), seen
    overlay = folder / "overlays" / f"{source.stem}.mp4"
    with write_video(overlay, source.rate) as append:
        for frame in found:
            with undisturbed():  # a mask without its row would be nobody's
                number += 1
                row = describe(source.name, number, frame, source.regions, watch.trained)
                write_frame(frame, number, source, folder, append)
                writer.writerow(row)
                if keep:
                    keep(frame.mask)
                watch.see(frame)
    if source.moving:
        end = f": overlays/{overlay.name}" if overlay.exists() else ""
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
    watch, failed, lacking, stopped = advice.Watch(trained), [], [], False
    inputs, replaced, kinds = trained.inputs, [], set()
    if prevalence is not None and is_camera(paths[0]):
        raise ValueError("--prevalence ranks a set of frames; a camera has no end")
    everything = predict_all(model, paths, inputs, smoothing, most_frames)
    limits = keep_share(everything, prevalence, trained.limits)

    def predict_file(source, folder, writer, keep):
        found = find_in_source(model, source, inputs, limits, smoothing)
        total = min(filter(None, (source.count, most_frames)), default=None)
        bar = tqdm(found, source.name, total, unit=" frames", disable=None)
        replaced.append(source._replace(frames=()))
        write_found(bar, source, folder, (writer, watch), keep)
        for note in source.notes:
            print(f"note: {note}")

    with atomic.aside(out / "results") as folder:
        for name in FOLDERS[:2]:
            atomic.make_folder(folder / name)
        with atomic.write_csv(folder / "frames.csv", COLUMNS) as writer:
            try:
                for path in paths:
                    try:
                        source = open_limited(path, most_frames)
                        kinds.add(source.kind)
                        kept = contextlib.nullcontext()
                        if segmentations and source.kind == "dicom":
                            kept = collect_masks(source, folder, lacking)
                        with kept as keep:
                            predict_file(source, folder, writer, keep)
                    except atomic.DiskFull:
                        raise
                    except Exception as error:  # whatever it holds, the others are done
                        failed.append(in_a_line(error, path))
            except KeyboardInterrupt:
                stopped = True
        replaced = [s for s in replaced if mask_path(folder, s, 1).exists()]
        if replaced:
            earlier = [path for source in replaced for path in list_earlier(source, out)]
            earlier += [out / f"masks.{end}" for end in scores.WRITTEN]  # of masks/
            atomic.move(folder, out, ["frames.csv"], earlier)
            found = f"{watch.frames} frames, {watch.positive} with a nerve"
            print(f"{found}: {out}/frames.csv")
    if segmentations and not failed and "dicom" not in kinds:
        print("note: no segmentation: --dicom-seg is of DICOM files, and there is none")
    for error in failed:
        print(f"left out: {error}", file=sys.stderr)
    for error in lacking:
        print(f"no segmentation: {error}", file=sys.stderr)
    if stopped:
        text = "stopped: what was found so far is written"
        raise KeyboardInterrupt(*[text][: len(replaced)])
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} files were left out")
    if lacking:
        raise ValueError(f"{len(lacking)} of {len(paths)} files have no segmentation")
    return watch
