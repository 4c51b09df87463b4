"""What is gained, or lost, at test time: mirrored frames, the mean of several networks.

    python benchmarks/test_time.py --work quality --row modern --folds 0 1 --seeds 0 1 2

Uses the networks that quality.py left in its working folder, of each fold's first seed for
the mirrored frames, of all seeds for their mean. Prints the mean Dice over the frames with
a nerve of each way, and its paired gain over the plain network with the 95 % interval by
subject; appends both to results.jsonl.

The mirrored prediction is weighted by agreement: its weight is one half times the Dice of
the two masks, so that a mirrored frame which shows something else changes nothing.
"""

from dataclasses import replace
from pathlib import Path

import measure
import numpy as np
import quality

from nerve import command
from nerve.frames.geometry import Geometry
from nerve.prediction import inference
from nerve.records import read_split, read_training_frames
from nerve.scoring import scores


def predict(weights, frames):
    """Return `(record, probabilities, those mirrored back)` of frames.

    The probabilities are float32 `(N, height, width)`.
    """
    model, trained = quality.load(weights)

    def run(frames):
        found = inference.predict_frames(model, frames, trained.inputs)
        return np.stack([each.probability for each in found])

    plain = run(iter(frames))
    return trained, plain, run(frame[:, ::-1] for frame in frames)[..., ::-1]


def by_agreement(one, other):
    """Return the mean of two maps, the other weighted by how far their masks agree."""
    weight = 0.5 * scores.dice(one >= 0.5, other >= 0.5)
    return (1 - weight) * one + weight * other


def score(probabilities, masks, names, trained):
    """Return `{frame: Dice}` of the frames with a nerve, at their own size."""
    found, limits = {}, replace(trained.limits, smallest_area=0.0)
    for name, mask, probability in zip(names, masks, probabilities, strict=True):
        if mask.any():
            size = trained.inputs.height, trained.inputs.width
            geometry = Geometry.of(mask.shape, size, trained.inputs.aspect, {})
            mine = inference.to_mask(probability, geometry, limits)
            found[name] = scores.dice(mask > 0, mine)
    return found


def measure_fold(work, row, fold, seeds):
    """Return `{way: {frame: Dice}}` of one fold."""
    data = quality.prepare(work, quality.data_flags(row), fold)
    extract, frames, masks = read_training_frames(data)
    rows, train = read_split(data).val.rows, extract.train
    frames, masks = frames[rows], masks[rows]
    names = [f"{train.subject[r]}_{train.image[r]}" for r in rows]
    plain = []
    for seed in seeds:
        weights = quality.weights_path(work, row, fold, seed)
        trained, maps, mirrored = predict(weights, frames)
        if not plain:
            pairs = list(zip(maps, mirrored, strict=True))
            ways = {
                "plain": maps,
                "mirrored alone": mirrored,
                "mean with mirrored": (maps + mirrored) / 2,
                "by agreement": [by_agreement(*pair) for pair in pairs],
            }
        plain.append(maps)
    if len(seeds) > 1:
        ways[f"mean of {len(seeds)} networks"] = np.mean(plain, axis=0)
    return {way: score(maps, masks, names, trained) for way, maps in ways.items()}


def parse_args(argv=None):
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--work", type=Path, default="quality", help="quality.py's working folder")
    add("--row", choices=quality.ROWS, default="modern", help="of quality.py")
    add("--folds", nargs="+", type=int, default=[0], help="of 0 to 4")
    add("--seeds", nargs="+", type=int, default=[0], help="each 0 or more")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    ways = {}
    for fold in args.folds:
        found = measure_fold(args.work.resolve(), args.row, fold, args.seeds)
        for way, dice in found.items():
            ways.setdefault(way, {}).update(dice)
    table = {}
    for way, dice in ways.items():
        table[way] = scores.mean(dice.values()), quality.gain(dice, ways["plain"])
        print(f"{way:24}{table[way][0]:>8.4f}  {table[way][1]}")
    settings = {"row": args.row, "folds": args.folds, "seeds": args.seeds}
    measure.keep("test_time", settings, table)


if __name__ == "__main__":
    main()
