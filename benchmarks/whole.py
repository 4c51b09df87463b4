"""The whole challenge, from its raw files to a submission, beside stock Keras.

    python benchmarks/whole.py --work whole

Makes a phantom of the challenge's size in --work, which is not counted. Then each step
of the recipe modern is a process of its own, and stock_whole.py does the same work as most
notebooks do it, on a share of the frames, with its seconds multiplied. Prints a table and
appends a line to benchmarks/results.jsonl. Steps that were done before are done again.
"""

import json
import resource
import shutil
import sys
from pathlib import Path

import measure
from stock_whole import START

sys.path.insert(0, str(measure.ROOT))

from nerve import command
from recipes import MODERN

TRAIN, TEST, SUBJECTS = 5635, 5508, 47  # of the challenge
COLUMNS = {
    "seconds": ("seconds", ".1f"),
    "cpu_seconds": ("CPU seconds", ".1f"),
    "share": ("share", ".0%"),
    "peak_anonymous_mb": ("RssAnon MB", ".0f"),
}


def make_phantom(raw, scale):
    """Make the raw folder of a share of the challenge's size, unless it is there."""
    if (raw / "phantom.json").exists():
        return
    subjects = max(2, round(scale * SUBJECTS))
    frames = [max(subjects, round(scale * count)) for count in (TRAIN, TEST)]
    flags = ["--train", frames[0], "--test", frames[1], "--subjects", subjects]
    measure.run([sys.executable, "phantom.py", "--out", raw, *flags])


def list_steps(work, epochs):
    """Return `{script: its command}`, from raw files to a submission."""
    data, weights = work / "data", work / "weights" / "modern.h5"
    size = ["--height", MODERN.height, "--width", MODERN.width, "--soft-masks"]
    recipe = ["--recipe", MODERN.name, "--epochs", epochs]
    commands = {
        "extract_data.py": ["--raw", work / "raw", "--data", data],
        "preprocess.py": ["--data", data, *size],
        "train.py": ["--data", data, "--out", weights, *recipe],
        "predict.py": [
            *("--data", data, "--weights", weights, "--out", work / "predictions")
        ],
    }
    return {name: [sys.executable, name, *flags] for name, flags in commands.items()}


def cpu_seconds():
    """Return the user and system seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_steps(commands):
    """Run each step in turn; return `{step: row}`, and "all" of them."""
    rows = {}
    for name, each in commands.items():
        print(name, file=sys.stderr, flush=True)
        before = cpu_seconds()
        seconds, peak, _ = measure.run(each)
        rows[name] = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds() - before,
            "peak_anonymous_mb": peak,
        }
    rows["all"] = {
        "seconds": sum(row["seconds"] for row in rows.values()),
        "cpu_seconds": sum(row["cpu_seconds"] for row in rows.values()),
        "peak_anonymous_mb": max(row["peak_anonymous_mb"] or 0 for row in rows.values()),
    }
    for row in rows.values():
        row["share"] = row["seconds"] / rows["all"]["seconds"]
    return rows


def run_stock(raw, share, epochs):
    """Return rows as of `run_steps` of stock Keras, as if of all frames."""
    script = Path(__file__).parent / "stock_whole.py"
    _, peak, output = measure.run([sys.executable, script, raw, share, epochs])
    seconds = json.loads(output.splitlines()[-1])
    seconds = {name: n / (1 if name == START else share) for name, n in seconds.items()}
    rows = {f"stock: {name}": {"seconds": n} for name, n in seconds.items()}
    total = sum(seconds.values())
    rows["stock: all"] = {"seconds": total, "peak_anonymous_mb": peak}
    for row in rows.values():
        row["share"] = row["seconds"] / total
    return rows


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=1)
    add = parser.add_argument
    add("--work", type=Path, default="whole", help="folder for all that is made")
    text = "size of the phantom, in shares of the challenge's"
    add("--scale", type=command.number(0, 1), default=1.0, help=text)
    text = "of the frames that stock Keras works on; its seconds are divided by it"
    add("--stock-share", type=command.number(0, 1), default=0.1, help=text)
    add("--epochs", type=command.whole(1), default=MODERN.epochs, help="of both")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    work = args.work.resolve()
    make_phantom(work / "raw", args.scale)
    shutil.rmtree(work / "weights", ignore_errors=True)  # which train.py would keep
    rows = run_steps(list_steps(work, args.epochs))
    rows |= run_stock(work / "raw", args.stock_share, args.epochs)
    measure.print_table("step", rows, COLUMNS)
    ratio = rows["stock: all"]["seconds"] / rows["all"]["seconds"]
    print(
        f"stock Keras takes {ratio:.1f} times as long (from {args.stock_share:.0%} of it)"
    )
    settings = {key: getattr(args, key) for key in ("scale", "stock_share", "epochs")}
    measure.keep("whole", settings, rows | {"ratio": ratio}, args.results)


if __name__ == "__main__":
    main()
