"""Outlines of every twentieth frame of a sweep carried to all frames, on phantoms.

    python benchmarks/keyframes.py --weights weights/unet_nerve.h5

Renders sweeps of subjects that no phantom data set uses, and outlines of them by one person
whose habits stay the same in a sweep. Every twentieth outline is a keyframe; prints Dice of
the frames between them, all and those with a nerve: as `predict.py --keyframes` does it; by
interpolation of the outlines alone (their signed distances, blended); and by the network
alone. Also the Dice between neighbours, as one knows how far a frame is from the next.
"""

import itertools
import sys
from pathlib import Path

import measure
import video

sys.path.insert(0, str(measure.ROOT))

from nerve.prediction import inference, keyframes
from nerve.prediction.own_predictions import SMOOTHING
from nerve.scoring import scores

COLUMNS = {
    "between": ("all between", ".4f"),
    "nerve": ("with a nerve", ".4f"),
    "both": ("nerve in both keyframes", ".4f"),
}


class Truth:
    """Stands for a folder of outlines: every so many frames, and the last one."""

    def __init__(self, masks, every):
        self.masks, last = masks, len(masks)
        self.paths = dict.fromkeys([*range(1, last, every), last])
        self.numbers = set(self.paths)

    def read(self, number, _):
        if number in self.paths:
            del self.paths[number]
            return self.masks[number - 1]
        return None

    def finish(self, _):
        pass


def interpolate(masks, numbers):
    """Return masks that are blended from those of the nearest numbers, from 1."""
    found, numbers = masks.copy(), sorted(numbers)
    for first, last in itertools.pairwise(numbers):
        one, two = masks[first - 1], masks[last - 1]
        for number in range(first + 1, last):
            share = (number - first) / (last - first)
            if one.any() and two.any():
                distances = map(keyframes.signed_distance, (one, two))
                mixed = (1 - share) * next(distances) + share * next(distances)
                found[number - 1] = mixed > 0
            else:
                found[number - 1] = one if share < 0.5 else two
    return found


def score(truth, found, numbers):
    """Return Dice of each frame between keyframes, `{column: list}`."""
    values = {name: [] for name in COLUMNS}
    for first, last in itertools.pairwise(sorted(numbers)):
        both = truth[first - 1].any() and truth[last - 1].any()
        for k in range(first, last - 1):
            dice = scores.dice(truth[k], found[k])
            values["between"].append(dice)
            if truth[k].any():
                values["nerve"].append(dice)
            if both:
                values["both"].append(dice)
    return values


def main(argv=None):
    parser = measure.start_parser(__doc__, 1)
    add = parser.add_argument
    add("--weights", type=Path, default="weights/unet_nerve.h5")
    add("--subjects", type=int, default=6)
    add("--first", type=int, default=6001, help="number of the first subject")
    add("--frames", type=int, default=100, help="of each sweep")
    add("--every", type=int, default=20, help="frames from one keyframe to the next")
    add("--seed", type=int, default=7)
    args = parser.parse_args(argv)
    model, trained = video.load(args.weights)
    model, rows = inference.as_used(model, trained), {}
    how = args.subjects, args.frames, args.first, 0.5, args.seed
    for frames, masks in video.make_sweeps(*how, one_habit=True):
        found = inference.predict_frames(model, frames, trained.inputs, True)
        found = inference.find_masks(inference.smooth(found, SMOOTHING), trained.limits)
        found, truth = list(found), Truth(masks, args.every)
        carried = [each.mask for each in keyframes.apply(found, truth)]
        ways = {
            "keyframes": carried,
            "interpolation": interpolate(masks, truth.numbers),
            "network alone": [each.mask for each in found],
            "the frame before": [masks[0], *masks[:-1]],
        }
        for name, way in ways.items():
            row = rows.setdefault(name, {column: [] for column in COLUMNS})
            for column, values in score(masks, way, truth.numbers).items():
                row[column] += values
    rows = {name: {c: scores.mean(v) for c, v in row.items()} for name, row in rows.items()}
    measure.print_table(f"every {args.every} of {args.frames} frames", rows, COLUMNS)
    names = ("subjects", "frames", "every", "first", "seed")
    measure.keep(
        "keyframes", {name: getattr(args, name) for name in names}, rows, args.results
    )


if __name__ == "__main__":
    main()
