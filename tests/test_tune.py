"""tune.py: the limits it finds are the best; --prevalence keeps the share asked for."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from conftest import make_raw

import extract_data
import predict
import preprocess
import train
import tune
from nerve.frames import foreign
from nerve.frames.geometry import Geometry
from nerve.prediction import held_out, inference, limits, networks
from nerve.prediction.limits import THRESHOLDS, Measures
from nerve.records import Frames, Limits, read_split


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data/ and weights/unet.h5 of a short training."""
    folder = tmp_path_factory.mktemp("tune")
    make_raw(folder / "raw", subjects=5, frames=8, test=10)
    data, weights = str(folder / "data"), str(folder / "weights" / "unet.h5")
    extract_data.main(["--raw", str(folder / "raw"), "--data", data])
    preprocess.main(["--data", data, "--height", "32", "--width", "32"])
    flags = ["--filters", "4", "--depth", "2", "--batch-size", "4", "--epochs", "12"]
    train.main(["--data", data, "--out", weights, "--learning-rate", "0.005", *flags])
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def random_measures(seed, num_frames=30):
    rng = np.random.default_rng(seed)
    shape = (num_frames, len(THRESHOLDS))
    return rng.random(shape), rng.random(shape), rng.random(num_frames)


@pytest.mark.parametrize("seed", range(3))
def test_no_limits_tried_score_higher(seed):
    dice, area, presence = random_measures(seed)
    empty = np.arange(30) % 2 == 0
    dice[empty] = 0  # any mask is wrong there
    best, score = limits.search(Measures(dice, area, presence, empty))
    for k in range(len(THRESHOLDS)):
        for smallest in np.linspace(0, 1, 23):
            for least in np.linspace(0, 1, 23):
                shown = (area[:, k] >= smallest) & (presence >= least)
                value = np.where(shown, dice[:, k], empty).mean()
                # limits between two values tried, at most one frame in 30 / 40 apart
                assert value <= score + 1 / 30 + 1e-9
        assert score >= np.where(True, dice[:, k], empty).mean()
    found = limits.score_at(Measures(dice, area, presence, empty), best)
    assert found.mean() == pytest.approx(score)


def test_limits_that_separate_empty_frames_are_found():
    dice, area, presence = random_measures(0)
    empty = presence < 0.4
    dice[empty] = 0
    dice[~empty] = 0.5
    dice[~empty, 4] = 0.9
    best, score = limits.search(Measures(dice, area, presence, empty))
    assert best.threshold == THRESHOLDS[4]
    assert presence[empty].max() < best.least_presence <= presence[~empty].min()
    assert best.smallest_area == 0
    assert score == pytest.approx(np.where(empty, 1, 0.9).mean())


def test_the_script_raises_the_score_and_says_on_which_subjects(copy, capsys):
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    record = copy / "weights" / "unet.json"
    before = json.loads(record.read_text())
    tune.main(flags)
    after = json.loads(record.read_text())
    changed = {name for name in after if after[name] != before.get(name)}
    limits = {"threshold", "smallest_area", "least_presence", "limits_searched_on"}
    assert changed <= {*limits, "calibration"}
    split = json.loads((copy / "data" / "preprocess.json").read_text())
    assert after["limits_searched_on"] == split["val"]["subjects"]
    text = capsys.readouterr().out
    old, new = (
        float(re.search(rf"([\d.]+) {w}", text)[1]) for w in ("before", "with these")
    )
    assert new >= old
    predict.main([*flags, "--out", str(copy / "predictions")])
    text = capsys.readouterr().out
    assert "were searched on subjects" in text
    challenge = text.split("challenge_dice")[1].split()[0]
    assert float(challenge) == pytest.approx(new, abs=1e-3)


def test_limits_searched_on_other_peoples_subjects_are_not_held_against_scores(trained):
    split = read_split(trained / "data")
    split = dataclasses.replace(
        split,
        extract={"imgs_train.npy": "a"},
        val=dataclasses.replace(split.val, subjects=[1, 2]),
    )
    record = dataclasses.replace(
        networks.read_trained(trained / "weights" / "unet.h5"),
        limits_searched_on=[2, 3],
        trained_on=[Frames("a", [4], frames=1, frames_with_nerve=1)],
    )
    assert held_out.searched_on(record, split) == [2]
    # their subject 2 is another
    others = [Frames("b", [4], frames=1, frames_with_nerve=1)]
    record = dataclasses.replace(record, trained_on=others)
    assert held_out.searched_on(record, split) == []


def test_the_smallest_area_is_measured_as_it_is_applied():
    # 40 x 20 pixels of nerve in a frame of 80 x 80, letterboxed into an array that stands
    # for 1.5 times its width: 800 / 6,400 of the frame, 2 / 3 of that of the array
    truth = np.zeros((80, 80), np.uint8)
    truth[:40, :20] = 1
    geometry = Geometry.of(truth.shape, (32, 48), 1.5, {})
    boxed = geometry.fit(truth * 255) / np.float32(255)
    row = limits.measure_frame(truth, geometry, boxed)
    share = row.area[THRESHOLDS.index(0.5)]
    assert share == pytest.approx(800 / 6400 * 2 / 3, rel=0.05)
    for smallest, expected in ((share, True), (share + 1e-6, False)):
        least = Limits(threshold=0.5, smallest_area=smallest, least_presence=0.0)
        found = inference.to_mask(boxed, geometry, least)
        assert found.any() == expected


def test_limits_of_several_folds_go_where_they_are_asked_to(copy):
    data, weights = str(copy / "data"), str(copy / "weights" / "unet.h5")
    flags = ["--data", data, data, "--weights", weights, weights]
    other = copy / "weights" / "all.json"
    shutil.copy(copy / "weights" / "unet.json", other)
    before = (copy / "weights" / "unet.json").read_bytes()
    tune.main([*flags, "--into", str(other)])
    assert (copy / "weights" / "unet.json").read_bytes() == before
    tune.main(["--data", data, "--weights", weights])
    one = json.loads((copy / "weights" / "unet.json").read_text())
    two = json.loads(other.read_text())
    for name in ("threshold", "smallest_area", "least_presence"):
        assert two[name] == one[name]  # the same frames twice


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "a", "b"], "2 --data and 1 --weights"),
        (["--data", "a", "b", "--weights", "c", "d"], "name the .json to write"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(flags, message, capsys):
    with pytest.raises(SystemExit):
        tune.main(flags)
    assert message in capsys.readouterr().err


def test_presence_is_the_dice_to_expect():
    probability = np.zeros((20, 20), np.float32)
    probability[3, :5] = [1.0, 1.0, 1.0, 0.5, 0.5]
    # 3.5 / (4 + 4): squares by sum and 1 % of 400 pixels
    assert inference.presence(probability) == pytest.approx(0.4375)
    faint = np.full((20, 20), 0.2, np.float32)  # as high a sum, and no nerve
    assert inference.presence(faint) < 0.2
    assert inference.presence(np.zeros((20, 20), np.float32)) == 0
    geometry = Geometry.of((20, 20), (20, 20), 1.0, {})
    for presence, expected in ((0.43, 5), (0.44, 0)):
        least = Limits(threshold=0.5, smallest_area=0.0, least_presence=presence)
        assert inference.to_mask(probability, geometry, least).sum() == expected


def shown(out):
    with open(out / "submission.csv", newline="") as file:
        return {row["img"] for row in csv.DictReader(file) if row["pixels"]}


def test_prevalence_keeps_that_share_of_the_surest_frames(copy, monkeypatch):
    values = [0.3, 0.9, 0.1, 0.6, 0.2, 0.8, 0.5, 0.05, 0.7, 0.4]  # of frames 1 to 10

    def predict_frames(model, frames, inputs):
        for frame, value in zip(frames, values, strict=False):
            geometry = inference.find_geometry(frame, inputs)
            probability = np.full((32, 32), value, np.float32)
            look = foreign.describe(frame)
            yield inference.Prediction(frame, geometry, probability, look=look)

    monkeypatch.setattr(inference, "predict_frames", predict_frames)
    record = copy / "weights" / "unet.json"  # nothing else empties a mask
    settings = json.loads(record.read_text()) | {"smallest_area": 0.0, "threshold": 0.0}
    record.write_text(json.dumps(settings))
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    kept = {"0": set(), "0.3": {"2", "6", "9"}, "0.5": {"2", "6", "9", "4", "7"}}
    for share, expected in {**kept, "1": set(map(str, range(1, 11)))}.items():
        out = copy / f"share{share}"
        predict.main([*flags, "--out", str(out), "--prevalence", share])
        assert shown(out) == expected
    with pytest.raises(SystemExit):
        predict.main([*flags, "--prevalence", "1.5"])


def test_prevalence_of_a_folder_of_pictures(copy, monkeypatch):
    original = inference.predict_frames

    def predict_frames(*arguments):
        # all are as sure as can be, 1.0, where there is a nerve, and would all be kept
        for found in original(*arguments):
            sure = np.float32(0.9 + found.frame.mean() / 10_000)
            yield found._replace(probability=sure * found.probability)

    monkeypatch.setattr(inference, "predict_frames", predict_frames)
    weights = str(copy / "weights" / "unet.h5")
    pictures = copy / "raw" / "test"
    (pictures / "broken.png").write_bytes(b"no picture")
    flags = ["--input", str(pictures), "--weights", weights, "--prevalence", "0.5"]
    with pytest.raises(ValueError, match="1 of 11 files"):
        predict.main([*flags, "--out", str(copy / "out")])
    with open(copy / "out" / "frames.csv", newline="") as file:
        areas = [int(row["area"]) for row in csv.DictReader(file)]
    assert len(areas) == 10
    assert sum(area > 0 for area in areas) == 5  # of 6


def test_limits_without_a_gain_are_not_written(copy, capsys):
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    tune.main(flags)
    record = copy / "weights" / "unet.json"
    before = record.read_bytes()
    tune.main(flags)
    assert "nothing is gained" in capsys.readouterr().out
    assert record.read_bytes() == before


def test_several_networks_are_judged_under_the_limits_of_the_record_written(
    copy, monkeypatch, capsys
):
    weights, data = copy / "weights", str(copy / "data")
    shutil.copy(weights / "unet.h5", weights / "other.h5")
    record = {**json.loads((weights / "unet.json").read_text()), "smallest_area": 0.0}
    # one network is best at a threshold of 0.3, the other at 0.7, both are good at 0.5
    at = {0.3: [0.9, 0.8, 0.1], 0.7: [0.1, 0.8, 0.9]}
    for name, threshold in (("unet", 0.3), ("other", 0.7)):
        text = json.dumps({**record, "threshold": threshold})
        (weights / f"{name}.json").write_text(text)

    def measure(predictions, masks):
        dice = np.zeros((4, len(THRESHOLDS)))
        columns = [THRESHOLDS.index(t) for t in (0.3, 0.5, 0.7)]
        dice[:, columns] = at[predictions]
        return Measures(dice, dice + 1, np.ones(4), np.zeros(4, bool))

    def load_network(build_network, weights, trained, precision):
        return trained.limits.threshold

    monkeypatch.setattr(tune, "load_network", load_network)
    monkeypatch.setattr(tune, "predict_frames", lambda threshold, *_: threshold)
    monkeypatch.setattr(tune, "crop_pair", lambda *_: [])
    monkeypatch.setattr(tune, "measure", measure)
    flags = ["--weights", str(weights / "unet.h5"), str(weights / "other.h5")]
    tune.main(["--data", data, data, *flags, "--into", str(weights / "unet.json")])
    # 0.3 for both: 0.9 and 0.1; each at its own would be 0.9, which one record cannot say
    assert "Dice 0.5000 before, 0.8000 with" in capsys.readouterr().out
    assert json.loads((weights / "unet.json").read_text())["threshold"] == 0.5


def test_frames_without_any_nerve_are_no_ground_for_limits(copy, monkeypatch):
    original = tune.read_validation

    def without_nerve(trained, data):
        *rest, masks = original(trained, data)
        return *rest, masks * 0

    monkeypatch.setattr(tune, "read_validation", without_nerve)
    record = copy / "weights" / "unet.json"
    before = record.read_bytes()
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    with pytest.raises(ValueError, match=r"none of the \d+ validation frames shows"):
        tune.main(flags)
    assert record.read_bytes() == before


def test_a_record_without_limits_is_refused_before_the_search(copy):
    (copy / "bare.json").write_text("{}")
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    with pytest.raises(ValueError, match=r"bare\.json gives no recipe"):
        tune.main([*flags, "--into", str(copy / "bare.json")])
