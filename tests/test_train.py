"""Training: what is kept, resumed, refused, and that a record says all that decides it."""

import ast
import csv
import dataclasses
import hashlib
import importlib
import json
import shutil
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import ROOT, make_raw

import extract_data
import preprocess
import train
from losses import build_loss, dice_coef, smooth_dice
from model import build_network, build_unet
from nerve import machine
from nerve.backend import keras
from nerve.files import atomic, h5_file
from nerve.prediction import held_out
from nerve.prediction.networks import read_trained
from nerve.records import Recipe, Trained, build, read_split
from nerve.training import batches, checkpoint, loop, memory
from nerve.training.plan import plan, read_data
from recipes import CLASSIC, MODERN

sys.path.insert(0, str(ROOT / "benchmarks"))

import train_recipe

# batches of one size, validation's too: of each other size TensorFlow makes a graph anew
SMALL = ["--filters", "2", "--depth", "2", "--batch-size", "5", "--learning-rate", "0.01"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Preprocessed arrays of 16 x 16 pixels: 4 subjects, one for validation."""
    folder = tmp_path_factory.mktemp("train")
    make_raw(folder / "raw", subjects=4, frames=5, test=0)
    shutil.rmtree(folder / "raw" / "test")
    data = folder / "data"
    extract_data.main(["--raw", str(folder / "raw"), "--data", str(data)])
    preprocess.main(["--data", str(data), "--height", "16", "--width", "16"])
    return data


def run(data, out, *flags):
    keras.utils.clear_session()  # a process with the networks of all tests gets slow
    train.main(["--data", str(data), "--out", str(out), *SMALL, *flags])


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if not path.name.endswith(".lock")
    }


MOMENTS = ("save_state", "save_result", "save_history", "add")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The folder of a run of 4 epochs, and what it looked like before each writing.

    The copies are what a kill at these moments leaves, in their order, each once.
    """
    folder, copies = tmp_path_factory.mktemp("weights"), {}
    kept = tmp_path_factory.mktemp("moments")

    def copying(moment, original):
        def copy_and_go_on(*args):
            content = tuple(sorted(digests(folder).items()))
            if content not in copies:
                name = f"{len(copies)}_{moment}"
                copies[content] = shutil.copytree(folder, kept / name)
            return original(*args)

        return copy_and_go_on

    with pytest.MonkeyPatch.context() as patch:
        for moment in MOMENTS:
            where = loop.Strips if moment == "add" else loop
            patch.setattr(where, moment, copying(moment, getattr(where, moment)))
        run(data, folder / "unet.h5", "--epochs", "4")
    return folder, list(copies.values())


@pytest.fixture(scope="module")
def trained(undisturbed):
    """The folder of an undisturbed run of 4 epochs."""
    return undisturbed[0]


def test_a_run_leaves_weights_record_table_and_curve_and_no_state(trained):
    names = ("h5", "json", "csv", "png", "progress.png")
    assert set(digests(trained)) == {f"unet.{name}" for name in names}
    rows = read_csv(trained / "unet.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    kept = json.loads((trained / "unet.json").read_text())["kept"]
    # in the same order, as that of a resumed run is, too
    assert list(rows[0]) == list(kept) == list(checkpoint.COLUMNS)
    assert {row["learning_rate"] for row in rows} == {"0.01"}


def test_the_record_says_all_that_predict_needs_and_where_the_weights_come_from(
    trained, data
):
    record = json.loads((trained / "unet.json").read_text())
    split = json.loads((data / "preprocess.json").read_text())
    assert record["h5_sha256"] == atomic.sha256(trained / "unet.h5")
    for name in ("height", "width", "mean", "standard_deviation"):
        assert record[name] == split[name]
    recipe = replace(
        CLASSIC, filters=2, depth=2, batch_size=5, learning_rate=0.01, epochs=4
    )
    assert build(Recipe, record["recipe"]) == recipe
    assert record["threshold"] == 0.5
    assert record["data"][0]["validation_subjects"] == split["val"]["subjects"]
    (part,) = record["trained_on"]
    assert part["subjects"] == split["train"]["subjects"]
    assert part["frames"] == len(split["train"]["rows"]) == 15
    assert part["imgs_train_sha256"] == atomic.sha256(data / "imgs_train.npy")


def test_the_best_epoch_by_validation_dice_is_kept(trained, data):
    rows = read_csv(trained / "unet.csv")
    best = max(rows, key=lambda row: float(row["val_dice_coef"]))
    record = json.loads((trained / "unet.json").read_text())
    assert record["kept"]["epoch"] == int(best["epoch"])
    network = build_unet(16, 16, filters=2, depth=2)
    h5_file.load(network, trained / "unet.h5")
    x, y = np.load(data / "x_val.npy"), np.load(data / "y_val.npy")
    p = np.asarray(network(x), np.float64)
    # dice_coef by hand, all validation frames as one batch
    dice = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    assert dice == pytest.approx(float(best["val_dice_coef"]), abs=1e-5)


def test_keep_last_keeps_the_last(data, tmp_path):
    run(data, tmp_path / "unet.h5", "--epochs", "2", "--keep", "last")
    assert json.loads((tmp_path / "unet.json").read_text())["kept"]["epoch"] == 2


def test_the_network_learns(data, tmp_path):
    run(data, tmp_path / "unet.h5", "--epochs", "15", "--filters", "4")
    rows = read_csv(tmp_path / "unet.csv")
    assert float(rows[-1]["dice_coef"]) > float(rows[0]["dice_coef"]) + 0.2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    trained, data, tmp_path
):
    run(data, tmp_path / "unet.h5", "--epochs", "4")
    assert digests(tmp_path) == digests(trained)
    run(data, tmp_path / "other.h5", "--epochs", "4", "--seed", "1")
    assert digests(tmp_path)["other.h5"] != digests(trained)["unet.h5"]


class Killed(BaseException):
    """Stands for a signal: no `except Exception` catches it."""


def read_epoch(folder):
    """Return the epochs that an interrupted run's state holds; 0 where there is none."""
    path = folder / "unet.state.npz"
    if not path.exists():
        return 0
    with np.load(path) as state:
        return len(json.loads(str(state["record"]))["history"])


@pytest.fixture
def interrupted(undisturbed, tmp_path):
    """The folder of a run of 4 epochs that ended as it was to keep its first epoch."""
    first = next(folder for folder in undisturbed[1] if read_epoch(folder) == 1)
    return shutil.copytree(first, tmp_path / "interrupted")


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_killed_at_any_writing_resumes_to_the_same_bytes(
    data, undisturbed, tmp_path, epoch
):
    trained, copies = undisturbed
    states = [read_epoch(folder) for folder in copies]
    # nothing yet, then four epochs; each has its state, result, table and strip to write
    assert states == sorted(states)
    assert set(states) == {0, 1, 2, 3, 4}
    pairs = zip(copies, states, strict=True)
    chosen = [folder for folder, state in pairs if state == epoch]
    assert len(chosen) >= 3
    for folder in chosen:
        copy = shutil.copytree(folder, tmp_path / folder.name)
        run(data, copy / "unet.h5", "--epochs", "4", "--resume")
        assert digests(copy) == digests(trained), folder.name


FLAGS = ["--recipe", "modern", "--epochs", "3"]


@pytest.fixture(scope="module")
def modern(data, tmp_path_factory):
    """The folder of an undisturbed run of the modern recipe."""
    folder = tmp_path_factory.mktemp("modern")
    run(data, folder / "unet.h5", *FLAGS)
    return folder


def test_a_resumed_run_with_dropout_and_augmentation_ends_in_the_same_bytes(
    data, modern, tmp_path, monkeypatch
):
    original = loop.train_epoch

    def interrupted(*args):
        if args[2] == 2:
            raise Killed
        return original(*args)

    monkeypatch.setattr(loop, "train_epoch", interrupted)
    with pytest.raises(Killed):
        run(data, tmp_path / "unet.h5", *FLAGS)
    monkeypatch.setattr(loop, "train_epoch", original)
    run(data, tmp_path / "unet.h5", *FLAGS, "--resume")
    assert digests(tmp_path) == digests(modern)


def test_the_modern_recipe_leaves_averaged_weights_in_stock_layers(modern, data):
    record = json.loads((modern / "unet.json").read_text())
    network = build_network(build(Recipe, record["recipe"]), 16, 16)
    h5_file.load(network, modern / "unet.h5")
    x, y = np.load(data / "x_val.npy"), np.load(data / "y_val.npy")
    p = np.asarray(network(x), np.float64)
    dice = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    # those whose Dice the table gives, not the last step's; bfloat16 may move it a little
    assert dice == pytest.approx(record["kept"]["val_dice_coef"], abs=5e-3)


def test_a_copy_of_averaged_weights_leaves_the_training_as_it_was(data):
    splits, arrays, _ = read_data([data])
    recipe = replace(MODERN, filters=2, depth=2, batch_size=5)
    design = loop.Design(build_network, build_loss(recipe), dice_coef, smooth_dice)
    planned = plan(recipe, {}, 0, "best", "float32", None, splits)
    model = loop.build_model(design, planned, 15, None)
    x, y = arrays["x_train"][:4], arrays["y_train"][:4]
    for _ in range(3):
        model.train_on_batch(x, y)
    before, network = model.get_weights(), build_network(recipe, 16, 16)
    loop.copy_averaged(model, network)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    last = build_network(recipe, 16, 16)
    last.set_weights(model.get_weights())
    pairs = zip(network.get_weights(), last.get_weights(), strict=True)
    assert not all(np.allclose(*pair, atol=1e-7) for pair in pairs)


def test_resume_without_a_run_starts_and_says_so(data, tmp_path, capsys):
    run(data, tmp_path / "unet.h5", "--epochs", "1", "--resume")
    assert "nothing to resume" in capsys.readouterr().out
    assert (tmp_path / "unet.h5").exists()


def test_resume_of_a_finished_run_does_nothing(trained, data, capsys):
    before = digests(trained)
    run(data, trained / "unet.h5", "--epochs", "4", "--resume")
    assert "finished; nothing to do" in capsys.readouterr().out
    assert digests(trained) == before


def test_a_result_is_never_overwritten(trained, data):
    before = digests(trained)
    with pytest.raises(ValueError, match=r"unet\.json is there: a result.*--resume"):
        run(data, trained / "unet.h5", "--epochs", "4")
    assert digests(trained) == before


def test_weights_without_a_record_are_never_overwritten(trained, data, tmp_path):
    mine = shutil.copy(trained / "unet.h5", tmp_path / "mine.h5")
    for flags in ([], ["--resume"], ["--init", str(mine)]):
        with pytest.raises(ValueError, match=r"mine\.h5 is there, weights that are never"):
            run(data, tmp_path / "mine.h5", "--epochs", "1", *flags)
    assert atomic.sha256(mine) == atomic.sha256(trained / "unet.h5")


def test_a_best_epoch_whose_weights_are_gone_is_not_called_kept(
    data, tmp_path, monkeypatch
):
    scores = iter([0.9, 0.1, 0.2])
    monkeypatch.setattr(loop, "validate", lambda *_: next(scores))
    monkeypatch.setattr(loop, "warn_if_empty", lambda rows: 1 / (2 - len(rows)))
    with pytest.raises(ZeroDivisionError):  # in the second epoch, behind its state
        run(data, tmp_path / "unet.h5", "--epochs", "3")
    (tmp_path / "unet.h5").unlink()
    message = r"unet\.json is there, but not .*unet\.h5; .*remove .*json and .*state\.npz"
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "unet.h5", "--epochs", "3", "--resume")
    (tmp_path / "unet.json").unlink()
    with pytest.raises(ValueError, match=r"of epoch 1, the best so far; bring both back"):
        run(data, tmp_path / "unet.h5", "--epochs", "3", "--resume")


def test_init_trained_on_the_validation_subjects_is_refused(data, tmp_path):
    for fold in ("0", "1"):
        folder = shutil.copytree(data, tmp_path / fold)
        size = ["--height", "16", "--width", "16"]
        preprocess.main(["--data", str(folder), *size, "--folds", "4", "--fold", fold])
    run(tmp_path / "0", tmp_path / "first.h5", "--epochs", "1")
    flags = ["--epochs", "1", "--init", str(tmp_path / "first.h5")]
    with pytest.raises(ValueError, match=r"first\.h5 was trained on subjects \d, which"):
        run(tmp_path / "1", tmp_path / "second.h5", *flags)
    run(tmp_path / "0", tmp_path / "second.h5", *flags)


def test_resume_with_other_arrays_is_refused(data, interrupted, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    flags = ["--height", "16", "--width", "16", "--soft-masks"]
    preprocess.main(["--data", str(folder), *flags])
    with pytest.raises(
        ValueError, match=r"the interrupted run had y_train\.npy [0-9a-f]+, now"
    ):
        run(folder, interrupted / "unet.h5", "--epochs", "4", "--resume")


def test_resume_with_other_settings_is_refused(data, interrupted):
    with pytest.raises(ValueError, match="had epochs 4, now it is 3"):
        run(data, interrupted / "unet.h5", "--epochs", "3", "--resume")
    with pytest.raises(ValueError, match="an interrupted run, which is never overwritten"):
        run(data, interrupted / "unet.h5", "--epochs", "4")


def test_a_state_of_another_network_is_refused(data, interrupted):
    with np.load(interrupted / "unet.state.npz") as state:
        arrays = {**state, "v0": np.zeros((3, 3, 1, 7), np.float32)}
    np.savez(interrupted / "unet.state.npz", **arrays)
    with pytest.raises(ValueError, match="of another version of the network"):
        run(data, interrupted / "unet.h5", "--epochs", "4", "--resume")


def test_init_starts_from_the_weights_also_of_another_size(
    trained, data, tmp_path, monkeypatch
):
    started = {}

    def look(model, *args):
        started["weights"] = model.get_weights()
        raise Killed

    monkeypatch.setattr(loop, "train_epoch", look)
    source = build_unet(32, 48, filters=2, depth=2)
    (tmp_path / "wide.h5").write_bytes(
        h5_file.to_bytes(source, "dice_coef_loss", ["dice_coef"], 1e-5)
    )
    with pytest.raises(Killed):
        run(data, tmp_path / "unet.h5", "--init", str(tmp_path / "wide.h5"))
    for one, two in zip(source.get_weights(), started["weights"], strict=True):
        np.testing.assert_array_equal(one, two)


def test_init_brings_filters_depth_and_the_subjects_it_has_seen(trained, data, tmp_path):
    flags = ["--epochs", "1", "--recipe", "modern", "--init", str(trained / "unet.h5")]
    train.main(["--data", str(data), "--out", str(tmp_path / "unet.h5"), *flags])
    record = json.loads((tmp_path / "unet.json").read_text())
    recipe = record["recipe"]
    assert (recipe["network"], recipe["filters"], recipe["depth"]) == ("unet", 2, 2)
    assert recipe["dropout"] == 0.0  # the network's, not the recipe's 0.2
    assert len(record["trained_on"]) == 2
    assert record["init_sha256"] == atomic.sha256(trained / "unet.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"recipe": {"filters": "x"}},
            "gives filters 'x'; expected a whole number, 1 to 256",
        ),
        ({"recipe": {"filters": 100_000}}, "gives filters 100000; expected a whole number"),
        ({"recipe": {"filters": 256, "depth": 6}}, "is too small"),
        ({"recipe": {"filters": True}}, "gives filters True"),
        ({"recipe": {"network": []}}, r"gives network \[\]"),
        ({"recipe": {"network": "vnet"}}, "network 'vnet' in the recipe; expected one of"),
        ({"recipe": {"schedule": "step"}}, "schedule 'step'; expected constant or cosine"),
        ({"recipe": {"augmentation": 7}}, "gives augmentation 7; expected an object"),
        ({"trained_on": 7}, "gives trained_on 7; expected a list"),
        ({"trained_on": [7]}, "gives trained_on 7; expected an object"),
        ({"seed": None}, "gives seed None; expected a whole number"),
        ({"h5_sha256": "0"}, "is not the file that"),
    ],
)
def test_init_whose_record_is_odd_is_refused(trained, data, tmp_path, change, message):
    shutil.copy(trained / "unet.h5", tmp_path / "a.h5")
    record = json.loads((trained / "unet.json").read_text())
    change = {
        name: record[name] | v if name == "recipe" else v for name, v in change.items()
    }
    record |= change
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "b.h5", "--init", str(tmp_path / "a.h5"))


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "unet.state.npz"
    np.savez(path, record=np.array("{}"), weights=np.arange(1000))
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:200], b"", whole.replace(b"{", b"[", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged or of another version; remove it"):
            checkpoint.load_state(path, None, None)


def test_init_that_does_not_fit_is_refused(trained, data, tmp_path):
    with pytest.raises(ValueError, match="does not fit this U-Net"):
        run(
            data,
            tmp_path / "a.h5",
            "--init",
            str(trained / "unet.h5"),
            "--filters",
            "4",
        )


def test_an_exploding_loss_stops_and_keeps_what_was_good(data, tmp_path, monkeypatch):
    original = loop.train_batches

    def explode(model, pairs, num_frames, batch_size, label):
        scores = original(model, pairs, num_frames, batch_size, label)
        return {**scores, "loss": float("nan")} if label == "epoch 2/3" else scores

    monkeypatch.setattr(loop, "train_batches", explode)
    with pytest.raises(ValueError, match="loss is nan in epoch 2.*--learning-rate"):
        run(data, tmp_path / "unet.h5", "--epochs", "3")
    assert json.loads((tmp_path / "unet.json").read_text())["kept"]["epoch"] == 1
    h5_file.load(build_unet(16, 16, filters=2, depth=2), tmp_path / "unet.h5")


def test_weights_that_broke_in_the_last_step_are_not_kept(data, tmp_path, monkeypatch):
    original = loop.train_batches

    def explode(model, pairs, num_frames, batch_size, label):
        means = original(model, pairs, num_frames, batch_size, label)
        if label == "epoch 2/3":  # every loss was finite
            weights = model.get_weights()
            weights[0][0] = np.inf
            model.set_weights(weights)
        return means

    monkeypatch.setattr(loop, "train_batches", explode)
    with pytest.raises(ValueError, match="in epoch 2: training has exploded"):
        run(data, tmp_path / "unet.h5", "--epochs", "3")
    assert json.loads((tmp_path / "unet.json").read_text())["kept"]["epoch"] == 1


def test_a_batch_too_large_for_the_memory_is_refused_with_one_that_fits(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(machine, "free_memory", lambda: 400_000)
    line = r"need about .* GB are free; --batch-size \d+ fits"
    with pytest.raises(ValueError, match=line) as caught:
        run(data, tmp_path / "unet.h5", "--batch-size", "1000")
    size = str(caught.value).split("--batch-size ")[1].split()[0]
    run(data, tmp_path / "unet.h5", "--batch-size", size, "--epochs", "1")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")]
)
def test_memory_that_runs_out_is_one_line_with_a_batch_size(error):
    line = "Try --batch-size 8, or smaller frames"
    with pytest.raises(ValueError, match=line), memory.naming_memory(16):
        raise error
    with pytest.raises(RuntimeError, match="^other$"), memory.naming_memory(16):
        raise RuntimeError("other")


def test_a_network_that_predicts_nothing_is_said_aloud_after_three_epochs(capsys):
    history = [{"dice_coef": value} for value in (0.3, 0.001, 0.002)]
    loop.warn_if_empty(history)
    assert capsys.readouterr().out == ""
    loop.warn_if_empty([*history, {"dice_coef": 0.001}])
    assert "predicts next to nothing" in capsys.readouterr().out


@pytest.mark.parametrize("draw", ["order", "balanced"])
def test_each_epoch_has_its_own_order_and_sees_every_frame(draw):
    subjects = np.repeat([3, 5, 8], 5)  # of equal counts, so that balance takes all
    draws = {
        "order": lambda epoch: batches.draw_order(15, 0, epoch),
        "balanced": lambda epoch: batches.draw_balanced(subjects, 0, epoch),
    }
    orders = [draws[draw](epoch).tolist() for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(15))
    assert orders[0] != orders[1]
    assert orders[0] == draws[draw](0).tolist()


def test_a_size_that_the_depth_does_not_divide_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="multiples of 32"):
        run(data, tmp_path / "unet.h5", "--depth", "5")


def test_changed_arrays_are_refused_with_the_command_that_mends_it(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    with open(tmp_path / "data" / "x_train.npy", "r+b") as file:
        file.seek(500)
        file.write(b"\x01")
    with pytest.raises(ValueError, match=r"x_train\.npy changed .* python preprocess\.py"):
        run(tmp_path / "data", tmp_path / "unet.h5")


def test_missing_arrays_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"preprocess\.json is missing; make it"):
        run(tmp_path / "none", tmp_path / "unet.h5")


@pytest.mark.parametrize(
    "flags",
    [
        ["--epochs", "0"],
        ["--learning-rate", "2"],
        ["--learning-rate", "nan"],
        ["--batch-size", "-1"],
        ["--out", "weights/unet.keras"],
        ["--recipe", "none"],
        ["--seed", "-1"],
    ],
)
def test_flags_out_of_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main(flags)
    assert flags[0] in capsys.readouterr().err


def test_weights_that_are_gone_are_not_called_finished(trained, data, tmp_path):
    shutil.copy(trained / "unet.json", tmp_path / "unet.json")
    with pytest.raises(ValueError, match=r"unet\.json is there, but not .*unet\.h5"):
        run(data, tmp_path / "unet.h5", "--epochs", "4", "--resume")


def test_arrays_of_an_earlier_extraction_are_not_trained_on(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    record = json.loads((copy / "extract.json").read_text())
    record["arrays"]["imgs_train.npy"]["sha256"] = "0"
    (copy / "extract.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is of an earlier extraction; make it again"):
        run(copy, tmp_path / "unet.h5", "--epochs", "1")


def test_ctrl_c_says_how_to_go_on(data, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_batches", stop)
    with pytest.raises(KeyboardInterrupt, match="with --resume goes on"):
        run(data, tmp_path / "unet.h5", "--epochs", "1")


def test_init_of_another_size_is_said(trained, data, tmp_path, capsys):
    folder = shutil.copytree(data, tmp_path / "data")
    preprocess.main(["--data", str(folder), "--height", "32", "--width", "16"])
    flags = ["--epochs", "1", "--init", str(trained / "unet.h5")]
    run(folder, tmp_path / "unet.h5", *flags)
    assert "was trained on 16 x 16 pixels" in capsys.readouterr().out


def test_flags_change_the_recipe_and_nothing_else(data, tmp_path):
    flags = ["--seed", "7", "--keep", "last", "--epochs", "1", "--precision", "float32"]
    run(data, tmp_path / "unet.h5", *flags)
    record = Trained.from_dict(json.loads((tmp_path / "unet.json").read_text()), tmp_path)
    changed = {"filters": 2, "depth": 2, "batch_size": 5, "learning_rate": 0.01}
    assert record.recipe == replace(CLASSIC, **changed, epochs=1)
    assert (record.seed, record.keep, record.precision) == (7, "last", "float32")


# ---------------------------------------------------------------- a record says all

TINY = {"filters": 2, "depth": 2, "batch_size": 5, "learning_rate": 0.01, "epochs": 2}
AUGMENTATION = replace(MODERN.augmentation, rotation=5.0, flips=0.1)
ODD = {
    "classic": replace(
        CLASSIC,
        **TINY,
        dropout=0.4,
        initial_logit=-2.5,
        augmentation=replace(AUGMENTATION, scale=(0.9, 1.4)),
        balance=True,
        schedule="cosine",
        warm_up=0.3,
        final_rate=0.2,
        average=0.4,
    ),
    "modern": replace(
        MODERN,
        **TINY,
        missed_share=0.6,
        empty_smooth=0.03,
        augmentation=AUGMENTATION,
        average=0.3,
        warm_up=0.25,
        dropout=0.35,
    ),
}


def retrain(data, out, record, **changes):
    """Train with what a record says of its recipe, read as JSON, perhaps changed."""
    recipe = json.dumps(record["recipe"] | changes)
    flags = ["--seed", str(record["seed"]), "--precision", record["precision"]]
    flags += ["--keep", record["keep"], "--data", str(data), "--out", str(out)]
    train_recipe.main([recipe, *flags])


@pytest.fixture(scope="module", params=ODD)
def odd(request, data, tmp_path_factory):
    """The folder of a run whose recipe has values of its own."""
    folder = tmp_path_factory.mktemp("odd")
    flags = ["--recipe", request.param, "--seed", "3", "--keep", "last"]
    train.main(["--data", str(data), "--out", str(folder / "unet.h5"), *flags], ODD)
    return folder


def test_a_record_and_the_arrays_give_the_same_bytes_again(data, odd, tmp_path):
    record = json.loads((odd / "unet.json").read_text())
    assert build(Recipe, record["recipe"]) == ODD[record["recipe"]["name"]]
    retrain(data, tmp_path / "unet.h5", record)
    assert digests(tmp_path) == digests(odd)  # the record, too, and the history


# A value of each field that a run hears of; `name`, `height` and `width` decide nothing,
# and some others are wrong together with those of the run.
OTHER = {
    "dropout": 0.6,
    "initial_logit": -1.0,
    "missed_share": 0.9,
    "empty_smooth": 0.3,
    "warm_up": 0.6,
    "final_rate": 0.9,
    "average": None,
    "balance": False,
    "augmentation": None,
    "weight_decay": 0.9,
}
# The record could not be built without these, or the history would differ.
PLAIN = {"network", "filters", "depth", "loss", "learning_rate", "schedule"}
PLAIN |= {"batch_size", "epochs"}


@pytest.fixture(scope="module")
def quick(data, tmp_path_factory):
    """The folder of a run that every value of the recipe has a part in."""
    recipe = replace(
        ODD["classic"],
        loss="tversky_crossentropy_loss",
        missed_share=0.6,
        empty_smooth=0.03,
    )
    folder = tmp_path_factory.mktemp("quick")
    flags = ["--recipe", "classic", "--keep", "last", "--precision", "float32"]
    path = str(folder / "unet.h5")
    train.main(["--data", str(data), "--out", path, *flags], {"classic": recipe})
    return folder


@pytest.mark.parametrize("name", OTHER)
def test_each_value_of_a_recipe_has_its_part_in_the_outcome(data, quick, tmp_path, name):
    record = json.loads((quick / "unet.json").read_text())
    assert record["recipe"][name] != OTHER[name]
    retrain(data, tmp_path / "unet.h5", record, **{name: OTHER[name]})
    assert digests(tmp_path)["unet.h5"] != digests(quick)["unet.h5"]


def test_no_value_of_a_recipe_is_left_out_above():
    names = {field.name for field in dataclasses.fields(Recipe)}
    # the arrays decide height and width
    assert names - {*OTHER} - PLAIN == {"name", "height", "width"}


def test_weights_decay_in_kernels_alone():
    recipe = replace(ODD["classic"], weight_decay=0.1, learning_rate=0.5, average=None)
    recipe = replace(recipe, schedule="constant", network="fast_unet")
    model = build_network(recipe, 16, 16)
    model.set_weights([np.ones_like(value) for value in model.get_weights()])
    optimizer = loop.build_optimizer(recipe, "float32", 100)
    variables = model.trainable_variables
    optimizer.apply([np.zeros(v.shape, np.float32) for v in variables], variables)
    for variable in variables:
        expected = 1 - 0.5 * 0.1 if variable.name == "kernel" else 1
        np.testing.assert_allclose(variable, expected, rtol=1e-6)


def test_resume_with_another_value_within_the_augmentation_is_refused(
    data, tmp_path, monkeypatch
):
    def start(recipe, *flags):
        flags = ["--recipe", "classic", *flags]
        out = str(tmp_path / "unet.h5")
        train.main(["--data", str(data), "--out", out, *flags], {"classic": recipe})

    recipe = ODD["classic"]
    monkeypatch.setattr(loop, "save_result", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(recipe)
    for change, line in (
        ({"rotation": 6.0}, r"had rotation 5\.0, now it is 6\.0"),
        ({"scale": (0.9, 1.5)}, r"had scale \[0\.9, 1\.4\], now it is \[0\.9, 1\.5\]"),
    ):
        other = replace(recipe, augmentation=replace(recipe.augmentation, **change))
        with pytest.raises(ValueError, match=line):
            start(other, "--resume")
    with pytest.raises(ValueError, match="had augmentation .*, now it is None"):
        start(replace(recipe, augmentation=None), "--resume")
    with pytest.raises(ZeroDivisionError):  # goes on, to the same place
        start(recipe, "--resume")


# Numbers of modules that training runs through, each with why it is no value of a recipe.
CONSTANTS = {
    "losses.SMOOTH": "the definition of dice_coef",
    "model.SUMMARY_WIDTH": "of a table in a text file",
    "nerve.training.augment.GRAINS": "how speckle is drawn",
    "nerve.training.augment.DEPTHS": "how a gain over depth is drawn",
    "nerve.training.loop.EMPTY_DICE": "of a warning",
    "nerve.training.loop.EMPTY_EPOCHS": "of a warning",
    "nerve.training.memory.MEMORY_FACTOR": "of a batch's refusal before training",
    "nerve.training.progress.MOST_STRIPS": "of a picture",
    "nerve.training.progress.FRAMES": "of a picture",
    "nerve.training.progress.HEIGHT": "of a picture",
    "nerve.training.progress.MARGIN": "of a picture",
    "nerve.training.rehearsal.TRIED_STEPS": "of --dry-run",
    "nerve.training.rehearsal.FORWARD_SHARE": "of --dry-run",
}


def has_number(value):
    """Tell whether a value is a number or holds one, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list, set, frozenset)):
        return any(map(has_number, value))
    return isinstance(value, (int, float))


def list_constants(tree):
    """Return the names that a module's own lines give a value, also below an `if`."""
    names, open_nodes = set(), list(tree.body)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        open_nodes += ast.iter_child_nodes(node)
    return names


def test_names_with_values_are_found_in_a_modules_lines():
    lines = "A, b = 1, 2\nC: int = 3\nif A:\n    D = 4\ndef f():\n    E = 5\n"
    assert list_constants(ast.parse(lines)) == {"A", "b", "C", "D"}
    assert has_number({"a": (1.5,)})
    assert not has_number(("a", {"b": None}))


def test_no_number_that_decides_a_training_stands_outside_of_the_recipe():
    paths = [*(ROOT / "nerve" / "training").glob("*.py")]
    paths += [ROOT / f"{name}.py" for name in ("losses", "model", "train")]
    found = set()
    for path in paths:
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(dotted)
        for name in list_constants(ast.parse(path.read_text())):
            if has_number(getattr(module, name, None)):
                found.add(f"{dotted}.{name}")
    assert found == {*CONSTANTS}


@pytest.fixture(scope="module")
def sources(data, tmp_path_factory):
    """Two folders of arrays prepared alike: `data`, and frames of another shape."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(data, folder / "one")
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()
    rng = np.random.default_rng(5)
    for k in range(6):
        frame = rng.integers(30, 200, (60, 40), np.uint8)
        mask = np.zeros((60, 40), np.uint8)
        mask[10:30, 5 + k : 20 + k] = 255
        for name, picture in (("images", frame), ("masks", mask)):
            cv2.imwrite(str(folder / name / f"{k}.png"), picture)
    own = str(folder / "two")
    extract_data.main(["--images", str(images), "--masks", str(masks), "--data", own])
    preprocess.main(["--data", own, "--like", str(folder / "one"), "--split", "none"])
    return folder / "one", folder / "two"


def test_frames_prepared_like_others_have_their_size_scaling_and_aspect(sources):
    one, two = map(read_split, sources)
    assert one.inputs == two.inputs
    x = np.load(sources[1] / "x_train.npy")
    grey = x * one.standard_deviation + one.mean
    # 60 x 40 pixels in an array that stands for 64 x 80: black at both sides
    assert grey[:, :, :3].max() == pytest.approx(0, abs=1e-3)
    assert grey[:, :, 6:10].min() > 20


def test_several_sources_are_trained_on_together(sources, tmp_path):
    out = tmp_path / "unet.h5"
    flags = ["--epochs", "2", "--filters", "2", "--depth", "2", "--batch-size", "4"]
    train.main(["--data", *map(str, sources), "--out", str(out), *flags])
    trained = read_trained(out)
    one, two = map(read_split, sources)
    assert [part.frames for part in trained.trained_on] == [len(one.train.rows), 6]
    assert [part.split for part in trained.data] == ["subject", "none"]
    assert trained.looks == [s.look for s in (one, two) if s.look]
    # each source's validation frames are its own
    for split in (one, two):
        assert held_out.is_own(trained, split)
        assert held_out.trained_on(trained, split) == []


def test_joined_arrays_give_the_rows_of_each(sources):
    splits, arrays, subjects = read_data(sources)
    x = [np.load(folder / "x_train.npy") for folder in sources]
    count = len(x[0])
    assert len(arrays["x_train"]) == len(subjects) == count + 6
    # subjects of one number in two sources are two
    assert len(set(subjects)) == len(splits[0].train.subjects) + 6
    chosen = np.array([count + 5, 0, count, count - 1, 0])
    expected = np.concatenate(x)[chosen]
    np.testing.assert_array_equal(arrays["x_train"][chosen], expected)
    part = slice(count - 2, count + 2)
    np.testing.assert_array_equal(arrays["x_train"][part], np.concatenate(x)[part])
    np.testing.assert_array_equal(arrays["x_train"][count + 1], x[1][1])


def test_sources_that_do_not_fit_together_are_refused(data, sources, tmp_path):
    out = ["--out", str(tmp_path / "unet.h5")]
    other = shutil.copytree(sources[1], tmp_path / "other")
    preprocess.main(["--data", str(other), "--height", "16", "--width", "16"])
    text = "differ in size, scaling or aspect; mend it with: .* --like"
    with pytest.raises(ValueError, match=text):
        train.main(["--data", str(data), str(other), *out])
    with pytest.raises(ValueError, match="two hold the same frames"):
        train.main(["--data", str(sources[0]), str(data), *out])
