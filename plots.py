"""The plots of report.py, each as an <img> with the picture in it."""

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

import tune

matplotlib.use("Agg")
import matplotlib.pyplot as plt

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


def rates(
    values: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return false and true positive rates as the limit on `values` falls, and the area.

    Args:
        values: Float array `(N,)`.
        positive: bool array `(N,)`, both kinds present.
    """
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)  # equal values step at once
    true = np.cumsum(positive[order])[last] / positive.sum()
    false = np.cumsum(~positive[order])[last] / (~positive).sum()
    false, true = np.append(0, false), np.append(0, true)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2
    return false, true, float(area)


def plot_subjects(tally) -> str:
    """Return the Dice of each subject's frames with a nerve, worst first."""
    dice = np.array([row["dice"] for row in tally.rows])
    nerve = np.array([row["area"] > 0 for row in tally.rows])
    if not nerve.any():
        return "<p>No frame shows a nerve: there is no Dice by subject.</p>"
    subjects = np.array(tally.subjects)
    names = sorted(
        set(subjects[nerve].tolist()),
        key=lambda s: dice[nerve & (subjects == s)].mean(),
    )

    def paint(axes):
        groups = [dice[nerve & (subjects == name)] for name in names]
        axes.boxplot(groups, tick_labels=names, showmeans=True)
        axes.set_ylim(0, 1)
        axes.tick_params(axis="x", labelrotation=90 if len(names) > 12 else 0)

    return plot("Dice by subject (frames with a nerve)", "subject", "Dice", paint)


def plot_histogram(tally) -> str:
    """Return the histogram of Dice over frames with a nerve."""
    dice = [row["dice"] for row in tally.rows if row["area"]]

    def paint(axes):
        axes.hist(dice, bins=20, range=(0, 1), color=NEAR_FOUND)

    return plot("Dice of frames with a nerve", "Dice", "frames", paint)


def plot_areas(tally) -> str:
    """Return predicted against true areas."""
    true, found = (
        [row[name] for row in tally.rows if row["area"]]
        for name in ("area", "predicted_area")
    )

    def paint(axes):
        most = max([1, *true, *found])
        axes.plot([0, most], [0, most], color="grey", linewidth=1)
        axes.plot(true, found, ".", color=NEAR_FOUND, markersize=4)

    return plot("area of the mask, pixels", "true", "predicted", paint)


def plot_presence(tally) -> str:
    """Return the ROC of presence, or a sentence where frames of one kind are missing."""
    values = np.array([row.presence for row in tally.measures])
    positive = np.array([not row.empty for row in tally.measures])
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


def plot_calibration(tally) -> str:
    """Return how often pixels of a probability are nerve."""
    total, nerve = tally.pixels.T
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


def plot_limits(tally, settings: dict) -> str:
    """Return the score at each threshold, and at each smallest area."""
    dice, area, presence, empty = (
        np.array(column) for column in zip(*tally.measures, strict=True)
    )

    def score(**changes):
        limits = {**settings, **changes}
        return tune.score_at(dice, area, presence, empty, limits).mean()

    def paint_thresholds(axes):
        axes.plot(tune.THRESHOLDS, [score(threshold=t) for t in tune.THRESHOLDS], "o-")
        axes.axvline(settings["threshold"], color=NEAR_FOUND)

    largest = float(np.quantile(area.max(axis=1), 0.9)) or 0.01
    smallest = np.linspace(0, largest, 25)

    def paint_areas(axes):
        values = [score(smallest_area=s) for s in smallest]
        axes.plot(100 * smallest, values, "o-", markersize=3)
        axes.axvline(100 * settings["smallest_area"], color=NEAR_FOUND)

    label = "challenge's score"
    return plot(
        "effect of the threshold", "probability", label, paint_thresholds
    ) + plot("effect of the smallest area", "% of the frame", label, paint_areas)


def plot_history(path: Path) -> str:
    """Return the learning curve of NAME.csv; nothing where there is none."""
    if not path.exists():
        return ""
    table = np.genfromtxt(path, delimiter=",", names=True)
    table = np.atleast_1d(table)

    def paint(axes):
        for name, label in (("dice_coef", "training"), ("val_dice_coef", "validation")):
            axes.plot(table["epoch"], table[name], label=label)
        axes.set_ylim(0, 1)
        axes.legend(loc="lower right")

    return plot("learning curve", "epoch", "dice_coef", paint)
