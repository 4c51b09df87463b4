"""What a training is started with: its data, and all that decides the outcome."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nerve.files import atomic
from nerve.files.arrays import read_array
from nerve.files.h5_look import look
from nerve.prediction.held_out import trained_on
from nerve.prediction.networks import read_trained
from nerve.records import (
    PREPROCESS,
    Data,
    Frames,
    Limits,
    Recipe,
    Split,
    Trained,
    read_split,
)

ROOT = Path(__file__).resolve().parents[2]


def read_data(data: Path) -> tuple[Split, dict[str, np.ndarray]]:
    """Return `(split, {name: array})` of the preprocessed arrays, checked."""
    repair = f"{PREPROCESS} --data {data}"
    split = read_split(data)
    names = ("x_train", "y_train", "x_val", "y_val")
    arrays = {n: read_array(data, f"{n}.npy", split.arrays, repair) for n in names}
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 4 or array.shape[3] != 1:
            raise ValueError(
                f"{data}/{name}.npy is {array.dtype} {array.shape}; expected float32 "
                f"(N, height, width, 1); make it again with: {repair}"
            )
    if not split.train.with_nerve:
        raise ValueError(f"no training frame of {data}/ shows a nerve; add some that do")
    return split, arrays


def check_init(
    init: Trained | None, path: Path, split: Split, validation: list[int]
) -> None:
    """Refuse weights to start from that have seen validation frames; note another size.

    Args:
        validation: Its validation subjects that the weights were trained on.
    """
    if validation:
        raise ValueError(
            f"{path} was trained on subjects {', '.join(map(str, validation))}, which are "
            "validation subjects here: val_dice_coef would say nothing; split as for its "
            "training, or start from other weights"
        )
    if init and (init.inputs.height, init.inputs.width) != (split.height, split.width):
        print(
            f"note: {path} was trained on {init.inputs.height} x {init.inputs.width} "
            "pixels; on arrays of that size more of it carries over"
        )


def plan(
    recipe: Recipe,
    changes: dict,
    seed: int,
    keep: str,
    precision: str,
    init_path: Path | None,
    split: Split,
) -> Trained:
    """Return everything that decides the outcome of a training, as NAME.json lists it.

    Args:
        changes: `{field: value}` of the recipe, from the command line.
    """
    if (split.height, split.width) != (recipe.height, recipe.width):
        print(
            f"note: the arrays are {split.height} x {split.width} pixels; recipe "
            f"{recipe.name} is meant for {recipe.height} x {recipe.width}"
        )
    init = None
    if init_path:
        if init_path.with_suffix(".json").exists():
            init = read_trained(init_path, None)
        check_init(init, init_path, split, trained_on(init, split) if init else [])
    if init:  # pretrained weights bring their own
        names = ("network", "filters", "depth", "dropout")
        recipe = replace(recipe, **{n: getattr(init.recipe, n) for n in names})
    recipe = replace(recipe, **changes)
    if recipe.encoder and not init_path:
        look(ROOT / recipe.encoder)
    return Trained(
        recipe=recipe,
        seed=seed,
        precision=precision,
        keep="last" if split.split == "none" else keep,
        init_sha256=atomic.sha256(init_path) if init_path else None,
        inputs=split.inputs,
        limits=Limits(0.5, split.smallest_area, 0.0),
        data=Data(
            split=split.split,
            leaky=split.leaky,
            extract=split.extract,
            arrays={name: array.sha256 for name, array in split.arrays.items()},
            validation_subjects=split.val.subjects,
        ),
        trained_on=[
            *(init.trained_on if init else ()),
            Frames(
                imgs_train_sha256=split.extract["imgs_train.npy"],
                subjects=split.train.subjects,
                frames=len(split.train.rows),
                frames_with_nerve=split.train.with_nerve,
            ),
        ],
    )
