"""Frames held out from training, read and checked: never ones the weights have seen."""

from pathlib import Path

import numpy as np

from preprocess import read_extract, read_split


def searched_on(settings: dict, split: dict) -> list[int]:
    """Return the validation subjects that the weights' limits were searched on.

    Subjects of other data sets may have the same numbers: only those count whose frames
    the weights, too, were trained on or beside.

    Args:
        settings: The weights' record.
        split: `preprocess.json`.
    """
    extract = split["extract"]["imgs_train.npy"]
    parts = settings.get("trained_on") or []
    if extract not in [part["imgs_train_sha256"] for part in parts]:
        return []
    searched = set(settings.get("limits_searched_on") or [])
    return sorted(searched & set(split["val"]["subjects"]))


def is_own(settings: dict, split: dict) -> bool:
    """Tell whether weights were trained on just these arrays."""
    arrays = {name: array["sha256"] for name, array in split["arrays"].items()}
    return settings.get("data", {}).get("arrays") == arrays


def trained_on(settings: dict, split: dict) -> list[int]:
    """Return the validation subjects that the weights, or those before, were trained on.

    Args:
        settings: The weights' record.
        split: `preprocess.json`; of another extraction, whose subjects may be others, none.
    """
    parts = settings.get("trained_on") or []
    if is_own(settings, split):
        parts = parts[:-1]  # the last is the training on this split's other frames
    extract, found = split["extract"]["imgs_train.npy"], set()
    for part in parts:
        if part["imgs_train_sha256"] == extract:
            found |= set(part["subjects"])
    return sorted(found & set(split["val"]["subjects"]))


def check_unseen(settings: dict, split: dict, data: Path) -> None:
    """Refuse or mark validation frames that the weights were trained on.

    Args:
        settings: The weights' record.
        split: `preprocess.json`.
        data: Folder, for the error.
    """
    if shared := searched_on(settings, split):
        print(
            "note: threshold, smallest area and presence were searched on subjects "
            f"{', '.join(map(str, shared))}, which are validation subjects here: the "
            "scores are a little too good"
        )
    if split["leaky"]:
        print("leaky split: these scores say nothing about new subjects")
    if seen := trained_on(settings, split):
        raise ValueError(
            f"the weights were trained on subjects {', '.join(map(str, seen))} of "
            f"{data}/preprocess.json's validation frames; split as for their training, or "
            "train again"
        )
    if is_own(settings, split):
        return
    for part in settings.get("trained_on") or []:
        shared = sorted(set(part["subjects"]) & set(split["val"]["subjects"]))
        if not shared:
            continue
        names = ", ".join(map(str, shared))
        print(
            f"note: the weights were trained on other data whose subjects {names} are "
            "numbered as validation subjects here; if they are the same people, the "
            "scores are too good"
        )


def read_validation(
    settings: dict, data: Path
) -> tuple[dict, dict, dict, np.ndarray, np.ndarray]:
    """Return `(settings, split, extract, frames, masks)` of held-out frames, checked.

    The settings are the weights', without crops where the extraction has cropped already.

    Args:
        settings: The weights' record.
        data: Folder of the arrays.

    Raises:
        ValueError: the split is of an earlier extraction, or the weights were trained on
            subjects that it holds out.
    """
    split = read_split(data)
    extract, frames, masks = read_extract(data)
    check_unseen(settings, split, data)
    if extract.get("crops"):
        settings = {**settings, "crops": {}}
    return settings, split, extract, frames, masks
