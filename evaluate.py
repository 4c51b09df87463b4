"""Score a CSV of predicted masks against the true ones, after checking it row by row.

    python evaluate.py predictions/submission.csv raw/test_truth.csv

Reads   two CSV files with the columns img,pixels, or subject,img,pixels; where the truth
        names subjects, intervals are by subject
Writes  PREDICTED.scores.json and PREDICTED.scores.csv (a row a frame) beside PREDICTED
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nerve import command, machine
from nerve.files import atomic, run_length
from nerve.scoring import scores

LEVELS = np.arange(1, 20)  # twentieths: thresholds tried for the best constant mask


def read_masks(path: Path, with_subject: bool, num_pixels: int) -> dict:
    """Read a CSV of masks and check each row.

    Args:
        with_subject: Whether a frame is named by (subject, img); else by img alone.
        num_pixels: Pixels in a frame.

    Returns:
        `{name: (runs, subject)}` in the file's order; `subject` is None if not given.

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
            runs = run_length.parse(row["pixels"], num_pixels)
        except ValueError as error:
            raise ValueError(f"{where}, frame {name}: {error}") from error
        masks[name] = runs, subject
    if not masks:
        raise ValueError(f"{path} lists no frames")
    return masks


def read_both(predicted_path: Path, truth_path: Path, num_pixels: int) -> tuple[dict, dict]:
    """Return `(predicted, truth)` of the same frames; see `read_masks`.

    Raises:
        ValueError: a frame is in one file only.
    """
    for path in (predicted_path, truth_path):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing or a folder; expected a CSV file")
    with open(predicted_path, encoding="utf-8-sig", errors="replace") as file:
        with_subject = "subject" in re.split('[,"]+', file.readline().strip())
    predicted = read_masks(predicted_path, with_subject, num_pixels)
    truth = read_masks(truth_path, with_subject, num_pixels)
    for one, one_path, other, other_path in (
        (predicted, predicted_path, truth, truth_path),
        (truth, truth_path, predicted, predicted_path),
    ):
        missing = [name for name in one if name not in other]
        if missing:
            raise ValueError(
                f"{other_path} has no row for frame {missing[0]} of {one_path} "
                f"({len(missing)} frames are missing)"
            )
    return predicted, truth


def best_constant_mask(truth: dict, num_pixels: int) -> float | None:
    """Return the Dice over frames with a nerve of the best mask that never changes.

    The mask is where at least a share of the true masks has nerve; the share is the best
    of 19. Frames of a subject are scored by a mask of the other subjects' frames, where
    two or more are named.
    """
    frames = [(runs, subject) for runs, subject in truth.values() if len(runs)]
    if not frames:
        return None
    groups, total = {}, np.zeros(num_pixels, np.int32)
    for runs, subject in frames:
        groups.setdefault(subject, []).append(runs)
        total[run_length.run_pixels(runs)] += 1
    values = []
    for mine in groups.values():
        others, size = total.copy(), len(frames)
        if len(groups) > 1:
            size -= len(mine)
            for runs in mine:
                others[run_length.run_pixels(runs)] -= 1
        masks = 20 * others >= LEVELS[:, None] * size
        areas = masks.sum(axis=1)
        for runs in mine:
            overlap = masks[:, run_length.run_pixels(runs)].sum(axis=1)
            values.append(2 * overlap / (areas + runs[:, 1].sum()))
    return float(np.mean(values, axis=0).max())


def score_frames(predicted: dict, truth: dict, height: int, width: int) -> dict:
    """Return `scores.frame_scores` of every frame, in the predicted file's order."""

    def score(name):
        masks = (run_length.draw(m[name][0], height, width) for m in (truth, predicted))
        return scores.frame_scores(*masks)

    results = machine.map_threads(score, predicted)
    bar = tqdm(results, "evaluate", total=len(predicted), unit=" frames", disable=None)
    return dict(zip(predicted, bar, strict=True))


def format_value(value: int | float | None) -> str:
    """Return a count in full, another number with six digits, None as an empty field."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def write_scores(path: Path, summary: dict, rows: dict) -> None:
    """Write the summary as JSON and the frames' scores as CSV beside the predictions."""
    first = next(iter(rows))
    names = ("subject", "img") if isinstance(first, tuple) else ("img",)
    columns = list(rows[first])
    with atomic.write_csv(path.with_suffix(".scores.csv"), [*names, *columns]) as writer:
        for name, row in rows.items():
            values = [format_value(row[c]) for c in columns]
            writer.writerow([*(name if isinstance(name, tuple) else (name,)), *values])
    atomic.write_bytes(path.with_suffix(".scores.json"), atomic.to_json(summary).encode())


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, side = parser.add_argument, command.whole(1, 10_000)
    add("predicted", type=Path, help="CSV of predicted masks")
    add("truth", type=Path, help="CSV of true masks of the same frames")
    add("--height", type=side, default=run_length.HEIGHT, help="rows of a frame, in pixels")
    add("--width", type=side, default=run_length.WIDTH, help="columns, in pixels")
    add(
        "--require-gain",
        type=command.number(-1, 1),
        help="fail unless challenge_dice is this far above predicting nothing",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    for end in ("csv", "json"):
        atomic.check_output(args.predicted.with_suffix(f".scores.{end}"), [args.truth])
    num_pixels = args.height * args.width
    predicted, truth = read_both(args.predicted, args.truth, num_pixels)
    rows = score_frames(predicted, truth, args.height, args.width)
    subjects = [truth[name][1] for name in rows]
    by_subject = None not in subjects
    summary = scores.summarize(
        list(rows.values()), subjects if by_subject else np.arange(len(rows))
    )
    summary["nerve_dice_constant_mask"] = best_constant_mask(truth, num_pixels)
    summary["subjects"] = len(set(subjects)) if by_subject else None
    print(scores.format_table(summary))
    with atomic.lock(args.predicted.parent, args.predicted.stem):
        write_scores(args.predicted, summary, rows)
    base = args.predicted.with_suffix("")
    print(
        f"{len(rows)} frames of {args.height} x {args.width} pixels scored: "
        f"{base}.scores.json, {base}.scores.csv"
    )
    gain = summary["challenge_dice"] - summary["predicting_nothing"]
    if args.require_gain is not None and gain < args.require_gain:
        raise ValueError(
            f"challenge_dice is {gain:.4f} above predicting nothing; "
            f"{args.require_gain:.4f} was required"
        )


if __name__ == "__main__":
    sys.exit(command.run(main))
