"""Make a synthetic ultrasound data set in exactly the challenge's layout.

    python phantom.py --out raw --train 600 --test 100 --subjects 12 --seed 0

Reads   nothing
Writes  raw/train/S_I.tif, raw/train/S_I_mask.tif, raw/test/N.tif, raw/train_masks.csv,
        raw/sample_submission.csv, raw/test_truth.csv, raw/SHA256SUMS, raw/phantom.json

A frame is made as a scanner makes it: tissue outlines -> scattering, mirror-like
reflection and attenuation -> complex echo of random scatterers, blurred by the point
spread function -> envelope -> logarithm -> edge enhancement -> 8 bits. The brachial
plexus lies in the groove between the scalene muscles; a sweep of the probe passes it.

Sources: convolution model, https://doi.org/10.1109/TUFFC.2017.2731944; statistics of
speckle, https://doi.org/10.1109/T-SU.1983.31404; sizes, positions and shares of nerves,
counted in the challenge's train_masks.csv. The same command continues a killed run.
"""

import argparse
import csv
import functools
import hashlib
import io
import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import scipy
from scipy import fft
from tqdm import tqdm

import stage
from run_length import encode

HEIGHT, WIDTH = 420, 580  # pixels of a challenge frame
LINES = WIDTH // 2  # scan lines; a scanner, too, interpolates between its lines
EMPTY_TRAIN, EMPTY_TEST = 0.588, 0.53  # share of frames without a nerve, challenge
SMALLEST_MASK, LARGEST_MASK = 2684, 17439  # pixels, in the challenge's training set
VERSION = 1  # of the pictures: raise it when the same seed gives other bytes
STREAM_PLAN, STREAM_SUBJECT, STREAM_FRAME = range(3)  # keep random streams apart
LZW = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
# one strip and no predictor, as in the challenge's files
LZW += [cv2.IMWRITE_TIFF_ROWSPERSTRIP, HEIGHT, cv2.IMWRITE_TIFF_PREDICTOR, 1]
DECIBEL = math.log(10) / 20  # exp(DECIBEL * dB) is an amplitude
SLIDE = 100  # scan lines that the scatterers move during a whole sweep
TILE = 512  # pixels; side of the periodic random textures
LOOKS = (-0.25, 0.0, 0.25)  # steering of the compounded beams, tangent of the angle
PSF = ((0, 1.5, 1.6), (110, 1.6, 1.4), (230, 1.7, 1.7), (330, 1.9, 2.1))
BLEND = 40  # rows over which one zone of PSF (first row, sigma rows, lines) fades in
MARKER = np.array([[293, 0], [311, 0], [302, 16]])  # the centre mark of every frame
COLUMNS = np.linspace(-30, WIDTH + 30, 65)  # pixels, where layers are given
ANGLES = np.linspace(0, 2 * np.pi, 40, endpoint=False)
HARMONICS = np.stack([f(k * ANGLES) for k in (2, 3) for f in (np.cos, np.sin)])
RECORD, JOURNAL = "phantom.json", ".phantom.journal"
RERUN = "python phantom.py"
TABLES = {
    "train_masks.csv": ("subject", "img", "pixels"),
    "sample_submission.csv": ("img", "pixels"),
    "test_truth.csv": ("img", "pixels", "subject", "image"),
}


class Tissue(NamedTuple):
    """What the beam meets; the numbers were set by eye against real frames."""

    level: float  # scattering, dB
    impedance: float  # arbitrary unit; its steps along the beam reflect
    attenuation: float  # dB a row, beyond what the scanner compensates
    fibre: float  # contrast of the striation, dB
    shine: float  # mirror-like reflection, amplitude


TISSUE = {
    "deep": Tissue(-4, 2.0, 0.00, 2.8, 0.0),
    "bundle": Tissue(-6, 1.7, 0.00, 2.8, 0.0),
    "muscle": Tissue(-10, 1.0, 0.00, 3.0, 0.0),
    "fat": Tissue(-3, 2.2, 0.01, 4.0, 0.0),
    "skin": Tissue(5, 2.2, 0.00, 1.0, 0.0),
    "gel": Tissue(-8, 1.8, 0.00, 1.0, 0.0),
    "fascia": Tissue(3, 2.2, 0.02, 3.0, 3.0),
    "bone": Tissue(8, 2.2, 1.40, 1.0, 3.0),
    "wall": Tissue(-4, 2.4, 0.02, 2.0, 0.0),
    "vessel": Tissue(-20, 0.3, -0.08, 0.0, 0.0),  # blood: dark, bright below
    "node": Tissue(-12, 1.4, -0.03, 1.0, 0.0),
    "hilum": Tissue(2, 2.2, 0.02, 3.0, 0.5),
    "sheath": Tissue(3, 2.8, 0.01, 6.0, 0.1),
    "rim": Tissue(3, 4.0, 0.02, 4.0, 0.1),
    "root": Tissue(-13, 0.9, 0.00, 1.0, 0.0),
}
DISTRACTORS = {  # tissue, radii along x and y as multiples, pixels added
    "vessel": (("wall", 0.8, 0.7, 1.5), ("vessel", 0.8, 0.7, 0)),
    "lymph node": (("rim", 1.9, 1, 3), ("node", 1.9, 1, 0), ("hilum", 0.8, 0.3, 0)),
    "oval": (("rim", 1, 0.9, 4), ("root", 1, 0.9, 0)),
    "knot": (("sheath", 2, 1, 0), ("rim", 1.2, 0.4, 0)),
}


class Frame(NamedTuple):
    """One picture to make."""

    name: str  # train/3_17 or test/5
    subject: int
    image: int
    sweep: float  # position of the probe, 0 to 1
    nerve: bool  # annotated
    visibility: float  # of the roots, 0 to 1


class Body(NamedTuple):
    """An oval of one tissue."""

    tissue: str
    place: tuple  # x, y of its centre from the groove, pixels
    radii: tuple  # along x and y before tilting, pixels
    tilt: float  # radians, clockwise on the screen
    wobble: np.ndarray  # (4,), of the outline
    extra: float  # dB, added to the tissue's level
    slope: float  # of its fibres, rows a column
    window: tuple  # positions of the sweep between which it lies in the plane


def smooth_random(rng, lowest=0.3, highest=1.3):
    """Return a smooth random function of an array, about N(0, 1); cycles a unit."""
    frequencies = 2 * np.pi * rng.uniform(lowest, highest, 4)
    phases = rng.uniform(0, 2 * np.pi, 4)
    return lambda x: np.cos(np.multiply.outer(x, frequencies) + phases).sum(-1) / 2**0.5


def plan_frames(train, test, subjects, seed):
    """List every frame of the data set, subject by subject."""
    test_subjects = max(round(subjects * test / train), min(4, test))
    frames = plan_subjects(train, subjects, 1, 1 - EMPTY_TRAIN, seed)
    frames = [f._replace(name=f"train/{f.subject}_{f.image}") for f in frames]
    others = plan_subjects(test, test_subjects, subjects + 1, 1 - EMPTY_TEST, seed)
    # subject 0 stands for the plan of the test numbers: real subjects start at 1
    numbers = np.random.default_rng([seed, STREAM_PLAN, 0]).permutation(test) + 1
    pairs = zip(others, numbers.tolist(), strict=True)
    return frames + [f._replace(name=f"test/{number}") for f, number in pairs]


def plan_subjects(num_frames, num_subjects, first, share, seed):
    """Plan sweeps of which `share` of all frames, to the frame, show a nerve."""
    rngs = [
        np.random.default_rng([seed, STREAM_PLAN, first + i])
        for i in range(num_subjects)
    ]
    sizes = np.arange(num_frames, num_frames + num_subjects) // num_subjects
    # shares of 0.02 to 0.89 (mean 0.42, sd 0.22) were counted in the challenge
    logits = np.array([rng.normal(-0.4, 1.1) for rng in rngs])
    low, high = -20.0, 20.0
    for _ in range(60):
        shift = (low + high) / 2
        wanted = sizes / (1 + np.exp(-logits - shift))
        low, high = (shift, high) if wanted.sum() < share * num_frames else (low, shift)
    ends = np.floor(np.cumsum(wanted) + 0.5).astype(int)
    ends[-1] = int(share * num_frames + 0.5)
    positives = np.diff(ends, prepend=0)
    frames = []
    for i, rng in enumerate(rngs):
        frames += plan_sweep(rng, first + i, int(sizes[i]), int(positives[i]))
    return frames


def plan_sweep(rng, subject, num_frames, num_nerve):
    """Plan one sweep: the nerve shows where a smooth curve of the position is high.

    Frames just below the threshold show roots half out of the plane, unannotated.
    """
    sweep = (np.arange(num_frames) + rng.uniform(0.2, 0.8, num_frames)) / num_frames
    height = smooth_random(rng, 0.4, 1.6)(sweep)
    order = np.sort(height)[::-1]
    edges = np.concatenate([[order[0] + 1], order, [order[-1] - 1]])
    above = height - edges[num_nerve : num_nerve + 2].mean()
    images = rng.permutation(num_frames) + 1
    visible = np.where(above > 0, 0.7 + 0.6 * above, 0.35 + 0.9 * above).clip(0, 1)
    rows = zip(images.tolist(), sweep, above > 0, visible, strict=True)
    return [
        Frame("", subject, image, float(position), bool(nerve), float(visibility))
        for image, position, nerve, visibility in rows
    ]


def texture(rng, sigma_rows, sigma_lines, side=TILE):
    """Return two periodic Gaussian random fields, N(0, 1), float32 (2, TILE, TILE)."""
    noise = fft.rfft2(rng.standard_normal((2, side, side), np.float32))
    rows, lines = fft.fftfreq(side)[:, None], fft.rfftfreq(side)
    waves = (sigma_rows * rows) ** 2 + (sigma_lines * lines) ** 2
    waves *= (side / TILE) ** 2  # a smooth field is made small, for speed
    noise = fft.irfft2(noise * np.exp(-2 * np.pi**2 * waves).astype(np.float32))
    noise /= noise.std(axis=(1, 2), keepdims=True)
    return np.stack([cv2.resize(field, (TILE, TILE)) for field in noise])


def make_nerve(rng):
    """Draw the nerve's place, size and roots; lengths in pixels."""
    u, n = rng.uniform, rng.normal
    return {
        "zoom": n(1, 0.035),
        # counted: x 337, sd 23 between and 34 within subjects; median y 137
        "groove": (n(337, 5), min(max(math.exp(n(math.log(137), 0.24)), 98), 235)),
        "drift": (u(36, 60), u(18, 36)),
        "drift_x": smooth_random(rng, 0.9, 2.6),
        "drift_y": smooth_random(rng, 0.6, 2.2),
        "tilt": min(max(math.radians(n(-58, 14)), -1.7), -0.4),
        "turn": smooth_random(rng),
        # 4 sqrt(eigenvalue) of the masks: 134 long (sd 27), 68 across (sd 10)
        "radii": (64 * math.exp(n(0, 0.05)), 32 * math.exp(n(0, 0.04))),
        "size": smooth_random(rng),
        "stretch": smooth_random(rng),
        "num_roots": int(rng.choice([2, 3, 4, 5], p=[0.2, 0.42, 0.28, 0.1])),
        "root_shapes": u(-1, 1, (5, 4)),
        "lone": smooth_random(rng, 0.5, 2.0),
    }


def make_scanner(rng):
    """Draw the settings of the scanner and the fields of random scatterers."""
    u, n = rng.uniform, rng.normal
    streaks = 0.6 * texture(rng, 1.6, 9) + 0.8 * texture(rng, 2.1, 20)
    columns = 2 * len(LOOKS) * (LINES + SLIDE)
    return {
        "gain": n(0, 1.6),  # dB
        "gain_drift": smooth_random(rng),
        "fall": n(-8, 2.5),  # dB over the whole depth
        "dynamic_range": u(52, 65),  # dB
        "blur": (u(0.85, 1.2), u(0.8, 1.3)),
        "sharpen": u(0.4, 1.0),
        "fibre": u(0.7, 1.4),
        "shine": u(0.8, 1.5),
        "noise": rng.standard_normal((2, HEIGHT, columns), np.float32),
        "grain": np.stack([texture(rng, 1.8, 11), streaks], -1),  # fibres, streaks
        "mottle": texture(rng, 10, 14, TILE // 4),
        "flow": texture(rng, 30, 26, TILE // 8),
        "push": (texture(rng, 9, 8, TILE // 4), texture(rng, 9, 8, TILE // 4)),
    }


@functools.lru_cache(maxsize=4)
def make_subject(seed, subject):
    """Draw what belongs to one subject; functions of the sweep are `smooth_random`."""
    rng = np.random.default_rng([seed, STREAM_SUBJECT, subject])
    u, n = rng.uniform, rng.normal
    return SimpleNamespace(
        **make_nerve(rng),
        **make_scanner(rng),
        bodies=make_anatomy(rng) + make_distractors(rng),
        # fasciae: depth in pixels, slope; skin: thickness in pixels, dB
        fascias=[(u(70, 210), n(0, 0.08)) for _ in range(4)],
        skin=[(u(5, 11), n(0, 2)) for _ in range(4)],
        bones=make_bones(rng),
        curves=[smooth_random(rng, 0.2, 1.0) for _ in range(12)],
        ripples=[smooth_random(rng, 1.0, 3.0) for _ in range(12)],
    )


def body(rng, tissue, x, y, radii, tilt=0.0, window=(-1.0, 2.0)):
    """Return a Body with random outline, level and fibre slope."""
    wobble, extra = rng.uniform(-1, 1, 4), rng.normal(0, 1.5)
    slope = math.tan(tilt + rng.normal(0, 0.08))
    return Body(tissue, (x, y), radii, tilt, wobble, extra, slope, window)


def make_anatomy(rng):
    """Return the muscles and great vessels below the cervical fascia, deepest first."""
    u, n = rng.uniform, rng.normal
    bodies = []
    for _ in range(16):  # longus colli, levator scapulae and the like
        place, radii = (u(-340, 260), u(20, 260)), (u(50, 120), u(10, 32))
        bodies.append(body(rng, "bundle", *place, radii, n(0, 0.2)))
    for x, y, radii, tilt in (
        (u(70, 150), u(40, 75), (u(100, 150), u(30, 50)), 0.25),  # middle scalene
        (u(190, 260), u(-20, 30), (u(90, 130), u(25, 40)), 0.1),  # its neighbour
        (u(-130, -105), u(0, 30), (u(75, 95), u(38, 62)), -0.2),  # anterior scalene
    ):
        bodies.append(body(rng, "muscle", x, y, radii, n(tilt, 0.15)))
    x, y, carotid, jugular = u(-300, -200), u(20, 80), u(22, 36), u(22, 48)
    flat = 0.4 * jugular  # a vein gives way to the probe
    for tissue, grow in (("wall", 2), ("vessel", 0)):
        radii = carotid + grow, 0.93 * carotid + grow
        bodies.append(body(rng, tissue, x, y, radii))
    x, y = x + u(30, 80), y - u(55, 75)
    for tissue, grow in (("wall", 2), ("vessel", 0)):
        bodies.append(body(rng, tissue, x, y, (jugular + grow, flat + grow)))
    return bodies


def make_distractors(rng):
    """Return what may be mistaken for a nerve, beside or below the groove."""
    u, bodies = rng.uniform, []
    for i in range(rng.integers(4, 8)):
        x, y = rng.choice([-1, 1]) * u(100, 280), u(-60, 150)
        if rng.random() < 0.3:
            x, y = u(-60, 60), u(95, 180)
        # the first stays through the whole sweep: no frame is without
        start = u(-0.6, 0.7) if i else -1.0
        window = start, start + u(0.3, 0.9) if i else 2.0
        kind, radius = rng.choice(sorted(DISTRACTORS)), u(9, 22)
        tilt = rng.normal(0, 0.4)
        for tissue, wide, high, grow in DISTRACTORS[kind]:
            radii = wide * radius + grow, high * radius + grow
            bodies.append(body(rng, tissue, x, y, radii, tilt, window))
    return bodies


def make_bones(rng):
    """Return transverse processes: x, depth, half width (pixels) and curvature."""
    ranges = ((-260, 200), (95, 170), (40, 90), (0.0006, 0.003))
    return [[rng.uniform(*r) for r in ranges] for _ in range(rng.integers(1, 4))]


def oval(centre, radii, tilt, wobble, amount=0.13, power=2.0):
    """Return an irregular (super)ellipse, float (40, 2), pixels (x, y)."""
    unit = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
    radius = (abs(unit) ** power).sum(1) ** (-1 / power)
    radius *= 1 + amount * wobble @ HARMONICS
    c, s = math.cos(tilt), math.sin(tilt)
    return centre + radius[:, None] * unit * radii @ np.array([[c, s], [-s, c]])


def strip(top, bottom, columns=COLUMNS):
    """Return the polygon between two depth profiles, float (2 * len(columns), 2)."""
    upper, lower = np.stack([columns, top], 1), np.stack([columns, bottom], 1)
    return np.concatenate([upper, lower[::-1]])


class Canvas:
    """Labels of the tissues, uint8 (HEIGHT, LINES), painted one over the other."""

    def __init__(self):
        self.labels = np.zeros((HEIGHT, LINES), np.uint8)
        self.rows = [(*TISSUE["deep"], 0.0)]  # of each label: Tissue and fibre slope

    def fill(self, polygon, tissue, extra=0.0, slope=0.0, share=1.0):
        """Paint a polygon (n, 2); with a share below 1 it is half out of the plane."""
        row = share * np.array(TISSUE[tissue])
        row += (1 - share) * np.array(TISSUE["bundle"])
        row[0] += extra
        self.rows.append((*row, slope))
        points = np.round(polygon * (8, 16)).astype(np.int32)  # 1/16 pixel
        cv2.fillPoly(self.labels, [points], len(self.rows) - 1, shift=4)

    def band(self, top, thickness, tissue):
        """Paint a sheet that breaks where its thickness, over COLUMNS, is below 0.4."""
        inside = np.flatnonzero(thickness > 0.4)
        for run in np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1):
            if len(run) > 1:
                bottom = top[run] + thickness[run]
                self.fill(strip(top[run], bottom, COLUMNS[run]), tissue)


def place_nerve(subject, sweep):
    """Return centre (x, y), radii and tilt of the nerve, and its roots' ovals."""
    size = subject.zoom * math.exp(0.06 * subject.size(sweep))
    stretch = subject.stretch(sweep)
    x = subject.groove[0] + subject.drift[0] * subject.drift_x(sweep)
    y = subject.groove[1] + subject.drift[1] * subject.drift_y(sweep)
    centre = np.array([np.clip(x, 110, 480), max(y, 85.0)])
    major = subject.radii[0] * size * math.exp(0.11 * stretch)
    minor = subject.radii[1] * size * math.exp(-0.08 * stretch)
    tilt = subject.tilt + 0.22 * subject.turn(sweep)
    along = np.array([math.cos(tilt), math.sin(tilt)])
    across = np.array([-along[1], along[0]])
    roots = []
    count = subject.num_roots
    for i, shape in enumerate(subject.root_shapes[:count]):
        step = 0.86 * ((2 * i + 1 + 0.25 * shape[0]) / count - 1)
        aside = 0.12 * shape[0] + (0.22 * (-1) ** i if count > 3 else 0)
        middle = centre + step * major * along + aside * minor * across
        length = 0.78 * major / count * (1 + 0.25 * shape[1])
        width = min(minor * (0.56 + 0.14 * shape[2]), 1.5 * length, 30)
        roots.append((middle, (length, width), tilt + 0.3 * shape[3], shape))
    return centre, (major, minor), tilt, roots


def draw_mask(subject, frame, seed):
    """Outline the nerve as an annotator does: uint8 (HEIGHT, WIDTH), 0 or 255."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if not frame.nerve:
        return mask
    rng = np.random.default_rng([seed, STREAM_FRAME, frame.subject, frame.image])
    centre, radii, tilt, _ = place_nerve(subject, frame.sweep)
    centre, tilt = centre + rng.normal(0, 3, 2), tilt + rng.normal(0, 0.08)
    # two annotations of one nerve differ in area by about 15 %
    radii = np.array(radii) * math.exp(rng.normal(0, 0.075))
    wobble = rng.uniform(-1, 1, 4)
    for _ in range(20):
        points = oval(centre, radii, tilt, wobble, 0.05, 2.3)
        mask[:] = 0
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, shift=4)
        area = cv2.countNonZero(mask)
        if SMALLEST_MASK <= area <= LARGEST_MASK:
            break
        radii = radii * (1.03 if area < SMALLEST_MASK else 0.97)
    return mask


def draw_tissue(subject, sweep, visibility):
    """Paint the anatomy at one position of the sweep; return a Canvas."""
    canvas = Canvas()
    centre = place_nerve(subject, sweep)[0]
    from_groove = COLUMNS - centre[0]

    def curve(i, amount):
        return amount * subject.curves[i](COLUMNS / WIDTH + 0.35 * sweep)

    def ripple(i, amount):
        return amount * subject.ripples[i](COLUMNS / WIDTH + 0.5 * sweep)

    for i, (depth, slope) in enumerate(subject.fascias):
        top = centre[1] + depth + curve(i, 10) + slope * from_groove
        canvas.band(top, ripple(i, 3), "fascia")
    for item in subject.bodies:
        share = min(sweep - item.window[0], item.window[1] - sweep) / 0.1
        if share > 0:
            middle = centre + subject.zoom * np.array(item.place)
            amount = 0.06 if item.tissue in ("wall", "vessel") else 0.13
            outline = oval(middle, item.radii, item.tilt, item.wobble, amount)
            canvas.fill(outline, item.tissue, item.extra, item.slope, min(share, 1))
    for x, depth, half, bend in subject.bones:
        top = centre[1] + depth + bend * (from_groove - x) ** 2 + curve(4, 4)
        fade = np.minimum(1.5 * (1 - abs(from_groove - x) / half), 1)
        canvas.band(top, (9 + ripple(4, 3)) * fade, "bone")
    draw_layers(canvas, centre, from_groove, curve, ripple, subject)
    draw_groove(canvas, subject, sweep, visibility)
    return canvas


def draw_groove(canvas, subject, sweep, visibility):
    """Paint the nerve; where it is out of the plane, fat and at times a dark oval."""
    centre, radii, tilt, roots = place_nerve(subject, sweep)
    shape = subject.root_shapes[0]
    shares = [visibility] * len(roots)
    if visibility > 0:
        outline = oval(centre, np.multiply(radii, 0.96), tilt, shape, 0.08)
        canvas.fill(outline, "sheath", 0, -0.2, visibility)
    else:
        outline = oval(centre + (0, 15), np.multiply(radii, (0.8, 0.7)), tilt, shape)
        canvas.fill(outline, "sheath", 0, -0.2, 0.5)
        shares[len(roots) // 2] = min(max(float(subject.lone(sweep)), 0), 0.9)
    # an uneven rim: its outline is not the root's
    for tissue, grow, turn in (("rim", (2, 3), -1), ("root", (-1.5, -1), 1)):
        for (middle, size, angle, wobble), share in zip(roots, shares, strict=True):
            if share > 0:
                outline = oval(middle, np.add(size, grow), angle, turn * wobble, 0.14)
                canvas.fill(outline, tissue, share=share)


def draw_layers(canvas, centre, from_groove, curve, ripple, subject):
    """Paint what lies above the groove: skin, fat, sternocleidomastoid, fasciae."""
    fat = 32 + curve(5, 5)
    fascia = centre[1] - 68 * subject.zoom + curve(6, 6) + 0.0004 * from_groove**2
    fascia = np.maximum(fascia, fat + 3)
    canvas.fill(strip(np.zeros_like(fat), fascia), "fat")
    middle = fat + (fascia - fat) * (0.55 + curve(7, 0.1))
    # two lenses that taper towards the groove: sternocleidomastoid and its neighbour
    for side, fill, slope in ((60 - from_groove, 1.0, 0.03), (from_groove, 0.8, -0.05)):
        lens = fill * np.clip(side / 160, 0, 1) ** 0.5
        top = middle - (middle - fat - 5) * lens
        bottom = middle + (fascia - 3 - middle) * lens
        canvas.fill(strip(top, bottom), "muscle", 1.5, slope)
    canvas.band(fascia, 3.0 + ripple(6, 2.2), "fascia")
    canvas.band(fat, 2.0 + ripple(7, 2), "fascia")
    top = np.zeros_like(fat)
    for i, (thickness, extra) in enumerate(subject.skin):
        bottom = top + thickness + ripple(8 + i, 0.8) + curve(8 + i, 0.5)
        canvas.fill(strip(top, bottom), "gel" if i % 2 else "skin", extra)
        top = bottom


def mix(tiles, sweep):
    """Mix two random fields by the sweep: the plane moves on, so the tissue changes."""
    angle = 1.5 * sweep
    return cv2.addWeighted(tiles[0], math.cos(angle), tiles[1], math.sin(angle), 0)


def tissue_maps(subject, canvas, sweep):
    """Turn labels into maps, each float32 (HEIGHT, LINES).

    Returns:
        level (dB), loss (dB, down to each pixel), impedance, shine (amplitude).
    """
    row = np.arange(HEIGHT, dtype=np.float32)[:, None]
    line = np.arange(LINES, dtype=np.float32)
    push_x, push_y, flow, mottle = (
        mix(tiles[:, :HEIGHT, :LINES], sweep)
        for tiles in (*subject.push, subject.flow, subject.mottle)
    )
    where = line + 1.6 * push_x, row + 1.8 * push_y  # no outline is geometric
    labels = cv2.remap(
        canvas.labels, *where, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    table = np.zeros((256, 6), np.float32)
    table[: len(canvas.rows)] = canvas.rows
    level, impedance, attenuation, fibre, shine, slope = (
        cv2.LUT(labels, np.ascontiguousarray(column)) for column in table.T
    )
    # fibres follow the slope of their muscle, bent by a smooth flow
    across = row - 2 * slope * line + 50 * slope + 1.5 * push_y + 14 * flow
    along = line - float(place_nerve(subject, sweep)[0][0] / 2) + 37 * slope
    grain = mix(subject.grain, sweep)
    grain = cv2.remap(
        grain, along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    fibres, streaks = cv2.split(grain)
    steep = cv2.Sobel(across, -1, 1, 0, scale=0.125 / 0.7) ** 2
    fibre *= subject.fibre / (1 + steep * steep)  # steep ones echo elsewhere
    level += fibre * fibres + 2.4 * mottle + 3 * flow
    shine += 0.4 * fibre * np.maximum(streaks - 0.95, 0) ** 2
    shine *= np.linspace(1.4, 0.3, HEIGHT, dtype=np.float32)[:, None]
    shine *= cv2.exp(0.7 * mottle + 0.25 * fibres)  # a sheet reflects unevenly
    loss = np.cumsum(attenuation, 0).clip(-4, 15)
    loss = cv2.GaussianBlur(loss, (0, 0), sigmaX=5, sigmaY=0.5)
    return level, loss, cv2.GaussianBlur(impedance, (0, 0), 1.1), shine


@functools.cache
def gaussian(sigma):
    """Return a Gaussian kernel of unit energy, so that speckle keeps its power."""
    kernel = cv2.getGaussianKernel(2 * math.ceil(2.7 * sigma) + 1, sigma, cv2.CV_32F)
    return kernel / np.linalg.norm(kernel)


def spread(field, blur):
    """Convolve with the point spread function, which widens with depth, in zones.

    Args:
        field: float32 (HEIGHT, LINES), one component of the complex field.
        blur: The subject's factors on the widths along rows and lines.
    """
    out = np.empty_like(field)
    for i, (first, rows, lines) in enumerate(PSF):
        last = PSF[i + 1][0] + BLEND if i + 1 < len(PSF) else HEIGHT
        kernels = gaussian(lines * blur[1]), gaussian(rows * blur[0])
        zone = cv2.sepFilter2D(field[first:last], -1, *kernels)
        if i:
            fade = np.linspace(0, 1, BLEND, dtype=np.float32)[:, None]
            before = out[first : first + BLEND]
            zone[:BLEND] = fade * zone[:BLEND] + (1 - fade) * before
        out[first:last] = zone
    return out


def insonify(subject, look, sweep, amplitude, reflection):
    """Return the echo's power for one look, float32 (HEIGHT, LINES).

    Args:
        look: Index into LOOKS; each look sees scatterers of its own.
        amplitude: Scattering, float32 (HEIGHT, LINES).
        reflection: Mirror-like, coherent reflection, same shape.
    """
    # two fields slide apart with the sweep: neighbouring frames share their speckle
    width, slide = LINES + SLIDE, int(sweep * (SLIDE - 1))
    left = 2 * look * width + slide
    right = (2 * look + 2) * width - LINES - slide
    power, half = np.zeros_like(amplitude), amplitude / 2
    for noise, coherent in zip(subject.noise, (reflection, 0), strict=True):
        scatter = noise[:, left : left + LINES] + noise[:, right : right + LINES]
        power += spread(scatter * half + coherent, subject.blur) ** 2
    return power


def render(subject, sweep, visibility):
    """Return one frame, uint8 (HEIGHT, WIDTH)."""
    canvas = draw_tissue(subject, sweep, visibility)
    level, loss, impedance, shine = tissue_maps(subject, canvas, sweep)
    amplitude, passed = cv2.exp(DECIBEL * (level - loss)), cv2.exp(-DECIBEL * loss)
    down = cv2.Sobel(impedance, -1, 0, 1, scale=0.125)
    side = cv2.Sobel(impedance, -1, 1, 0, scale=0.125)
    step = cv2.magnitude(down, side) + 1e-3
    power = 1.0
    for look, steer in enumerate(LOOKS):
        # squared cosine between beam and surface: only what faces the probe shines
        mirror = 2.6 * (down + steer * side) ** 2 / step + shine
        mirror *= passed * subject.shine
        power *= insonify(subject, look, sweep, amplitude, mirror) + 1e-4
    decibels = cv2.log(power) * (0.5 / DECIBEL / len(LOOKS))
    depth = np.linspace(4, 4 + subject.fall, HEIGHT, dtype=np.float32)[:, None]
    gain = subject.gain + 0.7 * float(subject.gain_drift(sweep)) + 27.2
    grey = (decibels + depth + gain) * (255 / subject.dynamic_range)
    # the scanner's post-processing: smooth along the tissue, sharpen along the beam
    soft = cv2.GaussianBlur(grey, (0, 0), sigmaX=1.4, sigmaY=1.0)
    wide = cv2.GaussianBlur(grey, (0, 0), sigmaX=4, sigmaY=5)
    grey = cv2.addWeighted(soft, 1 + subject.sharpen, wide, -subject.sharpen, -10)
    grey = 0.5 * (grey + np.sqrt(grey * grey + 45**2))  # soft toe: the noise floor
    image = cv2.resize(grey, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = image.clip(0, 255).astype(np.uint8)
    image[:, 0] = 0  # as in the challenge's frames
    cv2.polylines(image, [MARKER], True, 0)
    return image


def make_frame(frame, seed):
    """Return one frame's files, `{relative path: bytes}`, and its encoded mask."""
    subject = make_subject(seed, frame.subject)
    pictures = {f"{frame.name}.tif": render(subject, frame.sweep, frame.visibility)}
    mask = draw_mask(subject, frame, seed)
    if frame.name.startswith("train/"):
        pictures[f"{frame.name}_mask.tif"] = mask
    files = {
        path: cv2.imencode(".tif", picture, LZW)[1].tobytes()
        for path, picture in pictures.items()
    }
    return files, encode(mask)


def write_frame(frame, seed, out):
    """Write one frame; return its line of the journal."""
    files, pixels = make_frame(frame, seed)
    digests = {}
    for path, content in files.items():
        # no fsync: a file is trusted after a crash only if its hash is in the journal
        stage.temporary(out / path).write_bytes(content)
        os.replace(stage.temporary(out / path), out / path)
        digests[path] = hashlib.sha256(content).hexdigest()
    return {"frame": frame.name, "pixels": pixels, "sha256": digests}


def is_intact(out, digests):
    """Tell whether every file of `{relative path: SHA-256}` is there, unchanged."""
    return all(
        (out / path).is_file() and stage.sha256(out / path) == digest
        for path, digest in digests.items()
    )


def read_journal(out, frames):
    """Return the journal lines, by frame name, of the frames intact in `out`."""
    lines = {}
    if (out / JOURNAL).exists():
        for text in (out / JOURNAL).read_bytes().splitlines():
            try:
                line = json.loads(text)
                lines[line["frame"]] = line
            except (ValueError, KeyError, TypeError):
                continue  # torn by a crash: that frame is made again
    names = [frame.name for frame in frames if frame.name in lines]
    checks = stage.map_threads(
        lambda name: is_intact(out, lines[name]["sha256"]), names
    )
    return {name: lines[name] for name, good in zip(names, checks, strict=True) if good}


def check_folder(out, record, frames):
    """Tell how far `out` is: "new", "unfinished" or "complete".

    Raises:
        ValueError: it holds files of others, or a phantom with other parameters.
    """
    everything = out.rglob("*") if out.is_dir() else ()
    found = {str(path.relative_to(out)) for path in everything if not path.is_dir()}
    found -= {".lock", str(stage.temporary(RECORD))}  # killed before its first record
    if not found:
        return "new"
    mend = "choose another --out, or empty that folder"
    old = stage.read_record(out / RECORD, RERUN) if RECORD in found else {}
    if old.get("made_by") != record["made_by"]:
        some = ", ".join(sorted(found)[:3])
        raise ValueError(f"{out}/ holds files not made by phantom.py ({some}); {mend}")
    if old.get("parameters") != record["parameters"]:
        flags = " ".join(f"--{k} {v}" for k, v in old.get("parameters", {}).items())
        raise ValueError(
            f"{out}/ holds the phantom of {flags}; run with these or {mend}"
        )
    if old.get("complete"):
        return "complete"
    if old != record:
        raise ValueError(f"{out}/ was begun with other versions of libraries; {mend}")
    names = [JOURNAL, "SHA256SUMS", *TABLES]
    names += [f.name + end for f in frames for end in (".tif", "_mask.tif")]
    known = {RECORD, *names, *(str(stage.temporary(name)) for name in names)}
    if foreign := found - known:
        raise ValueError(
            f"{out}/{min(foreign)} was not made by phantom.py; move it away"
        )
    return "unfinished"


def write_tables(out, frames, journal):
    """Write the challenge's tables and the hidden truth; return their SHA-256."""
    train = [f for f in frames if f.name.startswith("train/")]
    test = [(int(f.name[5:]), f) for f in frames if f.name.startswith("test/")]
    train.sort(key=lambda f: (f.subject, f.image))
    test.sort()
    pixels = {name: line["pixels"] for name, line in journal.items()}
    tables = (
        [(f.subject, f.image, pixels[f.name]) for f in train],
        [(number, "1 1") for number, _ in test],
        [(number, pixels[f.name], f.subject, f.image) for number, f in test],
    )
    digests = {}
    for (name, header), rows in zip(TABLES.items(), tables, strict=True):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")  # the challenge's line ends
        writer.writerows([header, *rows])
        content = text.getvalue().encode()
        stage.write_bytes(out / name, content)
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def write_phantom(out, frames, record):
    """Make what is missing of the data set in `out`, the complete record last."""
    seed = record["parameters"]["seed"]
    for folder in ("train", "test"):
        stage.make_folder(out / folder)
    stage.write_bytes(out / RECORD, stage.to_json(record).encode())
    journal = read_journal(out, frames)
    missing = [frame for frame in frames if frame.name not in journal]
    made = stage.map_threads(lambda frame: write_frame(frame, seed, out), missing)
    bar = tqdm(made, "frames", len(frames), initial=len(journal), unit="frame")
    with bar, open(out / JOURNAL, "a") as file:
        file.write("\n")  # ends a torn line
        for line in bar:
            journal[line["frame"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
    digests = write_tables(out, frames, journal)
    for line in journal.values():
        digests |= line["sha256"]
    sums = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    stage.write_bytes(out / "SHA256SUMS", sums.encode())
    os.sync()  # once, where an fsync for each of thousands of files would take minutes
    record = record | {"complete": True, "sha256sums": stage.sha256(out / "SHA256SUMS")}
    stage.write_bytes(out / RECORD, stage.to_json(record).encode())


def make_record(parameters, frames):
    """Return what phantom.json holds while the data set is unfinished."""
    train = [f for f in frames if f.name.startswith("train/")]
    test = [f for f in frames if f.name.startswith("test/")]
    versions = {"phantom": VERSION, "numpy": np.__version__}
    return {
        "made_by": "phantom.py",
        "parameters": parameters,
        "height": HEIGHT,
        "width": WIDTH,
        "test_subjects": len({f.subject for f in test}),
        "train_with_nerve": sum(f.nerve for f in train),
        "test_with_nerve": sum(f.nerve for f in test),
        "versions": versions | {"opencv": cv2.__version__, "scipy": scipy.__version__},
        "complete": False,
    }


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("raw"), help="folder to make")
    parser.add_argument("--train", type=int, default=600, help="training frames")
    parser.add_argument("--test", type=int, default=100, help="test frames")
    parser.add_argument("--subjects", type=int, default=12, help="training subjects")
    parser.add_argument("--seed", type=int, default=0, help="0 or more")
    args = parser.parse_args(argv)
    if args.subjects < 1:
        parser.error(f"--subjects is {args.subjects}; expected 1 or more")
    if args.train < args.subjects:
        parser.error(f"--train is {args.train}; expected at least --subjects")
    if args.test < 1:
        parser.error(f"--test is {args.test}; expected 1 or more")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; expected 0 or more")
    return args


def main(argv=None):
    args = parse_args(argv)
    cv2.setNumThreads(1)  # frames are shared out to threads, not their rows
    parameters = {key: value for key, value in vars(args).items() if key != "out"}
    frames = plan_frames(**parameters)
    record = make_record(parameters, frames)
    news = "was complete already"
    if check_folder(args.out, record, frames) != "complete":
        with stage.lock(args.out):
            # again: another run may have come before the lock
            if check_folder(args.out, record, frames) != "complete":
                write_phantom(args.out, frames, record)
                news = "is complete"
    if (args.out / JOURNAL).exists():  # no longer needed, also if killed right here
        (args.out / JOURNAL).unlink(missing_ok=True)
    print(
        f"{args.out}/ {news}: {args.train} training frames of {args.subjects} subjects "
        f"({record['train_with_nerve']} with a nerve), {args.test} test frames of "
        f"{record['test_subjects']} others ({record['test_with_nerve']} with a nerve)"
    )


if __name__ == "__main__":
    sys.exit(stage.run(main))
