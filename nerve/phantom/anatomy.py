"""The anatomy of the phantom: a subject's brachial plexus and what lies around it.

Lengths are in pixels of the challenge's frames, x to the right and y down. Functions of
the sweep follow the probe on its way along the neck, 0 to 1.

Source of sizes, positions and shares of nerves: counted in the challenge's
train_masks.csv. Tissue numbers were set by eye against real frames.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np

from nerve.files.run_length import HEIGHT, WIDTH

STREAM_PLAN, STREAM_SUBJECT, STREAM_FRAME = range(3)  # keep random streams apart
LINES = WIDTH // 2  # scan lines; a scanner, too, interpolates between its lines
SMALLEST_MASK, LARGEST_MASK = 2684, 17439  # pixels, in the challenge's training set
COLUMNS = np.linspace(-30, WIDTH + 30, 65)  # pixels, where layers are given
ANGLES = np.linspace(0, 2 * np.pi, 40, endpoint=False)
HARMONICS = np.stack([f(k * ANGLES) for k in (2, 3) for f in (np.cos, np.sin)])


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
DISTRACTORS = {  # tissue; radii along x and y, as multiples; pixels added; place along x
    "vessel": (("wall", 0.8, 0.7, 1.5, 0), ("vessel", 0.8, 0.7, 0, 0)),
    "lymph node": (
        ("rim", 1.9, 1, 3, 0),
        ("node", 1.9, 1, 0, 0),
        ("hilum", 0.8, 0.3, 0, 0),
    ),
    "oval": (("rim", 1, 0.9, 4, 0), ("root", 1, 0.9, 0, 0)),
    "knot": (("sheath", 2, 1, 0, 0), ("rim", 1.2, 0.4, 0, 0)),
    "clump": (  # of fat between muscles: much as a nerve, in another place
        ("sheath", 2, 1.1, 0, 0),
        ("rim", 0.6, 0.6, 2, -1),
        ("rim", 0.6, 0.6, 2, 0.9),
        ("root", 0.6, 0.6, -1, -1),
        ("root", 0.6, 0.6, -1, 0.9),
    ),
}


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


def smooth_random(
    rng: np.random.Generator, lowest: float = 0.3, highest: float = 1.3
) -> Callable:
    """Return a smooth random function of an array, about N(0, 1); cycles a unit."""
    frequencies = 2 * np.pi * rng.uniform(lowest, highest, 4)
    phases = rng.uniform(0, 2 * np.pi, 4)
    return lambda x: np.cos(np.multiply.outer(x, frequencies) + phases).sum(-1) / 2**0.5


def make_nerve(rng: np.random.Generator) -> dict:
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
        "num_roots": int(rng.choice([1, 2, 3, 4, 5], p=[0.05, 0.25, 0.35, 0.25, 0.1])),
        "root_shapes": u(-1, 1, (5, 4)),
        "lone": smooth_random(rng, 0.5, 2.0),
        # how far sheath, rims and roots stand out from their surroundings, 0 to 1
        "contrast": (u(0, 1), u(0.2, 1), u(0.4, 1)),
    }


def body(
    rng: np.random.Generator,
    tissue: str,
    x: float,
    y: float,
    radii: tuple[float, float],
    tilt: float = 0.0,
    window: tuple[float, float] = (-1.0, 2.0),
) -> Body:
    """Return a Body with random outline, level and fibre slope."""
    wobble, extra = rng.uniform(-1, 1, 4), rng.normal(0, 1.5)
    slope = math.tan(tilt + rng.normal(0, 0.08))
    return Body(tissue, (x, y), radii, tilt, wobble, extra, slope, window)


def make_anatomy(rng: np.random.Generator) -> list[Body]:
    """Return the muscles and great vessels below the cervical fascia, deepest first."""
    u, n = rng.uniform, rng.normal
    bodies = []
    for _ in range(16):  # longus colli, levator scapulae and the like
        place, radii = (u(-340, 260), u(20, 260)), (u(50, 120), u(10, 32))
        bodies.append(body(rng, "bundle", *place, radii, n(0, 0.2)))
    for x, y, radii, tilt in (
        (u(70, 150), u(40, 75), (u(100, 150), u(30, 50)), 0.25),  # middle scalene
        (u(190, 260), u(-20, 30), (u(90, 130), u(25, 40)), 0.1),  # its neighbour
        (u(-135, -95), u(0, 35), (u(65, 105), u(35, 65)), -0.2),  # anterior scalene
    ):
        bodies.append(body(rng, "muscle", x, y, radii, n(tilt, 0.15)))
    if rng.random() < 0.5:  # many real frames show no great vessel
        return bodies
    x, y, carotid, jugular = u(-300, -200), u(20, 80), u(22, 36), u(22, 48)
    flat = 0.4 * jugular  # a vein gives way to the probe
    for tissue, grow in (("wall", 2), ("vessel", 0)):
        radii = carotid + grow, 0.93 * carotid + grow
        bodies.append(body(rng, tissue, x, y, radii))
    x, y = x + u(30, 80), y - u(55, 75)
    for tissue, grow in (("wall", 2), ("vessel", 0)):
        bodies.append(body(rng, tissue, x, y, (jugular + grow, flat + grow)))
    return bodies


def make_distractors(rng: np.random.Generator) -> list[Body]:
    """Return what may be mistaken for a nerve, anywhere but in the groove."""
    u, bodies = rng.uniform, []
    for i in range(rng.integers(8, 15)):
        x, y = 0.0, 0.0
        while math.hypot(x / 100, y / 110) < 1:
            x, y = u(-330, 260), u(-110, 230)
        # the first stays through the whole sweep: no frame is without
        start = u(-0.6, 0.7) if i else -1.0
        window = start, start + u(0.3, 0.9) if i else 2.0
        kind, radius = rng.choice(sorted(DISTRACTORS)), u(9, 24)
        tilt = rng.normal(0, 0.7)
        for tissue, wide, high, grow, aside in DISTRACTORS[kind]:
            radii = wide * radius + grow, high * radius + grow
            dx, dy = aside * math.cos(tilt), aside * math.sin(tilt)
            place = x + radius * dx, y + radius * dy
            bodies.append(body(rng, tissue, *place, radii, tilt, window))
    return bodies


def oval(
    centre: np.ndarray,
    radii: np.ndarray | tuple[float, float],
    tilt: float,
    wobble: np.ndarray,
    amount: float = 0.13,
    power: float = 2.0,
) -> np.ndarray:
    """Return an irregular (super)ellipse, float (40, 2), pixels (x, y)."""
    unit = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
    radius = (abs(unit) ** power).sum(1) ** (-1 / power)
    radius *= 1 + amount * wobble @ HARMONICS
    c, s = math.cos(tilt), math.sin(tilt)
    return centre + radius[:, None] * unit * radii @ np.array([[c, s], [-s, c]])


def strip(top: np.ndarray, bottom: np.ndarray, columns: np.ndarray = COLUMNS) -> np.ndarray:
    """Return the polygon between two depth profiles, float (2 * len(columns), 2)."""
    upper, lower = np.stack([columns, top], 1), np.stack([columns, bottom], 1)
    return np.concatenate([upper, lower[::-1]])


class Canvas:
    """Labels of the tissues, uint8 (HEIGHT, LINES), painted one over the other."""

    def __init__(self):
        self.labels = np.zeros((HEIGHT, LINES), np.uint8)
        self.rows = [(*TISSUE["deep"], 0.0)]  # of each label: Tissue and fibre slope

    def fill(
        self,
        polygon: np.ndarray,
        tissue: str,
        extra: float = 0.0,
        slope: float = 0.0,
        share: float = 1.0,
    ) -> None:
        """Paint a polygon (n, 2); with a share below 1 it is half out of the plane."""
        row = share * np.array(TISSUE[tissue])
        row += (1 - share) * np.array(TISSUE["bundle"])
        row[0] += extra
        self.rows.append((*row, slope))
        points = np.round(polygon * (8, 16)).astype(np.int32)  # 1/16 pixel
        cv2.fillPoly(self.labels, [points], len(self.rows) - 1, shift=4)

    def band(self, top: np.ndarray, thickness: np.ndarray, tissue: str) -> None:
        """Paint a sheet that breaks where its thickness, over COLUMNS, is below 0.4."""
        inside = np.flatnonzero(thickness > 0.4)
        for run in np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1):
            if len(run) > 1:
                bottom = top[run] + thickness[run]
                self.fill(strip(top[run], bottom, COLUMNS[run]), tissue)


def place_nerve(
    subject: SimpleNamespace, sweep: float
) -> tuple[np.ndarray, tuple[float, float], float, list[tuple]]:
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


def draw_mask(subject: SimpleNamespace, frame, seed: int) -> np.ndarray:
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


def draw_tissue(subject: SimpleNamespace, sweep: float, visibility: float) -> Canvas:
    """Paint the anatomy at one position of the sweep; return a Canvas."""
    canvas = Canvas()
    centre = place_nerve(subject, sweep)[0]
    from_groove = COLUMNS - centre[0]
    waves = [curve(COLUMNS / WIDTH + 0.35 * sweep) for curve in subject.curves]
    ripples = [ripple(COLUMNS / WIDTH + 0.5 * sweep) for ripple in subject.ripples]
    for i, (depth, slope) in enumerate(subject.fascias):
        top = centre[1] + depth + 10 * waves[i] + slope * from_groove
        canvas.band(top, 3 * ripples[i], "fascia")
    draw_bodies(canvas, subject.bodies, centre, subject.zoom, sweep)
    for x, depth, half, bend in subject.bones:
        top = centre[1] + depth + bend * (from_groove - x) ** 2 + 4 * waves[4]
        fade = np.minimum(1.5 * (1 - abs(from_groove - x) / half), 1)
        canvas.band(top, (9 + 3 * ripples[4]) * fade, "bone")
    draw_layers(canvas, subject, centre, waves, ripples)
    draw_bodies(canvas, subject.distractors, centre, subject.zoom, sweep)
    draw_groove(canvas, subject, sweep, visibility)
    return canvas


def draw_bodies(
    canvas: Canvas, bodies: list[Body], centre: np.ndarray, zoom: float, sweep: float
) -> None:
    """Paint ovals that lie in the plane at one position of the sweep."""
    for item in bodies:
        share = min(sweep - item.window[0], item.window[1] - sweep) / 0.1
        if share > 0:
            middle = centre + zoom * np.array(item.place)
            amount = 0.06 if item.tissue in ("wall", "vessel") else 0.13
            outline = oval(middle, item.radii, item.tilt, item.wobble, amount)
            canvas.fill(outline, item.tissue, item.extra, item.slope, min(share, 1))


def draw_groove(
    canvas: Canvas, subject: SimpleNamespace, sweep: float, visibility: float
) -> None:
    """Paint the nerve; where it is out of the plane, fat and at times a dark oval."""
    centre, radii, tilt, roots = place_nerve(subject, sweep)
    shape = subject.root_shapes[0]
    shares = [visibility] * len(roots)
    if visibility > 0:
        outline = oval(centre, np.multiply(radii, 0.96), tilt, shape, 0.08)
        canvas.fill(outline, "sheath", 0, -0.2, visibility * subject.contrast[0])
    else:
        outline = oval(centre + (0, 15), np.multiply(radii, (0.8, 0.7)), tilt, shape)
        canvas.fill(outline, "sheath", 0, -0.2, 0.5)
        shares[len(roots) // 2] = min(max(float(subject.lone(sweep)), 0), 0.9)
    # an uneven rim: its outline is not the root's
    kinds = ("rim", (2, 3), -1), ("root", (-1.5, -1), 1)
    for (tissue, grow, turn), contrast in zip(kinds, subject.contrast[1:], strict=True):
        for (middle, size, angle, wobble), share in zip(roots, shares, strict=True):
            if share > 0:
                outline = oval(middle, np.add(size, grow), angle, turn * wobble, 0.14)
                canvas.fill(outline, tissue, share=share * contrast)


def draw_layers(
    canvas: Canvas, subject: SimpleNamespace, centre: np.ndarray, waves: list, ripples: list
) -> None:
    """Paint what lies above the groove: skin, fat, sternocleidomastoid, fasciae."""
    fat, from_groove = 32 + 5 * waves[5], COLUMNS - centre[0]
    fascia = centre[1] - 68 * subject.zoom + 6 * waves[6] + 0.0004 * from_groove**2
    fascia = np.maximum(fascia, fat + 3)
    canvas.fill(strip(np.zeros_like(fat), fascia), "fat")
    middle = fat + (fascia - fat) * (0.55 + 0.1 * waves[7])
    # two lenses that taper towards the groove: sternocleidomastoid and its neighbour
    for side, fill, slope in ((60 - from_groove, 1.0, 0.03), (from_groove, 0.8, -0.05)):
        lens = fill * np.clip(side / 160, 0, 1) ** 0.5
        top = middle - (middle - fat - 5) * lens
        bottom = middle + (fascia - 3 - middle) * lens
        canvas.fill(strip(top, bottom), "muscle", 1.5, slope)
    canvas.band(fascia, 3.0 + 2.2 * ripples[6], "fascia")
    canvas.band(fat, 2.0 + 2 * ripples[7], "fascia")
    top = np.zeros_like(fat)
    for i, (thickness, extra) in enumerate(subject.skin):
        bottom = top + thickness + 0.8 * ripples[8 + i] + 0.5 * waves[8 + i]
        canvas.fill(strip(top, bottom), "gel" if i % 2 else "skin", extra)
        top = bottom
