"""Extraction and preprocessing, as whole processes, beside the bare library calls.

    python benchmarks/stages.py --raw raw --rounds 3

Prints a table, and appends a line to benchmarks/results.jsonl. The arrays go to --data,
which is removed afterwards.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import measure

# Bare loops over the same files; sys.argv[1] is the raw or data folder.
CV2_THREADS = """
import sys, os, glob, cv2
from concurrent.futures import ThreadPoolExecutor
cv2.setNumThreads(1)
paths = sorted(glob.glob(sys.argv[1] + "/t*/*.tif"))
with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    total = sum(pool.map(lambda p: cv2.imread(p, cv2.IMREAD_GRAYSCALE).size, paths))
"""
PILLOW = """
import sys, glob, numpy as np
from PIL import Image
for path in sorted(glob.glob(sys.argv[1] + "/t*/*.tif")):
    np.asarray(Image.open(path))
"""
CV2_RESIZE = """
import sys, os, cv2, numpy as np
from concurrent.futures import ThreadPoolExecutor
cv2.setNumThreads(1)
arrays = [np.load(f"{sys.argv[1]}/{n}.npy", mmap_mode="r")
          for n in ("imgs_train", "imgs_mask_train")]
def resize(start):
    for array in arrays:
        for frame in array[start:start + 64]:
            cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA)
with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    list(pool.map(resize, range(0, len(arrays[0]), 64)))
"""


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=3)
    add = parser.add_argument
    add("--raw", type=Path, default="raw", help="raw folder to read")
    add("--data", type=Path, help="new folder; default: a temporary one")
    return parser.parse_args(argv)


def print_table(title, results, frames):
    """Print one row a command."""
    for row in results.values():
        row["frames_per_second"] = frames / row["seconds"]
    columns = {
        "seconds": ("seconds", ".2f"),
        "frames_per_second": ("frames/s", ".0f"),
        "peak_anonymous_mb": ("RssAnon MB", ".0f"),
        "ratio": ("ratio", ".2f"),
    }
    measure.print_table(title, results, columns)


def main(argv=None):
    args = parse_args(argv)
    raw = args.raw.resolve()
    data = (args.data or Path(tempfile.mkdtemp())).resolve()
    files = len(list(raw.glob("t*/*.tif")))
    frames = len(list(raw.glob("train/*_mask.tif")))
    python = sys.executable
    try:
        extract = measure.compare(
            {
                "bare cv2.imread, all cores": [python, "-c", CV2_THREADS, raw],
                "extract_data.py": [
                    *(python, "extract_data.py", "--raw", raw, "--data", data)
                ],
                "plain Pillow loop": [python, "-c", PILLOW, raw],
            },
            args.rounds,
        )
        print_table(f"{files} files", extract, files)
        preprocess = measure.compare(
            {
                "bare cv2.resize, all cores": [python, "-c", CV2_RESIZE, data],
                "preprocess.py": [python, "preprocess.py", "--data", data],
            },
            args.rounds,
        )
        print_table(f"{frames} frames and masks", preprocess, frames)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    settings = {"files": files, "frames": frames, "rounds": args.rounds}
    results = {"extract": extract, "preprocess": preprocess}
    measure.keep("stages", settings, results, args.results)


if __name__ == "__main__":
    main()
