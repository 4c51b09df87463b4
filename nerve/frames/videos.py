"""Frames of videos, as FFmpeg decodes them by PyAV."""

import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from nerve.command import refusing
from nerve.frames.pictures import MAX_PIXELS
from nerve.frames.spacing import Region

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".wmv", ".flv", ".3gp")
SUFFIXES += (".3g2", ".asf", ".f4v", ".ogv", ".gif", ".ts", ".mts", ".m2ts", ".mpg")
SUFFIXES += (".mpeg", ".m2v", ".vob")
# FFmpeg's formats that say neither how many frames there are nor how long they take
UNCOUNTED = ("gif", "mpeg", "mpegts", "mpegvideo")
RATE = 25.0  # frames/s where a file does not say
MAX_FRAMES = 10**7


class Clip(NamedTuple):
    """Frames that follow each other."""

    frames: Iterator[np.ndarray]  # uint8, (height, width)
    count: int | None  # as the file says or is found; None where neither is known
    rate: float  # frames/s
    notes: list[str]  # what a user should know, complete once the frames are read
    times: Sequence[float] = ()  # of those read so far, in s; none where the rate tells
    regions: Sequence[Region] = ()  # where the frames have which spacing


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


def decode(
    container: av.container.InputContainer, say: Callable[[], None]
) -> Iterator[av.VideoFrame]:
    """Yield the frames of an open video that can be decoded; `say` hears of damage."""
    packets = container.demux(video=0)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            # an empty one in between, a frame that was dropped, would end the decoder
            frames = packet.decode() if packet.size or packet.dts is None else []
        except av.FFmpegError:
            say()
            continue
        if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
            say()
        yield from frames


def read_frames(
    container: av.container.InputContainer,
    name: str | Path,
    rate: float,
    times: array,
    notes: list[str],
) -> Iterator[np.ndarray]:
    """Yield the grey frames of an open video, turned as it says; close it at the end.

    They are of the first one's size. `times` takes the seconds from the first to each, by
    the rate where a frame has none, and `notes` what a user should know.
    """
    text = f"{name} is cut or damaged: frames of it may be wrong"
    reformatter = av.video.reformatter.VideoReformatter()
    with container:
        stream = container.streams.video[0]
        check_size(stream.height, stream.width, name)
        stream.thread_type = "AUTO"
        for frame in decode(container, lambda: text in notes or notes.append(text)):
            check_size(frame.height, frame.width, name)
            if not times:
                size, begin = (frame.width, frame.height), frame.time
            with refusing(f"{name} cannot be decoded", av.FFmpegError):
                grey = reformatter.reformat(frame, *size, "gray").to_ndarray()
            known = None not in (frame.time, begin)
            times.append(frame.time - begin if known else len(times) / rate)
            yield np.ascontiguousarray(np.rot90(grey, frame.rotation // 90))


def find_count(container: av.container.InputContainer, rate: float) -> int | None:
    """Return how many frames a video should hold; None where it does not say."""
    count = container.streams.video[0].frames
    if container.format.name in UNCOUNTED:
        return None
    if not count and container.duration:
        count = round(container.duration / av.time_base * rate)
    return count if 0 < count <= MAX_FRAMES else None


def read_video(
    file: BinaryIO,
    name: str | Path,
    stated: int | None = None,
    size: tuple[int, int] | None = None,
) -> Clip:
    """Return the frames of a video.

    Args:
        file: Open, with nothing else in it; messages call it by the name.
        stated: How many frames it should hold; None for what its own header says.
        size: (height, width) that they should have; None for any.

    Raises:
        ValueError: it cannot be decoded, or is of another size.
    """
    text = f"{name} is no video that can be decoded, or is cut short"
    with refusing(text, av.FFmpegError):
        container = av.open(file, metadata_errors="replace")
    if not container.streams.video or not container.streams.video[0].codec_context:
        raise ValueError(text)
    stream, notes, times = container.streams.video[0], [], array("d")
    if (several := len(container.streams.video)) > 1:
        notes.append(f"{name} holds {several} videos, of which the first is read")
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    rate = rate if 0 < rate < 1000 else RATE
    guessed = not (stated or stream.frames)
    stated = stated or find_count(container, rate)
    rest = read_frames(container, name, rate, times, notes)
    first = list(itertools.islice(rest, 2))  # whether it moves is seen, not believed
    if not first:
        raise ValueError(text)
    if size not in (None, first[0].shape):
        shape = "{} x {}".format(*first[0].shape)
        raise ValueError(f"{name} holds a video of {shape}, its header says {size}")

    def frames():
        yield from itertools.chain(first, rest)
        varied = len(times) > 2 and np.ptp(np.diff(times)) > 0.5 / rate
        known = None if guessed and varied else stated
        notes.extend(note_count(name, known, len(times)))

    count = stated if stated and stated >= len(first) else None
    count = 1 if count is None and len(first) == 1 else count
    return Clip(frames(), count, rate, notes, times)


def open_video(path: Path) -> Clip:
    """Return the frames of a video's file."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    return read_video(open(path, "rb"), path)
