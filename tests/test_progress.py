"""What a training shows of itself: strips of overlays, TensorBoard's files, a dry run."""

import re

import cv2
import numpy as np
import pytest
from conftest import make_raw, run_script

import extract_data
import preprocess
import train
from nerve.frames.overlays import PREDICTION_COLOUR, TRUTH_COLOUR
from nerve.records import Inputs
from nerve.training import progress

INPUTS = Inputs(16, 16, mean=100.0, standard_deviation=50.0, aspect=580 / 420, crops={})
SMALL = ["--filters", "2", "--depth", "2", "--learning-rate", "0.01", "--epochs", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of preprocessed arrays: 15 frames to train on, 5 to validate."""
    folder = tmp_path_factory.mktemp("progress")
    make_raw(folder / "raw", subjects=4, frames=5, test=2)
    extract_data.main(["--raw", str(folder / "raw"), "--data", str(folder / "data")])
    sizes = ["--height", "16", "--width", "16"]
    preprocess.main(["--data", str(folder / "data"), *sizes])
    return folder / "data"


def test_strips_come_at_the_first_the_last_and_about_eight_epochs():
    shown = [epoch for epoch in range(1, 61) if progress.is_shown(epoch, 60)]
    assert shown == [1, 8, 16, 24, 32, 40, 48, 56, 60]
    assert [e for e in range(1, 5) if progress.is_shown(e, 4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("nerve", "expected"),
    [
        ([1, 0, 1, 1, 1, 1, 1, 1, 0], [0, 3, 5, 7, 1]),  # four with, one without
        ([1, 1], [0, 1]),
        ([0, 0, 0], [0]),
        ([], []),
    ],
)
def test_frames_to_watch_are_spread_over_the_validation_frames(nerve, expected):
    y = np.zeros((len(nerve), 4, 4, 1), np.float32)
    y[np.array(nerve, bool), 1, 2] = 1
    assert progress.choose_frames(y).tolist() == expected


def test_a_strip_outlines_truth_and_prediction_in_frames_of_their_own_aspect():
    x = np.zeros((2, 16, 16, 1), np.float32)  # grey 100
    y, p = np.zeros((2, *x.shape), np.float32)
    y[0, 4:8, 4:8], p[1, 8:12, 8:12] = 1, 0.9
    strip = progress.draw_strip(x, y, p, INPUTS, "epoch 8 of 60")
    width = round(progress.HEIGHT * 580 / 420)
    assert strip.shape == (progress.HEIGHT + progress.MARGIN, 2 * width, 3)
    frames = strip[progress.MARGIN :, :width], strip[progress.MARGIN :, width:]
    for frame, colour, other in zip(
        frames,
        (TRUTH_COLOUR, PREDICTION_COLOUR),
        (PREDICTION_COLOUR, TRUTH_COLOUR),
        strict=True,
    ):
        assert (frame == colour).all(axis=-1).any()
        assert not (frame == other).all(axis=-1).any()
        assert (frame[0, 0] == 100).all()
    rows, columns = np.nonzero((frames[0] == TRUTH_COLOUR).all(axis=-1))
    # the mask covers 4 to 8 of 16 both ways
    assert rows.min() / progress.HEIGHT == pytest.approx(0.25, abs=0.03)
    assert columns.max() / width == pytest.approx(0.5, abs=0.03)


def test_strips_stack_and_those_of_an_interrupted_epoch_are_redone(tmp_path):
    path = tmp_path / "unet.progress.png"
    strips = [np.full((4, 6, 3), grey, np.uint8) for grey in (10, 20, 30)]
    for shown, strip in enumerate(strips[:2]):
        progress.add_strip(path, strip, shown)
    progress.add_strip(path, strips[2], 1)
    picture = cv2.imread(str(path))
    assert picture.shape == (8, 6, 3)
    assert picture[:, 0, 0].tolist() == [10] * 4 + [30] * 4
    progress.add_strip(path, strips[0], 0)  # a new run starts anew
    assert cv2.imread(str(path)).shape == (4, 6, 3)


def test_tensorboard_gets_each_epochs_numbers_and_strips(data, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    make_ndarray = pytest.importorskip("tensorboard.util.tensor_util").make_ndarray
    board = str(tmp_path / "board")
    flags = ["--data", str(data), "--out", str(tmp_path / "unet.h5"), *SMALL]
    train.main([*flags, "--tensorboard", board])
    events = accumulator.EventAccumulator(board, size_guidance={"tensors": 0}).Reload()
    tags = {"loss", "dice_coef", "val_dice_coef", "learning_rate", "validation"}
    assert set(events.Tags()["tensors"]) == tags
    for tag in tags:
        assert [event.step for event in events.Tensors(tag)] == [1, 2]
    rows = (tmp_path / "unet.csv").read_text().splitlines()
    first = make_ndarray(events.Tensors("val_dice_coef")[0].tensor_proto)
    assert first == pytest.approx(float(rows[1].split(",")[3]), rel=1e-4)


def test_tensorboard_that_is_not_installed_is_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="requirements/tensorboard.txt"):
        progress.open_board(tmp_path)


def test_a_dry_run_says_what_a_run_needs_and_writes_nothing(data, tmp_path):
    flags = ["--data", data, "--out", tmp_path / "w" / "unet.h5", *SMALL, "--dry-run"]
    status, out, _ = run_script("train.py", *flags, cwd=tmp_path)
    assert status == 0
    assert "15 frames of 3 subjects to train on (9 with a nerve), 5 to validate" in out
    assert re.search(r"network: unet, 1,\d\d\d parameters", out)
    assert re.search(r"memory: about [\d.]+ GB for batches of 32; [\d.]+ GB are", out)
    assert re.search(r"time: about \d+ s an epoch, [\d.]+ minutes for all 2", out)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_times_no_smaller_last_batch(data, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "keras.Model.train_on_batch", lambda self, x, *_: sizes.append(len(x))
    )
    flags = ["--data", str(data), "--out", str(tmp_path / "unet.h5"), *SMALL]
    train.main([*flags, "--batch-size", "10", "--dry-run"])  # of 15 frames
    assert sizes == [10, 10]
