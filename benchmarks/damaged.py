"""What damaged files and odd text pass unnoticed.

    python benchmarks/damaged.py --inputs 3000 --flips 2000 --cases 1000000

Frames cut, zeroed, with flipped bits; masks beside their row of train_masks.csv; outlines
of labelme, CVAT and COCO, with changed numbers, too; DICOM files and videos; run-length
cases and tables of random text. Prints a table of trials and failures, appends them to
results.jsonl, and ends with status 1 where anything failed.
"""

import base64
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import cv2
import measure
import numpy as np
from PIL import Image
from pydicom import uid

sys.path.insert(0, str(measure.ROOT))
sys.path.insert(0, str(measure.ROOT / "tests"))

import clips

from nerve import command
from nerve.files import run_length
from nerve.frames import challenge, own_frames, sources
from nerve.frames.pairs import find_pairs
from nerve.frames.pictures import read_mask

SLOW = 10  # seconds that no file may take


def damaged(content, rng, kind):
    """Return a damaged copy of a file's bytes."""
    if kind == "cut":
        step = min(1024, len(content) // 100)  # of every kilobyte, if there are many
        return content[: step * rng.randrange(len(content) // step)]
    data = bytearray(content)
    if kind == "digit":  # of a coordinate, a count or a length
        places = [k for k, byte in enumerate(data) if chr(byte).isdecimal()]
        data[rng.choice(places)] = ord(rng.choice("0123456789-.e"))
    if kind == "number":  # of a header: a count, a size, a length, an offset
        place, bytes_of_it = rng.randrange(min(1600, len(data))), rng.choice((1, 2, 4))
        data[place : place + bytes_of_it] = (
            rng.choice(b"\0\1\x7f\xff").to_bytes() * bytes_of_it
        )
    if kind == "flip":
        place = rng.randrange(8 * len(data))
        data[place // 8] ^= 1 << place % 8
    elif kind == "zeros":
        place = rng.randrange(len(data))
        data[place : place + 512] = bytes(len(data[place : place + 512]))
    elif kind == "head":
        place = rng.randrange(min(256, len(data)))
        data[place] = rng.randrange(256)
    elif kind == "tail":  # where libtiff and Pillow put the directory
        place = len(data) - 1 - rng.randrange(min(256, len(data)))
        data[place] = rng.randrange(256)
    return bytes(data)


def read_damaged(path, read, kinds, trials, rng):
    """Read damaged copies of a file; return `(trials, silent, failures)`.

    Args:
        path: The file; it is overwritten.
        read: It to an array, or a ValueError of one line that names it.
        kinds: As of `damaged`.

    Silent is a file that was read as another array than it was; a cut one never may be.
    """
    failures, silent, content = [], {}, path.read_bytes()
    truth = read(path)
    for trial in range(trials):
        kind = kinds[trial % len(kinds)]
        path.write_bytes(damaged(content, rng, kind))
        begun = time.monotonic()
        try:
            found = read(path)
        except ValueError as error:
            if path.name not in str(error) or "\n" in str(error):
                failures.append(f"{kind}: {error}")
        except BaseException as error:  # what no caller expects
            failures.append(f"{kind}: {type(error).__name__}: {error}")
        else:
            silent[kind] = silent.get(kind, 0) + (not np.array_equal(found, truth))
        if time.monotonic() - begun > SLOW:
            failures.append(f"{kind}: more than {SLOW} s")
    if silent.get("cut"):
        failures.append(f"{silent['cut']} cut files were read as others")
    return trials, silent, failures


def read_damaged_frames(folder, trials, rng):
    """Read damaged frames of the challenge; as `read_damaged`."""
    path = folder / "1_1.tif"
    Image.fromarray(noise_frame(rng)).save(path, compression="tiff_lzw")
    kinds = ("cut", "flip", "zeros", "head", "tail")
    return read_damaged(
        path, lambda p: challenge.read_tiff(p, (420, 580)), kinds, trials, rng
    )


OUTLINE = [[5, 5], [35, 6], [30, 30], [8, 28]]  # columns and rows, of frames of 48 x 64


def outline_files():
    """Return `{name: text}` of files that outline the frames a and b in each format."""
    flat = [value for point in OUTLINE for value in point]
    points = ";".join(f"{x}.50,{y}.25" for x, y in OUTLINE)
    size = 'width="64" height="48"'
    brush = '<mask label="nerve" rle="3, 5, 4, 8" left="7" top="9" width="5" height="4"/>'
    polygon = f'<polygon label="nerve" points="{points}"/>'
    images = "".join(f'<image name="{n}.png" {size}>{{}}</image>' for n in "ab")
    png = io.BytesIO()
    Image.fromarray(np.eye(20) > 0).save(png, "PNG")
    shape = {"label": "nerve", "points": OUTLINE, "shape_type": "polygon"}
    bits = {"points": [[5, 5], [24, 24]], "mask": base64.b64encode(png.getvalue()).decode()}
    frame = {"height": 48, "width": 64}
    evidence = {"bbox": [5, 5, 30, 25], "area": 612.5}
    return {
        "cvat.xml": f"<annotations>{images.format(polygon, polygon)}</annotations>",
        "brush.xml": f"<annotations>{images.format(brush, brush)}</annotations>",
        "a.json": labelme([shape]),
        "b.json": labelme([shape | bits | {"shape_type": "mask"}]),
        "coco.json": json.dumps(
            {
                "images": [
                    frame | {"id": k, "file_name": f"{'ab'[k]}.png"} for k in (0, 1)
                ],
                "categories": [{"id": 3, "name": "nerve"}],
                "annotations": [
                    evidence | {"image_id": k, "category_id": 3, "segmentation": [flat]}
                    for k in (0, 1)
                ],
            }
        ),
    }


def labelme(shapes):
    """Return the text of a file of labelme."""
    return json.dumps({"shapes": shapes, "imageHeight": 48, "imageWidth": 64})


def read_damaged_outlines(folder, trials, rng):
    """Read damaged outlines of each format; return `{name: as of read_damaged}`."""
    frames, found = folder / "outlined", {}
    frames.mkdir()
    for name in "ab":
        Image.fromarray(noise_frame(rng)[:48, :64]).save(frames / f"{name}.png")

    def read(path):
        if path.stem in "ab":  # of labelme: one file a frame
            pairs = [(frames / f"{path.stem}.png", [path])]
        else:
            with contextlib.redirect_stdout(io.StringIO()) as said:
                pairs = find_pairs(frames, path)
            if "contradict" in said.getvalue():
                raise ValueError(f"{path.name} contradicts itself")
        return np.array([own_frames.read_pair(pair, None)[1].mask for pair in pairs])

    for name, text in outline_files().items():
        path = folder / name
        path.write_text(text)
        kinds = ("cut", "flip", "zeros", "digit")
        found[f"damaged {name}"] = read_damaged(path, read, kinds, trials, rng)
    path, kinds = folder / "mask.png", ("cut", "flip", "zeros", "head", "tail")
    Image.fromarray(np.tri(48, 64) > 0).save(path)
    found["damaged mask.png"] = read_damaged(
        path, lambda p: read_mask(p, None)[0], kinds, trials, rng
    )
    return found


def write_clips(folder):
    """Write frames as the DICOM files and videos that people have; return their paths."""
    frames = np.stack([cv2.GaussianBlur(f, (0, 0), 1) for f in clips.sweep()[0]])
    rgb = np.repeat(frames[..., np.newaxis], 3, axis=-1)
    colours = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    for suffix, code in (
        ("avi", "MJPG"),
        ("mp4", "mp4v"),
        ("mkv", "mp4v"),
        ("flv", "FLV1"),
    ):
        clips.write_video(folder / f"a.{suffix}", frames, code)
    clips.write_dicom(folder / "grey.dcm", frames)
    window = {"WindowCenter": 9000, "WindowWidth": 18000, "RescaleSlope": 1}
    window |= {"RescaleIntercept": 5, "PixelSpacing": [0.1, 0.1]}
    clips.write_dicom(folder / "deep.dcm", frames.astype(np.uint16) * 80, **window)
    said = colours | {"PhotometricInterpretation": "RGB"}
    clips.write_dicom(folder / "rgb.dcm", rgb, **said)
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.DeflatedExplicitVRLittleEndian):
        path = folder / f"{syntax.keyword}.dcm"
        dataset = clips.write_dicom(path, frames)
        if syntax.is_encapsulated:
            dataset.compress(syntax)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path, enforce_file_format=True)
    for kind, syntax in (
        ("JPEG", uid.JPEGBaseline8Bit),
        ("JPEG2000", uid.JPEG2000Lossless),
    ):
        parts = [clips.encode(frame, kind) for frame in frames]
        clips.write_compressed(folder / f"{kind}.dcm", parts, frames, syntax)
    parts = [(folder / "a.mp4").read_bytes()]
    said = colours | {"PhotometricInterpretation": "YBR_PARTIAL_420"}
    clips.write_compressed(folder / "video.dcm", parts, frames, uid.MPEG4HP41, **said)
    return sorted(folder.iterdir())


def read_clip(path):
    """Return the frames of a clip; a ValueError, too, where a note says what is wrong."""
    source = sources.open_source(path)
    frames = np.stack(list(source.frames))
    if source.notes:
        raise ValueError(source.notes[0])
    return frames


def read_damaged_clips(folder, trials, rng):
    """Read damaged DICOM files and videos; return `{name: as of read_damaged}`."""
    (folder / "clips").mkdir()
    kinds = ("cut", "flip", "zeros", "head", "number")
    return {
        f"damaged {path.name}": read_damaged(path, read_clip, kinds, trials, rng)
        for path in write_clips(folder / "clips")
    }


@contextlib.contextmanager
def quiet():
    """Drop what libtiff says of damaged files on stderr."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    yield
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nothing)


def noise_frame(rng):
    """Return a frame of phantom-like grey, uint8 `(420, 580)`."""
    grey = np.random.default_rng(rng.randrange(1 << 30)).rayleigh(30, (420, 580))
    return grey.clip(0, 255).astype(np.uint8)


def flip_bits(folder, trials, rng):
    """Flip one bit of a frame or a mask; return counts of what noticed it."""
    counts = dict.fromkeys(("masks", "masks missed", "frames", "frames undetected"), 0)
    mask = np.zeros((420, 580), np.uint8)
    mask[100:190, 200:290] = 255
    pixels = run_length.encode(mask > 0)
    for trial in range(trials):
        frame = trial % 2 == 0
        truth = noise_frame(rng) if frame else mask
        path = folder / ("1_1.tif" if frame else "1_1_mask.tif")
        Image.fromarray(truth).save(path, compression="tiff_lzw")
        content = path.read_bytes()
        path.write_bytes(damaged(content, rng, "flip"))
        changed = caught = True
        try:
            found = challenge.read_tiff(path, (420, 580))
            changed = not np.array_equal(found, truth)
            if not frame:
                challenge.check_mask(found, path, pixels)
            caught = False
        except ValueError:
            pass
        kind = "frames" if frame else "masks"
        counts[kind] += 1
        if changed and not caught:
            counts["frames undetected" if frame else "masks missed"] += 1
    return counts


def fuzz_run_lengths(cases, rng):
    """Encode and decode random masks, and parse random text; return the failures."""
    failures, draw = [], np.random.default_rng(rng.randrange(1 << 30))
    words = [
        "1",
        "2",
        "0",
        "-1",
        "9",
        "99999999999999999999",
        "x",
        "1.5",
        "",
        "٣",
        "1e3",
    ]
    for case in range(cases):
        if case % 2:
            height, width = draw.integers(1, 9, 2)
            mask = (draw.random((height, width)) < draw.random()).astype(np.uint8)
            if not np.array_equal(
                run_length.decode(run_length.encode(mask), height, width), mask
            ):
                failures.append(f"{mask.tolist()} does not come back")
        else:
            text = " ".join(rng.choices(words, k=rng.randrange(7)))
            try:
                runs = run_length.parse(text, 16)
                run_length.run_pixels(runs)
            except ValueError:
                continue
            except BaseException as error:
                failures.append(f"{text!r}: {type(error).__name__}: {error}")
    return failures


def fuzz_tables(folder, cases, rng):
    """Read tables of random text as train_masks.csv; return the failures.

    A table is read, or refused with a line that names the file.
    """
    path, failures = folder / "train_masks.csv", []
    words = [
        "subject,img,pixels",
        "1,1,1 1",
        "1,2,",
        "1,1,1 1",
        ",,",
        "a,b,c",
        '"',
        "\0",
    ]
    words += [
        "2,1,1 99999999",
        "2,2,5 1 3 1",
        "-1,1,1 1",
        "\ud800",
        "1" * 5000,
        "é",
        ";",
    ]
    for _ in range(cases):
        lines = rng.choices(words, k=rng.randrange(8))
        if rng.random() < 0.7:
            lines.insert(0, words[0])
        ends = rng.choice(["\n", "\r\n", "\r", ""])
        path.write_bytes(ends.join(lines).encode("utf-8", "surrogatepass"))
        try:
            run_length.read_train_masks(path)
        except ValueError as error:
            if path.name not in str(error) or "\n" in str(error):
                failures.append(f"{lines}: {error}")
        except BaseException as error:
            failures.append(f"{lines}: {type(error).__name__}: {error}")
    return failures


def parse_args(argv=None):
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add(
        "--inputs",
        type=int,
        default=3000,
        help="damaged frames, and outlines and clips a format",
    )
    add("--flips", type=int, default=2000, help="flipped bits")
    add("--cases", type=int, default=1_000_000, help="of run-length encoding")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder, tables = Path(folder), args.cases // 100
        with quiet():
            trials, silent, failures = read_damaged_frames(folder, args.inputs, rng)
            others = read_damaged_outlines(folder, args.inputs, rng)
            others |= read_damaged_clips(folder, args.inputs, rng)
            counts = flip_bits(folder, args.flips, rng)
        parts = {
            "damaged frames": (trials, failures),
            "flipped bits": (args.flips, ["missed"] * counts["masks missed"]),
            "run-length cases": (args.cases, fuzz_run_lengths(args.cases, rng)),
            "tables": (tables, fuzz_tables(folder, tables, rng)),
            **{name: (trials, failed) for name, (trials, _, failed) in others.items()},
        }
    print(f"{'what':24}{'trials':>9}{'failures':>9}")
    for name, (trials, failures) in parts.items():
        print(f"{name:24}{trials:>9}{len(failures):>9}")
        for text in failures[:20]:
            print(f"failed: {name}: {text}", file=sys.stderr)
    print(f"frames read with other pixels: {silent}")
    print(f"flipped bits: {counts}")
    other = {name: silent for name, (_, silent, _) in others.items()}
    print(f"outlines and clips read as others: {other}")
    table = {n: {"trials": t, "failures": len(f)} for n, (t, f) in parts.items()}
    results = {"table": table, "flipped_bits": counts, "other_pixels": silent}
    results["read_as_others"] = other
    measure.keep("damaged", {"inputs": args.inputs, "seed": args.seed}, results)
    return 1 if any(failures for _, failures in parts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
