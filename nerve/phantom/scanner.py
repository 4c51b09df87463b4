"""The scanner of the phantom: from anatomy to a B-mode picture.

Tissue outlines -> scattering, mirror-like reflection and attenuation -> complex echo of
random scatterers, blurred by the point spread function -> envelope -> logarithm -> edge
enhancement -> 8 bits.

Sources: convolution model, https://doi.org/10.1109/TUFFC.2017.2731944; statistics of
speckle, https://doi.org/10.1109/T-SU.1983.31404.
"""

import functools
import math
from types import SimpleNamespace

import cv2
import numpy as np
from scipy import fft

from nerve.files.run_length import HEIGHT, WIDTH
from nerve.phantom import anatomy, limb
from nerve.phantom.anatomy import LINES, Canvas, smooth_random

DECIBEL = math.log(10) / 20  # exp(DECIBEL * dB) is an amplitude
# of a transverse process: x, depth, half width (pixels) and curvature, least and most
BONE = ((-260, 200), (95, 170), (40, 90), (0.0006, 0.003))
SLIDE = 100  # scan lines that the scatterers move during a whole sweep
TILE = 512  # pixels; side of the periodic random textures
LOOKS = (-0.25, 0.0, 0.25)  # steering of the compounded beams, tangent of the angle
PSF = ((0, 1.5, 1.6), (110, 1.6, 1.4), (230, 1.7, 1.7), (330, 1.9, 2.1))
BLEND = 40  # rows over which one zone of PSF (first row, sigma rows, lines) fades in
MARKER = np.array([[293, 0], [311, 0], [302, 16]])  # the centre mark of every frame


def texture(
    rng: np.random.Generator, sigma_rows: float, sigma_lines: float, side: int = TILE
) -> np.ndarray:
    """Return two periodic Gaussian random fields, N(0, 1), float32 (2, TILE, TILE)."""
    noise = fft.rfft2(rng.standard_normal((2, side, side), np.float32))
    rows, lines = fft.fftfreq(side)[:, None], fft.rfftfreq(side)
    waves = (sigma_rows * rows) ** 2 + (sigma_lines * lines) ** 2
    waves *= (side / TILE) ** 2  # a smooth field is made small, for speed
    noise = fft.irfft2(noise * np.exp(-2 * np.pi**2 * waves).astype(np.float32))
    noise /= noise.std(axis=(1, 2), keepdims=True)
    return np.stack([cv2.resize(field, (TILE, TILE)) for field in noise])


def make_scanner(rng: np.random.Generator) -> dict:
    """Draw the settings of the scanner and the fields of random scatterers."""
    u, n = rng.uniform, rng.normal
    streaks = 0.6 * texture(rng, 1.6, 9) + 0.8 * texture(rng, 2.1, 20)
    columns = 2 * len(LOOKS) * (LINES + SLIDE)
    return {
        "gain": n(0, 1.6),  # dB
        "gain_drift": smooth_random(rng),
        "fall": n(-9.5, 5),  # dB over the whole depth
        "dynamic_range": u(52, 65),  # dB
        "blur": (u(0.85, 1.2), u(0.8, 1.3)),
        "sharpen": u(0.3, 0.9),
        "fibre": u(0.7, 1.8),
        "shine": u(0.8, 1.7),
        "noise": rng.standard_normal((2, HEIGHT, columns), np.float32),
        "grain": np.stack([texture(rng, 1.8, 11), streaks], -1),  # fibres, streaks
        "mottle": texture(rng, 10, 14, TILE // 4),
        "flow": texture(rng, 30, 26, TILE // 8),
        "push": (texture(rng, 9, 8, TILE // 4), texture(rng, 9, 8, TILE // 4)),
    }


@functools.lru_cache(maxsize=4)
def make_subject(seed: int, subject: int, nerve: str = "plexus") -> SimpleNamespace:
    """Draw what belongs to one subject; functions of the sweep are `smooth_random`.

    Frames of "limb" nerves have anatomies of their own, and any scanner.
    """
    rng = np.random.default_rng([seed, anatomy.STREAM_SUBJECT, subject])
    u, n = rng.uniform, rng.normal
    drawn = SimpleNamespace(
        **anatomy.make_nerve(rng),
        **make_scanner(rng),
        bodies=anatomy.make_anatomy(rng),
        distractors=anatomy.make_distractors(rng),
        # fasciae: depth in pixels, slope; skin: thickness in pixels, dB
        fascias=[(u(70, 210), n(0, 0.08)) for _ in range(4)],
        skin=[(u(5, 11), n(0, 2)) for _ in range(4)],
        bones=[[u(*ends) for ends in BONE] for _ in range(rng.integers(1, 4))],
        curves=[smooth_random(rng, 0.2, 1.0) for _ in range(12)],
        ripples=[smooth_random(rng, 1.0, 3.0) for _ in range(12)],
    )
    if nerve == "limb":
        vars(drawn).update(limb.make_scanner(rng))
    return drawn


def mix(tiles: np.ndarray, sweep: float) -> np.ndarray:
    """Mix two random fields by the sweep: the plane moves on, so the tissue changes."""
    angle = 1.5 * sweep
    return cv2.addWeighted(tiles[0], math.cos(angle), tiles[1], math.sin(angle), 0)


def tissue_maps(
    subject: SimpleNamespace, canvas: Canvas, sweep: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return maps of the labels, each float32 (HEIGHT, LINES).

    They are level (dB), loss (dB, down to each pixel), impedance, shine (amplitude).
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
    along = line - float(anatomy.place_nerve(subject, sweep)[0][0] / 2) + 37 * slope
    grain = mix(subject.grain, sweep)
    grain = cv2.remap(grain, along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
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
def gaussian(sigma: float) -> np.ndarray:
    """Return a Gaussian kernel of unit energy, so that speckle keeps its power."""
    kernel = cv2.getGaussianKernel(2 * math.ceil(2.7 * sigma) + 1, sigma, cv2.CV_32F)
    return kernel / np.linalg.norm(kernel)


def spread(field: np.ndarray, blur: tuple[float, float]) -> np.ndarray:
    """Convolve with the point spread function, which widens with depth, in zones.

    The field, float32 (HEIGHT, LINES), is a component of the complex one; `blur` are the
    subject's factors on the widths along rows and lines.
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


def insonify(
    subject: SimpleNamespace,
    look: int,
    sweep: float,
    amplitude: np.ndarray,
    reflection: np.ndarray,
) -> np.ndarray:
    """Return the echo's power for one of LOOKS, which sees scatterers of its own.

    It is float32 (HEIGHT, LINES), as are the amplitude of the scattering and the mirror-
    like, coherent reflection.
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


def render(subject: SimpleNamespace, sweep: float, visibility: float) -> np.ndarray:
    """Return one frame of the plexus, uint8 (HEIGHT, WIDTH)."""
    image = scan(subject, anatomy.draw_tissue(subject, sweep, visibility), sweep)
    image[:, 0] = 0  # as in the challenge's frames
    cv2.polylines(image, [MARKER], True, 0)
    return image


def scan(subject: SimpleNamespace, canvas: Canvas, sweep: float) -> np.ndarray:
    """Return the picture of an anatomy by a subject's scanner, uint8 (HEIGHT, WIDTH)."""
    level, loss, impedance, shine = tissue_maps(subject, canvas, sweep)
    amplitude, passed = cv2.exp(DECIBEL * (level - loss)), cv2.exp(-DECIBEL * loss)
    down = cv2.Sobel(impedance, -1, 0, 1, scale=0.125)
    side = cv2.Sobel(impedance, -1, 1, 0, scale=0.125)
    # not cv2.magnitude, whose last bit depends on where its arrays lie in memory
    step = np.sqrt(down * down + side * side) + 1e-3
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
    return image.clip(0, 255).astype(np.uint8)
