"""Coverage-guided fuzzing (atheris) of the run-length decoder and the tables' reader.

    python benchmarks/fuzz.py -runs=1000000 -max_total_time=600

Inputs grow towards code not reached before. What must hold: text is a mask or a ValueError
of one line, and a mask comes back from its encoding; a table is read, or refused with a
line that names its file. The first input that breaks it is kept (crash-...), status 77.
"""

import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

atheris.enabled_hooks.add("RegEx")
with atheris.instrument_imports(include=["nerve"]):
    from nerve.files import run_length

HEIGHT, WIDTH = 6, 5
STARTS = (
    b"\x001 3 10 2",
    b"\x80\x01\x03\x0a\x02",
    b"\xc0subject,img,pixels\n1,1,1 1\n",
)
TABLE = Path(tempfile.gettempdir()) / "fuzzed_train_masks.csv"


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


def check_table(content):
    """Read bytes as train_masks.csv."""
    TABLE.write_bytes(content)
    try:
        run_length.read_train_masks(TABLE)
    except ValueError as error:
        check_error(error, TABLE.name)


def check(content):
    """Check one input; its first byte says as what."""
    if content[:1] <= b"\x7f":
        check_pixels(content[1:].decode("latin-1"))
    elif content[:1] <= b"\xbf":
        numbers = np.frombuffer(content[1:], np.uint8)  # runs rather than noise
        check_pixels(" ".join(str(number) for number in numbers))
    else:
        check_table(content[1:])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(STARTS):
            (Path(corpus) / str(number)).write_bytes(content)
        atheris.Setup([*sys.argv, corpus], check)
        atheris.Fuzz()
