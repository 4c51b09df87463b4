"""Read the challenge's raw TIFFs, check every one, and write them as three arrays.

    python extract_data.py --raw raw --data data
    python extract_data.py --images frames --masks masks --data data

Reads   raw/train/S_I.tif, raw/train/S_I_mask.tif, raw/test/N.tif, and to check them,
        where present, raw/train_masks.csv; or frames of your own with a mask each
Writes  data/imgs_train.npy, data/imgs_mask_train.npy, data/imgs_test.npy,
        data/extract.json
"""

import argparse
import contextlib
import dataclasses
import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve import command, machine
from nerve.files import atomic
from nerve.files.arrays import Array, ArrayWriter
from nerve.frames import challenge, own_frames, pairs
from nerve.frames.outlines import clean
from nerve.records import ARRAYS, Extract, Extracted, Skipped, read_extract, to_dict

RECORD = "extract.json"


def attempt(function: Callable, item):
    """Return `function(item)`, or the error that it raised for a bad file."""
    try:
        return function(item)
    except (ValueError, OSError) as error:
        return error


class Job(NamedTuple):
    """Frames to write as the rows of arrays."""

    part: str  # "train" or "test"
    frames: list[tuple[int, ...]]  # (subject, image), or (image,) of test frames
    read: Callable  # such a frame to a tuple of uint8 arrays of `size`
    size: tuple[int, int]  # (height, width)
    where: Path
    cut: list[Path]  # folders left out of messages
    name: Callable = lambda frame: "_".join(map(str, frame))


def extract(job: Job, data: Path, skip_bad: bool) -> tuple[Extracted, dict[str, Array]]:
    """Write a job's arrays; return what extract.json says of their rows, and of them."""
    names, shape = ARRAYS[job.part], (len(job.frames), *job.size)
    writers = [ArrayWriter(data / name, shape, np.uint8) for name in names]
    kept, areas, skipped = [], [], []
    results = machine.map_threads(functools.partial(attempt, job.read), job.frames)
    bar = tqdm(results, job.part, total=len(job.frames), unit=" frames", disable=None)
    for frame, found in zip(job.frames, bar, strict=True):
        if isinstance(found, Exception):
            if not skip_bad:
                raise ValueError(f"{found} (--skip-bad leaves such frames out)")
            why = str(found)
            for folder in job.cut:
                why = why.replace(f"{folder}/", "")
            skipped.append(Skipped(job.name(frame), why))
            continue
        for writer, array in zip(writers, found, strict=True):
            writer.append(array)
        kept.append(frame)
        areas.append(int(np.count_nonzero(found[-1])))
    if not kept:
        raise ValueError(f"{job.where} holds no good frame; the first: {skipped[0].why}")
    known = ([frame[0] for frame in kept], areas) if job.part == "train" else ()
    rows = Extracted([frame[-1] for frame in kept], skipped, *known)
    # at once, so that the disk is waited for once
    closed = machine.map_threads(ArrayWriter.close, writers)
    return rows, dict(zip(names, closed, strict=True))


def extract_raw(folders: list[Path], data: Path, skip_bad: bool) -> Extract:
    """Write the arrays of the challenge's folders; return the record."""
    size, parts, arrays = challenge.find_size(folders[0]), {}, {}
    for folder in folders:
        frames, read = challenge.plan(folder, size)
        job = Job(folder.name, frames, read, size, folder, [folder.parent])
        parts[folder.name], written = extract(job, data, skip_bad)
        arrays |= written
    return Extract(*size, arrays, **parts)


def extract_own(
    plan: own_frames.Plan, folders: list[Path], data: Path, skip_bad: bool
) -> Extract:
    """Write the arrays of people's own frames; return the record."""

    def name(frame):
        return plan.names[frame[1] - 1]

    job = Job("train", plan.frames, plan.read, plan.size, folders[0], folders, name)
    rows, arrays = extract(job, data, skip_bad)
    places = [image - 1 for image in rows.image]
    names, sizes = ([kept[k] for k in places] for kept in (plan.names, plan.sizes))
    return Extract(
        *plan.size,
        arrays,
        dataclasses.replace(rows, name=names, size=sizes),
        subjects_known=plan.subjects_known,
        subject_names=plan.subject_names,
        crops=plan.crops,
    )


def report(record: Extract, data: Path) -> None:
    """Print one line of counts, and one where frames were left out."""
    texts, parts = [], [part for part in (record.train, record.test) if part]
    if train := record.train:
        texts.append(
            f"{len(train.image)} training frames of {len(set(train.subject))} "
            f"subjects ({sum(area > 0 for area in train.area)} with a nerve)"
        )
    if record.test:
        texts.append(f"{len(record.test.image)} test frames")
    print(f"{', '.join(texts)}, {record.height} x {record.width} pixels: {data}/")
    if train and not any(train.area):
        print("warning: no mask shows a nerve")
    if skipped := sum(len(part.skipped) for part in parts):
        print(f"{skipped} bad frames left out; {data}/extract.json says which and why")


def note_replaced(data: Path, record: Extract) -> None:
    """Say so where an extraction of other frames is about to be replaced."""
    with contextlib.suppress(ValueError, FileNotFoundError):
        before, now = read_extract(data).train, record.train
        frames = before and [before.image, before.subject]
        if before and frames != (now and [now.image, now.subject]):
            count = len(before.image)
            print(f"note: replacing another extraction, of {count} training frames")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--raw", type=Path, default="raw", help="folder that holds train/, test/ or both")
    add("--data", type=Path, default="data", help="folder to write")
    text = "leave bad frames out, and list each in extract.json"
    add("--skip-bad", action="store_true", help=text)
    add = parser.add_argument_group("frames of your own, instead of --raw").add_argument
    add("--images", type=Path, help="folder of frames, or of one such for each subject")
    text = "folder of masks of the same stems, or labelme's .json; or CVAT's or COCO's file"
    add("--masks", type=Path, help=text)
    text = "frames without a mask show no nerve, instead of being refused"
    add("--missing-empty", action="store_true", help=text)
    add("--label", type=clean, help="what is nerve: number of a class, or its name")
    text = "regular expression; what its first group finds in a frame's name is its subject"
    add("--subject-pattern", help=f"{text}; without it every frame is its own")
    add("--subjects", type=Path, help="CSV with columns name and subject")
    text = "cut borders and text that are the same in all frames of a size, but no mask"
    add("--crop", action="store_true", help=text)
    args = parser.parse_args(argv)
    if (args.images is None) != (args.masks is None):
        parser.error("--images and --masks go together")
    if args.subject_pattern and args.subjects:
        parser.error("--subject-pattern or --subjects, not both")
    for name in ("label", "subject_pattern", "subjects", "crop", "missing_empty"):
        if getattr(args, name) and not args.images:
            parser.error(f"--{name.replace('_', '-')} goes with --images and --masks")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    machine.keep_freed_memory()
    warnings.filterwarnings("ignore", module="PIL")  # of damage that is then refused
    if args.images:
        found = pairs.find_pairs(args.images, args.masks, args.missing_empty)
    else:
        folders = challenge.find_folders(args.raw)
    notes = []
    with atomic.lock(args.data), atomic.aside(args.data / "extract") as making:
        if args.images:
            how = args.crop, args.label, args.subject_pattern, args.subjects
            plan = own_frames.plan(args.images, found, *how)
            folders = [args.images, args.masks]
            record = extract_own(plan, folders, making, args.skip_bad)
            notes = own_frames.judge(plan.seen, args.label)
        else:
            record = extract_raw(folders, making, args.skip_bad)
            if challenge.of_any_scanner(args.raw):
                record = dataclasses.replace(record, any_scanner=True)
        note_replaced(args.data, record)
        atomic.write_json(making / RECORD, to_dict(record))
        earlier = (args.data / name for group in ARRAYS.values() for name in group)
        atomic.move(making, args.data, [RECORD], earlier)
    report(record, args.data)
    for note in notes:
        print(note)


if __name__ == "__main__":
    sys.exit(command.run(main))
