"""What smoothing a video's probabilities over time does, on sweeps of phantoms.

    python benchmarks/video.py --weights demo/weights/unet.h5

Renders sweeps of subjects that no phantom data set uses, frame after frame, and predicts
them with several shares of the frames before (`predict.py --smoothing`). Prints, for each,
the challenge's Dice, Dice over frames with a nerve, and the flicker: 1 - Dice between the
masks of neighbouring frames, the mean over those of which one is not empty.
"""

import itertools
import sys
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from model import build_network
from nerve import machine
from nerve.phantom.anatomy import draw_mask
from nerve.phantom.scanner import make_subject, render
from nerve.phantom.sweep import plan_subjects
from nerve.precision import choose_precision
from nerve.prediction import inference, networks
from nerve.scoring import clips, scores

FIRST_SUBJECT, SUBJECTS, FRAMES = 5001, 6, 100  # of each subject
SHARES = (0.0, 0.3, 0.5, 0.7, 0.85)
SEED = 7


def load(weights):
    """Return `(network, record)` of trained weights, in the machine's precision."""
    trained = networks.read_trained(weights)
    precision, _ = choose_precision("auto")
    return networks.load_network(build_network, weights, trained, precision), trained


def make_sweeps(
    subjects, frames, first=FIRST_SUBJECT, share=0.5, seed=SEED, one_habit=False
):
    """Yield `(frames, masks)` of each subject in the order of its sweep, uint8 arrays.

    Args:
        subjects: How many; numbered from `first`.
        frames: Of each.
        share: Of all frames, that show a nerve.
        one_habit: Whether all masks of a sweep are drawn by the same chance, and so with
            the same habits, instead of each by its own.
    """
    plan = plan_subjects(subjects * frames, subjects, first, share, seed)

    def make(frame):
        subject = make_subject(seed, frame.subject)
        image = render(subject, frame.sweep, frame.visibility)
        drawn = frame._replace(image=0) if one_habit else frame
        return image, draw_mask(subject, drawn, seed) // 255

    plan = sorted(plan, key=lambda frame: (frame.subject, frame.sweep))
    for _, sweep in itertools.groupby(plan, key=lambda frame: frame.subject):
        yield tuple(map(np.stack, zip(*machine.map_threads(make, sweep), strict=True)))


def main(argv=None):
    parser = measure.start_parser(__doc__, 1)
    parser.add_argument("--weights", type=Path, default="weights/unet.h5")
    args = parser.parse_args(argv)
    model, trained = load(args.weights)
    found = {share: {"dice": [], "nerve": [], "flicker": []} for share in SHARES}
    for frames, masks in make_sweeps(SUBJECTS, FRAMES):
        for share, values in found.items():
            predictions = inference.predict_frames(model, frames, trained.inputs)
            smoothed = inference.smooth(predictions, share)
            results = inference.find_masks(smoothed, trained.limits)
            predicted = [each.mask for each in results]
            dice = [scores.dice(t, p) for t, p in zip(masks, predicted, strict=True)]
            values["dice"] += dice
            values["nerve"] += [d for d, t in zip(dice, masks, strict=True) if t.any()]
            values["flicker"] += clips.flicker(predicted)
    rows = {
        f"{share:g}": {n: scores.mean(v) for n, v in f.items()}
        for share, f in found.items()
    }
    print(f"{'smoothing':>10}{'challenge':>11}{'nerve Dice':>12}{'flicker':>9}")
    for share, row in rows.items():
        texts = ["-" if v is None else f"{v:.4f}" for v in row.values()]
        print(f"{share:>10}{texts[0]:>11}{texts[1]:>12}{texts[2]:>9}")
    settings = {"subjects": SUBJECTS, "frames": FRAMES}
    measure.keep("video", settings, rows, args.results)


if __name__ == "__main__":
    main()
