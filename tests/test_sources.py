"""benchmarks/sources.py at a tiny size: what is trained on, held out, and said of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, make_raw, run_here
from PIL import Image

sys.path.insert(0, str(ROOT / "benchmarks"))

import presence
import quality
import sources

from nerve.frames import split
from nerve.prediction.networks import read_trained
from recipes import MODERN

TINY = replace(MODERN, height=32, width=48, filters=2, depth=2, batch_size=64, epochs=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The lines of all runs, the folder that they worked in, and the printed table."""
    folder = tmp_path_factory.mktemp("sources")
    make_raw(folder / "raw", subjects=5, frames=5, test=0)
    (folder / "raw" / "test").rmdir()
    for name, frames in (("phantom", 4), ("limb", 5)):
        make_raw(folder / name, height=420, width=580, subjects=3, frames=frames, test=6)
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / "usgra" / name).mkdir(parents=True)
    for number in range(10):
        image = rng.integers(20, 200, (40, 60), np.uint8)
        Image.fromarray(image).save(folder / f"usgra/images/{number:04}.png")
        mask = np.zeros((40, 60), np.uint8)
        mask[10:20, 5 + 3 * number : 15 + 3 * number] = 1
        picture = Image.fromarray(mask, "P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.save(folder / f"usgra/masks/{number:04}.png")
    subjects, nerve = np.repeat(np.arange(1, 6), 5), np.arange(25) * 2 % 5 < 3
    held = split.split_frames("subject", subjects, nerve, 5, 0, 0)
    (folder / "folds.json").write_text(json.dumps({0: np.unique(subjects[held]).tolist()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "cpu_seconds", run_here)
        patch.setitem(quality.ROWS, "modern", quality.Row(TINY))
        patch.setattr(quality, "FOLDS", folder / "folds.json")
        patch.setattr(sources, "RESULTS", folder / "sources.jsonl")
        patch.setattr(presence, "ORIGINALS", tuple((s, 1) for s in range(1, 6)))
        for name, value in (
            ("COUNTS", (2,)),
            ("DRAWS", 1),
            ("FEW_STEPS", 2),
            ("USUAL", 10),
        ):
            patch.setattr(sources, name, value)
        flags = [f"--{n}={folder / n}" for n in ("raw", "usgra", "phantom", "limb", "work")]
        for _ in range(2):  # the second finds all runs done
            sources.main([*flags, "--folds", "0", "--runs", "folds", "usgra", "challenge"])
        lines = sources.results()
    return lines, folder


def test_each_run_leaves_one_line(runs):
    lines, _ = runs
    assert [(line["run"], line["repeat"]) for line in lines] == [
        ("folds", 0),
        ("challenge and phantom and limb to usgra", 0),
        ("challenge and phantom and limb to usgra, 2 frames", 0),
        ("phantom and limb and usgra to challenge", 0),
    ]


def test_what_is_scored_was_not_trained_on(runs):
    lines, folder = runs
    (held,) = json.loads((folder / "folds.json").read_text()).values()
    scored = {int(name.split("_")[0]) for name in lines[0]["challenge"]["plain"]}
    assert scored == set(held)
    trained = read_trained(folder / "work" / "fold0" / "modern.h5")
    assert not set(held) & set(trained.trained_on[0].subjects)
    assert [part.frames for part in trained.trained_on] == [20, 8, 12]
    assert len(lines[0]["usgra"]["plain"]) == 2
    assert {name.split("_")[0] for name in lines[0]["originals"]} == {str(s) for s in held}
    # all of the source that was left out; after training on two of its frames, the rest
    assert len(lines[1]["usgra"]["mirrored"]) == 10
    assert len(lines[2]["usgra"]["mirrored"]) == 8
    assert len(lines[3]["challenge"]["plain"]) == 15


def test_crops_come_in_pairs(runs):
    sure, nerve, subjects = runs[0][0]["challenge_crops"]
    assert len(sure) == len(nerve) == len(subjects) > 0
    assert nerve[::2] == [True] * (len(nerve) // 2)
    assert not any(nerve[1::2])


def test_a_centre_lies_inside_or_not():
    truth = np.zeros((9, 9), np.uint8)
    truth[2:5, 2:5] = 255
    assert sources.centre_inside(truth // 255, truth)
    assert not sources.centre_inside(np.roll(truth // 255, 4, axis=1), truth)
    assert not sources.centre_inside(truth * 0, truth)
