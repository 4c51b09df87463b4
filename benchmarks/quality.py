"""How well recipes find the nerve in subjects they never saw: five folds by subject.

    python benchmarks/quality.py --raw FOLDER --rows classic modern --folds 0 1

FOLDER is the challenge's raw folder. Each run (a row, a fold, a seed) preprocesses, trains
to the last epoch and predicts the fold's frames; its Dice of every frame at the frame's
own size is appended to benchmarks/quality.jsonl, and a run that stands there is not
repeated. A training that was interrupted is resumed. Without --rows, prints the table of
what stands there of --seeds.

Scores are of one network, with neither smallest area nor anything else at test time. The
folds are those of benchmarks/folds.json.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

import evaluate
from nerve.files import atomic, run_length
from nerve.prediction import inference, networks
from nerve.scoring import scores
from nerve.training import checkpoint
from preprocess import read_extract
from recipes import ENCODER, RECIPES

ROOT = measure.ROOT
RESULTS = ROOT / "benchmarks" / "quality.jsonl"
FOLDS = ROOT / "benchmarks" / "folds.json"
NUM_FOLDS = 5
SIMILAR_SIZE = (128, 96)  # width, height at which frames are compared
SIMILAR = 0.99  # correlation from which two frames of a subject are near-identical

# What the ladder's fast recipes have in common
FAST = {
    "height": 128,
    "width": 176,
    "filters": 32,
    "depth": 4,
    "loss": "tversky_crossentropy_loss",
    "schedule": "cosine",
    "average": True,
    "balance": True,
    "augment": True,
    "batch_size": 16,
    "epochs": 10,
    "--soft-masks": True,
}
LITE = {
    **FAST,
    "network": "lite_unet",
    "encoder": ENCODER,
    "learning_rate": 5e-4,
    "losses.MISSED_SHARE": 0.5,
}
LARGER = {"augment.FLIP_SHARE": 0.0, "losses.MISSED_SHARE": 0.7}
NORMALIZED = {
    **FAST,
    **LARGER,
    "network": "fast_unet",
    "encoder": None,
    "learning_rate": 3e-3,
}
WANDERING = {  # at a rate that does not fall, and averaged over more of its steps
    "schedule": "constant",
    "learning_rate": 2e-3,
    "training.AVERAGED_SHARE": 0.2,
}
FEW = {
    **RECIPES["modern"],
    "--soft-masks": True,
    "height": 96,
    "width": 128,
    "epochs": 3,
    "learning_rate": 1e-3,
}
STRONGER = {  # augmentation, by half
    "augment.ROTATION": 30.0,
    "augment.SCALE": (0.65, 1.5),
    "augment.SHEAR": 0.22,
    "augment.SHIFT": 0.15,
    "augment.GAIN": 0.4,
    "augment.OFFSET": 0.6,
    "augment.SLOPE": 0.75,
    "augment.GAMMA": 0.45,
    "augment.BLUR": 1.5,
}
# A row is a recipe, with flags of preprocess.py and train.py ("--name": value) and other
# values of their modules' constants ("module.NAME": value).
ROWS = {
    "classic": RECIPES["classic"],
    "normalised": NORMALIZED,
    "normalised, flips": {**NORMALIZED, "augment.FLIP_SHARE": 0.5},
    "normalised, flips, rate 1e-3": {
        **NORMALIZED,
        "augment.FLIP_SHARE": 0.5,
        "learning_rate": 1e-3,
    },
    "normalised, no augmentation": {**NORMALIZED, "augment": False},
    "normalised, no balance": {**NORMALIZED, "balance": False},
    "normalised, not averaged": {**NORMALIZED, "average": False},
    "normalised, hard masks": {**NORMALIZED, "--soft-masks": False},
    "normalised, missed 0.5": {**NORMALIZED, "losses.MISSED_SHARE": 0.5},
    "normalised, 20 epochs": {**NORMALIZED, "epochs": 20},
    "normalised, 192 x 256": {**NORMALIZED, "height": 192, "width": 256},
    "normalised, 16 filters": {**NORMALIZED, "filters": 16},
    "normalised, 48 filters": {**NORMALIZED, "filters": 48},
    "normalised, depth 5": {**NORMALIZED, "depth": 5, "width": 192},
    "normalised, repaired masks": {**NORMALIZED, "--contradictory": "repair"},
    "normalised, contradictory dropped": {**NORMALIZED, "--contradictory": "drop"},
    "normalised, constant rate": {**NORMALIZED, **WANDERING},
    "normalised, constant rate, flips, 20 epochs": {
        **NORMALIZED,
        **WANDERING,
        "augment.FLIP_SHARE": 0.5,
        "epochs": 20,
    },
    "encoder": LITE,
    "encoder, not pretrained": {**LITE, "encoder": None},
    "encoder, no flips, missed 0.7": {**LITE, **LARGER},
    "encoder, no flips, missed 0.7, 192 x 256": {
        **LITE,
        **LARGER,
        "height": 192,
        "width": 256,
    },
    "encoder, stronger augmentation": {**LITE, **STRONGER},
    "modern": {**RECIPES["modern"], "--soft-masks": True},
    "modern, 96 x 128, 3 epochs": FEW,
    "modern, 96 x 128, 1 epoch": {**FEW, "epochs": 1},
    "small": {**RECIPES["small"], "--soft-masks": True},
    "small, 16 filters, 10 epochs": {
        **RECIPES["small"],
        "--soft-masks": True,
        "filters": 16,
        "epochs": 10,
    },
    "MONAI BasicUNet, 10 epochs": {**LITE, **LARGER, "peer": "monai"},
    "MONAI BasicUNet, 4 epochs": {**LITE, **LARGER, "peer": "monai", "epochs": 4},
    "smp Unet resnet34, 10 epochs": {**LITE, **LARGER, "peer": "smp"},
    "smp Unet resnet34, 6 epochs": {**LITE, **LARGER, "peer": "smp", "epochs": 6},
}
# train.py with a recipe and constants of its own
START = """
import importlib, json, sys
import recipes, stage, train
recipes.RECIPES["row"] = json.loads(sys.argv.pop(1))
for name, value in json.loads(sys.argv.pop(1)).items():
    module, constant = name.split(".")
    module = importlib.import_module(module)
    if not hasattr(module, constant):
        raise AttributeError(f"no {name}")
    setattr(module, constant, value)
sys.exit(atomic.run(train.main))
"""
TRAIN_FLAGS = ("--precision",)  # the others are preprocess.py's


def row_recipe(name):
    """Return `(recipe, constants, preprocessing flags, training flags)` of a row."""
    row = ROWS[name]
    recipe = {k: v for k, v in row.items() if k.isidentifier()}
    constants = {k: v for k, v in row.items() if "." in k}
    flags = {"--height": row["height"], "--width": row["width"]}
    flags |= {k: v for k, v in row.items() if k.startswith("--") and v is not False}
    lists = {False: [], True: []}
    for flag, value in flags.items():
        lists[flag in TRAIN_FLAGS] += [flag] if value is True else [flag, str(value)]
    return recipe, constants, lists[False], lists[True]


def cpu_seconds(command):
    """Run a command to its end; return its user and system seconds.

    Raises:
        RuntimeError: it failed.
    """
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def prepare(work, flags, fold):
    """Return a folder of preprocessed arrays, made if absent, of a fold held out."""
    name = "_".join(flag.lstrip("-") for flag in flags)
    data = work / f"data_{name}_fold{fold}"
    if not (data / "preprocess.json").exists():
        data.mkdir(exist_ok=True)
        for path in (work / "extract").glob("*.*"):
            (data / path.name).unlink(missing_ok=True)
            os.link(path, data / path.name)
        folds = ["--folds", NUM_FOLDS, "--fold", fold]
        cpu_seconds([sys.executable, "preprocess.py", "--data", data, *flags, *folds])
    split = atomic.read_record(data / "preprocess.json", "-")
    expected = json.loads(FOLDS.read_text())[str(fold)]
    if split["val"]["subjects"] != expected:
        raise ValueError(f"fold {fold} holds other subjects than {FOLDS} says")
    return data


class Predicted:
    """Stands for a network whose probabilities of these frames, in order, are known."""

    def __init__(self, probabilities):
        self.rest = probabilities

    def predict_on_batch(self, x):
        found, self.rest = self.rest[: len(x)], self.rest[len(x) :]
        return found[..., np.newaxis].astype(np.float32)


def score_fold(weights, data, out):
    """Score trained weights as `score_network` does, without a smallest area."""
    settings = {**networks.read_settings(weights, None), "smallest_area": 0.0}
    return score_network(networks.load_network(weights, settings), settings, data, out)


def score_network(model, settings, data, out):
    """Predict a fold's validation frames; keep the probabilities in `out`, a .npz.

    Args:
        model: The network.
        settings: As of `inference.find_masks`.
        data: Folder of preprocessed arrays.
        out: File to write.

    Returns:
        `{"subject_image": Dice}` of the frames with a nerve, at their own size.
    """
    extract, frames, masks = read_extract(data)
    rows = atomic.read_record(data / "preprocess.json", "-")["val"]["rows"]
    dice, kept = {}, []
    results = inference.find_masks(model, (frames[row] for row in rows), settings)
    for row, (_, probability, found, _) in zip(rows, results, strict=True):
        kept.append(probability.astype(np.float16))
        if masks[row].any():
            subject, image = (extract["train"][n][row] for n in ("subject", "image"))
            dice[f"{subject}_{image}"] = round(scores.dice(masks[row] > 0, found), 4)
    np.savez_compressed(out, rows=rows, probabilities=kept)
    return dice


def train_row(name, data, out, flags=()):
    """Train a row's recipe to its last epoch, where an interrupted training ended.

    Args:
        name: Key of ROWS.
        data: Folder of preprocessed arrays.
        out: The .h5 to write.
        flags: More of train.py's.

    Returns:
        CPU seconds of all parts of the training.
    """
    recipe, constants, _, train_flags = row_recipe(name)
    command = [sys.executable, "-c", START, json.dumps(recipe), json.dumps(constants)]
    command += ["--recipe", "row", "--data", data, "--out", out, "--keep", "last"]
    seconds = cpu_seconds([*command, "--resume", *train_flags, *flags])
    spent = out.with_suffix(".seconds")  # of all parts of an interrupted run
    with open(spent, "a") as file:
        file.write(f"{seconds}\n")
    return sum(map(float, spent.read_text().split()))


def train_peer(name, data, out, seed, torch_python):
    """Train a public network with a row's recipe by peer_train.py; as `train_row`."""
    recipe, _, _, _ = row_recipe(name)
    command = [torch_python, ROOT / "benchmarks" / "peer_train.py", recipe["peer"]]
    command += ["--data", data, "--out", out, "--seed", seed]
    return cpu_seconds([*command, "--recipe", json.dumps(recipe)])


def weights_path(work, name, fold, seed):
    """Return where a run keeps its .h5."""
    stem = "_".join(name.replace(",", "").split())
    return work / f"{stem}_fold{fold}_seed{seed}.h5"


def run(args, name, label, fold, seed):
    """Train and score one run; return its line of the results, called `label`."""
    work = args.work.resolve()
    recipe, _, preprocess_flags, _ = row_recipe(name)
    data = prepare(work, preprocess_flags, fold)
    out = weights_path(work, label, fold, seed)
    found = out.with_suffix(".npz")
    if "peer" in recipe:
        if args.init:
            raise ValueError(f"{name} takes no --init")
        seconds = train_peer(name, data, found, seed, args.torch_python)
        limits = {"threshold": checkpoint.THRESHOLD, "presence": 0.0}
        settings = atomic.read_record(data / "preprocess.json", "-") | limits
        settings |= {"smallest_area": 0.0, "precision": "bfloat16"}
        with np.load(found) as arrays:
            model = Predicted(arrays["probabilities"])
        dice = score_network(model, settings, data, found)
    else:
        start = ["--init", args.init.resolve()] if args.init else []
        seconds = train_row(name, data, out, ["--seed", seed, *start])
        settings = atomic.read_record(out.with_suffix(".json"), "-")
        dice = score_fold(out, data, found)
    return {
        "row": label,
        "fold": fold,
        "seed": seed,
        "epochs": recipe["epochs"],
        "precision": settings["precision"],
        "cpu_seconds": round(seconds, 1),
        "weights_kib": round(out.stat().st_size / 1024) if out.exists() else None,
        "mean_dice": round(float(np.mean(list(dice.values()))), 4),
        "machine": measure.machine(),
        "dice": dice,
    }


def read_results():
    """Return the lines of the results file."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def frame_means(lines):
    """Return `{frame: Dice}` of a row's runs, the mean where seeds share a frame."""
    values = {}
    for line in lines:
        for frame, value in line["dice"].items():
            values.setdefault(frame, []).append(value)
    return {frame: float(np.mean(v)) for frame, v in values.items()}


def subjects_of(frames):
    """Return the subject of each frame named `subject_image`, an int array."""
    return np.array([int(frame.split("_")[0]) for frame in frames])


def gain(mine, other):
    """Return the mean gain of one row over another on the frames of both, as text.

    Its 95 % interval is of a bootstrap by subject. Args: what `frame_means` returned.
    """
    frames = [frame for frame in mine if frame in other]
    if not frames or mine is other:
        return ""
    gains = np.array([mine[frame] - other[frame] for frame in frames])
    interval = scores.bootstrap(gains, subjects_of(frames))
    if interval is None:
        return f"{gains.mean():+.3f}"
    return f"{gains.mean():+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})"


def summarize(lines):
    """Print one line a row: scores over its frames, by subject, and gain over the first.

    The bare numbers to read them beside are of `ceilings`.
    """
    print(
        f"{'row':24}{'runs':>5}{'mean':>8}{'median':>8}{'IoU':>7}{'by subj.':>9}",
        end="",
    )
    print(f"{'< 0.1':>8}{'CPU s':>7}  gain over the first row, interval by subject")
    rows = {name: [] for name in dict.fromkeys(line["row"] for line in lines)}
    for line in lines:
        rows[line["row"]].append(line)
    first = None
    for name, mine in rows.items():
        frames = frame_means(mine)
        first = first or frames
        values, subjects = np.array(list(frames.values())), subjects_of(frames)
        means = {s: values[subjects == s].mean() for s in np.unique(subjects).tolist()}
        print(
            f"{name:24}{len(mine):>5}{values.mean():>8.4f}{np.median(values):>8.4f}"
            f"{(values / (2 - values)).mean():>7.3f}{np.mean(list(means.values())):>9.4f}"
            f"{(values < scores.MISSED).mean():>8.2%}"
            f"{np.mean([line['cpu_seconds'] for line in mine]):>7.0f}  "
            f"{gain(frames, first)}"
        )
        missed = subjects[values < scores.MISSED].tolist()
        counts = ", ".join(f"{s}: {missed.count(s)}" for s in sorted(set(missed)))
        print(f"    frames below 0.1 by subject: {counts or 'none'}")


def ceilings(extract):
    """Return what scores can be compared with, on the frames with a nerve.

    Args:
        extract: Folder of the extracted frames.

    Returns:
        `{name: Dice}`: of the best constant mask, made of other subjects' masks; of the
        masks of near-identical frames against each other; and of the consensus of four or
        more of them against another's.
    """
    record, frames, masks = read_extract(extract)
    subjects = np.array(record["train"]["subject"])
    rows = np.flatnonzero(np.array(record["train"]["area"]) > 0)
    truth = {
        row: (run_length.parse(run_length.encode(masks[row]), masks[row].size), s)
        for row, s in zip(rows.tolist(), subjects[rows].tolist(), strict=True)
    }
    constant = evaluate.best_constant_mask(truth, masks[0].size)
    pairs, consensus = [], []
    for subject in np.unique(subjects[rows]):
        mine = rows[subjects[rows] == subject]
        small = np.stack([cv2.resize(frames[r], SIMILAR_SIZE) for r in mine])
        flat = small.reshape(len(mine), -1).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        near = flat @ flat.T >= SIMILAR
        for k, row in enumerate(mine):
            twins = [r for r in mine[near[k]] if r != row]
            for other in twins:
                if other > row:
                    pairs.append(scores.dice(masks[row] > 0, masks[other] > 0))
            if len(twins) >= 4:
                share = np.mean([masks[r] > 0 for r in twins], axis=0)
                consensus.append(scores.dice(masks[row] > 0, share >= 0.5))
    return {
        "best constant mask": constant,
        f"near-identical frames' masks, {len(pairs)} pairs": scores.mean(pairs),
        f"consensus of four or more, {len(consensus)} frames": scores.mean(consensus),
    }


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--raw", type=Path, default="raw", help="the challenge's raw folder")
    add("--work", type=Path, default="quality", help="folder for arrays and weights")
    add("--rows", nargs="+", choices=ROWS, default=(), help="what to run")
    add("--folds", nargs="+", type=int, default=[0], help="of 0 to 4")
    add("--ceilings", action="store_true", help="print what scores compare with, too")
    add("--torch-python", default=sys.executable, help="of peers; has torch and monai")
    add("--init", type=Path, help="weights to start from, said in the row's name")
    add("--seeds", nargs="+", type=int, default=[0], help="to run and to show")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.rows and not (args.work / "extract" / "extract.json").exists():
        command = [sys.executable, "extract_data.py", "--raw", args.raw.resolve()]
        cpu_seconds([*command, "--data", args.work.resolve() / "extract"])
    for name in args.rows:
        label = f"{name}, after {args.init.stem}" if args.init else name
        for fold in args.folds:
            for seed in args.seeds:
                done = {(r["row"], r["fold"], r["seed"]) for r in read_results()}
                if (label, fold, seed) in done:
                    continue
                line = run(args, name, label, fold, seed)
                with open(RESULTS, "a") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{label}, fold {fold}, seed {seed}: {line['mean_dice']:.4f}")
    summarize([r for r in read_results() if r["seed"] in args.seeds])
    if args.ceilings:
        for name, value in ceilings(args.work / "extract").items():
            print(f"{name:56}{'-' if value is None else f'{value:.4f}'}")


if __name__ == "__main__":
    main()
