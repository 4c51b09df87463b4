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
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import inference
import machine
import scores
import stage
from held_out import read_validation
from precision import PRECISIONS, choose_precision
from trained import TRAIN, check_numbers, load_network, read_settings

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 16))
FEW = 30  # frames: limits chosen on fewer fit these
STEPS = 40  # values tried of `smallest_area`, and of `presence`


class Measures(NamedTuple):
    """What the limits decide upon: of one frame, or arrays of all."""

    dice: np.ndarray  # of the mask at each of THRESHOLDS
    area: np.ndarray  # of it, likewise, as `inference.area_share`
    presence: float
    empty: bool  # whether the true mask is


def measure_frame(
    truth: np.ndarray, probability: np.ndarray, settings: dict
) -> Measures:
    """Measure one frame's masks at all thresholds."""
    row = {**settings, "smallest_area": 0.0, "presence": 0.0}
    found = [
        inference.to_mask(probability, truth.shape, {**row, "threshold": t})
        for t in THRESHOLDS
    ]
    dice = [scores.dice(truth > 0, mask) for mask in found]
    area = [inference.area_share(mask, probability.shape, settings) for mask in found]
    return Measures(dice, area, inference.presence(probability), not truth.any())


def measure(
    model, frames: Iterable[np.ndarray], masks: Iterable[np.ndarray], settings: dict
) -> Measures:
    """Measure each frame's masks at all thresholds.

    Args:
        model: The U-Net.
        frames: Iterable of uint8 arrays `(rows, columns)`.
        masks: Iterable of their true masks, same sizes, above 0 where nerve.
        settings: Record as of `inference.predict_frames`.

    Returns:
        Of all frames: `dice` and `area`, float arrays `(N, len(THRESHOLDS))`; `presence`,
        float `(N,)`; `empty`, bool `(N,)`.
    """

    def work(pair):
        return measure_frame(*pair, settings)

    probabilities = inference.predict_frames(model, frames, settings)
    pairs = zip(masks, probabilities, strict=True)
    results = tqdm(machine.map_threads(work, pairs), "frames", disable=None)
    return Measures(*(np.array(column) for column in zip(*results, strict=True)))


def candidates(values: np.ndarray) -> np.ndarray:
    """Return limits to try: 0, and values between the smallest and the largest."""
    return np.unique([0.0, *np.quantile(values, np.linspace(0, 1, STEPS))])


def search(
    dice: np.ndarray, area: np.ndarray, presence: np.ndarray, empty: np.ndarray
) -> tuple[dict[str, float], float]:
    """Return the limits under which the mean Dice is highest; of equal ones the lowest.

    Args:
        dice: As `measure` returned it; likewise the others.

    Returns:
        `(limits, score)`: `{threshold, smallest_area, presence}`, and the mean Dice of all
        frames where an empty mask scores 1 against an empty one, else 0.
    """
    best = None
    for k, threshold in enumerate(THRESHOLDS):
        presences, areas = candidates(presence), candidates(area[:, k])
        kept = presence[:, np.newaxis] >= presences  # (N, presences)
        for smallest in areas:
            shown = kept & (area[:, k] >= smallest)[:, np.newaxis]
            means = np.where(shown, dice[:, [k]], empty[:, np.newaxis]).mean(axis=0)
            score = means.max()
            if best is None or score > best[1] + 1e-9:
                limits = threshold, float(smallest), float(presences[means.argmax()])
                best = limits, float(score)
    names = ("threshold", "smallest_area", "presence")
    return dict(zip(names, best[0], strict=True)), best[1]


def score_at(
    dice: np.ndarray,
    area: np.ndarray,
    presence: np.ndarray,
    empty: np.ndarray,
    limits: dict,
) -> np.ndarray:
    """Return the challenge's Dice of each frame, `(N,)`, under limits that weights have.

    Args:
        dice: As `measure` returned it; likewise `area`, `presence` and `empty`.
        limits: Record of the three limits; of the thresholds tried the nearest is taken.
    """
    k = np.abs(np.array(THRESHOLDS) - limits["threshold"]).argmin()
    shown = (presence >= limits["presence"]) & (area[:, k] >= limits["smallest_area"])
    return np.where(shown, dice[:, k], empty)


def measure_held_out(
    weights: Path, data: Path, precision: str
) -> tuple[Measures, list[int]]:
    """Measure one network on the validation frames of a data folder.

    Returns:
        `(what measure returned, subjects)`.
    """
    settings = read_settings(weights, None)
    settings, split, _, frames, masks = read_validation(settings, data)
    rows = split["val"]["rows"]
    if not rows:
        raise ValueError(f"{data}/ holds no validation frames to search on")
    model = load_network(weights, settings, precision)
    pairs = (frames[r] for r in rows), (masks[r] for r in rows)
    return measure(model, *pairs, settings), split["val"]["subjects"]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
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
        help=".json of trained weights to write the limits into; default: the weights'",
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
    with stage.lock(args.into.parent, args.into.stem):
        record = stage.read_record(args.into, TRAIN)
        check_numbers(args.into, record)
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
        limits, score = search(*columns)
        # of all parts: several networks are predicted with under the limits of one record
        before = score_at(*columns, record).mean()
        if len(columns.empty) < FEW:
            print(f"warning: {len(columns.empty)} frames are few to choose limits on")
        if score <= before + 1e-9 and args.into in weights_records:
            print(f"{len(columns.empty)} frames: nothing is gained over {before:.4f}")
            return
        record |= limits
        record["limits_searched_on"] = sorted({s for part in subjects for s in part})
        stage.write_bytes(args.into, stage.to_json(record).encode())
    text = ", ".join(f"{name} {value:.4g}" for name, value in limits.items())
    print(f"{len(columns.empty)} frames: {text}: {args.into}")
    print(
        f"mean challenge Dice {before:.4f} before, {score:.4f} with these limits, which "
        "were chosen on these very frames: other frames will gain less"
    )


if __name__ == "__main__":
    sys.exit(stage.run(main))
