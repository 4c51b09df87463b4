"""Frames of videos and cameras, as OpenCV decodes them."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nerve.command import refusing
from nerve.frames.pictures import MAX_PIXELS

# FFmpeg's own lines about damaged files; the errors here say what is wrong
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".wmv", ".flv", ".3gp")
SUFFIXES += (".3g2", ".asf", ".f4v", ".ogv")
# which hold no count of their frames: OpenCV's is a guess
UNCOUNTED = (".gif", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".m2v", ".vob")
SUFFIXES += UNCOUNTED
RATE = 25.0  # frames/s where a file does not say
MAX_FRAMES = 10**7


class Clip(NamedTuple):
    """Frames that follow each other."""

    frames: Iterator[np.ndarray]  # uint8, (height, width)
    count: int | None  # as the file says or is found; None where neither is known
    rate: float  # frames/s
    notes: list[str]  # what a user should know, complete once the frames are read


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep OpenCV's own lines off the screen: the errors here say what is wrong."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def check_size(height: float, width: float, name: str | Path) -> None:
    """Refuse frames of more than MAX_PIXELS."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"{name} claims to hold frames of {height:.0f} x {width:.0f}")


def note_count(name: str | Path, stated: int | None, number: int) -> list[str]:
    """Return a note, where a file does not hold the number of frames that it states."""
    if number == stated:
        return []
    if stated is None:
        return [f"{name} does not say how many frames it should hold: {number} were read"]
    if number < stated:
        text = f"of which {number} could be read: it is cut or damaged, or its header wrong"
    else:
        text = f"and holds {number}, which are all read"
    return [f"{name} should hold {stated} frame{'s' * (stated > 1)}, {text}"]


def read_capture(
    capture: cv2.VideoCapture, name: str | Path, copy: Path | None = None
) -> Iterator[np.ndarray]:
    """Yield the frames of an open video or camera; release it at the end.

    Args:
        copy: A file to remove then.
    """
    try:
        while True:
            with silent(), refusing(f"{name} cannot be decoded", cv2.error):
                found, frame = capture.read()
            if not found:
                return
            check_size(*frame.shape[:2], name)
            yield frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    finally:
        capture.release()
        if copy:
            copy.unlink(missing_ok=True)


def find_rate(capture: cv2.VideoCapture) -> float:
    """Return the frames/s of a video or camera, or RATE."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else RATE


def read_video(
    path: Path,
    name: str | Path,
    stated: int | None = None,
    size: tuple[int, int] | None = None,
) -> Clip:
    """Return the frames of a video.

    Args:
        path: Its file; where it is not `name`, a copy, removed at the end.
        name: What messages call it.
        stated: How many frames it should hold; None for what its own header says.
        size: (height, width) that they should have; None for any.

    Raises:
        ValueError: it cannot be decoded, or is of another size.
    """
    text = f"{name} is no video that can be decoded, or is cut short"
    with silent(), refusing(text, cv2.error):
        # FFmpeg takes what stands before a colon for a protocol: "12:30.mp4"
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    sides = cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH
    check_size(*map(capture.get, sides), name)
    rate, count = find_rate(capture), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    guessed = str(name).lower().endswith(UNCOUNTED) or not 0 < count <= MAX_FRAMES
    stated = stated or (None if guessed else int(count))
    rest = read_capture(capture, name, None if path == name else path)
    first = list(itertools.islice(rest, 2))  # whether it moves is seen, not believed
    if not first:
        raise ValueError(text)
    if size not in (None, first[0].shape):
        shape = "{} x {}".format(*first[0].shape)
        raise ValueError(f"{name} holds a video of {shape}, its header says {size}")
    notes = []

    def frames():
        number = 0
        for frame in itertools.chain(first, rest):
            number += 1
            yield frame
        notes.extend(note_count(name, stated, number))

    count = stated if stated and stated >= len(first) else None
    return Clip(frames(), 1 if count is None and len(first) == 1 else count, rate, notes)


def is_cut(path: Path) -> bool:
    """Tell whether a video's file ends before what its container says.

    FFmpeg decodes what is there of a frame that is cut; of other containers it does not.
    """
    size, suffix = path.stat().st_size, path.suffix.lower()
    with open(path, "rb") as file:
        if suffix == ".avi":  # RIFF: the bytes that follow
            return size < 8 + int.from_bytes(file.read(8)[4:], "little")
        if suffix == ".flv" and size > 4:  # the last tag's length
            file.seek(size - 4)
            length = int.from_bytes(file.read(), "big")
            file.seek(max(0, size - 3 - length))
            return int.from_bytes(file.read(3), "big") + 11 != length
    return False


def open_video(path: Path) -> Clip:
    """Return the frames of a video's file."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:  # OpenCV 5.0 would crash
        raise ValueError(f"{path} is no name in UTF-8; rename it") from error
    clip = read_video(path, path)
    if is_cut(path):
        clip.notes.append(f"{path} is cut: its last frame may be damaged")
    return clip


def open_camera(number: int) -> Clip:
    """Return the frames of a camera."""
    with silent():
        capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise ValueError(f"there is no camera {number}, or another program holds it")
    rate = find_rate(capture)
    return Clip(read_capture(capture, f"camera{number}"), None, rate, [])
