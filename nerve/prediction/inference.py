"""From frames to probabilities to masks, batch by batch; memory stays flat."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve import machine
from nerve.frames.geometry import Geometry
from nerve.records import Inputs, Limits

PRESENCE_SHARE = 0.01  # of a frame's pixels
BATCH = 32  # frames predicted at a time


class Prediction(NamedTuple):
    """What a network makes of a frame."""

    frame: np.ndarray  # uint8 (rows, columns)
    geometry: Geometry  # of the frame
    probability: np.ndarray  # float32 (height, width) of the network, in [0, 1]
    mask: np.ndarray | None = None  # uint8 (rows, columns), 0 or 1


def scale(images: np.ndarray, mean: float, standard_deviation: float) -> np.ndarray:
    """Return `(image - mean) / standard deviation` as float32.

    Args:
        images: uint8 array of any shape.
        mean: Mean grey value of the training frames.
        standard_deviation: Theirs, in grey values.
    """
    table = (np.arange(256) - mean) / standard_deviation
    return table.astype(np.float32).take(images)  # twice as fast as [images]


def find_geometry(shape: tuple[int, int], inputs: Inputs) -> Geometry:
    """Return how a frame of (height, width) pixels gets to a network and back."""
    return Geometry.of(shape, (inputs.height, inputs.width), inputs.aspect, inputs.crops)


def predict_frames(
    model, frames: Iterable[np.ndarray], inputs: Inputs
) -> Iterator[Prediction]:
    """Yield the nerve probabilities of frames, in order; memory stays flat.

    Args:
        frames: Iterable of uint8 arrays `(rows, columns)`, 0 to 255, of any size.
    """

    def fit(frame):
        frame = np.asarray(frame)
        geometry = find_geometry(frame.shape, inputs)
        return frame, geometry, geometry.fit(frame)

    fitted = machine.map_threads(fit, frames)
    while batch := list(itertools.islice(fitted, BATCH)):
        images = np.stack([image for _, _, image in batch])
        scaled = scale(images, inputs.mean, inputs.standard_deviation)
        found = np.asarray(model.predict_on_batch(scaled[..., np.newaxis]))[..., 0]
        for (frame, geometry, _), probability in zip(batch, found, strict=True):
            yield Prediction(frame, geometry, probability)


def presence(probability: np.ndarray) -> float:
    """Return how surely a frame shows a nerve: the mean of its highest probabilities.

    Args:
        probability: float32 array `(height, width)` in [0, 1].

    Returns:
        Float in [0, 1], the mean over the highest 1 % of the pixels (the smallest mask of
        the challenge covers 1.1 %).
    """
    count = max(1, round(PRESENCE_SHARE * probability.size))
    return float(np.partition(probability.ravel(), -count)[-count:].mean())


def keep_share(
    predictions: Iterable[Prediction], share: float | None, limits: Limits
) -> Limits:
    """Return limits whose presence keeps a share of a set of frames, the surest.

    Frames that are equally sure of it are all kept.

    Args:
        predictions: Of the frames, as they are going to be limited; looked at only where
            there is a share.
        share: 0 to 1; None keeps the limits as they are.
    """
    if share is None:
        return limits
    bar = tqdm(predictions, "ranking", disable=None)
    values = sorted(presence(found.probability) for found in bar)
    count = round(share * len(values))
    least = values[-count] if count else 2.0  # 2: none has it
    return dataclasses.replace(limits, presence=least)


def to_mask(probability: np.ndarray, geometry: Geometry, limits: Limits) -> np.ndarray:
    """Return the uint8 mask, 0 or 1, of a probability map at the frame's own size.

    The probabilities are resized, not the mask: thresholding first leaves stairs. A mask
    smaller than the smallest of the training masks is taken for a false alarm.

    Args:
        probability: float32 array in [0, 1].
    """
    if limits.presence and presence(probability) < limits.presence:
        return np.zeros(geometry.shape, np.uint8)
    part = (geometry.back(probability) >= limits.threshold).view(np.uint8)
    if geometry.area_share(part) < limits.smallest_area:
        part[:] = 0
    return geometry.whole(part)


def smooth(predictions: Iterable[Prediction], share: float) -> Iterator[Prediction]:
    """Yield each prediction, its map mixed with those before it; the first as it is.

    Args:
        predictions: Of frames in the order of time.
        share: Of what has been so far, 0 to below 1; the rest is the frame's own.
    """
    mixed = None
    for found in predictions:
        before = found.probability if mixed is None else mixed
        mixed = share * before + (1 - share) * found.probability
        yield found._replace(probability=mixed)


def find_masks(predictions: Iterable[Prediction], limits: Limits) -> Iterator[Prediction]:
    """Yield predictions with their masks, made on all cores."""

    def work(found):
        return found._replace(mask=to_mask(found.probability, found.geometry, limits))

    return machine.map_threads(work, predictions)
