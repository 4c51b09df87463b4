"""Frames out of a picture, a video, a DICOM file or a camera, one after the other.

DICOM needs pydicom and highdicom: pip install -r requirements/dicom.txt
"""

import collections
import contextlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nerve.command import refusing
from nerve.frames.pictures import MAX_PIXELS, SUFFIXES, read_picture

# FFmpeg's own lines about damaged files; the errors here say what is wrong
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
VIDEO = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv")
DICOM = (".dcm", ".dicom", ".ima")
KNOWN = (*SUFFIXES, *VIDEO, *DICOM)
RATE = 25.0  # frames/s where a file does not say
CENTIMETRES = 3  # DICOM's code of a region's physical units
MAX_FRAMES = 10**7


def stem_of(name: str) -> str:
    """Return a name without its suffix; "1.2.840.1" of a DICOM file has none."""
    path = Path(name)
    return path.stem if path.suffix.lower() in KNOWN else path.name


class Source(NamedTuple):
    """Frames that belong together."""

    name: str  # of the file, or "camera0"
    path: Path | None
    kind: str  # "picture", "video", "dicom" or "camera"
    frames: Iterable[np.ndarray]  # uint8, (height, width)
    count: int | None  # of frames, where it is known
    rate: float  # frames/s
    spacing: tuple[float, float] | None  # mm from row to row, from column to column

    @property
    def stem(self) -> str:
        """What its files are called after."""
        return stem_of(self.name)

    @property
    def moving(self) -> bool:
        """Whether its frames follow each other in time."""
        return self.kind == "camera" or self.count is None or self.count > 1


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, whatever it is called."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
    return False


def is_camera(path: Path) -> bool:
    """Tell whether a path is the number of a camera rather than a file."""
    return str(path).isdecimal() and not path.exists()


def is_moving(path: Path) -> bool:
    """Tell whether a file holds several frames; one that cannot be read does not."""
    with contextlib.suppress(ValueError, OSError):
        return open_source(path).moving
    return False


def check_names(paths: list[Path]) -> None:
    """Refuse files of a folder whose masks would be one file.

    Raises:
        ValueError: two of one stem; or a still called as a frame of a video.
    """
    files = collections.defaultdict(list)
    for path in paths:
        files[stem_of(path.name)].append(path)
    for stem, found in files.items():
        if len(found) > 1:
            raise ValueError(
                f"{path.parent} holds {len(found)} files called {stem}; their masks "
                "would be one file"
            )
        frame = re.fullmatch(r"(.+)_[0-9]{5,}", stem, re.DOTALL)
        for video in files.get(frame[1], []) if frame else []:
            if is_moving(video) and not is_moving(found[0]):
                raise ValueError(
                    f"{found[0]} is called as a frame of {video.name}; their masks would "
                    "be one file: move one of them to another folder"
                )


def list_files(path: Path) -> list[Path]:
    """Return the files of a folder that hold frames, or the one (or camera) named.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: none, or two whose results would have one name.
    """
    if is_camera(path):
        return [path]
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; expected a picture, video or DICOM file, a folder of "
            "them, or the number of a camera"
        )
    if not path.is_dir():
        return [path]
    paths = sorted(
        p
        for p in path.iterdir()
        if p.is_file()
        and not p.name.startswith(".")
        and (p.suffix.lower() in KNOWN or is_dicom(p))
    )
    others = sum(not p.name.startswith(".") for p in path.iterdir()) - len(paths)
    if not paths:
        raise ValueError(
            f"{path} holds no picture, video or DICOM file, but {others} other files or "
            "folders, which are not entered"
        )
    if others:
        print(f"note: {others} other files or folders of {path}/ are not looked at")
    check_names(paths)
    return paths


def open_source(path: Path) -> Source:
    """Return the Source of a file, or of a camera where `path` is a number.

    Raises:
        ValueError: it cannot be read; the message names it.
    """
    if is_camera(path):
        return open_camera(int(str(path)))
    suffix = path.suffix.lower()
    if suffix in VIDEO:
        return open_video(path)
    if suffix in DICOM or is_dicom(path):
        return open_dicom(path)
    frame = read_picture(path)
    return Source(path.name, path, "picture", [frame], 1, RATE, None)


def grey(frame: np.ndarray, name: str | Path) -> np.ndarray:
    """Return a frame of OpenCV's, blue first, as grey."""
    if frame.shape[0] * frame.shape[1] > MAX_PIXELS:
        raise ValueError(f"{name} has frames of {frame.shape[0]} x {frame.shape[1]}")
    return frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)


def read_capture(capture: cv2.VideoCapture, name: str | Path) -> Iterator[np.ndarray]:
    """Yield the frames of an open video or camera; release it at the end."""
    try:
        while True:
            found, frame = capture.read()
            if not found:
                return
            yield grey(frame, name)
    finally:
        capture.release()


def open_video(path: Path) -> Source:
    """Return the Source of a video."""
    if not path.is_file() or path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:  # OpenCV 5.0 would crash
        raise ValueError(f"{path} is no name in UTF-8; rename it") from error
    # FFmpeg takes what stands before a colon for a protocol: "12:30.mp4"
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    found, first = capture.read() if capture.isOpened() else (False, None)
    if not found:
        capture.release()
        raise ValueError(f"{path} is no video that can be decoded, or is cut short")
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = int(max(0, min(capture.get(cv2.CAP_PROP_FRAME_COUNT), MAX_FRAMES)))

    def frames():
        yield grey(first, path)
        yield from read_capture(capture, path)

    rate = rate if 0 < rate < 1000 else RATE
    return Source(path.name, path, "video", frames(), count or None, rate, None)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep OpenCV's own lines off the screen: the errors here say what is wrong."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def open_camera(number: int) -> Source:
    """Return the Source of a camera."""
    with silent():
        capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise ValueError(f"there is no camera {number}, or another program holds it")
    rate = capture.get(cv2.CAP_PROP_FPS)
    name = f"camera{number}"
    rate = rate if 0 < rate < 1000 else RATE
    return Source(name, None, "camera", read_capture(capture, name), None, rate, None)


def open_dicom(path: Path) -> Source:
    """Return the Source of a DICOM file, of one frame or several.

    The dataset's pixels are read frame by frame. Inverted greys are turned, windows applied
    where it names one, and more than 8 bits scaled from lowest to highest.
    """
    text = f"{path} is DICOM, which needs: pip install -r requirements/dicom.txt"
    with refusing(text, ImportError):
        import pydicom
        from pydicom.pixels import iter_pixels
    warnings.filterwarnings("ignore", module="pydicom")
    # zlib's errors, too, of a deflated file that is cut
    with refusing(f"{path} is no DICOM file with pixels", Exception):
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=False)
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        height, width = int(dataset.Rows), int(dataset.Columns)
    if height * width > MAX_PIXELS or not 1 <= count <= MAX_FRAMES:
        raise ValueError(f"{path} claims to hold {count} frames of {height} x {width}")

    def frames():
        try:
            deflated = dataset.file_meta.TransferSyntaxUID.is_deflated
            # a deflated file has to be read whole
            for frame in iter_pixels(pydicom.dcmread(path) if deflated else path):
                yield dicom_grey(frame, dataset)
        except Exception as error:  # decoders of others may raise anything
            text = " ".join(str(error).split())
            mend = ""
            if "missing dependencies" in text:  # pydicom's, of absent decoders
                mend = "; JPEG lossless needs: pip install pylibjpeg pylibjpeg-libjpeg"
            raise ValueError(f"{path} cannot be decoded ({text:.160}){mend}") from error

    spacing = dicom_spacing(dataset)
    return Source(path.name, path, "dicom", frames(), count, dicom_rate(dataset), spacing)


def dicom_rate(dataset) -> float:
    """Return frames/s of a dataset: RATE where it does not say."""
    with contextlib.suppress(TypeError, ValueError):
        rate = dataset.get("CineRate") or dataset.get("RecommendedDisplayFrameRate")
        if not rate and dataset.get("FrameTime"):  # in milliseconds
            rate = 1000 / dataset.FrameTime
        if rate and 0 < rate < 1000:
            return float(rate)
    return RATE


def has_values(dataset, *names: str) -> bool:
    """Tell whether a dataset has all these attributes, none of them empty."""
    return all(dataset.get(name) not in (None, "") for name in names)


def dicom_grey(frame: np.ndarray, dataset) -> np.ndarray:
    """Return one decoded frame of a dataset as a uint8 grey array `(height, width)`."""
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        frame = apply_color_lut(frame, dataset)
        if frame.dtype != np.uint8:
            frame = (frame >> 8).astype(np.uint8)
    if frame.ndim == 3:  # pydicom gives colours as red, green, blue
        return cv2.cvtColor(
            np.ascontiguousarray(frame[..., :3], np.uint8), cv2.COLOR_RGB2GRAY
        )
    window = has_values(dataset, "WindowCenter", "WindowWidth")
    if frame.dtype != np.uint8 or window:
        from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

        values = frame
        if has_values(dataset, "ModalityLUTSequence") or has_values(
            dataset, "RescaleSlope", "RescaleIntercept"
        ):
            values = apply_modality_lut(frame, dataset)
        if window:  # its range is of the stored values: signed, rescaled, turned
            ends = np.array([-np.inf, np.inf])
            with np.errstate(over="ignore"):
                values, ends = (apply_windowing(a, dataset) for a in (values, ends))
            low, high = ends
        else:
            values = np.asarray(apply_voi_lut(values, dataset), np.float64)
            low, high = values.min(), values.max()
        frame = ((values - low) * (255 / ((high - low) or 1.0))).clip(0, 255)
        frame = np.rint(frame).astype(np.uint8)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        frame = 255 - frame
    return frame


def dicom_spacing(dataset) -> tuple[float, float] | None:
    """Return (row, column) spacing in millimetres, or None where the file gives none."""
    with contextlib.suppress(AttributeError, TypeError, ValueError, IndexError):
        row, column = map(float, dataset.PixelSpacing)
        if row > 0 and column > 0:
            return row, column
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            units = region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection
            row, column = abs(region.PhysicalDeltaY), abs(region.PhysicalDeltaX)
            if units == (CENTIMETRES, CENTIMETRES) and row > 0 and column > 0:
                return 10.0 * row, 10.0 * column
    return None
