"""Search the limits that turn probabilities into masks, on frames held out from training.

    python tune.py --data data --weights weights/unet.h5
    python tune.py --data fold0 fold1 --weights fold0.h5 fold1.h5 --into weights/all.json

Each weights file predicts the validation frames of its data folder. Of `threshold`,
`smallest_area` and `presence` those are kept under which the challenge's score over all of
these frames is best. How sure a nerve is there is calibrated on the same frames; where
hardly any lacks a nerve, on pairs of crops of them, one with the nerve and one without.

Reads   DATA/imgs_train.npy, DATA/imgs_mask_train.npy, DATA/preprocess.json; the .h5 and
        .json of the weights
Writes  the three limits and the calibration into the weights' .json, or into that of --into
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nerve import command
from nerve.files import atomic
from nerve.frames.crops import crop_pair
from nerve.precision import PRECISIONS, choose_precision
from nerve.prediction import sureness
from nerve.prediction.advice import FEW_EMPTY
from nerve.prediction.held_out import read_validation
from nerve.prediction.inference import as_used, predict_frames, presence
from nerve.prediction.limits import Measures, measure, score_at, search
from nerve.prediction.networks import load_network, read_trained
from nerve.records import TRAIN, Calibration, Trained

FEW = 30  # frames: limits chosen on fewer fit these


def measure_held_out(
    weights: Path, data: Path, precision: str
) -> tuple[Measures, tuple[np.ndarray, ...], bool, list[int]]:
    """Measure one network on the validation frames of a folder.

    Returns:
        `(what measure returned, what to calibrate on, whether that is crops, subjects)`;
        to calibrate on are presence, nerve and subject of each, arrays `(N,)`.
    """
    trained = read_trained(weights)
    inputs, split, _, frames, masks = read_validation(trained, data)
    rows, subjects = split.val.rows, split.val.subject
    from model import build_network  # here: TensorFlow takes seconds to import

    model = as_used(load_network(build_network, weights, trained, precision), trained)
    predictions = predict_frames(model, (frames[r] for r in rows), inputs)
    measures = measure(predictions, (masks[r] for r in rows))
    sure, nerve, crops = measures.presence, ~measures.empty, []
    if measures.empty.mean() < FEW_EMPTY:
        crops = [
            (crop, part.any(), subject)
            for row, subject in zip(rows, subjects, strict=True)
            if masks[row].any()
            for crop, part in crop_pair(frames[row], masks[row], np.random.default_rng(row))
        ]
    if crops:
        pictures, nerve, subjects = zip(*crops, strict=True)
        found = predict_frames(model, pictures, inputs)
        bar = tqdm(found, "crops", len(crops), unit=" crops", disable=None)
        sure = [presence(each.probability) for each in bar]
    columns = tuple(map(np.array, (sure, nerve, subjects)))
    return measures, columns, bool(crops), split.val.subjects


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    text = "folders of preprocess.py's arrays, one for each of the weights"
    add("--data", type=Path, nargs="+", default=[Path("data")], help=text)
    first = [Path("weights/unet.h5")]
    add("--weights", type=Path, nargs="+", default=first, help="trained .h5")
    text = ".json of trained weights to write the limits into, instead of the weights'"
    add("--into", type=Path, help=text)
    add("--precision", choices=PRECISIONS, default="auto", help="to compute in")
    args = parser.parse_args(argv)
    if len(args.data) != len(args.weights):
        given = f"{len(args.data)} --data and {len(args.weights)} --weights"
        parser.error(f"{given}; expected one folder for each")
    if args.into is None:
        if len(args.weights) > 1:
            parser.error("several --weights; name the .json to write with --into")
        args.into = args.weights[0].with_suffix(".json")
    return args


def report(calibration: Calibration | None) -> None:
    """Print what is known of how sure a nerve is there."""
    if calibration is None:
        print(
            "how sure a nerve is there: not known: it takes held-out frames, "
            f"{sureness.FEW} with a nerve and as many without, of {sureness.PARTS} subjects"
        )
        return
    what = "crops" if calibration.crops else "frames"
    print(
        f"how sure a nerve is there: calibrated on {calibration.frames} {what} of "
        f"{calibration.subjects} subjects; calibration error of subjects held out "
        f"{calibration.error:.3f}"
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    weights_records = [path.with_suffix(".json") for path in args.weights]
    with atomic.lock(args.into.parent, args.into.stem):
        record = Trained.from_dict(atomic.read_record(args.into, TRAIN), args.into)
        precision, why = choose_precision(args.precision)
        print(f"precision {precision}: {why}")
        pairs = zip(args.weights, args.data, strict=True)
        found = (measure_held_out(*pair, precision) for pair in pairs)
        parts, held_out, crops, subjects = zip(*found, strict=True)
        columns = Measures(*map(np.concatenate, zip(*parts, strict=True)))
        held_out = map(np.concatenate, zip(*held_out, strict=True))
        count = len(columns.empty)
        if columns.empty.all():
            raise ValueError(
                f"none of the {count} validation frames shows a nerve: limits searched on "
                "them would empty every mask; hold out subjects with nerves"
            )
        limits, score = search(columns)
        # of all parts: several networks are predicted with under the limits of one record
        before = score_at(columns, record.limits).mean()
        if count < FEW:
            print(f"warning: {count} frames are few to choose limits on")
        calibration = sureness.calibrate(*held_out, any(crops))
        if gained := score > before + 1e-9 or args.into not in weights_records:
            on = sorted({subject for part in subjects for subject in part})
            record = dataclasses.replace(record, limits=limits, limits_searched_on=on)
        record = dataclasses.replace(record, calibration=calibration)
        atomic.write_json(args.into, record.to_dict())
    report(calibration)
    if not gained:
        print(f"{count} frames: nothing is gained over {before:.4f}")
        return
    limits = dataclasses.asdict(limits).items()
    text = ", ".join(f"{name} {value:.4g}" for name, value in limits)
    print(f"{count} frames: {text}: {args.into}")
    print(
        f"mean challenge Dice {before:.4f} before, {score:.4f} with these limits, which "
        "were chosen on these very frames: other frames will gain less"
    )


if __name__ == "__main__":
    sys.exit(command.run(main))
