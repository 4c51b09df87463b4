"""Read the challenge's raw TIFFs, check every one, and write them as three arrays.

    python extract_data.py --raw raw --data data
    python extract_data.py --images frames --masks masks --data data

Reads   raw/train/S_I.tif, raw/train/S_I_mask.tif, raw/test/N.tif, and to check them,
        where present, raw/train_masks.csv and raw/SHA256SUMS; or frames of your own
        with a mask each (own_frames.py)
Writes  data/imgs_train.npy, data/imgs_mask_train.npy, data/imgs_test.npy,
        data/extract.json
"""

import argparse
import collections
import functools
import hashlib
import io
import re
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import TiffImagePlugin
from tqdm import tqdm

import own_frames
import pictures
import run_length
import stage

NAMES = {
    "train": re.compile(r"([1-9]\d{0,8})_([1-9]\d{0,8})(?:_mask)?\.tif", re.ASCII),
    "test": re.compile(r"([1-9]\d{0,8})\.tif", re.ASCII),
}
EXAMPLES = {"train": "12_7.tif and 12_7_mask.tif", "test": "12.tif"}
ARRAYS = {
    "train": ("imgs_train.npy", "imgs_mask_train.npy"),
    "test": ("imgs_test.npy",),
}
MANIFEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")
MAX_PIXELS = 1 << 26  # of one frame; a header that claims more is broken or an attack
DAMAGED = (OSError, SyntaxError, KeyError, TypeError, ValueError, MemoryError)
ORIENTATION = 274  # TIFF tag; 1 is upright
PROBES = 9  # frames looked at to find the size that most have


class GreyTiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF, which after decoding does not read the directory twice more.

    It would look for camera tags there, which takes as long as a third of the decoding.
    """

    def load_end(self):
        """Do nothing; `read_tiff` refuses the one tag that would change the pixels."""


def list_folder(folder):
    """Return the names of a folder's frames; files of another kind are refused.

    Hidden files (`.DS_Store`) are passed over.

    Raises:
        ValueError: a name of another form, a folder, or a link out of `folder`.
    """
    names = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if not NAMES[folder.name].fullmatch(path.name):
            raise ValueError(
                f"{folder} holds {path.name!r}; expected only names such as "
                f"{EXAMPLES[folder.name]}"
            )
        if path.is_symlink() and folder.resolve() not in path.resolve().parents:
            raise ValueError(
                f"{path} is a link out of {folder}; put the file itself there"
            )
        if not path.is_file():
            raise ValueError(f"{path} is not a file")
        names.append(path.name)
    return names


def list_frames(folder, table, digests):
    """Return the sorted numbers of the frames that a folder holds or should hold.

    Args:
        folder: `raw/train` or `raw/test`.
        table: `{(subject, image): pixels}` of `train_masks.csv`, or None.
        digests: `{relative path: SHA-256}` of the manifest, or None.

    Returns:
        Sorted list of `(subject, image)`, or of `(image,)`.
    """
    names = list_folder(folder)
    prefix = f"{folder.name}/"
    names += [name.removeprefix(prefix) for name in digests or () if prefix in name]
    matches = filter(None, map(NAMES[folder.name].fullmatch, names))
    frames = {tuple(map(int, match.groups())) for match in matches}
    frames.update(table or ())
    if not frames:
        raise ValueError(f"{folder} holds no frames; unpack the challenge's data there")
    return sorted(frames)


def read_manifest(path):
    """Return `{relative path: SHA-256}` of a file as `sha256sum` writes it."""
    digests = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = MANIFEST_LINE.fullmatch(line)
        if not match:
            raise ValueError(
                f"{path} line {number}: {line[:40]!r}; expected '<SHA-256>  <path>'"
            )
        digests[match[2]] = match[1]
    return digests


def read_file(path, name, digests):
    """Return a file's bytes, checked against the manifest where it knows `name`.

    Args:
        path: The file.
        name: What the manifest calls it: its path below `raw`.
        digests: `{name: SHA-256}`, or None where there is no manifest.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; unpack the download again") from error
    if digests is not None:
        if name not in digests:
            raise ValueError(f"{path} is not in the manifest, which should list {name}")
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise ValueError(f"{path} differs from its SHA-256; download it again")
    return content


def read_tiff(path, size=None, digests=None):
    """Decode one grey TIFF with Pillow, which raises on damaged LZW data.

    Args:
        path: The file.
        size: Expected (height, width) in pixels; None takes any.
        digests: `{relative path: SHA-256}`, or None.

    Returns:
        uint8 array `(height, width)`, 0 to 255.

    Raises:
        ValueError: missing, damaged, not 8-bit grey, several pages, another size or hash.
    """
    content = read_file(path, f"{path.parent.name}/{path.name}", digests)
    if not content:
        raise ValueError(f"{path} is empty (0 bytes); download it again")
    try:
        image = GreyTiff(io.BytesIO(content))
        num_pages, turned = image.n_frames, image.tag_v2.get(ORIENTATION, 1)
    except DAMAGED as error:
        raise ValueError(f"{path} is not a whole TIFF (damaged header)") from error
    found = (image.height, image.width)
    if found[0] * found[1] > MAX_PIXELS:
        raise ValueError(f"{path} claims to be {found[0]} x {found[1]} pixels")
    if size is not None and found != size:
        raise ValueError(
            f"{path} is {found[0]} x {found[1]} pixels, other frames "
            f"{size[0]} x {size[1]}; all must be of one size"
        )
    if image.mode != "L":
        raise ValueError(
            f"{path} is of Pillow's mode {image.mode}; expected 8-bit grey (L)"
        )
    if turned != 1:
        raise ValueError(f"{path} is stored turned (TIFF orientation {turned})")
    if num_pages != 1:
        raise ValueError(f"{path} has {num_pages} pages; expected one")
    try:
        return np.asarray(image)
    except DAMAGED as error:
        raise ValueError(f"{path} is not a whole TIFF ({error})") from error


def check_mask(mask, path, pixels):
    """Refuse a mask with greys, or one that differs from its row of `train_masks.csv`.

    Args:
        mask: uint8 array `(height, width)`.
        path: Its file, for the error.
        pixels: Its run-length encoding, or None where there is no table.
    """
    area = np.count_nonzero(mask)
    if area != np.count_nonzero(mask == 255):
        values = ", ".join(map(str, np.unique(mask)[:8]))
        raise ValueError(
            f"{path} holds the values {values}; a mask holds only 0 and 255"
        )
    if pixels is None:
        return
    try:
        covered = run_length.run_pixels(run_length.parse(pixels, mask.size))
    except ValueError as error:
        raise ValueError(f"train_masks.csv, row of {path.name}: {error}") from error
    height = mask.shape[0]  # pixels are numbered down the columns
    if area != covered.size or not mask[covered % height, covered // height].all():
        raise ValueError(
            f"{path} ({area} pixels of nerve) differs from its row of train_masks.csv "
            f"({covered.size}); download both again"
        )


def read_pair(frame, folder, size, digests, table):
    """Return the checked `(image, mask)` of a frame (subject, image), each uint8."""
    subject, image = frame
    path = folder / f"{subject}_{image}_mask.tif"
    if table is not None and frame not in table:
        raise ValueError(f"train_masks.csv has no row for {subject},{image}")
    mask = read_tiff(path, size, digests)
    check_mask(mask, path, None if table is None else table[frame])
    return read_tiff(folder / f"{subject}_{image}.tif", size, digests), mask


def find_size(folder):
    """Return the (height, width) that most of a few evenly spaced frames have."""
    names = sorted(list_folder(folder))
    sizes, why = [], "it is empty"
    for name in names[:: len(names) // PROBES + 1]:
        try:
            sizes.append(read_tiff(folder / name).shape)
        except ValueError as error:
            why = error  # reported when its turn comes, or if there is no other
    if not sizes:
        raise ValueError(
            f"{folder} holds no readable TIFF ({why}); unpack the download again"
        )
    return max(sizes, key=sizes.count)


def attempt(function, item):
    """Return `function(item)`, or the error that it raised for a bad file."""
    try:
        return function(item)
    except (ValueError, OSError) as error:
        return error


def extract(frames, function, writers, skip_bad, label):
    """Append the arrays that `function` reads for each frame to the writers.

    Args:
        frames: Tuples of numbers, in the order of the rows.
        function: Frame to a tuple of arrays, one for each writer.
        writers: `stage.ArrayWriter`s.
        skip_bad: Leave bad frames out instead of raising.
        label: What the progress bar shows.

    Returns:
        `(kept, areas, skipped)`: the frames written, the number of nonzero pixels in the
        last array of each, and a record of each frame left out.
    """
    kept, areas, skipped = [], [], []
    results = stage.map_threads(functools.partial(attempt, function), frames)
    bar = tqdm(results, label, total=len(frames), unit=" frames", disable=None)
    for frame, arrays in zip(frames, bar, strict=True):
        if isinstance(arrays, Exception):
            if not skip_bad:
                raise ValueError(f"{arrays} (--skip-bad leaves such frames out)")
            skipped.append({"frame": "_".join(map(str, frame)), "why": str(arrays)})
            continue
        for writer, array in zip(writers, arrays, strict=True):
            writer.append(array)
        kept.append(frame)
        areas.append(int(np.count_nonzero(arrays[-1])))
    return kept, areas, skipped


def extract_folder(folder, data, size, digests, skip_bad):
    """Write the arrays of `raw/train` or `raw/test`.

    Returns:
        `(part, arrays)` of `extract.json`: numbers and counts; dtype, shape and hash.
    """
    table, csv_path = None, folder.parent / "train_masks.csv"
    if folder.name == "train" and (
        csv_path.exists() or csv_path.name in (digests or ())
    ):
        if digests and csv_path.name in digests:
            read_file(csv_path, csv_path.name, digests)
        table = run_length.read_train_masks(csv_path)

    def read(frame):
        if folder.name == "train":
            return read_pair(frame, folder, size, digests, table)
        return (read_tiff(folder / f"{frame[0]}.tif", size, digests),)

    frames = list_frames(folder, table, digests)
    names, shape = ARRAYS[folder.name], (len(frames), *size)
    writers = [stage.ArrayWriter(data / name, shape, np.uint8) for name in names]
    kept, areas, skipped = extract(frames, read, writers, skip_bad, folder.name)
    for entry in skipped:
        entry["why"] = entry["why"].replace(f"{folder.parent}/", "")
    if not kept:
        raise ValueError(
            f"{folder} holds no good frame; the first: {skipped[0]['why']}"
        )
    part = {"image": [frame[-1] for frame in kept], "skipped": skipped}
    if folder.name == "train":
        part = {"subject": [frame[0] for frame in kept], **part, "area": areas}
    records = stage.map_threads(
        stage.ArrayWriter.close, writers
    )  # wait for the disk once
    return part, dict(zip(names, records, strict=True))


def extract_own(args, pairs):
    """Write the arrays of people's own frames; return the record.

    Frames of another size than most are letterboxed into it.

    Args:
        args: Of the command line.
        pairs: What `own_frames.find_pairs` returned.
    """
    names = [path.name for path, _ in pairs]
    sizes = [tuple(pictures.open_picture(path).size[::-1]) for path, _ in pairs]
    crops = own_frames.find_crops(pairs, sizes) if args.crop else {}
    shown = [tuple(crops.get(f"{h}x{w}", (0, 0, h, w))[2:]) for h, w in sizes]
    size = collections.Counter(shown).most_common(1)[0][0]
    known = own_frames.name_subjects(names, args.subject_pattern, args.subjects)
    subjects = known or [Path(name).stem for name in names]
    numbers = {name: k for k, name in enumerate(sorted(set(subjects)), 1)}
    xml = {mask for _, mask in pairs if mask.suffix.lower() == ".xml"}
    cvat = own_frames.read_cvat(xml.pop(), args.label) if xml else None
    frames = {(numbers[s], k): k - 1 for k, s in enumerate(subjects, 1)}

    def read(frame):
        pair = own_frames.read_pair(pairs[frames[frame]], args.label, cvat)
        return own_frames.fit_pair(*pair, crops, size)

    shape = (len(frames), *size)
    paths = [args.data / name for name in ARRAYS["train"]]
    writers = [stage.ArrayWriter(path, shape, np.uint8) for path in paths]
    kept, areas, skipped = extract(sorted(frames), read, writers, args.skip_bad, "own")
    for entry in skipped:
        entry["frame"] = names[int(entry["frame"].split("_")[1]) - 1]
        for folder in (args.images, args.masks):
            entry["why"] = entry["why"].replace(f"{folder}/", "")
    if not kept:
        raise ValueError(
            f"{args.images} holds no good frame; the first: {skipped[0]['why']}"
        )
    rows = [frames[frame] for frame in kept]
    arrays = dict(
        zip(ARRAYS["train"], map(stage.ArrayWriter.close, writers), strict=True)
    )
    return {
        "height": size[0],
        "width": size[1],
        "arrays": arrays,
        "train": {
            "subject": [frame[0] for frame in kept],
            "image": [frame[1] for frame in kept],
            "name": [names[row] for row in rows],
            "size": [list(sizes[row]) for row in rows],
            "skipped": skipped,
            "area": areas,
        },
        "subjects_known": known is not None,
        "subject_names": {str(k): name for name, k in numbers.items()},
        "crops": crops,
    }


def report(record, data):
    """Print one line of counts, and one where frames were left out."""
    texts, skipped = [], 0
    if train := record.get("train"):
        texts.append(
            f"{len(train['image'])} training frames of {len(set(train['subject']))} "
            f"subjects ({sum(area > 0 for area in train['area'])} with a nerve)"
        )
    if "test" in record:
        texts.append(f"{len(record['test']['image'])} test frames")
    print(f"{', '.join(texts)}, {record['height']} x {record['width']} pixels: {data}/")
    for name in NAMES:
        skipped += len(record.get(name, {"skipped": ()})["skipped"])
    if skipped:
        print(f"{skipped} bad frames left out; {data}/extract.json says which and why")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--raw",
        type=Path,
        default="raw",
        help="folder that holds train/, test/ or both",
    )
    parser.add_argument("--data", type=Path, default="data", help="folder to write")
    parser.add_argument(
        "--manifest",
        type=Path,
        help="SHA-256 list that every file must match; None takes RAW/SHA256SUMS, if any",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave bad frames out, and list each in extract.json",
    )
    own = parser.add_argument_group("frames of your own, instead of --raw")
    own.add_argument("--images", type=Path, help="folder of frames, in any names")
    own.add_argument(
        "--masks",
        type=Path,
        help="folder of masks of the same stems, or of labelme's .json; or CVAT's .xml",
    )
    own.add_argument("--label", help="what is nerve: number of a class, or its name")
    own.add_argument(
        "--subject-pattern",
        help="regular expression; what its first group finds in a frame's name is its "
        "subject. Default: every frame is its own",
    )
    own.add_argument("--subjects", type=Path, help="CSV with columns name and subject")
    own.add_argument(
        "--crop",
        action="store_true",
        help="cut borders and text that are the same in all frames of a size",
    )
    args = parser.parse_args(argv)
    if (args.images is None) != (args.masks is None):
        parser.error("--images and --masks go together")
    if args.subject_pattern and args.subjects:
        parser.error("--subject-pattern or --subjects, not both")
    return args


def find_stale(record):
    """Return the arrays of an earlier run that this one did not make."""
    names = [name for group in ARRAYS.values() for name in group]
    return [name for name in names if name not in record["arrays"]]


def main(argv=None):
    args = parse_args(argv)
    stage.keep_freed_memory()
    warnings.filterwarnings("ignore", module="PIL")  # of damage that is then refused
    if args.images:
        pairs = own_frames.find_pairs(args.images, args.masks)
    else:
        folders = find_folders(args.raw)
    with stage.lock(args.data):
        record = extract_own(args, pairs) if args.images else extract_raw(args, folders)
        stage.publish(
            args.data / "extract.json",
            record,
            paths=[args.data / name for name in record["arrays"]],
            stale=[args.data / name for name in find_stale(record)],
        )
    report(record, args.data)


def find_folders(raw):
    """Return the folders train/ and test/ of the challenge that are there."""
    folders = [raw / name for name in NAMES if (raw / name).is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"{raw}/ holds neither train/ nor test/; unpack the challenge's train.zip and "
            "test.zip there, make a phantom (python phantom.py), or name folders of your "
            "own: --images and --masks"
        )
    return folders


def extract_raw(args, folders):
    """Write the arrays of the challenge's folders; return the record."""
    manifest = args.manifest or args.raw / "SHA256SUMS"
    digests = read_manifest(manifest) if args.manifest or manifest.exists() else None
    size = find_size(folders[0])
    record = {"height": size[0], "width": size[1], "arrays": {}}
    for folder in folders:
        record[folder.name], arrays = extract_folder(
            folder, args.data, size, digests, args.skip_bad
        )
        record["arrays"].update(arrays)
    return record


if __name__ == "__main__":
    sys.exit(stage.run(main))
