"""Make a synthetic ultrasound data set in exactly the challenge's layout.

    python phantom.py --out raw --train 600 --test 100 --subjects 12 --seed 0

Reads   nothing
Writes  raw/train/S_I.tif, raw/train/S_I_mask.tif, raw/test/N.tif, raw/train_masks.csv,
        raw/sample_submission.csv, raw/test_truth.csv, raw/SHA256SUMS, raw/phantom.json

Each subject has an anatomy (anatomy.py), which a scanner (scanner.py) shows along a sweep
of the probe past the brachial plexus; with --nerve limb a scanner of its own, which shows
another anatomy in every frame (limb.py). The same command replaces what a killed run left.
"""

import argparse
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import scipy
from tqdm import tqdm

from nerve import command, machine
from nerve.files import atomic
from nerve.files.run_length import HEIGHT, WIDTH, encode
from nerve.phantom import limb
from nerve.phantom.anatomy import STREAM_FRAME, draw_mask
from nerve.phantom.scanner import make_subject, render, scan
from nerve.phantom.sweep import PREVALENCE, Frame, plan_frames

VERSION = 2  # of the pictures: raise it when the same seed gives other bytes
LZW = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
# one strip and no predictor, as in the challenge's files
LZW += [cv2.IMWRITE_TIFF_ROWSPERSTRIP, HEIGHT, cv2.IMWRITE_TIFF_PREDICTOR, 1]
RECORD = "phantom.json"
RERUN = "python phantom.py"
TABLES = {
    "train_masks.csv": ("subject", "img", "pixels"),
    "sample_submission.csv": ("img", "pixels"),
    "test_truth.csv": ("img", "pixels", "subject", "image"),
}


def make_frame(frame: Frame, seed: int, nerve: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture and its mask, 0 or 255, each uint8 `(HEIGHT, WIDTH)`."""
    subject = make_subject(seed, frame.subject, nerve)
    if nerve == "limb":
        rng = np.random.default_rng([seed, STREAM_FRAME, frame.subject, frame.image])
        canvas, mask = limb.draw_frame(rng, frame.nerve)
        return scan(subject, canvas, frame.sweep), mask
    image = render(subject, frame.sweep, frame.visibility)
    return image, draw_mask(subject, frame, seed)


def write_frame(frame: Frame, seed: int, nerve: str, out: Path) -> str:
    """Write one frame's files; return its encoded mask."""
    image, mask = make_frame(frame, seed, nerve)
    pictures = {".tif": image}
    if frame.name.startswith("train/"):
        pictures["_mask.tif"] = mask
    for end, picture in pictures.items():
        path, content = out / f"{frame.name}{end}", cv2.imencode(".tif", picture, LZW)[1]
        path.unlink(missing_ok=True)  # of a killed run; a link is not followed
        with atomic.writing(path, len(content)), open(path, "xb") as file:
            file.write(content)  # no fsync of each: `os.sync` of all
    return encode(mask)


def list_made(frames: list[Frame]) -> set[str]:
    """Return the relative paths of all files of a data set but its record."""
    masks = [f.name for f in frames if f.name.startswith("train/")]
    names = [f"{f.name}.tif" for f in frames] + [f"{name}_mask.tif" for name in masks]
    return {"SHA256SUMS", *TABLES, *names}


def check_folder(out: Path, record: dict, frames: list[Frame]) -> bool:
    """Tell whether `out` holds the data set, complete.

    Raises:
        ValueError: it holds files of others, or a phantom with other parameters.
    """
    everything = out.rglob("*") if out.is_dir() else ()
    found = {path.relative_to(out).as_posix() for path in everything if path.is_file()}
    # the latter of a run killed before its first record
    found -= {".lock", atomic.temporary(RECORD).as_posix()}
    mend = "choose another --out, or empty that folder"
    old = atomic.read_record(out / RECORD, RERUN) if RECORD in found else {}
    made = list_made(frames)
    known = {RECORD, *made, *(atomic.temporary(n).as_posix() for n in made)}
    if found and old.get("made_by") != record["made_by"] or found - known:
        some = ", ".join(sorted(found - known or found)[:3])
        raise ValueError(f"{out}/ holds files not made by phantom.py ({some}); {mend}")
    if old and old.get("parameters") != record["parameters"]:
        flags = " ".join(f"--{k} {v}" for k, v in old.get("parameters", {}).items())
        raise ValueError(f"{out}/ holds the phantom of {flags}; run with these or {mend}")
    if old.get("complete") and (lost := made - found):
        raise ValueError(f"{out}/{min(lost)} is gone; bring it back, or {mend}")
    return bool(old.get("complete"))


def write_tables(out: Path, frames: list[Frame], pixels: dict[str, str]) -> None:
    """Write the challenge's tables and the hidden truth, of encoded masks by frame."""
    train = [f for f in frames if f.name.startswith("train/")]
    test = [(int(f.name[5:]), f) for f in frames if f.name.startswith("test/")]
    train.sort(key=lambda f: (f.subject, f.image))
    test.sort()
    tables = (
        [(f.subject, f.image, pixels[f.name]) for f in train],
        [(number, "1 1") for number, _ in test],
        [(number, pixels[f.name], f.subject, f.image) for number, f in test],
    )
    for (name, header), rows in zip(TABLES.items(), tables, strict=True):
        with atomic.write_csv(out / name, header) as writer:
            writer.writerows(rows)


def write_phantom(out: Path, frames: list[Frame], record: dict) -> None:
    """Make the data set in `out`, the complete record last."""
    seed, nerve = (record["parameters"][name] for name in ("seed", "nerve"))
    for folder in ("train", "test"):
        atomic.make_folder(out / folder)
    atomic.write_json(out / RECORD, record)
    made = machine.map_threads(lambda frame: write_frame(frame, seed, nerve, out), frames)
    bar = tqdm(made, "frames", len(frames), unit=" frames", disable=None)
    pixels = {frame.name: mask for frame, mask in zip(frames, bar, strict=True)}
    write_tables(out, frames, pixels)
    names = sorted(list_made(frames) - {"SHA256SUMS"})
    digests = machine.map_threads(lambda name: atomic.sha256(out / name), names)
    sums = [f"{digest}  {name}\n" for name, digest in zip(names, digests, strict=True)]
    atomic.write_bytes(out / "SHA256SUMS", "".join(sums).encode())
    if hasattr(os, "sync"):  # once, where an fsync of thousands of files takes minutes
        os.sync()
    record = record | {"complete": True, "sha256sums": atomic.sha256(out / "SHA256SUMS")}
    atomic.write_json(out / RECORD, record)


def make_record(parameters: dict, frames: list[Frame]) -> dict:
    """Return what phantom.json holds while the data set is unfinished."""
    train = [f for f in frames if f.name.startswith("train/")]
    test = [f for f in frames if f.name.startswith("test/")]
    versions = {"phantom": VERSION, "numpy": np.__version__}
    return {
        "made_by": "phantom.py",
        "parameters": parameters,
        "height": HEIGHT,
        "width": WIDTH,
        "test_subjects": len({f.subject for f in test}),
        "train_with_nerve": sum(f.nerve for f in train),
        "test_with_nerve": sum(f.nerve for f in test),
        "versions": versions | {"opencv": cv2.__version__, "scipy": scipy.__version__},
        "complete": False,
    }


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, whole = parser.add_argument, command.whole
    add("--out", type=Path, default="raw", help="folder to make")
    add("--train", type=whole(1), default=600, help="training frames")
    add("--test", type=whole(1), default=100, help="test frames")
    add("--subjects", type=whole(1), default=12, help="training subjects")
    add("--seed", type=whole(0), default=0, help="of all frames")
    text = "share of the training frames that show a nerve, the challenge's"
    add("--prevalence", type=command.number(0, 1), default=PREVALENCE, help=text)
    text = "the brachial plexus by one probe, or nerves of arm and leg by any"
    add("--nerve", choices=("plexus", "limb"), default="plexus", help=text)
    args = parser.parse_args(argv)
    if args.train < args.subjects:
        parser.error(f"--train {args.train}; expected at least --subjects")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cv2.setNumThreads(1)  # frames are shared out to threads, not their rows
    parameters = {key: value for key, value in vars(args).items() if key != "out"}
    frames = plan_frames(**{k: v for k, v in parameters.items() if k != "nerve"})
    record = make_record(parameters, frames)
    news = "was complete already"
    if not check_folder(args.out, record, frames):
        with atomic.lock(args.out):
            # again: another run may have come before the lock
            if not check_folder(args.out, record, frames):
                write_phantom(args.out, frames, record)
                news = "is complete"
    print(
        f"{args.out}/ {news}: {args.train} training frames of {args.subjects} subjects "
        f"({record['train_with_nerve']} with a nerve), {args.test} test frames of "
        f"{record['test_subjects']} others ({record['test_with_nerve']} with a nerve)"
    )


if __name__ == "__main__":
    sys.exit(command.run(main))
