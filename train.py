"""Train the U-Net.

    python train.py --data data --out weights/unet.h5

Reads   data/x_train.npy, data/y_train.npy, data/x_val.npy, data/y_val.npy,
        data/preprocess.json
Writes  weights/unet.h5, weights/unet.json, weights/unet.csv, weights/unet.png (the
        learning curve); while it runs also weights/unet.state.npz, which --resume
        continues from
"""

import argparse
import collections
import contextlib
import math
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

import devices
import h5_file
import stage
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
from h5_look import look
from losses import dice_coef, smooth_dice
from model import build_network, copy_weights
from precision import PRECISIONS, choose_precision, dtype_policy
from recipes import FLAGS, LOSSES, RECIPES, build_optimizer

ROOT = Path(__file__).resolve().parent
PREPROCESS = "python preprocess.py"
EMPTY_DICE = 0.01  # below it, the network predicts next to nothing
EMPTY_EPOCHS = 3
# Memory of a step to that of all layers' outputs: 1.1 to 1.6 in batches of 64 and more
MEMORY_FACTOR = 1.5


def read_data(data):
    """Return `(record, {name: array})` of the preprocessed arrays, checked."""
    repair = f"{PREPROCESS} --data {data}"
    record = stage.read_record(data / "preprocess.json", repair)
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


def read_init(path):
    """Return the record beside the weights to start from; {} where there is none."""
    look(path)
    record = path.with_suffix(".json")
    return stage.read_record(record, "python train.py") if record.exists() else {}


def choose_settings(args, record, arrays):
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


def build_model(settings, num_frames, init):
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


def copy_averaged(model, network, settings):
    """Copy the weights, averaged where the recipe says so, into the network to be kept."""
    if not settings["average"]:
        copy_weights(model, network)
        return
    weights = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    copy_weights(model, network)
    model.set_weights(weights)


def check_memory(model, settings):
    """Refuse a batch that the memory cannot hold; on a CPU the system would end the run.

    Raises:
        ValueError: it names the batch size that fits.
    """
    free = stage.free_memory()
    devices = keras.distribution.list_devices()
    if free is None or not all(name.lower().startswith("cpu") for name in devices):
        return
    values = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    num_bytes = (
        MEMORY_FACTOR * values * (4 if settings["precision"] == "float32" else 2)
    )
    size, fits = settings["batch_size"], int(free / num_bytes)
    if size > max(1, fits):
        raise ValueError(
            f"batches of {size} frames need about {size * num_bytes / 1e9:,.1f} GB and "
            f"{free / 1e9:,.1f} GB are free; --batch-size {max(1, fits)} fits"
        )


@contextlib.contextmanager
def naming_memory(batch_size):
    """Turn what Keras's backends raise without memory into a line that says what helps."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in (
            f"{error} {getattr(error, 'error_code', '')}".upper().replace(" ", "_")
        ):
            raise
        raise ValueError(
            f"out of memory with batches of {batch_size} frames; what was kept before is "
            f"intact. Try --batch-size {max(1, batch_size // 2)}, or smaller frames"
        ) from error


def train_batches(model, pairs, num_frames, batch_size, label):
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


def validate(model, x, y, batch_size):
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


def train_epoch(model, arrays, rows, settings, epoch, place):
    """Train one epoch, counted from 0; return loss and metrics by name.

    Args:
        model: The compiled network.
        arrays: `{name: array}`: x_train, y_train.
        rows: `preprocess.json`'s record of the training frames.
        settings: What `choose_settings` returned.
        epoch: Number of the epoch.
        place: This process's `devices.Place`.
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
    pairs = place.spread(pairs, len(order), size)
    label = f"epoch {epoch + 1}/{settings['epochs']}"
    means = train_batches(model, pairs, len(order), size, label)
    weights = model.get_weights()  # the last step's may be broken before any loss is
    if not np.isfinite(means["loss"]) or not all(np.isfinite(w).all() for w in weights):
        raise ValueError(
            f"the loss is {means['loss']} in epoch {epoch + 1}: training has exploded; "
            "what was kept before is intact. Try a tenth of the --learning-rate"
        )
    return means


def report_epoch(row, epochs):
    """Print an epoch's row of NAME.csv."""
    label = f"epoch {row['epoch']}/{epochs}"
    text = f"{label}: loss {row['loss']:.4f}, dice_coef {row['dice_coef']:.4f}"
    if row["val_dice_coef"] is not None:
        text += f", val_dice_coef {row['val_dice_coef']:.4f}"
    print(text, flush=True)


def warn_if_empty(history):
    """Say so when the last epochs predicted next to nothing."""
    last = [row["dice_coef"] for row in history[-EMPTY_EPOCHS:]]
    if len(last) == EMPTY_EPOCHS and max(last) < EMPTY_DICE:
        print(
            f"warning: dice_coef below {EMPTY_DICE} for {EMPTY_EPOCHS} epochs: the network "
            "predicts next to nothing. Try another --seed or --learning-rate, and look at "
            "the masks"
        )


def is_finished(out, resume):
    """Return whether `out` is a finished run to be left alone.

    Raises:
        ValueError: a result is in the way of a new run.
    """
    record, state = out.with_suffix(".json"), out.with_suffix(".state.npz")
    if not resume:
        for path, what in ((state, "an interrupted run"), (record, "a result")):
            if path.exists():
                raise ValueError(
                    f"{path} is there: {what}, which is never overwritten; "
                    "add --resume, or choose another --out"
                )
    elif not state.exists() and not record.exists():
        print(f"nothing to resume at {out}: starting from the beginning")
    return record.exists() and not state.exists()


def train(out, settings, arrays, rows, init, place):
    """Train until `settings["epochs"]`, continuing where a state lies; return history.

    Of several processes the first alone writes; each validates for itself.

    Args:
        out: The .h5 to write.
        settings: What `choose_settings` returned.
        arrays: `{name: array}`: x_train, y_train, x_val, y_val.
        rows: `preprocess.json`'s record of the training frames.
        init: Pretrained .h5, or None.
        place: This process's `devices.Place`.
    """
    state = out.with_suffix(".state.npz")
    with place.scope():
        model = build_model(settings, len(arrays["x_train"]), init)
    check_memory(model, settings)
    network = build_network(settings, dtype_policy(settings["precision"]))
    history = load_state(state, model, settings) if state.exists() else []
    if history:
        print(f"resuming after epoch {len(history)} of {settings['epochs']}")
    # a run killed between two files has its last ones still to write
    for epoch in range(max(0, len(history) - 1), settings["epochs"]):
        if epoch == len(history):
            means = train_epoch(model, arrays, rows, settings, epoch, place)
            copy_averaged(model, network, settings)
            score = validate(
                network, arrays["x_val"], arrays["y_val"], settings["batch_size"]
            )
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
    return history


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default="data", help="folder of preprocess.py's arrays")
    add("--out", type=Path, default="weights/unet.h5", help="file to write, an .h5")
    add("--recipe", choices=RECIPES, default="classic", help="how to train")
    add("--seed", type=int, default=0, help="seed of weights and order, 0 or more")
    add("--epochs", type=int, help="1 or more; default: the recipe's")
    add("--learning-rate", type=float, help="above 0, up to 1; default: the recipe's")
    add("--batch-size", type=int, help="frames, 1 or more; default: the recipe's")
    add(
        "--filters", type=int, help="channels of the first level; default: the recipe's"
    )
    add("--depth", type=int, help="times the frame is halved; default: the recipe's")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="to compute in; weights are always kept and saved in float32",
    )
    add(
        "--devices",
        type=int,
        help="to share each batch among, on JAX; default: one, or with several machines "
        "all of theirs",
    )
    add("--init", type=Path, help="pretrained .h5 to start from (transfer learning)")
    add(
        "--keep",
        choices=("best", "last"),
        default="best",
        help="epoch whose weights are kept: best by val_dice_coef; last, for runs whose "
        "validation frames are going to be reported",
    )
    add("--resume", action="store_true", help="continue an interrupted run")
    args = parser.parse_args(argv)
    if args.out.suffix != ".h5":
        parser.error(f"--out {args.out}; expected a name that ends in .h5")
    limits = {"epochs": 10**6, "batch_size": 10**5, "filters": 256, "depth": 6}
    limits["devices"] = 10**5
    for name, most in limits.items():
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} {value}; expected 1 to {most}")
    if args.learning_rate is not None and not 0 < args.learning_rate <= 1:
        parser.error(f"--learning-rate {args.learning_rate}; expected above 0, up to 1")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}; expected 0 or more")
    return args


def main(argv=None):
    args = parse_args(argv)
    with (
        devices.connect() as (process, num_processes),
        stage.lock(args.out.parent, args.out.stem)
        if process == 0
        else contextlib.nullcontext(),
    ):
        if is_finished(args.out, args.resume):
            print(f"{args.out} is finished; nothing to do")
            return
        record, arrays = read_data(args.data)
        settings = choose_settings(args, record, arrays)
        place = devices.find_place(
            process, num_processes, args.devices, settings["batch_size"]
        )
        history = train(args.out, settings, arrays, record["train"], args.init, place)
        if process == 0:
            finish(args.out, history, settings["keep"])


def finish(out, history, keep):
    """Draw the learning curve, remove the state, and say what was kept."""
    kept = kept_epoch(history, keep)
    draw_history(out.with_suffix(".png"), history, kept)
    out.with_suffix(".state.npz").unlink()
    score = history[kept - 1]["val_dice_coef"]
    text = "no validation frames" if score is None else f"val_dice_coef {score:.4f}"
    print(f"kept epoch {kept} of {len(history)}, {text}: {out}")


if __name__ == "__main__":
    sys.exit(stage.run(main))
