"""Training: what is kept, resumed, refused."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pytest
from conftest import make_raw

import extract_data
import preprocess
import train
from model import build_network, build_unet, copy_weights
from nerve import machine
from nerve.files import atomic, h5_file
from nerve.training import batches, checkpoint, loop, memory
from nerve.training import plan as train_settings
from recipes import RECIPES

SMALL = [
    "--filters",
    "2",
    "--depth",
    "2",
    "--batch-size",
    "4",
    "--learning-rate",
    "0.01",
]


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


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of an undisturbed run of 4 epochs."""
    folder = tmp_path_factory.mktemp("weights")
    run(data, folder / "unet.h5", "--epochs", "4")
    return folder


def test_a_run_leaves_weights_record_table_and_curve_and_no_state(trained):
    names = ("h5", "json", "csv", "png", "progress.png")
    assert set(digests(trained)) == {f"unet.{name}" for name in names}
    rows = read_csv(trained / "unet.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert list(rows[0]) == list(checkpoint.COLUMNS)
    assert {row["learning_rate"] for row in rows} == {"0.01"}


def test_the_record_says_all_that_predict_needs_and_where_the_weights_come_from(
    trained, data
):
    record = json.loads((trained / "unet.json").read_text())
    split = json.loads((data / "preprocess.json").read_text())
    assert record["h5_sha256"] == atomic.sha256(trained / "unet.h5")
    for name in ("height", "width", "mean", "standard_deviation"):
        assert record[name] == split[name]
    assert (record["filters"], record["depth"], record["threshold"]) == (2, 2, 0.5)
    assert record["data"]["validation_subjects"] == split["val"]["subjects"]
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


@pytest.mark.parametrize("moment", ["save_state", "save_result", "save_history", "add"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_run_ends_in_the_same_bytes(
    data, trained, tmp_path, monkeypatch, moment, epoch
):
    calls, where = [], loop
    if moment == "add":
        where = loop.Strips
    original = getattr(where, moment)

    def interrupted(*args):
        calls.append(args)
        if len(calls) == epoch:
            raise Killed
        return original(*args)

    monkeypatch.setattr(where, moment, interrupted)
    best = json.loads((trained / "unet.json").read_text())["kept"]["epoch"]
    if moment == "save_result" and epoch > best:
        epoch = 1  # it is called only at each best epoch
    with pytest.raises(Killed):
        run(data, tmp_path / "unet.h5", "--epochs", "4")
    monkeypatch.setattr(where, moment, original)
    run(data, tmp_path / "unet.h5", "--epochs", "4", "--resume")
    assert digests(tmp_path) == digests(trained)


MODERN = ["--recipe", "modern", "--depth", "4", "--epochs", "3"]


@pytest.fixture(scope="module")
def modern(data, tmp_path_factory):
    """The folder of an undisturbed run of the modern recipe."""
    folder = tmp_path_factory.mktemp("modern")
    run(data, folder / "unet.h5", *MODERN)
    return folder


def test_a_resumed_run_with_dropout_and_augmentation_ends_in_the_same_bytes(
    data, modern, tmp_path, monkeypatch
):
    original = loop.train_epoch

    def interrupted(*args):
        if args[4] == 2:
            raise Killed
        return original(*args)

    monkeypatch.setattr(loop, "train_epoch", interrupted)
    with pytest.raises(Killed):
        run(data, tmp_path / "unet.h5", *MODERN)
    monkeypatch.setattr(loop, "train_epoch", original)
    run(data, tmp_path / "unet.h5", *MODERN, "--resume")
    assert digests(tmp_path) == digests(modern)


def test_the_modern_recipe_leaves_averaged_weights_in_stock_layers(modern, data):
    record = json.loads((modern / "unet.json").read_text())
    network = build_network(record)
    h5_file.load(network, modern / "unet.h5")
    x, y = np.load(data / "x_val.npy"), np.load(data / "y_val.npy")
    p = np.asarray(network(x), np.float64)
    dice = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    # those whose Dice the table gives, not the last step's; bfloat16 may move it a little
    assert dice == pytest.approx(record["kept"]["val_dice_coef"], abs=5e-3)


def test_a_copy_of_averaged_weights_leaves_the_training_as_it_was(data):
    _, arrays = train_settings.read_data(data)
    settings = {**RECIPES["modern"], "height": 16, "width": 16, "seed": 0}
    settings |= {"filters": 2, "batch_size": 4, "precision": "float32"}
    model = loop.build_model(settings, 15, None)
    x, y = arrays["x_train"][:4], arrays["y_train"][:4]
    for _ in range(3):
        model.train_on_batch(x, y)
    before, network = model.get_weights(), build_network(settings)
    loop.copy_averaged(model, network, settings)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    last = build_network(settings)
    copy_weights(model, last)
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
        with pytest.raises(
            ValueError, match=r"mine\.h5 is there, weights that are never"
        ):
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
    message = (
        r"unet\.json is there, but not .*unet\.h5; .*remove .*json and .*state\.npz"
    )
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "unet.h5", "--epochs", "3", "--resume")
    (tmp_path / "unet.json").unlink()
    with pytest.raises(
        ValueError, match=r"of epoch 1, the best so far; bring both back"
    ):
        run(data, tmp_path / "unet.h5", "--epochs", "3", "--resume")


def test_init_trained_on_the_validation_subjects_is_refused(data, tmp_path):
    for fold in ("0", "1"):
        folder = shutil.copytree(data, tmp_path / fold)
        size = ["--height", "16", "--width", "16"]
        preprocess.main(["--data", str(folder), *size, "--folds", "4", "--fold", fold])
    run(tmp_path / "0", tmp_path / "first.h5", "--epochs", "1")
    flags = ["--epochs", "1", "--init", str(tmp_path / "first.h5")]
    with pytest.raises(
        ValueError, match=r"first\.h5 was trained on subjects \d, which"
    ):
        run(tmp_path / "1", tmp_path / "second.h5", *flags)
    run(tmp_path / "0", tmp_path / "second.h5", *flags)


def test_resume_with_frames_drawn_otherwise_is_refused(data, tmp_path, monkeypatch):
    folder = shutil.copytree(data, tmp_path / "data")
    monkeypatch.setattr(loop, "save_result", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folder, tmp_path / "unet.h5", "--epochs", "3")
    flags = ["--height", "16", "--width", "16", "--contradictory", "downweight"]
    preprocess.main(["--data", str(folder), *flags])
    with pytest.raises(ValueError, match="the interrupted run had data"):
        run(folder, tmp_path / "unet.h5", "--epochs", "3", "--resume")


def test_resume_with_other_settings_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "save_result", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(data, tmp_path / "unet.h5", "--epochs", "3")
    with pytest.raises(ValueError, match="had epochs 3, now it is 4"):
        run(data, tmp_path / "unet.h5", "--epochs", "4", "--resume")
    with pytest.raises(
        ValueError, match="an interrupted run, which is never overwritten"
    ):
        run(data, tmp_path / "unet.h5", "--epochs", "3")


def test_a_state_of_another_network_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "save_result", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(data, tmp_path / "unet.h5", "--epochs", "3")
    with np.load(tmp_path / "unet.state.npz") as state:
        arrays = {**state, "v0": np.zeros((3, 3, 1, 7), np.float32)}
    np.savez(tmp_path / "unet.state.npz", **arrays)
    with pytest.raises(ValueError, match="of another version of the network"):
        run(data, tmp_path / "unet.h5", "--epochs", "3", "--resume")


def test_init_starts_from_the_weights_also_of_another_size(
    trained, data, tmp_path, monkeypatch
):
    started = {}

    def look(model, *args):
        started["weights"] = model.get_weights()
        raise Killed

    monkeypatch.setattr(loop, "train_epoch", look)
    source = build_unet(32, 48, filters=2, depth=2)
    h5_file.save(source, tmp_path / "wide.h5", "dice_coef_loss", ["dice_coef"], 1e-5)
    with pytest.raises(Killed):
        run(data, tmp_path / "unet.h5", "--init", str(tmp_path / "wide.h5"))
    for one, two in zip(source.get_weights(), started["weights"], strict=True):
        np.testing.assert_array_equal(one, two)


def test_init_brings_filters_depth_and_the_subjects_it_has_seen(
    trained, data, tmp_path
):
    flags = ["--epochs", "1", "--init", str(trained / "unet.h5")]
    train.main(["--data", str(data), "--out", str(tmp_path / "unet.h5"), *flags])
    record = json.loads((tmp_path / "unet.json").read_text())
    assert (record["filters"], record["depth"]) == (2, 2)
    assert len(record["trained_on"]) == 2
    assert record["init_sha256"] == atomic.sha256(trained / "unet.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": "x"}, "gives filters 'x'"),
        ({"filters": 100_000}, "gives filters 100000"),
        ({"trained_on": 7}, "is not laid out as a record"),
        ({"h5_sha256": "0"}, "is not the file that"),
        ({"network": []}, "network \\[\\] in the settings"),
    ],
)
def test_init_whose_record_is_odd_is_refused(trained, data, tmp_path, change, message):
    shutil.copy(trained / "unet.h5", tmp_path / "a.h5")
    record = json.loads((trained / "unet.json").read_text()) | change
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "b.h5", "--init", str(tmp_path / "a.h5"))


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "unet.state.npz"
    np.savez(path, record=np.array("{}"), weights=np.arange(1000))
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:200], b"", whole.replace(b"{", b"[", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged; remove it to start anew"):
            checkpoint.load_state(path, None, {})


def test_frames_that_are_drawn_less_often_shorten_the_schedule():
    rows = {"rows": [0, 1, 2, 3]}
    assert loop.frames_an_epoch(rows) == 4
    assert loop.frames_an_epoch({**rows, "weight": [1.0, 0.5, 0.5, 0.0]}) == 2


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
    with pytest.raises(
        ValueError, match=r"x_train\.npy changed .* python preprocess\.py"
    ):
        run(tmp_path / "data", tmp_path / "unet.h5")


def test_missing_arrays_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"preprocess\.json is missing; make it"
    ):
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
