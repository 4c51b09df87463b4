"""benchmarks/presence.py at a tiny size: what it trains on, and what it says of it."""

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, make_raw, run_here

sys.path.insert(0, str(ROOT / "benchmarks"))

import presence
import quality
import transfer

from recipes import CLASSIC

TINY = replace(CLASSIC, height=32, width=32, filters=2, depth=2, batch_size=64, epochs=1)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Flags of a run that takes seconds; its results go to `tmp_path`."""
    monkeypatch.setattr(quality, "cpu_seconds", run_here)
    monkeypatch.setitem(quality.ROWS, "modern", quality.Row(TINY))
    monkeypatch.setattr(transfer, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(quality, "FOLDS", tmp_path / "folds.json")
    (tmp_path / "folds.json").write_text(json.dumps({"0": [1, 2]}))
    return ["--work", str(tmp_path / "work")]


def test_area_under_the_curve():
    values = np.array([0.1, 0.4, 0.35, 0.8])
    positive = np.array([False, False, True, True])
    assert presence.area_under_curve(values, positive) == 0.75  # 3 of 4 pairs


def test_a_histogram_tells_bright_frames_from_dark_ones():
    rng = np.random.default_rng(0)
    dark, bright = (rng.integers(low, low + 60, (20, 8, 8)) for low in (0, 120))
    frames, labels = np.concatenate([dark, bright]), np.arange(40) >= 20
    values = presence.histogram_scores(frames[::2], labels[::2], frames[1::2])
    assert presence.area_under_curve(values, labels[1::2]) == 1


def test_presence_is_scored_beside_a_histogram(tiny, tmp_path, monkeypatch, capsys):
    make_raw(tmp_path / "phantom", height=420, width=580, subjects=2, frames=5, test=6)
    make_raw(tmp_path / "real", subjects=2, frames=5, test=0, seed=1)
    (tmp_path / "real" / "test").rmdir()
    monkeypatch.setitem(quality.ROWS, "classic", quality.Row(TINY, soft_masks=False))
    monkeypatch.setattr(presence, "ORIGINALS", ((1, 1), (1, 2), (1, 4), (1, 5)))
    folders = ["--phantom", str(tmp_path / "phantom"), "--raw", str(tmp_path / "real")]
    presence.main(["presence", *folders, *tiny])
    runs = {line["run"]: line for line in transfer.results()}
    assert list(runs) == [
        "presence, modern",
        "presence, classic",
        "presence, histogram",
    ]
    for line in runs.values():
        assert 0 <= line["presence_auc"] <= 1
    with open(tmp_path / "phantom" / "test_truth.csv", newline="") as file:
        empty = [not row["pixels"] for row in csv.DictReader(file)]
    summary = runs["presence, modern"]["summary"]
    assert summary["predicting_nothing"] == pytest.approx(np.mean(empty))
    assert "presence, classic: presence_auc" in capsys.readouterr().out


def test_difficulty_is_compared_on_nerves_of_as_many_subjects(tiny, tmp_path, monkeypatch):
    make_raw(tmp_path / "phantom", height=420, width=580, subjects=2, frames=5, test=6)
    make_raw(tmp_path / "real", subjects=5, frames=5, test=0, seed=1)
    (tmp_path / "real" / "test").rmdir()
    monkeypatch.setattr(presence, "DIFFICULTY_FOLDS", (0,))
    folders = ["--phantom", str(tmp_path / "phantom"), "--raw", str(tmp_path / "real")]
    for _ in range(2):  # the second finds all done
        presence.main(["difficulty", *folders, *tiny])
    phantom, real = transfer.results()
    with open(tmp_path / "phantom" / "test_truth.csv", newline="") as file:
        shown = [bool(row["pixels"]) for row in csv.DictReader(file)]
    images = {int(name.split("_")[1]) for name in phantom["dice"]}
    assert images == {image for image, nerve in enumerate(shown, 1) if nerve}
    assert {name.split("_")[0] for name in real["dice"]} == {"1", "2"}
    for name in ("difficulty_phantom_modern_2", "difficulty_0_modern_2"):
        split = json.loads((tmp_path / f"work/{name}/preprocess.json").read_text())
        assert len(split["train"]["subjects"]) == 2
        assert split["train"]["with_nerve"] == len(split["train"]["rows"])
