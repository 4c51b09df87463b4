"""Plots as <img> with their picture in them, and the learning curve."""

import base64
import contextlib
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from nerve.files import atomic

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BINS = 10  # of probabilities, for the calibration
NEAR_TRUTH, NEAR_FOUND = "#00a000", "#d06a00"  # the outlines' colours, for text


def embed(content: bytes, kind: str, text: str) -> str:
    """Return an <img> that holds the bytes of a picture."""
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{data}">'


@contextlib.contextmanager
def plot(plots: list[str], title: str, x_label: str, y_label: str) -> Iterator[plt.Axes]:
    """Yield axes to draw on; what is drawn is appended to `plots` as an <img>."""
    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    yield axes
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, metadata={"Software": None})
    plt.close(figure)
    plots.append(embed(buffer.getvalue(), "png", title))


def paint_history(
    axes: plt.Axes,
    epochs: Sequence[int],
    training: Sequence[float],
    validation: Sequence[float | None],
    kept: int | None = None,
) -> None:
    """Draw a learning curve of dice_coef on `axes`, and mark the epoch that was kept.

    Without validation frames, `validation` holds None or NaN.
    """
    marker = "." if len(epochs) == 1 else None  # one point makes no line
    axes.plot(epochs, training, marker=marker, label="training")
    validation = np.array(validation, float)
    if not np.isnan(validation).all():
        axes.plot(epochs, validation, marker=marker, label="validation")
        if kept is not None:
            axes.plot(kept, validation[kept - 1], "ko", label=f"kept: epoch {kept}")
    axes.set(xlabel="epoch", ylabel="dice_coef", ylim=(0, 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def draw_history(path: Path, history: list[dict], kept: int) -> None:
    """Write the learning curve of a history as PNG; `kept` is the epoch kept, from 1."""
    names = ("epoch", "dice_coef", "val_dice_coef")
    columns = [[row[name] for row in history] for name in names]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    paint_history(axes, *columns, kept)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, metadata={"Software": None})
    plt.close(figure)
    atomic.write_bytes(path, buffer.getbuffer())


def rates(values: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return false and true positive rates as the limit on `values` falls, and the area.

    Of each value it is known whether it is `positive`, a bool array `(N,)` of both kinds.
    """
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)  # equal values step at once
    true = np.cumsum(positive[order])[last] / positive.sum()
    false = np.cumsum(~positive[order])[last] / (~positive).sum()
    false, true = np.append(0, false), np.append(0, true)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2
    return false, true, float(area)
