"""Frames of DICOM files: stills, cine loops, videos in them.

What can be seen in the pixels is not taken from the header: how many frames there are,
their colours and depth (dicom_greys.py). Where the two contradict each other, the pixels
are believed and a note says so, or the file is refused.

DICOM needs pydicom and highdicom: pip install -r requirements/dicom.txt
"""

import contextlib
import io
import itertools
import re
import struct
import tempfile
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from nerve.command import refusing
from nerve.frames import spacing
from nerve.frames.dicom_greys import COLOURS, GREYS, PALETTE, UNLIKE, to_grey
from nerve.frames.pictures import DAMAGED
from nerve.frames.videos import RATE, Clip, check_size, note_count, read_video

SUFFIXES = (".dcm", ".dicom", ".ima")
# without a preamble: an element of group 2 or 8, of a type in capitals or a short length
BARE = re.compile(rb"[\x02\x08]\0.\0([A-Z]{2}|.\0\0\0)|\0[\x02\x08]\0.[A-Z]{2}", re.DOTALL)
# classes of directories, presentations, segmentations, reports, documents, RT plans
NO_FRAMES = (
    rb"\x02\0\x02\0UI..1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.1\.1\.(11|66|88|104|481))\b"
)
VIDEO = "1.2.840.10008.1.2.4.10"  # how the syntaxes of MPEG and HEVC begin
PIXEL_DATA, ITEM = (0x7FE0, 0x0010), b"\xfe\xff\x00\xe0"
BOX, CODESTREAM = b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51"  # how JPEG 2000 begins
BEGINNINGS = (b"\xff\xd8\xff", CODESTREAM, BOX)  # the first is JPEG's
# where JPEG-LS says its height, width and samples a pixel; of others Pillow knows
JPEG_LS = re.compile(rb"\xff\xf7...(..)(..)(.)", re.DOTALL)
TWO = re.compile(rb"\xff\xd9\0?\xff\xd8")  # a JPEG after another
MAX_BYTES = 1 << 30  # of a deflated file
MOST_SEEN = 1 << 20  # bytes of pixels in which the length of rows is looked for


class Pixels(NamedTuple):
    """Where the pixels of a file lie, and how they are decoded."""

    content: Path | bytes  # the file, or what a deflated one holds
    syntax: str  # pydicom's UID of the transfer syntax
    start: int
    length: int | None  # bytes as stated; None where it is not, as of compressed frames
    there: int  # bytes from `start` to the end of the file
    options: dict  # of pydicom's decoders
    stated: int | None = None  # how many frames the header says there are, if a number
    count: int = 0  # how many there are

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yield the file, standing at its pixels."""
        whole = isinstance(self.content, bytes)
        with io.BytesIO(self.content) if whole else open(self.content, "rb") as file:
            file.seek(self.start)
            yield file


def has_frames(path: Path) -> bool | None:
    """Tell whether a file, whatever it is called, is DICOM of a class with frames.

    None where it is no DICOM file.
    """
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(1024)
        if head[128:132] == b"DICM" or BARE.match(head):
            return not re.search(NO_FRAMES, head, re.DOTALL)
    return None


def is_of(path: Path, suffixes: Collection[str]) -> bool:
    """Tell whether a file is DICOM with frames; of others whether its suffix is known."""
    frames = has_frames(path) if path.is_file() else None
    return path.suffix.lower() in (*suffixes, *SUFFIXES) if frames is None else frames


def read_header(path: Path):
    """Return `(dataset, Pixels)` of a DICOM file, the dataset without its pixels.

    Raises:
        ValueError: it is none with pixels, or pydicom is absent.
    """
    text = f"{path} is DICOM, which needs: pip install -r requirements/dicom.txt"
    with refusing(text, ImportError):
        import pydicom
    warnings.filterwarnings("ignore", module="pydicom")
    text = f"{path} is no DICOM file with pixels"
    with refusing(text, Exception), open(path, "rb") as file:  # pydicom may raise anything
        content = path
        if file.read(132)[128:] == b"DICM":
            meta = pydicom.filereader.read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
                # pydicom would take any amount of memory, and lose what a cut file has
                file.seek(144 + meta.FileMetaInformationGroupLength)
                inflate = zlib.decompressobj(-zlib.MAX_WBITS)
                content = inflate.decompress(file.read(), MAX_BYTES)
        source = io.BytesIO(content) if isinstance(content, bytes) else file
        source.seek(0)
        dataset = pydicom.dcmread(source, stop_before_pixels=True, force=True)
        implicit, little = dataset.original_encoding
        plain = ("ExplicitVRBigEndian", "ExplicitVRLittleEndian")[little]
        plain = getattr(pydicom.uid, "ImplicitVRLittleEndian" if implicit else plain)
        syntax = dataset.file_meta.get("TransferSyntaxUID", plain)
        if not syntax.is_transfer_syntax:
            raise ValueError(f"its transfer syntax, {syntax}, is not known")
        pixels = find_pixels(source, content, syntax)
        with contextlib.suppress(Exception):  # as pydicom may raise of damaged values
            stated = max(1, int(dataset.get("NumberOfFrames", 1)))
            pixels = pixels._replace(stated=stated)
        return dataset, pixels


def find_pixels(file: BinaryIO, content: Path | bytes, syntax) -> Pixels:
    """Return the Pixels of a file that stands at their element.

    Raises:
        ValueError: it ends there, or they are no Pixel Data.
    """
    order, head = "<" if syntax.is_little_endian else ">", file.read(12)
    if len(head) < 12 or struct.unpack(f"{order}HH", head[:4]) != PIXEL_DATA:
        raise ValueError("it lacks the Pixel Data, or is cut before them")
    explicit = head[4:6] in (b"OB", b"OW", b"UN")  # whatever the syntax says
    options = {"pixel_keyword": "PixelData"}
    if explicit:
        options["pixel_vr"] = head[4:6].decode()
    start = file.tell() - (0 if explicit else 4)
    (length,) = struct.unpack_from(f"{order}L", head, 8 if explicit else 4)
    there = file.seek(0, io.SEEK_END) - start
    length = None if length == 2**32 - 1 else length
    return Pixels(content, syntax, start, length, there, options)


def list_frames(pixels: Pixels, file: BinaryIO) -> Iterator[list[tuple[int, int]]]:
    """Yield where each compressed frame lies: `[(start, bytes)]` of its fragments.

    A frame begins with the fragment that begins a JPEG; each fragment of RLE is one.
    Neither the count nor the tables of offsets are asked, which are often wrong.

    Source: https://dicom.nema.org/medical/dicom/current/output/html/part05.html#sect_A.4
    """
    place, frame = pixels.start, []
    single = pixels.syntax.name.startswith("RLE")
    for number in itertools.count():
        file.seek(place)
        head = file.read(14)
        if len(head) < 8 or head[:4] != ITEM:  # the end, or damage
            break
        (length,) = struct.unpack_from("<L", head, 4)
        if frame and (single or head[8:].startswith(BEGINNINGS)):
            yield frame
            frame = []
        if number and length:  # the first item is a table of offsets
            frame.append((place + 8, min(length, pixels.there)))
        place += 8 + length
    if frame:
        yield frame


def read_parts(file: BinaryIO, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the fragments of a compressed frame, of places as `list_frames` gives them."""
    for start, length in places:
        file.seek(start)
        yield file.read(length)


def rows_differ(values: np.ndarray, row: int, others: Iterable[int], share: float) -> bool:
    """Tell whether rows of pixels are of another length than a header says.

    Rows side by side are alike: a picture is more like itself at the distance of a row, or
    of a few, than at any other.

    Args:
        values: Of pixels one after the other, or their bytes.
        row: How many are a row as stated; `others` may be right instead.
        share: Of the difference at the stated distance, below which another is right.
    """
    values = values.astype(np.int64)
    lengths = [row, *(n for n in others if n not in (0, row))]
    if max(lengths) >= len(values):
        return False
    apart, *others = (np.abs(values[n:] - values[:-n]).mean() for n in lengths)
    return min(others, default=apart) < share * apart


def count_native(dataset, pixels: Pixels) -> Pixels:
    """Return Pixels that are not compressed with the number of frames that their bytes are.

    Raises:
        ValueError: they are not the bytes of whole frames as the header describes them.
    """
    if pixels.length is None:
        raise ValueError("its pixels are compressed, its header says they are not")
    row = dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    size, there = dataset.Rows * row, min(pixels.length, pixels.there)
    stated = pixels.stated or 1
    with pixels.open() as file:
        content = file.read(min(there, MOST_SEEN))
        seen = np.frombuffer(content, np.uint8)
        if dataset.PhotometricInterpretation == "YBR_FULL_422":
            packed = row * 2 // 3  # of two bytes a pixel; else it has three
            three = there - size * stated in (0, 1)
            if not three or rows_differ(seen, row, [packed], UNLIKE):
                row, size = packed, dataset.Rows * packed
            else:
                pixels.options["photometric_interpretation"] = "YBR_FULL"
        count, rest = divmod(there, size)
        file.seek(pixels.start + count * size)
        left = file.read(rest)
    text = f"its header says {stated} x {size} bytes of pixels, and it holds {there}: "
    if not count:
        raise ValueError(f"{text}it is cut, or its header is wrong")
    order, item = "<>"[not pixels.syntax.is_little_endian], dataset.BitsAllocated // 8
    samples = np.frombuffer(content[: len(content) // item * item], f"{order}u{item}")
    exchanged = row * dataset.Rows // dataset.Columns // item
    if rows_differ(samples, row // item, [exchanged], UNLIKE):
        raise ValueError("its header has Rows and Columns exchanged")
    if pixels.length <= pixels.there and (count != stated or rest > 1):  # not of a cut
        others = [there // (stated * dataset.Rows)]
        if count != stated:  # or are samples or bits wrong?
            others += [2 * row, 3 * row, row // 2, row // 3]
        wrong = rows_differ(seen, row, others, 1 if count == stated else UNLIKE)
        if wrong or (rest > 1 and any(left)) or (rest >= row and count > 1):  # no padding
            raise ValueError(f"{text}Rows, Columns, samples or bits are wrong")
    return pixels._replace(count=count)


def plan(dataset, pixels: Pixels) -> Pixels:
    """Return Pixels with how they are decoded, and the number of frames that are there.

    Raises:
        ValueError: the header cannot be that of the pixels, or is of no kind read here.
    """
    from pydicom.pixels.utils import as_pixel_options

    said = str(dataset.PhotometricInterpretation)
    if said not in (*GREYS, PALETTE, *COLOURS):
        raise ValueError(f"its Photometric Interpretation, {said}, is not read here")
    if dataset.SamplesPerPixel != (3 if said in COLOURS else 1):
        raise ValueError(f"it is {said}, of {dataset.SamplesPerPixel} samples a pixel")
    if dataset.BitsAllocated not in (8, 16, 32):
        raise ValueError(f"it has {dataset.BitsAllocated} bits a sample")
    dataset.NumberOfFrames = 1  # pydicom is not to stumble over another
    options = as_pixel_options(dataset)
    if said in COLOURS or options.get("pixel_representation") is None:
        options["pixel_representation"] = 0  # of greys alone it may be another
    overlays = any(dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    if not options["pixel_representation"] and not overlays:
        options["correct_unused_bits"] = False  # `check_depth` looks at them
    pixels = pixels._replace(options=options | pixels.options)
    if not pixels.syntax.is_encapsulated:
        return count_native(dataset, pixels)
    # as decoders give colours, whatever the header says; that of RLE sets its own
    pixels.options["planar_configuration"], dataset.PlanarConfiguration = 0, None
    with pixels.open() as file:
        if file.read(4) != ITEM:
            raise ValueError("its pixels are not compressed, its header says they are")
        count = sum(1 for _ in list_frames(pixels, file))
    if not count:
        raise ValueError("it holds no frame, or is cut before the first")
    return pixels._replace(count=count)


def check_picture(content: bytes, dataset) -> str | None:
    """Hold a JPEG of any kind against its header; return its colours where it says them.

    Raises:
        ValueError: it is of another size, or of another number of samples a pixel.
    """
    image, found = None, None
    if match := JPEG_LS.search(content[:4096]):
        found = tuple(map(int.from_bytes, match.groups()))
    else:
        with contextlib.suppress(*DAMAGED):  # which pydicom's decoders refuse
            image = Image.open(io.BytesIO(content), formats=("JPEG", "JPEG2000"))
            found = image.height, image.width, len(image.getbands())
    said = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    if found not in (None, said):
        found, said = ("{} x {} of {} samples".format(*each) for each in (found, said))
        raise ValueError(f"its header says {said} a pixel, its pictures are {found}")
    if image and image.mode != "L" and image.format == "JPEG":
        if "adobe_transform" in image.info:
            return "RGB"  # which Pillow makes of them
        if image.layer[0][1:3] != image.layer[1][1:3]:
            return "YBR_FULL"  # chroma alone is stored with fewer pixels
    return None


def check_depth(frame: np.ndarray, bits: int) -> None:
    """Refuse a frame that has higher values than its header allows."""
    if frame.dtype.kind == "u" and bits < 8 * frame.itemsize and frame.max() >> bits:
        raise ValueError(f"its pixels are of more bits than the {bits} of Bits Stored")


def decode(dataset, pixels: Pixels) -> Iterator[tuple[np.ndarray, str]]:
    """Yield `(frame, colours)` of a file, as pydicom decodes it.

    Frames are `(height, width)` or `(height, width, 3)`, of integers; colours are one of
    COLOURS, or what the header says of greys and palettes.
    """
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGBaseline8Bit

    decoder, options = get_decoder(pixels.syntax), pixels.options | {"raw": True}
    plain = pixels.syntax == JPEGBaseline8Bit
    if plain:  # by what is always installed: decoders differ in the colours they give
        options["decoding_plugin"] = "pillow"
    with pixels.open() as file:
        if not pixels.syntax.is_encapsulated:
            options["number_of_frames"] = pixels.count
            for index in range(pixels.count):  # one by one: pydicom 3.0 loses 4:2:2's place
                frame, found = decoder.as_array(file, index=index, **options)
                check_depth(frame, dataset.BitsStored)
                yield frame, found["photometric_interpretation"]
            return
        for places in list_frames(pixels, file):
            content = b"".join(read_parts(file, places))
            if sum(places[-1]) > pixels.start + pixels.there:
                raise ValueError("the file is cut")
            if TWO.search(content):
                raise ValueError("a fragment holds several pictures")
            if content.startswith(BOX):  # in which pydicom 3.0 may search without end
                content = content[content.find(CODESTREAM) :]
            said = check_picture(content, dataset)
            frame, found = decoder.as_array(encapsulate([content]), **options)
            check_depth(frame, dataset.BitsStored)
            yield frame, (plain and said) or found["photometric_interpretation"]


def find_rate(dataset) -> float | None:
    """Return frames/s of a dataset, or None where it does not say."""
    with contextlib.suppress(Exception):  # as pydicom may raise of damaged values
        rate = dataset.get("CineRate") or dataset.get("RecommendedDisplayFrameRate")
        times = [dataset.get("FrameTime")]  # in milliseconds
        if not times[0]:
            times = dataset.get("FrameTimeVector", [0])[1:]  # the first is 0
        rate = rate or 1000 * len(times) / sum(times)
        return float(rate) if 0 < rate < 1000 else None
    return None


def explain(error: Exception, pixels: Pixels) -> str:
    """Return what hinders the decoding of a file, in a line, or what to install for it."""
    from pydicom.pixels import get_decoder

    text = " ".join(str(error).split()) or type(error).__name__
    with contextlib.suppress(NotImplementedError):
        decoder = get_decoder(pixels.syntax)
        needed = re.findall(r"pylibjpeg-\w+", " ".join(decoder.missing_dependencies))
        if needed and (not decoder.is_available or "does not support" in text):
            return f"{pixels.syntax.name} needs: pip install pylibjpeg {needed[-1]}"
    return f"{text:.200}"


def open_video(dataset, pixels: Pixels, path: Path) -> Clip:
    """Return the frames of a video within a DICOM file."""
    with pixels.open() as file:
        places = itertools.chain.from_iterable(list_frames(pixels, file))
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        copy.writelines(read_parts(file, places))
    copy.seek(0)
    clip = read_video(copy, path, pixels.stated, (dataset.Rows, dataset.Columns))
    rate = find_rate(dataset)
    return clip._replace(rate=rate, times=()) if rate else clip


def open_dicom(path: Path) -> Clip:
    """Return the frames of a DICOM file.

    Raises:
        ValueError: it has none, or its header cannot be that of its pixels.
    """
    dataset, pixels = read_header(path)
    text = f"{path} cannot be decoded"
    with refusing(text, Exception):  # of damaged headers pydicom may raise anything
        regions, notes = spacing.read_regions(dataset)
        notes = [f"{path}: {note}" for note in notes]
        if pixels.syntax.startswith(VIDEO):
            clip = open_video(dataset, pixels, path)
            clip.notes.extend(notes)
            return clip._replace(regions=regions)
        check_size(dataset.Rows, dataset.Columns, path)
        pixels = plan(dataset, pixels)

    def say(text):
        notes.append(f"{path}: {text}")

    def frames():
        number = 0
        try:
            for frame in to_grey(dataset, lambda: decode(dataset, pixels), say):
                number += 1
                yield frame
        except Exception as error:  # decoders of others may raise anything
            cause = explain(error, pixels)
            if not number:
                raise ValueError(f"{text} ({cause})") from error
            say(f"frame {number + 1} cannot be decoded ({cause})")
        notes.extend(note_count(path, pixels.stated, number))

    return Clip(frames(), pixels.count, find_rate(dataset) or RATE, notes, (), regions)
