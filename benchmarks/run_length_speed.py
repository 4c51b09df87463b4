"""Run-length encoding of masks in the challenge's mix, beside what others use.

    python benchmarks/run_length_speed.py --masks 500 --rounds 5

Prints a table, and appends a line to benchmarks/results.jsonl. 58.8 % of the masks are
empty; the others are wavy ovals of the challenge's areas. pycocotools writes another
format (numbered from 0, packed into bytes), so that its row only gives an idea.
"""

import functools
import sys

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve.files import run_length

OURS = "run_length.encode"
COLUMNS = {"masks_per_second": ("masks/s", ".0f"), "ratio": ("ours to it", ".1f")}


def loop(mask):
    """Return the encoding of a mask, looking at each pixel in turn."""
    runs, inside = [], False
    for number, value in enumerate(mask.ravel(order="F").tolist(), 1):
        if value and inside:
            runs[-1] += 1
        elif value:
            runs += [number, 1]
        inside = value
    return " ".join(map(str, runs))


def snippet(mask):
    """Return the encoding as most of Kaggle's kernels: a loop over nerve pixels."""
    dots = np.where(mask.T.flatten() == 1)[0]
    runs, previous = [], -2
    for dot in dots:
        if dot > previous + 1:
            runs.extend((dot + 1, 0))
        runs[-1] += 1
        previous = dot
    return " ".join(str(number) for number in runs)


def difference_snippet(mask):
    """Return the encoding as the rest does: by the differences of a flattened mask."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(number) for number in runs)


def encoders():
    """Return `{name: function of a mask}`; pycocotools where it is installed."""
    functions = {
        OURS: run_length.encode,
        "loop over all pixels": loop,
        "NumPy, loop over the nerve's pixels": snippet,
        "NumPy, differences": difference_snippet,
    }
    if measure.has("pycocotools", "its row"):
        from pycocotools import mask as coco

        def encode(mask):
            return coco.encode(np.asfortranarray(mask))

        functions["pycocotools, another format"] = encode
    return functions


def check(functions, masks):
    """Refuse to compare functions that do not write the same.

    Raises:
        ValueError: one of them writes something else than ours.
    """
    for name, function in functions.items():
        for mask in masks:
            found, expected = function(mask), run_length.encode(mask)
            if isinstance(found, str) and found != expected:
                raise ValueError(f"{name}: {found[:40]!r}; expected {expected[:40]!r}")


def encode_all(function, masks):
    """Encode all masks."""
    for mask in masks:
        function(mask)


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=5)
    add = parser.add_argument
    add("--masks", type=int, default=500, help="masks a round, 1 or more")
    add("--height", type=int, default=run_length.HEIGHT, help="rows, in pixels")
    add("--width", type=int, default=run_length.WIDTH, help="columns, in pixels")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    masks = measure.draw_masks(args.masks, args.height, args.width)
    functions = encoders()
    check(functions, masks)
    samples = {name: [] for name in functions}
    for _ in range(args.rounds):
        for name, function in functions.items():
            seconds = measure.seconds_of(functools.partial(encode_all, function, masks))
            samples[name].append({"seconds": seconds})
    results = measure.summarize(samples, "seconds")
    for row in results.values():
        row["masks_per_second"] = args.masks / row["seconds"]
        row["ratio"] = 1 / row["ratio"]
    measure.print_table(f"{args.masks} masks", results, COLUMNS)
    settings = {"masks": args.masks, "rounds": args.rounds}
    measure.keep("run_length_speed", settings, results, args.results)


if __name__ == "__main__":
    main()
