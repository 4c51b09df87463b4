"""Outlines of a few frames of a clip, its keyframes, carried to all frames between them.

From the keyframes on both sides an outline follows the optical flow, from frame to frame;
what it misses the other one by is made up for in equal steps, and the two are blended by
their distance in time, as signed distances. Where only one of the two shows a nerve, the
network's probabilities say when it comes or goes. Memory is that of the frames between two
keyframes, or before the first.

Source: https://arxiv.org/abs/1603.03590 (the flow, DIS, as OpenCV has it).
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from nerve.command import listed, quoted
from nerve.frames.geometry import resize
from nerve.frames.own_frames import read_marked
from nerve.frames.pairs import ends_in, list_files
from nerve.frames.pictures import SUFFIXES
from nerve.frames.sources import Source
from nerve.prediction.inference import Prediction

LONGEST = 640  # pixels of a side, at most, at which outlines are carried
BLUR = 2.0  # pixels, sigma: speckle does not move with the tissue


def list_keyframes(folder: Path, source: Source) -> dict[int, Path]:
    """Return `{number: file}` of the keyframes of a source, from 1.

    They are called as its masks: STEM_00021.json of labelme, or a picture, also
    STEM_00021_mask.png. Beside files of labelme, pictures are taken for their frames.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: it holds none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; expected one of keyframes")
    number = "_([0-9]{5,})" if source.moving else "()"
    folder, stem = (folder / source.stem).parent, Path(source.stem).name
    name = re.compile(re.escape(stem) + number + r"(?:_mask)?\.\w+")
    for suffixes in ((".json",), SUFFIXES):
        paths = list_files(folder, ends_in(*suffixes))
        names = {path: name.fullmatch(path.name) for path in paths}
        found = {int(match[1] or 1): path for path, match in names.items() if match}
        if found:
            break
    else:
        end = "_00001" if source.moving else ""
        raise ValueError(
            f"{quoted(folder)} holds no outline of a frame of {source.name}; expected "
            f"{stem}{end}.json of labelme, or a mask {stem}{end}.png"
        )
    if others := [path.name for path, match in names.items() if not match]:
        print(f"note: no keyframes of {source.name}: {listed(others)}")
    return found


class Reader:
    """Reads the keyframes of a source as its frames come, and knows which are bad."""

    def __init__(self, source: Source, folder: Path, label: str | None, bad: list[str]):
        """List those in a folder; what is wrong with some is going to be added to `bad`."""
        self.paths, self.label = list_keyframes(folder, source), label
        self.source, self.used, self.bad = source, [], bad

    def read(self, number: int, size: tuple[int, int]) -> np.ndarray | None:
        """Return the mask of a frame, uint8 0 and 1; None where it is no keyframe."""
        path = self.paths.pop(number, None)
        if path is None:
            return None
        try:
            stem = path.stem.removesuffix("_mask")
            mask = read_marked(path, f"{stem}.png", size, self.label).mask // 255
        except (ValueError, OSError) as error:
            self.bad.append(str(error))
            return None
        self.used.append(number)
        return mask

    def finish(self, number: int) -> None:
        """Say what became of them once all frames, `number`, are read.

        Raises:
            ValueError: none could be used.
        """
        for path in self.paths.values():
            said = f"{path} is of no frame of {self.source.name}, which has {number}"
            self.bad.append(said)
        if not self.used:
            raise ValueError(f"{self.source.name} has no keyframe left")
        ends = [(1, self.used[0] - 1), (self.used[-1] + 1, number)]
        ends = [f"{first} to {last}" for first, last in ends if first <= last]
        text = f"; frames {' and '.join(ends)} follow one alone" if ends else ""
        print(f"{self.source.name}: {len(self.used)} keyframes{text}")


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Return each pixel's distance to a mask's outline, in pixels, within it above 0.

    The mask is uint8 `(height, width)` of 0 and 1, not empty.
    """
    how = cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    return cv2.distanceTransform(mask, *how) - cv2.distanceTransform(1 - mask, *how)


def fit(array: np.ndarray) -> np.ndarray:
    """Return a uint8 array `(height, width)` at the size at which outlines are carried."""
    scale = min(1.0, LONGEST / max(array.shape))
    return resize(array, *(max(1, round(scale * side)) for side in array.shape))


def fit_mask(mask: np.ndarray) -> np.ndarray:
    """Return a mask, 0 and 1, likewise."""
    return (fit(mask * np.uint8(255)) >= 128).view(np.uint8)


def whole(distance: np.ndarray, found: Prediction) -> np.ndarray:
    """Return the mask within an outline, uint8 0 and 1 of the frame's own size."""
    return (resize(distance, *found.frame.shape) > 0).view(np.uint8)


def seen(found: Prediction) -> float:
    """Return the network's mean probability within a frame's mask; 0 where it is empty."""
    if not found.mask.any():
        return 0.0
    probability = found.geometry.whole(found.geometry.back(found.probability))
    return float(probability[found.mask > 0].mean())


def follow(key: Prediction, others: Iterable[Prediction]) -> Iterator[np.ndarray]:
    """Yield the signed distances, float32, of a keyframe's mask carried along others."""
    frames = (fit(found.frame) for found in itertools.chain([key], others))
    frames = (cv2.GaussianBlur(frame, (0, 0), BLUR) for frame in frames)
    before, distance = next(frames), signed_distance(fit_mask(key.mask))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    rows, columns = np.indices(distance.shape, np.float32)
    here = np.dstack([columns, rows])
    origin = here  # of each pixel, in the keyframe

    def look_up(values, places):
        edge = cv2.BORDER_REPLICATE
        return cv2.remap(values, places, None, cv2.INTER_LINEAR, borderMode=edge)

    for frame in frames:
        origin = look_up(origin, here + flow.calc(frame, before, None))
        before = frame
        yield look_up(distance, origin)


def empty(others: Iterable[Prediction]) -> Iterator[Prediction]:
    """Yield frames without a nerve."""
    return (found._replace(mask=np.zeros_like(found.mask)) for found in others)


def go_on(key: Prediction, others: Iterable[Prediction]) -> Iterator[Prediction]:
    """Yield the frames beyond a keyframe, the nearest first, with its mask carried."""
    if not key.mask.any():
        yield from empty(others)
        return
    others, same = itertools.tee(others)
    for found, distance in zip(others, follow(key, same), strict=True):
        yield found._replace(mask=whole(distance, found))


def fade(key: Prediction, others: list[Prediction], end: Prediction) -> list[Prediction]:
    """Return frames, the nearest first, up to another keyframe, which shows no nerve.

    What the network sees within the outline at the one keyframe is a nerve; at the other,
    whereto the outline is carried, it is none. A frame on the first one's side of the
    middle of the two counts for a nerve by its distance, one on the other side against it:
    where the sum is largest, the nerve goes.
    """
    *filled, gone = go_on(key, [*others, end])
    values = np.array([seen(found) for found in filled])
    most, least = seen(key), seen(gone)
    sums = np.cumsum([0.0, *(values - (most + least) / 2) * (most - least)])
    last = int(sums.argmax())  # of the frames with a nerve
    return [*filled[:last], *empty(filled[last:])]


def find_miss(distance: np.ndarray, key: Prediction) -> np.ndarray:
    """Return (columns, rows) from the centre of an outline to that of a keyframe's mask."""
    carried, mask = distance > 0, fit_mask(key.mask)
    if not carried.any():
        return np.zeros(2)
    centres = [np.argwhere(each).mean(axis=0) for each in (mask, carried)]
    return (centres[0] - centres[1])[::-1]


def shift(distance: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return signed distances moved by (columns, rows)."""
    moved = np.float32([[1, 0, by[0]], [0, 1, by[1]]])
    size = distance.shape[::-1]
    return cv2.warpAffine(distance, moved, size, borderMode=cv2.BORDER_REPLICATE)


def blend(
    before: Prediction, others: list[Prediction], after: Prediction
) -> Iterator[Prediction]:
    """Yield the frames between two keyframes that both show a nerve."""
    *forward, last = follow(before, [*others, after])
    *backward, first = follow(after, [*others[::-1], before])
    missed, steps = (find_miss(last, after), find_miss(first, before)), len(others) + 1
    pairs = zip(others, forward, backward[::-1], strict=True)
    for step, (found, one, two) in enumerate(pairs, 1):
        share = step / steps
        one, two = shift(one, share * missed[0]), shift(two, (1 - share) * missed[1])
        yield found._replace(mask=whole((1 - share) * one + share * two, found))


def fill(
    before: Prediction, others: list[Prediction], after: Prediction
) -> Iterable[Prediction]:
    """Return the frames between two keyframes with their masks."""
    if before.mask.any() and after.mask.any():
        return blend(before, others, after)
    if before.mask.any():
        return fade(before, others, after)
    if after.mask.any():
        return fade(after, others[::-1], before)[::-1]
    return empty(others)


def apply(predictions: Iterable[Prediction], keyframes: Reader) -> Iterator[Prediction]:
    """Yield predictions whose masks are those of keyframes, or carried from these.

    Raises:
        ValueError: no keyframe is left.
    """
    before, others, numbers = None, [], itertools.count(1)
    frames = (found for found, _ in zip(predictions, numbers, strict=False))
    for number, found in enumerate(frames, 1):
        mask = keyframes.read(number, found.frame.shape)
        if mask is None:
            others.append(found)
        else:
            key = found._replace(mask=mask)
            if before is None:
                yield from list(go_on(key, others[::-1]))[::-1]
            else:
                yield from fill(before, others, key)
            yield key
            before, others = key, []
        if before and not keyframes.paths:
            break
    if before:
        yield from go_on(before, itertools.chain(others, frames))
    keyframes.finish(next(numbers) - 1)
