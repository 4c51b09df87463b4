"""benchmarks/: each runs at a tiny size; what it compares with may be absent."""

import csv
import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import ROOT, make_raw, slow_encode, write_table

sys.path.insert(0, str(ROOT / "benchmarks"))

import clip_scores
import growth
import keras_step
import keyframes
import measure
import phantom_match
import prediction
import round_trip
import run_length_speed
import stages
import stand_ins
import training_step
import video
import whole

import extract_data
import preprocess
from model import build_network, build_unet
from nerve.backend import keras
from nerve.files import run_length
from recipes import CLASSIC, RECIPES

SMALL_STEP = ["--height", "32", "--width", "32", "--filters", "2"]
SMALL_STEP += ["--batch-size", "2", "--steps", "2"]


def run(benchmark, tmp_path, *flags):
    """Run a benchmark once; return the line of results that it kept."""
    results = tmp_path / "results.jsonl"
    benchmark.main([*map(str, flags), "--rounds", "1", "--results", str(results)])
    (line,) = results.read_text().splitlines()
    return json.loads(line)


# ---------------------------------------------------------------- what they share


def test_a_ratio_is_of_the_same_round():
    # rounds of 4 / 2 and 12 / 3: 2 and 4, the median is 3; of the medians, 8 / 2.5
    samples = {
        "one": [{"seconds": 4.0}, {"seconds": 12.0}],
        "other": [{"seconds": 2.0}, {"seconds": 3.0}],
    }
    results = measure.summarize(samples, "seconds")
    assert results["one"] == {"seconds": 8.0, "ratio": 1.0}
    assert results["other"] == {"seconds": 2.5, "ratio": 3.0}


def test_of_memory_the_most_counts():
    samples = {"one": [{"seconds": 1.0, "peak_anonymous_mb": n} for n in (2.0, 9.0)]}
    assert measure.summarize(samples, "seconds")["one"]["peak_anonymous_mb"] == 9.0


def test_a_failing_command_is_named_with_its_error():
    command = [sys.executable, "-c", "raise SystemExit('out of order')"]
    with pytest.raises(RuntimeError, match=r"SystemExit.* failed: out of order"):
        measure.run(command)


def test_an_absent_package_is_said_and_left_out(capsys):
    assert not measure.has("no-such-package", "its row")
    expected = "left out, since no-such-package is not installed: its row\n"
    assert capsys.readouterr().out == expected


def test_masks_have_the_challenges_share_of_empty_ones_and_areas():
    masks = measure.draw_masks(100, 105, 145)
    assert masks.any((1, 2)).sum() == 100 - 59  # 58.8 % are empty
    areas = [mask.mean() for mask in masks if mask.any()]
    assert 0.025 < np.median(areas) < 0.033  # 6,980 of 420 x 580 pixels are 2.87 %


# ---------------------------------------------------------------- each benchmark


def test_stages_measures_extraction_and_preprocessing(tmp_path):
    raw = make_raw(tmp_path / "raw")
    line = run(stages, tmp_path, "--raw", raw, "--data", tmp_path / "data")
    assert line["files"] == 12 * 2 + 3
    assert list(line["results"]["preprocess"]) == [
        "bare cv2.resize, all cores",
        "preprocess.py",
    ]
    assert line["machine"]["cores"] >= 1
    assert not (tmp_path / "data").exists()


def test_a_phantom_compared_with_itself_is_the_same(tmp_path):
    raw = make_raw(tmp_path / "raw", height=420, width=580)
    rows = phantom_match.main(["--phantom", str(raw), "--real", str(raw)])
    for name, ours, theirs in rows[:-1]:
        assert ours == theirs, name


def test_the_snippets_write_what_the_slow_reference_writes():
    masks = [*measure.draw_masks(6, 42, 58), np.ones((42, 58), np.uint8)]
    assert sum(mask.any() for mask in masks) == 3  # 4 of 6 are empty
    functions = run_length_speed.encoders()
    del functions["loop over all pixels"]
    for mask in masks:
        expected = slow_encode(mask)
        assert run_length_speed.loop(mask) == expected
        for function in functions.values():
            found = function(mask)
            assert not isinstance(found, str) or found == expected


def test_an_encoder_that_writes_something_else_is_refused():
    wrong = {"wrong": lambda mask: run_length.encode(mask) + " 1 1"}
    with pytest.raises(ValueError, match=r"^wrong: ' 1 1'; expected ''"):
        run_length_speed.check(wrong, np.zeros((1, 4, 4), np.uint8))


def test_run_length_speed_compares_the_encoders(tmp_path):
    flags = ["--masks", 5, "--height", 42, "--width", 58]
    line = run(run_length_speed, tmp_path, *flags)
    assert {"run_length.encode", "loop over all pixels"} < set(line["results"])


def test_growth_measures_batches_and_prediction(tmp_path):
    sizes = ["--size", 16, "--filters", 1, "--work", tmp_path]
    line = run(growth, tmp_path, "--frames", 8, *sizes)
    assert list(line["results"]) == [f"{task}, 8 frames" for task in growth.TASKS]
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_step_computes_each_convolution_three_times_and_the_first_twice():
    # one filter, 16 x 16, one level; 2 operations for each kernel weight and pixel:
    # down 2 x 9 x 256 = 4,608 twice; bottom 2 x 18 x 64 = 2,304 and 2 x 36 x 64 = 4,608;
    # grow 2 x 8 x 64 = 1,024, from 8 x 8; up 2 x 18 x 256 = 9,216 and 4,608; output 512
    model = build_unet(16, 16, filters=1, depth=1)
    rest = 4608 + 2304 + 4608 + 1024 + 9216 + 4608 + 512
    expected = 5 * (2 * 4608 + 3 * rest) / 1e9
    assert keras_step.step_gflop(model, 5) == pytest.approx(expected)


@pytest.fixture
def few_convolutions(monkeypatch):
    """The modern recipe's step in this process, of a network with few to compile."""
    original = measure.take_turns

    def take_turns(commands, rounds):
        if "modern recipe" not in commands:
            return original(commands, rounds)
        changes = {"height": 32, "width": 32, "filters": 2, "batch_size": 2}
        result = keras_step.measure_modern(changes, 2, 1)
        return {"modern recipe": [json.loads(json.dumps(result))]}

    monkeypatch.setattr(measure, "take_turns", take_turns)


def test_a_convolution_by_channel_runs_alone_both_ways():
    layer = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)
    keras.Model(x := keras.layers.Input((8, 6, 4)), layer(x))
    output, (to_input, to_kernel) = keras_step.convolution_alone(layer, 5, False)()
    assert output.shape == (5, 4, 3, 4)
    assert to_input.shape == (5, 8, 6, 4)
    assert to_kernel.shape == (3, 3, 4, 1)


def test_training_step_measures_ours_beside_stock_keras(tmp_path, few_convolutions):
    product = "32 x 32 product, float32, TensorFlow"
    flags = [*SMALL_STEP, "--rows", "train.py", product, "--product-size", 32]
    line = run(training_step, tmp_path, *flags)
    classic, modern = line["results"]["classic"], line["results"]["modern"]
    ours, stock = classic[training_step.OURS], classic[training_step.STOCK]
    assert ours["gflop"] == stock["gflop"] > 0
    assert classic[product]["gflop"] == pytest.approx(2 * 32**3 / 1e9)
    seconds = [row["seconds"] for row in modern["convolutions"].values()]
    network = build_network(replace(RECIPES["modern"], filters=2), 32, 32)
    assert len(seconds) == len(keras_step.convolutions(network))
    assert seconds == sorted(seconds, reverse=True)


def test_prediction_measures_each_engine(tmp_path, monkeypatch):
    prepare = prediction.prepare

    def prepare_both_and_measure_one(*how):  # the other is measured alike
        label, path = next(iter(prepare(*how).items()))
        return {label: path}

    monkeypatch.setattr(prediction, "prepare", prepare_both_and_measure_one)
    sizes = ["--height", 40, "--width", 50, "--filters", 4]
    flags = [*sizes, "--frames", 3, "--calls", 2, "--precisions", "float32"]
    line = run(prediction, tmp_path, *flags)
    assert list(line["results"]) == ["whole", "4 filters"]
    for rows in line["results"].values():
        assert {"stock Keras, float32", "predict.py, float32"} <= set(rows)


def test_video_compares_shares_of_smoothing_and_clips_are_scored_whole(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(video, "SUBJECTS", 1)
    monkeypatch.setattr(video, "FRAMES", 5)
    weights = tmp_path / "unet.h5"
    trained = measure.untrained(replace(CLASSIC, filters=2), prediction.NOISE)
    prediction.write_untrained(weights, trained)
    line = run(video, tmp_path, "--weights", weights)
    assert list(line["results"]) == ["0", "0.3", "0.5", "0.7", "0.85"]
    monkeypatch.setattr(clip_scores, "SUBJECTS", 2)
    monkeypatch.setattr(clip_scores, "FRAMES", 5)
    (tmp_path / "clips").mkdir()
    line = run(clip_scores, tmp_path / "clips", "--weights", weights)
    for summary in line["results"].values():  # one sweep with a nerve, one without
        assert (summary["clips"], summary["clips_with_nerve"]) == (2, 1)
    (tmp_path / "keys").mkdir()
    sizes = ["--subjects", 1, "--frames", 9, "--every", 4]
    line = run(keyframes, tmp_path / "keys", "--weights", weights, *sizes)
    ways = line["results"]
    assert {"keyframes", "interpolation", "network alone"} < set(ways)
    assert all(0 <= row["between"] <= 1 for row in ways.values())


def test_near_identical_frames_stand_in_for_raters(tmp_path):
    # frames 1 and 3 of subject 1 are the same, 2 is nearly so, those of others differ; each
    # mask has columns of its own
    train, masks = tmp_path / "raw" / "train", {}
    make_raw(tmp_path / "raw", subjects=4, frames=3, test=1)
    frame = cv2.imread(str(train / "1_1.tif"), cv2.IMREAD_GRAYSCALE)
    for image in (1, 2, 3):
        masks[image] = np.zeros_like(frame)
        masks[image][:, image : 2 * image] = 255
        frame[:4, :4] = 90 if image == 2 else 100
        cv2.imwrite(str(train / f"1_{image}.tif"), frame)
        cv2.imwrite(str(train / f"1_{image}_mask.tif"), masks[image])
    with open(tmp_path / "raw" / "train_masks.csv", newline="") as file:
        columns, *rows = csv.reader(file)
    for row in rows:
        if row[0] == "1":
            row[2] = slow_encode(masks[int(row[1])])
    write_table(tmp_path / "raw" / "train_masks.csv", columns, rows)
    data = str(tmp_path / "data")
    extract_data.main(["--raw", str(tmp_path / "raw"), "--data", data])
    flags = ["--height", "32", "--width", "32", "--folds", "2", "--fold", "1"]
    preprocess.main(["--data", data, *flags])
    stand_ins.main(["--data", data, "--out", str(tmp_path / "raters")])
    read = {}
    for rater in (1, 2, 3):
        with open(tmp_path / "raters" / f"{rater}.csv", newline="") as file:
            read[rater] = {r["img"]: r["pixels"] for r in csv.DictReader(file)}
    each = {str(image): slow_encode(mask) for image, mask in masks.items()}
    assert read[1] == each
    # the frame that is like 1 to the pixel is 3
    assert (read[2]["1"], read[3]["1"]) == (each["3"], each["2"])


def test_stock_keras_is_extrapolated_but_for_its_start(monkeypatch, tmp_path):
    output = json.dumps({"read": 2.0, "start": 8.0, "fit": 30.0})
    monkeypatch.setattr(measure, "run", lambda command: (40.0, 500.0, f"...\n{output}\n"))
    rows = whole.run_stock(tmp_path, 0.1, 10)
    seconds = {name: row["seconds"] for name, row in rows.items()}
    # a tenth: 20 and 300 of all frames; TensorFlow starts once
    expected = {"stock: read": 20, "stock: start": 8, "stock: fit": 300, "stock: all": 328}
    assert seconds == pytest.approx(expected)
    assert rows["stock: fit"]["share"] == pytest.approx(300 / 328)


def test_the_whole_is_the_sum_of_its_steps(monkeypatch):
    times = iter([(1.0, 50.0, ""), (3.0, 700.0, "")])
    monkeypatch.setattr(measure, "run", lambda command: next(times))
    rows = whole.run_steps({"extract_data.py": [], "train.py": []})
    assert (rows["all"]["seconds"], rows["all"]["peak_anonymous_mb"]) == (4.0, 700.0)
    assert [row["share"] for row in rows.values()] == [0.25, 0.75, 1.0]


def test_masks_come_back_from_outlines(tmp_path):
    frames, masks = np.zeros((2, 6, 60, 80), np.uint8)
    masks[1:4, 20:40, 30:60] = 255
    for name, array in (("imgs_train", frames), ("imgs_mask_train", masks)):
        np.save(tmp_path / f"{name}.npy", array)
    line = run(round_trip, tmp_path, "--data", tmp_path)
    for row in line["results"].values():
        assert row["lowest"] == 1
        assert row["points"] == 4  # of a rectangle
