"""What a training needs, in memory and time, found out before it begins."""

import itertools
import time
from pathlib import Path

import numpy as np

from nerve import machine
from nerve.files.arrays import Joined
from nerve.records import Trained
from nerve.training.devices import Worker
from nerve.training.loop import Design, build_model, epoch_batches
from nerve.training.memory import check_memory, naming_memory, step_bytes

TRIED_STEPS = 4
FORWARD_SHARE = 1 / 3  # of a training step's operations; gradients are the rest


def rehearse(
    design: Design,
    run: Trained,
    arrays: dict[str, Joined],
    subjects: np.ndarray,
    init: Path | None,
    worker: Worker,
) -> None:
    """Print what `loop.train` needs, from a few of its steps; write nothing."""
    recipe, x_val = run.recipe, arrays["x_val"]
    height, width = size = run.inputs.height, run.inputs.width
    with worker.scope():
        model = build_model(design, run, len(subjects), init)
    check_memory(model, run.precision, recipe.batch_size)
    sources = run.trained_on[-len(run.data) :]
    num_subjects = sum(len(source.subjects) for source in sources)
    with_nerve = sum(source.frames_with_nerve for source in sources)
    print(
        f"data: {len(subjects):,} frames of {num_subjects} subjects to train "
        f"on ({with_nerve:,} with a nerve), {len(x_val):,} to validate, "
        f"{height} x {width} pixels"
    )
    num_weights = design.build_network(recipe, *size).count_params()
    print(
        f"network: {recipe.network}, {num_weights:,} parameters, "
        f"an .h5 of about {4 * num_weights / 1e6:.1f} MB"
    )
    free = machine.free_memory()
    needed = recipe.batch_size * step_bytes(model, run.precision)
    rest = "" if free is None else f"; {free / 1e9:,.1f} GB are free"
    print(
        f"memory: about {needed / 1e9:,.1f} GB for batches of {recipe.batch_size}{rest}",
        flush=True,
    )
    pairs, num_frames = epoch_batches(arrays, subjects, run, 0, worker)
    moments = []
    with naming_memory(recipe.batch_size):
        tried = list(itertools.islice(pairs, 1 + TRIED_STEPS))
        # a smaller last one would compile anew
        tried = [batch for batch in tried if len(batch[0]) == len(tried[0][0])]
        for batch in tried[:1] + tried:  # the first one compiles
            model.train_on_batch(*batch)
            moments.append(time.perf_counter())
    step = (moments[-1] - moments[0]) / max(1, len(moments) - 1)
    steps = (num_frames + len(x_val) * FORWARD_SHARE) / recipe.batch_size
    print(
        f"time: about {step * steps:,.0f} s an epoch, "
        f"{step * steps * recipe.epochs / 60:,.1f} minutes for all {recipe.epochs}\n"
        "nothing was written"
    )
