"""From frames to probabilities to masks, batch by batch; memory stays flat."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

import machine
import run_length
from letterbox import letterbox, place, take_out
from preprocess import scale

PRESENCE_SHARE = 0.01  # of a frame's pixels
BATCH = 32  # frames predicted at a time


def fit(frame: np.ndarray, settings: dict) -> np.ndarray:
    """Return a frame, or a mask of 0 to 255, cropped and resized as the network takes it.

    Args:
        frame: uint8 array `(rows, columns)`.
        settings: As of `predict_frames`.

    Returns:
        uint8 array `(height, width)`.
    """
    frame = np.asarray(frame)
    top, left, height, width = crop_of(frame.shape, settings)
    view = frame[top : top + height, left : left + width]
    return letterbox(view, settings["height"], settings["width"], settings["aspect"])


def predict_frames(
    model, frames: Iterable[np.ndarray], settings: dict
) -> Iterator[np.ndarray]:
    """Yield the nerve probabilities of frames, in order; memory stays flat.

    Args:
        model: The U-Net.
        frames: Iterable of uint8 arrays `(rows, columns)`, 0 to 255, of any size.
        settings: Record with `height`, `width`, `mean`, `standard_deviation`; `aspect` of
            the training frames; and `crops`, as extract.json has them.

    Yields:
        float32 array `(height, width)` in [0, 1] for each frame.
    """
    images = machine.map_threads(lambda frame: fit(frame, settings), frames)
    while batch := list(itertools.islice(images, BATCH)):
        scaled = scale(
            np.stack(batch), settings["mean"], settings["standard_deviation"]
        )
        yield from np.asarray(model.predict_on_batch(scaled[..., np.newaxis]))[..., 0]


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


def keep_share(probabilities: Iterable[np.ndarray], settings: dict) -> dict:
    """Return settings whose `presence` keeps the share `prevalence` of a set of frames.

    Frames that are equally sure of it are all kept.

    Args:
        probabilities: Of the frames, as they are going to be limited; looked at only where
            there is a `prevalence`.
        settings: Record with `prevalence`; None keeps the weights' own limits.
    """
    if settings.get("prevalence") is None:
        return settings
    bar = tqdm(probabilities, "ranking", disable=None)
    values = sorted(presence(probability) for probability in bar)
    count = round(settings["prevalence"] * len(values))
    return {**settings, "presence": values[-count] if count else 2.0}  # 2: none has it


def crop_of(shape: tuple[int, int], settings: dict) -> list[int]:
    """Return the part of a frame of this size that is looked at: top, left, height, width.

    Frames of a size that was cropped for training are cropped alike.
    """
    whole = [0, 0, *shape]
    return settings["crops"].get(f"{shape[0]}x{shape[1]}", whole)


def to_mask(
    probability: np.ndarray, shape: tuple[int, int], settings: dict
) -> np.ndarray:
    """Return the uint8 mask, 0 or 1, of a probability map at the frame's own size.

    The probabilities are resized, not the mask: thresholding first leaves stairs. A mask
    smaller than the smallest of the training masks is taken for a false alarm.

    Args:
        probability: float32 array in [0, 1].
        shape: (height, width) of the frame, in pixels.
        settings: Record with `threshold`; `smallest_area` as a share of the frame;
            `presence`, below which a mask is left empty; `aspect` and `crops`.
    """
    mask = np.zeros(shape, np.uint8)
    if settings["presence"] and presence(probability) < settings["presence"]:
        return mask
    top, left, height, width = crop_of(shape, settings)
    found = take_out(probability, (height, width), settings["aspect"])
    mask[top : top + height, left : left + width] = found >= settings["threshold"]
    if area_share(mask, probability.shape, settings) < settings["smallest_area"]:
        mask[:] = 0
    return mask


def area_share(mask: np.ndarray, size: tuple[int, int], settings: dict) -> float:
    """Return a mask's share of what training saw as one frame: letterboxes included.

    Args:
        mask: Array of the frame's size, 0 where there is no nerve.
        size: (height, width) of the network.
        settings: Record with `aspect` and `crops`.
    """
    _, _, *shape = crop_of(mask.shape, settings)
    _, _, *inner = place(shape, size, settings["aspect"])
    return np.count_nonzero(mask) / np.prod(shape) * np.prod(inner) / np.prod(size)


def smooth(probabilities: Iterable[np.ndarray], share: float) -> Iterator[np.ndarray]:
    """Yield each map mixed with those before it; the first as it is.

    Args:
        probabilities: Iterable of float32 arrays `(height, width)`, in the order of time.
        share: Of what has been so far, 0 to below 1; the rest is the frame's own.
    """
    mixed = None
    for probability in probabilities:
        before = probability if mixed is None else mixed
        mixed = share * before + (1 - share) * probability
        yield mixed


def find_masks(
    model, frames: Iterable[np.ndarray], settings: dict, smoothing: float = 0.0
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, str]]:
    """Yield `(frame, probability, mask, pixels)` of each frame, made on all cores.

    `pixels` is the mask's run-length encoding.

    Args:
        model: The U-Net.
        frames: As of `predict_frames`.
        settings: As of `predict_frames` and `to_mask`.
        smoothing: As of `smooth`; 0 for frames that do not follow each other.
    """
    frames, again = itertools.tee(frames)
    probabilities = predict_frames(model, frames, settings)
    if smoothing:
        probabilities = smooth(probabilities, smoothing)
    pairs = zip(again, probabilities, strict=True)

    def work(pair):
        frame, probability = pair
        mask = to_mask(probability, frame.shape, settings)
        return frame, probability, mask, run_length.encode(mask)

    return machine.map_threads(work, pairs)
