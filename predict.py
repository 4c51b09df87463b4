"""Predict masks of the validation and test frames, or of frames of your own.

    python predict.py --data data --weights weights/unet.h5 --out predictions
    python predict.py --input pictures/ --weights weights/unet.h5 --out predictions

Reads   weights/unet.h5 and weights/unet.json; data/imgs_train.npy,
        data/imgs_mask_train.npy and data/preprocess.json for the validation frames,
        data/imgs_test.npy for the test frames; or pictures (PNG, JPEG, TIFF, BMP), videos,
        DICOM files, a camera
Writes  predictions/validation.csv, validation_truth.csv, submission.csv and overlays/;
        of frames of your own masks/STEM.png, overlays/STEM.png and frames.csv; of a video
        or cine loop masks/STEM_NUMBER.png and overlays/STEM.mp4
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nerve import command
from nerve.files import atomic, run_length
from nerve.files.arrays import read_array
from nerve.frames import sources
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
from nerve.prediction.inference import Prediction, find_masks, keep_share, predict_frames
from nerve.prediction.networks import load_networks, merge, read_trained
from nerve.records import EXTRACT, PREPROCESS, Inputs, Trained, read_extract, read_split
from nerve.scoring import scores

OVERLAYS = 24  # of validation and of test frames


def remove_stale(out: Path, made: list[Path]) -> None:
    """Remove what an earlier run left that this one did not make."""
    names = ["validation_truth.csv"]
    for stem in ("validation", "submission"):  # the scores are evaluate.py's, of these
        names += [f"{stem}{end}" for end in (".csv", ".scores.csv", ".scores.json")]
    paths = {out / name for name in names}
    ours = re.compile(r"(test|val_[0-9]+)_[0-9]+\.png")  # others are people's own
    paths |= {p for p in (out / "overlays").iterdir() if ours.fullmatch(p.name)}
    for path in paths - set(made):
        path.unlink(missing_ok=True)


def size_flags(height: int, width: int) -> str:
    """Return the flags that tell evaluate.py of frames of another size than its own."""
    if (height, width) == (run_length.HEIGHT, run_length.WIDTH):
        return ""
    return f" --height {height} --width {width}"


def find_in_frames(
    model,
    frames: Sequence[np.ndarray],
    inputs: Inputs,
    trained: Trained,
    prevalence: float | None,
    label: str,
) -> Iterator[Prediction]:
    """Yield extracted frames with their masks, behind a progress bar.

    Args:
        frames: uint8 arrays `(rows, columns)`.
    """
    ranked = predict_frames(model, frames, inputs)
    limits = keep_share(ranked, prevalence, trained.limits)
    found = find_masks(predict_frames(model, frames, inputs), limits)
    yield from tqdm(found, label, total=len(frames), unit=" frames", disable=None)


class Rows(Sequence):
    """Some rows of a mapped array, read one by one."""

    def __init__(self, array, rows):
        self.array, self.rows = array, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, k):
        return self.array[self.rows[k]]


def predict_validation(
    model,
    trained: Trained,
    data: Path,
    out: Path,
    prevalence: float | None,
    num_overlays: int,
) -> tuple[advice.Watch, list[Path]]:
    """Write masks, truth and overlays of the validation frames; print their scores.

    Returns:
        `(watch, paths)`: what `advice` saw, and the files written.
    """
    inputs, split, extract, frames, masks = read_validation(trained, data)
    rows, watch, results = split.val.rows, advice.Watch(), []
    subjects = [extract.train.subject[row] for row in rows]
    shown = evenly(num_overlays, len(rows))
    made = [out / "validation.csv", out / "validation_truth.csv"]
    columns = ("subject", "img", "pixels")
    found = find_in_frames(model, Rows(frames, rows), inputs, trained, prevalence, "val")
    with (
        atomic.write_csv(made[0], columns) as predicted_csv,
        atomic.write_csv(made[1], columns) as truth_csv,
    ):
        for k, (frame, _, probability, mask) in enumerate(found):
            truth = masks[rows[k]] // 255
            watch.see(frame, probability, mask)
            name = subjects[k], extract.train.image[rows[k]]
            predicted_csv.writerow([*name, run_length.encode(mask)])
            truth_csv.writerow([*name, run_length.encode(truth)])
            results.append(scores.frame_scores(truth, mask))
            if k in shown:
                picture = outline(frame, truth, TRUTH_COLOUR)
                picture = outline(picture, mask, PREDICTION_COLOUR)
                made.append(out / "overlays" / f"val_{name[0]}_{name[1]}.png")
                write_picture(made[-1], picture)
    print(scores.format_table(scores.summarize(results, subjects)))
    print(
        f"{len(rows)} validation frames: {out}/validation.csv; the score of each: python "
        f"evaluate.py {out}/validation.csv {out}/validation_truth.csv"
        f"{size_flags(*masks.shape[1:])}"
    )
    return watch, made


def predict_test(
    model,
    trained: Trained,
    data: Path,
    out: Path,
    prevalence: float | None,
    num_overlays: int,
) -> tuple[advice.Watch, list[Path]]:
    """Write the submission and overlays of the test frames.

    Returns:
        `(watch, paths)`: what `advice` saw, and the files written.
    """
    extract, repair = read_extract(data), f"{EXTRACT} --data {data}"
    frames = read_array(data, "imgs_test.npy", extract.arrays, repair)
    numbers, watch = extract.test.image, advice.Watch()
    shown = evenly(num_overlays, len(numbers))
    made = [out / "submission.csv"]
    found = find_in_frames(model, frames, trained.inputs, trained, prevalence, "test")
    with atomic.write_csv(made[0], ("img", "pixels")) as writer:
        for k, (frame, _, probability, mask) in enumerate(found):
            watch.see(frame, probability, mask)
            writer.writerow([numbers[k], run_length.encode(mask)])
            if k in shown:
                made.append(out / "overlays" / f"test_{numbers[k]}.png")
                write_picture(made[-1], outline(frame, mask, PREDICTION_COLOUR))
    print(
        f"{len(numbers)} test frames, {watch.positive} with a nerve: {out}/submission.csv"
    )
    return watch, made


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
            f"{PREPROCESS} --data {data}"
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
        help="a picture, video or DICOM file, a folder of them, or the number of a camera; "
        "instead of --data",
    )
    add(
        "--smoothing",
        type=number(0, 1, below=True),
        help="share of the frames before in a video's probabilities; "
        f"{own_predictions.SMOOTHING} without it",
    )
    add(
        "--dicom-seg",
        action="store_true",
        help="also write a DICOM Segmentation of each DICOM file",
    )
    add("--frames", type=command.whole(1), help="of a camera or video, at most")
    add(
        "--weights",
        type=Path,
        nargs="+",
        default=[Path("weights/unet.h5")],
        help="trained .h5; of several the mean probability is taken",
    )
    add("--settings", type=Path, help="JSON of like weights, instead of the weights' own")
    add(
        "--engine",
        choices=engines.NAMES,
        default=engines.KERAS,
        help="to compute with; others than Keras use what export.py wrote, without "
        "importing TensorFlow",
    )
    add("--out", type=Path, default="predictions", help="folder to write")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="to compute in; auto takes bfloat16 where the machine has it",
    )
    add(
        "--prevalence",
        type=number(0, 1),
        help="share of the frames that show a nerve: at most that many are kept, those "
        "whose highest probabilities are highest; instead of the weights' own limit",
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
    for name in ("smoothing", "dicom_seg", "frames"):
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
    if args.input:
        paths = sources.list_files(args.input)
    else:
        parts = find_parts(trained, len(records), args.data)
    model = load_model(args.weights, records, args.engine, args.precision)
    functions = {"validation": predict_validation, "test": predict_test}

    def advise(watch):
        if text := watch.advise(trained, args.prevalence):
            print(text)

    with atomic.lock(args.out):
        atomic.make_folder(args.out / "overlays")
        if args.input:
            how = args.smoothing, args.frames, args.prevalence, args.dicom_seg
            advise(own_predictions.predict(model, trained, paths, args.out, *how))
        else:
            made = []
            how = args.data, args.out, args.prevalence, args.overlays
            for part in parts:
                watch, written = functions[part](model, trained, *how)
                advise(watch)
                made += written
            remove_stale(args.out, made)
        truth = "" if args.input else "truth green, "
        print(f"overlays, {truth}prediction orange: {args.out}/overlays/")


if __name__ == "__main__":
    sys.exit(command.run(main))
