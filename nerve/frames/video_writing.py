"""Overlays of videos, written as videos that browsers and players show."""

import contextlib
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from nerve.command import undisturbed
from nerve.files import atomic

TICK = Fraction(1, 90_000)  # s, in which times are written: whole at the usual rates
LONGEST = 100  # s that a frame is shown at most: 13 hours are too long for MP4
MAX_SIDE = 16_384  # pixels: of x264
# the fastest that x264 has: it takes no longer than MPEG-4 did
CODEC = {"preset": "ultrafast", "crf": "20"}


class Encoder:
    """Makes an MP4 of RGB pictures, written at `atomic.temporary(path)`.

    Args:
        rate: Frames/s, about: each picture comes with its own time.
        size: (height, width) of the pictures. Where a side is odd, its last line is
            doubled: in the kind of H.264 that browsers show, both are even.
    """

    def __init__(self, path: Path, rate: float, size: tuple[int, int]):
        self.path, self.last = atomic.temporary(path), -1
        self.path.unlink(missing_ok=True)
        # FFmpeg takes what stands before a colon for a protocol: "12:30.mp4"
        name, options = str(self.path.absolute()), {"movflags": "faststart"}
        self.container = av.open(name, "w", format="mp4", options=options)
        rate = Fraction(rate).limit_denominator(1000)
        self.stream = self.container.add_stream("libx264", rate=rate, options=CODEC)
        self.stream.height, self.stream.width = (side + side % 2 for side in size)
        self.stream.pix_fmt, self.stream.codec_context.time_base = "yuv420p", TICK

    def append(self, picture: np.ndarray, time: float) -> None:
        """Add a picture, uint8 `(height, width, 3)`, to be shown from a second on."""
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        latest = self.last + round(LONGEST / TICK)
        self.last = max(self.last + 1, min(round(time / TICK), latest))
        frame.pts, frame.time_base = self.last, TICK
        self.container.mux(self.stream.encode(frame))

    def close(self, path: Path, count: int) -> None:
        """Bring the video to disk and name it; an OSError if not all frames are there."""
        found = 0
        with contextlib.suppress(av.FFmpegError, OSError):
            self.container.mux(self.stream.encode(None))
            self.container.close()
            with open(self.path, "r+b") as file:
                os.fsync(file.fileno())
                with av.open(file) as container:
                    found = sum(packet.size > 0 for packet in container.demux(video=0))
        if found != count:
            self.path.unlink(missing_ok=True)
            raise OSError(
                f"{path.name} could not be written: of its {count} frames {found} can be "
                "read back; is the disk full, or files limited in size?"
            )
        os.replace(self.path, path)


@contextlib.contextmanager
def write_video(path: Path, rate: float) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Yield a function that appends, as an `Encoder`, to an MP4 that is named at the end.

    Where the frames end in an error or by Ctrl-C, those so far are kept. Where they are too
    large, one line says so, and nothing is written.

    Raises:
        OSError: not all frames can be read back, as of a full disk.
    """
    encoder, count, failed = None, 0, False

    def append(picture, time):
        nonlocal encoder, count, failed
        size, count = picture.shape[:2], count + 1
        if count == 1 and max(size) > MAX_SIDE:
            print(f"note: no {path.name}: H.264 takes no {size[0]} x {size[1]} pixels")
        elif count == 1:
            encoder = Encoder(path, rate, size)
        if encoder and not failed:
            try:
                encoder.append(picture, time)
            except (av.FFmpegError, OSError):  # said at the end: masks are to come
                failed = True

    try:
        yield append
    finally:
        if encoder:
            with undisturbed():
                encoder.close(path, count)
