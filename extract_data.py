"""Read the challenge's raw TIFFs, check every one, and write them as three arrays.

    python extract_data.py --raw raw --data data
    python extract_data.py --images frames --masks masks --data data

Reads   raw/train/S_I.tif, raw/train/S_I_mask.tif, raw/test/N.tif, and to check them,
        where present, raw/train_masks.csv and raw/SHA256SUMS; or frames of your own
        with a mask each (own_frames.py)
Writes  data/imgs_train.npy, data/imgs_mask_train.npy, data/imgs_test.npy,
        data/extract.json
"""

import argparse
import contextlib
import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

import challenge
import machine
import own_frames
import run_length
import stage

ARRAYS = {
    "train": ("imgs_train.npy", "imgs_mask_train.npy"),
    "test": ("imgs_test.npy",),
}


def attempt(function: Callable, item):
    """Return `function(item)`, or the error that it raised for a bad file."""
    try:
        return function(item)
    except (ValueError, OSError) as error:
        return error


def extract(
    frames: list[tuple],
    function: Callable,
    writers: list[stage.ArrayWriter],
    skip_bad: bool,
    label: str,
) -> tuple[list[tuple], list[int], list[dict]]:
    """Append the arrays that `function` reads for each frame to the writers.

    Args:
        frames: Tuples of numbers, in the order of the rows.
        function: Frame to a tuple of arrays, one for each writer.
        writers: `stage.ArrayWriter`s.
        skip_bad: Leave bad frames out instead of raising.
        label: What the progress bar shows.

    Returns:
        `(kept, areas, skipped)`: the frames written, the number of nonzero pixels in the
        last array of each, and `{"frame", "why"}` of each left out.
    """
    kept, areas, skipped = [], [], []
    results = machine.map_threads(functools.partial(attempt, function), frames)
    bar = tqdm(results, label, total=len(frames), unit=" frames", disable=None)
    for frame, arrays in zip(frames, bar, strict=True):
        if isinstance(arrays, Exception):
            if not skip_bad:
                raise ValueError(f"{arrays} (--skip-bad leaves such frames out)")
            skipped.append({"frame": frame, "why": str(arrays)})
            continue
        for writer, array in zip(writers, arrays, strict=True):
            writer.append(array)
        kept.append(frame)
        areas.append(int(np.count_nonzero(arrays[-1])))
    return kept, areas, skipped


def extract_folder(
    folder: Path,
    data: Path,
    size: tuple[int, int],
    digests: dict[str, str] | None,
    skip_bad: bool,
) -> tuple[dict, dict]:
    """Write the arrays of `raw/train` or `raw/test`.

    Returns:
        `(part, arrays)` of `extract.json`: numbers and counts; dtype, shape and hash.
    """
    table, csv_path = None, folder.parent / "train_masks.csv"
    if folder.name == "train" and (
        csv_path.exists() or csv_path.name in (digests or ())
    ):
        if digests and csv_path.name in digests:
            challenge.read_file(csv_path, csv_path.name, digests)
        table = run_length.read_train_masks(csv_path)

    def read(frame):
        if folder.name == "train":
            return challenge.read_pair(frame, folder, size, digests, table)
        return (challenge.read_tiff(folder / f"{frame[0]}.tif", size, digests),)

    frames = challenge.list_frames(folder, table, digests)
    names, shape = ARRAYS[folder.name], (len(frames), *size)
    writers = [stage.ArrayWriter(data / name, shape, np.uint8) for name in names]
    kept, areas, skipped = extract(frames, read, writers, skip_bad, folder.name)
    for entry in skipped:
        entry["frame"] = "_".join(map(str, entry["frame"]))
        entry["why"] = entry["why"].replace(f"{folder.parent}/", "")
    if not kept:
        raise ValueError(
            f"{folder} holds no good frame; the first: {skipped[0]['why']}"
        )
    part = {"image": [frame[-1] for frame in kept], "skipped": skipped}
    if folder.name == "train":
        part = {"subject": [frame[0] for frame in kept], **part, "area": areas}
    # at once, so that the disk is waited for once
    records = machine.map_threads(stage.ArrayWriter.close, writers)
    return part, dict(zip(names, records, strict=True))


def extract_own(plan: tuple, folders: list[Path], data: Path, skip_bad: bool) -> dict:
    """Write the arrays of people's own frames; return the record.

    Args:
        plan: What `own_frames.plan` returned.
        folders: Of the frames and of the masks.
        data: Folder to write.
        skip_bad: As of `extract`.
    """
    frames, size, read, record = plan
    paths = [data / name for name in ARRAYS["train"]]
    shape = (len(frames), *size)
    writers = [stage.ArrayWriter(path, shape, np.uint8) for path in paths]
    kept, areas, skipped = extract(sorted(frames), read, writers, skip_bad, "own")
    for entry in skipped:
        entry["frame"] = frames[entry["frame"]]["name"]
        for folder in folders:
            entry["why"] = entry["why"].replace(f"{folder}/", "")
    if not kept:
        raise ValueError(
            f"{folders[0]} holds no good frame; the first: {skipped[0]['why']}"
        )
    closed = map(stage.ArrayWriter.close, writers)
    return record | {
        "height": size[0],
        "width": size[1],
        "arrays": dict(zip(ARRAYS["train"], closed, strict=True)),
        "train": {
            "subject": [frame[0] for frame in kept],
            "image": [frame[1] for frame in kept],
            "name": [frames[frame]["name"] for frame in kept],
            "size": [frames[frame]["size"] for frame in kept],
            "skipped": skipped,
            "area": areas,
        },
    }


def doubt(areas: list[int], num_pixels: int) -> str | None:
    """Return a warning where the masks' areas, in pixels, are no nerves'; else None."""
    areas = [area for area in areas if area]
    if not areas:
        return (
            "warning: no mask shows a nerve (does --label name a class that is there?)"
        )
    if (share := float(np.median(areas)) / num_pixels) > 0.5:
        return f"warning: masks cover {share:.0%} of their frames: are they inverted?"
    return None


def report(record: dict, data: Path) -> None:
    """Print one line of counts, and one where frames were left out."""
    texts, skipped = [], 0
    if train := record.get("train"):
        texts.append(
            f"{len(train['image'])} training frames of {len(set(train['subject']))} "
            f"subjects ({sum(area > 0 for area in train['area'])} with a nerve)"
        )
    if "test" in record:
        texts.append(f"{len(record['test']['image'])} test frames")
    print(f"{', '.join(texts)}, {record['height']} x {record['width']} pixels: {data}/")
    if train and (warning := doubt(train["area"], record["height"] * record["width"])):
        print(warning)
    for name in challenge.NAMES:
        skipped += len(record.get(name, {"skipped": ()})["skipped"])
    if skipped:
        print(f"{skipped} bad frames left out; {data}/extract.json says which and why")


def note_replaced(path: Path, record: dict) -> None:
    """Say so where an extraction of other frames is about to be replaced.

    Args:
        path: extract.json.
        record: What it will hold.
    """
    if not path.exists():
        return
    with contextlib.suppress(ValueError):
        before = stage.read_record(path, "-").get("train") or {}
        frames = len(before.get("image") or ())
        now = record.get("train") or {}
        if frames and any(before.get(n) != now.get(n) for n in ("image", "subject")):
            print(f"note: replacing another extraction, of {frames} training frames")


def find_stale(record: dict) -> list[str]:
    """Return the arrays of an earlier run that this one did not make."""
    names = [name for group in ARRAYS.values() for name in group]
    return [name for name in names if name not in record["arrays"]]


def extract_raw(
    folders: list[Path], manifest: Path | None, data: Path, skip_bad: bool
) -> dict:
    """Write the arrays of the challenge's folders; return the record.

    Args:
        folders: What `challenge.find_folders` returned.
        manifest: List of SHA-256, or None for SHA256SUMS beside the folders, if any.
        data: Folder to write.
        skip_bad: As of `extract`.
    """
    beside = folders[0].parent / "SHA256SUMS"
    manifest = manifest or (beside if beside.exists() else None)
    digests = challenge.read_manifest(manifest) if manifest else None
    size = challenge.find_size(folders[0])
    record = {"height": size[0], "width": size[1], "arrays": {}}
    for folder in folders:
        record[folder.name], arrays = extract_folder(
            folder, data, size, digests, skip_bad
        )
        record["arrays"].update(arrays)
    return record


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--raw",
        type=Path,
        default="raw",
        help="folder that holds train/, test/ or both",
    )
    parser.add_argument("--data", type=Path, default="data", help="folder to write")
    parser.add_argument(
        "--manifest",
        type=Path,
        help="SHA-256 list that every file must match; None takes RAW/SHA256SUMS, if any",
    )
    parser.add_argument(
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
        "subject. Default: every frame is its own",
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
    if args.manifest and args.images:
        parser.error("--manifest lists the files of --raw, not of --images")
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
    with stage.lock(args.data):
        if args.images:
            how = args.crop, args.label, args.subject_pattern, args.subjects
            plan = own_frames.plan(pairs, *how)
            folders = [args.images, args.masks]
            record = extract_own(plan, folders, args.data, args.skip_bad)
        else:
            record = extract_raw(folders, args.manifest, args.data, args.skip_bad)
        note_replaced(args.data / "extract.json", record)
        stage.publish(
            args.data / "extract.json",
            record,
            paths=[args.data / name for name in record["arrays"]],
            stale=[args.data / name for name in find_stale(record)],
        )
    report(record, args.data)


if __name__ == "__main__":
    sys.exit(stage.run(main))
