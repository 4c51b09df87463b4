"""Coverage-guided fuzzing (atheris) of run lengths, tables, labelme, CVAT and COCO.

    python benchmarks/fuzz.py -runs=1000000 -max_total_time=600

Inputs grow towards code not reached before. What must hold: text is a mask or a ValueError
of one line, and a mask comes back from its encoding; a table or outlines are read, or
refused with a line that names the file. The first input that breaks it is kept
(crash-...), status 77.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

atheris.enabled_hooks.add("RegEx")
with atheris.instrument_imports(include=["nerve"]):
    from nerve.files import run_length
    from nerve.frames import outlines, pairs

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
STARTS = (
    b"\x001 3 10 2",
    b"\x80\x01\x03\x0a\x02",
    b"\xc0subject,img,pixels\n1,1,1 1\n",
    b"\xc1name,subject\na,x\n",
    *(b"\xc2" + f'{{"shapes": [{shape}]}}'.encode() for shape in (SQUARE, BRUSH)),
    b"\xc3" + CVAT.encode(),
    b"\xc4" + COCO.encode(),
)
FILE = Path(tempfile.gettempdir()) / f"fuzzed_{os.getpid()}"


def check_error(error, name=""):
    """Refuse an error of several lines, or one that does not name the file."""
    if "\n" in str(error) or name not in str(error):
        raise AssertionError(f"said only: {error!r}")


def check_pixels(text):
    """Decode text, and encode what it is."""
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


READERS = (
    run_length.read_train_masks,
    pairs.read_subjects,
    lambda path: draw([outlines.read_labelme(path)]),
    lambda path: draw([drawing for _, drawing in outlines.read_cvat(path)]),
    lambda path: draw([drawing for _, drawing in outlines.read_coco(path)]),
)


def check_file(read, content):
    """Read bytes as a file."""
    FILE.write_bytes(content)
    try:
        read(FILE)
    except ValueError as error:
        check_error(error, FILE.name)


def check(content):
    """Check one input; its first byte says as what."""
    if content[:1] <= b"\x7f":
        check_pixels(content[1:].decode("latin-1"))
    elif content[:1] <= b"\xbf":
        numbers = np.frombuffer(content[1:], np.uint8)  # runs rather than noise
        check_pixels(" ".join(str(number) for number in numbers))
    else:
        check_file(READERS[(content[0] & 15) % len(READERS)], content[1:])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(STARTS):
            (Path(corpus) / str(number)).write_bytes(content)
        atheris.Setup([*sys.argv, corpus], check)
        atheris.Fuzz()
