"""What a network gains from learning half of its labels from networks before it.

    python benchmarks/distill.py --work quality --folds 0 --seeds 0 1 2

The teachers are quality.py's networks of a row and fold, of these seeds; they have seen the
training frames alone. Each training mask becomes the mean of itself and of the teachers'
mean probability, of the frame and of its mirror image. The network that learns from them
has the row's recipe and the first seed; its scores are appended to quality.jsonl as a row
of their own.
"""

import argparse
import json
import os
from pathlib import Path

import measure
import numpy as np
import quality

import scores
import stage
import trained

BATCH = 32


def teach(paths, x):
    """Return the mean probability of networks on scaled frames and their mirror images.

    Args:
        paths: The networks' .h5 files.
        x: float32 array `(N, height, width, 1)`.

    Returns:
        float32 array of the same shape, in [0, 1].
    """
    total = np.zeros(x.shape, np.float32)
    for path in paths:
        model = trained.load_network(path, trained.read_settings(path, None))
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            total[part] += np.asarray(model.predict_on_batch(x[part]))
            mirrored = np.asarray(model.predict_on_batch(x[part, :, ::-1]))
            total[part] += mirrored[:, :, ::-1]
    return total / (2 * len(paths))


def mix_labels(data, out, paths):
    """Copy preprocessed arrays, with half of each training mask taken from teachers."""
    if (out / "preprocess.json").exists():
        return
    out.mkdir(exist_ok=True)
    for path in data.glob("*.*"):
        if path.name not in ("preprocess.json", "y_train.npy"):
            (out / path.name).unlink(missing_ok=True)
            os.link(path, out / path.name)
    record = stage.read_record(data / "preprocess.json", "-")
    x, y = (np.load(data / f"{n}_train.npy", mmap_mode="r") for n in "xy")
    writer = stage.ArrayWriter(out / "y_train.npy", y.shape, np.float32)
    for label, probability in zip(y, teach(paths, x), strict=True):
        writer.append((label + probability) / 2)
    record["arrays"]["y_train.npy"] = writer.close()
    stage.publish(out / "preprocess.json", record, [out / "y_train.npy"])


def run(work, row, fold, seeds):
    """Train and score one fold; return its line of the results, or the one there is."""
    _, _, flags, _ = quality.row_recipe(row)
    data = quality.prepare(work, flags, fold)
    name = f"{row}, distilled from {len(seeds)}"
    for line in quality.read_results():
        if (line["row"], line["fold"], line["seed"]) == (name, fold, seeds[0]):
            return line
    out = quality.weights_path(work, name, fold, seeds[0])
    mixed = out.with_suffix("")
    paths = [quality.weights_path(work, row, fold, seed) for seed in seeds]
    mix_labels(data, mixed, paths)
    seconds = quality.train_row(row, mixed, out, ["--seed", seeds[0]])
    dice = quality.score_fold(out, data, out.with_suffix(".npz"))
    return {
        "row": name,
        "fold": fold,
        "seed": seeds[0],
        "cpu_seconds": round(seconds, 1),  # its own, without the teachers'
        "mean_dice": round(scores.mean(dice.values()), 4),
        "machine": measure.machine(),
        "dice": dice,
    }


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--work", type=Path, default="quality", help="quality.py's working folder")
    add("--row", choices=quality.ROWS, default="modern", help="of quality.py")
    add("--folds", nargs="+", type=int, default=[0], help="of 0 to 4")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="the teachers'")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    for fold in args.folds:
        line = run(args.work.resolve(), args.row, fold, args.seeds)
        if line not in quality.read_results():
            with open(quality.RESULTS, "a") as file:
                file.write(json.dumps(line) + "\n")
        print(f"{line['row']}, fold {fold}: {line['mean_dice']:.4f}")


if __name__ == "__main__":
    main()
