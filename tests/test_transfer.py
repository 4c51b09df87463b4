"""benchmarks/transfer.py at a tiny size: what it trains on, and what it says of it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, make_raw, run_here

sys.path.insert(0, str(ROOT / "benchmarks"))

import quality
import transfer

from recipes import CLASSIC

TINY = replace(CLASSIC, height=32, width=32, filters=2, depth=2, batch_size=64, epochs=1)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Flags of a run that takes seconds; its results go to `tmp_path`."""
    monkeypatch.setattr(transfer, "DRAWS", 1)
    monkeypatch.setattr(quality, "cpu_seconds", run_here)
    monkeypatch.setitem(quality.ROWS, "modern", quality.Row(TINY))
    monkeypatch.setattr(transfer, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(quality, "FOLDS", tmp_path / "folds.json")
    (tmp_path / "folds.json").write_text(json.dumps({"0": [1, 2]}))
    return ["--work", str(tmp_path / "work"), "--epochs", "1"]


def test_names_of_rows_tell_them_apart():
    stems = {transfer.stem_of("real5", 0, row) for row in quality.ROWS}
    assert len(stems) == len(quality.ROWS)
    assert "real5_0_MONAI_BasicUNet_10_epochs" in stems


def test_shuffled_blocks_keep_greys_and_what_lies_within_a_block():
    frame = np.arange(35 * 48, dtype=np.float32).reshape(35, 48)
    erased = transfer.erase(frame, np.random.default_rng(0))
    assert sorted(erased.ravel()) == sorted(frame.ravel())
    assert not np.array_equal(erased, frame)
    np.testing.assert_array_equal(erased[32:], frame[32:])  # not a whole block
    corner = erased[:16, :16]
    np.testing.assert_array_equal(corner - corner[0, 0], frame[:16, :16])


def test_phantom_weights_are_scored_on_real_frames_and_started_from(tiny, tmp_path):
    make_raw(tmp_path / "phantom", subjects=2, frames=5, test=2)
    make_raw(tmp_path / "real", subjects=8, frames=5, test=0, seed=1)
    (tmp_path / "real" / "test").rmdir()
    folders = ["--phantom", str(tmp_path / "phantom"), "--raw", str(tmp_path / "real")]
    for _ in range(2):  # the second finds all done
        transfer.main(["phantom", *folders, *tiny])
    lines = {(line["run"], line["repeat"]): line for line in transfer.results()}
    assert len(lines) == 3 + 2 * transfer.DRAWS == len(transfer.results())
    assert len(lines["phantom nerves on real", 0]["dice"]) == 24  # 3 of 5 of 40
    few = lines["5 subjects", 0]
    assert {name.split("_")[0] for name in few["dice"]} == {"1", "2"}
    split = json.loads((tmp_path / "work/real5_0_modern/preprocess.json").read_text())
    assert len(split["train"]["subjects"]) == 5
    assert not {1, 2} & set(split["train"]["subjects"])
    x = np.load(tmp_path / "work/real5_0_modern/x_train.npy")
    assert len(x) == 25
    assert x.mean() == pytest.approx(0, abs=1e-4)
    assert x.std() == pytest.approx(1, abs=1e-4)
    record = json.loads(
        (tmp_path / "work/5_subjects_after_phantoms_0_modern.json").read_text()
    )
    assert len(record["trained_on"]) == 2
