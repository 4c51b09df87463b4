"""Near-identical frames: found, measured against each other, and listed."""

import csv
import json

import numpy as np
import pytest
from conftest import write_tiff

import extract_data
import preprocess
from nerve.frames import agreement

HEIGHT, WIDTH = 48, 64


def blob(column):
    """Return a mask of 12 x 12 pixels, uint8, 0 or 255."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:22, column : column + 12] = 255
    return mask


@pytest.fixture
def data(tmp_path):
    """Extracted frames of 3 subjects: subject 1 has three near-identical frames.

    Image 1 and 2 are outlined alike (moved by 2 of 12 columns), 3 is left empty; 4 is
    another frame. The other subjects have two frames of their own each.
    """
    rng = np.random.default_rng(0)
    train = tmp_path / "raw" / "train"
    train.mkdir(parents=True)
    frame = rng.integers(0, 250, (HEIGHT, WIDTH), np.uint8)
    for image, mask in ((1, blob(10)), (2, blob(12)), (3, blob(10) * 0)):
        write_tiff(train / f"1_{image}.tif", frame + np.uint8(image))
        write_tiff(train / f"1_{image}_mask.tif", mask)
    names = ["1_4", "2_1", "2_2", "3_1", "3_2"]
    for name in names:
        write_tiff(train / f"{name}.tif", rng.integers(0, 250, (HEIGHT, WIDTH), np.uint8))
        write_tiff(train / f"{name}_mask.tif", blob(30))
    folder = tmp_path / "data"
    extract_data.main(["--raw", str(tmp_path / "raw"), "--data", str(folder)])
    return folder


def run(data, *flags):
    sizes = ["--height", str(HEIGHT), "--width", str(WIDTH), "--split", "none"]
    preprocess.main(["--data", str(data), *sizes, *flags])
    record = json.loads((data / "preprocess.json").read_text())
    return record, np.load(data / "y_train.npy")[..., 0]


def test_frames_are_near_identical_within_their_group_alone():
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 200, (HEIGHT, WIDTH), np.uint8)
    other = rng.integers(0, 200, (HEIGHT, WIDTH), np.uint8)
    brighter = (frame * 1.2).astype(np.uint8)  # gain does not matter
    images = np.stack([frame, other, brighter, frame])
    near = agreement.find_near_identical(images, np.array([1, 1, 1, 2]), 0.99)
    assert [sorted(others) for others in near] == [[2], [], [0], []]
    assert near[0][2] == pytest.approx(np.corrcoef(frame.ravel(), brighter.ravel())[0, 1])


def test_more_frames_than_are_compared_at_once(monkeypatch):
    monkeypatch.setattr(agreement, "BLOCK", 2)
    images = np.random.default_rng(2).integers(0, 250, (7, HEIGHT, WIDTH), np.uint8)
    images[6] = images[1]
    near = agreement.find_near_identical(images, np.ones(7, int), 0.99)
    assert [sorted(others) for others in near] == [[], [6], [], [], [], [], [1]]


def test_the_list_names_who_contradicts_whom(data):
    listed, _ = run(data, "--contradictory")
    with open(data / "contradictory.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # Dice of image 1 with 2: 2 x 10 x 12 / 288 = 0.8333; with the empty 3: 0
    assert [row["img"] for row in rows] == ["1", "2", "3"]
    assert [row["agreement"] for row in rows] == ["0.4167", "0.4167", "0.0000"]
    assert [row["other_img"] for row in rows] == ["3", "3", "1"]
    assert {row["dice"] for row in rows} == {"0.0000"}
    assert all(float(row["similarity"]) >= 0.99 for row in rows)
    # the list changes no array; without the flag, none of an earlier run is left
    assert run(data)[0] == listed
    assert not (data / "contradictory.csv").exists()


def test_a_similarity_out_of_range_is_one_line(data, capsys):
    with pytest.raises(SystemExit):
        preprocess.main(["--data", str(data), "--similarity", "2"])
    assert "--similarity: 2; expected 0.5 to 1" in capsys.readouterr().err
