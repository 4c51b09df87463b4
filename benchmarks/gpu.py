"""Training and prediction on a graphics card, by Keras on JAX; TensorFlow is not needed.

    python benchmarks/gpu.py --raw FOLDER --platform gpu

FOLDER is the challenge's raw folder, or a phantom's. Trains a fold of the recipe modern by
the scripts themselves, predicts its frames, and times an epoch of frames of noise by both
recipes. Prints a table and appends a line to benchmarks/results.jsonl with the Dice of
every frame: that of `--platform gpu` is compared with the last line of `--platform cpu`.
Takes 6 minutes at most on a card; needs: pip install "jax[cuda13]"
"""

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve import command
from nerve.scoring import scores
from recipes import RECIPES

READY = 1e-3  # seconds of waiting below which a batch was ready
EPOCH = 5000  # frames, as the challenge's
FOLD = ["--folds", 5, "--fold", 0]
COLUMNS = {
    "seconds": ("seconds", ".1f"),
    "images_per_second": ("images/s", ".0f"),
    "first_seconds": ("the first", ".1f"),
    "busy": ("card in use", ".0%"),
    "ready": ("batches ready", ".0%"),
    "dice": ("Dice", ".3f"),
}


def environment(platform):
    """Return the environment of a process that computes by JAX on a platform."""
    name = {"gpu": "cuda", "cpu": "cpu"}[platform]
    return {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": name}


def count_devices(platform):
    """Return how many devices of a platform JAX has; 0 where it has none."""
    code = "import jax; print(jax.device_count())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(platform),
        capture_output=True,
        text=True,
    )
    return int(found.stdout) if found.returncode == 0 else 0


class Watched:
    """Samples the share of the card's time in use, in percent, while it is entered."""

    def __enter__(self):
        self.samples, self.done = [], threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader"]
        while shutil.which(query[0]) and not self.done.wait(0.2):
            text = subprocess.run(query, capture_output=True, text=True).stdout
            self.samples += [int(word.split()[0]) for word in text.splitlines()[:1]]

    def __exit__(self, *error):
        self.done.set()
        self.thread.join()

    @property
    def share(self):
        """What was seen, 0 to 1; None where the card does not say."""
        return statistics.mean(self.samples) / 100 if self.samples else None


def timed(pairs, waits):
    """Yield what an iterator gives; append the seconds that each took to `waits`."""
    pairs = iter(pairs)
    while True:
        begin = time.perf_counter()
        try:
            pair = next(pairs)
        except StopIteration:
            return
        waits.append(time.perf_counter() - begin)
        yield pair


def time_epoch(name, height, width, frames):
    """Train a recipe for two epochs on frames of noise; return the second's numbers."""
    import keras_step  # here: JAX has to be chosen before Keras is imported

    from nerve.training.batches import batches, draw_order
    from nerve.training.loop import train_batches

    run = keras_step.plan(name, {"height": height, "width": width})
    recipe = run.recipe
    with tempfile.TemporaryDirectory() as folder:
        arrays = []
        for part, array in enumerate(measure.draw_frames(frames, height, width)):
            np.save(Path(folder) / f"{part}.npy", array)
            arrays.append(np.load(Path(folder) / f"{part}.npy", mmap_mode="r"))
        model, seconds, waits = keras_step.build_model(run, frames), [], []
        with Watched() as card:
            for epoch in range(2):
                waits.clear()
                card.samples = []
                changes = recipe.augmentation and (recipe.augmentation, run.seed, epoch)
                order = draw_order(frames, run.seed, epoch)
                pairs = batches(*arrays, order, recipe.batch_size, changes)
                begin = time.perf_counter()
                how = frames, recipe.batch_size, f"epoch {epoch}"
                train_batches(model, timed(pairs, waits), *how)
                seconds.append(time.perf_counter() - begin)
    return {
        "first_seconds": seconds[0],  # with compilation
        "seconds": seconds[1],
        "images_per_second": frames / seconds[1],
        "busy": card.share,
        "ready": statistics.mean(wait < READY for wait in waits),
        "precision": run.precision,
    }


def run_script(platform, script, *flags):
    """Run a script of the chain on a platform; return its seconds."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, (script, *flags))],
        cwd=measure.ROOT,
        env=environment(platform),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{script}: {done.stderr[-2000:]}")
    return time.perf_counter() - begin


def run_fold(platform, raw, work, epochs, devices):
    """Run the chain on a fold of the recipe modern; return rows and each frame's Dice."""
    recipe, data, out = RECIPES["modern"], work / "data", work / "predictions"
    weights, tables = work / "modern.h5", [out / "validation.csv"]
    tables.append(out / "validation_truth.csv")
    size = ["--height", recipe.height, "--width", recipe.width, "--soft-masks"]
    run_script(platform, "extract_data.py", "--raw", raw, "--data", data)
    run_script(platform, "preprocess.py", "--data", data, *size, *FOLD)
    train = ["train.py", "--data", data, "--recipe", recipe.name, "--keep", "last"]
    train += ["--epochs", epochs]
    rows = {"a fold": {"seconds": run_script(platform, *train, "--out", weights)}}
    if devices > 1:
        flags = ["--devices", 2, "--out", work / "two.h5"]
        rows["a fold, two devices"] = {"seconds": run_script(platform, *train, *flags)}
    flags = ["--data", data, "--weights", weights, "--out", out]
    seconds = run_script(platform, "predict.py", *flags)
    frames = sum(len(np.load(path, mmap_mode="r")) for path in data.glob("imgs_test.npy"))
    shape = np.load(data / "imgs_train.npy", mmap_mode="r").shape
    size = ["--height", shape[1], "--width", shape[2]]
    run_script(platform, "evaluate.py", *tables, *size)
    with open(out / "validation.scores.csv", newline="") as file:
        table = list(csv.DictReader(file))
    rows["frames to predictions"] = {
        "seconds": seconds,
        "images_per_second": (frames + len(table)) / seconds,
    }
    dice = {
        f"{row['subject']}_{row['img']}": float(row["dice"])
        for row in table
        if int(row["area"])
    }
    rows["a fold"]["dice"] = statistics.mean(dice.values())
    return rows, dice


def compare(dice, path):
    """Print the Dice of these frames beside that of the last line of a processor."""
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    mine = [
        line for line in lines if line["benchmark"] == "gpu" and line["platform"] == "cpu"
    ]
    if not mine or mine[-1]["results"]["frames"].keys() != dice.keys():
        print("no run with --platform cpu of these frames to compare the Dice with")
        return
    other = mine[-1]["results"]["frames"]
    gains = np.array([dice[name] - other[name] for name in dice])
    subjects = [name.split("_")[0] for name in dice]
    low, high = scores.bootstrap(gains, subjects) or (np.nan, np.nan)
    print(
        f"Dice over the processor's, {len(gains)} frames with a nerve: "
        f"{gains.mean():+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    )


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=1)
    add = parser.add_argument
    add("--raw", type=Path, default="raw", help="raw folder to train a fold of")
    add("--platform", choices=("gpu", "cpu"), default="gpu", help="of JAX")
    add("--frames", type=command.whole(8), default=EPOCH, help="of noise, an epoch")
    text = "of the fold; default: the recipe's"
    add("--epochs", type=command.whole(1), default=RECIPES["modern"].epochs, help=text)
    add("--time", nargs=3, metavar=("RECIPE", "HEIGHT", "WIDTH"), help="an epoch, alone")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.time:
        print(json.dumps(time_epoch(args.time[0], *map(int, args.time[1:]), args.frames)))
        return 0
    devices = count_devices(args.platform)
    if not devices:
        print(f"no {args.platform} that JAX can use: pip install 'jax[cuda13]'")
        return 1
    rows = {}
    for name, *size in (("classic", 96, 96), ("modern", 128, 176), ("modern", 192, 256)):
        timing = [sys.executable, __file__, "--frames", args.frames, "--time", name, *size]
        done = subprocess.run(
            list(map(str, timing)),
            env=environment(args.platform),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        row = json.loads(done.stdout.splitlines()[-1])
        rows[f"{name}, {size[0]} x {size[1]}, {row['precision']}, an epoch"] = row
    with tempfile.TemporaryDirectory() as folder:
        how = args.raw.resolve(), Path(folder), args.epochs, devices
        found, dice = run_fold(args.platform, *how)
    rows |= found
    measure.print_table(f"{args.platform}, {devices} of them", rows, COLUMNS)
    if args.platform == "gpu":
        compare(dice, args.results)
    settings = {"platform": args.platform, "epochs": args.epochs}
    measure.keep("gpu", settings, {"rows": rows, "frames": dice}, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
