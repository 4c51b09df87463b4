"""The training loop: networks built, epochs trained, validated, kept."""

import collections
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve.backend import computing_in, keras
from nerve.files import h5_file
from nerve.files.arrays import Joined
from nerve.precision import dtype_policy
from nerve.records import Recipe, Trained
from nerve.scoring.plots import draw_history
from nerve.training.batches import batches, draw_balanced, draw_order
from nerve.training.checkpoint import (
    COLUMNS,
    kept_epoch,
    load_state,
    save_history,
    save_result,
    save_state,
)
from nerve.training.devices import Worker
from nerve.training.memory import check_memory, naming_memory
from nerve.training.progress import Strips

EMPTY_DICE = 0.01  # below it, the network predicts next to nothing
EMPTY_EPOCHS = 3


class Design(NamedTuple):
    """What model.py and losses.py hand down."""

    build_network: Callable[..., keras.Model]
    loss: Callable
    dice_coef: Callable  # of a batch
    smooth_dice: Callable  # of sums over pixels


class Job(NamedTuple):
    """A training, and which part of it this process does."""

    design: Design
    run: Trained  # as `plan` returned it
    arrays: dict[str, Joined]  # x_train, y_train, x_val and y_val
    subjects: np.ndarray  # int (N,), of each training frame
    init: Path | None  # pretrained .h5
    worker: Worker

    def build_network(self, policy: str) -> keras.Model:
        """Return the network that computes by a dtype policy of Keras."""
        with computing_in(policy):
            inputs = self.run.inputs
            return self.design.build_network(self.run.recipe, inputs.height, inputs.width)


def build_optimizer(
    recipe: Recipe, precision: str, num_frames: int
) -> keras.optimizers.Optimizer:
    """Return the optimizer that the recipe asks for."""
    steps = recipe.epochs * -(-num_frames // recipe.batch_size)
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        warm_up = round(recipe.warm_up * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm_up), recipe.final_rate, "rate", rate, warm_up
        )
    average = {}
    if recipe.average is not None:
        momentum = max(0.0, 1 - 1 / (recipe.average * steps))
        average = {"use_ema": True, "ema_momentum": momentum}
    optimizer = keras.optimizers.Adam(rate, weight_decay=recipe.weight_decay, **average)
    if recipe.weight_decay is not None:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    if precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def build_model(
    design: Design, run: Trained, num_frames: int, init: Path | None
) -> keras.Model:
    """Return the compiled network, from pretrained weights where `init` names some."""
    recipe, size = run.recipe, (run.inputs.height, run.inputs.width)
    keras.utils.set_random_seed(run.seed)
    with computing_in(dtype_policy(run.precision)):
        model = design.build_network(recipe, *size)
    if init:
        h5_file.load(model, init)
    optimizer = build_optimizer(recipe, run.precision, num_frames)
    how = {"metrics": [design.dice_coef], "auto_scale_loss": False}
    model.compile(optimizer, design.loss, **how)
    optimizer.build(model.trainable_variables)  # so that its state can be restored
    return model


def start(job: Job) -> keras.Model:
    """Return the compiled network of a training, for which there is memory."""
    with job.worker.scope():
        model = build_model(job.design, job.run, len(job.subjects), job.init)
    check_memory(model, job.run.precision, job.run.recipe.batch_size)
    return model


def copy_averaged(model: keras.Model, network: keras.Model) -> None:
    """Copy the weights, averaged where the optimizer does, into the network to be kept."""
    weights = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    network.set_weights(model.get_weights())
    model.set_weights(weights)


def train_batches(
    model: keras.Model,
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    num_frames: int,
    batch_size: int,
    label: str,
) -> dict[str, float]:
    """Train once on all batches; return the means over all frames.

    `model.fit` on a generator would do, but TensorFlow then returns every large block to
    the system at once (it sets M_TRIM_THRESHOLD), which costs 1.6 times the CPU seconds.
    """
    sums, seen = collections.Counter(), 0
    num_batches = -(-num_frames // batch_size)
    bar = tqdm(pairs, label, total=num_batches, disable=None)
    with naming_memory(batch_size), bar:
        for x, y in bar:
            scores = model.train_on_batch(x, y, return_dict=True)
            count = min(batch_size, num_frames - seen)
            seen += count
            for name, value in scores.items():  # Keras's are of this batch alone
                sums[name] += float(value) * count
            bar.set_postfix({name: f"{sums[name] / seen:.4f}" for name in sums})
    return {name: total / seen for name, total in sums.items()}


def validate(network: keras.Model, job: Job) -> float | None:
    """Return `dice_coef` of all validation frames as one batch; None without frames."""
    x, y, batch_size = job.arrays["x_val"], job.arrays["y_val"], job.run.recipe.batch_size
    if not len(x):
        return None
    overlap = total = 0.0
    for begin in tqdm(range(0, len(x), batch_size), "validation", disable=None):
        part = slice(begin, begin + batch_size)
        masks, probabilities = y[part], np.asarray(network.predict_on_batch(x[part]))
        overlap += np.sum(masks * probabilities, dtype=np.float64)
        total += np.sum(masks, dtype=np.float64)
        total += np.sum(probabilities, dtype=np.float64)
    return float(job.design.smooth_dice(overlap, total))


def epoch_batches(job: Job, epoch: int) -> tuple[Iterator[tuple], int]:
    """Return `(batches, number of frames)` of an epoch, counted from 0."""
    recipe, seed, x = job.run.recipe, job.run.seed, job.arrays["x_train"]
    if recipe.balance:
        order = draw_balanced(job.subjects, seed, epoch)
    else:
        order = draw_order(len(x), seed, epoch)
    changes = recipe.augmentation and (recipe.augmentation, seed, epoch)
    how = order, recipe.batch_size, changes, job.worker[:3]
    pairs = batches(x, job.arrays["y_train"], *how)
    return job.worker.spread(pairs, len(order), recipe.batch_size), len(order)


def train_epoch(model: keras.Model, job: Job, epoch: int) -> dict[str, float]:
    """Train one epoch, counted from 0; return loss and metrics by name."""
    pairs, num_frames = epoch_batches(job, epoch)
    label = f"epoch {epoch + 1}/{job.run.recipe.epochs}"
    means = train_batches(model, pairs, num_frames, job.run.recipe.batch_size, label)
    weights = model.get_weights()  # the last step's may be broken before any loss is
    if not np.isfinite(means["loss"]) or not all(np.isfinite(w).all() for w in weights):
        raise ValueError(
            f"the loss is {means['loss']} in epoch {epoch + 1}: training has exploded; "
            "what was kept before is intact. Try a tenth of the --learning-rate"
        )
    return means


def check_kept(out: Path, history: list[dict], keep: str) -> None:
    """Refuse to go on where the best epoch so far is past and its weights are gone."""
    kept = kept_epoch(history, keep)
    if kept < len(history) and not out.with_suffix(".json").exists():
        state = out.with_suffix(".state.npz")
        raise ValueError(
            f"{state} is there, but not {out} and its .json of epoch {kept}, the best so "
            f"far; bring both back, or remove {state} to start anew"
        )


def report_epoch(row: dict, epochs: int) -> None:
    """Print an epoch's row of NAME.csv."""
    label = f"epoch {row['epoch']}/{epochs}"
    text = f"{label}: loss {row['loss']:.4f}, dice_coef {row['dice_coef']:.4f}"
    if row["val_dice_coef"] is not None:
        text += f", val_dice_coef {row['val_dice_coef']:.4f}"
    print(text, flush=True)


def warn_if_empty(history: list[dict]) -> None:
    """Say so when the last epochs predicted next to nothing."""
    last = [row["dice_coef"] for row in history[-EMPTY_EPOCHS:]]
    if len(last) == EMPTY_EPOCHS and max(last) < EMPTY_DICE:
        print(
            f"warning: dice_coef below {EMPTY_DICE} for {EMPTY_EPOCHS} epochs: the network "
            "predicts next to nothing. Try another --seed or --learning-rate, and look at "
            "the masks"
        )


def do_epoch(model: keras.Model, network: keras.Model, job: Job, epoch: int) -> dict:
    """Train and validate an epoch, counted from 0; return its row of NAME.csv."""
    row = train_epoch(model, job, epoch)
    copy_averaged(model, network)
    rate = float(model.optimizer.learning_rate)
    row |= {"epoch": epoch + 1, "learning_rate": rate}
    row |= {"val_dice_coef": validate(network, job)}
    # Keras's order is another one, and a resumed run's this
    return {column: row[column] for column in COLUMNS}


def train(out: Path, job: Job, board=None) -> list[dict]:
    """Train all epochs, continuing where a state lies; return the history.

    Of several processes the first alone writes; each validates for itself.
    """
    state, run, recipe = out.with_suffix(".state.npz"), job.run, job.run.recipe
    model, network = start(job), job.build_network(dtype_policy(run.precision))
    plain = job.build_network("float32")  # to be saved
    history = load_state(state, model, run) if state.exists() else []
    strips = Strips(out.with_suffix(".progress.png"), run, job.arrays, board)
    if history:
        check_kept(out, history, run.keep)
        print(f"resuming after epoch {len(history)} of {recipe.epochs}")
    # a run killed between two files has its last ones still to write
    for epoch in range(max(0, len(history) - 1), recipe.epochs):
        if epoch < len(history):
            copy_averaged(model, network)
        else:
            history.append(do_epoch(model, network, job, epoch))
            if job.worker.process == 0:
                save_state(state, model, run, history)
                report_epoch(history[-1], recipe.epochs)
                warn_if_empty(history)
        if job.worker.process == 0:
            if kept_epoch(history, run.keep) == epoch + 1:
                plain.set_weights(network.get_weights())
                save_result(out, plain, run, history[-1])
            save_history(out, history)
            strips.add(history[-1], network)
    return history


def finish(out: Path, history: list[dict], keep: str) -> None:
    """Draw the learning curve, remove the state, and say what was kept."""
    kept = kept_epoch(history, keep)
    draw_history(out.with_suffix(".png"), history, kept)
    out.with_suffix(".state.npz").unlink()
    score = history[kept - 1]["val_dice_coef"]
    text = "no validation frames" if score is None else f"val_dice_coef {score:.4f}"
    print(f"kept epoch {kept} of {len(history)}, {text}: {out}")
