"""Time and memory as the number of frames grows: an epoch's batches, and prediction.

    python benchmarks/growth.py --frames 1000 5600 56000

Prints a table, and appends a line to benchmarks/results.jsonl. Each row is a process of its
own; its peak RssAnon leaves mapped files out. The frames, 96 x 96, of 56,000 rows take 5 GB
of disk below --work while it runs. Prediction is predict.py's way from frames to
submission.csv, by an untrained network of --filters: its memory matters here.
"""

import functools
import itertools
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve.files import atomic
from nerve.files.arrays import ArrayWriter
from nerve.records import Inputs
from nerve.training.batches import batches, draw_order
from recipes import CLASSIC, MODERN

TASKS = ("batches", "batches, augmented", "prediction")
BATCH_SIZE = 32
DISTINCT = 64  # frames that are drawn; the files repeat them
COLUMNS = {
    "seconds": ("seconds", ".2f"),
    "frames_per_second": ("frames/s", ".0f"),
    "peak_anonymous_mb": ("RssAnon MB", ".0f"),
}


def write_rows(path, rows, num_rows):
    """Write an array of rows, repeated until there are enough."""
    writer = ArrayWriter(path, (num_rows, *rows.shape[1:]), rows.dtype)
    for row in repeated(rows, num_rows):
        writer.append(row)
    writer.close()
    atomic.sha256(path)  # written past the page cache, read into it here


def repeated(rows, num_rows):
    """Yield rows, again and again until there are enough."""
    return itertools.islice(itertools.cycle(rows), num_rows)


def write_data(folder, num_frames, size):
    """Write x.npy and y.npy of the most frames, and a folder of test frames of each number.

    Args:
        folder: Where.
        num_frames: Numbers of frames.
        size: Rows and columns of a frame, in pixels.
    """
    import prediction  # here: it has no part in the memory that is measured

    x, y = measure.draw_frames(DISTINCT, size, size)
    write_rows(folder / "x.npy", x, max(num_frames))
    write_rows(folder / "y.npy", y, max(num_frames))
    grey = (128 + 40 * x[..., 0]).clip(0, 255).astype(np.uint8)
    for count in num_frames:
        shape = count, size, size
        prediction.write_extract(folder / str(count), repeated(grey, count), shape)


def read_batches(folder, count, augmented):
    """Make an epoch's batches of the first `count` frames; return the seconds."""
    x, y = (np.load(folder / name, mmap_mode="r")[:count] for name in ("x.npy", "y.npy"))
    changes = (MODERN.augmentation, 0, 0) if augmented else None

    def read():
        for _ in batches(x, y, draw_order(count, 0, 0), BATCH_SIZE, changes):
            pass

    return measure.seconds_of(read)


def predict_all(folder, count, size, filters):
    """Predict the `count` test frames into submission.csv; return the seconds."""
    import predict_engine

    from model import build_unet

    inputs = Inputs(size, size, 128.0, 40.0, aspect=1.0, crops={})
    trained = measure.untrained(replace(CLASSIC, filters=filters), inputs)
    model = build_unet(size, size, filters)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        arguments = model, folder / str(count), Path(out), trained
        return measure.seconds_of(functools.partial(predict_engine.submit, *arguments))


def run_task(task, folder, count, size, filters):
    """Do one row's work in this process; print its seconds as one line of JSON."""
    if task == "prediction":
        seconds = predict_all(folder, count, size, filters)
    else:
        seconds = read_batches(folder, count, task == "batches, augmented")
    print(json.dumps({"seconds": seconds, "frames": count}))


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=3)
    add = parser.add_argument
    add("--frames", type=int, nargs="+", default=[1000, 5600, 56000], help="how many")
    add("--size", type=int, default=96, help="rows and columns, in pixels")
    add("--filters", type=int, default=8, help="of the network that predicts")
    add("--work", type=Path, default=".", help="existing folder for the files")
    add("--task", choices=TASKS, help="do only this, once, on files that lie in --work")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.task:
        run_task(args.task, args.work, args.frames[0], args.size, args.filters)
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        folder = Path(folder).resolve()
        write_data(folder, args.frames, args.size)
        sizes = ["--size", args.size, "--filters", args.filters, "--work", folder]
        commands = {
            f"{task}, {count} frames": [
                *(sys.executable, Path(__file__).resolve(), *sizes),
                *("--task", task, "--frames", count),
            ]
            for task in TASKS
            for count in args.frames
        }
        samples = measure.take_turns(commands, args.rounds)
    results = measure.summarize(samples, "seconds")
    for row in results.values():
        row["frames_per_second"] = row["frames"] / row["seconds"]
        del row["ratio"]
    measure.print_table(f"{args.size} x {args.size}", results, COLUMNS)
    settings = {"rounds": args.rounds, "filters": args.filters}
    measure.keep("growth", settings, results, args.results)


if __name__ == "__main__":
    main()
