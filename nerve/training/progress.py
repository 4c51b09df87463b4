"""Training in view: a strip of validation overlays every few epochs, and TensorBoard."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from nerve.files import atomic
from nerve.frames import overlays
from nerve.records import Inputs, Trained

MOST_STRIPS = 8  # of a run, about
FRAMES = 5  # of a strip
HEIGHT = 160  # of a frame in it, in pixels
MARGIN = 16  # for the epoch's number, above the frames


def is_shown(epoch: int, epochs: int) -> bool:
    """Return whether a run of `epochs` draws a strip after this epoch, from 1."""
    return epoch in (1, epochs) or epoch % -(-epochs // MOST_STRIPS) == 0


def choose_frames(y: np.ndarray) -> np.ndarray:
    """Return rows of FRAMES validation frames to watch: all but one with a nerve.

    They are spread evenly over the frames, fewer where there are no more. `y` holds masks,
    float32 `(N, height, width, 1)` in [0, 1].
    """
    nerve, rows = np.array([mask.any() for mask in y], bool), []
    for chosen, count in ((nerve, FRAMES - 1), (~nerve, 1)):
        found = np.flatnonzero(chosen)
        rows += found[overlays.evenly(count, len(found))].tolist()
    return np.array(rows, int)


def draw_strip(
    x: np.ndarray, y: np.ndarray, probabilities: np.ndarray, inputs: Inputs, title: str
) -> np.ndarray:
    """Return the frames side by side, truth and prediction outlined, as uint8 RGB.

    Args:
        x: Scaled frames, float32 `(N, height, width, 1)`.
        y: Their masks, in [0, 1]; likewise `probabilities`.
    """
    size, pictures = (round(HEIGHT * inputs.aspect), HEIGHT), []
    colours = overlays.TRUTH_COLOUR, overlays.PREDICTION_COLOUR
    for frame, truth, found in zip(x, y, probabilities, strict=True):
        grey = frame[..., 0] * inputs.standard_deviation + inputs.mean
        picture = cv2.resize(np.clip(grey, 0, 255).astype(np.uint8), size)
        for map_, colour in zip((truth, found), colours, strict=True):
            mask = cv2.resize(map_[..., 0].astype(np.float32), size) >= 0.5
            picture = overlays.outline(picture, mask, colour)
        pictures.append(picture)
    strip = np.pad(np.hstack(pictures), ((MARGIN, 0), (0, 0), (0, 0)))
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(strip, title, (4, 12), font, 0.4, (255,) * 3, 1, cv2.LINE_AA)


def add_strip(path: Path, strip: np.ndarray, shown: int) -> None:
    """Write a strip below the `shown` earlier ones of its picture.

    Those beyond, of an interrupted epoch, are redone.
    """
    above = cv2.imread(str(path)) if shown and path.exists() else None
    if above is not None and above.shape[1] == strip.shape[1]:
        strip = np.concatenate([above[: shown * len(strip), :, ::-1], strip])
    atomic.write_bytes(path, overlays.encode_png(strip))


def open_board(folder: Path):
    """Return a writer of TensorBoard's files; a ValueError where it is not installed."""
    if not importlib.util.find_spec("tensorboard"):
        raise ValueError("--tensorboard: pip install -r requirements/tensorboard.txt first")
    import tensorflow as tf  # here: on JAX, nothing else needs it

    atomic.make_folder(folder)
    return tf.summary.create_file_writer(str(folder))


class Strips:
    """Shows how a training gets on, epoch by epoch."""

    def __init__(self, path: Path, run: Trained, arrays: Mapping, board=None):
        """Choose the frames to watch, of x_val and y_val in `arrays`."""
        self.path, self.run, self.board = path, run, board
        rows = choose_frames(arrays["y_val"])
        self.x, self.y = arrays["x_val"][rows], arrays["y_val"][rows]

    def add(self, row: dict, network) -> None:
        """Show an epoch."""
        epoch, epochs, strip = row["epoch"], self.run.recipe.epochs, None
        if len(self.x) and is_shown(epoch, epochs):
            found = np.asarray(network.predict_on_batch(self.x))
            title, inputs = f"epoch {epoch} of {epochs}", self.run.inputs
            strip = draw_strip(self.x, self.y, found, inputs, title)
            shown = sum(is_shown(before, epochs) for before in range(1, epoch))
            add_strip(self.path, strip, shown)
        if self.board is not None:
            self.write(row, strip)

    def write(self, row: dict, strip: np.ndarray | None) -> None:
        """Write an epoch's row, and its strip unless that is None, for TensorBoard."""
        import tensorflow as tf  # here: on JAX, nothing else needs it

        with self.board.as_default(step=row["epoch"]):
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    tf.summary.scalar(name, value)
            if strip is not None:
                tf.summary.image("validation", strip[np.newaxis])
        self.board.flush()
