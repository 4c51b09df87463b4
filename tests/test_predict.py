"""Prediction: masks, scores, pictures, warnings, refusals; and the chain once through."""

import csv
import dataclasses
import json
import shlex
import shutil

import cv2
import numpy as np
import pytest
from conftest import make_raw, run_script, slow_decode
from PIL import Image

import evaluate
import extract_data
import predict
import preprocess
import train
from model import build_network
from nerve.files import atomic
from nerve.frames import foreign, overlays
from nerve.frames.geometry import Geometry
from nerve.prediction import advice, inference, networks
from nerve.records import Frames, Inputs, Limits, Trained
from nerve.scoring import scores
from recipes import CLASSIC, MODERN


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder with raw/, data/, weights/ and predictions/, each made by its `main`."""
    folder = tmp_path_factory.mktemp("chain")
    make_raw(folder / "raw", subjects=5, frames=8, test=7)
    data, weights = str(folder / "data"), str(folder / "weights" / "unet.h5")
    extract_data.main(["--raw", str(folder / "raw"), "--data", data])
    preprocess.main(["--data", data, "--height", "32", "--width", "32"])
    flags = ["--filters", "4", "--depth", "2", "--batch-size", "4", "--epochs", "25"]
    train.main(["--data", data, "--out", weights, "--learning-rate", "0.005", *flags])
    flags = ["--out", str(folder / "predictions"), "--overlays", "3"]
    predict.main(["--data", data, "--weights", weights, *flags])
    return folder


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def predict_again(chain, out, *flags):
    weights = str(chain / "weights" / "unet.h5")
    predict.main(["--weights", weights, "--out", str(out), *flags])


def test_the_whole_chain_finds_bright_ovals(chain):
    predicted = str(chain / "predictions" / "submission.csv")
    size = ["--height", "64", "--width", "80"]
    evaluate.main([predicted, str(chain / "raw" / "test_truth.csv"), *size])
    summary = json.loads((chain / "predictions" / "submission.scores.json").read_text())
    assert summary["frames"] == 7
    assert summary["challenge_dice"] > summary["predicting_nothing"] + 0.2
    assert summary["nerve_dice"] > 0.5


def test_the_submission_lists_every_test_frame_in_order(chain):
    rows = read_csv(chain / "predictions" / "submission.csv")
    assert list(rows[0]) == ["img", "pixels"]
    assert [row["img"] for row in rows] == [str(k) for k in range(1, 8)]


def test_masks_are_those_of_the_probabilities_at_the_frames_own_size(chain, tmp_path):
    data = str(chain / "data")
    predict_again(chain, tmp_path, "--data", data, "--precision", "float32")
    weights = chain / "weights" / "unet.h5"
    trained = networks.read_trained(weights)
    model = networks.load_network(build_network, weights, trained)
    frames = np.load(chain / "data" / "imgs_test.npy")
    for row, frame in zip(read_csv(tmp_path / "submission.csv"), frames, strict=True):
        small = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA)
        x = (small - np.float64(trained.inputs.mean)) / trained.inputs.standard_deviation
        p = np.asarray(model(x[None, ..., None].astype(np.float32)))[0, ..., 0]
        large = cv2.resize(p, (80, 64), interpolation=cv2.INTER_LINEAR)
        expected = large >= 0.5
        if expected.sum() < trained.limits.smallest_area * 64 * 80:
            expected[:] = False
        found = slow_decode(row["pixels"], 64, 80) > 0
        close = np.abs(large - 0.5) < 1e-4  # rounding may tip these
        np.testing.assert_array_equal(found[~close], expected[~close])


def test_bfloat16_predicts_the_same_masks_but_for_a_few_pixels(chain, tmp_path):
    data = str(chain / "data")
    masks = {}
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        predict_again(chain, out, "--data", data, "--precision", precision)
        rows = read_csv(out / "submission.csv")
        masks[precision] = [slow_decode(row["pixels"], 64, 80) for row in rows]
    for one, other in zip(*masks.values(), strict=True):
        assert scores.dice(one, other) > 0.97


@pytest.fixture(scope="module")
def two(chain, tmp_path_factory):
    """Two copies of the trained weights, the second with another scaling."""
    folder = tmp_path_factory.mktemp("two")
    record = json.loads((chain / "weights" / "unet.json").read_text())
    for name, mean in (("one", record["mean"]), ("other", record["mean"] + 30)):
        shutil.copy(chain / "weights" / "unet.h5", folder / f"{name}.h5")
        (folder / f"{name}.json").write_text(json.dumps({**record, "mean": mean}))
    return folder / "one.h5", folder / "other.h5"


def test_several_weights_give_the_mean_probability_each_with_its_own_scaling(chain, two):
    records = [networks.read_trained(path) for path in two]
    frames = np.load(chain / "data" / "imgs_test.npy")

    def predicted(model, record):
        found = inference.predict_frames(model, frames, record.inputs)
        return [each.probability for each in found]

    alone = [
        predicted(networks.load_network(build_network, path, record), record)
        for path, record in zip(two, records, strict=True)
    ]
    assert np.abs(np.subtract(*alone)).max() > 0.01  # the scaling does make a difference
    model = networks.load_networks(build_network, two, records)
    together = predicted(model, records[0])
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)


def test_several_weights_predict_from_the_command_line(chain, two, tmp_path):
    weights = ["--weights", *map(str, two)]
    predict.main(["--data", str(chain / "data"), "--out", str(tmp_path), *weights])
    rows = read_csv(tmp_path / "submission.csv")
    assert [row["img"] for row in rows] == [str(k) for k in range(1, 8)]


def test_of_several_weights_all_subjects_trained_on_count(two):
    records = [networks.read_trained(path) for path in two]
    merged = networks.merge(two, records)
    assert merged.trained_on == 2 * records[0].trained_on
    assert merged.data == records[0].data
    other = [dataclasses.replace(records[1].data[0], arrays={})]  # of another split
    records[1] = dataclasses.replace(records[1], data=other)
    assert networks.merge(two, records).data == []


def change_inputs(trained, **changes):
    return dataclasses.replace(
        trained, inputs=dataclasses.replace(trained.inputs, **changes)
    )


def test_weights_of_another_size_are_not_averaged(two):
    records = [networks.read_trained(path) for path in two]
    records[1] = change_inputs(records[1], width=48)
    with pytest.raises(ValueError, match=r"other\.h5 takes frames of 32 x 48 pixels"):
        networks.merge(two, records)


def test_weights_of_another_aspect_are_not_averaged(two):
    records = [networks.read_trained(path) for path in two]
    records[1] = change_inputs(records[1], aspect=2.0)
    with pytest.raises(ValueError, match="trained on frames of another aspect or crop"):
        networks.merge(two, records)


def test_what_others_put_beside_the_predictions_stays(chain, two, tmp_path):
    (tmp_path / "overlays").mkdir()
    mine = [f"overlays/{n}.png" for n in ("test_scan", "val_1", "val_a_1", "test_1_2")]
    stale = ["overlays/test_999.png", "overlays/val_999_1.png", "validation.scores.csv"]
    for name in (*mine, *stale, "validation_mine.csv", "submission_old.csv"):
        (tmp_path / name).write_text("mine")  # the scores are evaluate.py's, of other masks
    flags = ["--data", str(chain / "data"), "--weights", str(two[0])]
    predict.main([*flags, "--out", str(tmp_path)])
    for name in (*mine, "validation_mine.csv", "submission_old.csv"):
        assert (tmp_path / name).read_text() == "mine"
    for name in ("overlays/test_999.png", "overlays/val_999_1.png"):
        assert not (tmp_path / name).exists()  # an earlier run's
    assert not (tmp_path / "validation.scores.csv").exists()


def test_the_command_that_scores_names_the_frames_size(chain, two, tmp_path, capsys):
    flags = ["--data", str(chain / "data"), "--weights", str(two[0])]
    predict.main([*flags, "--out", str(tmp_path)])
    text = capsys.readouterr().out
    command = text.split("python evaluate.py ")[1].splitlines()[0]
    assert command.endswith("--height 64 --width 80")
    evaluate.main(shlex.split(command))  # its paths may have spaces
    assert " frames of 64 x 80 pixels scored" in capsys.readouterr().out


def test_validation_masks_and_truth_are_those_of_the_validation_rows(chain):
    split = json.loads((chain / "data" / "preprocess.json").read_text())
    rows = read_csv(chain / "predictions" / "validation.csv")
    truth = read_csv(chain / "predictions" / "validation_truth.csv")
    subjects = {row["subject"] for row in rows}
    assert subjects == {str(subject) for subject in split["val"]["subjects"]}
    table = read_csv(chain / "raw" / "train_masks.csv")
    given = {(row["subject"], row["img"]): row["pixels"] for row in table}
    assert len(rows) == len(truth) == len(split["val"]["rows"])
    for one, other in zip(rows, truth, strict=True):
        assert (one["subject"], one["img"]) == (other["subject"], other["img"])
        assert other["pixels"] == given[other["subject"], other["img"]]


def test_overlays_are_as_many_as_asked_for_and_of_the_frames_size(chain):
    paths = list((chain / "predictions" / "overlays").iterdir())
    kinds = sorted(path.name.split("_")[0] for path in paths)
    assert kinds == ["test"] * 3 + ["val"] * 3
    for path in paths:
        assert np.asarray(Image.open(path)).shape == (64, 80, 3)


def test_test_frames_alone_need_only_the_record_of_the_weights(chain, tmp_path):
    shutil.copytree(chain / "raw" / "test", tmp_path / "raw" / "test")
    data = str(tmp_path / "data")
    extract_data.main(["--raw", str(tmp_path / "raw"), "--data", data])
    predict_again(chain, tmp_path / "out", "--data", data)
    assert (tmp_path / "out" / "submission.csv").read_bytes() == (
        chain / "predictions" / "submission.csv"
    ).read_bytes()
    assert not (tmp_path / "out" / "validation.csv").exists()


def test_pictures_of_any_kind_and_size_get_masks_of_their_own_size(chain, tmp_path):
    frame = np.load(chain / "data" / "imgs_test.npy")[0]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(frame).save(pictures / "grey.png")
    colour = Image.fromarray(np.stack([frame] * 3, -1))
    colour.resize((161, 97)).save(pictures / "large.jpg")
    colour.save(pictures / "colour.bmp")
    Image.fromarray(frame).save(pictures / "lzw.TIF", compression="tiff_lzw")
    predict_again(chain, tmp_path / "out", "--input", str(pictures))
    masks = {path.stem: np.asarray(Image.open(path)) for path in
             (tmp_path / "out" / "masks").iterdir()}  # fmt: skip
    assert masks["large"].shape == (97, 161)
    assert masks["grey"].shape == (64, 80)
    np.testing.assert_array_equal(masks["grey"], masks["lzw"])
    np.testing.assert_array_equal(masks["grey"], masks["colour"])
    assert set(np.unique(np.concatenate([m.ravel() for m in masks.values()]))) == {
        0,
        255,
    }
    first = slow_decode(
        read_csv(chain / "predictions" / "submission.csv")[0]["pixels"], 64, 80
    )
    np.testing.assert_array_equal(masks["grey"], first * 255)
    rows = read_csv(tmp_path / "out" / "frames.csv")
    areas = {row["name"]: int(row["area"]) for row in rows}
    assert areas["grey.png"] == first.sum() > 0


def test_a_bad_picture_is_named_and_the_others_are_done(chain, tmp_path, capsys):
    frame = np.load(chain / "data" / "imgs_test.npy")[0]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(frame).save(pictures / "good.png")
    (pictures / "text.png").write_text("no picture")
    Image.fromarray(frame.astype(np.uint16) * 100).save(pictures / "deep.png")
    with pytest.raises(ValueError, match="2 of 3 files were left out"):
        predict_again(chain, tmp_path / "out", "--input", str(pictures))
    errors = capsys.readouterr().err
    assert "text.png is not a whole picture" in errors
    assert "deep.png has more than 8 bits" in errors
    assert [p.name for p in (tmp_path / "out" / "masks").iterdir()] == ["good.png"]


def test_two_pictures_of_one_name_are_refused(chain, tmp_path):
    frame = Image.fromarray(np.zeros((20, 20), np.uint8))
    frame.save(tmp_path / "a.png")
    frame.save(tmp_path / "a.bmp")
    with pytest.raises(ValueError, match="2 files called a"):
        predict_again(chain, tmp_path / "out", "--input", str(tmp_path))


def test_weights_without_their_record_are_refused_unless_one_is_lent(chain, tmp_path):
    shutil.copy(chain / "weights" / "unet.h5", tmp_path / "alone.h5")
    flags = ["--data", str(chain / "data"), "--weights", str(tmp_path / "alone.h5")]
    flags += ["--out", str(tmp_path / "out")]
    with pytest.raises(FileNotFoundError, match=r"alone\.json is missing.*--settings"):
        predict.main(flags)
    predict.main([*flags, "--settings", str(chain / "weights" / "unet.json")])
    assert (tmp_path / "out" / "submission.csv").read_bytes() == (
        chain / "predictions" / "submission.csv"
    ).read_bytes()


def test_a_record_of_other_weights_is_refused(chain, tmp_path):
    for name in ("unet.h5", "unet.json"):
        shutil.copy(chain / "weights" / name, tmp_path / name)
    with open(tmp_path / "unet.h5", "ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=r"is not the file that .*unet\.json describes"):
        networks.read_trained(tmp_path / "unet.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"recipe": {"filters": 10**12}},
            "gives filters 1000000000000; expected a whole number",
        ),
        ({"recipe": {"filters": 256, "depth": 6}}, "too small"),
        ({"height": 1e400}, "gives height inf; expected a whole number"),
        ({"threshold": float("nan")}, "gives threshold nan; expected a number, 0 to 1"),
        ({"mean": True}, "gives mean True"),
        ({"mean": "9" * 999}, "gives mean '9"),
        (
            {"recipe": {"network": "os.system"}},
            "network 'os.system' in the recipe; expected one",
        ),
        ({"trained_on": "all"}, "gives trained_on 'all'; expected a list"),
        ({"trained_on": [{"subjects": [1]}]}, "gives no imgs_train_sha256"),
        ({"data": [1]}, "gives data 1; expected an object"),
        (
            {"kept": {"dice_coef": "high"}},
            "gives kept 'dice_coef' 'high'; expected a number",
        ),
    ],
)
def test_a_hostile_record_is_refused(chain, tmp_path, change, message):
    record = json.loads((chain / "weights" / "unet.json").read_text())
    recipe = record["recipe"] | change.get("recipe", {})
    record |= change | {"recipe": recipe}
    (tmp_path / "lent.json").write_text(json.dumps(record))
    flags = ["--data", str(chain / "data"), "--settings", str(tmp_path / "lent.json")]
    flags += ["--weights", str(chain / "weights" / "unet.h5")]
    with pytest.raises(ValueError, match=message) as caught:
        predict.main([*flags, "--out", str(tmp_path / "out")])
    assert len(str(caught.value)) < 400


def test_a_record_without_a_number_is_refused(chain, tmp_path):
    record = json.loads((chain / "weights" / "unet.json").read_text())
    record["mean"] = None
    (tmp_path / "lent.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"lent\.json gives mean None; expected a number"):
        networks.read_trained(chain / "weights" / "unet.h5", tmp_path / "lent.json")


def split_again(chain, tmp_path, *flags):
    """Copy the chain's data and split it in another way."""
    shutil.copytree(chain / "data", tmp_path / "data")
    preprocess.main(
        ["--data", str(tmp_path / "data"), "--height", "32", "--width", "32", *flags]
    )
    return str(tmp_path / "data")


def test_scores_on_subjects_trained_on_are_refused(chain, tmp_path):
    split = json.loads((chain / "data" / "preprocess.json").read_text())
    held_out = set(split["val"]["subjects"])
    for fold in range(5):  # one subject a fold: some fold holds out another one
        data = split_again(chain, tmp_path / str(fold), "--folds", "5", "--fold", str(fold))
        other = json.loads((tmp_path / str(fold) / "data/preprocess.json").read_text())
        if not set(other["val"]["subjects"]) & held_out:
            with pytest.raises(ValueError, match="were trained on subjects"):
                predict_again(chain, tmp_path / "out", "--data", data)
            return
    raise AssertionError("no fold differs from the training's split")


def test_subjects_of_other_data_with_the_same_numbers_are_marked(chain, tmp_path, capsys):
    make_raw(tmp_path / "raw", subjects=5, frames=8, test=2, seed=1)
    data = str(tmp_path / "data")
    extract_data.main(["--raw", str(tmp_path / "raw"), "--data", data])
    preprocess.main(["--data", data, "--seed", "3"])
    record = json.loads((chain / "weights" / "unet.json").read_text())
    split = json.loads((tmp_path / "data" / "preprocess.json").read_text())
    shared = set(record["trained_on"][0]["subjects"]) & set(split["val"]["subjects"])
    predict_again(chain, tmp_path / "out", "--data", data)
    assert ("if they are the same people" in capsys.readouterr().out) == bool(shared)
    assert shared  # else the test shows nothing: choose another --seed above


def test_a_leaky_split_is_marked(chain, tmp_path, capsys):
    data = split_again(chain, tmp_path, "--split", "frames")
    weights = str(tmp_path / "leaky.h5")
    flags = ["--filters", "2", "--depth", "1", "--epochs", "1"]
    train.main(["--data", data, "--out", weights, *flags])
    capsys.readouterr()
    predict.main(["--data", data, "--weights", weights, "--out", str(tmp_path / "out")])
    assert "leaky split: these scores say nothing" in capsys.readouterr().out


def test_an_earlier_extraction_is_refused(chain, tmp_path):
    shutil.copytree(chain / "data", tmp_path / "data")
    make_raw(tmp_path / "raw", subjects=5, frames=8, test=7, seed=9)
    flags = ["--raw", str(tmp_path / "raw"), "--data", str(tmp_path / "data")]
    extract_data.main(flags)
    with pytest.raises(ValueError, match="is of an earlier extraction.*preprocess.py"):
        predict_again(chain, tmp_path / "out", "--data", str(tmp_path / "data"))


def found(frame, probability, mask):
    geometry = Geometry.of(frame.shape, frame.shape, 1.0, {})
    return inference.Prediction(frame, geometry, probability, mask, foreign.describe(frame))


def watch(frame, probability, mask, times=1, trained=None):
    seen = advice.Watch(trained or TRAINED)
    for _ in range(times):
        seen.see(found(frame, probability, mask))
    return seen


TRAINED = Trained(
    recipe=CLASSIC,
    seed=0,
    precision="float32",
    keep="best",
    init_sha256=None,
    inputs=Inputs(8, 8, mean=100.0, standard_deviation=50.0, aspect=1.0, crops={}),
    limits=Limits(threshold=0.5, smallest_area=0.0, least_presence=0.0),
    data=[],
    trained_on=[Frames("a", [1], frames=10, frames_with_nerve=4)],
    kept={"dice_coef": 0.8},
)
GREY = np.full((8, 8), 100, np.uint8)
LOW, EMPTY = np.full((8, 8), 0.31), np.zeros((8, 8), np.uint8)
SOME = np.eye(8, dtype=np.uint8)


def test_usual_predictions_cause_no_warning():
    seen = watch(GREY, LOW, EMPTY)
    seen.see(found(GREY, LOW + 0.5, SOME))
    assert seen.advise(None) is None
    assert advice.Watch(TRAINED).advise(None) is None


def test_all_empty_is_said_with_the_highest_probability():
    text = watch(GREY, LOW, EMPTY, 3).advise(None)
    assert "no frame has a nerve predicted" in text
    assert "highest probability is 0.310, the threshold 0.5" in text
    assert "hardly trained" not in text


def test_frames_of_0_and_1_are_recognised():
    text = watch(GREY // 100, LOW, EMPTY).advise(None)
    assert "the frames hold only 0 and 1; expected greys of 0 to 255" in text


def test_another_gain_is_recognised():
    text = watch(GREY * 2, LOW, EMPTY).advise(None)
    assert "mean grey is 200, the training frames' 100" in text


def test_hardly_trained_weights_are_recognised():
    trained = dataclasses.replace(TRAINED, kept={"dice_coef": 0.02})
    text = watch(GREY, LOW, EMPTY, trained=trained).advise(None)
    assert "hardly trained (dice_coef 0.020)" in text


def test_all_positive_is_said_with_the_share_of_empty_training_frames():
    trained_on = [Frames("a", [1], frames=50, frames_with_nerve=49)]
    trained = dataclasses.replace(TRAINED, trained_on=trained_on)
    text = watch(GREY, LOW, SOME, 20, trained).advise(None)
    assert "20 of 20 frames have a nerve predicted" in text
    assert "2.0% of the training frames were without a nerve" in text
    assert "no cause found" in watch(GREY, LOW, SOME, 20).advise(None)
    assert watch(GREY, LOW, SOME, 3).advise(None) is None  # too few to tell
    assert "hardly learnt" in watch(GREY, LOW, SOME, 3, trained).advise(None)


def test_full_masks_are_said():
    text = watch(GREY * 0, LOW, EMPTY + 1).advise(None)
    assert "every mask covers its whole frame" in text


def test_small_masks_are_dropped():
    probability = np.zeros((10, 10), np.float32)
    probability[:2, :2] = 0.9  # 4 of 100 pixels
    geometry = Geometry.of((10, 10), (10, 10), 1.0, {})
    for smallest, expected in ((0.04, 4), (0.041, 0)):
        limits = Limits(threshold=0.5, smallest_area=smallest, least_presence=0.0)
        assert inference.to_mask(probability, geometry, limits).sum() == expected


def test_evenly_spaced_numbers():
    assert overlays.evenly(3, 9).tolist() == [0, 4, 8]
    assert overlays.evenly(24, 2).tolist() == [0, 1]
    assert overlays.evenly(0, 5).tolist() == overlays.evenly(5, 0).tolist() == []


@pytest.mark.parametrize(
    ("script", "flags", "status", "message"),
    [
        (
            "extract_data.py",
            ["--raw", "none"],
            1,
            "none/ holds neither train/ nor test/",
        ),
        ("preprocess.py", ["--data", "none"], 1, "none/extract.json is missing"),
        ("preprocess.py", ["--height", "1"], 2, "expected 8 to 2048"),
        ("train.py", ["--data", "none"], 1, "none/preprocess.json is missing"),
        ("train.py", ["--init", "text.h5", "--data", "DATA"], 1, "is not an HDF5 file"),
        ("predict.py", ["--weights", "none.h5"], 1, "none.h5 is missing"),
        ("predict.py", ["--weights", "text.h5"], 1, "text.h5 is not an HDF5 file"),
        (
            "predict.py",
            ["--weights", "WEIGHTS", "--data", "none"],
            1,
            "none/extract.json",
        ),
        (
            "predict.py",
            ["--weights", "WEIGHTS", "--input", "none"],
            1,
            "none is missing",
        ),
        ("predict.py", ["--weights", "WEIGHTS", "--input", "empty"], 1, "no picture"),
        ("predict.py", ["--overlays", "-1"], 2, "expected 0 or more"),
        ("evaluate.py", ["none.csv", "none.csv"], 1, "none.csv is missing"),
        ("evaluate.py", ["text.h5", "text.h5"], 1, "text.h5 has no column"),
        ("model.py", ["--height", "50"], 1, "48 or 64 rows"),
        ("phantom.py", ["--out", "full"], 1, "holds files not made by phantom.py"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(
    chain, tmp_path, script, flags, status, message
):
    (tmp_path / "text.h5").write_text("not weights\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    places = {
        "WEIGHTS": str(chain / "weights" / "unet.h5"),
        "DATA": str(chain / "data"),
    }
    flags = [places.get(flag, flag) for flag in flags]
    found, _, errors = run_script(script, *flags, cwd=tmp_path)
    lines = [line for line in errors.splitlines() if line.startswith(script)]
    assert found == status, errors
    assert "Traceback" not in errors
    assert message in errors
    assert len(lines) == 1


def test_a_failed_run_leaves_earlier_predictions_as_they_were(chain, tmp_path, monkeypatch):
    shutil.copytree(chain / "predictions", tmp_path / "out")
    before = atomic.sha256(tmp_path / "out" / "submission.csv")

    def fail(*args):
        raise OSError("disk is full")

    monkeypatch.setattr(inference, "to_mask", fail)
    with pytest.raises(OSError, match="disk is full"):
        predict_again(chain, tmp_path / "out", "--data", str(chain / "data"))
    assert atomic.sha256(tmp_path / "out" / "submission.csv") == before
    assert not list((tmp_path / "out").glob(".nerve~*"))


def test_weights_that_begin_with_ones_that_saw_the_validation_frames_are_refused(
    chain, tmp_path, monkeypatch
):
    data = shutil.copytree(chain / "data", tmp_path / "data")
    flags = ["--data", str(data), "--height", "32", "--width", "32"]
    small = ["--filters", "2", "--depth", "2", "--epochs", "1"]
    first, second = tmp_path / "weights" / "all.h5", tmp_path / "weights" / "some.h5"
    preprocess.main([*flags, "--split", "none"])
    train.main(["--data", str(data), "--out", str(first), *small])
    preprocess.main(flags)
    start = ["--out", str(second), "--init", str(first)]
    with pytest.raises(ValueError, match=r"all\.h5 was trained on subjects"):
        train.main(["--data", str(data), *start, "--epochs", "1"])
    monkeypatch.setattr(
        "nerve.training.plan.trained_on", lambda *_: []
    )  # as before it refused
    train.main(["--data", str(data), *start, "--epochs", "1"])
    with pytest.raises(ValueError, match="the weights were trained on subjects"):
        predict.main(["--data", str(data), "--weights", str(second)])


def test_test_frames_alone_are_predicted_beside_an_earlier_split(chain, tmp_path):
    data, raw = shutil.copytree(chain / "data", tmp_path / "data"), tmp_path / "raw"
    shutil.copytree(chain / "raw" / "test", raw / "test")
    extract_data.main(["--raw", str(raw), "--data", str(data)])
    assert (data / "preprocess.json").exists()
    predict_again(chain, tmp_path / "out", "--data", str(data))
    assert len(read_csv(tmp_path / "out" / "submission.csv")) == 7


def test_the_mean_of_folds_predicts_test_frames_alone(chain, tmp_path, capsys):
    data, weights = shutil.copytree(chain / "data", tmp_path / "data"), []
    flags = ["--height", "32", "--width", "32", "--folds", "2"]
    for fold in ("0", "1"):
        preprocess.main(["--data", str(data), *flags, "--fold", fold])
        weights.append(tmp_path / "weights" / f"fold{fold}.h5")
        small = ["--filters", "2", "--depth", "2", "--epochs", "1"]
        train.main(["--data", str(data), "--out", str(weights[-1]), *small])
    both = ["--weights", *map(str, weights), "--out", str(tmp_path / "out")]
    predict.main(["--data", str(data), *both])
    assert "note: test frames alone: networks here were trained" in capsys.readouterr().out
    assert len(read_csv(tmp_path / "out" / "submission.csv")) == 7
    assert not (tmp_path / "out" / "validation.csv").exists()


def test_limits_that_empty_masks_are_named():
    limits = Limits(threshold=0.5, smallest_area=0.001, least_presence=0.9)
    trained = dataclasses.replace(TRAINED, limits=limits)
    seen = watch(GREY, np.full((8, 8), 0.7), EMPTY, 3, trained)
    text = seen.advise(None)
    assert "emptied by the weights' presence 0.9 or smallest_area 0.001" in text
    # --prevalence stands in place of the weights' presence
    text = seen.advise(0.05)
    assert "emptied by --prevalence 0.05 or the weights' smallest_area 0.001" in text


def test_overlays_are_all_drawn_of_input(capsys):
    with pytest.raises(SystemExit):
        predict.main(["--input", "a.png", "--overlays", "3"])
    assert "--overlays goes with --data" in capsys.readouterr().err
    assert predict.parse_args([]).overlays == 24


def test_frames_unlike_all_training_frames_are_said_with_what_mends_it():
    rng = np.random.default_rng(0)
    frames = rng.integers(80, 120, (40, 32, 32), np.uint8)
    look = foreign.learn(frames, np.arange(40))
    trained = dataclasses.replace(TRAINED, looks=[look])
    alike = watch(frames[0], LOW, EMPTY, 5, trained)
    assert alike.advise_on_looks() is None
    strange = watch(frames[0] // 2, LOW, EMPTY, 5, trained)
    text = strange.advise_on_looks()
    assert text.startswith("warning: 5 of 5 frames look unlike all training frames")
    assert "--like WEIGHTS.h5" in text
    assert "\n" not in text
    # said better than by the mean grey
    assert "mean grey" not in strange.advise(None)
    assert "is not known" in watch(GREY, LOW, EMPTY).advise_on_looks()


def test_a_mirrored_network_gives_the_mean_with_the_mirror_image():
    class Left:
        """Finds a nerve where the frame is bright, in its left half alone."""

        def predict_on_batch(self, x):
            return np.where(np.arange(x.shape[2]) < x.shape[2] // 2, x[..., 0], 0)[
                ..., None
            ]

    x = np.random.default_rng(0).random((2, 4, 6, 1), np.float32)
    found = inference.Mirrored(Left()).predict_on_batch(x)
    np.testing.assert_allclose(found, x / 2, atol=1e-6)


def test_the_mirror_is_used_where_the_weights_saw_both_sides(chain, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(inference.Mirrored, "__init__", lambda self, m: calls.append(m))
    monkeypatch.setattr(
        inference.Mirrored, "predict_on_batch", lambda self, x: 0 * x, raising=True
    )
    weights = tmp_path / "unet.h5"
    shutil.copy(chain / "weights" / "unet.h5", weights)
    record = json.loads((chain / "weights" / "unet.json").read_text())
    both = dataclasses.asdict(MODERN.augmentation)
    frame = np.load(chain / "data" / "imgs_test.npy")[0]
    Image.fromarray(frame).save(tmp_path / "a.png")
    for changes, flag, expected in (
        (None, None, 0),
        (both, None, 1),
        (both, "--no-mirror", 0),
        (both | {"flips": 0.0}, None, 0),
        (None, "--mirror", 1),
    ):
        calls.clear()
        record["recipe"]["augmentation"] = changes
        weights.with_suffix(".json").write_text(json.dumps(record))
        flags = ["--input", str(tmp_path / "a.png"), "--weights", str(weights)]
        extra = [flag] if flag else []
        predict.main([*flags, "--out", str(tmp_path / "out"), *extra])
        assert len(calls) == expected, (flag, changes)
