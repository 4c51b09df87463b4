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

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve import command
from nerve.files import run_length
from nerve.prediction import inference, networks
from nerve.records import Limits, Recipe, read_split, read_training_frames
from nerve.scoring import scores
from recipes import CLASSIC, MODERN

ROOT = measure.ROOT
RESULTS = ROOT / "benchmarks" / "quality.jsonl"
FOLDS = ROOT / "benchmarks" / "folds.json"
NUM_FOLDS = 5
SIMILAR_SIZE = (128, 96)  # width, height at which frames are compared
SIMILAR = 0.99  # correlation from which two frames of a subject are near-identical


class Row(NamedTuple):
    """What is trained."""

    recipe: Recipe
    soft_masks: bool = True
    peer: str | None = None  # network of peer_train.py, instead of the recipe's


ROWS = {
    "classic": Row(CLASSIC, soft_masks=False),
    "modern": Row(MODERN),
    "MONAI BasicUNet, 10 epochs": Row(replace(MODERN, epochs=10), peer="monai"),
    "smp Unet resnet34, 10 epochs": Row(replace(MODERN, epochs=10), peer="smp"),
}


def recipe_json(name):
    """Return a row's recipe, called after the row, as JSON."""
    return json.dumps(dataclasses.asdict(replace(ROWS[name].recipe, name=name)))


def data_flags(name):
    """Return what preprocess.py is to be told of a row, flags as text."""
    row = ROWS[name]
    size = ["--height", str(row.recipe.height), "--width", str(row.recipe.width)]
    return [*size, "--soft-masks"] if row.soft_masks else size


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
    expected = json.loads(FOLDS.read_text())[str(fold)]
    if read_split(data).val.subjects != expected:
        raise ValueError(f"fold {fold} holds other subjects than {FOLDS} says")
    return data


class Predicted:
    """Stands for a network whose probabilities of these frames, in order, are known."""

    def __init__(self, probabilities):
        self.rest = probabilities

    def predict_on_batch(self, x):
        found, self.rest = self.rest[: len(x)], self.rest[len(x) :]
        return found[..., np.newaxis].astype(np.float32)


def load(weights):
    """Return `(network, record)` of trained weights."""
    from model import build_network  # here: TensorFlow takes seconds to import

    trained = networks.read_trained(weights)
    return networks.load_network(build_network, weights, trained), trained


def score_fold(weights, data, out, rows=None):
    """Score trained weights as `score_network` does, without a smallest area."""
    model, trained = load(weights)
    limits = replace(trained.limits, smallest_area=0.0)
    return score_network(model, trained.inputs, limits, data, out, rows)


def score_network(model, inputs, limits, data, out, rows=None):
    """Predict a fold's validation frames; keep the probabilities in `out`, a .npz.

    Args:
        model: The network.
        inputs: How it takes frames.
        limits: What makes masks of its probabilities.
        data: Folder of preprocessed arrays.
        out: File to write.
        rows: Of the extract; None for the validation frames.

    Returns:
        `{"subject_image": Dice}` of the frames with a nerve, at their own size.
    """
    extract, frames, masks = read_training_frames(data)
    rows, dice, kept = read_split(data).val.rows if rows is None else rows, {}, []
    predictions = inference.predict_frames(model, (frames[row] for row in rows), inputs)
    results = inference.find_masks(predictions, limits)
    for row, found in zip(rows, results, strict=True):
        kept.append(found.probability.astype(np.float16))
        if masks[row].any():
            name = f"{extract.train.subject[row]}_{extract.train.image[row]}"
            dice[name] = round(scores.dice(masks[row] > 0, found.mask), 4)
    np.savez_compressed(out, rows=rows, probabilities=kept)
    return dice


def train_row(name, data, out, flags=()):
    """Train a row's recipe to its last epoch, where an interrupted training ended.

    Args:
        name: Key of ROWS.
        data: Folder of preprocessed arrays, or a list of several sources.
        out: The .h5 to write.
        flags: More of train.py's.

    Returns:
        CPU seconds of all parts of the training.
    """
    script = ROOT / "benchmarks" / "train_recipe.py"
    folders = data if isinstance(data, list) else [data]
    command = [sys.executable, script, recipe_json(name), "--data", *folders]
    seconds = cpu_seconds([*command, "--out", out, "--keep", "last", "--resume", *flags])
    spent = out.with_suffix(".seconds")  # of all parts of an interrupted run
    with open(spent, "a") as file:
        file.write(f"{seconds}\n")
    return sum(map(float, spent.read_text().split()))


def train_peer(name, data, out, seed, torch_python):
    """Train a public network with a row's recipe by peer_train.py; as `train_row`."""
    script = ROOT / "benchmarks" / "peer_train.py"
    command = [torch_python, script, ROWS[name].peer, "--recipe", recipe_json(name)]
    return cpu_seconds([*command, "--data", data, "--out", out, "--seed", seed])


def weights_path(work, name, fold, seed):
    """Return where a run keeps its .h5."""
    stem = "_".join(name.replace(",", "").split())
    return work / f"{stem}_fold{fold}_seed{seed}.h5"


def run(args, name, label, fold, seed):
    """Train and score one run; return its line of the results, called `label`."""
    row = ROWS[name]
    work = args.work.resolve()
    data = prepare(work, data_flags(name), fold)
    out = weights_path(work, label, fold, seed)
    found = out.with_suffix(".npz")
    if row.peer:
        if args.init:
            raise ValueError(f"{name} takes no --init")
        seconds = train_peer(name, data, found, seed, args.torch_python)
        precision, inputs = "bfloat16", read_split(data).inputs
        limits = Limits(threshold=0.5, smallest_area=0.0, least_presence=0.0)
        with np.load(found) as arrays:
            model = Predicted(arrays["probabilities"])
        dice = score_network(model, inputs, limits, data, found)
    else:
        start = ["--init", args.init.resolve()] if args.init else []
        seconds = train_row(name, data, out, ["--seed", seed, *start])
        precision = networks.read_trained(out).precision
        dice = score_fold(out, data, found)
    return {
        "row": label,
        "fold": fold,
        "seed": seed,
        "epochs": row.recipe.epochs,
        "precision": precision,
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
    record, frames, masks = read_training_frames(extract)
    subjects = np.array(record.train.subject)
    rows = np.flatnonzero(np.array(record.train.area) > 0)
    truth = [
        (run_length.parse(run_length.encode(masks[row]), masks[row].size), subjects[row])
        for row in rows
    ]
    constant = scores.best_constant_mask(truth, masks[0].size)
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
    parser = command.Parser(__doc__)
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
