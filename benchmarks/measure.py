"""What the benchmarks share: processes in turn, tables, made-up frames, and results."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.jsonl"
PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python", "av", "pillow")
OTHERS = ("torch", "monai", "onnxruntime", "openvino", "pycocotools")  # where installed
POLL = 0.01  # seconds between two looks at a process's memory
EMPTY_SHARE = 0.588  # of the challenge's training masks


def run(command, cwd=ROOT):
    """Run a command to its end.

    Returns:
        `(seconds, peak anonymous memory in MB, standard output)`; files mapped into memory
        not counted. The memory is None where the system does not tell it (only Linux does).
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start, peak = time.perf_counter(), 0
        command = list(map(str, command))
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=errors)
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            if status.exists():
                for line in status.read_text().splitlines():
                    if line.startswith("RssAnon"):
                        peak = max(peak, int(line.split()[1]))
            time.sleep(POLL)
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command} failed: {errors.read().decode()[-2000:]}")
        return seconds, peak / 1000 or None, output.read().decode()


def median(values):
    """Return the median of the values that are there; None where none is."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def compare(commands, rounds):
    """Run several commands in turn, a few rounds, so that drift meets all alike.

    Args:
        commands: `{name: command}`; ratios are taken to the first.
        rounds: How often each runs; a round before that is not counted.

    Returns:
        `{name: {"seconds", "peak_anonymous_mb", "ratio"}}`, medians, of the memory the
        most; `ratio` is the first command's seconds over this one's of the same round.
    """
    samples = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            seconds, peak, _ = run(command)
            samples[name].append({"seconds": seconds, "peak_anonymous_mb": peak})
    samples = {name: values[1:] for name, values in samples.items()}
    return summarize(samples, "seconds")


def choose(rows, texts, first):
    """Return the rows whose name holds one of the texts, and the first; None for all."""
    return {
        name: row
        for name, row in rows.items()
        if texts is None or name == first or any(text in name for text in texts)
    }


def take_turns(commands, rounds):
    """Run workers in turn, each in a process of its own, that measure themselves.

    Args:
        commands: `{name: command}`; a worker's last line of output is a JSON object.
        rounds: How often each runs.

    Returns:
        `{name: [that object and "peak_anonymous_mb", of each round]}`.
    """
    samples = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            _, peak, output = run(command)
            sample = json.loads(output.splitlines()[-1])
            samples[name].append({**sample, "peak_anonymous_mb": peak})
    return samples


def summarize(samples, key):
    """Return `{name: {quantity: median, ..., "ratio"}}` of the rounds.

    Args:
        samples: `{name: [{quantity: number}, of each round]}`; of "peak_anonymous_mb" the
            most is taken. What is no number is taken from the first round.
        key: A quantity of which less is better, such as "seconds". `ratio` is the first
            name's divided by this one's of the same round, the median.
    """
    first, results = next(iter(samples)), {}
    for name, values in samples.items():
        row = {}
        for quantity, value in values[0].items():
            column = [sample[quantity] for sample in values]
            if quantity == "peak_anonymous_mb":
                row[quantity] = max((peak for peak in column if peak), default=None)
            elif isinstance(value, int | float):
                row[quantity] = median(column)
            else:
                row[quantity] = value
        pairs = zip(samples[first], values, strict=True)
        if key in values[0] and key in samples[first][0]:
            row["ratio"] = median(one[key] / other[key] for one, other in pairs)
        results[name] = row
    return results


def print_table(title, results, columns):
    """Print one row a name.

    Args:
        title: Above the names.
        results: `{name: {quantity: value}}`.
        columns: `{quantity: (heading, format)}`; "-" stands for what a row lacks.
    """
    width = max(map(len, (title, *results))) + 2
    print(title.ljust(width), *(heading for heading, _ in columns.values()), sep="  ")
    for name, row in results.items():
        cells = []
        for quantity, (heading, form) in columns.items():
            value = row.get(quantity)
            text = "-" if value is None else format(value, form)
            cells.append(text.rjust(len(heading)))
        print(name.ljust(width), *cells, sep="  ")


def version(package, python=sys.executable):
    """Return the release of a package that an interpreter has; None where it has none."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    process = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return process.stdout.strip() or None


def has(package, rows):
    """Return whether a package is installed; where not, print which rows are left out."""
    found = version(package) is not None
    if not found:
        print(f"left out, since {package} is not installed: {rows}")
    return found


def start_parser(doc, rounds):
    """Return a parser with the flags that all benchmarks share.

    Args:
        doc: The script's docstring.
        rounds: The default of --rounds.
    """
    parser = argparse.ArgumentParser(
        description=doc.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=rounds, help="runs of each, 1 or more")
    add("--results", type=Path, default=RESULTS, help="file that a line is added to")
    return parser


def add_step_flags(parser):
    """Add what decides how long a training step takes; the contenders take the same."""
    add = parser.add_argument
    add("--height", type=int, help="rows, in pixels; default: the recipe's")
    add("--width", type=int, help="columns, in pixels; default: the recipe's")
    add("--filters", type=int, help="channels of the first level; default: the recipe's")
    add("--batch-size", type=int, help="frames a step; default: the recipe's")
    add("--steps", type=int, default=10, help="steps timed in a round, 1 or more")


def seconds_of(function, repeats=1):
    """Return the mean seconds of a call."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def draw_mask(rng, height, width):
    """Return a mask as the challenge's: a wavy oval, uint8 `(height, width)`, 0 or 1.

    Its area is 1.9, 2.9 and 4.3 % of the frame (5, 50, 95 % of the masks), as of the
    challenge's masks; its place varies as theirs does.
    """
    area = 0.0287 * height * width * np.exp(rng.normal(0, 0.24))
    row, column = rng.normal((0.37, 0.57), (0.07, 0.09)) * (height, width)
    rows, columns = np.ogrid[:height, :width]
    stretch = 1.6**0.5  # ovals are 1.6 times as wide as high
    y, x = (rows - row) * stretch, (columns - column) / stretch
    angle, radius = np.arctan2(y, x), np.sqrt(area / np.pi)
    for waves in range(2, 7):
        radius = radius * (1 + 0.05 * np.sin(waves * angle + rng.uniform(0, 2 * np.pi)))
    return (np.hypot(y, x) < radius).astype(np.uint8)


def draw_masks(num_masks, height, width, seed=0):
    """Return masks in the challenge's mix, mostly empty, uint8 `(N, height, width)`."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((num_masks, height, width), np.uint8)
    for k in rng.permutation(num_masks)[round(EMPTY_SHARE * num_masks) :]:
        masks[k] = draw_mask(rng, height, width)
    return masks


def draw_frames(num_frames, height, width, seed=0):
    """Return noise and masks for training, float32 `(N, height, width, 1)` each."""
    shape = (num_frames, height, width, 1)
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return x, draw_masks(*shape[:3], seed).reshape(shape).astype(np.float32)


def untrained(recipe, inputs, precision="float32"):
    """Return the record of a network that has learnt nothing."""
    from nerve.records import Limits, Trained  # here: torch_step.py has PyTorch alone

    return Trained(
        recipe=recipe,
        seed=0,
        precision=precision,
        keep="last",
        init_sha256=None,
        inputs=inputs,
        limits=Limits(threshold=0.5, smallest_area=0.0, least_presence=0.0),
        data=[],
        trained_on=[],
    )


def machine():
    """Return what a measurement depends on: processor, versions, commit."""
    info = {"processor": platform.processor() or platform.machine()}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        models = [line.split(":")[1].strip() for line in lines if "model name" in line]
        info["processor"] = models[0] if models else info["processor"]
    info["cores"] = len(os.sched_getaffinity(0))
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        info["kernels"] = limit
    info["python"] = platform.python_version()
    for package in PACKAGES:
        info[package] = metadata.version(package)
    info |= {package: found for package in OTHERS if (found := version(package))}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    info["commit"] = commit.stdout.strip()
    return info


def keep(benchmark, settings, results, path=RESULTS):
    """Append one line to a file of results."""
    line = {
        "benchmark": benchmark,
        **settings,
        "results": results,
        "machine": machine(),
    }
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
