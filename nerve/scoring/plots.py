"""The learning curve, and the plots of a report, each as an <img> with its picture."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from nerve.files import atomic

matplotlib.use("Agg")
import matplotlib.pyplot as plt

AREAS = 25  # smallest areas tried
BINS = 10  # of probabilities, for the calibration
NEAR_TRUTH, NEAR_FOUND = "#00a000", "#d06a00"  # the outlines' colours, for text


def embed(content: bytes, kind: str, text: str) -> str:
    """Return an <img> that holds the bytes of a picture."""
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{data}">'


def plot(
    title: str, x_label: str, y_label: str, paint: Callable[[plt.Axes], None]
) -> str:
    """Return a plot as an <img>; `paint` draws on the axes that it is given."""
    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    paint(axes)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return embed(buffer.getvalue(), "png", title)


def paint_history(
    axes: plt.Axes,
    epochs: Sequence[int],
    training: Sequence[float],
    validation: Sequence[float | None],
    kept: int | None = None,
) -> None:
    """Draw a learning curve of dice_coef on `axes`.

    Args:
        training: dice_coef of each.
        validation: val_dice_coef of each; None or NaN without validation frames.
        kept: Number of the epoch to mark, or None.
    """
    axes.plot(epochs, training, label="training")
    validation = np.array(validation, float)
    if not np.isnan(validation).all():
        axes.plot(epochs, validation, label="validation")
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


def rates(
    values: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return false and true positive rates as the limit on `values` falls, and the area.

    Args:
        positive: bool array `(N,)`, both kinds present.
    """
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)  # equal values step at once
    true = np.cumsum(positive[order])[last] / positive.sum()
    false = np.cumsum(~positive[order])[last] / (~positive).sum()
    false, true = np.append(0, false), np.append(0, true)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2
    return false, true, float(area)


def plot_subjects(dice: np.ndarray, subjects: np.ndarray) -> str:
    """Return the Dice of each subject's frames with a nerve, worst first.

    Args:
        dice: Float array `(N,)`, of frames with a nerve.
    """
    if not len(dice):
        return "<p>No frame shows a nerve: there is no Dice by subject.</p>"
    groups = {name: dice[subjects == name] for name in np.unique(subjects).tolist()}
    groups = dict(sorted(groups.items(), key=lambda item: item[1].mean()))

    def paint(axes):
        axes.boxplot(list(groups.values()), tick_labels=list(groups), showmeans=True)
        axes.set_ylim(0, 1)
        axes.tick_params(axis="x", labelrotation=90 if len(groups) > 12 else 0)

    return plot("Dice by subject (frames with a nerve)", "subject", "Dice", paint)


def plot_histogram(dice: np.ndarray) -> str:
    """Return the histogram of Dice over frames with a nerve, `(N,)`."""

    def paint(axes):
        axes.hist(dice, bins=20, range=(0, 1), color=NEAR_FOUND)

    return plot("Dice of frames with a nerve", "Dice", "frames", paint)


def plot_areas(true: np.ndarray, found: np.ndarray) -> str:
    """Return predicted areas beside true ones, in pixels, `(N,)` each."""

    def paint(axes):
        most = max([1, *true, *found])
        axes.plot([0, most], [0, most], color="grey", linewidth=1)
        axes.plot(true, found, ".", color=NEAR_FOUND, markersize=4)

    return plot("area of the mask, pixels", "true", "predicted", paint)


def plot_presence(values: np.ndarray, positive: np.ndarray) -> str:
    """Return the ROC of presence, or a sentence where frames of one kind are missing.

    Args:
        values: Float array `(N,)`, how sure a nerve is there.
        positive: bool array `(N,)`, whether there is one.
    """
    if positive.all() or not positive.any():
        kind = "with" if positive.all() else "without"
        return (
            f"<p>All frames are {kind} a nerve: presence cannot be judged on them.</p>"
        )
    false, true, area = rates(values, positive)

    def paint(axes):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axes.plot(false, true, color=NEAR_FOUND)

    title = f"presence of a nerve: area under the curve {area:.3f}"
    return plot(title, "empty frames called nerve", "nerves called nerve", paint)


def plot_calibration(total: np.ndarray, nerve: np.ndarray) -> str:
    """Return how often pixels of a probability are nerve.

    Args:
        total: Float array `(BINS,)`, pixels whose probability falls in each bin.
        nerve: Those of them that are nerve.
    """
    middle = (np.arange(BINS) + 0.5) / BINS

    def paint(axes):
        shown = total > 0
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axes.plot(
            middle[shown], (nerve / np.maximum(total, 1))[shown], "o-", color=NEAR_FOUND
        )

    return plot(
        "calibration of the pixels", "probability", "share that is nerve", paint
    )


def plot_limit(
    title: str, x_label: str, tried: np.ndarray, scores: list[float], kept: float
) -> str:
    """Return the challenge's score at each limit tried, the one kept marked."""

    def paint(axes):
        axes.plot(tried, scores, "o-", markersize=3)
        axes.axvline(kept, color=NEAR_FOUND)

    return plot(title, x_label, "challenge's score", paint)


def plot_history(path: Path) -> str:
    """Return the learning curve of NAME.csv; nothing where there is none."""
    if not path.exists():
        return ""
    table = np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))

    def paint(axes):
        paint_history(axes, table["epoch"], table["dice_coef"], table["val_dice_coef"])

    return plot("learning curve", "epoch", "dice_coef", paint)
