"""Resize the extracted frames, scale them, and split them by subject.

    python preprocess.py --data data --height 96 --width 96

Reads   data/imgs_train.npy, data/imgs_mask_train.npy, data/extract.json
Writes  data/x_train.npy, data/y_train.npy, data/x_val.npy, data/y_val.npy,
        data/preprocess.json; with --contradictory also data/contradictory.csv
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

import agreement
import machine
import stage
from letterbox import resize
from split import find_sweeps, split_frames

EXTRACT, PREPROCESS = "python extract_data.py", "python preprocess.py"
BLOCK = 64  # frames resized by a thread at a time


def resize_mask(mask: np.ndarray, height: int, width: int, soft: bool) -> np.ndarray:
    """Return a mask at another size, uint8 `(height, width)`.

    Args:
        mask: uint8 array `(rows, columns)`, 0 or 255.
        height: Rows wanted, in pixels.
        width: Columns wanted, in pixels.
        soft: Whether to keep each pixel's share of nerve, 0 to 255, instead of 255 where it
            is half or more, else 0.
    """
    if not mask.any():  # as most are
        return np.zeros((height, width), np.uint8)
    small = resize(mask, height, width)
    return small if soft else np.where(small >= 128, np.uint8(255), np.uint8(0))


def resize_frames(
    frames: np.ndarray,
    masks: np.ndarray,
    height: int,
    width: int,
    soft: bool,
    folder: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Resize all frames and masks on all cores.

    Args:
        frames: uint8 array `(N, rows, columns)`, 0 to 255.
        masks: uint8 array, same shape, 0 or 255.
        soft: As of `resize_mask`.
        folder: Where the scratch files go.

    Returns:
        Two uint8 arrays `(N, height, width)` in scratch files: frames, masks.
    """
    shape = (len(frames), height, width)
    images = stage.scratch_array(folder, shape, np.uint8)
    labels = stage.scratch_array(folder, shape, np.uint8)

    def resize_block(start):
        stop = min(start + BLOCK, len(frames))
        for row in range(start, stop):
            images[row] = resize(frames[row], height, width)
            labels[row] = resize_mask(masks[row], height, width, soft)
        return stop - start

    with tqdm(total=len(frames), desc="resize", unit=" frames", disable=None) as bar:
        for count in machine.map_threads(resize_block, range(0, len(frames), BLOCK)):
            bar.update(count)
    return images, labels


def scaling(images: np.ndarray, rows: Iterable[int]) -> tuple[float, float]:
    """Return mean and standard deviation of the grey values of some frames."""
    histogram = np.zeros(256, np.int64)
    for row in rows:
        histogram += np.bincount(images[row].ravel(), minlength=256)
    if not histogram.any():
        raise ValueError("no training frame is left; choose another --split")
    grey = np.arange(256)
    mean = (histogram * grey).sum() / histogram.sum()
    deviation = np.sqrt((histogram * (grey - mean) ** 2).sum() / histogram.sum())
    if deviation == 0:
        raise ValueError("all training frames are one flat grey; nothing can be learnt")
    return float(mean), float(deviation)


def smallest_area(areas: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the smallest mask's share of its frame's pixels; 0.0 where all are empty."""
    positive = areas[areas > 0]
    return float(positive.min() / (shape[0] * shape[1])) if len(positive) else 0.0


def scale(images: np.ndarray, mean: float, standard_deviation: float) -> np.ndarray:
    """Return `(image - mean) / standard deviation` as float32.

    Args:
        images: uint8 array of any shape.
        mean: Mean grey value of the training frames.
        standard_deviation: Theirs, in grey values.
    """
    table = (np.arange(256) - mean) / standard_deviation
    return table.astype(np.float32).take(images)  # twice as fast as [images]


def write_split(
    data: Path,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    scaling: tuple[float, float],
) -> dict[str, dict]:
    """Write `x_NAME.npy` and `y_NAME.npy`, float32 `(N, height, width, 1)`, each on a core.

    Args:
        data: Folder to write.
        name: "train" or "val".
        images: uint8 array `(N, height, width)`, all frames; `labels` likewise, 0 to 255.
        labels: Their masks.
        rows: int array, those to write.
        scaling: Mean and standard deviation of the training frames, in grey values.

    Returns:
        `{file name: its dtype, shape and hash}`.
    """
    shape = (len(rows), *images.shape[1:], 1)

    def write(item):
        file, array, scaling = item
        writer = stage.ArrayWriter(data / file, shape, np.float32)
        for row in rows:
            writer.append(scale(array[row], *scaling)[..., np.newaxis])
        return writer.close()

    items = [(f"x_{name}.npy", images, scaling), (f"y_{name}.npy", labels, (0, 255))]
    results = tqdm(machine.map_threads(write, items), f"write {name}", 2, disable=None)
    return {item[0]: result for item, result in zip(items, results, strict=True)}


def describe(rows: np.ndarray, subjects: np.ndarray, nerve: np.ndarray) -> dict:
    """Return what preprocess.json says of one part's frames.

    Args:
        rows: int array, their rows in the extract.
        subjects: int array `(N,)`, the subject of each row of the extract.
        nerve: bool array `(N,)`, whether its mask shows a nerve.
    """
    return {
        "subjects": np.unique(subjects[rows]).tolist(),
        "rows": rows.tolist(),
        "subject": subjects[rows].tolist(),
        "with_nerve": int(nerve[rows].sum()),
    }


def read_extract(data: Path) -> tuple[dict, np.ndarray, np.ndarray]:
    """Return `(record, frames, masks)` of the extracted training frames, checked."""
    record = stage.read_record(data / "extract.json", f"{EXTRACT} --data {data}")
    if "train" not in record:
        raise ValueError(
            f"{data}/ holds test frames alone; extract a folder with train/ for training"
        )
    repair = f"{EXTRACT} --data {data}"
    names = ("imgs_train.npy", "imgs_mask_train.npy")

    def read(name):
        return stage.read_array(data, name, record, repair)

    frames, masks = machine.map_threads(read, names)  # hashed on two cores
    return record, frames, masks


def read_split(data: Path) -> dict:
    """Return preprocess.json, refused where extract.json is of a later extraction."""
    repair = f"{PREPROCESS} --data {data}"
    split = stage.read_record(data / "preprocess.json", repair)
    if (data / "extract.json").exists():
        arrays = stage.read_record(data / "extract.json", repair).get("arrays") or {}
        if any(
            arrays.get(n, {}).get("sha256") != d for n, d in split["extract"].items()
        ):
            raise ValueError(
                f"{data}/preprocess.json is of an earlier extraction; "
                f"make it again with: {repair}"
            )
    return split


def report(record: dict, data: Path) -> None:
    """Print what was split how, and what a user should know about it."""
    if not record["subjects_known"]:
        print(
            "no subjects are named (extract_data.py --subject-pattern, --subjects): frames "
            f"are split one by one, {len(record['same_sweep'])} near-identical ones kept "
            "together"
        )
    else:
        for subject, other in record["same_sweep"]:
            print(
                f"subjects {other} and {subject} share near-identical frames: kept together"
            )
    if record["leaky"]:
        print(
            "leaky split: neighbouring frames of one video lie on both sides, so that the "
            "validation Dice says nothing about new subjects"
        )
    texts = [
        f"{len(record[name]['rows'])} frames of {len(record[name]['subjects'])} subjects "
        f"({record[name]['with_nerve']} with a nerve) for {label}"
        for name, label in (("train", "training"), ("val", "validation"))
    ]
    if record["val"]["rows"] and not record["val"]["with_nerve"]:
        print(
            "warning: no validation frame shows a nerve; choose another --seed or --fold"
        )
    size = f"{record['height']} x {record['width']} pixels"
    print(f"{', '.join(texts)}, {size}: {data}/")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default="data", help="folder to read and write")
    add("--height", type=int, default=96, help="rows, in pixels, 8 to 2048")
    add("--width", type=int, default=96, help="columns, in pixels, 8 to 2048")
    add(
        "--split",
        choices=("subject", "frames", "none"),
        default="subject",
        help="hold out whole subjects; single frames (leaky: neighbours of one video on "
        "both sides); or nothing",
    )
    add("--folds", type=int, help="deal the subjects into this many parts, 2 or more")
    add("--fold", type=int, help="the part held out, 0 to FOLDS - 1")
    add("--seed", type=int, default=0, help="seed of the split, 0 or more")
    add(
        "--soft-masks",
        action="store_true",
        help="keep each pixel's share of nerve, 0 to 1, instead of 0 or 1",
    )
    add(
        "--contradictory",
        choices=("list", "drop", "repair", "downweight"),
        help="near-identical frames whose masks contradict each other: list them; in "
        "training, drop them, replace masks by the mean over near-identical frames, or "
        "draw them less often, by how far they agree. Default: not looked for",
    )
    add(
        "--similarity",
        type=float,
        default=0.99,
        help="correlation of two frames from which they are near-identical, 0.5 to 1",
    )
    args = parser.parse_args(argv)
    for name in ("height", "width"):
        if not 8 <= getattr(args, name) <= 2048:
            parser.error(f"--{name} {getattr(args, name)}; expected 8 to 2048")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}; expected 0 or more")
    if not 0.5 <= args.similarity <= 1:
        parser.error(f"--similarity {args.similarity}; expected 0.5 to 1")
    if (args.folds is None) != (args.fold is None):
        parser.error("--folds and --fold go together")
    if args.folds is not None:
        if args.split != "subject":
            parser.error(
                f"--folds deals subjects; it does not go with --split {args.split}"
            )
        if args.folds < 2 or not 0 <= args.fold < args.folds:
            parser.error(
                f"--folds {args.folds} --fold {args.fold}; expected 0 <= fold < folds"
            )
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    stage.read_record(args.data / "extract.json", f"{EXTRACT} --data {args.data}")
    with stage.lock(args.data):
        extract, frames, masks = read_extract(args.data)
        subjects = np.array(extract["train"]["subject"])
        areas = np.array(extract["train"]["area"])
        nerve = areas > 0
        images, labels = resize_frames(
            frames, masks, args.height, args.width, args.soft_masks, args.data
        )
        group = find_sweeps(images, subjects, args.data)
        groups = np.array([group[subject] for subject in subjects])
        validation = split_frames(
            args.split, groups, nerve, args.folds, args.fold, args.seed
        )
        rows = {"train": np.flatnonzero(~validation), "val": np.flatnonzero(validation)}
        weight = None
        if args.contradictory:
            near = agreement.find_near_identical(images, groups, args.similarity)
            path = args.data / "contradictory.csv"
            agreed = agreement.list_contradictory(path, extract["train"], labels, near)
        if args.contradictory == "drop":
            rows["train"] = agreement.drop(rows["train"], agreed)
        if args.contradictory == "repair":
            agreement.repair(labels, near, rows["train"], args.soft_masks)
        if args.contradictory == "downweight":
            weight = agreement.weigh(rows["train"], agreed)
        shown = np.array([label.any() for label in labels])
        vanished = 0 if args.contradictory == "repair" else int((nerve & ~shown).sum())
        known = extract.get("subjects_known", True)
        mean, deviation = scaling(images, rows["train"])
        record = {
            "height": args.height,
            "width": args.width,
            "mean": mean,
            "standard_deviation": deviation,
            "smallest_area": smallest_area(areas[rows["train"]], frames.shape[1:]),
            "split": args.split,
            "leaky": args.split == "frames" or (args.split == "subject" and not known),
            "subjects_known": known,
            "soft_masks": args.soft_masks,
            "contradictory": args.contradictory,
            "similarity": args.similarity if args.contradictory else None,
            **{name: getattr(args, name) for name in ("folds", "fold", "seed")},
            "aspect": extract["width"] / extract["height"],
            "crops": extract.get("crops") or {},
            "same_sweep": [[s, g] for s, g in group.items() if s != g],
        }
        arrays = {}
        for name, part in rows.items():
            record[name] = describe(part, subjects, shown)
            written = write_split(
                args.data, name, images, labels, part, (mean, deviation)
            )
            arrays.update(written)
        if weight is not None:
            record["train"]["weight"] = weight.round(4).tolist()
        record["extract"] = {n: a["sha256"] for n, a in extract["arrays"].items()}
        record["arrays"] = arrays
        paths, stale = [args.data / name for name in arrays], []
        (paths if args.contradictory else stale).append(args.data / "contradictory.csv")
        stage.publish(args.data / "preprocess.json", record, paths, stale)
    if vanished:
        print(
            f"warning: {vanished} masks of a nerve are too small for {args.height} x "
            f"{args.width} pixels and are empty now; --soft-masks keeps them, as does a "
            "larger size"
        )
    report(record, args.data)


if __name__ == "__main__":
    sys.exit(stage.run(main))
