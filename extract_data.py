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

import numpy as np
from tqdm import tqdm

from nerve import command, machine
from nerve.files import atomic, run_length
from nerve.files.arrays import Array, ArrayWriter
from nerve.frames import challenge, own_frames
from nerve.records import Extract, Extracted, Skipped, read_extract, to_dict

ARRAYS = {"train": ("imgs_train.npy", "imgs_mask_train.npy"), "test": ("imgs_test.npy",)}


def attempt(function: Callable, item):
    """Return `function(item)`, or the error that it raised for a bad file."""
    try:
        return function(item)
    except (ValueError, OSError) as error:
        return error


def extract(
    frames: list[tuple],
    function: Callable,
    writers: list[ArrayWriter],
    skip_bad: bool,
    label: str,
) -> tuple[list[tuple], list[int], list[tuple[tuple, str]]]:
    """Append the arrays that `function` reads for each frame to the writers.

    Args:
        frames: Tuples of numbers, in the order of the rows.
        function: Frame to a tuple of arrays, one for each writer.
        writers: `ArrayWriter`s.
        skip_bad: Leave bad frames out instead of raising.

    Returns:
        `(kept, areas, skipped)`: the frames written, the number of nonzero pixels in the
        last array of each, and `(frame, why)` of each left out.
    """
    kept, areas, skipped = [], [], []
    results = machine.map_threads(functools.partial(attempt, function), frames)
    bar = tqdm(results, label, total=len(frames), unit=" frames", disable=None)
    for frame, arrays in zip(frames, bar, strict=True):
        if isinstance(arrays, Exception):
            if not skip_bad:
                raise ValueError(f"{arrays} (--skip-bad leaves such frames out)")
            skipped.append((frame, str(arrays)))
            continue
        for writer, array in zip(writers, arrays, strict=True):
            writer.append(array)
        kept.append(frame)
        areas.append(int(np.count_nonzero(arrays[-1])))
    return kept, areas, skipped


def list_skipped(skipped: list[tuple[str, str]], folders: list[Path]) -> list[Skipped]:
    """Return what extract.json says of frames left out, without their folders' paths.

    Args:
        skipped: `(frame, why)` of each.
    """
    for folder in folders:
        skipped = [(name, why.replace(f"{folder}/", "")) for name, why in skipped]
    return [Skipped(name, why) for name, why in skipped]


def extract_folder(
    folder: Path, data: Path, size: tuple[int, int], skip_bad: bool
) -> tuple[Extracted, dict[str, Array]]:
    """Write the arrays of `raw/train` or `raw/test`.

    Returns:
        `(rows, arrays)` of extract.json.
    """
    table, csv_path = None, folder.parent / "train_masks.csv"
    if folder.name == "train" and csv_path.exists():
        table = run_length.read_train_masks(csv_path)

    def read(frame):
        if folder.name == "train":
            return challenge.read_pair(frame, folder, size, table)
        return (challenge.read_tiff(folder / f"{frame[0]}.tif", size),)

    frames = challenge.list_frames(folder, table)
    names, shape = ARRAYS[folder.name], (len(frames), *size)
    writers = [ArrayWriter(data / name, shape, np.uint8) for name in names]
    kept, areas, bad = extract(frames, read, writers, skip_bad, folder.name)
    bad = [("_".join(map(str, frame)), why) for frame, why in bad]
    skipped = list_skipped(bad, [folder.parent])
    if not kept:
        raise ValueError(f"{folder} holds no good frame; the first: {skipped[0].why}")
    rows = Extracted(image=[frame[-1] for frame in kept], skipped=skipped)
    if folder.name == "train":
        subjects = [frame[0] for frame in kept]
        rows = dataclasses.replace(rows, subject=subjects, area=areas)
    # at once, so that the disk is waited for once
    records = machine.map_threads(ArrayWriter.close, writers)
    return rows, dict(zip(names, records, strict=True))


def extract_own(
    plan: own_frames.Plan, folders: list[Path], data: Path, skip_bad: bool
) -> Extract:
    """Write the arrays of people's own frames; return the record."""
    paths = [data / name for name in ARRAYS["train"]]
    shape = (len(plan.frames), *plan.size)
    writers = [ArrayWriter(path, shape, np.uint8) for path in paths]
    order = sorted(plan.frames)
    kept, areas, bad = extract(order, plan.read, writers, skip_bad, "own")
    bad = [(plan.frames[frame].name, why) for frame, why in bad]
    skipped = list_skipped(bad, folders)
    if not kept:
        raise ValueError(f"{folders[0]} holds no good frame; the first: {skipped[0].why}")
    closed = map(ArrayWriter.close, writers)
    return Extract(
        height=plan.size[0],
        width=plan.size[1],
        arrays=dict(zip(ARRAYS["train"], closed, strict=True)),
        train=Extracted(
            subject=[frame[0] for frame in kept],
            image=[frame[1] for frame in kept],
            name=[plan.frames[frame].name for frame in kept],
            size=[plan.frames[frame].size for frame in kept],
            skipped=skipped,
            area=areas,
        ),
        subjects_known=plan.subjects_known,
        subject_names=plan.subject_names,
        crops=plan.crops,
    )


def doubt(areas: list[int], num_pixels: int) -> str | None:
    """Return a warning where the masks' areas, in pixels, are no nerves'; else None."""
    areas = [area for area in areas if area]
    if not areas:
        return "warning: no mask shows a nerve (does --label name a class that is there?)"
    if (share := float(np.median(areas)) / num_pixels) > 0.5:
        return f"warning: masks cover {share:.0%} of their frames: are they inverted?"
    return None


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
    if train and (warning := doubt(train.area, record.height * record.width)):
        print(warning)
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


def extract_raw(folders: list[Path], data: Path, skip_bad: bool) -> Extract:
    """Write the arrays of the challenge's folders; return the record."""
    size = challenge.find_size(folders[0])
    record = Extract(height=size[0], width=size[1], arrays={})
    for folder in folders:
        rows, arrays = extract_folder(folder, data, size, skip_bad)
        changes = {folder.name: rows, "arrays": record.arrays | arrays}
        record = dataclasses.replace(record, **changes)
    return record


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--raw", type=Path, default="raw", help="folder that holds train/, test/ or both")
    add("--data", type=Path, default="data", help="folder to write")
    add(
        "--skip-bad",
        action="store_true",
        help="leave bad frames out, and list each in extract.json",
    )
    own = parser.add_argument_group("frames of your own, instead of --raw")
    own.add_argument("--images", type=Path, help="folder of frames, in any names")
    own.add_argument(
        "--masks",
        type=Path,
        help="folder of masks of the same stems, or of labelme's .json; or CVAT's .xml",
    )
    own.add_argument("--label", help="what is nerve: number of a class, or its name")
    own.add_argument(
        "--subject-pattern",
        help="regular expression; what its first group finds in a frame's name is its "
        "subject; without it every frame is its own",
    )
    own.add_argument("--subjects", type=Path, help="CSV with columns name and subject")
    own.add_argument(
        "--crop",
        action="store_true",
        help="cut borders and text that are the same in all frames of a size",
    )
    args = parser.parse_args(argv)
    if (args.images is None) != (args.masks is None):
        parser.error("--images and --masks go together")
    if args.subject_pattern and args.subjects:
        parser.error("--subject-pattern or --subjects, not both")
    for name in ("label", "subject_pattern", "subjects", "crop"):
        if getattr(args, name) and not args.images:
            parser.error(f"--{name.replace('_', '-')} goes with --images and --masks")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    machine.keep_freed_memory()
    warnings.filterwarnings("ignore", module="PIL")  # of damage that is then refused
    if args.images:
        pairs = own_frames.find_pairs(args.images, args.masks)
    else:
        folders = challenge.find_folders(args.raw)
    with atomic.lock(args.data):
        if args.images:
            how = args.crop, args.label, args.subject_pattern, args.subjects
            plan = own_frames.plan(pairs, *how)
            folders = [args.images, args.masks]
            record = extract_own(plan, folders, args.data, args.skip_bad)
        else:
            record = extract_raw(folders, args.data, args.skip_bad)
        note_replaced(args.data, record)
        names = [name for group in ARRAYS.values() for name in group]
        atomic.publish(
            args.data / "extract.json",
            to_dict(record),
            paths=[args.data / name for name in record.arrays],
            stale=[args.data / name for name in names if name not in record.arrays],
        )
    report(record, args.data)


if __name__ == "__main__":
    sys.exit(command.run(main))
