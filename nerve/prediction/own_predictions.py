"""Masks, overlays and a table of people's own frames: pictures, videos, DICOM, a camera."""

import contextlib
import functools
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from nerve.command import listed, undisturbed
from nerve.files import atomic
from nerve.frames import foreign, labels
from nerve.frames.overlays import encode_png, write_picture
from nerve.frames.sources import Source, is_camera, open_source
from nerve.frames.spacing import spacing_at
from nerve.frames.video_writing import write_video
from nerve.frames.window import Window
from nerve.prediction import advice, dicom_seg, inference, keyframes
from nerve.prediction.inference import Prediction, presence
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

    The longest axis is the greatest distance of two pixels' centres.

    Args:
        mask: uint8 array `(height, width)`, 0 and 1.
        spacing: (row, column) in millimetres, or None.
    """
    area = int(np.count_nonzero(mask))
    if not area:
        return [0, 0, "" if spacing is None else "0", *[""] * 4]
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = cv2.convexHull(np.concatenate(contours))[:, 0].astype(np.float64)

    def longest(points):
        return np.linalg.norm(points[:, np.newaxis] - points, axis=2).max()

    centre = [f"{places.mean():.1f}" for places in np.nonzero(mask)]
    parts, area_mm2, axis_mm = cv2.connectedComponents(mask)[0] - 1, "", ""
    if spacing is not None:
        area_mm2 = f"{area * spacing[0] * spacing[1]:.2f}"
        axis_mm = f"{longest(points * (spacing[1], spacing[0])):.2f}"
    return [parts, area, area_mm2, *centre, f"{longest(points):.1f}", axis_mm]


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


def describe(source: Source, number: int, found: Prediction, trained: Trained) -> list:
    """Return a frame's row of frames.csv: the values of COLUMNS; numbers begin at 1."""
    presences = f"{presence(found.probability):.4f}", f"{found.probability.max():.4f}"
    name, spacing = atomic.as_text(source.name), spacing_at(found.mask, source.regions)
    row = [name, number, *found.frame.shape, *assess(found, trained)]
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


def each_alone(work: Callable, items: Iterable) -> Iterator:
    """Yield what `work` makes of items, each for itself, so that none is read ahead."""
    for item in items:
        yield from work([item])


def predict_source(
    model, source: Source, inputs: Inputs, smoothing: float
) -> Iterator[Prediction]:
    """Return the probabilities of a source's frames; a camera's as they come."""
    if source.kind == "camera":
        work = functools.partial(inference.predict_frames, model, inputs=inputs)
        return each_alone(work, source.frames)
    found = inference.predict_frames(model, source.frames, inputs, source.moving)
    return inference.smooth(found, smoothing) if source.moving else found


def find_in_source(
    model, source: Source, inputs: Inputs, limits: Limits, smoothing: float
) -> Iterator[Prediction]:
    """Return a source's frames with their masks; of a camera none is read ahead."""
    predictions = predict_source(model, source, inputs, smoothing)
    if source.kind == "camera":
        work = functools.partial(inference.find_masks, limits=limits)
        return each_alone(work, predictions)
    return inference.find_masks(predictions, limits)


def show_each(
    found: Iterable[Prediction], window: Window, stem: str
) -> Iterator[Prediction]:
    """Yield frames once they are shown, until their user closes the window."""
    for frame in found:
        window.show(frame.overlay(), frame.frame, frame.mask, stem)
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
    name = re.compile(re.escape(Path(stem).name) + number + r"\.(png|json)")
    for place in ((out / folder / stem).parent for folder in ("masks", "labels")):
        paths += [p for p in place.glob("*") if name.fullmatch(p.name)]
    if source.kind == "dicom":
        paths.append(out / "segmentations" / f"{stem}.dcm")
    return paths


def check_out(paths: list[Path], source: Path, out: Path) -> None:
    """Refuse a folder for results in which others' files would be replaced.

    Paths are as `sources.list_files` lists those of a source.

    Raises:
        ValueError: what is read lies in it, or masks that no run has written, or outlines
            that were corrected since a run wrote them.
    """
    places = [place for place in (out, *(out / name for name in FOLDERS)) if place.exists()]
    files = [path for path in paths if not is_camera(path)]
    read = {p.parent for path in files for p in (path.absolute(), path.resolve())}
    for folder in {*read, *([source] * bool(files))}:
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
    if (out / "frames.csv").exists():  # last of all written
        latest = (out / "frames.csv").stat().st_mtime + MTIME_STEP
        outlines = filter(Path.is_file, (out / "labels").rglob("*"))
        if changed := [path.name for path in outlines if path.stat().st_mtime > latest]:
            raise ValueError(
                f"--out {out}: outlines in {out / 'labels'} were corrected since: "
                f"{listed(changed)}; move them to a folder of yours, or choose another "
                "--out"
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
    """Where what is found in frames goes; and of which sources, and what went wrong."""

    folder: Path  # of `atomic.aside`
    table: Any  # csv writer of frames.csv
    watch: advice.Watch
    label: Callable | None  # takes each frame, as of `labels.writing`
    begun: list[Source]  # of which some may have no frame
    failed: list[str]  # a line of each file, and so on:
    unused: list[str]  # keyframes
    lacking: list[str]  # segmentations


@contextlib.contextmanager
def open_outputs(folder: Path, watch: advice.Watch, kind: str | None) -> Iterator[Outputs]:
    """Yield where what is found goes: the table is whole at the end, last of all.

    Outlines of a kind, one of `labels.FORMATS`, go there, too.
    """
    drawn = folder / "labels"
    labelling = labels.writing(drawn, kind) if kind else contextlib.nullcontext()
    with atomic.write_csv(folder / "frames.csv", COLUMNS) as table, labelling as label:
        yield Outputs(folder, table, watch, label, [], [], [], [])


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
    if source.moving:
        append(found.overlay(), source.time_of(number))
    else:
        write_picture(outputs.folder / "overlays" / f"{name}.png", found.overlay())
    path = outputs.folder / "masks" / f"{name}.png"
    with atomic.writing(path):  # to disk at the end: a camera would wait for it
        path.write_bytes(encode_png(found.mask * 255))


def write_found(
    found: Iterator[Prediction], source: Source, outputs: Outputs, keep: Callable | None
) -> None:
    """Write masks, overlays and table rows of one source; `keep` takes each mask, too."""
    number, begin, watch = 0, time.monotonic(), outputs.watch
    overlay = outputs.folder / "overlays" / f"{source.stem}.mp4"
    with write_video(overlay, source.rate) as append:
        for frame in found:
            with undisturbed():  # a mask without its row would be nobody's
                number += 1
                row = describe(source, number, frame, watch.trained)
                write_frame(frame, number, source, outputs, append)
                outputs.table.writerow(row)
                if keep:
                    keep(frame.mask)
                watch.see(frame)
    if source.moving:
        end = f": overlays/{source.stem}.mp4" if overlay.exists() else ""
        rate = number / max(time.monotonic() - begin, 1e-9)
        print(f"{source.name}: {number} frames, {rate:.1f} frames/s{end}")


def keep_unfinished(out: Path) -> None:
    """Give what a killed run has found a name, and say it; its last video is cut."""
    left = atomic.temporary(out / "results")
    if any(left.glob("masks/*")):
        names = (out / f"unfinished_{number}" for number in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        os.replace(left, kept)
        with contextlib.suppress(FileNotFoundError):
            os.replace(atomic.temporary(kept / "frames.csv"), kept / "frames.csv")
        print(f"note: what a run that was killed had found is kept in {kept}/")


def place(outputs: Outputs, out: Path) -> bool:
    """Put what was found in its place; return whether there is anything."""
    masks = outputs.folder / "masks"
    done = [s for s in outputs.begun if (masks / f"{name_frame(s, 1)}.png").exists()]
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
    folder: Path | None = None  # below which sources are named


def predict_file(
    model, path: Path, limits: Limits, options: Options, outputs: Outputs
) -> None:
    """Write what is found in a file, or in what a camera gives."""
    inputs, keys = outputs.watch.trained.inputs, (options.keyframes, options.label)
    source = open_limited(path, options.most_frames)
    if options.folder:
        source = source._replace(name=path.relative_to(options.folder).as_posix())
    for name in FOLDERS[:2]:
        atomic.make_folder((outputs.folder / name / source.stem).parent)
    reader = keyframes.Reader(source, *keys, outputs.unused) if options.keyframes else None
    outputs.begun.append(source._replace(frames=()))
    found = find_in_source(model, source, inputs, limits, options.smoothing)
    if reader:
        found = keyframes.apply(found, reader)
    if options.window:
        found = show_each(found, options.window, source.stem)
    total = min(filter(None, (source.count, options.most_frames)), default=None)
    bar = tqdm(found, source.name, total, unit=" frames", disable=None)
    kept = contextlib.nullcontext()
    if options.segmentations and source.kind == "dicom":
        kept = collect_masks(source, outputs.folder, outputs.lacking)
    try:
        with kept as keep:
            write_found(bar, source, outputs, keep)
    finally:
        for note in source.notes:
            print(f"note: {note}")


def predict_files(
    model, paths: list[Path], limits: Limits, options: Options, outputs: Outputs
) -> bool:
    """Write what is found in all files; return whether a Ctrl-C has stopped that."""
    try:
        for path in paths:
            if options.window and options.window.closed:
                break
            try:
                predict_file(model, path, limits, options, outputs)
            except atomic.DiskFull:
                raise
            except Exception as error:  # whatever it holds, the others are done
                outputs.failed.append(in_a_line(error, path))
    except KeyboardInterrupt:
        return True
    return False


def predict(
    model, trained: Trained, paths: list[Path], out: Path, options: Options
) -> advice.Watch:
    """Predict pictures, videos and DICOM files, or a camera; return what was seen of all.

    Args:
        paths: The files, or the camera's number, as `sources.list_files` returned them.

    Raises:
        ValueError: sources or keyframes were left out, or have no segmentation; all others
            are done.
    """
    if options.prevalence is not None and is_camera(paths[0]):
        raise ValueError("--prevalence ranks a set of frames; a camera has no end")
    if options.keyframes and is_camera(paths[0]):
        raise ValueError("--keyframes goes with videos and loops, not with a camera")
    how = trained.inputs, options.smoothing, options.most_frames
    everything = predict_all(model, paths, *how)
    limits = inference.keep_share(everything, options.prevalence, trained.limits)
    with atomic.aside(out / "results") as folder:
        with open_outputs(folder, advice.Watch(trained), options.labels) as outputs:
            stopped = predict_files(model, paths, limits, options, outputs)
        placed = place(outputs, out)
    *_, begun, failed, unused, lacking = outputs
    if options.segmentations and not failed and all(s.kind != "dicom" for s in begun):
        print("note: no segmentation: --dicom-seg is of DICOM files, and there is none")
    for what, errors in (("left out", failed + unused), ("no segmentation", lacking)):
        for error in errors:
            print(f"{what}: {error}", file=sys.stderr)
    if stopped:
        text = "stopped: what was found so far is written"
        raise KeyboardInterrupt(*[text][:placed])
    for errors, text in (
        (failed, f"of {len(paths)} files were left out"),
        (unused, "keyframes were left out"),
        (lacking, f"of {len(paths)} files have no segmentation"),
    ):
        if errors:
            raise ValueError(f"{len(errors)} {text}")
    return outputs.watch
