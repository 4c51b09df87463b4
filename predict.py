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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve import command, records
from nerve.files import atomic, run_length
from nerve.files.arrays import read_array
from nerve.frames import labels, overlays, sources, window
from nerve.frames.outlines import clean
from nerve.precision import PRECISIONS, choose_precision
from nerve.prediction import advice, dicom_seg, engines, inference, own_predictions
from nerve.prediction.held_out import read_validation, trained_on
from nerve.prediction.networks import load_networks, merge, read_trained
from nerve.records import Trained
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
    inputs: records.Inputs

    def predict(self, model) -> Iterator[inference.Prediction]:
        """Yield the probabilities of the frames chosen."""
        frames = (self.frames[row] for row in self.rows)
        return inference.predict_frames(model, frames, self.inputs)


def select_validation(trained: Trained, data: Path) -> Selection:
    """Return the validation frames, refused where the weights have seen them."""
    inputs, split, extract, frames, masks = read_validation(trained, data)
    train, rows = extract.train, split.val.rows
    keys = [(train.subject[row], train.image[row]) for row in rows]
    return Selection("val", frames, rows, keys, masks, inputs)


def select_test(trained: Trained, data: Path) -> Selection:
    """Return the test frames."""
    extract = records.read_extract(data)
    repair = f"{records.EXTRACT} --data {command.quoted(data)}"
    frames = read_array(data, "imgs_test.npy", extract.arrays, repair)
    keys = [(number,) for number in extract.test.image]
    return Selection("test", frames, range(len(keys)), keys, None, trained.inputs)


def select(trained: Trained, num_networks: int, data: Path) -> list[Selection]:
    """Return the validation and the test frames of a folder, those that there are.

    Several networks of folds predict the test frames alone: each has seen the validation
    frames of the others.
    """
    extract, chosen, rows = records.read_extract(data), [], []
    if extract.train and (data / "preprocess.json").exists():
        split = records.read_split(data)
        rows = split.val.rows
    several = num_networks > 1 and rows and extract.test
    if several and (seen := trained_on(trained, split)):
        print(
            "note: test frames alone: networks here were trained on subjects "
            f"{', '.join(map(str, seen))}, which are validation subjects"
        )
    elif rows:
        chosen.append(select_validation(trained, data))
    if extract.test:
        chosen.append(select_test(trained, data))
    if not chosen:
        raise ValueError(
            f"{data}/ holds neither validation nor test frames; make them with: "
            f"{records.PREPROCESS} --data {command.quoted(data)}"
        )
    return chosen


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

    Returns:
        `(what advice saw, the scores of frames whose true mask is known)`.
    """
    limits = inference.keep_share(chosen.predict(model), prevalence, trained.limits)
    watch, results, total = advice.Watch(trained), [], len(chosen.rows)
    made = [folder / name for name in TABLES[chosen.part]]
    columns = ("subject", "img", "pixels")[-1 - len(chosen.keys[0]) :]
    shown = overlays.evenly(num_overlays, total)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(atomic.write_csv(p, columns)) for p in made]
        frames = inference.find_masks(chosen.predict(model), limits)
        for k, found in enumerate(tqdm(frames, chosen.part, total, disable=None)):
            key, drawn = chosen.keys[k], [(found.mask, overlays.PREDICTION_COLOUR)]
            watch.see(found)
            if chosen.masks is not None:
                truth = chosen.masks[chosen.rows[k]] // 255
                drawn.append((truth, overlays.TRUTH_COLOUR))
                results.append(scores.frame_scores(truth, found.mask))
            for writer, (mask, _) in zip(writers, drawn, strict=True):
                writer.writerow([*key, run_length.encode(mask)])
            if k in shown:
                name, picture = "_".join(map(str, (chosen.part, *key))), found.frame
                for each in reversed(drawn):
                    picture = overlays.outline(picture, *each)
                overlays.write_picture(folder / "overlays" / f"{name}.png", picture)
    return watch, results


def predict_selections(
    model, trained: Trained, chosen: list[Selection], out: Path, *how
) -> list[tuple[Selection, tuple]]:
    """Return each selection with what `predict_selection` did, once all are in place."""
    with atomic.aside(out / "results") as folder:
        atomic.make_folder(folder / "overlays")
        common = folder, *how
        found = [(s, predict_selection(model, trained, s, *common)) for s in chosen]
        tables = [name for names in TABLES.values() for name in names]
        atomic.move(folder, out, tables, list_earlier(out))
    return found


def report(chosen: Selection, watch: advice.Watch, results: list[dict], out: Path) -> None:
    """Print what was found in frames, and the scores where there are true masks."""
    if chosen.masks is None:
        found = f"{watch.frames} test frames, {watch.positive} with a nerve"
        print(f"{found}: {out}/submission.csv")
        return
    print(scores.format_table(scores.summarize(results, [key[0] for key in chosen.keys])))
    words = ["python", "evaluate.py", *(str(out / name) for name in TABLES["val"])]
    size = chosen.masks.shape[1:]
    if size != (run_length.HEIGHT, run_length.WIDTH):  # evaluate.py's own
        words += ["--height", str(size[0]), "--width", str(size[1])]
    found = f"{watch.frames} validation frames: {out}/validation.csv"
    print(f"{found}; each one's score: {shlex.join(words)}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser, smoothing = command.Parser(__doc__), own_predictions.SMOOTHING
    add, number = parser.add_argument, command.number
    add("--data", type=Path, default="data", help="folder of the extracted frames")
    text = "instead of --data: a picture, video, DICOM file, folder, or a camera's number"
    add("--input", type=Path, help=text)
    text = f"share of the frames before in a video's probabilities; {smoothing} without it"
    add("--smoothing", type=number(0, 1, below=True), help=text)
    text = "also write a DICOM Segmentation of each DICOM file"
    add("--dicom-seg", action="store_true", help=text)
    text = "also write outlines to correct in labelme or CVAT, beside their frames"
    add("--labels", choices=labels.FORMATS, help=text)
    text = "folder of outlines of some frames of a clip, carried to its other frames"
    add("--keyframes", type=Path, help=text)
    add("--label", type=clean, help="what is nerve in --keyframes, where they hold several")
    add("--frames", type=command.whole(1), help="of a camera or video, at most")
    add("--show", action="store_true", help="show frames in a window as they are done")
    text = "trained .h5; of several the mean probability is taken"
    add("--weights", type=Path, nargs="+", default=[Path("weights/unet.h5")], help=text)
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
    text = (
        f"pictures of validation and of test frames, {OVERLAYS} without it; all of --input"
    )
    add("--overlays", type=command.whole(0), help=text)
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
    args.smoothing = smoothing if args.smoothing is None else args.smoothing
    args.overlays = OVERLAYS if args.overlays is None else args.overlays
    return args


def load_model(weights: list[Path], trained: list[Trained], engine: str, precision: str):
    """Return the network of these weights on an engine, or the mean of several."""
    if engine != engines.KERAS:
        path = engines.check(weights[0], engine, trained[0])
        return engines.load(engine, path, precision)
    precision, why = choose_precision(precision)
    print(f"precision {precision}: {why}")
    from model import build_network  # here: TensorFlow takes seconds to import

    return load_networks(build_network, weights, trained, precision)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    weights = [read_trained(path, args.settings) for path in args.weights]
    trained = merge(args.weights, weights)
    if args.dicom_seg:
        dicom_seg.check_installed()
    if args.show:
        window.check_display()
    if args.input:
        paths = sources.list_files(args.input)
        own_predictions.check_out(paths, args.input, args.out)
    else:
        chosen = select(trained, len(weights), args.data)
    model = load_model(args.weights, weights, args.engine, args.precision)
    if args.mirror:
        model = inference.Mirrored(model)
    elif args.mirror is None and not (args.input and sources.is_camera(args.input)):
        model = inference.as_used(model, trained)

    def advise(watch):
        for text in (watch.advise(args.prevalence), watch.advise_on_looks()):
            if text:
                print(text)

    with atomic.lock(args.out):
        own_predictions.keep_unfinished(args.out)
        if args.input:
            how = args.smoothing, args.frames, args.prevalence, args.dicom_seg
            shown = window.Window(args.out / "saved") if args.show else None
            labelling = args.labels, shown, args.keyframes, args.label
            folder = args.input if args.input.is_dir() else None
            options = own_predictions.Options(*how, *labelling, folder)
            advise(own_predictions.predict(model, trained, paths, args.out, options))
        else:
            how = args.out, args.prevalence, args.overlays
            for each, (watch, results) in predict_selections(model, trained, chosen, *how):
                report(each, watch, results, args.out)
                advise(watch)
        truth = "" if args.input else "truth green, "
        print(f"overlays, {truth}prediction orange: {args.out}/overlays/")


if __name__ == "__main__":
    sys.exit(command.run(main))
