"""What a training is started with: its data, and all that decides the outcome."""

import argparse
from pathlib import Path

import numpy as np

import stage
from h5_look import look
from held_out import trained_on
from precision import choose_precision
from preprocess import PREPROCESS, read_split
from recipes import FLAGS, RECIPES
from trained import read_settings

ROOT = Path(__file__).resolve().parent


def read_data(data: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Return `(record, {name: array})` of the preprocessed arrays, checked."""
    repair = f"{PREPROCESS} --data {data}"
    record = read_split(data)
    names = ("x_train", "y_train", "x_val", "y_val")
    arrays = {n: stage.read_array(data, f"{n}.npy", record, repair) for n in names}
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 4 or array.shape[3] != 1:
            raise ValueError(
                f"{data}/{name}.npy is {array.dtype} {array.shape}; expected float32 "
                f"(N, height, width, 1); make it again with: {repair}"
            )
    if not record["train"]["with_nerve"]:
        raise ValueError(
            f"no training frame of {data}/ shows a nerve; add some that do"
        )
    return record, arrays


def read_init(path: Path) -> dict:
    """Return the record beside the weights to start from; {} where there is none."""
    return read_settings(path, None) if path.with_suffix(".json").exists() else {}


def choose_settings(
    args: argparse.Namespace, record: dict, arrays: dict[str, np.ndarray]
) -> dict:
    """Return everything that decides the outcome, as NAME.json lists it."""
    recipe = RECIPES[args.recipe]
    settings = {"recipe": args.recipe, "seed": args.seed}
    found = settings["height"], settings["width"] = arrays["x_train"].shape[1:3]
    if found != (recipe["height"], recipe["width"]):
        print(
            f"note: the arrays are {found[0]} x {found[1]} pixels; recipe "
            f"{args.recipe} is meant for {recipe['height']} x {recipe['width']}"
        )
    init = read_init(args.init) if args.init else {}
    if seen := trained_on(init, record):
        raise ValueError(
            f"{args.init} was trained on subjects {', '.join(map(str, seen))}, which are "
            f"validation subjects of {args.data}/: val_dice_coef would say nothing; split "
            "as for its training, or start from other weights"
        )
    size = init.get("height", found[0]), init.get("width", found[1])
    if size != found:
        print(
            f"note: {args.init} was trained on {size[0]} x {size[1]} pixels; on arrays of "
            "that size more of it carries over"
        )
    settings |= {n: v for n, v in recipe.items() if n not in ("height", "width")}
    for name in ("network", "filters", "depth"):  # pretrained weights bring their own
        settings[name] = init.get(name, recipe[name])
    for name in FLAGS:
        settings[name] = getattr(args, name) or settings[name]
    settings["precision"], why = choose_precision(args.precision)
    print(f"precision {settings['precision']}: {why}")
    settings["keep"] = "last" if record["split"] == "none" else args.keep
    settings["init_sha256"] = stage.sha256(args.init) if args.init else None
    if settings["encoder"] and not args.init:
        look(ROOT / settings["encoder"])
    for name in ("mean", "standard_deviation", "smallest_area", "aspect", "crops"):
        settings[name] = record[name]
    settings["data"] = {
        "split": record["split"],
        "leaky": record["leaky"],
        "contradictory": record.get("contradictory"),
        "similarity": record.get("similarity"),
        "extract": record["extract"],
        "arrays": {name: array["sha256"] for name, array in record["arrays"].items()},
        "validation_subjects": record["val"]["subjects"],
    }
    mine = {
        "imgs_train_sha256": record["extract"]["imgs_train.npy"],
        "subjects": record["train"]["subjects"],
        "frames": len(record["train"]["rows"]),
        "frames_with_nerve": record["train"]["with_nerve"],
    }
    settings["trained_on"] = [*init.get("trained_on", ()), mine]
    return settings
