"""What training leaves behind: its state while it runs, its result, its history."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np

from nerve.backend import keras
from nerve.command import refusing
from nerve.files import atomic, h5_file
from nerve.records import Trained, check

COLUMNS = ("epoch", "loss", "dice_coef", "val_dice_coef", "learning_rate")


def kept_epoch(history: list[dict], keep: str) -> int:
    """Return the number of the epoch, from 1, whose weights are kept."""
    if keep == "last":
        return len(history)
    return 1 + int(np.argmax([row["val_dice_coef"] for row in history]))


def state_arrays(model: keras.Model) -> dict:
    """Return every number that training depends on: weights, counters, optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"v{k}": variable for k, variable in enumerate(variables)}


def save_state(path: Path, model: keras.Model, run: Trained, history: list[dict]) -> None:
    """Write what `--resume` continues from."""
    buffer = io.BytesIO()
    arrays = {name: np.asarray(v) for name, v in state_arrays(model).items()}
    record = json.dumps({"run": run.to_dict(), "history": history})
    np.savez(buffer, record=np.array(record), **arrays)
    atomic.write_bytes(path, buffer.getbuffer())


def find_change(before: dict, now: dict) -> tuple[str, object, object] | None:
    """Return `(name, value before, value now)` of what differs first in two records."""
    for name in before | now:
        old, new = before.get(name), now.get(name)
        if name == "data" and len(old) == len(new):  # of each source
            old, new = dict(enumerate(old)), dict(enumerate(new))
        if isinstance(old, dict) and isinstance(new, dict):
            if change := find_change(old, new):
                return change
        elif old != new:
            return name, old, new
    return None


def load_state(path: Path, model: keras.Model, run: Trained) -> list[dict]:
    """Restore the model and return the history of an interrupted run.

    Raises:
        ValueError: the file is damaged, or the run was another one.
    """
    text = f"{path} is damaged or of another version; remove it to start anew"
    # errors of zipfile and NumPy are of many kinds
    with refusing(text, Exception), np.load(path, allow_pickle=False) as state:
        record = json.loads(str(state["record"]))
        before = Trained.from_dict(record["run"], path)
        history = check(record["history"], list[dict[str, float | None]], "history")
        history = [{column: row[column] for column in COLUMNS} for row in history]
        arrays = {name: state[name] for name in state_arrays(model)}
    # as JSON holds them: tuples become lists
    both = (json.loads(json.dumps(each.to_dict())) for each in (before, run))
    if change := find_change(*both):
        name, old, new = change
        raise ValueError(
            f"the interrupted run had {name} {old}, now it is {new}; repeat it, or choose "
            f"another --out, or remove {path} to start anew"
        )
    for name, variable in state_arrays(model).items():
        now, found = np.asarray(variable), arrays[name]
        if (found.shape, found.dtype) != (now.shape, now.dtype):
            raise ValueError(
                f"{path} is of another version of the network; remove it to start anew"
            )
        variable.assign(found)
    return history


def save_result(out: Path, plain: keras.Model, run: Trained, row: dict) -> None:
    """Write NAME.h5 and its NAME.json together."""
    rate = run.recipe.learning_rate
    content = h5_file.to_bytes(plain, "dice_coef_loss", ["dice_coef"], rate)
    versions = {"keras": keras.__version__, "backend": keras.backend.backend()}
    versions["numpy"] = np.__version__
    digest = hashlib.sha256(content).hexdigest()
    trained = dataclasses.replace(run, h5_sha256=digest, kept=row, versions=versions)
    record = out.with_suffix(".json").name
    with atomic.aside(out) as folder:
        atomic.write_bytes(folder / out.name, content)
        atomic.write_json(folder / record, trained.to_dict())
        atomic.move(folder, out.parent, [record])


def save_history(out: Path, history: list[dict]) -> None:
    """Write NAME.csv, one row an epoch."""
    with atomic.write_csv(out.with_suffix(".csv"), COLUMNS) as writer:
        for row in history:
            values = ["" if row[c] is None else f"{row[c]:.6g}" for c in COLUMNS]
            writer.writerow(values)
