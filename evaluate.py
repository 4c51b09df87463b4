"""Score predicted masks against the true ones, after checking them row by row.

    python evaluate.py predictions/submission.csv raw/test_truth.csv
    python evaluate.py found/masks masks --by clip

Reads   two CSV files with the columns img,pixels, or subject,img,pixels; where the truth
        names subjects, intervals are by subject. Or a folder of predicted masks, NAME.png,
        and masks or outlines of these names as extract_data.py takes them
Writes  PREDICTED.scores.json and PREDICTED.scores.csv (a row a frame) beside PREDICTED;
        with --by clip also PREDICTED.clips.csv (a row a clip)
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from nerve import command, machine
from nerve.files import atomic, run_length
from nerve.frames.scored import Masks, read_folders, read_tables
from nerve.scoring import clips, scores


def read_both(args: argparse.Namespace) -> tuple[Masks, Masks]:
    """Return `(predicted, truth)` of the same frames, of two tables or two folders."""
    if args.predicted.is_dir() and args.truth.suffix.lower() != ".csv":
        flags = args.subject_pattern, args.label, args.missing_empty
        return read_folders(args.predicted, args.truth, *flags)
    for flag in ("subject_pattern", "label", "missing_empty"):
        if getattr(args, flag):
            raise ValueError(
                f"--{flag.replace('_', '-')} is of folders of masks; {args.predicted} and "
                f"{args.truth} are read as tables, which name subjects in a column"
            )
    return read_tables(args.predicted, args.truth, (args.height, args.width))


def score_frames(predicted: Masks, truth: Masks) -> dict:
    """Return `scores.frame_scores` of every frame, in the predicted file's order."""

    def score(name):
        return scores.frame_scores(truth[name].draw(), predicted[name].draw())

    results = machine.map_threads(score, predicted)
    bar = tqdm(results, "evaluate", total=len(predicted), unit=" frames", disable=None)
    return dict(zip(predicted, bar, strict=True))


def summarize(truth: Masks, rows: dict) -> dict:
    """Return the scores of all frames together, as they are printed."""
    subjects = [truth[name].subject for name in rows]
    by_subject = None not in subjects
    clusters = subjects if by_subject else list(range(len(rows)))
    summary = scores.summarize(list(rows.values()), clusters)
    sizes, constant = {mask.size for mask in truth.values()}, None
    if len(sizes) == 1:
        masks = [(mask.runs, mask.subject) for mask in truth.values()]
        height, width = sizes.pop()
        constant = scores.best_constant_mask(masks, height * width)
    summary["nerve_dice_constant_mask"] = constant
    summary["subjects"] = len(set(subjects)) if by_subject else None
    return summary


def score_clips(
    predicted: Masks,
    truth: Masks,
    rows: dict,
    overlap: float,
    spacing: tuple[float, float] | None,
) -> tuple[dict, dict]:
    """Return the scores of all clips together, and of each.

    Args:
        rows: `scores.frame_scores` of each frame.
        overlap: As of `clips.judge`.
        spacing: As of `clips.summarize`.
    """
    order = {}
    for name in sorted(rows, key=lambda name: truth[name].number):
        order.setdefault(truth[name].subject, []).append(name)
    order = {clip: order[clip] for clip in sorted(order)}
    in_order = {clip: [rows[name] for name in names] for clip, names in order.items()}
    summary = clips.summarize(in_order, overlap, spacing)
    each = {clip: clips.score_clip(frames, overlap) for clip, frames in in_order.items()}
    for column, masks in (("flicker", predicted), ("flicker_truth", truth)):
        values = {
            clip: clips.flicker(masks[name].draw() for name in names)
            for clip, names in order.items()
        }
        for clip, row in each.items():
            row[column] = scores.mean(values[clip])
        summary[column] = scores.mean(sum(values.values(), []))
    return summary, each


def format_value(value: int | float | None) -> str:
    """Return a count in full, another number with six digits, None as an empty field."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def output_path(predicted: Path, end: str) -> Path:
    """Return where scores are written, beside a table or a folder of predictions."""
    if not predicted.is_dir():
        return predicted.with_suffix(f".{end}")
    folder = predicted if predicted.name.strip(".") else predicted.resolve()
    return folder.with_name(f"{folder.name}.{end}")


def write_rows(path: Path, names: tuple[str, ...], rows: dict) -> None:
    """Write a table with a row for each name, a tuple where there are several `names`."""
    columns = list(next(iter(rows.values())))
    with atomic.write_csv(path, [*names, *columns]) as writer:
        for name, row in rows.items():
            key = name if isinstance(name, tuple) else (name,)
            key = [atomic.as_text(k) if isinstance(k, str) else k for k in key]
            writer.writerow([*key, *(format_value(row[c]) for c in columns)])


def write_scores(predicted: Path, summary: dict, rows: dict, each: dict) -> list[Path]:
    """Write the summary as JSON, and the frames' and clips' scores as CSV.

    Args:
        each: As of `score_clips`; empty where clips were not asked for.

    Returns:
        What was written.
    """
    first = next(iter(rows))
    names = ("name",) if isinstance(first, str) else ("img",)
    names = ("subject", "img") if isinstance(first, tuple) else names
    paths = [output_path(predicted, end) for end in scores.WRITTEN[: 3 if each else 2]]
    write_rows(paths[1], names, rows)
    if each:
        write_rows(paths[2], ("clip",), each)
    atomic.write_json(paths[0], summary)
    return paths


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, side = parser.add_argument, command.whole(1, 10_000)
    share, length = command.number(0, 1, above=True), command.number(0, 1000, above=True)
    add("predicted", type=Path, help="CSV of predicted masks, or a folder of them")
    add("truth", type=Path, help="CSV of true masks of the same frames, or a folder")
    add("--height", type=side, default=run_length.HEIGHT, help="rows of a CSV's frames")
    add("--width", type=side, default=run_length.WIDTH, help="columns of these, in pixels")
    text = "what to score as wholes, too: clips are the subjects, their frames by number"
    add("--by", choices=("clip",), help=text)
    text = "intersection over union from which on a nerve counts as found, by clip"
    add("--overlap", type=share, default=clips.OVERLAP, help=text)
    text = "mm from row to row and from column to column, for areas in mm2, by clip"
    add("--spacing", type=length, nargs=2, metavar=("ROW", "COLUMN"), help=text)
    text = "whose a frame of a folder is: the first group; else the name before its number"
    add("--subject-pattern", metavar="REGEX", help=text)
    add("--label", help="class or name of the nerve in a folder's true masks")
    text = "frames of a folder without a true mask show no nerve"
    add("--missing-empty", action="store_true", help=text)
    add(
        "--require-gain",
        type=command.number(-1, 1),
        help="fail unless challenge_dice is this far above predicting nothing",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args, each = parse_args(argv), {}
    for end in scores.WRITTEN[: 3 if args.by else 2]:
        out = output_path(args.predicted, end)
        atomic.check_output(out, [args.truth])
    predicted, truth = read_both(args)
    if args.by and None in [mask.subject for mask in truth.values()]:
        raise ValueError(
            f"--by clip needs to know whose each frame is, and {args.truth} has no column "
            "subject; add it, or score two folders of masks"
        )
    rows = score_frames(predicted, truth)
    summary = summarize(truth, rows)
    if args.by:
        found, each = score_clips(predicted, truth, rows, args.overlap, args.spacing)
        summary |= found
    print(scores.format_table(summary))
    with atomic.lock(out.parent, args.predicted.stem):
        paths = write_scores(args.predicted, summary, rows, each)
    sizes = {mask.size for mask in truth.values()}
    size = " of {} x {} pixels".format(*sizes.pop()) if len(sizes) == 1 else ""
    print(f"{len(rows)} frames{size} scored: {', '.join(map(str, paths))}")
    gain = summary["challenge_dice"] - summary["predicting_nothing"]
    if args.require_gain is not None and gain < args.require_gain:
        raise ValueError(
            f"challenge_dice is {gain:.4f} above predicting nothing; "
            f"{args.require_gain:.4f} was required"
        )


if __name__ == "__main__":
    sys.exit(command.run(main))
