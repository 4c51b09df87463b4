"""From frames to probabilities to masks, batch by batch; memory stays flat."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve import machine
from nerve.frames import foreign, overlays
from nerve.frames.geometry import Geometry
from nerve.records import Inputs, Limits, Trained

EMPTY = 0.01  # of a frame's pixels: about the smallest nerve of the challenge
BATCH = 32  # frames predicted at a time
SLACK = 1e-3  # by which the rounding of an engine may leave 0 to 1


class Prediction(NamedTuple):
    """What a network makes of a frame."""

    frame: np.ndarray  # uint8 (rows, columns)
    geometry: Geometry  # of the frame
    probability: np.ndarray  # float32 (height, width) of the network, in [0, 1]
    mask: np.ndarray | None = None  # uint8 (rows, columns), 0 or 1
    look: np.ndarray | None = None  # of `foreign.describe`

    def overlay(self) -> np.ndarray:
        """Return the frame with its mask outlined, uint8 `(rows, columns, 3)`."""
        return overlays.outline(self.frame, self.mask, overlays.PREDICTION_COLOUR)


def scale(images: np.ndarray, mean: float, standard_deviation: float) -> np.ndarray:
    """Return `(image - mean) / standard deviation` of a uint8 array as float32."""
    table = (np.arange(256) - mean) / standard_deviation
    return table.astype(np.float32).take(images)  # twice as fast as [images]


def find_geometry(
    frame: np.ndarray, inputs: Inputs, before: Geometry | None = None
) -> Geometry:
    """Return how a frame, uint8 `(rows, columns)`, gets to a network and back.

    Of a clip, all of the picture is kept that the frame `before` shows.
    """
    size = inputs.height, inputs.width
    found = Geometry.of(frame.shape, size, inputs.aspect, inputs.crops, frame)
    if before is None or before.shape != frame.shape or found.crop == before.crop:
        return found
    crop = found.crop.joined(before.crop)
    if crop == before.crop:
        return before
    key = f"{frame.shape[0]}x{frame.shape[1]}"
    return Geometry.of(frame.shape, size, inputs.aspect, {key: crop})


def check_probabilities(found: np.ndarray) -> None:
    """Refuse what a network gives where that is not finite, or not 0 to 1."""
    low, high = float(found.min()), float(found.max())
    if not (low >= -SLACK and high <= 1 + SLACK):  # also of NaN
        raise ValueError(
            f"the network gives {low:.4g} to {high:.4g}; expected probabilities, 0 to 1: "
            "train it, or export it for this engine, again"
        )


def predict_frames(
    model, frames: Iterable[np.ndarray], inputs: Inputs, moving: bool = False
) -> Iterator[Prediction]:
    """Yield the nerve probabilities of frames, in order; memory stays flat.

    Args:
        frames: Iterable of uint8 arrays `(rows, columns)`, 0 to 255, of any size.
        moving: Whether they follow each other in time; what one shows of the picture, black
            borders aside, is then looked at in all after it.
    """

    def place():
        geometry = None
        for frame in map(np.asarray, frames):
            geometry = find_geometry(frame, inputs, geometry if moving else None)
            yield frame, geometry

    def fit(pair):
        frame, geometry = pair
        image = geometry.fit(frame)
        return frame, geometry, image, foreign.describe(geometry.inner.of(image))

    fitted = machine.map_threads(fit, place())
    while batch := list(itertools.islice(fitted, BATCH)):
        images = np.stack([image for _, _, image, _ in batch])
        scaled = scale(images, inputs.mean, inputs.standard_deviation)
        found = np.asarray(model.predict_on_batch(scaled[..., np.newaxis]))[..., 0]
        check_probabilities(found)
        for (frame, geometry, _, look), probability in zip(batch, found, strict=True):
            yield Prediction(frame, geometry, probability, look=look)


class Mirrored:
    """A network that gives the mean of what another finds in a frame and in its mirror."""

    def __init__(self, model):
        self.model = model

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities, float32 `(N, height, width, 1)`, of scaled frames."""
        # in one piece, as some engines take no other
        mirror_image = np.ascontiguousarray(x[:, :, ::-1])
        one, other = (self.model.predict_on_batch(each) for each in (x, mirror_image))
        return (np.asarray(one) + np.asarray(other)[:, :, ::-1]) / 2


def as_used(model, trained: Trained):
    """Return a network as predict.py uses it: mirrored where it was trained on mirrors."""
    changes = trained.recipe.augmentation
    return Mirrored(model) if changes and changes.flips else model


def presence(probability: np.ndarray) -> float:
    """Return how surely a frame shows a nerve, `sum(p^2) / (sum(p) + EMPTY pixels)`.

    That is the Dice to expect between the probabilities and a mask drawn by them, where a
    map that is all but empty counts as nothing. A faint or blurred find is low, however
    high its highest probability; a nerve of 3 % of the frame without a doubt has 0.75.
    The map is float32 `(height, width)` in [0, 1], as is that of `to_mask`.
    """
    empty = EMPTY * probability.size
    return float(np.square(probability).sum() / (probability.sum() + empty))


def keep_share(
    predictions: Iterable[Prediction], share: float | None, limits: Limits
) -> Limits:
    """Return limits whose presence keeps a share of a set of frames, the surest.

    Frames that are equally sure of it are all kept. Without a share, 0 to 1, the limits
    stay as they are, and the frames are not looked at.
    """
    if share is None:
        return limits
    bar = tqdm(predictions, "ranking", disable=None)
    values = sorted(presence(found.probability) for found in bar)
    count = round(share * len(values))
    least = values[-count] if count else 2.0  # 2: none has it
    return dataclasses.replace(limits, least_presence=least)


def to_mask(probability: np.ndarray, geometry: Geometry, limits: Limits) -> np.ndarray:
    """Return the uint8 mask, 0 or 1, of a probability map at the frame's own size.

    The probabilities are resized, not the mask: thresholding first leaves stairs. A mask
    smaller than the smallest of the training masks is taken for a false alarm.
    """
    if limits.least_presence and presence(probability) < limits.least_presence:
        return np.zeros(geometry.shape, np.uint8)
    part = (geometry.back(probability) >= limits.threshold).view(np.uint8)
    if geometry.area_share(part) < limits.smallest_area:
        part[:] = 0
    return geometry.whole(part)


def smooth(predictions: Iterable[Prediction], share: float) -> Iterator[Prediction]:
    """Yield each prediction, its map mixed with those before it.

    The first, and one that shows more of the picture than all before, is left as it is;
    `share`, 0 to below 1, is that of what has been so far.
    """
    before = None
    for found in predictions:
        if before is not None and before.geometry == found.geometry:
            mixed = share * before.probability + (1 - share) * found.probability
            found = found._replace(probability=mixed)
        before = found
        yield found


def find_masks(predictions: Iterable[Prediction], limits: Limits) -> Iterator[Prediction]:
    """Yield predictions with their masks, made on all cores."""

    def work(found):
        return found._replace(mask=to_mask(found.probability, found.geometry, limits))

    return machine.map_threads(work, predictions)
