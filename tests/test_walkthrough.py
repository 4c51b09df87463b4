"""The README's walk-through on frames of one's own, run word for word."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import phantom
from nerve.phantom import anatomy, scanner

USGRA = Path("../shared/data/usgra")
FRAMES = 24


def commands():
    """Return the README's block that begins with --images, each line as words."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (block,) = (block for block in blocks if "--images frames" in block)
    return [shlex.split(line) for line in block.splitlines()]


def name_frame(subject, number):
    """Return a file's name as the README's pattern reads it."""
    return f"{subject}_{number:02}.png"


@pytest.fixture
def own(tmp_path):
    """A folder with frames/, masks/ and the released weights.

    Nerves of another collection where it is at hand, else of phantoms.
    """
    (tmp_path / "weights").mkdir()
    for name in ("unet_nerve.h5", "unet_nerve.json"):
        (tmp_path / "weights" / name).write_bytes(
            (ROOT / "weights" / name).read_bytes()
        )
    for name in ("frames", "masks"):
        (tmp_path / name).mkdir()
    usgra = ROOT / USGRA
    if usgra.is_dir():
        names = sorted(path.name for path in (usgra / "images").iterdir())
        for number, name in enumerate(names[:: len(names) // FRAMES][:FRAMES]):
            out = name_frame("abcdefgh"[number * 8 // FRAMES], number)
            Image.open(usgra / "images" / name).save(tmp_path / "frames" / out)
            nerve = np.array(Image.open(usgra / "masks" / name)) == 1
            Image.fromarray(nerve.astype(np.uint8) * 255).save(tmp_path / "masks" / out)
        return tmp_path
    for number, frame in enumerate(phantom.plan_frames(FRAMES, 1, 8, 3)[:FRAMES]):
        subject = scanner.make_subject(3, frame.subject)
        image = scanner.render(subject, frame.sweep, frame.visibility)
        mask = anatomy.draw_mask(subject, frame, 3)
        out = name_frame("abcdefghi"[frame.subject], number)
        Image.fromarray(image).save(tmp_path / "frames" / out)
        Image.fromarray(mask).save(tmp_path / "masks" / out)
    return tmp_path


def test_the_walk_through_runs_as_it_stands(own):
    lines = commands()
    assert [words[1] for words in lines] == [
        "extract_data.py",
        "preprocess.py",
        "train.py",
        "tune.py",
        "predict.py",
        "report.py",
    ]
    for python, script, *flags in lines:
        assert python == "python"
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *flags],
            cwd=own,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script}: {done.stderr}"
    for path in ("weights/own.h5", "own/predictions/validation.csv", "own/report.html"):
        assert (own / path).exists()
    table = (own / "weights" / "own.csv").read_text().splitlines()[1:]
    first, last = (float(line.split(",")[2]) for line in (table[0], table[-1]))
    assert last > first  # training dice_coef
