"""Coverage-guided fuzzing (atheris) of what is read of strangers' files.

    python benchmarks/fuzz.py cvat -runs=1000000 -max_total_time=600

Inputs grow towards code not reached before. What must hold: a file is read, or refused with
a line that names it; run lengths are a mask that comes back from its encoding; a record
comes back from its JSON; a description of a network that passes names known classes alone.
The first input that breaks it is kept (crash-...), status 77. DICOM needs pytest, too.
"""

import copy
import json
import math
import os
import random
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import atheris
import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["nerve", "pydicom"]):
    import clips

    from nerve.command import refusing
    from nerve.files import atomic, h5_look, run_length
    from nerve.frames import dicom, outlines, pairs
    from nerve.records import Trained

HEIGHT, WIDTH = 6, 5
SQUARE = '{"label": "nerve", "points": [[1, 1], [4, 1], [4, 4]], "shape_type": "polygon"}'
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5E"
)
PIXEL += "rkJggg=="  # white
BRUSH = (
    f'{{"label": "n", "points": [[1, 1], [1, 1]], "shape_type": "mask", "mask": "{PIXEL}"}}'
)
CVAT = """<annotations><image name="a" width="5" height="6">
<polygon label="nerve" points="1,1;4,1;4,4"/><mask label="_background_" rle="1, 3" left="2"
top="2" width="2" height="2"/></image></annotations>"""
COCO = """{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "n"}],
"annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 4, 1, 4, 4]]}]}"""
WEIGHTS = ROOT / "weights" / "unet_classic.h5"
# what a value of JSON becomes
ODD = (None, True, -1, 2**63, 10**400, 1e308, math.nan, math.inf, "", "\n", "x" * 99)
ODD += ([], {}, [[]], "Lambda", "__lambda__", {"class_name": "TFOpLambda", "config": {}})
FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()  # memory
FILE = Path(FOLDER) / f"fuzzed_{os.getpid()}"


def check_error(error, name=""):
    """Refuse an error of several lines, or one that does not name the file."""
    if "\n" in str(error) or name not in str(error):
        raise AssertionError(f"said only: {error!r}")


def check_pixels(content):
    """Decode text, and encode what it is."""
    text = content.decode("latin-1")
    if text.startswith("\xff"):  # runs rather than noise
        text = " ".join(str(number) for number in content[1:])
    try:
        mask = run_length.decode(text, HEIGHT, WIDTH)
    except ValueError as error:
        check_error(error)
        return
    again = run_length.decode(run_length.encode(mask), HEIGHT, WIDTH)
    if not np.array_equal(again, mask):
        raise AssertionError(f"{text!r} does not come back")


def draw(drawings):
    """Draw outlines, of all labels together and of one."""
    for drawing in drawings:
        for label in (None, "nerve"):
            outlines.draw_mask(drawing, (HEIGHT, WIDTH), label)


def read_record(path):
    """Read a NAME.json, and what it says again from what it would write."""
    trained = Trained.from_dict(atomic.read_record(path, "-"), path)
    again = json.loads(json.dumps(trained.to_dict(), allow_nan=False))
    if Trained.from_dict(again, path) != trained:
        raise AssertionError("it does not come back")


def class_names(value):
    """Yield what stands in JSON as the name of a class."""
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            yield from class_names(each)
    if isinstance(value, dict) and "class_name" in value:
        yield value["class_name"]


def look_at_classes(path):
    """Look at the description of a network, without an .h5 about it."""
    text, known = path.read_text("latin-1"), frozenset().union(*h5_look.ROLES.values())
    attributes = {"model_config": text, "training_config": text}
    with refusing(f"{path} is damaged", Exception):  # as h5_look.look does
        problem = h5_look.classes_problem(SimpleNamespace(attrs=attributes))
        names = {str(n).removeprefix("Custom>") for n in class_names([json.loads(text)])}
    if problem:
        check_error(problem)
    elif not names <= known:
        raise AssertionError(f"{names - known} passed")


def read_dicom(path):
    """Read all frames of a DICOM file."""
    clip = dicom.open_dicom(path)
    if len({(frame.shape, frame.dtype) for frame in clip.frames}) > 1:
        raise AssertionError("frames of several shapes")


def read_file(read):
    """Return a check of bytes as a file that is read."""

    def check(content):
        FILE.write_bytes(content)
        try:
            read(FILE)
        except ValueError as error:
            check_error(error, FILE.name)

    return check


def mutate(content, most, seed):
    """Put something odd or something else of it into JSON, or change bytes."""
    rng, places = random.Random(seed), []
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return atheris.Mutate(content, most)
    holders = [value]
    while holders:
        holder = holders.pop()
        if isinstance(holder, dict | list):
            keys = list(holder if isinstance(holder, dict) else range(len(holder)))
            places += [(holder, key) for key in keys]
            holders += [holder[key] for key in keys]
    if not places or rng.random() < 0.2:
        return atheris.Mutate(content, most)
    (holder, key), (other, its_key) = rng.choice(places), rng.choice(places)
    new = rng.choice((rng.choice(ODD), other[its_key]))
    if isinstance(holder, dict) and rng.random() < 0.3:  # under another's name
        key = str(its_key)
    holder[key] = copy.deepcopy(new)
    mutated = json.dumps(value).encode()
    return mutated if len(mutated) <= most else atheris.Mutate(content, most)


def description():
    """Return the first layers of a network and its training, as an .h5 describes them."""
    with h5py.File(WEIGHTS) as file:
        model, training = (
            json.loads(file.attrs[f"{n}_config"]) for n in ("model", "training")
        )
    model["config"]["layers"] = model["config"]["layers"][:2]
    return json.dumps({"model": model, "metrics": [], **training}).encode()


def small_h5():
    """Return an .h5 of one array."""
    with h5py.File(FILE, "w") as file:
        file.attrs["layer_names"], layer = ["a"], file.create_group("a")
        layer.attrs["weight_names"], layer["w"] = ["w"], np.ones(3, np.float32)
        file.attrs["model_config"] = '{"class_name": "Functional"}'
    return FILE.read_bytes()


def small_dicoms():
    """Return DICOM files of a few pixels."""
    frames, found = np.arange(2 * 60, dtype=np.uint8).reshape(2, HEIGHT, 10), []
    region = clips.pydicom.Dataset()
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.1
    more = {"SequenceOfUltrasoundRegions": [region], "WindowCenter": 60, "WindowWidth": 99}
    clips.write_dicom(FILE, frames, **more)
    found.append(FILE.read_bytes())
    rgb = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    clips.write_dicom(FILE, np.stack([frames] * 3, -1), PlanarConfiguration=0, **rgb)
    found.append(FILE.read_bytes())
    clips.write_dicom(
        FILE, frames.astype(np.uint16) * 9, RescaleSlope=2, RescaleIntercept=1
    )
    found.append(FILE.read_bytes())
    clips.write_dicom(FILE, frames).compress(clips.pydicom.uid.RLELossless)
    clips.write_compressed(FILE, [clips.encode(f, "JPEG") for f in frames], frames)
    found.append(FILE.read_bytes())
    return found


READERS = {
    "runs": (check_pixels, lambda: [b"1 3 10 2", b"\xff\x01\x03\x0a\x02"]),
    "train_masks": (
        read_file(run_length.read_train_masks),
        lambda: [b"subject,img,pixels\n1,1,1 1\n"],
    ),
    "subjects": (read_file(pairs.read_subjects), lambda: [b"name,subject\na,x\n"]),
    "labelme": (
        read_file(lambda path: draw([outlines.read_labelme(path)])),
        lambda: [f'{{"shapes": [{shape}]}}'.encode() for shape in (SQUARE, BRUSH)],
    ),
    "cvat": (
        read_file(lambda path: draw(drawing for _, drawing in outlines.read_cvat(path))),
        lambda: [CVAT.encode()],
    ),
    "coco": (
        read_file(lambda path: draw(drawing for _, drawing in outlines.read_coco(path))),
        lambda: [COCO.encode()],
    ),
    "record": (
        read_file(read_record),
        lambda: [WEIGHTS.with_suffix(".json").read_bytes()],
    ),
    "layers": (read_file(look_at_classes), lambda: [description()]),
    "h5": (read_file(h5_look.look), lambda: [small_h5()]),
    "dicom": (read_file(read_dicom), small_dicoms),
}


if __name__ == "__main__":
    name = sys.argv.pop(1)
    check, make = READERS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(make()):
            (Path(corpus) / str(number)).write_bytes(content)
        flags = ["-max_len=8192", *sys.argv[1:], corpus]
        atheris.Setup([sys.argv[0], *flags], check, custom_mutator=mutate)
        atheris.Fuzz()
