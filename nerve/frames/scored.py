"""Masks to score beside true ones: of tables in run-length encoding, or of folders."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve.files import run_length
from nerve.frames.own_frames import Seen, judge, read_pair
from nerve.frames.pairs import find_pairs, name_subjects
from nerve.frames.pictures import read_mask

# as predict.py names the frames of a video: NAME_00001; or a frame of a subject's folder
CLIP = re.compile(r"(.*?)[-_. /]*([0-9]*)", re.DOTALL)


class Mask(NamedTuple):
    """A frame's mask."""

    runs: np.ndarray  # as of `run_length.parse`
    size: tuple[int, int]  # (height, width)
    subject: int | str | None  # whose the frame is, where that is known
    number: int  # its place among the subject's frames

    def draw(self) -> np.ndarray:
        """Return the mask, uint8 `(height, width)` of 0 and 1."""
        return run_length.draw(self.runs, *self.size)


Masks = dict[int | str | tuple[int, int], Mask]  # by img, (subject, img) or name


def read_table(path: Path, with_subject: bool, size: tuple[int, int]) -> Masks:
    """Read a CSV of masks and check each row.

    Args:
        with_subject: Whether a frame is named by (subject, img); else by img alone.
        size: Of the frames, (height, width).

    Returns:
        The masks in the file's order.

    Raises:
        ValueError: a malformed row, named by its line.
    """
    masks = {}
    columns = ("subject", "img", "pixels") if with_subject else ("img", "pixels")
    for line, row in run_length.read_rows(path, *columns):
        where = f"{path} line {line}"
        image = run_length.whole_number(row["img"], where)
        subject = row.get("subject")
        if subject is not None:
            subject = run_length.whole_number(subject, where)
        name = (subject, image) if with_subject else image
        if name in masks:
            raise ValueError(f"{where}: frame {name} is listed twice")
        try:
            runs = run_length.parse(row["pixels"], size[0] * size[1])
        except ValueError as error:
            raise ValueError(f"{where}, frame {name}: {error}") from error
        # in the truth of test frames, whose img is shuffled over all subjects
        number = row.get("image", "")
        number = int(number) if re.fullmatch("[0-9]{1,9}", number) else image
        masks[name] = Mask(runs, size, subject, number)
    if not masks:
        raise ValueError(f"{path} lists no frames")
    return masks


def read_tables(predicted: Path, truth: Path, size: tuple[int, int]) -> tuple[Masks, Masks]:
    """Return `(predicted, truth)` of the same frames of two tables; see `read_table`.

    Raises:
        ValueError: a frame is in one file only.
    """
    for path in (predicted, truth):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing or a folder; expected a CSV file")
    with open(predicted, encoding="utf-8-sig", errors="replace") as file:
        with_subject = "subject" in re.split('[,"]+', file.readline().strip())
    both = [read_table(path, with_subject, size) for path in (predicted, truth)]
    for (one, other), (one_path, other_path) in (
        (both, (predicted, truth)),
        (both[::-1], (truth, predicted)),
    ):
        missing = [name for name in one if name not in other]
        if missing:
            raise ValueError(
                f"{other_path} has no row for frame {missing[0]} of {one_path} "
                f"({len(missing)} frames are missing)"
            )
    return tuple(both)


def split_name(stem: str) -> tuple[str, int]:
    """Return `(clip, number)` of a frame's name: "anna_07" is frame 7 of "anna"."""
    clip, number = CLIP.fullmatch(stem).groups()
    return clip or "-", int(number or 0)


def read_folders(
    predicted: Path,
    truth: Path,
    pattern: str | None,
    label: str | None,
    missing_empty: bool,
) -> tuple[Masks, Masks]:
    """Return `(predicted, truth)` of a folder of predicted masks, by their names.

    Args:
        truth: Whatever `pairs.find_pairs` takes for masks of frames.
        pattern: As of `pairs.name_subjects`; None for the name before its last number.
        label: The class or name that is nerve in `truth`, or None.
        missing_empty: Whether frames without a true mask show no nerve.

    Raises:
        ValueError: as of `find_pairs` and `read_pair`; several labels and none given.
    """
    pairs, seen, both = find_pairs(predicted, truth, missing_empty), [], ({}, {})
    names = [path.relative_to(predicted) for path, _ in pairs]
    subjects = name_subjects([name.as_posix() for name in names], pattern, None)
    for k, pair in enumerate(tqdm(pairs, "read", unit=" frames", disable=None)):
        path, name = pair[0], names[k].with_suffix("").as_posix()
        marked, (subject, number) = read_pair(pair, label)[1], split_name(name)
        seen.append(Seen(name, marked.labels, bool(marked.mask.any()), []))
        for masks, mask in zip(both, (read_mask(path, None)[0], marked.mask), strict=True):
            runs = run_length.parse(run_length.encode(mask), mask.size)
            subject = subjects[k] if subjects else subject
            masks[name] = Mask(runs, mask.shape, subject, number)
    for line in judge(seen, label):
        print(line)
    return both
