"""What a training needs, in memory and time, found out before it begins."""

import itertools
import time

from nerve import machine
from nerve.training.loop import Job, epoch_batches, start
from nerve.training.memory import naming_memory, step_bytes

TRIED_STEPS = 4
FORWARD_SHARE = 1 / 3  # of a training step's operations; gradients are the rest


def describe(job: Job) -> None:
    """Print what a training is of: its frames, and its network."""
    run = job.run
    sources = run.trained_on[-len(run.data) :]
    subjects = sum(len(source.subjects) for source in sources)
    with_nerve = sum(source.frames_with_nerve for source in sources)
    print(
        f"data: {len(job.subjects):,} frames of {subjects} subjects to train on "
        f"({with_nerve:,} with a nerve), {len(job.arrays['x_val']):,} to validate, "
        f"{run.inputs.height} x {run.inputs.width} pixels"
    )
    num_weights = job.build_network("float32").count_params()
    print(
        f"network: {run.recipe.network}, {num_weights:,} parameters, an .h5 of about "
        f"{4 * num_weights / 1e6:.1f} MB"
    )


def time_step(model, job: Job) -> tuple[float, int]:
    """Return `(seconds of a step, frames of an epoch)`."""
    pairs, num_frames = epoch_batches(job, 0)
    moments = []
    with naming_memory(job.run.recipe.batch_size):
        tried = list(itertools.islice(pairs, 1 + TRIED_STEPS))
        # a smaller last one would compile anew
        tried = [batch for batch in tried if len(batch[0]) == len(tried[0][0])]
        for batch in tried[:1] + tried:  # the first one compiles
            model.train_on_batch(*batch)
            moments.append(time.perf_counter())
    return (moments[-1] - moments[0]) / max(1, len(moments) - 1), num_frames


def rehearse(job: Job) -> None:
    """Print what `loop.train` needs, from a few of its steps; write nothing."""
    recipe, model = job.run.recipe, start(job)
    describe(job)
    free = machine.free_memory()
    needed = recipe.batch_size * step_bytes(model, job.run.precision)
    rest = "" if free is None else f"; {free / 1e9:,.1f} GB are free"
    print(
        f"memory: about {needed / 1e9:,.1f} GB for batches of {recipe.batch_size}{rest}",
        flush=True,
    )
    step, num_frames = time_step(model, job)
    num_frames += len(job.arrays["x_val"]) * FORWARD_SHARE
    epoch = step * num_frames / recipe.batch_size
    print(
        f"time: about {epoch:,.0f} s an epoch, {epoch * recipe.epochs / 60:,.1f} minutes "
        f"for all {recipe.epochs}\nnothing was written"
    )
