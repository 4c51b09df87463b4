"""Masks, overlays and a table of people's own frames: pictures, videos, DICOM, a camera."""

import contextlib
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from nerve.command import undisturbed
from nerve.files import atomic
from nerve.frames import foreign, labels
from nerve.frames.overlays import PREDICTION_COLOUR, encode_png, outline, write_picture
from nerve.frames.pairs import listed
from nerve.frames.sources import Source, is_camera, open_source
from nerve.frames.spacing import Region, spacing_at
from nerve.frames.video_writing import write_video
from nerve.frames.window import Window
from nerve.prediction import advice, dicom_seg, keyframes
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
MTIME_STEP = 2.0  # seconds between which FAT does not tell times apart
FOLDERS = ("masks", "overlays", "segmentations", "labels")  # of results


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
        cv2.connectedComponents(mask)[0] - 1,
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
        sure = trained.calibration.sure(presence(found.probability))
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


def show_each(
    found: Iterable[Prediction], window: Window, stem: str
) -> Iterator[Prediction]:
    """Yield frames once they are shown, until their user closes the window."""
    for frame in found:
        picture = outline(frame.frame, frame.mask, PREDICTION_COLOUR)
        window.show(picture, frame.frame, frame.mask, stem)
        yield frame
        if window.closed:
            return


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
    paths = [out / "overlays" / f"{stem}{suffix}", out / "labels" / labels.CVAT]
    number = "_[0-9]{5,}" if source.moving else ""
    name = re.compile(re.escape(stem) + number + r"\.(png|json)")
    for folder in ("masks", "labels"):
        paths += [p for p in (out / folder).glob("*") if name.fullmatch(p.name)]
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
    check_labels(out)


def check_labels(out: Path) -> None:
    """Refuse to replace outlines that were corrected since a run wrote them."""
    if not (out / "frames.csv").exists():
        return
    written = (out / "frames.csv").stat().st_mtime + MTIME_STEP  # last of all
    changed = [p.name for p in (out / "labels").glob("*") if p.stat().st_mtime > written]
    if changed:
        raise ValueError(
            f"--out {out}: outlines in {out / 'labels'} were corrected since: "
            f"{listed(changed)}; move them to a folder of yours, or choose another --out"
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


def name_frame(source: Source, number: int) -> str:
    """Return what the mask of a source's frame is called, without its suffix."""
    return f"{source.stem}_{number:05}" if source.moving else source.stem


class Outputs(NamedTuple):
    """Where what is found in frames goes."""

    folder: Path  # of `atomic.aside`
    table: Any  # csv writer of frames.csv
    watch: advice.Watch
    label: Callable | None  # takes each frame, as of `labels.writing`


@contextlib.contextmanager
def open_outputs(folder: Path, watch: advice.Watch, kind: str | None) -> Iterator[Outputs]:
    """Yield where what is found goes: the table is whole at the end, last of all.

    Args:
        kind: Of outlines, one of `labels.FORMATS`; or None.
    """
    for name in FOLDERS[:2]:
        atomic.make_folder(folder / name)
    labelling = contextlib.nullcontext()
    if kind:
        labelling = labels.writing(folder / "labels", kind)
    with atomic.write_csv(folder / "frames.csv", COLUMNS) as table, labelling as label:
        yield Outputs(folder, table, watch, label)


def write_frame(
    found: Prediction,
    number: int,
    source: Source,
    outputs: Outputs,
    append: Callable[[np.ndarray, float], None],
) -> None:
    """Write mask, outlines and overlay of a source's frame; of a video, `append` has it."""
    name = name_frame(source, number)
    if outputs.label:
        outputs.label(name, found.frame, found.mask)
    picture = outline(found.frame, found.mask, PREDICTION_COLOUR)
    if source.moving:
        append(picture, source.time_of(number))
    else:
        write_picture(outputs.folder / "overlays" / f"{name}.png", picture)
    path = outputs.folder / "masks" / f"{name}.png"
    with atomic.writing(path):  # to disk at the end: a camera would wait for it
        path.write_bytes(encode_png(found.mask * 255))


def write_found(
    found: Iterator[Prediction], source: Source, outputs: Outputs, keep: Callable | None
) -> None:
    """Write masks, overlays and table rows of one source.

    Args:
        keep: Takes each mask, uint8 `(height, width)` of 0 and 1; or None.
    """
    number, begin, watch = 0, time.monotonic(), outputs.watch
    overlay = outputs.folder / "overlays" / f"{source.stem}.mp4"
    with write_video(overlay, source.rate) as append:
        for frame in found:
            with undisturbed():  # a mask without its row would be nobody's
                number += 1
                row = describe(source.name, number, frame, source.regions, watch.trained)
                write_frame(frame, number, source, outputs, append)
                outputs.table.writerow(row)
                if keep:
                    keep(frame.mask)
                watch.see(frame)
    if source.moving:
        end = f": overlays/{overlay.name}" if overlay.exists() else ""
        rate = number / max(time.monotonic() - begin, 1e-9)
        print(f"{source.name}: {number} frames, {rate:.1f} frames/s{end}")


def place(outputs: Outputs, begun: list[Source], out: Path) -> bool:
    """Put what was found in its place; return whether there is anything.

    Args:
        begun: The sources, of which some may have no frame.
    """
    masks = outputs.folder / "masks"
    done = [s for s in begun if (masks / f"{name_frame(s, 1)}.png").exists()]
    if done:
        earlier = [path for source in done for path in list_earlier(source, out)]
        earlier += [out / f"masks.{end}" for end in scores.WRITTEN]  # of masks/
        with undisturbed(atomic.WRITTEN):
            atomic.sync_files(outputs.folder)
            atomic.move(outputs.folder, out, ["frames.csv"], earlier)
        found = f"{outputs.watch.frames} frames, {outputs.watch.positive} with a nerve"
        print(f"{found}: {out}/frames.csv")
    return bool(done)


class Options(NamedTuple):
    """What a run over people's own frames is asked for."""

    smoothing: float = SMOOTHING  # share of the frames before in a video's probabilities
    most_frames: int | None = None  # of each source; None for all
    prevalence: float | None = None
    segmentations: bool = False  # whether to write DICOM Segmentations, too
    labels: str | None = None  # kind of outlines to write, too
    window: Window | None = None  # to show frames in; once it is closed, the rest is left
    keyframes: Path | None = None  # folder of outlines of some frames, as of `keyframes`
    label: str | None = None  # of what is nerve in these


def predict(
    model, trained: Trained, paths: list[Path], out: Path, options: Options
) -> advice.Watch:
    """Predict pictures, videos and DICOM files, or a camera.

    Args:
        paths: The files, or the camera's number, as `sources.list_files` returned them.

    Returns:
        What was seen of all frames.

    Raises:
        ValueError: sources or keyframes were left out, or have no segmentation; all others
            are done.
    """
    smoothing, most_frames, prevalence, segmentations, kind, window, *keys = options
    failed, lacking, unused, begun, stopped = [], [], [], [], False
    if prevalence is not None and is_camera(paths[0]):
        raise ValueError("--prevalence ranks a set of frames; a camera has no end")
    if options.keyframes and is_camera(paths[0]):
        raise ValueError("--keyframes goes with videos and loops, not with a camera")
    everything = predict_all(model, paths, trained.inputs, smoothing, most_frames)
    limits = keep_share(everything, prevalence, trained.limits)

    def predict_file(path):
        source = open_limited(path, most_frames)
        reader = keyframes.Reader(source, *keys, unused) if options.keyframes else None
        begun.append(source._replace(frames=()))
        found = find_in_source(model, source, trained.inputs, limits, smoothing)
        if reader:
            found = keyframes.apply(found, reader)
        if window:
            found = show_each(found, window, source.stem)
        total = min(filter(None, (source.count, most_frames)), default=None)
        bar = tqdm(found, source.name, total, unit=" frames", disable=None)
        kept = contextlib.nullcontext()
        if segmentations and source.kind == "dicom":
            kept = collect_masks(source, outputs.folder, lacking)
        try:
            with kept as keep:
                write_found(bar, source, outputs, keep)
        finally:
            for note in source.notes:
                print(f"note: {note}")

    with atomic.aside(out / "results") as folder:
        with open_outputs(folder, advice.Watch(trained), kind) as outputs:
            try:
                for path in paths:
                    if window and window.closed:
                        break
                    try:
                        predict_file(path)
                    except atomic.DiskFull:
                        raise
                    except Exception as error:  # whatever it holds, the others are done
                        failed.append(in_a_line(error, path))
            except KeyboardInterrupt:
                stopped = True
        placed = place(outputs, begun, out)
    if segmentations and not failed and "dicom" not in {source.kind for source in begun}:
        print("note: no segmentation: --dicom-seg is of DICOM files, and there is none")
    for what, errors in (("left out", failed + unused), ("no segmentation", lacking)):
        for error in errors:
            print(f"{what}: {error}", file=sys.stderr)
    if stopped:
        text = "stopped: what was found so far is written"
        raise KeyboardInterrupt(*[text][:placed])
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} files were left out")
    if unused:
        raise ValueError(f"{len(unused)} keyframes were left out")
    if lacking:
        raise ValueError(f"{len(lacking)} of {len(paths)} files have no segmentation")
    return outputs.watch
