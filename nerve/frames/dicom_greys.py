"""How frames of DICOM files are shown as greys: what pixels tell, no header decides."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import cv2
import numpy as np

GREYS, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
DEPTHS = (8, 10, 12, 14, 16)  # bits of samples
NEUTRAL = 8  # greys by which the channels of a grey pixel differ at most
DARK = 16  # below it, a pixel looks grey in any reading
GREY, CLEARLY = 0.9, 0.1  # share of grey pixels that shows a reading right; how much more
FADED = 8  # times fewer greys: a window that is none of a file's values
UNLIKE = 0.7  # share of the difference of neighbours, below which others are the right ones

Decode = Callable[[], Iterator[tuple[np.ndarray, str]]]  # `dicom.decode` of a file
Say = Callable[[str], None]  # hears of what contradicts the header


def arrange(samples: np.ndarray, planes: bool) -> np.ndarray:
    """Return a frame's samples, `(height, width, 3)`, in the other order than as read.

    `planes` tells whether that was colour by colour, not pixel by pixel.
    """
    if planes:
        return np.moveaxis(samples, -1, 0).reshape(samples.shape)
    return np.moveaxis(samples.reshape(3, *samples.shape[:2]), 0, -1)


def neutral_share(samples: np.ndarray, ycbcr: bool) -> float:
    """Return the share of uint8 `(height, width, 3)` that is grey, as YCbCr or else RGB."""
    if ycbcr:
        chroma = samples[..., 1:].astype(np.int16) - 128
        return float((np.abs(chroma) <= NEUTRAL).all(axis=-1).mean())
    lit = samples.max(axis=-1) >= DARK
    return float((np.ptp(samples, axis=-1) <= NEUTRAL)[lit].mean()) if lit.any() else 0.0


def find_reading(
    samples: np.ndarray, ycbcr: bool, planes: bool | None
) -> tuple[bool, bool] | None:
    """Return `(in the other order, YCbCr)` of a frame's samples; None where not shown.

    Ultrasound is grey but for marks: that of the readings in which the frame is.

    Args:
        samples: uint8 array `(height, width, 3)`.
        ycbcr: Whether they are said to be YCbCr, not RGB.
        planes: As of `arrange`; None where their order is certain.
    """
    orders = (False,) if planes is None else (False, True)
    ways = list(itertools.product(orders, (ycbcr, not ycbcr)))
    frames = [arrange(samples, planes) if other else samples for other, _ in ways]
    shares = [neutral_share(f, way[1]) for f, way in zip(frames, ways, strict=True)]
    if max(shares) < GREY:
        return None
    return ways[0] if shares[0] > max(shares) - CLEARLY else ways[np.argmax(shares)]


def stretch(frame: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Return a frame as uint8, the lower end black and the upper white."""
    if frame.dtype == np.uint8 and ends == (0, 255):
        return frame
    values = (frame.astype(np.float64) - ends[0]) * (255 / ((ends[1] - ends[0]) or 1.0))
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def find_ends(frames: Iterator[np.ndarray]) -> tuple[float, float]:
    """Return the lowest and highest value of all frames; 0 and 255 if these hold them."""
    low, high = np.inf, -np.inf
    with contextlib.suppress(Exception):  # told where the frames are read
        for frame in frames:
            low, high = min(low, float(frame.min())), max(high, float(frame.max()))
    return (0, 255) if low >= 0 and high <= 255 else (low, high)


def colours_to_grey(dataset, decode: Decode, say: Say) -> Iterator[np.ndarray]:
    """Yield frames of colours as grey, uint8 `(height, width)`."""
    said, known, bits = dataset.PhotometricInterpretation, None, dataset.BitsStored
    planes = dataset.PlanarConfiguration
    if dataset.BitsAllocated > 8:
        top = int(find_ends(frame for frame, _ in decode())[1]).bit_length()
        if top < bits - 2:  # no white, nor anything near it
            bits = next(depth for depth in DEPTHS if depth >= top)
            say(f"samples said to be of {dataset.BitsStored} bits are of {bits}")
    for samples, colours in decode():
        samples = stretch(samples, (0, 2**bits - 1))
        ycbcr = colours.startswith("YBR")
        if known is None:
            known = find_reading(samples, ycbcr, planes)
            if known not in (None, (False, ycbcr), (False, said.startswith("YBR"))):
                text = ", in the other Planar Configuration" * known[0]
                say(f"its header says {said}, its pixels are {COLOURS[known[1]]}{text}")
        other, ycbcr = known or (False, ycbcr)
        samples = np.ascontiguousarray(arrange(samples, planes) if other else samples)
        # luma is the grey that is made of RGB, too
        yield samples[..., 0].copy() if ycbcr else cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)


def palette_greys(dataset, say: Say) -> np.ndarray:
    """Return the grey, uint8, of each number of a palette.

    A palette whose largest entry is below 256 is one of 8 bits, however it is stored.
    """
    from pydicom.pixels import apply_color_lut

    if dataset.get("PixelRepresentation") or dataset.BitsStored > 16:
        raise ValueError("the numbers of its palette are signed, or of more than 16 bits")
    numbers = np.arange(2**dataset.BitsStored, dtype=np.uint32)
    table = apply_color_lut(numbers, dataset)[..., :3]
    said = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    top = int(table.max()).bit_length()
    bits = max(8, top if top <= 8 else said if top <= said else 16)
    if bits != said:
        say(f"its palette is said to be of {said} bits, and is of {bits}")
    table = (table >> (bits - 8)).astype(np.uint8)
    return cv2.cvtColor(table[np.newaxis], cv2.COLOR_RGB2GRAY)[0]


def has_values(dataset, *names: str) -> bool:
    """Tell whether a dataset has all these attributes, none of them empty."""
    return all(dataset.get(name) not in (None, "") for name in names)


def show(frame: np.ndarray, dataset, window: bool) -> np.ndarray:
    """Return the values that a frame of greys is shown by: rescaled, through its window."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing

    rescaled = has_values(dataset, "RescaleSlope", "RescaleIntercept")
    if rescaled or dataset.get("ModalityLUTSequence"):
        frame = apply_modality_lut(frame, dataset)
    if window:
        return apply_windowing(frame, dataset)
    return apply_voi_lut(frame, dataset) if dataset.get("VOILUTSequence") else frame


def find_window(dataset, frame: np.ndarray) -> tuple[float, float] | None:
    """Return what is black and what white in the window of a file, None where it has none.

    Raises:
        ValueError: it hides what `frame`, one of the file as decoded, shows.
    """
    from pydicom.pixels import apply_windowing

    if not has_values(dataset, "WindowCenter", "WindowWidth"):
        return None
    # its range is of stored values: rescaled, turned
    infinite = np.array([-np.inf, np.inf])
    with np.errstate(over="ignore"):
        ends = tuple(apply_windowing(infinite, dataset).tolist())
    if not np.isfinite(ends).all():
        raise ValueError("it is none")
    shown = np.unique(stretch(show(frame, dataset, True), ends))
    if len(shown) * FADED < min(256, len(np.unique(frame))):
        raise ValueError("it shows nothing of the pixels")
    return ends


def find_values(dataset, frame: np.ndarray, say: Say) -> Callable:
    """Return what makes the values of greys of a frame as decoded, such as `frame`.

    Neighbours are alike; signs that are none, or bytes in the other order, part them.
    """

    def unsigned(values):
        return values.astype(f"u{values.itemsize}") & (2**dataset.BitsStored - 1)

    def roughness(values):
        return np.abs(np.diff(values.astype(np.float64))).sum()

    if frame.dtype.kind == "i" and roughness(unsigned(frame)) < roughness(frame):
        say("its header says that its pixels are signed; they are not")
        dataset.PixelRepresentation = 0
        return unsigned
    swapped = frame.byteswap()
    if roughness(swapped) * frame.std() < UNLIKE * roughness(frame) * swapped.std():
        say("its pixels are in the other byte order than its header says")
        return np.ndarray.byteswap
    return np.asarray


def shown_greys(dataset, decode: Decode, say: Say) -> Iterator[np.ndarray]:
    """Yield frames of greys, uint8 `(height, width)`, as they are to be shown."""
    first, photometric = next(decode())
    values, window = find_values(dataset, first, say), None
    first, inverted = values(first), photometric == "MONOCHROME1"
    try:
        window = find_window(dataset, first)
    except (TypeError, ValueError) as error:
        say(f"shown without its window ({error})")
    ends = window or (0, 255)
    deep = first.dtype != np.uint8 or dataset.get("VOILUTSequence")
    if window is None and deep:
        ends = find_ends(show(values(frame), dataset, False) for frame, _ in decode())

    def shown(frame):
        if window or deep:
            frame = show(frame, dataset, bool(window))
        return stretch(frame, ends)

    if inverted and np.median(shown(first)) < 128:
        say("its header says MONOCHROME1, by which it is mostly white")
    for frame, _ in decode():
        frame = shown(values(frame))
        yield 255 - frame if inverted else frame


def to_grey(dataset, decode: Decode, say: Say) -> Iterator[np.ndarray]:
    """Yield the frames of a file as uint8 grey arrays `(height, width)`."""
    if dataset.PhotometricInterpretation in COLOURS:
        yield from colours_to_grey(dataset, decode, say)
    elif dataset.PhotometricInterpretation == PALETTE:
        table = palette_greys(dataset, say)
        yield from (table[frame] for frame, _ in decode())
    else:
        yield from shown_greys(dataset, decode, say)
