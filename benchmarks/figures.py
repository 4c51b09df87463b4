"""Redraw the README's pictures from committed tables and phantom frames.

    python benchmarks/figures.py

Reads   images/sample.csv (the mask that `make demo` predicts for one test frame) and
        images/learning_curve.csv (its weights/unet.csv)
Writes  images/sample.png, phantom.png, phantom_limb.png and learning_curve.png
"""

import argparse
import io
import sys
from pathlib import Path

import matplotlib
import measure
import numpy as np
from skimage.color import label2rgb
from skimage.measure import label

sys.path.insert(0, str(measure.ROOT))

from nerve import command
from nerve.files import atomic, run_length
from nerve.frames.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, outline
from nerve.phantom.sweep import Frame, plan_frames
from nerve.scoring.plots import draw_history
from nerve.scoring.scores import dice
from nerve.training.checkpoint import COLUMNS, kept_epoch
from phantom import make_frame

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DEMO = {"train": 400, "test": 100, "subjects": 16, "seed": 0}  # demo.py's phantom
SAMPLE = ("img", "pixels")


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, metadata={"Software": None})
    plt.close(figure)
    atomic.write_bytes(path, buffer.getbuffer())


def draw_sample(
    frame: np.ndarray, truth: np.ndarray, predicted: np.ndarray, path: Path
) -> None:
    """Draw frame, prediction and overlap side by side.

    Args:
        frame: uint8 array `(height, width)`.
        truth: uint8 mask of the same shape, 0 and 1.
        predicted: Likewise.
        path: PNG to write.
    """
    colours = np.array([TRUTH_COLOUR, PREDICTION_COLOUR]) / 255
    filled = label2rgb(label(predicted), frame, colors=[colours[1]], alpha=0.35)
    both = outline(outline(frame, truth, TRUTH_COLOUR), predicted, PREDICTION_COLOUR)
    titles = ("frame", "prediction", f"overlap: Dice {dice(truth, predicted):.2f}")
    figure, panels = plt.subplots(1, 3, figsize=(13.5, 3.6), layout="constrained")
    for axes, title, picture in zip(panels, titles, (frame, filled, both), strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title)
        axes.axis("off")
    for colour, name in zip(colours, ("truth", "prediction"), strict=True):
        panels[2].plot([], [], color=colour, label=name)
    panels[2].legend(loc="lower right")
    save(figure, path)


def draw_phantoms(frames: list[Frame], nerve: str, path: Path) -> None:
    """Draw six phantom frames, three with the nerve outlined and three without."""
    shown = {}
    for frame in frames:
        shown.setdefault((frame.subject, frame.nerve), frame)
    with_nerve = [f for f in shown.values() if f.nerve][:3]
    without = [f for f in shown.values() if not f.nerve][3:6]
    figure, panels = plt.subplots(2, 3, figsize=(13.5, 6.8), layout="constrained")
    for axes, frame in zip(panels.ravel(), with_nerve + without, strict=True):
        image, mask = make_frame(frame, DEMO["seed"], nerve)
        axes.imshow(outline(image, mask > 0, TRUTH_COLOUR))
        axes.set_title("with a nerve, outlined" if frame.nerve else "without a nerve")
        axes.axis("off")
    save(figure, path)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    parser.add_argument("--images", type=Path, default="images", help="folder of both")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    images = parse_args(argv).images
    frames = plan_frames(**DEMO)
    draw_phantoms(frames, "plexus", images / "phantom.png")
    draw_phantoms(frames, "limb", images / "phantom_limb.png")
    (row,) = (row for _, row in run_length.read_rows(images / "sample.csv", *SAMPLE))
    (frame,) = (f for f in frames if f.name == f"test/{row['img']}")
    image, mask = make_frame(frame, DEMO["seed"], "plexus")
    draw_sample(
        image,
        mask // 255,
        run_length.decode(row["pixels"]),
        images / "sample.png",
    )
    table = images / "learning_curve.csv"
    rows = [row for _, row in run_length.read_rows(table, *COLUMNS)]
    history = [{name: float(row[name]) for name in COLUMNS} for row in rows]
    kept = kept_epoch(history, "best")
    draw_history(images / "learning_curve.png", history, kept)
    print(f"the pictures are redrawn: {images}/")


if __name__ == "__main__":
    sys.exit(command.run(main))
