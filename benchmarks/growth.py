"""Time and memory as the number of frames grows: an epoch's batches, and prediction.

    python benchmarks/growth.py --frames 1000 5600 56000

Prints a table, and appends a line to benchmarks/results.jsonl. Each row is a process of its
own; its peak RssAnon leaves mapped files out. The frames, 96 x 96, of 56,000 rows take 5 GB
of disk below --work while it runs. Prediction is predict.py's way from frames to
submission.csv, by an untrained network of --filters: its memory matters here.
"""

import functools
import json
import sys
import tempfile
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve.files import atomic
from nerve.files.arrays import ArrayWriter
from nerve.training.batches import batches, draw_order

TASKS = ("batches", "batches, augmented", "prediction")
BATCH_SIZE = 32
DISTINCT = 64  # frames that are drawn; the files repeat them
COLUMNS = {
    "seconds": ("seconds", ".2f"),
    "frames_per_second": ("frames/s", ".0f"),
    "peak_anonymous_mb": ("RssAnon MB", ".0f"),
}


def write_rows(path, rows, num_rows):
    """Write an array of rows, repeated until there are enough; return its record."""
    writer = ArrayWriter(path, (num_rows, *rows.shape[1:]), rows.dtype)
    for k in range(num_rows):
        writer.append(rows[k % len(rows)])
    return writer.close()


def write_data(folder, num_frames, size):
    """Write x.npy and y.npy of the most frames, and a folder of test frames of each number.

    Args:
        folder: Where.
        num_frames: Numbers of frames.
        size: Rows and columns of a frame, in pixels.
    """
    x, y = measure.draw_frames(DISTINCT, size, size)
    paths = [folder / "x.npy", folder / "y.npy"]
    records = {
        path.name: write_rows(path, array, max(num_frames))
        for path, array in zip(paths, (x, y), strict=True)
    }
    atomic.publish(folder / "growth.json", {"arrays": records}, paths)
    for path in paths:  # written past the page cache, read into it here
        atomic.sha256(path)
    grey = (128 + 40 * x[..., 0]).clip(0, 255).astype(np.uint8)
    for count in num_frames:
        data = folder / str(count)
        data.mkdir()
        path = data / "imgs_test.npy"
        record = {"test": {"image": list(range(1, count + 1))}}
        record["arrays"] = {path.name: write_rows(path, grey, count)}
        atomic.publish(data / "extract.json", record, [path])


def read_batches(folder, count, augmented):
    """Make an epoch's batches of the first `count` frames; return the seconds."""
    x, y = (
        np.load(folder / name, mmap_mode="r")[:count] for name in ("x.npy", "y.npy")
    )
    changes = (0, 0) if augmented else None

    def read():
        for _ in batches(x, y, draw_order(count, 0, 0), BATCH_SIZE, changes):
            pass

    return measure.seconds_of(read)


def predict_all(folder, count, size, filters):
    """Predict the `count` test frames into submission.csv; return the seconds."""
    import predict
    from model import build_unet

    settings = {
        "height": size,
        "width": size,
        "mean": 128.0,
        "standard_deviation": 40.0,
    }
    settings |= {"threshold": 0.5, "smallest_area": 0.0, "presence": 0.0}
    settings |= {"aspect": 1.0, "crops": {}}
    model = build_unet(size, size, filters)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        arguments = model, folder / str(count), Path(out), settings, 0
        return measure.seconds_of(functools.partial(predict.predict_test, *arguments))


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
