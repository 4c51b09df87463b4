"""What masks lose when they are written as outlines and read again, uncorrected.

    python benchmarks/round_trip.py --data data

Writes the masks of data/imgs_mask_train.npy as `predict.py --labels` does, for labelme and
for CVAT, reads them by extract_data.py, and compares. Prints the lowest and the mean Dice
of those with a nerve, points a mask, and what writing and reading a frame takes.
"""

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

import extract_data
from nerve.frames import labels
from nerve.scoring import scores

COLUMNS = {
    "lowest": ("lowest Dice", ".5f"),
    "mean": ("mean Dice", ".5f"),
    "points": ("points (median)", ".0f"),
    "most_points": ("most", ".0f"),
    "write_ms": ("ms to write", ".0f"),
    "read_ms": ("ms to read", ".0f"),
}


def try_format(kind, frames, masks):
    """Return a row of the table, of uint8 arrays `(N, height, width)`; masks 0 and 1."""
    with tempfile.TemporaryDirectory() as work:
        folder, data = Path(work) / "labels", Path(work) / "data"
        begin = time.perf_counter()
        with labels.writing(folder, kind) as write:
            for number, (frame, mask) in enumerate(zip(frames, masks, strict=True), 1):
                write(f"frame_{number:05}", frame, mask)
        written = time.perf_counter()
        words = f"--images {folder} --masks {folder} --data {data}"
        with contextlib.redirect_stdout(io.StringIO()):
            extract_data.main(words.split())
        end = time.perf_counter()
        found = np.load(data / "imgs_mask_train.npy") // 255
    dice = [scores.dice(t, p) for t, p in zip(masks, found, strict=True)]
    shown = masks.any(axis=(1, 2))
    points = [sum(len(s.points) for s in labels.trace(mask)) for mask in masks[shown]]
    return {
        "lowest": float(min(dice)),
        "mean": float(np.mean(np.array(dice)[shown])),
        "points": float(np.median(points)),
        "most_points": max(points),
        "write_ms": (written - begin) * 1000 / len(masks),
        "read_ms": (end - written) * 1000 / len(masks),
    }


def main(argv=None):
    parser = measure.start_parser(__doc__, 1)
    parser.add_argument("--data", type=Path, default="data", help="extracted frames")
    args = parser.parse_args(argv)
    frames = np.load(args.data / "imgs_train.npy", mmap_mode="r")
    masks = np.load(args.data / "imgs_mask_train.npy") // 255
    rows = {kind: try_format(kind, frames, masks) for kind in labels.FORMATS}
    print(f"{len(masks)} frames, {masks.any(axis=(1, 2)).sum()} with a nerve")
    measure.print_table("outlines for", rows, COLUMNS)
    measure.keep(
        "labels", {"data": args.data.name, "frames": len(masks)}, rows, args.results
    )


if __name__ == "__main__":
    main()
