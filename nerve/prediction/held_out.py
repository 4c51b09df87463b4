"""Frames held out from training, read and checked: never ones the weights have seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nerve import records
from nerve.command import quoted
from nerve.records import Extract, Inputs, Split, Trained


def searched_on(trained: Trained, split: Split) -> list[int]:
    """Return the validation subjects that the weights' limits were searched on.

    Subjects of other data sets may have the same numbers: only those count whose frames
    the weights, too, were trained on or beside.
    """
    extract = split.extract["imgs_train.npy"]
    if extract not in [part.imgs_train_sha256 for part in trained.trained_on]:
        return []
    return sorted(set(trained.limits_searched_on) & set(split.val.subjects))


def is_own(trained: Trained, split: Split) -> bool:
    """Tell whether weights were trained on the training frames of just this split."""
    arrays = {name: array.sha256 for name, array in split.arrays.items()}
    return any(data.arrays == arrays for data in trained.data)


def trained_on(trained: Trained, split: Split) -> list[int]:
    """Return the validation subjects that the weights, or those before, were trained on.

    Of another extraction, whose subjects may be others, none.
    """
    parts = trained.trained_on
    if is_own(trained, split):
        parts = parts[: -len(trained.data)]  # without the training on its other frames
    extract = split.extract["imgs_train.npy"]
    mine = [part.subjects for part in parts if part.imgs_train_sha256 == extract]
    return sorted(set().union(*mine) & set(split.val.subjects))


def check_unseen(trained: Trained, split: Split, data: Path, refuse: bool) -> None:
    """Refuse or mark validation frames that the weights were trained on."""
    if shared := searched_on(trained, split):
        print(
            "note: threshold, smallest area and presence were searched on subjects "
            f"{', '.join(map(str, shared))}, which are validation subjects here: the "
            "scores are a little too good"
        )
    if split.leaky:
        print("leaky split: these scores say nothing about new subjects")
    if seen := trained_on(trained, split):
        text = (
            f"the weights were trained on subjects {', '.join(map(str, seen))} of "
            f"{data}/preprocess.json's validation frames"
        )
        if refuse:
            raise ValueError(f"{text}; split as for their training, or train again")
        print(f"note: {text}: scores on them are too good")
    if is_own(trained, split):
        return
    for part in trained.trained_on:
        if shared := sorted(set(part.subjects) & set(split.val.subjects)):
            print(
                "note: the weights were trained on other data whose subjects "
                f"{', '.join(map(str, shared))} are numbered as validation subjects here; "
                "if they are the same people, the scores are too good"
            )


def read_validation(
    trained: Trained, data: Path, refuse: bool = True
) -> tuple[Inputs, Split, Extract, np.ndarray, np.ndarray]:
    """Return `(inputs, split, extract, frames, masks)` of held-out frames, checked.

    The inputs are the network's, without crops where the extraction has cropped already.

    Raises:
        ValueError: there are none, the split is of an earlier extraction, or the weights
            were trained on subjects that it holds out; that is a note unless to `refuse`.
    """
    split = records.read_split(data)
    if not split.val.rows:
        raise ValueError(
            f"{data}/ holds no validation frames; hold some out with: {records.PREPROCESS} "
            f"--data {quoted(data)}"
        )
    extract, frames, masks = records.read_training_frames(data)
    check_unseen(trained, split, data, refuse)
    inputs = replace(trained.inputs, crops={}) if extract.crops else trained.inputs
    return inputs, split, extract, frames, masks
