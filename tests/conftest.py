"""A small challenge folder with known properties, and scripts run as a user runs them.

from conftest import make_raw, run_script
"""

import atexit
import csv
import importlib
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run")
FLAGS += ("disable-background-networking", "disable-component-update", "disable-sync")
FLAGS += ("window-size=1300,1000",)
EMPTY_OF_FIVE = 2  # of every five frames in a row, two show no nerve: 40 %
# how the caller's variables begin that would change what is tested
FOREIGN = ("COLUMNS", "GRADIO_", "IPYTHON", "JAX_", "JUPYTER_", "KERAS_", "LANG", "LC_")
FOREIGN += ("LINES", "MPL", "ONEDNN_", "OPENCV_", "PYTHON", "TF_", "TQDM_", "XDG_", "XLA_")
KEPT = ("PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "PYTHONPYCACHEPREFIX")


# Of two processes neither is to begin with these when the other has nothing left to do.
LONG = ("test_train", "test_docs_runs", "test_walkthrough", "test_devices", "test_quality")
LONG += (
    "test_benchmarks",
    "test_presence",
    "test_transfer",
    "test_notebook",
    "test_predict",
)


def leave_the_shell():
    """Have tests, and all that they start, run alike whoever started them, and how.

    A job behind `&` ignores SIGINT, and so would its children. A home may be missing,
    read-only, or hold settings of Keras. Two processes do not share a GPU's memory. A
    proxy does not know 127.0.0.1.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):  # Windows has none of these
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.umask(0o022)
    if sys.__stdin__ is None:  # closed, and yet IPython asks it for its encoding
        sys.__stdin__ = open(os.devnull)  # noqa: SIM115
    packages = site.getuserbase()  # below the home, where there are any
    for name in list(os.environ):
        foreign = name.startswith(FOREIGN) and name not in KEPT
        if foreign or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "LC_ALL": "C.UTF-8"}
    os.environ["PYTHONUSERBASE"] = packages
    if "PYTEST_XDIST_WORKER" not in os.environ:  # which has the home of its parent
        home = tempfile.TemporaryDirectory()
        atexit.register(home.cleanup)
        os.environ["HOME"] = home.name


leave_the_shell()


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    places = {name: k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def slow_encode(mask):
    """Run-length encode pixel by pixel: down each column, then the next column."""
    runs, inside = [], False
    number = 0
    for column in np.asarray(mask).T.tolist():
        for value in column:
            number += 1
            if value and inside:
                runs[-1][1] += 1
            elif value:
                runs.append([number, 1])
            inside = bool(value)
    return " ".join(f"{start} {length}" for start, length in runs)


def slow_decode(pixels, height, width):
    """Paint a run-length encoding pixel by pixel; a pixel painted twice is an error."""
    mask = np.zeros((height, width), np.uint8)
    numbers = [int(word) for word in pixels.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for number in range(start - 1, start - 1 + length):
            assert mask[number % height, number // height] == 0
            mask[number % height, number // height] = 1
    return mask


def draw_anatomy(subject, seed, height, width):
    """Return a subject's smooth background, grey values 10 to 150: 36 random heights."""
    heights = np.random.default_rng((seed, subject)).uniform(10, 150, (6, 6))
    smooth = cv2.resize(heights, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth.clip(10, 150)


def draw_frame(subject, image, nerve, seed, height, width):
    """Return (image, mask), uint8; a nerve is an oval of grey 220 on at most 150."""
    rng = np.random.default_rng((seed, subject, image))
    grey = draw_anatomy(subject, seed, height, width)
    mask = np.zeros((height, width), bool)
    if nerve:
        row, column = rng.uniform(0.3, 0.7, 2) * (height, width)
        rows, columns = np.mgrid[:height, :width]
        radii = rng.uniform(0.12, 0.18, 2) * (height, width)
        mask = ((rows - row) / radii[0]) ** 2 + ((columns - column) / radii[1]) ** 2 < 1
        grey = np.where(mask, 220, grey)
    grey = grey + rng.normal(0, 6, grey.shape)
    return grey.clip(0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


def write_tiff(path, array):
    """Write a TIFF as the challenge's are: LZW-compressed."""
    Image.fromarray(array).save(path, compression="tiff_lzw")


def write_table(path, columns, rows):
    """Write a CSV file with a header."""
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def make_raw(folder, subjects=3, frames=4, height=64, width=80, test=3, seed=0):
    """Write a folder laid out as the challenge's, with bright ovals for nerves.

    Two of every five frames show no nerve. Frames of one subject share a background;
    test frames come from two other subjects. `test_truth.csv` has the columns of
    phantom.py's.

    Args:
        folder: Where; made if absent.
        subjects: How many, or their numbers.
        frames: Frames of each subject.
        height: Rows of a frame, in pixels.
        width: Columns, in pixels.
        test: Test frames.
        seed: Seed of all pixels.

    Returns:
        The folder, as a Path.
    """
    folder = Path(folder)
    for name in ("train", "test"):
        (folder / name).mkdir(parents=True)
    if isinstance(subjects, int):
        subjects = range(1, subjects + 1)
    train, truth, count = [], [], 0
    for subject in subjects:
        for image in range(1, frames + 1):
            nerve = count * EMPTY_OF_FIVE % 5 < 5 - EMPTY_OF_FIVE
            count += 1
            grey, mask = draw_frame(subject, image, nerve, seed, height, width)
            write_tiff(folder / "train" / f"{subject}_{image}.tif", grey)
            write_tiff(folder / "train" / f"{subject}_{image}_mask.tif", mask)
            train.append((subject, image, slow_encode(mask)))
    for number in range(1, test + 1):
        subject, nerve = 1001 + number % 2, number * EMPTY_OF_FIVE % 5 < 3
        grey, mask = draw_frame(subject, number, nerve, seed, height, width)
        write_tiff(folder / "test" / f"{number}.tif", grey)
        truth.append((number, slow_encode(mask), subject, number))
    write_table(folder / "train_masks.csv", ("subject", "img", "pixels"), train)
    write_table(folder / "test_truth.csv", ("img", "pixels", "subject", "image"), truth)
    sample = [(number, "1 1") for number in range(1, test + 1)]
    write_table(folder / "sample_submission.csv", ("img", "pixels"), sample)
    return folder


def run_script(name, *args, cwd):
    """Run a script of the project in a process of its own.

    Returns:
        (status, stdout, stderr).
    """
    command = [sys.executable, str(ROOT / name), *map(str, args)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    return result.returncode, result.stdout, result.stderr


def run_here(command):
    """Run a script's main in this process, as `quality.cpu_seconds` in one of its own.

    Starting TensorFlow anew takes longer than what tests have it do.
    """
    script, *flags = map(str, command[1:])
    before = time.process_time()
    importlib.import_module(Path(script).stem).main(flags)
    return time.process_time() - before


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """A challenge folder of 12 training and 3 test frames; copy it before damaging it."""
    return make_raw(tmp_path_factory.mktemp("challenge") / "raw")


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        print("chromium and chromedriver are absent: nothing is tested in a browser")
        pytest.skip("chromium or chromedriver is absent")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    folder = {"download.default_directory": str(tmp_path / "downloads")}
    options.add_experimental_option("prefs", folder)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def wait_for(function, seconds=120):
    """Return the first true value of a function, which may fail until then."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := function():
                return value
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.2)
