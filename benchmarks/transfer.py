"""What weights made elsewhere are worth on few labelled frames; and phantoms on real ones.

    python benchmarks/transfer.py phantom --phantom raw --raw FOLDER
    python benchmarks/transfer.py presence --phantom raw --raw FOLDER
    python benchmarks/transfer.py difficulty --phantom raw --raw FOLDER --row classic
    python benchmarks/transfer.py usgra --usgra FOLDER --init weights/unet_nerve.h5

`phantom`: the recipe trained on phantoms alone, on those that show a nerve, on these with
the anatomy erased (each frame's blocks of 16 x 16 pixels shuffled, its mask left in place),
and on 5 real subjects with and without weights of the phantoms' nerves to start from,
scored on real frames. `presence`: trained on phantoms, scored on the phantom's test
subjects, nearly half of whose frames show no nerve; and on originals of the challenge.
`difficulty`: trained on the phantom's frames with a nerve, scored on those of its test
subjects; and the same of as many real subjects, scored on two folds of others.
`usgra`: nerves of another collection from 30 of its frames, with and without weights to
start from.

Each run appends its per-frame Dice to transfer.jsonl and is not repeated; interrupted
trainings are resumed.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import measure
import numpy as np
import quality
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata

import agreement
import inference
import run_length
import scores
import stage
import trained

RESULTS = quality.ROOT / "benchmarks" / "transfer.jsonl"
BLOCK = 16  # pixels, of the erased anatomy
REAL_SUBJECTS, DRAWS = 5, 3
DIFFICULTY_FOLDS = (0, 1)
USGRA_FRAMES, USGRA_REPEATS, NEAR = 30, 5, 0.9  # correlation that makes one sweep
HISTOGRAM = 32  # bins
# frames at hand as the challenge published them, with and without a nerve
ORIGINALS = (*((1, image) for image in range(1, 51)), (10, 100))


def copy_data(source, out, rows, val_rows, change=lambda x, rng: x):
    """Copy some rows of preprocessed arrays, scaled anew by their own mean and deviation.

    Args:
        source: Folder made with `--split none`.
        out: Folder to make.
        rows: Rows of the extract to train on.
        val_rows: Rows of the extract to score on.
        change: What to do to each training frame, float32 `(height, width)`.
    """
    if (out / "preprocess.json").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.*"):
        if path.name.startswith(("imgs_", "extract")):
            (out / path.name).unlink(missing_ok=True)
            (out / path.name).hardlink_to(path)
    record = stage.read_record(source / "preprocess.json", "-")
    x, y = (np.load(source / f"{n}_train.npy", mmap_mode="r")[rows] for n in "xy")
    rng = np.random.default_rng(0)
    x = np.stack([change(frame[..., 0], rng) for frame in x])[..., np.newaxis]
    mean, deviation = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    arrays = {"x_train": (x - mean) / deviation, "y_train": y}
    record["mean"] += record["standard_deviation"] * float(mean)
    record["standard_deviation"] *= float(deviation)
    extract = stage.read_record(out / "extract.json", "-")["train"]
    areas = np.array(extract["area"])
    for part, chosen in (("train", rows), ("val", val_rows)):
        subject = [extract["subject"][row] for row in chosen]
        record[part] = {
            "subjects": sorted(set(subject)),
            "rows": [int(row) for row in chosen],
            "subject": subject,
            "with_nerve": int((areas[chosen] > 0).sum()) if len(chosen) else 0,
        }
    empty = np.zeros((0, *x.shape[1:]), np.float32)
    arrays |= {
        "x_val": empty,
        "y_val": empty,
    }  # scored at their own size, by score_fold
    for name, array in arrays.items():
        writer = stage.ArrayWriter(out / f"{name}.npy", array.shape, np.float32)
        for frame in array:
            writer.append(frame.astype(np.float32))
        record["arrays"][f"{name}.npy"] = writer.close()
    record["split"] = "none"  # of what train.py sees
    paths = [out / f"{name}.npy" for name in arrays]
    stage.publish(out / "preprocess.json", record, paths)
    return out


def erase(frame, rng):
    """Return a frame with its blocks shuffled: its greys and texture without anatomy."""
    height, width = (size // BLOCK * BLOCK for size in frame.shape)
    whole = frame[:height, :width].reshape(
        height // BLOCK, BLOCK, width // BLOCK, BLOCK
    )
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
    _, _, flags, _ = quality.row_recipe(row)
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


def measure_run(args, name, repeat, data, init=None, epochs=None, rate=None):
    """Train and score one run unless its line stands there; return its weights.

    Args:
        args: Of the command line.
        name: Of the line, with `repeat`.
        repeat: Number of the draw; also the seed.
        data: Folder of `copy_data`.
        init: Weights to start from.
        epochs: Epochs, unless the recipe's.
        rate: Learning rate, unless the recipe's.
    """
    stem = "_".join(f"{name} {repeat}".replace(",", "").split())
    out = args.work / f"{stem}.h5"
    if any((r["run"], r["repeat"]) == (name, repeat) for r in results()):
        return out
    flags = ["--seed", repeat]
    pairs = ("--init", init), ("--epochs", epochs), ("--learning-rate", rate)
    flags += [word for flag, value in pairs if value for word in (flag, value)]
    seconds = quality.train_row(args.row, data, out, flags)
    line = {"run": name, "repeat": repeat, "cpu_seconds": round(seconds, 1)}
    if stage.read_record(data / "preprocess.json", "-")["val"]["rows"]:
        dice = quality.score_fold(out, data, out.with_suffix(".npz"))
        line |= {"mean_dice": round(scores.mean(dice.values()), 4), "dice": dice}
    append(line)
    return out


def append(line):
    """Append a line of results, and print what it says."""
    line["machine"] = measure.machine()
    with open(RESULTS, "a") as file:
        file.write(json.dumps(line) + "\n")
    skipped = ("machine", "dice")
    print({key: value for key, value in line.items() if key not in skipped}, flush=True)


def train_phantom(args, row):
    """Train a row's recipe on the phantom; return weights, their data, CPU seconds."""
    data = prepare_all(args.work, "phantom", row, ["--raw", args.phantom])
    out = args.work / f"phantom_{'_'.join(row.replace(',', '').split())}.h5"
    return out, data, quality.train_row(row, data, out, ["--seed", 0])


def run_phantom(args):
    """Train on phantoms, with and without anatomy; and on few subjects after them."""
    real = prepare_all(args.work, "real", args.row, ["--raw", args.raw])
    train = stage.read_record(real / "extract.json", "-")["train"]
    subjects, nerve = np.array(train["subject"]), np.array(train["area"]) > 0
    held_out = json.loads(quality.FOLDS.read_text())["0"]
    weights, phantom, seconds = train_phantom(args, args.row)
    name = "phantom, empty frames too, on real"
    score_elsewhere(args, name, weights, seconds, real, nerve)
    areas = stage.read_record(phantom / "extract.json", "-")["train"]["area"]
    rows = np.flatnonzero(areas)  # nearly all real frames show a nerve
    # the last ones, of nerves, are what few subjects start from
    for kind, change in (("erased", (erase,)), ("nerves", ())):
        data = copy_data(phantom, args.work / f"phantom_{kind}", rows, [], *change)
        weights = args.work / f"phantom_{kind}.h5"
        seconds = quality.train_row(args.row, data, weights, ["--seed", 0])
        score_elsewhere(args, f"phantom {kind} on real", weights, seconds, real, nerve)
    others = np.setdiff1d(np.unique(subjects), held_out)
    val_rows = np.flatnonzero(np.isin(subjects, held_out) & nerve)
    for draw in range(DRAWS):
        chosen = np.random.default_rng(draw).permutation(others)[:REAL_SUBJECTS]
        rows = np.flatnonzero(np.isin(subjects, chosen))
        data = copy_data(real, args.work / f"real5_{draw}", rows, val_rows)
        flags = {"epochs": args.epochs}
        measure_run(args, "5 subjects", draw, data, **flags)
        measure_run(args, "5 subjects after phantoms", draw, data, weights, **flags)


def score_elsewhere(args, name, weights, seconds, other, chosen):
    """Score weights on chosen rows, a bool array, of another folder's extract."""
    if any(r["run"] == name for r in results()):
        return
    rows = np.flatnonzero(chosen)
    split = copy_data(other, args.work / f"{weights.stem}_val", rows[:1], rows)
    dice = quality.score_fold(weights, split, weights.with_suffix(".npz"))
    line = {"run": name, "repeat": 0, "cpu_seconds": round(seconds, 1)}
    append(line | {"mean_dice": round(scores.mean(dice.values()), 4), "dice": dice})


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
    record, frames, _ = quality.read_extract(data)
    train = record["train"]
    names = list(zip(train["subject"], train["image"], strict=True))
    rows = [names.index(name) for name in ORIGINALS]
    return frames[rows], np.array(train["area"])[rows] > 0


def read_truth(folder):
    """Return subjects, masks and presence, a bool array, of a phantom's test frames."""
    with open(folder / "test_truth.csv", newline="") as file:
        truth = list(csv.DictReader(file))
    masks = [run_length.decode(row["pixels"]) for row in truth]
    nerve = np.array([bool(row["pixels"]) for row in truth])
    return [int(row["subject"]) for row in truth], masks, nerve


def run_presence(args):
    """Score presence on the phantom's test subjects, for the row and for classic."""
    subjects, masks, nerve = read_truth(args.phantom)
    for row in dict.fromkeys((args.row, "classic")):
        name = f"presence, {row}"
        if any(r["run"] == name for r in results()):
            continue
        out, data, seconds = train_phantom(args, row)
        settings = trained.read_settings(out, None)
        model = trained.load_network(out, settings)
        frames = np.load(data / "imgs_test.npy", mmap_mode="r")
        found = list(inference.find_masks(model, frames, settings))
        rows = [scores.frame_scores(m, f[2]) for m, f in zip(masks, found, strict=True)]
        line = {"run": name, "repeat": 0, "cpu_seconds": round(seconds, 1)}
        line["summary"] = scores.summarize(rows, subjects)
        sure = np.array([inference.presence(f[1]) for f in found])
        line["presence_auc"] = round(area_under_curve(sure, nerve), 4)
        frames, shown = originals(
            prepare_all(args.work, "real", row, ["--raw", args.raw])
        )
        sure = [
            inference.presence(p)
            for p in inference.predict_frames(model, frames, settings)
        ]
        line["originals_auc"] = round(area_under_curve(np.array(sure), shown), 4)
        append(line)
    if not any(r["run"] == "presence, histogram" for r in results()):
        data = prepare_all(args.work, "phantom", args.row, ["--raw", args.phantom])
        record, frames, _ = quality.read_extract(data)
        labels = np.array(record["train"]["area"]) > 0
        test = np.load(data / "imgs_test.npy", mmap_mode="r")
        value = area_under_curve(histogram_scores(frames, labels, test), nerve)
        append(
            {"run": "presence, histogram", "repeat": 0, "presence_auc": round(value, 4)}
        )


def run_difficulty(args):
    """Train on frames with a nerve of as many phantom as real subjects."""
    phantom = prepare_all(args.work, "phantom", args.row, ["--raw", args.phantom])
    train = stage.read_record(phantom / "extract.json", "-")["train"]
    count = len(set(train["subject"]))
    run = f"{args.row}, {count} phantom subjects"
    if not any(r["run"] == run for r in results()):
        rows = np.flatnonzero(train["area"])
        data = copy_data(phantom, args.work / "difficulty_phantom", rows, [])
        out = args.work / "difficulty_phantom.h5"
        seconds = quality.train_row(args.row, data, out, ["--seed", 0])
        settings = {**trained.read_settings(out, None), "smallest_area": 0.0}
        model = trained.load_network(out, settings)
        frames = np.load(phantom / "imgs_test.npy", mmap_mode="r")
        dice = {}
        found = inference.find_masks(model, frames, settings)
        truth = zip(*read_truth(args.phantom), found, strict=True)
        for image, (subject, mask, nerve, result) in enumerate(truth, 1):
            if nerve:
                dice[f"{subject}_{image}"] = round(scores.dice(mask, result[2]), 4)
        line = {"run": run, "repeat": 0, "cpu_seconds": round(seconds, 1)}
        append(line | {"mean_dice": round(scores.mean(dice.values()), 4), "dice": dice})
    real = prepare_all(args.work, "real", args.row, ["--raw", args.raw])
    train = stage.read_record(real / "extract.json", "-")["train"]
    subjects, nerve = np.array(train["subject"]), np.array(train["area"]) > 0
    for fold in DIFFICULTY_FOLDS:
        held_out = json.loads(quality.FOLDS.read_text())[str(fold)]
        others = np.setdiff1d(np.unique(subjects), held_out)
        chosen = np.random.default_rng(0).permutation(others)[:count]
        rows, val_rows = (
            np.flatnonzero(np.isin(subjects, part) & nerve)
            for part in (chosen, held_out)
        )
        data = copy_data(real, args.work / f"difficulty_{fold}", rows, val_rows)
        measure_run(args, f"{args.row}, {count} real subjects", fold, data)


def find_sweeps(frames):
    """Return a number for each frame, shared by near-identical ones, int array `(N,)`."""
    near = agreement.find_near_identical(frames, np.zeros(len(frames), int), NEAR)
    linked = np.zeros((len(frames), len(frames)), bool)
    for row, others in enumerate(near):
        linked[row, list(others)] = True
    return connected_components(linked, directed=False)[1]


def run_usgra(args):
    """Learn the nerves of another collection from few of its frames."""
    folders = [f"--{n}={args.usgra / n}" for n in ("images", "masks")]
    data = prepare_all(args.work, "usgra", args.row, [*folders, "--label", "1"])
    subjects = find_sweeps(np.load(data / "imgs_train.npy"))
    parts = []
    for repeat in range(USGRA_REPEATS):
        order = np.random.default_rng(repeat).permutation(np.unique(subjects))
        ranked = np.concatenate([np.flatnonzero(subjects == s) for s in order])
        size = np.cumsum([np.sum(subjects == s) for s in order])
        count = size[np.searchsorted(size, USGRA_FRAMES)]  # whole subjects
        rows, val_rows = ranked[:count], ranked[count:]
        parts.append(copy_data(data, args.work / f"usgra_{repeat}", rows, val_rows))
    few = {"epochs": args.epochs}
    start = {"init": args.init, "rate": args.init_rate}
    for name, how in (
        ("30 frames", few),
        ("30 frames after nerves", {**start, **few}),
        ("30 frames, 3 times as long", {"epochs": 3 * args.epochs}),
    ):
        for repeat, part in enumerate(parts):
            measure_run(args, name, repeat, part, **how)


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
    for line in results():
        if "presence_auc" in line:
            values = [f"{key} {line[key]:.3f}" for key in line if key.endswith("auc")]
            summary = line.get("summary", {})
            names = ("challenge_dice", "predicting_nothing", "nerve_dice")
            values += [f"{name} {summary[name]:.3f}" for name in names if summary]
            print(f"{line['run']}: {', '.join(values)}")


MODES = {
    "phantom": run_phantom,
    "presence": run_presence,
    "difficulty": run_difficulty,
    "usgra": run_usgra,
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("what", choices=(*MODES, "table"), help="what to run")
    add("--phantom", type=Path, default="raw", help="phantom.py's folder")
    add("--raw", type=Path, default="real", help="the challenge's folder")
    add("--usgra", type=Path, default="usgra", help="folder with images/ and masks/")
    add("--work", type=Path, default="transfer", help="folder for arrays and weights")
    add("--row", choices=quality.ROWS, default="modern", help="recipe, of quality.py")
    add("--epochs", type=int, default=100, help="of trainings on few frames")
    add("--init", type=Path, default="weights/unet_nerve.h5", help="for usgra")
    add("--init-rate", type=float, help="learning rate from there on")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    for name in ("work", "phantom", "raw", "usgra", "init"):
        setattr(args, name, getattr(args, name).resolve())
    args.work.mkdir(parents=True, exist_ok=True)
    if args.what != "table":
        MODES[args.what](args)
    summarize()


if __name__ == "__main__":
    main()
