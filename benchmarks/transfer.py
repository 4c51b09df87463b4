"""What weights made elsewhere are worth on few labelled frames; and phantoms on real ones.

    python benchmarks/transfer.py phantom --phantom raw --raw FOLDER

`phantom`: the recipe trained on phantoms alone, on those that show a nerve, on these with
the anatomy erased (each frame's blocks of 16 x 16 pixels shuffled, its mask left in place),
and on 5 real subjects with and without weights of the phantoms' nerves to start from,
scored on real frames.

Each run appends its per-frame Dice to transfer.jsonl and is not repeated; interrupted
trainings are resumed.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np
import quality

from nerve import command
from nerve.files import atomic
from nerve.files.arrays import ArrayWriter
from nerve.records import read_extract, read_split, to_dict
from nerve.scoring import scores
from preprocess import describe

RESULTS = quality.ROOT / "benchmarks" / "transfer.jsonl"
BLOCK = 16  # pixels, of the erased anatomy
REAL_SUBJECTS, DRAWS = 5, 3


def stem_of(*words):
    """Return words as a file's name: of a row without its commas and spaces."""
    return "_".join(" ".join(map(str, words)).replace(",", "").split())


def copy_data(source, out, rows, change=lambda x, rng: x):
    """Copy rows of preprocessed arrays to train on, scaled by their own mean and deviation.

    Args:
        source: Folder made with `--split none`.
        out: Folder to make.
        rows: Of the extract, int array.
        change: What to do to each training frame, float32 `(height, width)`.
    """
    if (out / "preprocess.json").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.*"):
        if path.name.startswith(("imgs_", "extract")):
            (out / path.name).unlink(missing_ok=True)
            (out / path.name).hardlink_to(path)
    split, train = read_split(source), read_extract(source).train
    x, y = (np.load(source / f"{n}_train.npy", mmap_mode="r")[rows] for n in "xy")
    rng = np.random.default_rng(0)
    x = np.stack([change(frame[..., 0], rng) for frame in x])[..., np.newaxis]
    mean, deviation = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    none = np.zeros((0, *x.shape[1:]), np.float32)
    arrays = {
        "x_train.npy": (x - mean) / deviation,
        "y_train.npy": y,
        "x_val.npy": none,
        "y_val.npy": none,
    }
    written = {}
    for name, array in arrays.items():
        writer = ArrayWriter(out / name, array.shape, np.float32)
        for frame in array:
            writer.append(frame)
        written[name] = writer.close()
    subjects, nerve = np.array(train.subject), np.array(train.area) > 0
    split = replace(
        split,
        mean=split.mean + split.standard_deviation * float(mean),
        standard_deviation=split.standard_deviation * float(deviation),
        split="none",
        train=describe(rows, subjects, nerve),
        val=describe(np.array([], int), subjects, nerve),
        arrays=written,
    )
    atomic.write_json(out / "preprocess.json", to_dict(split))
    return out


def erase(frame, rng):
    """Return a frame with its blocks shuffled: its greys and texture without anatomy."""
    height, width = (size // BLOCK * BLOCK for size in frame.shape)
    whole = frame[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = rng.permutation(whole.swapaxes(1, 2).reshape(-1, BLOCK, BLOCK))
    blocks = blocks.reshape(height // BLOCK, width // BLOCK, BLOCK, BLOCK)
    result = frame.copy()
    result[:height, :width] = blocks.swapaxes(1, 2).reshape(height, width)
    return result


def prepare_all(work, name, row, source):
    """Return a folder with all training frames of a source, preprocessed for a row.

    Args:
        work: Where.
        name: What the folder's name begins with.
        row: Key of quality.ROWS.
        source: Flags of extract_data.py.
    """
    flags = quality.data_flags(row)
    data = work / "_".join([name, *(flag.lstrip("-") for flag in flags)])
    if not (data / "preprocess.json").exists():
        python = sys.executable
        quality.cpu_seconds([python, "extract_data.py", *source, "--data", data])
        command = [python, "preprocess.py", "--data", data, *flags, "--split", "none"]
        quality.cpu_seconds(command)
    return data


def results():
    """Return the lines of the results file."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def measure_run(args, name, repeat, data, val_rows, init=None, epochs=None):
    """Train and score one run, unless its line stands there.

    Args:
        args: Of the command line.
        name: Of the line, with `repeat`.
        repeat: Number of the draw; also the seed.
        data: Folder of `copy_data`.
        val_rows: Of the extract, to score on, int array.
        init: Weights to start from.
        epochs: Epochs, unless the recipe's.
    """
    out = args.work / f"{stem_of(name, repeat, args.row)}.h5"
    if any((r["run"], r["repeat"]) == (name, repeat) for r in results()):
        return
    flags = ["--seed", repeat]
    pairs = ("--init", init), ("--epochs", epochs)
    flags += [word for flag, value in pairs if value for word in (flag, value)]
    seconds = quality.train_row(args.row, data, out, flags)
    dice = quality.score_fold(out, data, out.with_suffix(".npz"), val_rows)
    append_dice(name, repeat, seconds, dice)


def append_dice(name, repeat, seconds, dice):
    """Append a run's line: its CPU seconds, and `{"subject_image": Dice}`."""
    line = {"run": name, "repeat": repeat, "cpu_seconds": round(seconds, 1)}
    append(line | {"mean_dice": round(scores.mean(dice.values()), 4), "dice": dice})


def append(line):
    """Append a line of results, and print what it says."""
    line["machine"] = measure.machine()
    with open(RESULTS, "a") as file:
        file.write(json.dumps(line) + "\n")
    skipped = ("machine", "dice")
    print({key: value for key, value in line.items() if key not in skipped}, flush=True)


def run_phantom(args):
    """Train on phantoms, with and without anatomy; and on few subjects after them."""
    real = prepare_all(args.work, "real", args.row, ["--raw", args.raw])
    train = read_extract(real).train
    subjects, nerve = np.array(train.subject), np.array(train.area) > 0
    held_out = json.loads(quality.FOLDS.read_text())["0"]
    phantom = prepare_all(args.work, "phantom", args.row, ["--raw", args.phantom])
    weights = args.work / f"{stem_of('phantom', args.row)}.h5"
    seconds = quality.train_row(args.row, phantom, weights, ["--seed", 0])
    name = "phantom, empty frames too, on real"
    score_elsewhere(args, name, weights, seconds, real, nerve)
    rows = np.flatnonzero(
        read_extract(phantom).train.area
    )  # nearly all real frames show a nerve
    # the last ones, of nerves, are what few subjects start from
    for kind, change in (("erased", (erase,)), ("nerves", ())):
        stem = stem_of("phantom", kind, args.row)
        data = copy_data(phantom, args.work / stem, rows, *change)
        weights = args.work / f"{stem}.h5"
        seconds = quality.train_row(args.row, data, weights, ["--seed", 0])
        score_elsewhere(args, f"phantom {kind} on real", weights, seconds, real, nerve)
    others = np.setdiff1d(np.unique(subjects), held_out)
    val_rows = np.flatnonzero(np.isin(subjects, held_out) & nerve)
    for draw in range(DRAWS):
        chosen = np.random.default_rng(draw).permutation(others)[:REAL_SUBJECTS]
        rows = np.flatnonzero(np.isin(subjects, chosen))
        stem = stem_of("real5", draw, args.row)
        data = copy_data(real, args.work / stem, rows)
        flags = {"epochs": args.epochs}
        measure_run(args, "5 subjects", draw, data, val_rows, **flags)
        measure_run(
            args, "5 subjects after phantoms", draw, data, val_rows, weights, **flags
        )


def score_elsewhere(args, name, weights, seconds, other, chosen):
    """Score weights on chosen rows, a bool array, of another folder's extract."""
    if any(r["run"] == name for r in results()):
        return
    rows = np.flatnonzero(chosen)
    dice = quality.score_fold(weights, other, weights.with_suffix(".npz"), rows)
    append_dice(name, 0, seconds, dice)


def summarize():
    """Print the mean of each run's repeats."""
    print(f"{'run':32}{'repeats':>8}{'mean Dice':>11}{'CPU s':>8}  each repeat")
    lines = [line for line in results() if "mean_dice" in line]
    for name in dict.fromkeys(line["run"] for line in lines):
        mine = [line for line in lines if line["run"] == name]
        values = [line["mean_dice"] for line in mine]
        seconds = np.mean([line["cpu_seconds"] for line in mine])
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"{name:32}{len(mine):>8}{np.mean(values):>11.4f}{seconds:>8.0f}  {each}")


def parse_args(argv=None):
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("what", choices=("phantom", "table"), help="what to run")
    add("--phantom", type=Path, default="raw", help="phantom.py's folder")
    add("--raw", type=Path, default="real", help="the challenge's folder")
    add("--work", type=Path, default="transfer", help="folder for arrays and weights")
    add("--row", choices=quality.ROWS, default="modern", help="recipe, of quality.py")
    add("--epochs", type=int, default=100, help="of trainings on few frames")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    for name in ("work", "phantom", "raw"):
        setattr(args, name, getattr(args, name).resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    if args.what != "table":
        run_phantom(args)
    summarize()


if __name__ == "__main__":
    main()
