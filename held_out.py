"""Frames held out from training, read and checked: never ones the weights have seen."""

from pathlib import Path

import numpy as np

import stage
from preprocess import read_extract

PREPROCESS = "python preprocess.py"


def check_unseen(settings: dict, split: dict, data: Path) -> None:
    """Refuse or mark validation frames that the weights were trained on.

    Args:
        settings: The weights' record.
        split: `preprocess.json`.
        data: Folder, for the error.
    """
    searched = set(settings.get("limits_searched_on") or [])
    if shared := sorted(searched & set(split["val"]["subjects"])):
        print(
            "note: threshold, smallest area and presence were searched on subjects "
            f"{', '.join(map(str, shared))}, which are validation subjects here: the "
            "scores are a little too good"
        )
    if settings.get("data", {}).get("arrays") == {
        name: array["sha256"] for name, array in split["arrays"].items()
    }:
        if split["leaky"]:
            print("leaky split: these scores say nothing about new subjects")
        return
    for part in settings.get("trained_on") or []:
        shared = sorted(set(part["subjects"]) & set(split["val"]["subjects"]))
        if not shared:
            continue
        names = ", ".join(map(str, shared))
        if part["imgs_train_sha256"] == split["extract"]["imgs_train.npy"]:
            raise ValueError(
                f"the weights were trained on subjects {names} of {data}/preprocess.json's "
                "validation frames; split as for their training, or train again"
            )
        print(
            f"note: the weights were trained on other data whose subjects {names} are "
            "numbered as validation subjects here; if they are the same people, the "
            "scores are too good"
        )


def read_validation(
    settings: dict, data: Path
) -> tuple[dict, dict, np.ndarray, np.ndarray]:
    """Return `(split, extract, frames, masks)` of held-out frames, checked.

    Args:
        settings: The weights' record.
        data: Folder of the arrays.

    Raises:
        ValueError: the split is of an earlier extraction, or the weights were trained on
            subjects that it holds out.
    """
    split = stage.read_record(data / "preprocess.json", f"{PREPROCESS} --data {data}")
    extract, frames, masks = read_extract(data)
    if (
        split["extract"]["imgs_train.npy"]
        != extract["arrays"]["imgs_train.npy"]["sha256"]
    ):
        raise ValueError(
            f"{data}/preprocess.json is of an earlier extraction; "
            f"make it again with: {PREPROCESS} --data {data}"
        )
    check_unseen(settings, split, data)
    return split, extract, frames, masks
