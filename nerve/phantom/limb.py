"""The anatomy of the limb phantom: nerves of arm and leg among muscles and vessels.

Every frame has an anatomy of its own: how a nerve looks is to be learnt from it, not where
it lies. Lengths are in pixels of the challenge's frames, x to the right and y down.

The numbers were set by eye, beside frames of many parts of the body and several scanners.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from nerve.files.run_length import HEIGHT, WIDTH
from nerve.phantom.anatomy import COLUMNS, DISTRACTORS, Canvas, oval, smooth_random, strip

SCANNERS = {  # settings, drawn evenly for each subject; see `scanner.make_scanner`
    "gain": (-17, 1),
    "fall": (-32, 4),
    "dynamic_range": (45, 72),
    "sharpen": (0, 1),
    "fibre": (0.2, 1.5),
    "shine": (0.3, 1.6),
}
BLURS = (0.4, 1.2), (0.4, 1.4)  # along rows and lines
OTHERS = {"lymph node": 0.2, "vessel": 0.3, "sheet": 0.3, "muscle": 0.2}  # how often
MUSCLES = ("muscle", "muscle", "bundle", "deep", "fat")
LOOKS = {  # of a nerve: how often, its tissue, radii of its fascicles in its own
    "honeycomb": (0.4, "sheath", (0.1, 0.22)),
    "bright": (0.3, "sheath", (0.05, 0.12)),
    "grapes": (0.22, "sheath", (0.25, 0.42)),
    "dark": (0.08, "root", None),
}
SMALLEST = 500  # pixels of a mask
MOST_FASCICLES, MOST_ROWS = 14, 235  # of a nerve; of a canvas, whose labels are bytes


class Oval(NamedTuple):
    """A vessel, or a part of a nerve."""

    centre: np.ndarray  # x, y
    radii: np.ndarray
    tilt: float  # radians
    wobble: np.ndarray  # (4,)

    def outline(self, grow: float | tuple = 0.0, amount: float = 0.06) -> np.ndarray:
        """Return its outline, float (40, 2), larger by pixels."""
        return oval(self.centre, self.radii + grow, self.tilt, self.wobble, amount)


def wave(rng: np.random.Generator, amount: float, lowest=0.3, highest=1.3) -> np.ndarray:
    """Return a smooth random depth over COLUMNS, of about this standard deviation."""
    return amount * smooth_random(rng, lowest, highest)(COLUMNS / WIDTH)


def draw_muscles(canvas: Canvas, rng: np.random.Generator) -> list[np.ndarray]:
    """Paint fat, muscles and at times bone; return the fasciae's depths over COLUMNS."""
    u, n, middle = rng.uniform, rng.normal, COLUMNS - WIDTH / 2
    fat = u(25, 110)
    depths = [fat + wave(rng, u(2, 10))]
    for _ in range(rng.integers(1, 6)):
        depth = depths[-1] + u(30, 120) + wave(rng, u(3, 20)) + u(-0.25, 0.25) * middle
        depths.append(np.maximum(depth, 0.8 * fat))
    for depth in depths:
        below = strip(depth, np.full_like(depth, HEIGHT + 20))
        canvas.fill(below, rng.choice(MUSCLES), n(-1, 2), u(-0.4, 0.4))
    canvas.fill(strip(np.zeros_like(fat + middle), depths[0]), "fat", n(-1, 2))
    for depth in depths:
        canvas.band(depth, u(0, 1.5) + wave(rng, u(0.5, 2.2), 1, 3), "fascia")
    for _ in range(rng.integers(0, 8)):  # septa
        depth = u(10, fat) + wave(rng, 4) + u(-0.1, 0.1) * middle
        canvas.band(depth, wave(rng, 1.8, 1.5, 4) - 1, "fascia")
    if rng.random() < 0.4:
        x, half = u(0, WIDTH), u(40, 170)
        depth = u(170, 400) + u(0.0006, 0.004) * (COLUMNS - x) ** 2 + wave(rng, 4)
        fade = np.minimum(1.5 * (1 - abs(COLUMNS - x) / half), 1)
        canvas.band(depth, (9 + wave(rng, 3)) * fade, "bone")
    return depths


def draw_others(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint small things that are no nerves."""
    u, n = rng.uniform, rng.normal
    for _ in range(rng.integers(2, 7)):
        place, radius = np.array([u(0, WIDTH), u(40, 400)]), u(4, 16)
        kind = rng.choice(list(OTHERS), p=list(OTHERS.values()))
        if kind in DISTRACTORS:
            tilt, wobble = n(0, 0.7), u(-1, 1, 4)
            for tissue, wide, high, grow, _ in DISTRACTORS[kind]:
                radii = wide * radius + grow, high * radius + grow
                canvas.fill(oval(place, radii, tilt, wobble), tissue, n(0, 1.5))
        else:
            wide, high = (u(1.5, 4), 0.5) if kind == "sheet" else (u(1.2, 3), 1)
            tissue, extra = ("fascia", -6) if kind == "sheet" else ("muscle", -4)
            outline = oval(place, (wide * radius, high * radius), n(0, 0.3), u(-1, 1, 4))
            canvas.fill(outline, tissue, u(extra, 0), u(-0.3, 0.3))


def make_vessel(rng: np.random.Generator) -> Oval:
    """Draw an artery, or a vein, which is flatter."""
    u, radius = rng.uniform, math.exp(rng.uniform(math.log(12), math.log(80)))
    flat = u(0.8, 1) if rng.random() < 0.6 else u(0.3, 0.7)
    centre, radii = np.array([u(30, WIDTH - 30), u(60, 330)]), np.array([1, flat]) * radius
    return Oval(centre, radii, rng.normal(0, 0.3), u(-1, 1, 4))


def place_nerve(
    rng: np.random.Generator, radii: np.ndarray, vessels: list, depths: list
) -> np.ndarray:
    """Return where a nerve lies: beside a vessel, along a fascia, or anywhere."""
    u = rng.uniform
    x, y = u(40, WIDTH - 40), u(45, 360)
    if vessels and rng.random() < 0.6:
        vessel, angle = vessels[rng.integers(len(vessels))], u(0, 2 * math.pi)
        aside = vessel.radii + radii * u(0.85, 1.3, 2)
        return vessel.centre + aside * (math.cos(angle), math.sin(angle))
    if rng.random() < 0.5:
        depth = depths[rng.integers(len(depths))]
        y = np.interp(x, COLUMNS, depth) + rng.normal(0, 0.7) * radii[1]
    return np.array([x, y])


def make_nerves(rng: np.random.Generator, vessels: list, depths: list) -> list[list[Oval]]:
    """Draw one nerve to three, each of one oval to three that overlap."""
    u, n, nerves = rng.uniform, rng.normal, []
    taken = [(v.centre, max(v.radii)) for v in vessels]
    lowest, highest = (25, 35), (WIDTH - 25, HEIGHT - 30)
    for k in range(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15])):
        # of the circle of its area
        radius = math.exp(u(math.log(21), math.log(85))) * (u(0.5, 1) if k else 1)
        stretch = math.exp(abs(n(0, 0.25)))
        radii = radius * np.array([stretch, 1 / stretch])
        for _ in range(30):
            centre = place_nerve(rng, radii, vessels, depths).clip(lowest, highest)
            gaps = [math.dist(centre, c) - 0.8 * (r + radius) for c, r in taken]
            if min(gaps, default=1) > 0:
                break
        else:
            continue
        taken.append((centre, radius))
        nerves.append([Oval(centre, radii, n(0, 0.35), u(-1, 1, 4))])
        for _ in range(rng.choice([0, 1, 2], p=[0.65, 0.175, 0.175])):
            angle = u(0, 2 * math.pi)
            middle = centre + 0.9 * radii * (math.cos(angle), math.sin(angle))
            nerves[-1].append(Oval(middle, u(0.4, 0.8) * radii, n(0, 0.6), u(-1, 1, 4)))
    return nerves


def draw_nerve(
    canvas: Canvas, mask: np.ndarray, rng: np.random.Generator, parts: list[Oval]
) -> None:
    """Paint a nerve on a canvas, and its outline into a mask."""
    u, amount, seen = rng.uniform, rng.uniform(0.05, 0.16), rng.uniform(0.2, 1)
    shares, tissues, fascicles = zip(*LOOKS.values(), strict=True)
    look = rng.choice(len(LOOKS), p=shares)
    rim, level, slope = u(0, seen), u(-2, 6), u(-0.2, 0.2)
    for part in parts:
        outline = part.outline(3, amount)
        canvas.fill(outline, "rim", u(-1, 4), share=rim)
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, shift=4)
    for part in parts:
        outline = part.outline(0, amount)
        canvas.fill(outline, tissues[look], level, slope, seen)
    if fascicles[look] is None:
        return
    size = max(u(*fascicles[look]) * math.sqrt(np.prod(parts[0].radii)), 2.5)
    extra, done = u(-3, 5), []
    for _ in range(rng.integers(10, 60)):
        part = parts[rng.integers(len(parts))]
        away, angle = 0.8 * math.sqrt(u(0, 1)), u(0, 2 * math.pi)
        radius = size * u(0.7, 1.25)
        x, y = away * part.radii * (math.cos(angle), math.sin(angle))
        cosine, sine = math.cos(part.tilt), math.sin(part.tilt)
        centre = part.centre + (cosine * x - sine * y, sine * x + cosine * y)
        if any(math.dist(centre, c) < radius + r + 1 for c, r in done):
            continue
        if len(done) == MOST_FASCICLES or len(canvas.rows) > MOST_ROWS:
            return
        done.append((centre, radius))
        outline = oval(centre, (u(0.9, 1.4) * radius, radius), part.tilt, u(-1, 1, 4))
        canvas.fill(outline, "root", extra, share=seen * u(0.7, 1))


def draw_frame(rng: np.random.Generator, nerve: bool) -> tuple[Canvas, np.ndarray]:
    """Draw the anatomy of a frame; return a Canvas, and its mask, uint8, 0 or 255."""
    canvas, mask, u = Canvas(), np.zeros((HEIGHT, WIDTH), np.uint8), rng.uniform
    depths = draw_muscles(canvas, rng)
    draw_others(canvas, rng)
    vessels = [make_vessel(rng) for _ in range(rng.choice(4, p=[0.25, 0.35, 0.25, 0.15]))]
    for parts in make_nerves(rng, vessels, depths) if nerve else ():
        draw_nerve(canvas, mask, rng, parts)
    for vessel in vessels:
        outline = vessel.outline((1.5, 2.5))
        canvas.fill(outline, "wall", u(-8, 0))
        canvas.fill(vessel.outline(), "vessel", u(-2, 9))
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 0, shift=4)
    top = np.zeros_like(COLUMNS)
    for i in range(rng.integers(1, 4)):
        bottom = top + u(4, 11) + wave(rng, 1)
        canvas.fill(strip(top, bottom), "gel" if i % 2 else "skin", rng.normal(0, 2))
        top = bottom
    if nerve and cv2.countNonZero(mask) < SMALLEST:  # behind a vessel
        return draw_frame(rng, nerve)
    return canvas, mask


def make_scanner(rng: np.random.Generator) -> dict:
    """Draw the settings of a scanner of any kind."""
    drawn = {name: rng.uniform(*ends) for name, ends in SCANNERS.items()}
    return drawn | {"blur": [rng.uniform(*ends) for ends in BLURS]}
