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
from pathlib import Path

from tqdm import tqdm

import advice
import dicom_seg
import engines
import frames as sources
import inference
import own_predictions
import run_length
import scores
import stage
from held_out import read_validation, trained_on
from overlays import PREDICTION_COLOUR, TRUTH_COLOUR, evenly, outline, write_picture
from precision import PRECISIONS, choose_precision
from preprocess import EXTRACT, PREPROCESS, read_split
from trained import load_networks, merge_settings, read_settings

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


def predict_validation(
    model, data: Path, out: Path, settings: dict, num_overlays: int
) -> tuple[advice.Watch, list[Path]]:
    """Write masks, truth and overlays of the validation frames; print their scores.

    Returns:
        `(watch, paths)`: what `advice` saw, and the files written.
    """
    settings, split, extract, frames, masks = read_validation(settings, data)
    rows, watch, results = split["val"]["rows"], advice.Watch(), []
    maps = inference.predict_frames(model, (frames[row] for row in rows), settings)
    settings = inference.keep_share(maps, settings)
    made = [out / "validation.csv", out / "validation_truth.csv"]
    shown = evenly(num_overlays, len(rows))
    found = inference.find_masks(model, (frames[row] for row in rows), settings)
    columns = ("subject", "img", "pixels")
    with (
        stage.write_csv(made[0], columns) as predicted_csv,
        stage.write_csv(made[1], columns) as truth_csv,
    ):
        bar = tqdm(found, "val", total=len(rows), unit=" frames", disable=None)
        for k, (row, (frame, probability, mask, pixels)) in enumerate(
            zip(rows, bar, strict=True)
        ):
            truth = masks[row] // 255
            watch.see(frame, probability, mask)
            name = extract["train"]["subject"][row], extract["train"]["image"][row]
            predicted_csv.writerow([*name, pixels])
            truth_csv.writerow([*name, run_length.encode(truth)])
            results.append(scores.frame_scores(truth, mask))
            if k in shown:
                picture = outline(frame, truth, TRUTH_COLOUR)
                picture = outline(picture, mask, PREDICTION_COLOUR)
                made.append(out / "overlays" / f"val_{name[0]}_{name[1]}.png")
                write_picture(made[-1], picture)
    subjects = [extract["train"]["subject"][row] for row in rows]
    print(scores.format_table(scores.summarize(results, subjects)))
    print(
        f"{len(rows)} validation frames: {out}/validation.csv; the score of each: python "
        f"evaluate.py {out}/validation.csv {out}/validation_truth.csv"
        f"{size_flags(*masks.shape[1:])}"
    )
    return watch, made


def predict_test(
    model, data: Path, out: Path, settings: dict, num_overlays: int
) -> tuple[advice.Watch, list[Path]]:
    """Write the submission and overlays of the test frames.

    Returns:
        `(watch, paths)`: what `advice` saw, and the files written.
    """
    repair = f"{EXTRACT} --data {data}"
    extract = stage.read_record(data / "extract.json", repair)
    frames = stage.read_array(data, "imgs_test.npy", extract, repair)
    numbers, watch = extract["test"]["image"], advice.Watch()
    settings = inference.keep_share(
        inference.predict_frames(model, frames, settings), settings
    )
    made = [out / "submission.csv"]
    shown = evenly(num_overlays, len(numbers))
    found = inference.find_masks(model, frames, settings)
    with stage.write_csv(made[0], ("img", "pixels")) as writer:
        bar = tqdm(found, "test", total=len(numbers), unit=" frames", disable=None)
        for k, (number, (frame, probability, mask, pixels)) in enumerate(
            zip(numbers, bar, strict=True)
        ):
            watch.see(frame, probability, mask)
            writer.writerow([number, pixels])
            if k in shown:
                made.append(out / "overlays" / f"test_{number}.png")
                write_picture(made[-1], outline(frame, mask, PREDICTION_COLOUR))
    print(
        f"{len(numbers)} test frames, {watch.positive} with a nerve: {out}/submission.csv"
    )
    return watch, made


def find_parts(data: Path) -> list[str]:
    """Return what there is to predict of extracted frames: "validation" and "test"."""
    extract = stage.read_record(data / "extract.json", f"{EXTRACT} --data {data}")
    parts = []
    there = "train" in extract and (data / "preprocess.json").exists()
    if there and read_split(data)["val"]["rows"]:
        parts.append("validation")
    if "test" in extract:
        parts.append("test")
    if not parts:
        raise ValueError(
            f"{data}/ holds neither validation nor test frames; make them with: "
            f"{PREPROCESS} --data {data}"
        )
    return parts


def leave_out_seen(settings: dict, data: Path) -> list[str]:
    """Return the parts that several networks may predict: those of folds have seen some."""
    seen = trained_on(settings, read_split(data))
    if not seen:
        return ["validation", "test"]
    names = ", ".join(map(str, seen))
    print(
        f"note: test frames alone: networks here were trained on subjects {names}, which "
        "are validation subjects"
    )
    return ["test"]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default="data", help="folder of the extracted frames")
    add(
        "--input",
        type=Path,
        help="a picture, video or DICOM file, a folder of them, or the number of a camera; "
        "instead of --data",
    )
    add(
        "--smoothing",
        type=float,
        help="share of the frames before in a video's probabilities, 0 to below 1; "
        f"default: {own_predictions.SMOOTHING}",
    )
    add(
        "--dicom-seg",
        action="store_true",
        help="also write a DICOM Segmentation of each DICOM file",
    )
    add("--frames", type=int, help="of a camera or video, at most; default: all")
    add(
        "--weights",
        type=Path,
        nargs="+",
        default=[Path("weights/unet.h5")],
        help="trained .h5; of several the mean probability is taken",
    )
    add(
        "--settings", type=Path, help="JSON of other weights; default: the weights' own"
    )
    add(
        "--trust",
        action="store_true",
        help="load whole models of others (.h5, .keras), whatever code they hold: only "
        "where you would run their scripts, too",
    )
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
        type=float,
        help="share of the frames that show a nerve, 0 to 1: at most that many are kept, "
        "those whose highest probabilities are highest. Default: the weights' own limits",
    )
    add(
        "--overlays",
        type=int,
        help="pictures of validation and of test frames, 0 or more; default: "
        f"{OVERLAYS}. Of --input all frames have one",
    )
    args = parser.parse_args(argv)
    if args.overlays is None:
        args.overlays = OVERLAYS
    elif args.input is not None:
        parser.error("--overlays goes with --data; of --input all frames have one")
    if args.overlays < 0:
        parser.error(f"--overlays {args.overlays}; expected 0 or more")
    if args.prevalence is not None and not 0 <= args.prevalence <= 1:
        parser.error(f"--prevalence {args.prevalence}; expected 0 to 1")
    if args.engine != engines.KERAS and (len(args.weights) > 1 or args.trust):
        parser.error(f"--engine {args.engine} takes one of your own .h5, exported")
    for name in ("smoothing", "dicom_seg", "frames"):
        if getattr(args, name) and args.input is None:
            parser.error(f"--{name.replace('_', '-')} goes with --input")
    if args.smoothing is None:
        args.smoothing = own_predictions.SMOOTHING
    if not 0 <= args.smoothing < 1:
        parser.error(f"--smoothing {args.smoothing}; expected 0 to below 1")
    if args.frames is not None and args.frames < 1:
        parser.error(f"--frames {args.frames}; expected 1 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    records = [read_settings(p, args.settings, args.trust) for p in args.weights]
    settings = merge_settings(args.weights, records)
    settings |= {"prevalence": args.prevalence, "smoothing": args.smoothing}
    settings["most_frames"] = args.frames
    if args.dicom_seg:
        dicom_seg.check_installed()
    paths = None if args.input is None else sources.list_files(args.input)
    parts = ["input"] if paths else find_parts(args.data)
    if args.engine == engines.KERAS:
        precision, why = choose_precision(args.precision)
        print(f"precision {precision}: {why}")
        model = load_networks(args.weights, records, precision, args.trust)
    else:
        path = engines.check(args.weights[0], args.engine, settings)
        model = engines.load(args.engine, path)
    if len(records) > 1 and parts == ["validation", "test"]:
        parts = leave_out_seen(settings, args.data)
    functions = {"validation": predict_validation, "test": predict_test}
    with stage.lock(args.out):
        made = []
        stage.make_folder(args.out / "overlays")
        for part in parts:
            if part == "input":
                watch = own_predictions.predict(
                    model, paths, args.out, settings, args.dicom_seg
                )
            else:
                watch, written = functions[part](
                    model, args.data, args.out, settings, args.overlays
                )
                made += written
            if text := watch.advise(settings):
                print(text)
        colours = "prediction orange"
        if args.input is None:
            remove_stale(args.out, made)
            colours = f"truth green, {colours}"
        print(f"overlays, {colours}: {args.out}/overlays/")


if __name__ == "__main__":
    sys.exit(stage.run(main))
