"""How hard phantoms are, and how surely the presence of a nerve is told on them.

    python benchmarks/presence.py presence --phantom raw --raw FOLDER
    python benchmarks/presence.py difficulty --phantom raw --raw FOLDER --row classic

`presence`: trained on phantoms, scored on the phantom's test subjects, nearly half of whose
frames show no nerve; and on originals of the challenge. `difficulty`: trained on the
phantom's frames with a nerve, scored on those of its test subjects; and the same of as many
real subjects, scored on two folds of others.

Each run appends a line to transfer.jsonl and is not repeated; interrupted trainings are
resumed.
"""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import quality
import transfer
from scipy.optimize import minimize
from scipy.stats import rankdata

from nerve import command
from nerve.files import run_length
from nerve.prediction import inference
from nerve.records import read_extract, read_training_frames
from nerve.scoring import scores

HISTOGRAM = 32  # bins
DIFFICULTY_FOLDS = (0, 1)
# frames at hand as the challenge published them, with and without a nerve
ORIGINALS = (*((1, image) for image in range(1, 51)), (10, 100))


def area_under_curve(values, positive):
    """Return the area under the ROC curve, from ranks (Mann and Whitney)."""
    ranks, count = rankdata(values), int(positive.sum())
    wins = ranks[positive].sum() - count * (count + 1) / 2
    return float(wins / (count * (len(positive) - count)))


def histogram_scores(train, labels, test):
    """Fit a logistic regression to grey histograms, with a weak penalty; score `test`."""
    train, test = (
        np.array([np.histogram(f, HISTOGRAM, (0, 256))[0] / f.size for f in frames])
        for frames in (train, test)
    )
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-9
    train, test = (train - mean) / deviation, (test - mean) / deviation
    signs = np.where(labels, 1, -1)

    def loss(weights):
        margin = signs * (train @ weights[1:] + weights[0])
        return np.logaddexp(0, -margin).mean() + 0.01 * (weights[1:] ** 2).sum()

    start = np.zeros(train.shape[1] + 1)
    best = minimize(loss, start, method="L-BFGS-B").x
    return test @ best[1:] + best[0]


def originals(data):
    """Return the frames of ORIGINALS in a folder, and whether they show a nerve."""
    extract, frames, _ = read_training_frames(data)
    names = list(zip(extract.train.subject, extract.train.image, strict=True))
    rows = [names.index(name) for name in ORIGINALS]
    return frames[rows], np.array(extract.train.area)[rows] > 0


def read_truth(folder):
    """Return subjects, masks and presence, a bool array, of a phantom's test frames."""
    with open(folder / "test_truth.csv", newline="") as file:
        truth = list(csv.DictReader(file))
    masks = [run_length.decode(row["pixels"]) for row in truth]
    nerve = np.array([bool(row["pixels"]) for row in truth])
    return [int(row["subject"]) for row in truth], masks, nerve


def train_phantom(args, row):
    """Train a row's recipe on the phantom; return weights, their data, CPU seconds."""
    data = transfer.prepare_all(args.work, "phantom", row, ["--raw", args.phantom])
    out = args.work / f"{transfer.stem_of('phantom', row)}.h5"
    return out, data, quality.train_row(row, data, out, ["--seed", 0])


def how_sure(predictions):
    """Return the presence of each prediction, a float array."""
    return np.array([inference.presence(found.probability) for found in predictions])


def run_presence(args):
    """Score presence on the phantom's test subjects, for the row and for classic."""
    subjects, masks, nerve = read_truth(args.phantom)
    for row in dict.fromkeys((args.row, "classic")):
        name = f"presence, {row}"
        if any(r["run"] == name for r in transfer.results()):
            continue
        out, data, seconds = train_phantom(args, row)
        model, trained = quality.load(out)
        frames = np.load(data / "imgs_test.npy", mmap_mode="r")
        predictions = inference.predict_frames(model, frames, trained.inputs)
        found = list(inference.find_masks(predictions, trained.limits))
        pairs = zip(masks, found, strict=True)
        rows = [scores.frame_scores(mask, each.mask) for mask, each in pairs]
        line = {"run": name, "repeat": 0, "cpu_seconds": round(seconds, 1)}
        line["summary"] = scores.summarize(rows, subjects)
        line["presence_auc"] = round(area_under_curve(how_sure(found), nerve), 4)
        data = transfer.prepare_all(args.work, "real", row, ["--raw", args.raw])
        frames, shown = originals(data)
        sure = how_sure(inference.predict_frames(model, frames, trained.inputs))
        line["originals_auc"] = round(area_under_curve(sure, shown), 4)
        transfer.append(line)
    if not any(r["run"] == "presence, histogram" for r in transfer.results()):
        data = transfer.prepare_all(args.work, "phantom", args.row, ["--raw", args.phantom])
        extract, frames, _ = read_training_frames(data)
        labels = np.array(extract.train.area) > 0
        test = np.load(data / "imgs_test.npy", mmap_mode="r")
        value = area_under_curve(histogram_scores(frames, labels, test), nerve)
        transfer.append(
            {"run": "presence, histogram", "repeat": 0, "presence_auc": round(value, 4)}
        )


def run_difficulty(args):
    """Train on frames with a nerve of as many phantom as real subjects."""
    phantom = transfer.prepare_all(args.work, "phantom", args.row, ["--raw", args.phantom])
    train = read_extract(phantom).train
    count = len(set(train.subject))
    run = f"{args.row}, {count} phantom subjects"
    if not any(r["run"] == run for r in transfer.results()):
        rows = np.flatnonzero(train.area)
        stem = transfer.stem_of("difficulty phantom", args.row, count)
        data = transfer.copy_data(phantom, args.work / stem, rows)
        out = args.work / f"{stem}.h5"
        seconds = quality.train_row(args.row, data, out, ["--seed", 0])
        model, trained = quality.load(out)
        limits = replace(trained.limits, smallest_area=0.0)
        frames = np.load(phantom / "imgs_test.npy", mmap_mode="r")
        predictions = inference.predict_frames(model, frames, trained.inputs)
        results, dice = inference.find_masks(predictions, limits), {}
        truth = zip(*read_truth(args.phantom), results, strict=True)
        for image, (subject, mask, nerve, found) in enumerate(truth, 1):
            if nerve:
                dice[f"{subject}_{image}"] = round(scores.dice(mask, found.mask), 4)
        transfer.append_dice(run, 0, seconds, dice)
    real = transfer.prepare_all(args.work, "real", args.row, ["--raw", args.raw])
    train = read_extract(real).train
    subjects, nerve = np.array(train.subject), np.array(train.area) > 0
    for fold in DIFFICULTY_FOLDS:
        held_out = json.loads(quality.FOLDS.read_text())[str(fold)]
        others = np.setdiff1d(np.unique(subjects), held_out)
        chosen = np.random.default_rng(0).permutation(others)[:count]
        rows, val_rows = (
            np.flatnonzero(np.isin(subjects, part) & nerve) for part in (chosen, held_out)
        )
        stem = transfer.stem_of("difficulty", fold, args.row, count)
        data = transfer.copy_data(real, args.work / stem, rows)
        transfer.measure_run(
            args, f"{args.row}, {count} real subjects", fold, data, val_rows
        )


def summarize():
    """Print what stands in the results of presence; transfer.py prints the others."""
    for line in transfer.results():
        if "presence_auc" in line:
            values = [f"{key} {line[key]:.3f}" for key in line if key.endswith("auc")]
            summary = line.get("summary", {})
            names = ("challenge_dice", "predicting_nothing", "nerve_dice")
            values += [f"{name} {summary[name]:.3f}" for name in names if summary]
            print(f"{line['run']}: {', '.join(values)}")


def parse_args(argv=None):
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("what", choices=("presence", "difficulty", "table"), help="what to run")
    add("--phantom", type=Path, default="raw", help="phantom.py's folder")
    add("--raw", type=Path, default="real", help="the challenge's folder")
    add("--work", type=Path, default="presence", help="folder for arrays and weights")
    add("--row", choices=quality.ROWS, default="modern", help="recipe, of quality.py")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    for name in ("work", "phantom", "raw"):
        setattr(args, name, getattr(args, name).resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    if args.what != "table":
        {"presence": run_presence, "difficulty": run_difficulty}[args.what](args)
    transfer.summarize()
    summarize()


if __name__ == "__main__":
    main()
