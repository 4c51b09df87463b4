"""Near-identical frames: found, measured against each other, and dealt with in training."""

import csv
import json

import numpy as np
import pytest
from conftest import write_tiff

import extract_data
import preprocess
from nerve.frames import agreement
from nerve.training import batches

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
        write_tiff(
            train / f"{name}.tif", rng.integers(0, 250, (HEIGHT, WIDTH), np.uint8)
        )
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
    assert near[0][2] == pytest.approx(
        np.corrcoef(frame.ravel(), brighter.ravel())[0, 1]
    )


def test_more_frames_than_are_compared_at_once(monkeypatch):
    monkeypatch.setattr(agreement, "BLOCK", 2)
    images = np.random.default_rng(2).integers(0, 250, (7, HEIGHT, WIDTH), np.uint8)
    images[6] = images[1]
    near = agreement.find_near_identical(images, np.ones(7, int), 0.99)
    assert [sorted(others) for others in near] == [[], [6], [], [], [], [], [1]]


def test_the_list_names_who_contradicts_whom(data):
    run(data, "--contradictory", "list")
    with open(data / "contradictory.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # Dice of image 1 with 2: 2 x 10 x 12 / 288 = 0.8333; with the empty 3: 0
    assert [row["img"] for row in rows] == ["1", "2", "3"]
    assert [row["agreement"] for row in rows] == ["0.4167", "0.4167", "0.0000"]
    assert [row["other_img"] for row in rows] == ["3", "3", "1"]
    assert {row["dice"] for row in rows} == {"0.0000"}
    assert all(float(row["similarity"]) >= 0.99 for row in rows)
    run(data)  # without the flag, no list of an earlier run is left
    assert not (data / "contradictory.csv").exists()


def test_dropped_frames_are_gone_from_training(data, capsys):
    record, masks = run(data, "--contradictory", "drop")
    assert record["train"]["rows"] == [3, 4, 5, 6, 7]
    assert len(masks) == 5
    assert "3 of them dropped" in capsys.readouterr().out


def test_repaired_masks_are_the_mean_over_near_identical_frames(data):
    _, before = run(data)
    _, soft = run(data, "--contradictory", "repair", "--soft-masks")
    for row in range(3):
        np.testing.assert_allclose(soft[row], before[:3].mean(axis=0), atol=0.5 / 255)
    np.testing.assert_array_equal(soft[3:], before[3:])
    _, hard = run(data, "--contradictory", "repair")
    # two of three call columns 12 to 21 nerve, one of three 10, 11, 22 and 23
    assert np.flatnonzero(hard[0].any(axis=0)).tolist() == list(range(12, 22))


def test_validation_masks_are_never_repaired(data):
    sizes = ["--height", str(HEIGHT), "--width", str(WIDTH)]
    flags = ["--folds", "3", "--fold", "0", "--contradictory", "repair"]
    preprocess.main(["--data", str(data), *sizes, *flags])
    record = json.loads((data / "preprocess.json").read_text())
    assert record["val"]["subjects"] == [1]  # the largest is dealt first
    masks = np.load(data / "y_val.npy")[..., 0]
    np.testing.assert_array_equal(masks[0] * 255, blob(10))
    assert not masks[2].any()


def test_downweighted_frames_are_drawn_as_often_as_they_agree(data):
    record, _ = run(data, "--contradictory", "downweight")
    weights = record["train"]["weight"]
    assert weights == [0.4167, 0.4167, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    order = np.arange(8)
    drawn = np.concatenate(
        [batches.draw_weighted(order, np.array(weights), 0, e) for e in range(500)]
    )
    counts = np.bincount(drawn, minlength=8) / 500
    np.testing.assert_allclose(counts, weights, atol=0.07)  # 3 standard errors


def test_an_epoch_of_rarely_drawn_frames_is_never_empty():
    order, weights = np.array([2, 0, 1]), np.array([0.0, 0.0, 1e-9])
    assert batches.draw_weighted(order, weights, 0, 0).tolist() == [2]


@pytest.mark.parametrize("how", ["drop", "downweight"])
def test_training_frames_that_all_contradict_each_other_are_refused(data, how):
    train = data.parent / "raw" / "train"
    for path in train.glob("[23]_*"):
        path.unlink()
    for image in (2, 4):
        for end in (".tif", "_mask.tif"):
            (train / f"1_{image}{end}").unlink()
    folder = data.parent / "pair"
    extract_data.main(["--raw", str(train.parent), "--data", str(folder)])
    run(folder)
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    with pytest.raises(ValueError, match="contradict each other: none is"):
        run(folder, "--contradictory", how)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


def test_a_similarity_out_of_range_is_one_line(data, capsys):
    with pytest.raises(SystemExit):
        preprocess.main(["--data", str(data), "--similarity", "2"])
    assert "--similarity 2.0; expected 0.5 to 1" in capsys.readouterr().err
