"""Make a synthetic ultrasound data set in exactly the challenge's layout.

    python phantom.py --out raw --train 600 --test 100 --subjects 12 --seed 0

Reads   nothing
Writes  raw/train/S_I.tif, raw/train/S_I_mask.tif, raw/test/N.tif, raw/train_masks.csv,
        raw/sample_submission.csv, raw/test_truth.csv, raw/SHA256SUMS, raw/phantom.json

Each subject has an anatomy (anatomy.py), which a scanner (scanner.py) shows along a sweep
of the probe past the brachial plexus. The same command continues a killed run.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import scipy
from tqdm import tqdm

import command
import machine
import stage
from anatomy import STREAM_PLAN, draw_mask, smooth_random
from run_length import HEIGHT, WIDTH, encode
from scanner import make_subject, render

EMPTY_TRAIN, EMPTY_TEST = 0.588, 0.53  # share of frames without a nerve, challenge
VERSION = 2  # of the pictures: raise it when the same seed gives other bytes
LZW = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
# one strip and no predictor, as in the challenge's files
LZW += [cv2.IMWRITE_TIFF_ROWSPERSTRIP, HEIGHT, cv2.IMWRITE_TIFF_PREDICTOR, 1]
RECORD, JOURNAL = "phantom.json", ".phantom.journal"
RERUN = "python phantom.py"
TABLES = {
    "train_masks.csv": ("subject", "img", "pixels"),
    "sample_submission.csv": ("img", "pixels"),
    "test_truth.csv": ("img", "pixels", "subject", "image"),
}


class Frame(NamedTuple):
    """One picture to make."""

    name: str  # train/3_17 or test/5
    subject: int
    image: int
    sweep: float  # position of the probe, 0 to 1
    nerve: bool  # annotated
    visibility: float  # of the roots, 0 to 1


def plan_frames(train: int, test: int, subjects: int, seed: int) -> list[Frame]:
    """List every frame of the data set, subject by subject."""
    test_subjects = max(round(subjects * test / train), min(4, test))
    frames = plan_subjects(train, subjects, 1, 1 - EMPTY_TRAIN, seed)
    frames = [f._replace(name=f"train/{f.subject}_{f.image}") for f in frames]
    others = plan_subjects(test, test_subjects, subjects + 1, 1 - EMPTY_TEST, seed)
    # subject 0 stands for the plan of the test numbers: real subjects start at 1
    numbers = np.random.default_rng([seed, STREAM_PLAN, 0]).permutation(test) + 1
    pairs = zip(others, numbers.tolist(), strict=True)
    return frames + [f._replace(name=f"test/{number}") for f, number in pairs]


def plan_subjects(
    num_frames: int, num_subjects: int, first: int, share: float, seed: int
) -> list[Frame]:
    """Plan sweeps of which `share` of all frames, to the frame, show a nerve."""
    rngs = [
        np.random.default_rng([seed, STREAM_PLAN, first + i])
        for i in range(num_subjects)
    ]
    sizes = np.arange(num_frames, num_frames + num_subjects) // num_subjects
    # shares of 0.02 to 0.89 (mean 0.42, sd 0.22) were counted in the challenge
    logits = np.array([rng.normal(-0.4, 1.1) for rng in rngs])
    low, high = -20.0, 20.0
    for _ in range(60):
        shift = (low + high) / 2
        wanted = sizes / (1 + np.exp(-logits - shift))
        low, high = (shift, high) if wanted.sum() < share * num_frames else (low, shift)
    ends = np.floor(np.cumsum(wanted) + 0.5).astype(int)
    ends[-1] = int(share * num_frames + 0.5)
    positives = np.diff(ends, prepend=0)
    frames = []
    for i, rng in enumerate(rngs):
        frames += plan_sweep(rng, first + i, int(sizes[i]), int(positives[i]))
    return frames


def plan_sweep(
    rng: np.random.Generator, subject: int, num_frames: int, num_nerve: int
) -> list[Frame]:
    """Plan one sweep: the nerve shows where a smooth curve of the position is high.

    Frames just below the threshold show roots half out of the plane, unannotated.
    """
    sweep = (np.arange(num_frames) + rng.uniform(0.2, 0.8, num_frames)) / num_frames
    height = smooth_random(rng, 0.4, 1.6)(sweep)
    order = np.sort(height)[::-1]
    edges = np.concatenate([[order[0] + 1], order, [order[-1] - 1]])
    above = height - edges[num_nerve : num_nerve + 2].mean()
    images = rng.permutation(num_frames) + 1
    visible = np.where(above > 0, 0.7 + 0.6 * above, 0.35 + 0.9 * above).clip(0, 1)
    rows = zip(images.tolist(), sweep, above > 0, visible, strict=True)
    return [
        Frame("", subject, image, float(position), bool(nerve), float(visibility))
        for image, position, nerve, visibility in rows
    ]


def make_frame(frame: Frame, seed: int) -> tuple[dict[str, bytes], str]:
    """Return one frame's files, `{relative path: bytes}`, and its encoded mask."""
    subject = make_subject(seed, frame.subject)
    pictures = {f"{frame.name}.tif": render(subject, frame.sweep, frame.visibility)}
    mask = draw_mask(subject, frame, seed)
    if frame.name.startswith("train/"):
        pictures[f"{frame.name}_mask.tif"] = mask
    files = {
        path: cv2.imencode(".tif", picture, LZW)[1].tobytes()
        for path, picture in pictures.items()
    }
    return files, encode(mask)


def write_frame(frame: Frame, seed: int, out: Path) -> dict:
    """Write one frame; return its line of the journal."""
    files, pixels = make_frame(frame, seed)
    digests = {}
    for path, content in files.items():
        # no fsync: a file is trusted after a crash only if its hash is in the journal
        with stage.writing(out / path, len(content)):
            stage.temporary(out / path).write_bytes(content)
        os.replace(stage.temporary(out / path), out / path)
        digests[path] = hashlib.sha256(content).hexdigest()
    return {"frame": frame.name, "pixels": pixels, "sha256": digests}


def is_intact(out: Path, digests: dict[str, str]) -> bool:
    """Tell whether every file of `{relative path: SHA-256}` is there, unchanged."""
    return all(
        (out / path).is_file() and stage.sha256(out / path) == digest
        for path, digest in digests.items()
    )


def read_journal(out: Path, frames: list[Frame]) -> dict[str, dict]:
    """Return the journal lines, by frame name, of the frames intact in `out`."""
    lines = {}
    if (out / JOURNAL).exists():
        for text in (out / JOURNAL).read_bytes().splitlines():
            try:
                line = json.loads(text)
                lines[line["frame"]] = line
            except (ValueError, KeyError, TypeError):
                continue  # torn by a crash: that frame is made again
    names = [frame.name for frame in frames if frame.name in lines]
    checks = machine.map_threads(
        lambda name: is_intact(out, lines[name]["sha256"]), names
    )
    return {name: lines[name] for name, good in zip(names, checks, strict=True) if good}


def check_folder(out: Path, record: dict, frames: list[Frame]) -> str:
    """Tell how far `out` is: "new", "unfinished" or "complete".

    Raises:
        ValueError: it holds files of others, or a phantom with other parameters.
    """
    everything = out.rglob("*") if out.is_dir() else ()
    found = {str(path.relative_to(out)) for path in everything if not path.is_dir()}
    found -= {".lock", str(stage.temporary(RECORD))}  # killed before its first record
    if not found:
        return "new"
    mend = "choose another --out, or empty that folder"
    old = stage.read_record(out / RECORD, RERUN) if RECORD in found else {}
    if old.get("made_by") != record["made_by"]:
        some = ", ".join(sorted(found)[:3])
        raise ValueError(f"{out}/ holds files not made by phantom.py ({some}); {mend}")
    if old.get("parameters") != record["parameters"]:
        flags = " ".join(f"--{k} {v}" for k, v in old.get("parameters", {}).items())
        raise ValueError(
            f"{out}/ holds the phantom of {flags}; run with these or {mend}"
        )
    if old.get("complete"):
        made = {"SHA256SUMS", *TABLES, *(f"{f.name}.tif" for f in frames)}
        made |= {f"{f.name}_mask.tif" for f in frames if f.name.startswith("train/")}
        if lost := made - found:
            raise ValueError(f"{out}/{min(lost)} is gone; bring it back, or {mend}")
        return "complete"
    if old != record:
        raise ValueError(f"{out}/ was begun with other versions of libraries; {mend}")
    names = [JOURNAL, "SHA256SUMS", *TABLES]
    names += [f.name + end for f in frames for end in (".tif", "_mask.tif")]
    known = {RECORD, *names, *(str(stage.temporary(name)) for name in names)}
    if foreign := found - known:
        raise ValueError(
            f"{out}/{min(foreign)} was not made by phantom.py; move it away"
        )
    return "unfinished"


def write_tables(
    out: Path, frames: list[Frame], journal: dict[str, dict]
) -> dict[str, str]:
    """Write the challenge's tables and the hidden truth; return their SHA-256."""
    train = [f for f in frames if f.name.startswith("train/")]
    test = [(int(f.name[5:]), f) for f in frames if f.name.startswith("test/")]
    train.sort(key=lambda f: (f.subject, f.image))
    test.sort()
    pixels = {name: line["pixels"] for name, line in journal.items()}
    tables = (
        [(f.subject, f.image, pixels[f.name]) for f in train],
        [(number, "1 1") for number, _ in test],
        [(number, pixels[f.name], f.subject, f.image) for number, f in test],
    )
    digests = {}
    for (name, header), rows in zip(TABLES.items(), tables, strict=True):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")  # the challenge's line ends
        writer.writerows([header, *rows])
        content = text.getvalue().encode()
        stage.write_bytes(out / name, content)
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def write_phantom(out: Path, frames: list[Frame], record: dict) -> None:
    """Make what is missing of the data set in `out`, the complete record last."""
    seed = record["parameters"]["seed"]
    for folder in ("train", "test"):
        stage.make_folder(out / folder)
    stage.write_bytes(out / RECORD, stage.to_json(record).encode())
    journal = read_journal(out, frames)
    missing = [frame for frame in frames if frame.name not in journal]
    made = machine.map_threads(lambda frame: write_frame(frame, seed, out), missing)
    bar = tqdm(made, "frames", len(frames), initial=len(journal), unit="frame")
    with stage.writing(out / JOURNAL), bar, open(out / JOURNAL, "a") as file:
        file.write("\n")  # ends a torn line
        for line in bar:
            journal[line["frame"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
    digests = write_tables(out, frames, journal)
    for line in journal.values():
        digests |= line["sha256"]
    sums = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    stage.write_bytes(out / "SHA256SUMS", sums.encode())
    os.sync()  # once, where an fsync for each of thousands of files would take minutes
    record = record | {"complete": True, "sha256sums": stage.sha256(out / "SHA256SUMS")}
    stage.write_bytes(out / RECORD, stage.to_json(record).encode())


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
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("raw"), help="folder to make")
    parser.add_argument("--train", type=int, default=600, help="training frames")
    parser.add_argument("--test", type=int, default=100, help="test frames")
    parser.add_argument("--subjects", type=int, default=12, help="training subjects")
    parser.add_argument("--seed", type=int, default=0, help="0 or more")
    args = parser.parse_args(argv)
    if args.subjects < 1:
        parser.error(f"--subjects is {args.subjects}; expected 1 or more")
    if args.train < args.subjects:
        parser.error(f"--train is {args.train}; expected at least --subjects")
    if args.test < 1:
        parser.error(f"--test is {args.test}; expected 1 or more")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; expected 0 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cv2.setNumThreads(1)  # frames are shared out to threads, not their rows
    parameters = {key: value for key, value in vars(args).items() if key != "out"}
    frames = plan_frames(**parameters)
    record = make_record(parameters, frames)
    news = "was complete already"
    if check_folder(args.out, record, frames) != "complete":
        with stage.lock(args.out):
            # again: another run may have come before the lock
            if check_folder(args.out, record, frames) != "complete":
                write_phantom(args.out, frames, record)
                news = "is complete"
    if (args.out / JOURNAL).exists():  # no longer needed, also if killed right here
        (args.out / JOURNAL).unlink(missing_ok=True)
    print(
        f"{args.out}/ {news}: {args.train} training frames of {args.subjects} subjects "
        f"({record['train_with_nerve']} with a nerve), {args.test} test frames of "
        f"{record['test_subjects']} others ({record['test_with_nerve']} with a nerve)"
    )


if __name__ == "__main__":
    sys.exit(command.run(main))
