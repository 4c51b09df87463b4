"""Search the limits that turn probabilities into masks, on frames held out from training.

    python tune.py --data data --weights weights/unet.h5
    python tune.py --data fold0 fold1 --weights fold0.h5 fold1.h5 --into weights/all.json

Each weights file predicts the validation frames of its data folder. Of `threshold`,
`smallest_area` and `presence` those are kept under which the challenge's score over all of
these frames is best.

Reads   DATA/imgs_train.npy, DATA/imgs_mask_train.npy, DATA/preprocess.json; the .h5 and
        .json of the weights
Writes  the three limits into the weights' .json, or into the one named by --into
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from nerve import command
from nerve.files import atomic
from nerve.precision import PRECISIONS, choose_precision
from nerve.prediction.held_out import read_validation
from nerve.prediction.inference import predict_frames
from nerve.prediction.limits import Measures, measure, score_at, search
from nerve.prediction.networks import load_network, read_trained
from nerve.records import TRAIN, Trained

FEW = 30  # frames: limits chosen on fewer fit these


def measure_held_out(
    weights: Path, data: Path, precision: str
) -> tuple[Measures, list[int]]:
    """Measure one network on the validation frames of a data folder.

    Returns:
        `(what measure returned, subjects)`.
    """
    trained = read_trained(weights)
    inputs, split, _, frames, masks = read_validation(trained, data)
    rows = split.val.rows
    if not rows:
        raise ValueError(f"{data}/ holds no validation frames to search on")
    from model import build_network  # here: TensorFlow takes seconds to import

    model = load_network(build_network, weights, trained, precision)
    predictions = predict_frames(model, (frames[r] for r in rows), inputs)
    return measure(predictions, (masks[r] for r in rows)), split.val.subjects


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        nargs="+",
        default=[Path("data")],
        help="folders of preprocess.py's arrays, one for each of the weights",
    )
    add(
        "--weights",
        type=Path,
        nargs="+",
        default=[Path("weights/unet.h5")],
        help="trained .h5",
    )
    add(
        "--into",
        type=Path,
        help=".json of trained weights to write the limits into, instead of the weights'",
    )
    add("--precision", choices=PRECISIONS, default="auto", help="to compute in")
    args = parser.parse_args(argv)
    if len(args.data) != len(args.weights):
        parser.error(
            f"{len(args.data)} --data and {len(args.weights)} --weights; expected one "
            "folder for each"
        )
    if args.into is None:
        if len(args.weights) > 1:
            parser.error("several --weights; name the .json to write with --into")
        args.into = args.weights[0].with_suffix(".json")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    weights_records = [path.with_suffix(".json") for path in args.weights]
    with atomic.lock(args.into.parent, args.into.stem):
        record = Trained.from_dict(atomic.read_record(args.into, TRAIN), args.into)
        precision, why = choose_precision(args.precision)
        print(f"precision {precision}: {why}")
        pairs = zip(args.weights, args.data, strict=True)
        parts, subjects = zip(
            *(measure_held_out(*pair, precision) for pair in pairs), strict=True
        )
        columns = Measures(*map(np.concatenate, zip(*parts, strict=True)))
        if columns.empty.all():
            raise ValueError(
                f"none of the {len(columns.empty)} validation frames shows a nerve: limits "
                "searched on them would empty every mask; hold out subjects with nerves"
            )
        limits, score = search(columns)
        # of all parts: several networks are predicted with under the limits of one record
        before = score_at(columns, record.limits).mean()
        if len(columns.empty) < FEW:
            print(f"warning: {len(columns.empty)} frames are few to choose limits on")
        if score <= before + 1e-9 and args.into in weights_records:
            print(f"{len(columns.empty)} frames: nothing is gained over {before:.4f}")
            return
        record = dataclasses.replace(
            record,
            limits=limits,
            limits_searched_on=sorted({s for part in subjects for s in part}),
        )
        atomic.write_bytes(args.into, atomic.to_json(record.to_dict()).encode())
    limits = dataclasses.asdict(limits)
    text = ", ".join(f"{name} {value:.4g}" for name, value in limits.items())
    print(f"{len(columns.empty)} frames: {text}: {args.into}")
    print(
        f"mean challenge Dice {before:.4f} before, {score:.4f} with these limits, which "
        "were chosen on these very frames: other frames will gain less"
    )


if __name__ == "__main__":
    sys.exit(command.run(main))
