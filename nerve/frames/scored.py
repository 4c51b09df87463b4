"""Masks to score beside true ones: of tables in run-length encoding, or of folders."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nerve.command import listed
from nerve.files import run_length
from nerve.frames.own_frames import Seen, judge, read_pair
from nerve.frames.pairs import find_frames, find_masks, find_pairs, name_subjects
from nerve.frames.pictures import read_mask
from nerve.scoring import raters

# as predict.py names the frames of a video: anna_00007 is frame 7 of the clip anna; or a
# frame of a subject's folder
CLIP = re.compile(r"(.*?)[-_. /]*([0-9]*)", re.DOTALL)


class Mask(NamedTuple):
    """A frame's mask."""

    runs: np.ndarray  # as of `run_length.parse`
    size: tuple[int, int]  # (height, width)
    subject: int | str | None  # whose the frame is, where that is known
    clip: int | str | None  # of which clip of the subject's, likewise
    number: int  # its place among the clip's frames

    def draw(self) -> np.ndarray:
        """Return the mask, uint8 `(height, width)` of 0 and 1."""
        return run_length.draw(self.runs, *self.size)


Masks = dict[int | str | tuple[int, int], Mask]  # by img, (subject, img) or name


def check_table(path: Path) -> None:
    """Refuse what is no file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing or a folder; expected a CSV file")


def read_table(path: Path, with_subject: bool, size: tuple[int, int]) -> Masks:
    """Return the masks of a CSV, of frames of a size (height, width), in the file's order.

    Args:
        with_subject: Whether a frame is named by (subject, img); else by img alone.

    Raises:
        ValueError: a malformed row, named by its line.
    """
    check_table(path)
    masks = {}
    columns = ("subject", "img", "pixels") if with_subject else ("img", "pixels")
    for line, row in run_length.read_rows(path, *columns):
        where = f"{path} line {line}"
        image = run_length.whole_number(row["img"], where)
        known = row.get("subject")
        subject = None if known is None else run_length.whole_number(known, where)
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
        masks[name] = Mask(runs, size, subject, subject, number)
    if not masks:
        raise ValueError(f"{path} lists no frames")
    return masks


def read_tables(predicted: Path, truths: list[Path], size: tuple[int, int]) -> list[Masks]:
    """Return the masks of a table of predictions and of tables of true masks.

    Raises:
        ValueError: a frame is in one of two files only; as of `read_table`.
    """
    paths = [predicted, *truths]
    for path in paths:
        check_table(path)
    with open(predicted, encoding="utf-8-sig", errors="replace") as file:
        with_subject = "subject" in re.split('[,"]+', file.readline().strip())
    tables = [read_table(path, with_subject, size) for path in paths]
    for one, other in ((0, 1), (1, 0)) if len(truths) == 1 else ():
        if missing := [name for name in tables[one] if name not in tables[other]]:
            said = f"{paths[other]} has no row for frame {missing[0]} of {paths[one]}"
            raise ValueError(f"{said} ({len(missing)} frames are missing)")
    return tables


def find_rater_pairs(
    predicted: Path, truth: Path, missing_empty: bool
) -> list[tuple[Path, list | None]]:
    """Return pairs as `pairs.find_pairs` does, with None for masks that a rater lacks."""
    frames = find_frames(predicted, truth)
    found, lacking = find_masks(truth, frames), [] if missing_empty else None
    return [(path, found.get(stem, lacking)) for stem, path in frames.items()]


def read_folder(folder: Path, pairs: list, pattern: str | None, read: Callable) -> Masks:
    """Return the masks of frames of a folder, by their names below it without suffix.

    Pairs are as of `pairs.find_pairs`, and `read` returns the uint8 mask of one.
    """
    names, masks = [path.relative_to(folder) for path, _ in pairs], {}
    subjects = name_subjects([name.as_posix() for name in names], pattern, None)
    bar = tqdm(pairs, "read", unit=" frames", disable=None)
    for k, mask in enumerate(map(read, bar)):
        name = names[k].with_suffix("").as_posix()
        clip, number = CLIP.fullmatch(name).groups()
        runs = run_length.parse(run_length.encode(mask), mask.size)
        subject = subjects[k] if subjects else clip or "-"
        clip = subject if pattern else clip or "-"
        masks[name] = Mask(runs, mask.shape, subject, clip, int(number or 0))
    return masks


def read_folders(
    predicted: Path,
    truths: list[Path],
    pattern: str | None,
    label: str | None,
    missing_empty: bool,
) -> list[Masks]:
    """Return the masks of a folder of predictions, and those of their names in others.

    Args:
        truths: Whatever `pairs.find_pairs` takes for masks of frames.
        pattern: As of `pairs.name_subjects`; None for the name before its last number.
        label: The class or name that is nerve in `truths`, or None.
        missing_empty: Whether frames without a true mask show no nerve.

    Raises:
        ValueError: as of `find_pairs` and `read_pair`; several labels and none given.
    """
    find = find_pairs if len(truths) == 1 else find_rater_pairs
    found, seen = [], []

    def read(pair):
        marked = read_pair(pair, label)[1]
        seen.append(Seen(pair[0].name, marked.labels, bool(marked.mask.any()), []))
        return marked.mask

    for truth in truths:
        pairs = find(predicted, truth, missing_empty)
        marked = [pair for pair in pairs if pair[1] is not None]
        found.append(read_folder(predicted, marked, pattern, read))
    for line in judge(seen, label):
        print(line)
    own = read_folder(predicted, pairs, pattern, lambda pair: read_mask(pair[0], None)[0])
    return [own, *found]


def keep_shared(tables: list[Masks], paths: list[Path]) -> list[Masks]:
    """Return the masks of the frames that all tables have, a ValueError of no such frame.

    Others are said, by table.
    """
    everything = {name: None for table in tables for name in table}
    shared = [name for name in everything if all(name in table for table in tables)]
    for table, path in zip(tables, paths, strict=True):
        if lacking := [name for name in everything if name not in table]:
            said = f"{path} lacks {len(lacking)} of {len(everything)} frames"
            print(f"note: {said}, which are left out: {listed(map(str, lacking))}")
    if not shared:
        raise ValueError(
            f"no frame is in all of {', '.join(map(str, paths))}; frames are told by "
            "their names, or by their numbers in tables"
        )
    return [{name: table[name] for name in shared} for table in tables]


def read_raters(
    paths: list[Path], size: tuple[int, int], names: list[tuple[int, int]]
) -> tuple[dict[str, Masks], list[str]]:
    """Return `({rater: masks}, notes)` of a table of each rater.

    The notes say how many of the frames that count, `names`, a rater lacks.
    """
    pairs, notes = zip(raters.name_raters(paths), paths, strict=True), []
    tables = {name: read_table(path, True, size) for name, path in pairs}
    for name, table in tables.items():
        if lacking := sum(frame not in table for frame in names):
            notes.append(
                f"{name} lacks {lacking} of {len(names)} frames; raters are compared in "
                "frames that all have."
            )
    if len(tables) > 1 and not raters.has_staple():
        notes.append(f"{raters.LACKING}.")
    return tables, notes
