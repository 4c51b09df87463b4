"""The training loop: networks built, epochs trained, validated, kept."""

import collections
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

import h5_file
import machine
from backend import keras
from batches import batches, draw_balanced, draw_order, draw_weighted
from checkpoint import (
    draw_history,
    kept_epoch,
    load_state,
    save_history,
    save_result,
    save_state,
)
from devices import Place
from losses import dice_coef, dice_coef_loss, smooth_dice, tversky_crossentropy_loss
from memory import check_memory, naming_memory, step_bytes
from model import build_network, copy_weights
from precision import dtype_policy
from progress import Strips

ROOT = Path(__file__).resolve().parent
LOSSES = {
    "dice_coef_loss": dice_coef_loss,
    "tversky_crossentropy_loss": tversky_crossentropy_loss,
}
WARM_UP = 0.1  # share of all steps in which "cosine" raises the rate from 0
FINAL_RATE = 0.01  # share of the rate that it ends with
AVERAGED_SHARE = 0.1  # of all steps: the window of the exponential average
EMPTY_DICE = 0.01  # below it, the network predicts next to nothing
EMPTY_EPOCHS = 3
TRIED_STEPS = 4  # of `rehearse`
FORWARD_SHARE = 1 / 3  # of a training step's operations; gradients are the rest


def frames_an_epoch(rows: dict) -> int:
    """Return how many frames an epoch takes, on average where some are left out.

    Args:
        rows: `preprocess.json`'s record of the training frames.
    """
    return max(1, round(sum(rows["weight"]))) if "weight" in rows else len(rows["rows"])


def build_optimizer(settings: dict, num_frames: int) -> keras.optimizers.Optimizer:
    """Return the optimizer that the recipe asks for.

    Args:
        settings: What `choose_settings` returned.
        num_frames: Frames an epoch.
    """
    steps = settings["epochs"] * -(-num_frames // settings["batch_size"])
    rate = settings["learning_rate"]
    if settings["schedule"] == "cosine":
        warm_up = round(WARM_UP * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm_up), FINAL_RATE, "rate", rate, warm_up
        )
    average = {}
    if settings["average"]:
        momentum = max(0.0, 1 - 1 / (AVERAGED_SHARE * steps))
        average = {"use_ema": True, "ema_momentum": momentum}
    optimizer = keras.optimizers.Adam(rate, **average)
    if settings["precision"] == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def build_model(settings: dict, num_frames: int, init: Path | None) -> keras.Model:
    """Return the compiled network, from pretrained weights where `init` names some."""
    keras.utils.set_random_seed(settings["seed"])
    model = build_network(settings, dtype_policy(settings["precision"]), training=True)
    if init:
        plain = build_network(settings)
        h5_file.load(plain, init)
        copy_weights(plain, model)
    elif settings["encoder"]:
        h5_file.load_encoder(model, ROOT / settings["encoder"])
    optimizer = build_optimizer(settings, num_frames)
    loss = LOSSES[settings["loss"]]
    model.compile(
        optimizer=optimizer, loss=loss, metrics=[dice_coef], auto_scale_loss=False
    )
    optimizer.build(model.trainable_variables)  # so that its state can be restored
    return model


def copy_averaged(model: keras.Model, network: keras.Model, settings: dict) -> None:
    """Copy the weights, averaged where the recipe says so, into the network to be kept."""
    if not settings["average"]:
        copy_weights(model, network)
        return
    weights = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    copy_weights(model, network)
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


def validate(
    model: keras.Model, x: np.ndarray, y: np.ndarray, batch_size: int
) -> float | None:
    """Return `dice_coef` of all validation frames as one batch; None without frames."""
    if not len(x):
        return None
    overlap = total = 0.0
    for start in tqdm(range(0, len(x), batch_size), "validation", disable=None):
        masks = y[start : start + batch_size]
        probabilities = np.asarray(
            model.predict_on_batch(x[start : start + batch_size])
        )
        overlap += np.sum(masks * probabilities, dtype=np.float64)
        total += np.sum(masks, dtype=np.float64)
        total += np.sum(probabilities, dtype=np.float64)
    return float(smooth_dice(overlap, total))


def epoch_batches(
    arrays: dict[str, np.ndarray], rows: dict, settings: dict, epoch: int, place: Place
) -> tuple[Iterator[tuple[np.ndarray, np.ndarray]], int]:
    """Return `(batches, number of frames)` of an epoch, counted from 0.

    Args: as of `train_epoch`.
    """
    size, seed = settings["batch_size"], settings["seed"]
    x, y = arrays["x_train"], arrays["y_train"]
    if settings["balance"]:
        order = draw_balanced(np.array(rows["subject"]), seed, epoch)
    else:
        order = draw_order(len(x), seed, epoch)
    if "weight" in rows:
        order = draw_weighted(order, np.array(rows["weight"]), seed, epoch)
    changes = (seed, epoch) if settings["augment"] else None
    pairs = batches(x, y, order, size, changes, place[:3])
    return place.spread(pairs, len(order), size), len(order)


def train_epoch(
    model: keras.Model,
    arrays: dict[str, np.ndarray],
    rows: dict,
    settings: dict,
    epoch: int,
    place: Place,
) -> dict[str, float]:
    """Train one epoch, counted from 0; return loss and metrics by name.

    Args:
        model: The compiled network.
        arrays: `{name: array}`: x_train, y_train.
        rows: `preprocess.json`'s record of the training frames.
        settings: What `choose_settings` returned.
        epoch: Number of the epoch.
        place: This process's `devices.Place`.
    """
    pairs, num_frames = epoch_batches(arrays, rows, settings, epoch, place)
    label = f"epoch {epoch + 1}/{settings['epochs']}"
    means = train_batches(model, pairs, num_frames, settings["batch_size"], label)
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


def train(
    out: Path,
    settings: dict,
    arrays: dict[str, np.ndarray],
    rows: dict,
    init: Path | None,
    place: Place,
    board=None,
) -> list[dict]:
    """Train until `settings["epochs"]`, continuing where a state lies; return history.

    Of several processes the first alone writes; each validates for itself.

    Args:
        out: The .h5 to write.
        settings: What `choose_settings` returned.
        arrays: `{name: array}`: x_train, y_train, x_val, y_val.
        rows: `preprocess.json`'s record of the training frames.
        init: Pretrained .h5, or None.
        place: This process's `devices.Place`.
        board: What `progress.open_board` returned, or None.
    """
    state = out.with_suffix(".state.npz")
    with place.scope():
        model = build_model(settings, frames_an_epoch(rows), init)
    check_memory(model, settings)
    network = build_network(settings, dtype_policy(settings["precision"]))
    history = load_state(state, model, settings) if state.exists() else []
    x_val, y_val = arrays["x_val"], arrays["y_val"]
    strips = Strips(out.with_suffix(".progress.png"), settings, x_val, y_val, board)
    if history:
        check_kept(out, history, settings["keep"])
        print(f"resuming after epoch {len(history)} of {settings['epochs']}")
    # a run killed between two files has its last ones still to write
    for epoch in range(max(0, len(history) - 1), settings["epochs"]):
        if epoch == len(history):
            means = train_epoch(model, arrays, rows, settings, epoch, place)
            copy_averaged(model, network, settings)
            score = validate(network, x_val, y_val, settings["batch_size"])
            rate = float(model.optimizer.learning_rate)
            row = {"epoch": epoch + 1, **means, "val_dice_coef": score}
            history.append({**row, "learning_rate": rate})
            if place.process == 0:
                save_state(state, model, settings, history)
                report_epoch(history[-1], settings["epochs"])
                warn_if_empty(history)
        else:
            copy_averaged(model, network, settings)
        if place.process == 0:
            if kept_epoch(history, settings["keep"]) == epoch + 1:
                save_result(out, network, settings, history[-1])
            save_history(out, history)
            strips.add(history[-1], network)
    return history


def rehearse(
    settings: dict,
    arrays: dict[str, np.ndarray],
    rows: dict,
    init: Path | None,
    place: Place,
) -> None:
    """Print what a training needs, from a few of its steps; write nothing.

    Args: as of `train`.
    """
    with place.scope():
        model = build_model(settings, frames_an_epoch(rows), init)
    check_memory(model, settings)
    size, epochs, x_val = settings["batch_size"], settings["epochs"], arrays["x_val"]
    height, width = settings["height"], settings["width"]
    print(
        f"data: {len(rows['rows']):,} frames of {len(rows['subjects'])} subjects to train "
        f"on ({rows['with_nerve']:,} with a nerve), {len(x_val):,} to validate, "
        f"{height} x {width} pixels"
    )
    plain = build_network(settings)
    print(
        f"network: {settings['network']}, {plain.count_params():,} parameters, "
        f"an .h5 of about {4 * plain.count_params() / 1e6:.1f} MB"
    )
    free, needed = (
        machine.free_memory(),
        size * step_bytes(model, settings["precision"]),
    )
    rest = "" if free is None else f"; {free / 1e9:,.1f} GB are free"
    print(
        f"memory: about {needed / 1e9:,.1f} GB for batches of {size}{rest}", flush=True
    )
    pairs, num_frames = epoch_batches(arrays, rows, settings, 0, place)
    moments = []
    with naming_memory(size):
        tried = list(itertools.islice(pairs, 1 + TRIED_STEPS))
        # a smaller last one would compile anew
        tried = [batch for batch in tried if len(batch[0]) == len(tried[0][0])]
        for batch in tried[:1] + tried:  # the first one compiles
            model.train_on_batch(*batch)
            moments.append(time.perf_counter())
    step = (moments[-1] - moments[0]) / max(1, len(moments) - 1)
    seconds = step * (num_frames + len(x_val) * FORWARD_SHARE) / size
    print(
        f"time: about {seconds:,.0f} s an epoch, {seconds * epochs / 60:,.1f} minutes for "
        f"all {epochs}\nnothing was written"
    )


def finish(out: Path, history: list[dict], keep: str) -> None:
    """Draw the learning curve, remove the state, and say what was kept."""
    kept = kept_epoch(history, keep)
    draw_history(out.with_suffix(".png"), history, kept)
    out.with_suffix(".state.npz").unlink()
    score = history[kept - 1]["val_dice_coef"]
    text = "no validation frames" if score is None else f"val_dice_coef {score:.4f}"
    print(f"kept epoch {kept} of {len(history)}, {text}: {out}")
