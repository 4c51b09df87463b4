"""Clips scored as wholes, as `evaluate.py --by clip` does, on sweeps of phantoms.

    python benchmarks/clip_scores.py --weights weights/unet_nerve.h5

Renders sweeps of subjects that no phantom data set uses, as many in which a nerve comes
into sight as without one, and predicts them as predict.py does a video. Prints the scores
for each overlap from which on a nerve counts as found.
"""

import sys
from pathlib import Path

import measure
import numpy as np
import video

sys.path.insert(0, str(measure.ROOT))

from tqdm import tqdm

from nerve.prediction import inference
from nerve.prediction.own_predictions import SMOOTHING
from nerve.scoring import clips, scores

SUBJECTS, FRAMES = 60, 40  # sweeps, half of them without a nerve; frames of each
OVERLAPS = (clips.OVERLAP, 0.3)


def make_clips():
    """Yield `(frames, masks)` of each sweep, those with a nerve first, uint8 arrays."""
    half, first = SUBJECTS // 2, video.FIRST_SUBJECT
    yield from video.make_sweeps(SUBJECTS - half, FRAMES, first, 0.5)
    yield from video.make_sweeps(half, FRAMES, first + SUBJECTS - half, 0.0)


def main(argv=None):
    parser = measure.start_parser(__doc__, 1)
    parser.add_argument("--weights", type=Path, default="weights/unet.h5")
    args = parser.parse_args(argv)
    model, trained = video.load(args.weights)
    model, rows, flicker = inference.as_used(model, trained), {}, {"found": [], "true": []}
    for k, (frames, masks) in enumerate(tqdm(make_clips(), "sweeps", SUBJECTS)):
        predictions = inference.predict_frames(model, frames, trained.inputs)
        smoothed = inference.smooth(predictions, SMOOTHING)
        found = inference.find_masks(smoothed, trained.limits)
        predicted = np.stack([each.mask for each in found])
        pairs = zip(masks, predicted, strict=True)
        rows[k] = [scores.frame_scores(*pair) for pair in pairs]
        flicker["found"] += clips.flicker(predicted)
        flicker["true"] += clips.flicker(masks)
    results = {f"{overlap:g}": clips.summarize(rows, overlap) for overlap in OVERLAPS}
    for summary in results.values():
        summary["flicker"] = scores.mean(flicker["found"])
        summary["flicker_truth"] = scores.mean(flicker["true"])
        print(f"{scores.format_table(summary)}\n")
    settings = {"weights": args.weights.name, "subjects": SUBJECTS, "frames": FRAMES}
    measure.keep("clip_scores", settings, results, args.results)


if __name__ == "__main__":
    main()
