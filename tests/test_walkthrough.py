"""The pages in docs/ for people with frames of their own, run word for word."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_docs_runs import copy_scripts, run_page

from nerve.phantom import anatomy, scanner, sweep

USGRA, KINDS = Path("../shared/data/usgra"), ("images", "masks")
FRAMES = 24
SWEEP = 22  # frames of the clip, to be more than the page's keyframes


@pytest.fixture
def own(tmp_path):
    """A folder with sweep.avi, frames/ and masks/ in the names of the docs' pattern.

    Nerves of another collection where it is at hand, else of phantoms.
    """
    folder = copy_scripts(tmp_path / "own", addition="")
    for name in ("frames", "masks"):
        (folder / name).mkdir()
    for number, (subject, frame, mask) in enumerate(make_own_frames()):
        out = f"{'abcdefghi'[subject]}_{number:02}.png"
        Image.fromarray(frame).save(folder / "frames" / out)
        Image.fromarray(mask).save(folder / "masks" / out)
    size = frame.shape[1::-1]
    video = cv2.VideoWriter(
        str(folder / "sweep.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, size
    )
    picture = np.array(Image.fromarray(frame).convert("RGB"))
    for _ in range(SWEEP):
        video.write(picture)
    video.release()
    return folder


def make_own_frames():
    """Yield (subject, frame, mask), the arrays uint8."""
    usgra = ROOT / USGRA
    if usgra.is_dir():
        names = sorted(path.name for path in (usgra / "images").iterdir())
        for number, name in enumerate(names[:: len(names) // FRAMES][:FRAMES]):
            frame, mask = (np.array(Image.open(usgra / kind / name)) for kind in KINDS)
            yield number * 8 // FRAMES, frame, (mask == 1).astype(np.uint8) * 255
        return
    for frame in sweep.plan_frames(FRAMES, 1, 8, 3)[:FRAMES]:
        subject = scanner.make_subject(3, frame.subject)
        image = scanner.render(subject, frame.sweep, frame.visibility)
        yield frame.subject, image, anatomy.draw_mask(subject, frame, 3)


def test_frames_of_ones_own_are_found_and_trained_on(own):
    for name in ("own-frames", "labelling", "transfer-learning"):
        run_page(ROOT / "docs" / f"{name}.md", own)
    for left in (
        "found/frames.csv",
        "corrected/*_00.json",  # of whom the first frame is
        f"swept/masks/sweep_{SWEEP:05}.png",
        "weights/own.h5",
        "own/predictions/validation.csv",
        "own/report.html",
    ):
        assert list(own.glob(left)), left
    table = (own / "weights" / "own.csv").read_text().splitlines()[1:]
    first, last = (float(line.split(",")[2]) for line in (table[0], table[-1]))
    assert last > first  # training dice_coef
