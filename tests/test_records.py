"""The JSON records: old ones read, all back as they were, odd values refused by name."""

import copy
import dataclasses
import json
import re

import pytest
from conftest import ROOT

import extract_data
import preprocess
from nerve import records
from nerve.files import atomic
from nerve.files.arrays import Array
from nerve.records import (
    Extract,
    Extracted,
    Inputs,
    Limits,
    Skipped,
    Split,
    Trained,
)

RELEASED = ("unet_nerve", "unet_nerve_small", "unet_classic")


def read_released(name):
    """Return `(record as it lies there, what is read of it)`."""
    path = ROOT / "weights" / f"{name}.json"
    values = json.loads(path.read_text())
    return values, Trained.from_dict(copy.deepcopy(values), path)


def through_json(values):
    return json.loads(atomic.to_json(values))


# ---------------------------------------------------------------- released weights


@pytest.mark.parametrize("name", ["unet_nerve", "unet_nerve_small"])
def test_a_released_record_is_what_would_be_written(name):
    values, found = read_released(name)
    assert through_json(found.to_dict()) == values
    assert len(found.data) == len(found.trained_on) == len(found.looks) == 3  # sources
    assert found.calibration is not None


def test_what_a_record_of_before_says_is_read():
    values, found = read_released("unet_classic")
    assert found.recipe.name == values["recipe"]
    for key in ("network", "filters", "depth", "loss", "learning_rate"):
        assert getattr(found.recipe, key) == values[key]
    for key in ("schedule", "balance", "batch_size", "epochs", "height", "width"):
        assert getattr(found.recipe, key) == values[key]
    for key in ("seed", "precision", "keep", "init_sha256", "h5_sha256", "kept"):
        assert getattr(found, key) == values[key]
    assert found.versions == values["versions"]
    assert found.limits_searched_on == values.get("limits_searched_on", [])
    for part in (found.inputs, found.limits):
        for key, value in dataclasses.asdict(part).items():
            assert value == values[{"least_presence": "presence"}.get(key, key)]
    assert [dataclasses.asdict(part) for part in found.data] == [values["data"]]
    assert [dataclasses.asdict(part) for part in found.trained_on] == values["trained_on"]


def test_what_the_classic_release_does_not_say_is_what_it_was_trained_with():
    recipe = read_released("unet_classic")[1].recipe
    assert recipe.missed_share is recipe.empty_smooth is recipe.average is None
    assert recipe.warm_up is recipe.final_rate is recipe.augmentation is None
    assert (recipe.dropout, recipe.initial_logit) == (0.0, -4.0)


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", RELEASED)
def test_a_record_comes_back_as_it_was(name, tmp_path):
    found = read_released(name)[1]
    written = through_json(found.to_dict())
    assert Trained.from_dict(written, tmp_path / "a.json") == found
    # inputs and limits lie at the top, and nowhere else
    for part in (Inputs, Limits):
        assert {field.name for field in dataclasses.fields(part)} <= set(written)
    assert not {"inputs", "limits"} & set(written)
    assert written["recipe"]["name"] == found.recipe.name


def test_the_limits_of_a_new_record_are_those_at_its_top(tmp_path):
    found = read_released("unet_nerve")[1]
    changed = dataclasses.replace(found, limits=Limits(0.4, 0.01, 0.3))
    written = through_json(changed.to_dict())
    assert (written["threshold"], written["least_presence"]) == (0.4, 0.3)
    assert Trained.from_dict(written, tmp_path / "a.json").limits == changed.limits


def test_a_limit_on_an_earlier_measure_is_ignored(tmp_path, capsys):
    written = through_json(read_released("unet_nerve")[1].to_dict())
    del written["least_presence"]
    for limit, note in ((0.0, ""), (0.3, f"note: {tmp_path / 'a.json'}: its limit")):
        found = Trained.from_dict(written | {"presence": limit}, tmp_path / "a.json")
        assert (found.limits.least_presence, found.calibration) == (0, None)
        assert capsys.readouterr().out.startswith(note)


def test_a_calibration_of_another_kind_is_ignored(tmp_path, capsys):
    written = through_json(read_released("unet_nerve")[1].to_dict())
    written["calibration"] = {"slope": 0.6, "intercept": 1.0, "error": 0.09}
    found = Trained.from_dict(written, tmp_path / "a.json")
    assert found.calibration is None
    assert capsys.readouterr().out.startswith(f"note: {tmp_path / 'a.json'}: its calib")


def test_several_weights_together_may_have_no_data_of_their_own(tmp_path):
    found = dataclasses.replace(read_released("unet_nerve")[1], data=[])
    written = through_json(found.to_dict())
    assert written["data"] == []
    assert Trained.from_dict(written, tmp_path / "a.json") == found


@pytest.fixture(scope="module")
def data(raw, tmp_path_factory):
    """A folder of extract_data.py's and preprocess.py's."""
    folder = tmp_path_factory.mktemp("records") / "data"
    extract_data.main(["--raw", str(raw), "--data", str(folder)])
    sizes = ["--height", "16", "--width", "24"]
    preprocess.main(["--data", str(folder), *sizes])
    return folder


def write(record, data, name):
    """Write a record in place of a stage's."""
    data.mkdir(exist_ok=True)
    text = atomic.to_json(records.to_dict(record))
    (data / name).write_text(text)
    return json.loads(text)


def test_an_extraction_comes_back_as_it_was(data, tmp_path):
    found = records.read_extract(data)
    assert found.arrays["imgs_train.npy"].shape == [12, 64, 80]
    assert (found.train.subject[0], found.test.image) == (1, [1, 2, 3])
    written = write(found, tmp_path, "extract.json")
    assert written == json.loads((data / "extract.json").read_text())
    assert records.read_extract(tmp_path) == found


def test_an_extraction_of_own_frames_comes_back_as_it_was(tmp_path):
    train = Extracted(
        image=[1, 3],
        skipped=[Skipped("b.png", "b.png is empty")],
        subject=[1, 2],
        area=[0, 44],
        name=["a.png", "c.png"],
        size=[[60, 80], None],
    )
    found = Extract(
        height=48,
        width=64,
        arrays={
            name: Array("uint8", [2, 48, 64], "0" * 64)
            for name in ("imgs_train.npy", "imgs_mask_train.npy")
        },
        train=train,
        subjects_known=False,
        subject_names={"1": "a", "2": "c"},
        crops={"60x80": [4, 6, 48, 64]},
    )
    written = write(found, tmp_path, "extract.json")
    assert "test" not in written  # what there is not, is not said
    assert records.read_extract(tmp_path) == found


def test_a_split_comes_back_as_it_was(data, tmp_path):
    found = records.read_split(data)
    assert isinstance(found, Split)
    assert (found.height, found.width, found.folds) == (16, 24, None)
    assert found.arrays["x_train.npy"].shape == [len(found.train.rows), 16, 24, 1]
    written = write(found, tmp_path, "preprocess.json")
    assert written == json.loads((data / "preprocess.json").read_text())
    assert records.read_split(tmp_path) == found


def test_a_split_gives_the_inputs_of_a_network(data):
    split = records.read_split(data)
    assert split.inputs == Inputs(
        height=16,
        width=24,
        mean=split.mean,
        standard_deviation=split.standard_deviation,
        aspect=80 / 64,
        crops={},
    )


# ---------------------------------------------------------------- refusals


def change(values, place, value):
    """Set a value at a path of keys; `...` removes what lies there."""
    keys = re.split(r"\.(?!npy)", place)
    *parents, last = (int(key) if key.isdigit() else key for key in keys)
    for key in parents:
        values = values[key]
    if value is ...:
        del values[last]
    else:
        values[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("recipe.filters", "x", "filters 'x'; expected a whole number, 1 to 256"),
        ("recipe.filters", 0, "filters 0; expected a whole number, 1 to 256"),
        ("recipe.filters", True, "filters True; expected a whole number, 1 to 256"),
        ("recipe.filters", 2.0, "filters 2.0; expected a whole number, 1 to 256"),
        ("recipe.depth", 7, "depth 7; expected a whole number, 1 to 6"),
        ("recipe.learning_rate", False, "learning_rate False; expected a number"),
        ("recipe.learning_rate", float("nan"), "learning_rate nan; expected a number"),
        ("recipe.balance", 1, "balance 1; expected true or false"),
        ("recipe.loss", None, "loss None; expected text"),
        ("recipe.augmentation", 1, "augmentation 1; expected an object"),
        ("recipe.augmentation", {}, "no flips"),
        ("recipe.augmentation.scale", 2, "scale 2; expected a list"),
        ("recipe.augmentation.flips", 2, "flips 2; expected a number, 0 to 1"),
        ("recipe.epochs", ..., "no epochs"),
        ("recipe", [], "recipe []; expected an object"),
        ("threshold", 2, "threshold 2; expected a number, 0 to 1"),
        ("threshold", -0.1, "threshold -0.1; expected a number, 0 to 1"),
        ("threshold", float("nan"), "threshold nan; expected a number, 0 to 1"),
        ("least_presence", ..., "no least_presence"),
        ("height", 7, "height 7; expected a whole number, 8 to 2048"),
        ("standard_deviation", 0, "standard_deviation 0; expected a number, 0.001 to 255"),
        ("aspect", True, "aspect True; expected a number, 0.05 to 20"),
        ("mean", None, "mean None; expected a number, 0 to 255"),
        ("crops", [], "crops []; expected an object"),
        ("crops", {"64x80": 5}, "crops '64x80' 5; expected a list"),
        ("crops", {"64x80": [0, 0, 65, 80]}, "crops '64x80' [0, 0, 65, 80]; expected"),
        ("crops", {"64x80": [0, 1, 64, 80]}, "crops '64x80' [0, 1, 64, 80]; expected"),
        ("crops", {"64x80": [-1, 0, 9, 9]}, "crops '64x80' [-1, 0, 9, 9]; expected"),
        ("crops", {"64x80": [0, 0, 0, 9]}, "crops '64x80' [0, 0, 0, 9]; expected"),
        ("crops", {"64x80": [0, 0, 9]}, "crops '64x80' [0, 0, 9]; expected"),
        ("crops", {"64": [0, 0, 9, 9]}, "crops '64' [0, 0, 9, 9]; expected"),
        ("trained_on", 7, "trained_on 7; expected a list"),
        ("trained_on", [7], "trained_on 7; expected an object"),
        ("trained_on", [{"subjects": []}], "no imgs_train_sha256"),
        ("data", [1], "data 1; expected an object"),
        ("data.0.extract", {"a": 1}, "extract 'a' 1; expected text"),
        ("kept", {"loss": "low"}, "kept 'loss' 'low'; expected a number"),
        ("kept", {"loss": 10**400}, "kept 'loss' 1000"),
        ("limits_searched_on", [10**400], "limits_searched_on 1000"),
        ("limits_searched_on", ["1"], "limits_searched_on '1'; expected a whole number"),
        ("seed", ..., "no seed"),
        (
            "recipe.schedule",
            "a\nb",
            "recipe 'modern': schedule 'a\\nb'",
        ),  # found by fuzz.py
        ("crops", {"a\nb": [0]}, "crops 'a\\nb' [0]; expected"),
        ("versions", {"a\nb": 1}, "versions 'a\\nb' 1; expected text"),
    ],
)
def test_odd_values_are_refused_by_name(place, value, message, tmp_path):
    values = through_json(read_released("unet_nerve")[1].to_dict())
    change(values, place, value)
    path = tmp_path / "unet.json"
    with pytest.raises(ValueError, match=re.escape(f"{path} gives {message}")) as error:
        Trained.from_dict(values, path)
    assert str(error.value).endswith("; train again")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("filters", "x", "filters 'x'; expected a whole number, 1 to 256"),
        ("batch_size", ..., "no batch_size"),
        ("loss", 1, "loss 1; expected text"),
        ("threshold", 2, "threshold 2; expected a number, 0 to 1"),
    ],
)
def test_odd_values_of_an_old_record_are_refused_likewise(key, value, message, tmp_path):
    values, _ = read_released("unet_classic")
    change(values, key, value)
    path = tmp_path / "unet.json"
    expected = re.escape(f"{path} gives {message}; train again")
    with pytest.raises(ValueError, match=f"^{expected}$"):
        Trained.from_dict(values, path)


def test_a_network_of_before_that_is_gone_is_named(tmp_path):
    values, _ = read_released("unet_classic")
    values |= {"recipe": "modern", "network": "lite_unet"}
    with pytest.raises(ValueError, match="'lite_unet', which is gone; train again, or"):
        Trained.from_dict(values, tmp_path / "a.json")


def test_values_are_cut_short_in_messages():
    with pytest.raises(
        ValueError, match=r"^width '9{39}; expected a whole number"
    ) as error:
        records.check("9" * 999, int, "width")
    assert len(str(error.value)) < 100


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("extract.json", "height", "64", "height '64'; expected a whole number"),
        ("extract.json", "arrays", ..., "no arrays"),
        ("extract.json", "arrays", {"a": {}}, "no dtype"),
        ("extract.json", "train.subject", [1.5], "subject 1.5; expected a whole number"),
        ("extract.json", "train.skipped", [1], "skipped 1; expected an object"),
        ("preprocess.json", "leaky", 0, "leaky 0; expected true or false"),
        ("preprocess.json", "val", [], "val []; expected an object"),
        ("preprocess.json", "train.rows", None, "rows None; expected a list"),
        ("preprocess.json", "smallest_area", 2, "smallest_area 2; expected a number, 0"),
        ("preprocess.json", "height", True, "height True; expected a whole number"),
        ("extract.json", "train.image", [1], "12 of subject for 1 frames"),
        ("extract.json", "train.image.0", "<b>1</b>", "image '<b>1</b>'; expected a whole"),
        (
            "extract.json",
            "train.subject.0",
            -1,
            "subject -1; expected a whole number, 0",
        ),
        ("extract.json", "train.area", None, "no subject or no area"),
        (
            "extract.json",
            "test.image",
            [1, 2],
            "uint8 [3, 64, 80] of imgs_test.npy",
        ),
        ("extract.json", "width", 81, "uint8 [12, 64, 80] of imgs_train.npy; expected"),
        (
            "extract.json",
            "crops",
            {"9x9": [0, 0, 10, 9]},
            "crops '9x9' [0, 0, 10, 9]; exp",
        ),
        ("preprocess.json", "extract", {}, "no imgs_train.npy in extract"),
        ("preprocess.json", "val.rows", [], "4 of subject for 0 rows"),
        (
            "preprocess.json",
            "arrays.y_val.npy",
            ...,
            "nothing of y_val.npy; expected",
        ),
        (
            "preprocess.json",
            "standard_deviation",
            0,
            "standard_deviation 0; expected a",
        ),
        ("preprocess.json", "aspect", 1e9, "aspect 1000000000.0; expected a number, 0.05"),
    ],
)
def test_odd_values_of_a_stage_are_refused_with_its_repair(
    data, tmp_path, name, place, value, message
):
    values = json.loads((data / name).read_text())
    change(values, place, value)
    (tmp_path / name).write_text(json.dumps(values))
    script, read = {
        "extract.json": ("extract_data", records.read_extract),
        "preprocess.json": ("preprocess", records.read_split),
    }[name]
    expected = re.escape(f"{tmp_path / name} gives {message}")
    with pytest.raises(ValueError, match=f"^{expected}") as error:
        read(tmp_path)
    repair = f"; make it again with: python {script}.py --data {tmp_path}"
    assert str(error.value).endswith(repair)


@pytest.mark.parametrize("rows", [[99, 98, 97, 96], [0, 1, 2, 3]])
def test_rows_that_the_extraction_lacks_or_gives_to_others_are_refused(
    data, tmp_path, rows
):
    values = json.loads((data / "preprocess.json").read_text())
    assert values["val"]["rows"] != rows
    assert len(values["val"]["rows"]) == len(rows)
    values["val"]["rows"] = rows
    (tmp_path / "preprocess.json").write_text(json.dumps(values))
    (tmp_path / "extract.json").write_bytes((data / "extract.json").read_bytes())
    with pytest.raises(ValueError, match=r"preprocess\.json is of an earlier extraction"):
        records.read_split(tmp_path)


def test_a_record_of_an_earlier_version_may_say_more(data, tmp_path):
    values = json.loads((data / "preprocess.json").read_text())
    (tmp_path / "preprocess.json").write_text(json.dumps(values | {"contradictory": 1}))
    assert records.read_split(tmp_path) == records.read_split(data)
