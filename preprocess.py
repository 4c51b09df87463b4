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

from nerve import command, machine, records
from nerve.files import atomic
from nerve.files.arrays import Array, ArrayWriter, scratch_array
from nerve.frames import agreement, foreign
from nerve.frames.geometry import Geometry
from nerve.frames.split import find_sweeps, split_frames
from nerve.prediction.inference import scale
from nerve.prediction.networks import read_trained
from nerve.records import Inputs, Part, Split, read_training_frames

SIDE = 96  # pixels
RECORD, LISTED = "preprocess.json", "contradictory.csv"


def fit_frames(
    frames: np.ndarray,
    masks: np.ndarray,
    size: tuple[int, int],
    aspect: float,
    soft: bool,
    folder: Path,
) -> tuple[list[Geometry], np.ndarray, np.ndarray]:
    """Bring all frames and masks, uint8 `(N, rows, columns)`, to (height, width).

    Returns:
        `(geometries, images, labels)`: the latter uint8 `(N, height, width)` in scratch
        files in `folder`.
    """
    shape = len(frames), *size
    images, labels = (scratch_array(folder, shape, np.uint8) for _ in range(2))

    def fit(row):
        geometry = Geometry.of(frames.shape[1:], size, aspect, {}, frames[row])
        images[row] = geometry.fit(frames[row])
        labels[row] = geometry.fit_mask(masks[row], soft)
        return geometry

    fitted = machine.map_threads(fit, range(len(frames)))
    bar = tqdm(fitted, "resize", len(frames), unit=" frames", disable=None)
    return list(bar), images, labels


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
        images: uint8 `(N, height, width)`, all frames; `labels` their masks, 0 to 255.
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
        return file, writer.close()

    items = [(f"x_{name}.npy", images, scaling), (f"y_{name}.npy", labels, (0, 255))]
    return dict(tqdm(machine.map_threads(write, items), f"write {name}", 2, disable=None))


def describe(rows: np.ndarray, subjects: np.ndarray, nerve: np.ndarray) -> Part:
    """Return what preprocess.json says of these rows of the extract.

    Of each row of it are its subject, an int, and a bool, whether its mask shows a nerve.
    """
    mine, with_nerve = subjects[rows], int(nerve[rows].sum())
    return Part(np.unique(mine).tolist(), rows.tolist(), mine.tolist(), with_nerve)


def count_lost(
    geometries: list[Geometry], masks: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> list[str]:
    """Return warnings of masks of some rows, each of a nerve, that lost of it as fitted."""
    kept, inside = np.empty((2, len(rows)))
    for k, row in enumerate(rows):
        geometry, mask = geometries[row], masks[row]
        kept[k] = geometry.kept(mask, labels[row])
        inside[k] = geometry.crop.of(mask).sum() / mask.sum()
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
    """Print what was split how, and what a user should know about it, `lost` at first."""
    for text in lost:
        print(text)
    if not split.subjects_known:
        print(
            "no subjects are named (extract_data.py --subject-pattern, --subjects): frames "
            f"are split one by one, {len(split.same_sweep)} near-identical ones kept "
            "together"
        )
    for pair in split.same_sweep if split.subjects_known else ():
        names = " and ".join(map(str, sorted(pair)))
        print(f"subjects {names} share near-identical frames: kept together")
    if split.leaky:
        print(
            "leaky split: neighbouring frames of one video lie on both sides, so that the "
            "validation Dice says nothing about new subjects"
        )
    if split.val.rows and not split.val.with_nerve:
        print("warning: no validation frame shows a nerve; choose another --seed or --fold")
    texts = [
        f"{len(part.rows)} frames of {len(part.subjects)} subjects "
        f"({part.with_nerve} with a nerve) for {label}"
        for part, label in ((split.train, "training"), (split.val, "validation"))
    ]
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
    text = "hold out subjects, single frames (leaky: videos lie on both sides), or nothing"
    add("--split", choices=("subject", "frames", "none"), default="subject", help=text)
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
    if args.folds and args.split != "subject":
        parser.error(f"--folds deals subjects; it does not go with --split {args.split}")
    if args.folds and args.fold >= args.folds:
        given = f"--folds {args.folds} --fold {args.fold}"
        parser.error(f"{given}; expected 0 <= fold < folds")
    return args


def read_like(path: Path | None) -> tuple[Inputs | None, bool]:
    """Return how the network of --like takes frames, and whether its masks are soft."""
    if path and path.is_dir():
        split = records.read_split(path)
        return split.inputs, split.soft_masks
    return (read_trained(path).inputs if path else None), False


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    records.read_extract(args.data)  # before a folder is made or locked
    like, soft = read_like(args.like)
    soft = soft or args.soft_masks
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
        asked = {name: getattr(args, name) for name in ("split", "folds", "fold", "seed")}
        validation = split_frames(groups=groups, nerve=areas > 0, **asked)
        train, val = np.flatnonzero(~validation), np.flatnonzero(validation)
        if args.contradictory:
            near = agreement.find_near_identical(images, groups, args.similarity)
            agreement.list_contradictory(making / LISTED, extract.train, labels, near)
        own = scaling(images, train)
        mean, deviation = (like.mean, like.standard_deviation) if like else own
        written = [
            write_split(making, name, images, labels, rows, (mean, deviation))
            for name, rows in (("train", train), ("val", val))
        ]
        shown = np.array([label.any() for label in labels])
        unknown = args.split == "subject" and not extract.subjects_known
        inner = (geometries[row].inner.of(images[row]) for row in train)
        shares = (geometries[row].area_share(masks[row]) for row in train if areas[row])
        split = Split(
            **asked,
            height=size[0],
            width=size[1],
            mean=mean,
            standard_deviation=deviation,
            smallest_area=min(shares, default=0.0),
            leaky=args.split == "frames" or unknown,
            subjects_known=extract.subjects_known,
            soft_masks=soft,
            aspect=aspect,
            crops=extract.crops,
            same_sweep=[[s, g] for s, g in group.items() if s != g],
            train=describe(train, subjects, shown),
            val=describe(val, subjects, shown),
            extract={name: array.sha256 for name, array in extract.arrays.items()},
            arrays=written[0] | written[1],
            look=None if extract.any_scanner else foreign.learn(inner, groups[train]),
        )
        atomic.write_json(making / RECORD, records.to_dict(split))
        atomic.move(making, args.data, [RECORD], [args.data / LISTED])
        lost = count_lost(geometries, masks, labels, np.flatnonzero(areas))
    report(split, lost, args.data)


if __name__ == "__main__":
    sys.exit(command.run(main))
