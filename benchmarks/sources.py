"""How well weights do on a source of frames that they never saw, and within a mixture.

    python benchmarks/sources.py --raw FOLDER --usgra FOLDER --phantom FOLDER --limb FOLDER

FOLDERs: the challenge's raw folder, the usgra-seg collection (images/ and masks/), and what
phantom.py made, of the plexus and with --nerve limb. The recipe modern, one network a run,
its last epoch, by --runs:

`folds`: a fifth of the challenge's and of usgra's subjects held out; trained on the others
and on the plexus phantoms. `usgra`, `challenge`: trained on all other sources, scored on
all frames with a nerve of this one; `usgra` also after training on from 1, 5, 10 and 30 of
its frames, near-identical ones kept together.

Each run appends a line to benchmarks/sources.jsonl and is not repeated; interrupted
trainings are resumed. Without --runs, prints the table of what stands there.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import measure
import numpy as np
import presence
import quality

from nerve import command
from nerve.frames import foreign
from nerve.frames.crops import crop_pair
from nerve.prediction import inference, sureness
from nerve.records import read_extract, read_split, read_training_frames
from nerve.scoring import scores

RESULTS = measure.ROOT / "benchmarks" / "sources.jsonl"
FOLDS = ["--folds", 5, "--fold"]
ALL = ["--split", "none"]
COUNTS, DRAWS = (1, 5, 10, 30), 3
FEW_RATE, FEW_STEPS = 3e-4, 300
ROW = "modern"  # of quality.py
USUAL = 2000  # frames to train on


def extract(args):
    """Extract all sources, unless that is done; return `{name: folder}`."""
    usgra = [f"--{n}={args.usgra.resolve() / n}" for n in ("images", "masks")]
    flags = {
        "challenge": ["--raw", args.raw.resolve()],
        "usgra": [*usgra, "--label", "1"],
        "phantom": ["--raw", args.phantom.resolve()],
        "limb": ["--raw", args.limb.resolve()],
    }
    folders = {name: args.work / name for name in flags}
    for name, folder in folders.items():
        if not (folder / "extract.json").exists():
            command = [sys.executable, "extract_data.py", *flags[name], "--data", folder]
            quality.cpu_seconds(command)
    return folders


def prepare(source, folder, flags):
    """Return `folder` with the arrays of an extraction, made if absent."""
    if not (folder / "preprocess.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.glob("*.*"):
            (folder / path.name).unlink(missing_ok=True)
            os.link(path, folder / path.name)
        command = [sys.executable, "preprocess.py", "--data", folder, *flags]
        quality.cpu_seconds(command)
    return folder


def prepare_all(args, run, parts):
    """Return the folders of a run's sources, the first one's size that of the recipe.

    Args:
        parts: `{name of the source: flags of preprocess.py on its split}`.
    """
    found, like = [], quality.data_flags(ROW)
    for name, flags in parts.items():
        folder = args.work / run / name
        found.append(prepare(args.sources[name], folder, [*like, *flags]))
        like = ["--like", found[0]]
    return found


def train(args, run, folders, flags=()):
    """Train on folders together; return `(weights, CPU seconds)`."""
    out = args.work / run / f"{ROW}.h5"
    return out, quality.train_row(ROW, folders, out, ["--seed", args.seed, *flags])


class Scored:
    """What trained weights do, on frames as the scripts take them."""

    def __init__(self, weights):
        self.model, self.trained = quality.load(weights)
        self.mirrored = inference.Mirrored(self.model)

    def dice(self, folder, rows):
        """Return `{"plain", "mirrored": {"subject_image": Dice}}` of frames with a nerve.

        Beside them "inside", the share of masks whose centre lies in the true one, and
        "foreign", the share of frames that the weights call foreign.
        """
        record, frames, masks = read_training_frames(folder)
        train = record.train
        rows = [row for row in rows if train.area[row]]
        found = {}
        for way, model in (("plain", self.model), ("mirrored", self.mirrored)):
            pictures = (frames[row] for row in rows)
            predictions = inference.predict_frames(model, pictures, self.trained.inputs)
            dice, inside, unlike = {}, [], []
            results = inference.find_masks(predictions, self.trained.limits)
            for row, each in zip(rows, results, strict=True):
                name = f"{train.subject[row]}_{train.image[row]}"
                dice[name] = round(scores.dice(masks[row] > 0, each.mask), 4)
                inside.append(centre_inside(each.mask, masks[row]))
                unlike.append(foreign.unlike(each.look, self.trained.looks) > 1)
            found[way] = dice
        shares = {"inside": inside, "foreign": unlike}
        return found | {name: round(float(np.mean(v)), 4) for name, v in shares.items()}

    def sure(self, frames):
        """Return the presence of frames, mirrored, a float array."""
        return presence.how_sure(
            inference.predict_frames(self.mirrored, frames, self.trained.inputs)
        )

    def crops(self, folder, rows):
        """Return presence, truth and subject of pairs of crops, three lists."""
        record, frames, masks = read_training_frames(folder)
        pairs = [
            (crop, bool(mask.any()), record.train.subject[row])
            for row in rows
            for crop, mask in crop_pair(frames[row], masks[row], np.random.default_rng(row))
        ]
        pictures, nerve, subjects = zip(*pairs, strict=True)
        sure = [round(float(p), 5) for p in self.sure(pictures)]
        return sure, list(nerve), list(subjects)


def centre_inside(mask, truth):
    """Tell whether the centre of mass of a mask lies in the true one."""
    if not mask.any():
        return False
    row, column = (int(round(places.mean())) for places in np.nonzero(mask))
    return bool(truth[row, column])


def append(run, repeat, seconds, line):
    """Append a run's line, and print what is short of it."""
    line = {"run": run, "repeat": repeat, "cpu_seconds": round(seconds, 1), **line}
    line["machine"] = measure.machine()
    with open(RESULTS, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(run, repeat, {k: v for k, v in line.items() if isinstance(v, float)}, flush=True)


def results():
    """Return the lines of the results file."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def is_done(run, repeat):
    """Tell whether a run's line stands there."""
    return any((r["run"], r["repeat"]) == (run, repeat) for r in results())


def run_folds(args):
    """Hold out a fifth of the challenge and of usgra at a time."""
    for fold in args.folds:
        if is_done("folds", fold):
            continue
        held_out = [*FOLDS, fold]
        parts = {"challenge": held_out, "usgra": held_out, "phantom": ALL}
        run = f"fold{fold}"
        folders = prepare_all(args, run, parts)
        expected = json.loads(quality.FOLDS.read_text())[str(fold)]
        if read_split(folders[0]).val.subjects != expected:
            raise ValueError(f"fold {fold} holds other subjects than folds.json says")
        weights, seconds = train(args, run, folders)
        scored = Scored(weights)
        line = {}
        for source, folder in zip(parts, folders[:2], strict=False):
            rows = read_split(folder).val.rows
            line[source] = scored.dice(folder, rows)
            line[f"{source}_crops"] = scored.crops(folder, rows)
        _, _, nerve = presence.read_truth(args.phantom)
        sure = scored.sure(np.load(folders[2] / "imgs_test.npy", mmap_mode="r"))
        line["phantom_auc"] = round(presence.area_under_curve(sure, nerve), 4)
        line["originals"] = originals(scored, folders[0])
        append("folds", fold, seconds, line)


def originals(scored, folder):
    """Return `{"subject_image": [presence, whether there is a nerve]}` of held-out ones."""
    validation = read_split(folder).val.subjects
    frames, shown = presence.originals(folder)
    names = [pair for pair in presence.ORIGINALS if pair[0] in validation]
    mine = [presence.ORIGINALS.index(pair) for pair in names]
    if not mine:
        return {}
    values = zip(names, scored.sure(frames[mine]), shown[mine], strict=True)
    return {f"{s}_{i}": [round(float(p), 5), bool(n)] for (s, i), p, n in values}


def run_elsewhere(args, name):
    """Train on all other sources; score on this one, and after few of its frames."""
    others = [n for n in ("challenge", "phantom", "limb", "usgra") if n != name]
    if args.alone:
        others = ["phantom", "limb"]
    run = f"{' and '.join(others)} to {name}"
    stem = "_".join(run.replace(",", "").split())
    if not is_done(run, 0):
        folders = prepare_all(args, stem, dict.fromkeys(others, ALL))
        frames = sum(len(read_split(folder).train.rows) for folder in folders)
        longer = max(1.0, USUAL / frames)  # few frames: as many steps as with more
        epochs = round(longer * quality.ROWS[ROW].recipe.epochs)
        weights, seconds = train(args, stem, folders, ["--epochs", epochs])
        source = args.sources[name]
        rows = range(len(read_extract(source).train.image))
        append(run, 0, seconds, {name: Scored(weights).dice(source, rows)})
    if name == "challenge" or args.alone:
        return
    for draw in range(DRAWS):
        for count in COUNTS:
            learn_few(args, run, args.work / stem / f"{ROW}.h5", draw, count)


def learn_few(args, run, weights, draw, count):
    """Train on from weights with few frames of usgra; score on all other ones."""
    label = f"{run}, {count} frames"
    if is_done(label, draw):
        return
    source, few = args.sources["usgra"], args.work / f"few_{count}_{draw}"
    names = read_extract(source).train.name
    split = read_split(prepare(source, args.work / "usgra_all", ALL))
    shared = dict(split.same_sweep)  # near-identical frames, under the first one's number
    groups = np.array([shared.get(s, s) for s in split.train.subject])
    order = np.random.default_rng(draw).permutation(np.unique(groups))
    rows = np.concatenate([np.flatnonzero(groups == g) for g in order])
    chosen, rest = rows[:count], rows[~np.isin(groups[rows], groups[rows[:count]])]
    if not (few / "extract.json").exists():
        for part in ("images", "masks"):
            (few / part).mkdir(parents=True, exist_ok=True)
            for row in chosen:
                (few / part / names[row]).unlink(missing_ok=True)
                shutil.copy(args.usgra / part / names[row], few / part)
        command = [sys.executable, "extract_data.py", "--label", "1", "--data", few]
        quality.cpu_seconds([*command, *(f"--{p}={few / p}" for p in ("images", "masks"))])
    data = prepare(few, few / "data", ["--like", weights, "--soft-masks", *ALL])
    steps = -(-count // quality.ROWS[ROW].recipe.batch_size)
    flags = ["--init", weights, "--learning-rate", FEW_RATE, "--epochs", FEW_STEPS // steps]
    out, seconds = train(args, f"few_{count}_{draw}", [data], flags)
    append(label, draw, seconds, {"usgra": Scored(out).dice(source, rest.tolist())})


def summarize():
    """Print a line a run: what it scored where."""
    lines = results()
    print(
        f"{'run':40}{'runs':>5}{'scored on':>11}{'frames':>8}{'Dice':>8}{'mirrored':>10}",
        end="",
    )
    print(f"{'95 % interval':>18}{'centre in':>11}{'foreign':>9}{'CPU s':>7}")
    for run in dict.fromkeys(line["run"] for line in lines):
        mine = [line for line in lines if line["run"] == run]
        for name in ("challenge", "usgra"):
            parts = [line[name] for line in mine if name in line]
            if not parts:
                continue
            values, frames = {}, []
            for way in ("plain", "mirrored"):
                frames = [frame for part in parts for frame in part[way]]
                values[way] = np.array([v for part in parts for v in part[way].values()])
            subjects = quality.subjects_of(frames)
            if name == "usgra":  # each frame stands for itself
                subjects = np.arange(len(frames))
            low, high = scores.bootstrap(values["mirrored"], subjects) or (np.nan, np.nan)
            inside, strange = (
                np.mean([p[k] for p in parts]) for k in ("inside", "foreign")
            )
            seconds = np.mean([line["cpu_seconds"] for line in mine])
            found = values["plain"].mean(), values["mirrored"].mean()
            print(f"{run:40}{len(mine):>5}{name:>11}{len(frames):>8}", end="")
            print("{:>8.3f}{:>10.3f}".format(*found), end="")
            print(f"{f'{low:.3f} to {high:.3f}':>18}{inside:>11.2f}{strange:>9.2f}", end="")
            print(f"{seconds:>7.0f}")
    folds = [line for line in lines if line["run"] == "folds"]
    if folds:
        print_presence(folds)


def print_presence(folds):
    """Print how well presence is told, and how well that is calibrated."""
    print(f"presence, phantoms: AUC {np.mean([f['phantom_auc'] for f in folds]):.3f}")
    known = [v for fold in folds for v in fold["originals"].values()]
    if known:
        sure, nerve = map(np.array, zip(*known, strict=True))
        auc = presence.area_under_curve(sure, nerve.astype(bool))
        print(f"presence, {len(nerve)} originals: AUC {auc:.3f}")
    for name in ("challenge", "usgra"):
        columns = [np.concatenate([f[f"{name}_crops"][k] for f in folds]) for k in range(3)]
        sure, nerve, subjects = columns
        auc = presence.area_under_curve(sure, nerve.astype(bool))
        found = sureness.calibrate(sure, nerve.astype(bool), subjects, crops=True)
        error = "not known" if found is None else f"{found.error:.3f}"
        print(
            f"presence, {len(nerve)} crops of {name}: AUC {auc:.3f}, calibration error of "
            f"held-out subjects {error}"
        )


def parse_args(argv=None):
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--raw", type=Path, default="raw", help="the challenge's raw folder")
    add("--usgra", type=Path, default="usgra", help="folder of the usgra-seg collection")
    add("--phantom", type=Path, default="phantom", help="what phantom.py made")
    add("--limb", type=Path, default="limb", help="what phantom.py --nerve limb made")
    add("--work", type=Path, default="sources", help="folder for arrays and weights")
    add("--runs", nargs="+", choices=("folds", "usgra", "challenge"), default=())
    add("--folds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    add("--alone", action="store_true", help="train on phantoms alone")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    args.work = args.work.resolve()
    if args.runs:
        args.work.mkdir(parents=True, exist_ok=True)
        args.sources = extract(args)
    for run in args.runs:
        if run == "folds":
            run_folds(args)
        else:
            run_elsewhere(args, run)
    summarize()


if __name__ == "__main__":
    main()
