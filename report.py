"""One page that shows how well a network does on its validation frames, and where it fails.

    python report.py --data data --weights weights/unet.h5 --out report.html

Reads   weights/unet.h5, unet.json and unet.csv; data/imgs_train.npy,
        data/imgs_mask_train.npy, data/preprocess.json; with --raters CSV files with the
        columns subject,img,pixels
Writes  report.html, with all pictures in it
"""

import argparse
import dataclasses
import functools
import heapq
import html
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from nerve import command
from nerve.files import atomic
from nerve.frames.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, outline
from nerve.frames.scored import Masks, read_raters
from nerve.precision import PRECISIONS, choose_precision
from nerve.prediction import inference
from nerve.prediction.held_out import read_validation, searched_on
from nerve.prediction.limits import THRESHOLDS, Measures, measure_frame, score_at
from nerve.prediction.networks import load_network, read_trained
from nerve.records import Limits, Trained
from nerve.scoring import plots, raters, scores

SHOWN = 12  # worst frames, and as many best
PICTURE_WIDTH, JPEG_QUALITY = 360, 82  # pixels
# of raters' outlines: blue, purple, sky blue, yellow of Okabe and Ito's palette, which the
# colour-blind tell apart (https://jfly.uni-koeln.de/color/), too, from orange and green
RATER_COLOURS = ((0, 114, 178), (204, 121, 167), (86, 180, 233), (240, 228, 66))
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; }
td, th { padding: .15rem .9rem .15rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.plots, .frames { display: flex; flex-wrap: wrap; gap: 1rem; }
.plots img { width: 29rem; max-width: 100%; } figure { margin: 0; break-inside: avoid; }
.frames img { width: 14.5rem; } figcaption { font-size: .85rem; }
.note { border-left: 4px solid #d06a00; padding: .3rem .8rem; background: #fdf6ee; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } }
"""
LABELS = {
    "frames": "frames",
    "frames_with_nerve": "frames with a nerve",
    "challenge_dice": "challenge's score (mean Dice, empty against empty is 1)",
    "predicting_nothing": "the same of predicting nothing",
    "nerve_dice": "Dice over frames with a nerve",
    "nerve_dice_median": "median Dice over frames with a nerve",
    "nerve_iou": "IoU over frames with a nerve",
    "share_below_0.1": "share of nerves missed (Dice below 0.1)",
    "hausdorff_95": "95 % Hausdorff distance, pixels",
    "centroid_distance": "distance of the centres, pixels",
    "sensitivity": "sensitivity of presence",
    "specificity": "specificity of presence",
    "frames_of_raters": "frames in which any rater shows a nerve",
    "predicted_dice": "Dice of the network with each rater",
    "raters_dice": "Dice of the raters with each other",
    "difference": "difference",
    "majority_dice": "Dice of the network with the raters' majority",
    "staple_dice": "Dice of the network with their consensus (STAPLE)",
}


class Tally:
    """What the page shows, gathered frame by frame; only a few frames are kept.

    Args:
        tables: `{rater: masks}` by (subject, image), to be drawn and compared.
    """

    def __init__(self, tables: dict[str, Masks] | None = None):
        self.tables, self.agreements = tables or {}, []
        self.rows, self.subjects, self.measures = [], [], []
        # heaps of (key, number, name, picture, Dice)
        self.worst, self.best, self.disputed = [], [], []
        # of each bin of probabilities: all pixels, and those of nerve
        self.pixels = np.zeros((plots.BINS, 2))

    def see(
        self, name: tuple[int, int], found: inference.Prediction, truth: np.ndarray
    ) -> None:
        """Count a frame, called (subject, image), whose true mask is of 0 and 1."""
        frame, geometry, probability, mask, _ = found
        row = scores.frame_scores(truth, mask)
        others = [t[name].draw() if name in t else None for t in self.tables.values()]
        heaps = []
        if truth.any() or mask.any():  # nothing can be seen of nothing
            heaps = [(self.worst, -1, row["dice"]), (self.best, 1, row["dice"])]
        if len(others) > 1 and all(each is not None for each in others):
            agreement = raters.frame_agreement(mask, others, raters.has_staple())
            self.agreements.append((agreement, name[0]))
            if agreement:
                heaps.append((self.disputed, -1, agreement["raters_dice"]))
        for heap, sign, dice in heaps:
            if len(heap) < SHOWN or sign * dice > heap[0][0]:
                picture = draw(frame, truth, mask, others)
                item = sign * dice, -len(self.rows), name, picture, dice
                (heapq.heappush if len(heap) < SHOWN else heapq.heapreplace)(heap, item)
        self.rows.append(row)
        self.subjects.append(name[0])
        self.measures.append(measure_frame(truth, geometry, probability))
        small = geometry.fit(truth * 255) / 255
        bins = np.minimum((probability * plots.BINS).astype(int), plots.BINS - 1).ravel()
        for column, weights in enumerate((None, small.ravel())):
            self.pixels[:, column] += np.bincount(bins, weights, plots.BINS)


def draw(frame: np.ndarray, truth: np.ndarray, mask: np.ndarray, others: list) -> bytes:
    """Return a frame with all outlines as JPEG, at the page's width.

    Of `others` each is a rater's mask, or None where there is none of this frame.
    """
    size = PICTURE_WIDTH, round(frame.shape[0] * PICTURE_WIDTH / frame.shape[1])
    resize = functools.partial(cv2.resize, dsize=size, interpolation=cv2.INTER_AREA)
    drawn = [(truth, TRUTH_COLOUR), *zip(others, RATER_COLOURS, strict=False)]
    picture = resize(frame)
    for each, colour in (*drawn, (mask, PREDICTION_COLOUR)):
        if each is not None:
            picture = outline(picture, resize(each * 255) >= 128, colour)
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", picture[..., ::-1], flags)[1].tobytes()


def table_of_scores(summary: dict) -> str:
    """Return the scores as a table."""
    lines = ["<tr><th></th><th></th><th>95 % interval, by subject</th></tr>"]
    for name, value, interval in scores.format_scores(summary, 3):
        cells = f'{LABELS[name]}</td><td class="number">{value}</td><td>{interval}'
        lines.append(f"<tr><td>{cells}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def show_raters(tally: Tally) -> str:
    """Return how the network and raters agree; nothing without several raters."""
    if len(tally.tables) < 2:
        return ""
    rows, subjects = zip(*tally.agreements, strict=True) if tally.agreements else ((), ())
    summary, lines = raters.summarize(list(rows), list(subjects)), []
    for row in raters.matrix(summary, list(tally.tables)):
        name, *cells = map(html.escape, row)
        cells = "".join(f'<td class="number">{text}</td>' for text in cells)
        lines.append(f"<tr><td>{name}</td>{cells}</tr>")
    said, others = html.escape(raters.say(summary)), raters.without_pairs(summary)
    return (
        f"<h2>Raters</h2><p>{said[0].upper()}{said[1:]}.</p>{table_of_scores(others)}"
        f"<p>Dice with each rater:</p><table>{''.join(lines)}</table>"
        "<p>Frames on which they differ most, and their Dice with each other. Outlines: "
        f"{show_legend(tally.tables)}.</p>{show_frames(tally.disputed)}"
    )


def show_legend(tables: Iterable[str]) -> str:
    """Return what the outlines' colours mean."""
    texts = [
        f'<b style="color:{plots.NEAR_TRUTH}">truth</b>',
        f'<b style="color:{plots.NEAR_FOUND}">prediction</b>',
    ]
    for name, colour in zip(tables, RATER_COLOURS, strict=False):
        swatch = f'<span style="background:rgb{colour}">&emsp;</span>'
        texts.append(f"{swatch} {html.escape(name)}")
    return ",\n".join(texts)


def show_frames(heap: list[tuple]) -> str:
    """Return the frames of a heap, the most extreme first."""
    figures = []
    for _, _, (subject, image), content, dice in sorted(heap, reverse=True):
        text = f"subject {subject}, image {image}: Dice {dice:.2f}"
        picture, text = plots.embed(content, "jpeg", text), html.escape(text)
        figures.append(f"<figure>{picture}<figcaption>{text}</figcaption></figure>")
    return f'<div class="frames">{"".join(figures)}</div>'


def plot_frames(rows: list[dict], subjects: list[int]) -> list[str]:
    """Return plots of the frames with a nerve, of `scores.frame_scores` of all."""
    shown, dice, pairs = [], {}, zip(rows, subjects, strict=True)
    pairs = [(row, subject) for row, subject in pairs if row["area"]]
    for row, subject in pairs:
        dice.setdefault(subject, []).append(row["dice"])
    ordered = sorted(dice.items(), key=lambda item: np.mean(item[1]))
    if not ordered:
        shown.append("<p>No frame shows a nerve: there is no Dice by subject.</p>")
    else:
        names, groups = zip(*ordered, strict=True)
        title = "Dice by subject (frames with a nerve)"
        with plots.plot(shown, title, "subject", "Dice") as axes:
            axes.boxplot(groups, tick_labels=names, showmeans=True)
            axes.set_ylim(0, 1)
            axes.tick_params(axis="x", labelrotation=90 if len(names) > 12 else 0)
    title = "Dice of frames with a nerve"
    with plots.plot(shown, title, "Dice", "frames") as axes:
        values = [row["dice"] for row, _ in pairs]
        axes.hist(values, bins=20, range=(0, 1), color=plots.NEAR_FOUND)
    areas, predicted = ([r[n] for r, _ in pairs] for n in ("area", "predicted_area"))
    with plots.plot(shown, "area of the mask, pixels", "true", "predicted") as axes:
        most = max([1, *areas, *predicted])
        axes.plot([0, most], [0, most], color="grey", linewidth=1)
        axes.plot(areas, predicted, ".", color=plots.NEAR_FOUND, markersize=4)
    return shown


def plot_probabilities(measures: Measures, pixels: np.ndarray) -> list[str]:
    """Return plots of how well presence and pixels' probabilities are judged."""
    shown, positive = [], ~measures.empty
    if positive.all() or not positive.any():
        kind = "with" if positive.all() else "without"
        text = f"<p>All frames are {kind} a nerve: presence cannot be judged on them.</p>"
        shown.append(text)
    else:
        false, true, area = plots.rates(measures.presence, positive)
        title = f"presence of a nerve: area under the curve {area:.3f}"
        how = title, "empty frames called nerve", "nerves called nerve"
        with plots.plot(shown, *how) as axes:
            axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
            axes.plot(false, true, color=plots.NEAR_FOUND)
    labels = "calibration of the pixels", "probability", "share that is nerve"
    with plots.plot(shown, *labels) as axes:
        seen = pixels[:, 0] > 0
        middle = (np.arange(plots.BINS) + 0.5) / plots.BINS
        share = pixels[seen, 1] / pixels[seen, 0]
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axes.plot(middle[seen], share, "o-", color=plots.NEAR_FOUND)
    return shown


def plot_limits(measures: Measures, limits: Limits) -> list[str]:
    """Return the challenge's score at other limits than those kept."""
    largest, shown = float(np.quantile(measures.area.max(axis=1), 0.9)) or 0.01, []
    for name, tried, factor, label in (
        ("threshold", np.array(THRESHOLDS), 1, "probability"),
        ("smallest_area", np.linspace(0, largest, 25), 100, "% of the frame"),
    ):
        others = (dataclasses.replace(limits, **{name: value}) for value in tried)
        score = [score_at(measures, other).mean() for other in others]
        title = f"effect of the {name.replace('_', ' ')}"
        with plots.plot(shown, title, label, "challenge's score") as axes:
            axes.plot(factor * tried, score, "o-", markersize=3)
            axes.axvline(factor * getattr(limits, name), color=plots.NEAR_FOUND)
    return shown


def plot_history(path: Path) -> list[str]:
    """Return the learning curve of NAME.csv; nothing where there is none."""
    shown = []
    if path.exists():
        with command.refusing(f"{path} is no table of train.py", Exception):  # NumPy's
            table = np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True))
            columns = [table[n] for n in ("epoch", "dice_coef", "val_dice_coef")]
        with plots.plot(shown, "learning curve", "epoch", "dice_coef") as axes:
            plots.paint_history(axes, *columns)
    return shown


def make_page(tally: Tally, trained: Trained, weights: Path, notes: list[str]) -> str:
    """Return the page as text."""
    summary = scores.summarize(tally.rows, tally.subjects)
    measures = Measures(*map(np.array, zip(*tally.measures, strict=True)))
    shown = [
        *plot_frames(tally.rows, tally.subjects),
        *plot_probabilities(measures, tally.pixels),
        *plot_limits(measures, trained.limits),
        *plot_history(weights.with_suffix(".csv")),
    ]
    note = "".join(f'<p class="note">{html.escape(text)}</p>' for text in notes)
    name, recipe = html.escape(weights.name), html.escape(trained.recipe.name)
    limits = ", ".join(
        f"{key.replace('_', ' ')} {value:.4g}"
        for key, value in dataclasses.asdict(trained.limits).items()
    )
    sure = "not known"
    if trained.calibration:
        sure = f"calibrated with an error of {trained.calibration.error:.3f}"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{name} on subjects it never saw</h1>
<p>Recipe {recipe}, input {trained.inputs.height} x {trained.inputs.width} pixels; {limits};
how sure a nerve is there: {sure}.
Masks are compared at the frames' own size. Research only: not for diagnosis or for guiding
a needle.</p>{note}
<h2>Scores</h2>{table_of_scores(summary)}{show_raters(tally)}
<h2>Where it does well and badly</h2><div class="plots">{"".join(shown)}</div>
<h2>The {len(tally.worst)} worst frames</h2>
<p>Outlines: {show_legend(tally.tables)}.</p>{show_frames(tally.worst)}
<h2>The {len(tally.best)} best frames</h2>{show_frames(tally.best)}
</body></html>
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default="data", help="folder of the extracted frames")
    add("--weights", type=Path, default="weights/unet.h5", help="trained .h5")
    add("--out", type=Path, default="report.html", help="page to write")
    add("--precision", choices=PRECISIONS, default="auto", help="to compute in")
    text = "CSV of each rater's masks of these frames, to be drawn and compared"
    add("--raters", type=Path, nargs="+", default=(), metavar="CSV", help=text)
    args = parser.parse_args(argv)
    if len(args.raters) > len(RATER_COLOURS):
        parser.error(f"--raters: {len(args.raters)}; expected up to {len(RATER_COLOURS)}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.out.is_dir():
        raise ValueError(f"--out {args.out} is a folder; expected a page, as report.html")
    weights = (args.weights.with_suffix(end) for end in (".h5", ".json", ".csv"))
    atomic.check_output(args.out, [*weights, *args.data.glob("*"), *args.raters])
    trained = read_trained(args.weights)
    inputs, split, extract, frames, masks = read_validation(trained, args.data)
    rows = split.val.rows
    names = [(extract.train.subject[row], extract.train.image[row]) for row in rows]
    tables, notes = read_raters(args.raters, masks.shape[1:], names)
    precision, why = choose_precision(args.precision)
    print(f"precision {precision}: {why}")
    from model import build_network  # here: TensorFlow takes seconds to import

    if split.leaky:
        notes.append("Leaky split: neighbouring frames of one video lie on both sides.")
    if searched_on(trained, split):
        notes.append("The limits were searched on these subjects: a little too good.")
    with atomic.lock(args.out.parent, args.out.name):
        model = load_network(build_network, args.weights, trained, precision)
        model = inference.as_used(model, trained)
        predictions = inference.predict_frames(model, (frames[row] for row in rows), inputs)
        found, tally = inference.find_masks(predictions, trained.limits), Tally(tables)
        bar = tqdm(found, "frames", total=len(rows), disable=None)
        for row, name, prediction in zip(rows, names, bar, strict=True):
            tally.see(name, prediction, masks[row] // 255)
        page = make_page(tally, trained, args.weights, notes).encode()
        atomic.write_bytes(args.out, page)
    print(f"{len(rows)} frames, {len(page) / 1e6:.1f} MB: {args.out}")


if __name__ == "__main__":
    sys.exit(command.run(main))
