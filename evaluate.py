"""Score predicted masks against the true ones, after checking them row by row.

    python evaluate.py predictions/submission.csv raw/test_truth.csv
    python evaluate.py found/masks masks --by clip
    python evaluate.py predicted.csv anna.csv ben.csv carla.csv

Reads   two CSV files with the columns img,pixels, or subject,img,pixels; where the truth
        names subjects, intervals are by subject. Or a folder of predicted masks, NAME.png,
        and masks or outlines of these names as extract_data.py takes them. Or true masks
        of several raters
Writes  PREDICTED.scores.json and PREDICTED.scores.csv (a row a frame) beside PREDICTED;
        with --by clip also PREDICTED.clips.csv (a row a clip)
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from nerve import command, machine
from nerve.files import atomic, run_length
from nerve.frames.scored import Masks, keep_shared, read_folders, read_tables
from nerve.scoring import clips, raters, scores


def read_masks(args: argparse.Namespace) -> list[Masks]:
    """Return the predicted masks and each rater's, of tables or folders, frame by frame."""
    paths = [args.predicted, *args.truth]
    if args.predicted.is_dir() and args.truth[0].suffix.lower() != ".csv":
        flags = args.subject_pattern, args.label, args.missing_empty
        return keep_shared(read_folders(args.predicted, args.truth, *flags), paths)
    for flag in ("subject_pattern", "label", "missing_empty"):
        if getattr(args, flag):
            raise ValueError(
                f"--{flag.replace('_', '-')} is of folders of masks; {args.predicted} and "
                f"{args.truth[0]} are read as tables, which name subjects in a column"
            )
    size = args.height, args.width
    return keep_shared(read_tables(args.predicted, args.truth, size), paths)


def merge_raters(truths: list[Masks]) -> Masks:
    """Return the majority of raters' masks; of one rater, his."""
    if len(truths) == 1:
        return truths[0]
    merged = {}
    for name in truths[0]:
        each = [masks[name] for masks in truths]
        known = [mask for mask in each if mask.subject is not None] or each
        mask = raters.majority([mask.draw() for mask in each])
        runs = run_length.parse(run_length.encode(mask), mask.size)
        merged[name] = known[0]._replace(runs=runs)
    return merged


def score_frames(predicted: Masks, truth: Masks) -> dict:
    """Return `scores.frame_scores` of every frame, in the predicted file's order."""

    def score(name):
        return scores.frame_scores(truth[name].draw(), predicted[name].draw())

    results = machine.map_threads(score, predicted)
    bar = tqdm(results, "evaluate", total=len(predicted), unit=" frames", disable=None)
    return dict(zip(predicted, bar, strict=True))


def cluster(truth: Masks, names: Iterable) -> tuple[list, bool]:
    """Return `(clusters, known)`: each frame's subject, or its own number where unknown."""
    subjects = [truth[name].subject for name in names]
    return (list(range(len(subjects))), False) if None in subjects else (subjects, True)


def summarize(truth: Masks, rows: dict) -> dict:
    """Return the scores of all frames together, as they are printed."""
    clusters, by_subject = cluster(truth, rows)
    summary = scores.summarize(list(rows.values()), clusters)
    sizes, constant = {mask.size for mask in truth.values()}, None
    if len(sizes) == 1:
        masks = [(mask.runs, mask.subject) for mask in truth.values()]
        height, width = sizes.pop()
        constant = scores.best_constant_mask(masks, height * width)
    summary["nerve_dice_constant_mask"] = constant
    summary["subjects"] = len(set(clusters)) if by_subject else None
    return summary


def score_raters(predicted: Masks, truths: list[Masks], rows: dict, clusters: list) -> dict:
    """Return how raters and predictions agree; each frame's is added to its row."""
    with_staple = raters.has_staple()

    def score(name):
        masks = [masks[name].draw() for masks in truths]
        return raters.frame_agreement(predicted[name].draw(), masks, with_staple)

    results = machine.map_threads(score, rows)
    found = list(tqdm(results, "raters", total=len(rows), unit=" frames", disable=None))
    columns = next(filter(None, found), {})
    for row, agreement in zip(rows.values(), found, strict=True):
        row |= {column: (agreement or {}).get(column) for column in columns}
    return raters.summarize(found, clusters)


def format_raters(summary: dict, names: list[str]) -> str:
    """Return how raters and predictions agree as lines of text."""
    table = raters.matrix(summary, names)
    width = max(len(text) for row in table for text in row) + 2
    lines = ["".join(text.rjust(width) for text in row).rstrip() for row in table]
    lines = ["Dice with each rater:", *lines]
    lines += [scores.format_table(raters.without_pairs(summary)), raters.say(summary)]
    return "\n".join(lines + [raters.LACKING] * (not raters.has_staple()))


def score_clips(
    predicted: Masks,
    truth: Masks,
    rows: dict,
    overlap: float,
    spacing: tuple[float, float] | None,
) -> tuple[dict, dict]:
    """Return the scores of all clips together, and of each, as of `clips.summarize`."""
    order = {}
    for name in sorted(rows, key=lambda name: (truth[name].clip, truth[name].number)):
        order.setdefault(truth[name].clip, []).append(name)
    in_order = {clip: [rows[name] for name in names] for clip, names in order.items()}
    summary = clips.summarize(in_order, overlap, spacing)
    each = {clip: clips.score_clip(frames, overlap) for clip, frames in in_order.items()}
    for column, masks in (("flicker", predicted), ("flicker_truth", truth)):
        everything = []
        for clip, names in order.items():
            values = clips.flicker(masks[name].draw() for name in names)
            each[clip][column] = scores.mean(values)
            everything += values
        summary[column] = scores.mean(everything)
    return summary, each


def output_path(predicted: Path, end: str) -> Path:
    """Return where scores are written, beside a table or a folder of predictions."""
    if not predicted.is_dir():
        return predicted.with_suffix(f".{end}")
    folder = predicted if predicted.name.strip(".") else predicted.resolve()
    return folder.with_name(f"{folder.name}.{end}")


def write_rows(path: Path, names: tuple[str, ...], rows: dict) -> None:
    """Write a table with a row for each name, a tuple where there are several `names`.

    A count is written in full, another number with six digits, None as an empty field.
    """
    columns = list(next(iter(rows.values())))
    with atomic.write_csv(path, [*names, *columns]) as writer:
        for name, row in rows.items():
            key = name if isinstance(name, tuple) else (name,)
            key = [atomic.as_text(k) if isinstance(k, str) else k for k in key]
            values = (row[column] for column in columns)
            values = [f"{v:.6g}" if isinstance(v, float) else v for v in values]
            writer.writerow([*key, *values])


def write_scores(predicted: Path, summary: dict, rows: dict, each: dict) -> list[Path]:
    """Write the summary as JSON, frames' and clips' scores as CSV; return the files."""
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
    text = "CSV of true masks of the same frames, or a folder; of several raters, each's"
    add("truth", type=Path, nargs="+", help=text)
    add("--height", type=side, default=run_length.HEIGHT, help="rows of a CSV's frames")
    add("--width", type=side, default=run_length.WIDTH, help="columns of these, in pixels")
    text = "what to score as wholes, too: frames called alike, or a subject's of tables"
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
    text = "fail unless challenge_dice is this far above predicting nothing"
    add("--require-gain", type=command.number(-1, 1), help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args, each = parse_args(argv), {}
    for end in scores.WRITTEN[: 3 if args.by else 2]:
        out = output_path(args.predicted, end)
        atomic.check_output(out, args.truth)
    names = raters.name_raters(args.truth)
    predicted, *truths = read_masks(args)
    truth = merge_raters(truths)
    if args.by and None in [mask.subject for mask in truth.values()]:
        raise ValueError(
            f"--by clip needs to know whose each frame is, and {args.truth[0]} has no "
            "column subject; add it, or score two folders of masks"
        )
    rows = score_frames(predicted, truth)
    summary = summarize(truth, rows)
    if args.by:
        found, each = score_clips(predicted, truth, rows, args.overlap, args.spacing)
        summary |= found
    print(scores.format_table(summary))
    if len(truths) > 1:
        print(f"Those are scores against the majority of {len(truths)} raters.")
        found = score_raters(predicted, truths, rows, cluster(truth, rows)[0])
        print(format_raters(found, names))
        summary |= {"raters": names} | found
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
