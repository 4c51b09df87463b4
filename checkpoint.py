"""What training leaves behind: its state while it runs, its result, its history."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np

import h5_file
import stage
from backend import keras
from model import build_network, copy_weights

COLUMNS = ("epoch", "loss", "dice_coef", "val_dice_coef", "learning_rate")
THRESHOLD = 0.5  # probability from which a pixel counts as nerve


def kept_epoch(history: list[dict], keep: str) -> int:
    """Return the number of the epoch, from 1, whose weights are kept."""
    if keep == "last":
        return len(history)
    return 1 + int(np.argmax([row["val_dice_coef"] for row in history]))


def state_arrays(model: keras.Model) -> dict:
    """Return every number that training depends on: weights, counters, optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"v{k}": variable for k, variable in enumerate(variables)}


def save_state(
    path: Path, model: keras.Model, settings: dict, history: list[dict]
) -> None:
    """Write what `--resume` continues from."""
    buffer = io.BytesIO()
    arrays = {name: np.asarray(v) for name, v in state_arrays(model).items()}
    record = json.dumps({"settings": settings, "history": history})
    np.savez(buffer, record=np.array(record), **arrays)
    stage.write_bytes(path, buffer.getbuffer())


def load_state(path: Path, model: keras.Model, settings: dict) -> list[dict]:
    """Restore the model and return the history of an interrupted run.

    Raises:
        ValueError: the file is damaged, or the run had other settings.
    """
    try:
        with np.load(path, allow_pickle=False) as state:
            record = json.loads(str(state["record"]))
            arrays = {name: state[name] for name in state_arrays(model)}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged; remove it to start anew") from error
    for name, value in record["settings"].items():
        if value != settings.get(name):
            raise ValueError(
                f"the interrupted run had {name} {value}, now it is {settings.get(name)}; "
                f"repeat it, or choose another --out, or remove {path} to start anew"
            )
    variables = state_arrays(model)
    if any(arrays[name].shape != tuple(v.shape) for name, v in variables.items()):
        raise ValueError(
            f"{path} is of another version of the network; remove it to start anew"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return record["history"]


def save_result(out: Path, network: keras.Model, settings: dict, row: dict) -> None:
    """Write NAME.h5 and its NAME.json together.

    Args:
        out: The .h5.
        network: Network of Keras's own layers.
        settings: What the run was started with.
        row: The epoch's row of NAME.csv.
    """
    plain = build_network(settings)  # in float32, whatever the network computes in
    copy_weights(network, plain)
    rate = settings["learning_rate"]
    content = h5_file.to_bytes(plain, "dice_coef_loss", ["dice_coef"], rate)
    stage.write_temporary(out, content)
    result = {
        "h5_sha256": hashlib.sha256(content).hexdigest(),
        **settings,
        "threshold": THRESHOLD,
        "presence": 0.0,
        "kept": row,
        "versions": {
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "numpy": np.__version__,
        },
    }
    stage.publish(out.with_suffix(".json"), result, [out])


def save_history(out: Path, history: list[dict]) -> None:
    """Write NAME.csv, one row an epoch."""
    with stage.write_csv(out.with_suffix(".csv"), COLUMNS) as writer:
        for row in history:
            values = ["" if row[c] is None else f"{row[c]:.6g}" for c in COLUMNS]
            writer.writerow(values)


def draw_history(path: Path, history: list[dict], kept: int) -> None:
    """Draw the learning curve, a PNG; `kept` is the epoch kept, from 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    epochs = [row["epoch"] for row in history]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(epochs, [row["dice_coef"] for row in history], label="training")
    if history[0]["val_dice_coef"] is not None:
        values = [row["val_dice_coef"] for row in history]
        axes.plot(epochs, values, label="validation")
        axes.plot(kept, values[kept - 1], "ko", label=f"kept: epoch {kept}")
    axes.set(xlabel="epoch", ylabel="dice_coef", ylim=(0, 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    plt.close(figure)
    stage.write_bytes(path, buffer.getbuffer())
