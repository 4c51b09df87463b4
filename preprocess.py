"""Resize the extracted frames, scale them, and split them by subject.

    python preprocess.py --data data --height 96 --width 96
    python preprocess.py --data own --like data
    python preprocess.py --data own --like weights/unet_nerve.h5

Reads   data/imgs_train.npy, data/imgs_mask_train.npy, data/extract.json
Writes  data/x_train.npy, data/y_train.npy, data/x_val.npy, data/y_val.npy,
        data/preprocess.json; with --contradictory also data/contradictory.csv

Folders prepared with --like one of them are sources that train.py takes together.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nerve import command, machine
from nerve.files import atomic
from nerve.files.arrays import Array, ArrayWriter, scratch_array
from nerve.frames import agreement, foreign
from nerve.frames.geometry import Geometry
from nerve.frames.split import find_sweeps, split_frames
from nerve.prediction.inference import scale
from nerve.prediction.networks import read_trained
from nerve.records import (
    Part,
    Split,
    read_extract,
    read_split,
    read_training_frames,
    to_dict,
)

SIDE = 96  # pixels
BLOCK = 64  # frames resized by a thread at a time
RECORD, LISTED = "preprocess.json", "contradictory.csv"


def fit_mask(mask: np.ndarray, geometry: Geometry, soft: bool) -> np.ndarray:
    """Return a uint8 mask of 0 or 255 at another size.

    Soft, it keeps each pixel's share of nerve, 0 to 255; else 255 where that is half.
    """
    if not mask.any():  # as most are
        return np.zeros(geometry.size, np.uint8)
    small = geometry.fit(mask)
    return small if soft else np.where(small >= 128, np.uint8(255), np.uint8(0))


def fit_frames(
    frames: np.ndarray,
    masks: np.ndarray,
    size: tuple[int, int],
    aspect: float,
    soft: bool,
    folder: Path,
) -> tuple[list[Geometry], np.ndarray, np.ndarray]:
    """Bring all frames and masks, uint8 `(N, rows, columns)`, to a size, on all cores.

    Args:
        size: (height, width) in pixels.
        aspect: As of `Geometry.of`.

    Returns:
        `(geometries, images, labels)`: the latter uint8 `(N, height, width)` in scratch
        files in `folder`.
    """
    shape, geometries = (len(frames), *size), [None] * len(frames)
    images = scratch_array(folder, shape, np.uint8)
    labels = scratch_array(folder, shape, np.uint8)

    def fit_block(start):
        stop = min(start + BLOCK, len(frames))
        for row in range(start, stop):
            frame = frames[row]
            geometry = geometries[row] = Geometry.of(frame.shape, size, aspect, {}, frame)
            images[row] = geometry.fit(frame)
            labels[row] = fit_mask(masks[row], geometry, soft)
        return stop - start

    with tqdm(total=len(frames), desc="resize", unit=" frames", disable=None) as bar:
        for count in machine.map_threads(fit_block, range(0, len(frames), BLOCK)):
            bar.update(count)
    return geometries, images, labels


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


def write_split(
    data: Path,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    scaling: tuple[float, float],
) -> dict[str, Array]:
    """Write `x_NAME.npy` and `y_NAME.npy`, float32 `(N, height, width, 1)`, each on a core.

    Args:
        name: "train" or "val".
        images: uint8 array `(N, height, width)`, all frames.
        labels: Their masks, 0 to 255.
        scaling: Mean and standard deviation of the training frames, in grey values.

    Returns:
        `{file name: its dtype, shape and hash}`.
    """
    shape = (len(rows), *images.shape[1:], 1)

    def write(item):
        file, array, scaling = item
        writer = ArrayWriter(data / file, shape, np.float32)
        for row in rows:
            writer.append(scale(array[row], *scaling)[..., np.newaxis])
        return writer.close()

    items = [(f"x_{name}.npy", images, scaling), (f"y_{name}.npy", labels, (0, 255))]
    results = tqdm(machine.map_threads(write, items), f"write {name}", 2, disable=None)
    return {item[0]: result for item, result in zip(items, results, strict=True)}


def describe(rows: np.ndarray, subjects: np.ndarray, nerve: np.ndarray) -> Part:
    """Return what preprocess.json says of these rows of the extract.

    Args:
        subjects: int array, the subject of each row of the extract.
        nerve: bool array, whether its mask shows a nerve.
    """
    mine, with_nerve = subjects[rows], int(nerve[rows].sum())
    return Part(np.unique(mine).tolist(), rows.tolist(), mine.tolist(), with_nerve)


def count_lost(
    geometries: list[Geometry], masks: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> list[str]:
    """Return warnings of masks of some rows, each of a nerve, that lost of it as fitted."""
    kept = np.array([geometries[row].kept(masks[row], labels[row]) for row in rows])
    inside = np.array(
        [geometries[row].crop.of(masks[row]).sum() / masks[row].sum() for row in rows]
    )
    small = "for {} x {} pixels; a larger size or --soft-masks keeps them"
    small = small.format(*labels.shape[1:])
    losses = (
        (inside < 1, "reach into black borders, which are cut: {:.0%} of them on average"),
        ((inside > 0) & (kept == 0), f"are empty now, too small {small}"),
        ((kept > 0) & (kept < 0.5), f"lost more than half, too thin {small}"),
    )
    return [
        f"warning: {lost.sum()} masks of a nerve {text.format(1 - inside[lost].mean())}"
        for lost, text in losses
        if lost.any()
    ]


def report(split: Split, lost: list[str], data: Path) -> None:
    """Print what was split how, and what a user should know about it.

    Args:
        lost: As of `count_lost`.
    """
    for text in lost:
        print(text)
    if not split.subjects_known:
        print(
            "no subjects are named (extract_data.py --subject-pattern, --subjects): frames "
            f"are split one by one, {len(split.same_sweep)} near-identical ones kept "
            "together"
        )
    else:
        for subject, other in split.same_sweep:
            print(
                f"subjects {other} and {subject} share near-identical frames: kept together"
            )
    if split.leaky:
        print(
            "leaky split: neighbouring frames of one video lie on both sides, so that the "
            "validation Dice says nothing about new subjects"
        )
    texts = [
        f"{len(part.rows)} frames of {len(part.subjects)} subjects "
        f"({part.with_nerve} with a nerve) for {label}"
        for part, label in ((split.train, "training"), (split.val, "validation"))
    ]
    if split.val.rows and not split.val.with_nerve:
        print("warning: no validation frame shows a nerve; choose another --seed or --fold")
    print(f"{', '.join(texts)}, {split.height} x {split.width} pixels: {data}/")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, side = parser.add_argument, command.whole(8, 2048)
    add("--data", type=Path, default="data", help="folder to read and write")
    add("--height", type=side, help=f"rows, in pixels, {SIDE} without it")
    add("--width", type=side, help=f"columns, in pixels, {SIDE} without it")
    add(
        "--like",
        type=Path,
        help="folder of arrays, or trained .h5, whose size, scaling and aspect these get; "
        "train.py then takes both together, or trains on from it",
    )
    add(
        "--split",
        choices=("subject", "frames", "none"),
        default="subject",
        help="hold out whole subjects; single frames (leaky: neighbours of one video on "
        "both sides); or nothing",
    )
    text = "deal the subjects into this many parts"
    add("--folds", type=command.whole(2), help=text)
    add("--fold", type=command.whole(0), help="the part held out, below FOLDS")
    add("--seed", type=command.whole(0), default=0, help="seed of the split")
    text = "keep each pixel's share of nerve, 0 to 1, instead of 0 or 1"
    add("--soft-masks", action="store_true", help=text)
    text = "list near-identical frames whose masks contradict each other"
    add("--contradictory", action="store_true", help=text)
    text = "correlation of two frames from which they are near-identical"
    add("--similarity", type=command.number(0.5, 1), default=0.99, help=text)
    args = parser.parse_args(argv)
    if args.like and (args.height or args.width):
        parser.error("--like brings the size: it goes without --height and --width")
    args.height, args.width = args.height or SIDE, args.width or SIDE
    if (args.folds is None) != (args.fold is None):
        parser.error("--folds and --fold go together")
    if args.folds is not None:
        if args.split != "subject":
            parser.error(
                f"--folds deals subjects; it does not go with --split {args.split}"
            )
        if args.fold >= args.folds:
            parser.error(
                f"--folds {args.folds} --fold {args.fold}; expected 0 <= fold < folds"
            )
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    read_extract(args.data)  # before a folder is made or locked
    like, soft = None, args.soft_masks
    if args.like and args.like.is_dir():
        other = read_split(args.like)
        like, soft = other.inputs, soft or other.soft_masks
    elif args.like:
        like = read_trained(args.like).inputs
    with atomic.lock(args.data), atomic.aside(args.data / "preprocess") as making:
        extract, frames, masks = read_training_frames(args.data)
        subjects, areas = map(np.array, (extract.train.subject, extract.train.area))
        size, aspect = (args.height, args.width), extract.width / extract.height
        if like:
            size, aspect = (like.height, like.width), like.aspect
        sized = size, aspect, soft, args.data
        geometries, images, labels = fit_frames(frames, masks, *sized)
        group = find_sweeps(images, subjects, args.data)
        groups = np.array([group[subject] for subject in subjects])
        validation = split_frames(
            args.split, groups, areas > 0, args.folds, args.fold, args.seed
        )
        train, val = np.flatnonzero(~validation), np.flatnonzero(validation)
        if args.contradictory:
            near = agreement.find_near_identical(images, groups, args.similarity)
            agreement.list_contradictory(making / LISTED, extract.train, labels, near)
        mean, deviation = scaling(images, train)
        if like:
            mean, deviation = like.mean, like.standard_deviation
        arrays = {}
        for name, rows in (("train", train), ("val", val)):
            written = write_split(making, name, images, labels, rows, (mean, deviation))
            arrays |= written
        shown = np.array([label.any() for label in labels])
        unknown = args.split == "subject" and not extract.subjects_known
        inner = (geometries[row].inner.of(images[row]) for row in train)
        shares = (geometries[row].area_share(masks[row]) for row in train if areas[row])
        split = Split(
            height=size[0],
            width=size[1],
            mean=mean,
            standard_deviation=deviation,
            smallest_area=min(shares, default=0.0),
            split=args.split,
            leaky=args.split == "frames" or unknown,
            subjects_known=extract.subjects_known,
            soft_masks=soft,
            folds=args.folds,
            fold=args.fold,
            seed=args.seed,
            aspect=aspect,
            crops=extract.crops,
            same_sweep=[[s, g] for s, g in group.items() if s != g],
            train=describe(train, subjects, shown),
            val=describe(val, subjects, shown),
            extract={name: array.sha256 for name, array in extract.arrays.items()},
            arrays=arrays,
            look=foreign.learn(inner, groups[train]),
        )
        atomic.write_json(making / RECORD, to_dict(split))
        atomic.move(making, args.data, [RECORD], [args.data / LISTED])
        lost = count_lost(geometries, masks, labels, np.flatnonzero(areas))
    report(split, lost, args.data)


if __name__ == "__main__":
    sys.exit(command.run(main))
