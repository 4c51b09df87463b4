"""What a training is started with: its data, and all that decides the outcome."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nerve import records
from nerve.command import quoted
from nerve.files import atomic
from nerve.files.arrays import Joined, read_array
from nerve.prediction.held_out import trained_on
from nerve.prediction.networks import read_trained
from nerve.records import PREPROCESS, Recipe, Split, Trained, read_split


def read_source(data: Path) -> tuple[Split, dict[str, np.ndarray]]:
    """Return `(split, {name: array})` of a folder of preprocessed arrays, checked."""
    repair = f"{PREPROCESS} --data {quoted(data)}"
    split = read_split(data)
    names = ("x_train", "y_train", "x_val", "y_val")
    arrays = {n: read_array(data, f"{n}.npy", split.arrays, repair) for n in names}
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 4 or array.shape[3] != 1:
            raise ValueError(
                f"{data}/{name}.npy is {array.dtype} {array.shape}; expected float32 "
                f"(N, height, width, 1); make it again with: {repair}"
            )
    return split, arrays


def read_data(folders: Sequence[Path]) -> tuple[list[Split], dict, np.ndarray]:
    """Return `(splits, {name: Joined array}, subjects)` of all sources together, checked.

    The subjects are those of the training frames; each source's have numbers of their own.

    Raises:
        ValueError: they were not prepared alike, or no training frame shows a nerve.
    """
    splits, arrays = zip(*map(read_source, folders), strict=True)
    first = splits[0].inputs
    for folder, split in zip(folders, splits, strict=True):
        if replace(split.inputs, crops=first.crops) != first:
            raise ValueError(
                f"{folder}/ and {folders[0]}/ differ in size, scaling or aspect; mend it "
                f"with: {PREPROCESS} --data {quoted(folder)} --like {quoted(folders[0])}"
            )
    if len({split.extract["imgs_train.npy"] for split in splits}) < len(splits):
        raise ValueError(f"{', '.join(map(str, folders))}: two hold the same frames")
    if not any(split.train.with_nerve for split in splits):
        names = ", ".join(f"{folder}/" for folder in folders)
        raise ValueError(f"no training frame of {names} shows a nerve; add some that do")
    joined = {name: Joined([part[name] for part in arrays]) for name in arrays[0]}
    pairs = [(k, subject) for k, s in enumerate(splits) for subject in s.train.subject]
    _, subjects = np.unique(np.array(pairs), axis=0, return_inverse=True)
    return list(splits), joined, subjects


def read_init(path: Path, splits: Sequence[Split]) -> Trained | None:
    """Return the record of weights to start from, or None where they have none.

    Raises:
        ValueError: they have seen validation frames.
    """
    if not path.with_suffix(".json").exists():
        return None
    init, split = read_trained(path), splits[0]
    if validation := [s for part in splits for s in trained_on(init, part)]:
        raise ValueError(
            f"{path} was trained on subjects {', '.join(map(str, validation))}, which are "
            "validation subjects here: val_dice_coef would say nothing; split as for its "
            "training, or start from other weights"
        )
    if (init.inputs.height, init.inputs.width) != (split.height, split.width):
        print(
            f"note: {path} was trained on {init.inputs.height} x {init.inputs.width} "
            "pixels; on arrays of that size more of it carries over"
        )
    return init


def describe(split: Split) -> tuple[records.Data, records.Frames]:
    """Return what NAME.json says of a source's arrays, and of its training frames."""
    arrays = {name: array.sha256 for name, array in split.arrays.items()}
    validation, part = split.val.subjects, split.train
    data = records.Data(split.split, split.leaky, split.extract, arrays, validation)
    digest, num_frames = split.extract["imgs_train.npy"], len(part.rows)
    return data, records.Frames(digest, part.subjects, num_frames, part.with_nerve)


def plan(
    recipe: Recipe,
    changes: dict,
    seed: int,
    keep: str,
    precision: str,
    init_path: Path | None,
    splits: Sequence[Split],
) -> Trained:
    """Return everything that decides the outcome of a training, as NAME.json lists it.

    `changes` are of the recipe's fields, from the command line.
    """
    split = splits[0]
    if (split.height, split.width) != (recipe.height, recipe.width):
        print(
            f"note: the arrays are {split.height} x {split.width} pixels; recipe "
            f"{recipe.name} is meant for {recipe.height} x {recipe.width}"
        )
    data, frames = map(list, zip(*map(describe, splits), strict=True))
    looks = [part.look for part in splits if part.look]
    if init := init_path and read_init(init_path, splits):
        # pretrained weights bring their own
        names = ("network", "filters", "depth", "dropout")
        recipe = replace(recipe, **{n: getattr(init.recipe, n) for n in names})
        frames, looks = init.trained_on + frames, init.looks + looks
    crops = {k: v for part in splits for k, v in part.crops.items()}
    return Trained(
        recipe=replace(recipe, **changes),
        seed=seed,
        precision=precision,
        keep="last" if all(split.split == "none" for split in splits) else keep,
        init_sha256=atomic.sha256(init_path) if init_path else None,
        inputs=replace(split.inputs, crops=crops),
        limits=records.Limits(0.5, min(part.smallest_area for part in splits), 0.0),
        data=data,
        trained_on=frames,
        looks=looks,
    )
