"""The challenge's run-length encoding of masks, both ways, and CSV files that hold it.

`start length start length ...`: pixels are numbered from 1, top to bottom and then left
to right; runs are sorted and do not overlap. An empty mask is an empty field.

Source: https://www.kaggle.com/c/ultrasound-nerve-segmentation/overview/evaluation
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 420, 580  # the challenge's frames, in pixels
MAX_FIELD = 1 << 24  # characters of one CSV field; the csv module's limit is 131,072
RUNS = re.compile(r"[0-9]+(?: [0-9]+)*", re.ASCII)
LONGEST_NUMBER = 9  # digits; more than any frame has pixels


def encode(mask: np.ndarray) -> str:
    """Return the run-length encoding of a mask, empty where that is.

    The mask is a bool or integer array `(height, width)`; all but 0 is nerve.
    """
    # most masks are empty, and a nerve covers few columns: 12 us and 73 us instead of 132
    # and 184 at 420 x 580
    columns = np.flatnonzero(np.bitwise_or.reduce(mask, axis=0))
    if not columns.size:
        return ""
    first, height = columns[0], len(mask)
    block = mask[:, first : columns[-1] + 1].T
    flat = np.zeros(block.size + 2, bool)
    flat[1:-1].reshape(block.shape)[...] = block
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    edges[1::2] -= edges[::2]  # ends become lengths
    edges[::2] += first * height + 1
    return " ".join(map(str, edges.tolist()))


def parse(pixels: str, num_pixels: int) -> np.ndarray:
    """Return the runs of an encoded mask, checked, in a frame of so many pixels.

    Returns:
        int64 array `(runs, 2)` of starts, counted from 0, and lengths.

    Raises:
        ValueError: not numbers, an odd count, or runs that are empty, out of order,
            overlapping, or past the end of the frame.
    """
    text = pixels.strip()
    if not text:
        return np.zeros((0, 2), np.int64)
    words = text.split(" ")
    if not RUNS.fullmatch(text) or max(map(len, words)) > LONGEST_NUMBER:
        expected = "expected 'start length start length ...'"
        raise ValueError(f"pixels hold {text[:40]!r}; {expected}")
    if len(words) % 2:
        raise ValueError(f"pixels hold {len(words)} numbers; expected pairs")
    runs = np.array(words, np.int64).reshape(-1, 2)
    starts, lengths = runs.T
    if starts.min() < 1 or lengths.min() < 1:
        raise ValueError("a run starts before pixel 1 or is shorter than 1")
    ends = starts + lengths  # the first pixel behind each run
    if ends.max() > num_pixels + 1:
        raise ValueError(f"a run ends at pixel {ends.max() - 1} of {num_pixels}")
    wrong = np.flatnonzero(starts[1:] < ends[:-1])
    if wrong.size:
        (start, length), (following, _) = runs[wrong[0] :][:2]
        order = "out of order" if following < start else "overlapping"
        raise ValueError(f"runs are {order}: {start} {length}, then {following}")
    runs[:, 0] -= 1
    return runs


def run_pixels(runs: np.ndarray) -> np.ndarray:
    """Return the flat column-major pixel numbers, from 0, that the runs cover."""
    starts, lengths = runs.T
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def draw(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the uint8 mask `(height, width)`, 0 or 1, of runs that `parse` returned."""
    mask = np.zeros(height * width, np.uint8)
    mask[run_pixels(runs)] = 1
    return np.ascontiguousarray(mask.reshape(width, height).T)


def decode(pixels: str, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return the uint8 mask `(height, width)`, 0 or 1, of a run-length encoding.

    Errors are those of `parse`.
    """
    return draw(parse(pixels, height * width), height, width)


def read_rows(path: Path, *columns: str) -> Iterator[tuple[int, dict]]:
    """Yield `(line number, row)` of a CSV file that has at least these columns.

    Raises:
        ValueError: no text, other columns, or a row of another length, with its line.
    """
    csv.field_size_limit(MAX_FIELD)
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            names = reader.fieldnames or []
            for name in columns:
                if names.count(name) != 1:
                    said = f"{path} has {names.count(name) or 'no'} column {name!r}"
                    first = f"its first line should name {','.join(columns)}"
                    raise ValueError(f"{said}; {first}")
            for row in reader:
                if None in row or None in row.values():
                    where = f"{path} line {reader.line_num}"
                    raise ValueError(f"{where}: expected {len(names)} fields")
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV text file: {error}") from error


def whole_number(text: str, where: str) -> int:
    """Return a positive int written in plain digits; `where` goes into the error."""
    if not re.fullmatch("0*[1-9][0-9]*", text) or len(text) > LONGEST_NUMBER:
        raise ValueError(f"{where}: {text[:40]!r} is not a whole number")
    return int(text)


def read_train_masks(path: Path) -> dict[tuple[int, int], str]:
    """Read `train_masks.csv` into `{(subject, image): pixels}`.

    Raises:
        ValueError: a number is malformed or a frame listed twice, with its line.
    """
    masks = {}
    for line, row in read_rows(Path(path), "subject", "img", "pixels"):
        where = f"{path} line {line}"
        key = whole_number(row["subject"], where), whole_number(row["img"], where)
        if key in masks:
            raise ValueError(f"{where}: frame {key[0]}_{key[1]} is listed twice")
        masks[key] = row["pixels"]
    return masks
