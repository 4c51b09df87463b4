"""Frames out of a picture, a video, a DICOM file or a camera, one after the other."""

import collections
import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nerve.command import listed
from nerve.frames import cameras, dicom, pictures, videos
from nerve.frames.outlines import KNOWN, stem_of
from nerve.frames.pairs import MASK
from nerve.frames.spacing import Region
from nerve.frames.videos import RATE


class Source(NamedTuple):
    """Frames that belong together."""

    name: str  # of the file, perhaps below its folder, or "camera0"
    path: Path | None
    kind: str  # "picture", "video", "dicom" or "camera"
    frames: Iterable[np.ndarray]  # uint8, (height, width)
    count: int | None  # of frames, where it is known
    rate: float  # frames/s
    notes: Sequence[str] = ()  # what a user should know, complete once all frames are read
    times: Sequence[float] = ()  # of frames read so far, in s; none where the rate tells
    regions: Sequence[Region] = ()  # where the frames have which spacing

    @property
    def stem(self) -> str:
        """What its files are called after."""
        return stem_of(self.name, self.name.count("/"))

    @property
    def moving(self) -> bool:
        """Whether its frames follow each other in time."""
        return self.kind == "camera" or self.count is None or self.count > 1

    def time_of(self, number: int) -> float:
        """Return when a frame that was read, counted from 1, is to be shown, in s."""
        return self.times[number - 1] if self.times else (number - 1) / self.rate


def is_camera(path: Path) -> bool:
    """Tell whether a path is the number of a camera rather than a file."""
    return str(path).isdecimal() and not path.exists()


def is_moving(path: Path) -> bool:
    """Tell whether a file holds several frames; one that cannot be read does not."""
    with contextlib.suppress(ValueError, OSError):
        return open_source(path).moving
    return False


def check_names(paths: list[Path]) -> None:
    """Refuse files whose masks would be one: of one stem, or a still as a video's frame."""
    files = collections.defaultdict(list)
    for path in paths:
        files[path.parent, stem_of(path.name)].append(path)
    for (folder, stem), found in files.items():
        if len(found) > 1:
            said = f"{folder} holds {len(found)} files called {stem}"
            raise ValueError(f"{said}; their masks would be one file")
        frame = re.fullmatch(r"(.+)_[0-9]{5,}", stem, re.DOTALL)
        for video in files.get((folder, frame[1]), []) if frame else []:
            if is_moving(video) and not is_moving(found[0]):
                raise ValueError(
                    f"{found[0]} is called as a frame of {video.name}; their masks would "
                    "be one file: move one of them to another folder"
                )


def list_files(path: Path) -> list[Path]:
    """Return the files of a folder that hold frames, or the one (or camera) named.

    Where it holds none, those of the folders in it are meant: one for each patient.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: none, or two whose results would have one name.
    """
    if is_camera(path):
        return [path]
    if not path.exists():
        files = "a picture, video or DICOM file, a folder of them"
        said = f"{path} is missing; expected {files}, or the number of a camera"
        raise FileNotFoundError(said)
    if not path.is_dir():
        return [path]
    entries, found = set(), []
    for pattern in ("[!.]*", "[!.]*/[!.]*"):
        if not found:
            entries.update(path.glob(pattern))
            found = sorted(p for p in entries if p.is_file() and dicom.is_of(p, KNOWN))
    stems = {(p.parent, stem_of(p.name)) for p in found}
    matches = {p: MASK.fullmatch(stem_of(p.name)) for p in found}  # NAME_mask, NAME_mask_1
    paths = [p for p in found if not (matches[p] and (p.parent, matches[p][1]) in stems)]
    masks = len(found) - len(paths)
    others = len(entries.difference(found, (p.parent for p in found)))
    if not paths:
        raise ValueError(
            f"{path} holds no picture, video or DICOM file, but {others} other files or "
            "folders; these are entered one deep"
        )
    if folders := {p.parent.name for p in paths if p.parent != path}:
        print(f"note: of {path}/ its folders are read: {listed(folders)}")
    if masks:
        print(f"note: {masks} masks of {path}/ (NAME_mask beside NAME) are no frames")
    if others:
        print(f"note: {others} other files or folders of {path}/ are not looked at")
    check_names(paths)
    return paths


def open_source(path: Path) -> Source:
    """Return the Source of a file or camera; a ValueError names what cannot be read."""
    if is_camera(path):
        number = int(str(path))
        return Source(f"camera{number}", None, "camera", *cameras.open_camera(number))
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is not a file")
    suffix = path.suffix.lower()
    if suffix in videos.SUFFIXES:
        return Source(path.name, path, "video", *videos.open_video(path))
    if suffix in dicom.SUFFIXES or dicom.has_frames(path) is not None:
        return Source(path.name, path, "dicom", *dicom.open_dicom(path))
    try:
        frame = pictures.read_picture(path)
    except ValueError as error:
        if suffix in KNOWN:
            raise
        raise ValueError(f"{error}; read are {', '.join(KNOWN)}") from error
    return Source(path.name, path, "picture", [frame], 1, RATE)
