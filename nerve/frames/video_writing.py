"""Overlays of videos, written as videos."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from nerve.command import undisturbed
from nerve.files import atomic
from nerve.frames.videos import silent


@contextlib.contextmanager
def write_video(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends an RGB picture to an MP4, named at the end.

    Where the frames end in an error or by Ctrl-C, those so far are kept. Where MPEG-4
    takes no frames of that size, one line says so, and nothing is written.

    Raises:
        OSError: not all frames can be read back, as of a full disk.
    """
    # OpenCV goes by the suffix, and crashes at names that are not UTF-8
    making = path.with_name(f"{atomic.MINE}overlay.mp4")
    making.unlink(missing_ok=True)
    writer, size, count = None, None, 0
    # MPEG-4 takes no fraction whose terms are above 65,535: 66.667 is 66667 / 1000
    rate = max(0.01, round(rate, 2 if rate < 600 else 1))

    def append(picture):
        nonlocal writer, size, count
        if writer is None:
            size = picture.shape[1::-1]  # cv2: width first
            code = cv2.VideoWriter_fourcc(*"mp4v")
            with silent():
                writer = cv2.VideoWriter(str(making), code, rate, size)
            if not writer.isOpened():
                print(
                    f"note: no {path.name}: MPEG-4 cannot be written of {size[1]} x "
                    f"{size[0]} pixels at {rate} frames/s"
                )
        if writer.isOpened():
            writer.write(np.ascontiguousarray(cv2.resize(picture, size)[..., ::-1]))
            count += 1

    try:
        yield append
    finally:
        if writer is not None and writer.isOpened():
            writer.release()
            with undisturbed():
                check_video(making, count, path.name)
                os.replace(making, path)


def check_video(path: Path, count: int, name: str) -> None:
    """Bring a video that was written to disk; OpenCV says nothing of a full one.

    Args:
        count: Of its frames.
        name: What it is going to be called.

    Raises:
        OSError: not all of them can be read back.
    """
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
    with silent():
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    found = 0
    while capture.grab():
        found += 1
    capture.release()
    if found != count:
        raise OSError(
            f"{name} could not be written: of its {count} frames {found} can be read "
            "back; is the disk full, or files limited in size?"
        )
