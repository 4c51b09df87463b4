"""Predict masks of the validation and test frames, or of frames of your own.

    python predict.py --data data --weights weights/unet.h5 --out predictions
    python predict.py --input pictures/ --weights weights/unet.h5 --out predictions

Reads   weights/unet.h5 and weights/unet.json; data/imgs_train.npy,
        data/imgs_mask_train.npy and data/preprocess.json for the validation frames,
        data/imgs_test.npy for the test frames; or pictures (PNG, JPEG, TIFF, BMP), videos,
        DICOM files, a camera
Writes  predictions/validation.csv, validation_truth.csv, submission.csv and overlays/;
        of frames of your own masks/STEM.png, overlays/STEM.png and frames.csv; of a video
        or cine loop masks/STEM_NUMBER.png and overlays/STEM.mp4; with --labels outlines
        and frames of the masks' names in labels/
"""

import argparse
import contextlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve import command
from nerve.files import atomic, run_length
from nerve.files.arrays import read_array
from nerve.frames import labels, sources, window
from nerve.frames.outlines import clean
from nerve.frames.overlays import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    evenly,
    outline,
    write_picture,
)
from nerve.precision import PRECISIONS, choose_precision
from nerve.prediction import advice, dicom_seg, engines, own_predictions
from nerve.prediction.held_out import read_validation, trained_on
from nerve.prediction.inference import (
    Mirrored,
    as_used,
    find_masks,
    keep_share,
    predict_frames,
)
from nerve.prediction.networks import load_networks, merge, read_trained
from nerve.records import (
    EXTRACT,
    PREPROCESS,
    Inputs,
    Trained,
    read_extract,
    read_split,
)
from nerve.scoring import scores

OVERLAYS = 24  # of validation and of test frames
TABLES = {"val": ("validation.csv", "validation_truth.csv"), "test": ("submission.csv",)}


def list_earlier(out: Path) -> list[Path]:
    """Return what an earlier run may have written of extracted frames."""
    paths = [out / name for names in TABLES.values() for name in names]
    for path in (out / "validation", out / "submission"):  # evaluate.py's, of these
        paths += [path.with_suffix(f".{end}") for end in scores.WRITTEN]
    ours = re.compile(r"(test|val_[0-9]+)_[0-9]+\.png")  # others are people's own
    return paths + [p for p in (out / "overlays").glob("*") if ours.fullmatch(p.name)]


class Selection(NamedTuple):
    """Extracted frames to predict."""

    part: str  # "val" or "test"
    frames: np.ndarray  # uint8 (N, rows, columns)
    rows: Sequence[int]  # of those chosen
    keys: list[tuple[int, ...]]  # of each chosen: (subject, img), or (img,)
    masks: np.ndarray | None  # true ones, of `frames`; None where they are not known
    inputs: Inputs


def select_validation(trained: Trained, data: Path) -> Selection:
    """Return the validation frames, refused where the weights have seen them."""
    inputs, split, extract, frames, masks = read_validation(trained, data)
    train, rows = extract.train, split.val.rows
    keys = [(train.subject[row], train.image[row]) for row in rows]
    return Selection("val", frames, rows, keys, masks, inputs)


def select_test(trained: Trained, data: Path) -> Selection:
    """Return the test frames."""
    extract, repair = read_extract(data), f"{EXTRACT} --data {command.quoted(data)}"
    frames = read_array(data, "imgs_test.npy", extract.arrays, repair)
    keys = [(number,) for number in extract.test.image]
    return Selection("test", frames, range(len(keys)), keys, None, trained.inputs)


def predict_selection(
    model,
    trained: Trained,
    chosen: Selection,
    folder: Path,
    prevalence: float | None = None,
    num_overlays: int = 0,
) -> tuple[advice.Watch, list[dict]]:
    """Write masks and overlays of frames, and true masks where these are known.

    Args:
        folder: Of `atomic.aside`, with one for overlays in it.
        prevalence: Share of the frames to keep a mask in; None for the limits as they are.
        num_overlays: Evenly spaced frames that get an overlay.

    Returns:
        `(watch, results)`: what `advice` saw; each frame's `scores.frame_scores` where its
        true mask is known.
    """

    def predictions():
        frames = (chosen.frames[row] for row in chosen.rows)
        return predict_frames(model, frames, chosen.inputs)

    limits = keep_share(predictions(), prevalence, trained.limits)
    watch, results, total = advice.Watch(trained), [], len(chosen.rows)
    made = [folder / name for name in TABLES[chosen.part]]
    columns = ("subject", "img", "pixels")[-1 - len(chosen.keys[0]) :]
    shown = evenly(num_overlays, total)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(atomic.write_csv(p, columns)) for p in made]
        bar = tqdm(find_masks(predictions(), limits), chosen.part, total, disable=None)
        for k, found in enumerate(bar):
            key, picture, mask = chosen.keys[k], found.frame, found.mask
            masks = [mask]
            watch.see(found)
            if chosen.masks is not None:
                masks.append(chosen.masks[chosen.rows[k]] // 255)
                results.append(scores.frame_scores(masks[1], mask))
            for writer, each in zip(writers, masks, strict=True):
                writer.writerow([*key, run_length.encode(each)])
            if k in shown:
                for each in masks[1:]:
                    picture = outline(picture, each, TRUTH_COLOUR)
                name = "_".join(map(str, (chosen.part, *key)))
                path = folder / "overlays" / f"{name}.png"
                write_picture(path, outline(picture, mask, PREDICTION_COLOUR))
    return watch, results


def predict_selections(
    model, trained: Trained, chosen: list[Selection], out: Path, *how
) -> list[tuple[Selection, tuple]]:
    """Return each selection with what `predict_selection` did, once all are in place.

    Args:
        how: The last arguments of `predict_selection`.
    """
    found = []
    with atomic.aside(out / "results") as folder:
        atomic.make_folder(folder / "overlays")
        for each in chosen:
            found.append((each, predict_selection(model, trained, each, folder, *how)))
        tables = [name for names in TABLES.values() for name in names]
        atomic.move(folder, out, tables, list_earlier(out))
    return found


def report(chosen: Selection, watch: advice.Watch, results: list[dict], out: Path) -> None:
    """Print what was found in frames, and the scores where there are true masks."""
    if chosen.masks is None:
        print(
            f"{watch.frames} test frames, {watch.positive} with a nerve: "
            f"{out}/submission.csv"
        )
        return
    print(scores.format_table(scores.summarize(results, [key[0] for key in chosen.keys])))
    words = ["python", "evaluate.py", *(str(out / name) for name in TABLES["val"])]
    height, width = map(str, chosen.masks.shape[1:])
    if chosen.masks.shape[1:] != (run_length.HEIGHT, run_length.WIDTH):  # evaluate.py's own
        words += ["--height", height, "--width", width]
    print(
        f"{watch.frames} validation frames: {out}/validation.csv; each one's score: "
        f"{shlex.join(words)}"
    )


def find_parts(trained: Trained, num_networks: int, data: Path) -> list[str]:
    """Return what there is to predict of extracted frames: "validation" and "test".

    Several networks of folds predict the test frames alone: each has seen the validation
    frames of the others.
    """
    extract, split, parts = read_extract(data), None, []
    if extract.train and (data / "preprocess.json").exists():
        split = read_split(data)
        if split.val.rows:
            parts.append("validation")
    if extract.test:
        parts.append("test")
    if not parts:
        raise ValueError(
            f"{data}/ holds neither validation nor test frames; make them with: "
            f"{PREPROCESS} --data {command.quoted(data)}"
        )
    if num_networks > 1 and len(parts) == 2 and (seen := trained_on(trained, split)):
        names = ", ".join(map(str, seen))
        print(
            f"note: test frames alone: networks here were trained on subjects {names}, "
            "which are validation subjects"
        )
        return ["test"]
    return parts


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, number = parser.add_argument, command.number
    add("--data", type=Path, default="data", help="folder of the extracted frames")
    add(
        "--input",
        type=Path,
        help="instead of --data: a picture, video or DICOM file, a folder of them, or the "
        "number of a camera",
    )
    add(
        "--smoothing",
        type=number(0, 1, below=True),
        help="share of the frames before in a video's probabilities; "
        f"{own_predictions.SMOOTHING} without it",
    )
    text = "also write a DICOM Segmentation of each DICOM file"
    add("--dicom-seg", action="store_true", help=text)
    text = "also write outlines to correct in labelme or CVAT, beside their frames"
    add("--labels", choices=labels.FORMATS, help=text)
    text = "folder of outlines of some frames of a clip, carried to its other frames"
    add("--keyframes", type=Path, help=text)
    add("--label", type=clean, help="what is nerve in --keyframes, where they hold several")
    add("--frames", type=command.whole(1), help="of a camera or video, at most")
    add("--show", action="store_true", help="show frames in a window as they are done")
    add(
        "--weights",
        type=Path,
        nargs="+",
        default=[Path("weights/unet.h5")],
        help="trained .h5; of several the mean probability is taken",
    )
    add("--settings", type=Path, help="JSON of like weights, instead of the weights' own")
    text = "to compute with; others than Keras use what export.py wrote, without TensorFlow"
    add("--engine", choices=engines.NAMES, default=engines.KERAS, help=text)
    add("--out", type=Path, default="predictions", help="folder to write")
    text = "to compute in; auto takes bfloat16 where the machine has it"
    add("--precision", choices=PRECISIONS, default="auto", help=text)
    add(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="take the mean of a frame and its mirror, in twice the time; without either, "
        "where the weights were trained on both, but not of a camera",
    )
    add(
        "--prevalence",
        type=number(0, 1),
        help="share of the frames that show a nerve: that many are kept, the surest (all "
        "that are equally sure), whatever the weights' own limit",
    )
    add(
        "--overlays",
        type=command.whole(0),
        help=f"pictures of validation and of test frames, {OVERLAYS} without it; of "
        "--input all frames have one",
    )
    args = parser.parse_args(argv)
    if args.overlays is not None and args.input is not None:
        parser.error("--overlays goes with --data; of --input all frames have one")
    if args.engine != engines.KERAS and len(args.weights) > 1:
        parser.error(f"--engine {args.engine} takes one .h5, exported")
    if args.label and not args.keyframes:
        parser.error("--label goes with --keyframes")
    for name in ("smoothing", "dicom_seg", "labels", "keyframes", "frames", "show"):
        if getattr(args, name) and args.input is None:
            parser.error(f"--{name.replace('_', '-')} goes with --input")
    if args.smoothing is None:
        args.smoothing = own_predictions.SMOOTHING
    if args.overlays is None:
        args.overlays = OVERLAYS
    return args


def load_model(weights: list[Path], records: list[Trained], engine: str, precision: str):
    """Return the network of these weights on an engine, or the mean of several.

    Args:
        precision: One of PRECISIONS; other engines than Keras have their own.
    """
    if engine != engines.KERAS:
        return engines.load(engine, engines.check(weights[0], engine, records[0]))
    precision, why = choose_precision(precision)
    print(f"precision {precision}: {why}")
    from model import build_network  # here: TensorFlow takes seconds to import

    return load_networks(build_network, weights, records, precision)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    records = [read_trained(path, args.settings) for path in args.weights]
    trained = merge(args.weights, records)
    if args.dicom_seg:
        dicom_seg.check_installed()
    if args.show:
        window.check_display()
    if args.input:
        paths = sources.list_files(args.input)
        own_predictions.check_out(paths, args.out)
    else:
        parts = find_parts(trained, len(records), args.data)
    model = load_model(args.weights, records, args.engine, args.precision)
    if args.mirror:
        model = Mirrored(model)
    elif args.mirror is None and not (args.input and sources.is_camera(args.input)):
        model = as_used(model, trained)
    select = {"validation": select_validation, "test": select_test}

    def advise(watch):
        for text in (watch.advise(args.prevalence), watch.advise_on_looks()):
            if text:
                print(text)

    with atomic.lock(args.out):
        if args.input:
            how = args.smoothing, args.frames, args.prevalence, args.dicom_seg
            shown = window.Window(args.out / "saved") if args.show else None
            labelling = args.labels, shown, args.keyframes, args.label
            options = own_predictions.Options(*how, *labelling)
            advise(own_predictions.predict(model, trained, paths, args.out, options))
        else:
            chosen = [select[part](trained, args.data) for part in parts]
            how = args.out, args.prevalence, args.overlays
            for each, (watch, results) in predict_selections(model, trained, chosen, *how):
                report(each, watch, results, args.out)
                advise(watch)
        truth = "" if args.input else "truth green, "
        print(f"overlays, {truth}prediction orange: {args.out}/overlays/")


if __name__ == "__main__":
    sys.exit(command.run(main))
