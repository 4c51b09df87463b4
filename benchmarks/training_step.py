"""A training step: ours, stock Keras, PyTorch and MONAI, beside bare matrix products.

    python benchmarks/training_step.py --rounds 5 --torch-python OTHER_VENV/bin/python

Prints two tables, and appends a line to benchmarks/results.jsonl: the classic recipe's step
by each contender (a process of its own, in turn; an epoch of --steps is timed after one to
warm up), and the modern recipe's step beside its own convolutions, each run alone.
"""

import sys

import measure

HERE = measure.ROOT / "benchmarks"
# glibc keeps freed blocks, as it does for TensorFlow here: 200,000 page faults in 6 steps
# of PyTorch instead of 1,050,000, and 0.4 system seconds instead of 1.7 to 3.9.
KEEP_FREED = ("env", "MALLOC_MMAP_MAX_=0", f"MALLOC_TRIM_THRESHOLD_={1 << 34}")
STOCK, OURS = "stock Keras, fit, float32", "train.py"
COLUMNS = {
    "seconds": ("seconds/step", ".4f"),
    "images_per_second": ("images/s", ".1f"),
    "gflops": ("GFLOP/s", ".0f"),
    "peak_anonymous_mb": ("RssAnon MB", ".0f"),
    "ratio": ("to stock", ".2f"),
}
CONVOLUTION_COLUMNS = {
    "seconds": ("ms", ".2f"),
    "gflops": ("GFLOP/s", ".0f"),
    "share": ("of the step", ".1%"),
    "what": (f"{'kernel, input':>35}", "s"),
}


def torch_rows(python, flags):
    """Return `{row: command}` of one PyTorch release; none where it is absent."""
    release = measure.version("torch", python)
    if release is None:
        print(f"left out, since {python} has no torch: its PyTorch rows")
        return {}
    command = [*KEEP_FREED, python, HERE / "torch_step.py"]
    name, rows = f"PyTorch {release}", {}
    for precision in ("bfloat16", "float32"):
        for layout in ("contiguous", "channels_last"):
            how = [*flags, "--precision", precision, "--layout", layout]
            rows[f"{name}, {precision}, {layout}"] = [*command, "unet", *how]
            rows[f"{name}, {precision}, {layout}, compiled"] = [
                *(*command, "unet", *how, "--compile")
            ]
    if monai := measure.version("monai", python):
        for layout in ("contiguous", "channels_last"):
            how = [*flags, "--precision", "bfloat16", "--layout", layout]
            label = f"MONAI {monai} BasicUNet, {release}, bfloat16, {layout}"
            rows[label] = [*command, "monai", *how]
    else:
        print(f"left out, since {python} has no monai: its MONAI rows")
    return rows


def product_rows(pythons, size):
    """Return `{row: command}` of bare matrix products in TensorFlow and PyTorch."""
    rows, flags = {}, ["product", "--size", size]
    for precision in ("float32", "bfloat16"):
        command = [sys.executable, HERE / "keras_step.py", *flags]
        name = f"{size} x {size} product, {precision}"
        rows[f"{name}, TensorFlow"] = [*command, "--precision", precision]
        for python in pythons:
            if release := measure.version("torch", python):
                command = [*KEEP_FREED, python, HERE / "torch_step.py", *flags]
                rows[f"{name}, PyTorch {release}"] = [*(*command, "--precision", precision)]
    return rows


def measure_classic(pythons, flags, product_size, rows, rounds):
    """Return the medians of each row of the first table.

    Args:
        pythons: Interpreters that may have PyTorch.
        flags: What the contenders are given.
        product_size: Rows of the matrices.
        rows: Texts, one of which a row's name must hold; None for all. Stock Keras stays.
        rounds: How often each contender runs.
    """
    keras_step = [sys.executable, HERE / "keras_step.py"]
    commands = {
        STOCK: [*keras_step, "stock", *flags],
        OURS: [*keras_step, "ours", *flags],
    }
    for python in pythons:
        commands |= torch_rows(python, flags)
    commands |= product_rows(pythons, product_size)
    commands = measure.choose(commands, rows, STOCK)
    results = measure.summarize(measure.take_turns(commands, rounds), "seconds")
    for row in results.values():
        row["gflops"] = row["gflop"] / row["seconds"]
        if "frames" in row:
            row["images_per_second"] = row["frames"] / row["seconds"]
        else:
            del row["ratio"]  # a product's to a step says nothing
    return results


def print_verdict(results):
    """Print our step beside stock Keras and the best of PyTorch."""
    if OURS not in results:
        return
    ours = results[OURS]["images_per_second"]
    print(f"{OURS} ({results[OURS]['precision']}): {results[OURS]['ratio']:.2f} of stock")
    others = {n: r for n, r in results.items() if n.startswith("PyTorch")}
    if others:
        best = max(others, key=lambda name: others[name]["images_per_second"])
        ratio = ours / others[best]["images_per_second"]
        print(f"{OURS}: {ratio:.2f} of the best PyTorch row, {best}")


def measure_modern(flags, rounds):
    """Return the modern recipe's step and its convolutions, sorted by their time."""
    command = [sys.executable, HERE / "keras_step.py", "modern", *flags]
    (result,) = measure.take_turns({"modern recipe": [*command, "--rounds", rounds]}, 1)[
        "modern recipe"
    ]
    alone = result["convolutions"]
    for row in alone.values():
        row["gflops"] = row["gflop"] / row["seconds"]
        row["share"] = row["seconds"] / result["step"]
    ordered = sorted(alone, key=lambda name: -alone[name]["seconds"])
    return {**result, "convolutions": {name: alone[name] for name in ordered}}


def print_modern(result):
    """Print the table of convolutions, and what they are of the step."""
    rows = {
        name: {**row, "seconds": 1000 * row["seconds"]}
        for name, row in result["convolutions"].items()
    }
    measure.print_table("modern recipe, alone", rows, CONVOLUTION_COLUMNS)
    for name, label in (("step", "batch ready"), ("fed_step", "as trained")):
        seconds = result[name]
        print(
            f"step, {label} ({result['precision']}): {1000 * seconds:.1f} ms, "
            f"{result['frames'] / seconds:.1f} images/s"
        )
    print(f"its convolutions alone are {result['share']:.1%} of the step, batch ready")


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=5)
    add = parser.add_argument
    add(
        "--torch-python",
        action="append",
        help="interpreter with a PyTorch release; may be repeated; default: this one",
    )
    add("--product-size", type=int, default=3072, help="rows of the matrices")
    add("--rows", nargs="+", help="only rows whose name holds one of these texts")
    add(
        "--tables",
        nargs="+",
        choices=("classic", "modern"),
        default=("classic", "modern"),
        help="what to measure",
    )
    measure.add_step_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    flags = ["--steps", args.steps]
    for name in ("height", "width", "filters", "batch_size"):
        if (value := getattr(args, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", value]
    pythons = args.torch_python or [sys.executable]
    results = {}
    if "classic" in args.tables:
        results["classic"] = measure_classic(
            pythons, flags, args.product_size, args.rows, args.rounds
        )
        measure.print_table("classic recipe", results["classic"], COLUMNS)
        print_verdict(results["classic"])
    if "modern" in args.tables:
        results["modern"] = measure_modern(flags, args.rounds)
        print_modern(results["modern"])
    settings = {"rounds": args.rounds, "flags": flags}
    measure.keep("training_step", settings, results, args.results)


if __name__ == "__main__":
    main()
