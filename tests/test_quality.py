"""benchmarks/quality.py at a tiny size: what a run leaves, and what it says of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, make_raw

from nerve.files import atomic
from nerve.frames import split
from nerve.prediction.networks import read_trained

sys.path.insert(0, str(ROOT / "benchmarks"))

import quality

from recipes import CLASSIC

TINY = replace(CLASSIC, height=16, width=16, filters=2, depth=2, batch_size=5, epochs=2)
LINE = {"fold": 0, "seed": 0, "cpu_seconds": 1.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results' lines of a run, and the folder that it worked in."""
    folder = tmp_path_factory.mktemp("quality")
    raw = make_raw(folder / "raw", subjects=5, frames=5, test=0)
    (raw / "test").rmdir()
    subjects = np.repeat(np.arange(1, 6), 5)
    nerve = np.arange(25) * 2 % 5 < 3  # as make_raw draws them
    folds = {}
    for fold in range(5):
        held = split.split_frames("subject", subjects, nerve, 5, fold, 0)
        folds[fold] = np.unique(subjects[held]).tolist()
    (folder / "folds.json").write_text(json.dumps(folds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "FOLDS", folder / "folds.json")
        patch.setattr(quality, "RESULTS", folder / "results.jsonl")
        patch.setitem(quality.ROWS, "tiny", quality.Row(TINY, soft_masks=False))
        flags = ["--raw", str(raw), "--work", str(folder / "work"), "--rows", "tiny"]
        for _ in range(2):  # the second finds both runs done
            quality.main([*flags, "--folds", "0", "1"])
        start = ["--init", str(folder / "work" / "tiny_fold1_seed0.h5")]
        quality.main([*flags, "--folds", "1", *start])
        lines = quality.read_results()
    return lines, folder


def test_a_run_leaves_one_line_with_the_dice_of_each_frame_with_a_nerve(results):
    lines, folder = results
    after = "tiny, after tiny_fold1_seed0"
    runs = [(line["row"], line["fold"]) for line in lines]
    assert runs == [("tiny", 0), ("tiny", 1), (after, 1)]
    folds = json.loads((folder / "folds.json").read_text())
    for line in lines:
        subjects = {int(name.split("_")[0]) for name in line["dice"]}
        assert subjects == set(folds[str(line["fold"])])
        assert len(line["dice"]) == 3  # of five frames
        mean = np.mean(list(line["dice"].values()))
        assert line["mean_dice"] == pytest.approx(mean, abs=1e-4)
        assert line["cpu_seconds"] > 0
        assert line["epochs"] == 2


def test_a_run_may_start_from_weights(results):
    work = results[1] / "work"
    record = (work / "tiny_after_tiny_fold1_seed0_fold1_seed0.json").read_text()
    start = work / "tiny_fold1_seed0.h5"
    assert json.loads(record)["init_sha256"] == atomic.sha256(start)


def test_the_last_epoch_is_scored_whatever_its_dice(results):
    record = json.loads((results[1] / "work" / "tiny_fold0_seed0.json").read_text())
    assert record["keep"] == "last"
    assert record["kept"]["epoch"] == 2


def test_a_fold_of_other_subjects_than_the_file_says_is_refused(results, monkeypatch):
    other = results[1] / "other.json"
    other.write_text(json.dumps({"0": [99]}))
    monkeypatch.setattr(quality, "FOLDS", other)
    flags = ["--height", "16", "--width", "16"]
    with pytest.raises(ValueError, match="fold 0 holds other subjects"):
        quality.prepare(results[1] / "work", flags, 0)


def test_the_table_pools_the_frames_of_a_rows_runs(capsys):
    lines = [
        {**LINE, "row": "a", "dice": {"1_1": 0.0, "1_2": 0.5}},
        {**LINE, "row": "a", "dice": {"2_1": 1.0, "2_2": 1.0, "2_3": 1.0}},
        {**LINE, "row": "b", "dice": {"1_1": 0.2, "2_1": 0.8}},
        {**LINE, "row": "b", "dice": {"1_1": 0.4, "2_1": 0.8}, "seed": 1},
    ]
    quality.summarize(lines)
    _, first, missed, second, none = capsys.readouterr().out.splitlines()
    # frames (0 + 0.5 + 3) / 5 = 0.7, IoU (0 + 1 / 3 + 3) / 5, subjects (0.25 + 1) / 2
    expected = ["a", "2", "0.7000", "1.0000", "0.667", "0.6250", "20.00%", "1"]
    assert first.split() == expected
    assert missed.strip() == "frames below 0.1 by subject: 1: 1"
    # two seeds: 0.3 and 0.8 beside 0 and 1, so +0.3 and -0.2; resampled by subject, the
    # mean lies between these two
    assert second.endswith("+0.050 (-0.200 to +0.300)")
    assert none.endswith("none")


def test_ceilings_of_frames_that_come_twice(results):
    values = quality.ceilings(results[1] / "work" / "extract")
    assert list(values)[0] == "best constant mask"
    assert 0 < values["best constant mask"] < 1


def test_known_probabilities_are_scored_as_a_networks_are(results, tmp_path):
    work = results[1] / "work"
    data = next(work.glob("data_*_fold0"))
    weights, kept = work / "tiny_fold0_seed0.h5", tmp_path / "kept.npz"
    dice = quality.score_fold(weights, data, kept)
    trained = read_trained(weights)
    limits = replace(trained.limits, smallest_area=0.0)
    model = quality.Predicted(np.load(kept)["probabilities"])
    out = tmp_path / "again.npz"
    again = quality.score_network(model, trained.inputs, limits, data, out)
    assert again == pytest.approx(dice, abs=2e-3)  # kept in half precision
