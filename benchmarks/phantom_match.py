"""Compare the phantom with real frames: grey levels, texture, masks.

    python benchmarks/phantom_match.py --phantom raw --real RAW_REAL

Reads   train/ and train_masks.csv of both folders, each in the challenge's layout
Writes  nothing; prints a table

Texture is measured on the real frames listed in ORIGINALS only, where they are present:
frames that went through a smaller JPEG are softer. Greys and masks use all frames.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nerve import command
from nerve.files.run_length import decode, read_train_masks

ORIGINALS = {(1, image) for image in range(1, 51)} | {(10, 100)}
DEPTHS = ((40, 150), (160, 270), (280, 390))  # rows: near, middle, far
PERCENTS = (5, 25, 50, 75, 95)
BACKGROUND = 12  # pixels; sigma of the local mean, taken off before correlating


def read_frames(raw, keys, limit):
    """Return at most `limit` evenly spaced frames of `keys`, and their subjects.

    Returns:
        uint8 array (n, height, width) and int array (n,).
    """
    keys = sorted(keys)
    chosen = keys[:: max(1, -(-len(keys) // limit))]
    paths = [raw / "train" / f"{subject}_{image}.tif" for subject, image in chosen]
    frames = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame is None:
            raise FileNotFoundError(f"{path} is missing or no picture; make it again")
    return np.stack(frames), np.array([subject for subject, _ in chosen])


def half_width(correlation):
    """Return the lag, in pixels, at which an autocorrelation falls to one half."""
    lag = int(np.argmax(correlation < 0.5))
    before, after = correlation[lag - 1], correlation[lag]
    return lag - 1 + (before - 0.5) / (before - after)


def texture(frames, rows):
    """Return the mean (axial, lateral) correlation length and contrast of a depth."""
    results = []
    for frame in frames.astype(np.float32):
        local = frame - cv2.GaussianBlur(frame, (0, 0), BACKGROUND)
        local = local[rows[0] : rows[1]]
        shape = [2 * n for n in local.shape]  # padded: no wrapping around
        power = np.abs(np.fft.rfft2(local, s=shape)) ** 2
        correlation = np.fft.irfft2(power, s=shape)
        correlation /= correlation[0, 0]
        lengths = half_width(correlation[:, 0]), half_width(correlation[0])
        results.append((*lengths, local.std()))
    return np.mean(results, 0)


def histogram(frames):
    """Return the share of pixels at each of the 256 grey levels."""
    return np.bincount(frames.ravel(), minlength=256) / frames.size


def subject_rows(frames, subjects):
    """Return `{row name: value}`: how subjects differ in brightness, below the skin."""
    means = [frames[subjects == s].mean(axis=(0, 2)) for s in np.unique(subjects)]
    profiles = np.array(means)[:, DEPTHS[0][0] :]
    falls = np.polyfit(np.linspace(0, 1, profiles.shape[1]), profiles.T, 1)[0]
    return {
        "mean grey, sd between subjects": profiles.mean(axis=1).std(),
        "fall of grey from top to bottom": falls.mean(),
        "fall of grey, sd between subjects": falls.std(),
    }


def mask_rows(masks):
    """Return `{row name: value}` for the masks of `{(subject, image): pixels}`."""
    shapes = []
    for (subject, _), pixels in masks.items():
        if pixels.strip():
            y, x = np.nonzero(decode(pixels))
            shapes.append((subject, len(x), x.mean(), y.mean()))
    subject, area, x, y = np.array(shapes).T
    rows = {f"mask area {p} %": np.percentile(area, p) for p in (0, *PERCENTS, 100)}
    for name, values in (("x", x), ("y", y)):
        groups = [values[subject == s] for s in np.unique(subject)]
        rows[f"mask centre {name}, mean"] = values.mean()
        rows[f"mask centre {name}, sd between subjects"] = np.std(
            [g.mean() for g in groups]
        )
        rows[f"mask centre {name}, sd within"] = np.median([g.std() for g in groups])
    return rows


def describe(raw, limit):
    """Return `{row name: value}` of one folder, and its grey histogram."""
    masks = read_train_masks(raw / "train_masks.csv")
    frames, subjects = read_frames(raw, masks, limit)
    sharp = frames
    if is_real(masks):
        sharp, _ = read_frames(raw, ORIGINALS & set(masks), limit)
    rows = {"frames": len(frames), "frames for texture": len(sharp)}
    rows |= {f"grey {p} %": np.percentile(frames, p) for p in PERCENTS}
    for name, depth in zip(("near", "middle", "far"), DEPTHS, strict=True):
        rows[f"{name}: mean grey"] = frames[:, depth[0] : depth[1]].mean()
        lengths = texture(sharp, depth)
        for label, value in zip(("axial", "lateral", "contrast"), lengths, strict=True):
            rows[f"{name}: {label}"] = value
    rows |= subject_rows(frames, subjects) | mask_rows(masks)
    return rows, histogram(frames)


def is_real(masks):
    """Tell the real frames at hand, with subject 10's one original, from a phantom."""
    return set(masks) >= ORIGINALS


def compare(phantom, real, limit):
    """Return rows (name, phantom's value, real value) of the whole comparison."""
    (ours, our_greys), (theirs, their_greys) = (
        describe(phantom, limit),
        describe(real, limit),
    )
    distance = np.abs(np.cumsum(our_greys - their_greys)).sum()
    rows = [(name, value, theirs[name]) for name, value in ours.items()]
    return [*rows, ("earth mover's distance of greys", distance, 0.0)]


def parse_args(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--phantom", type=Path, default=Path("raw"), help="folder")
    parser.add_argument("--real", type=Path, required=True, help="folder")
    parser.add_argument("--frames", type=int, default=300, help="at most, of each")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    rows = compare(args.phantom, args.real, args.frames)
    print(f"{'':40s} {'phantom':>9s} {'real':>9s}")
    for name, ours, theirs in rows:
        print(f"{name:40s} {ours:9.1f} {theirs:9.1f}")
    return rows


if __name__ == "__main__":
    sys.exit(command.run(main))
