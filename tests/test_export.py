"""Exports: as good as Keras, refused where they are of others, without TensorFlow."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, make_raw

import export
import extract_data
import predict
import preprocess
import train
from model import build_network
from nerve.files import atomic, run_length
from nerve.prediction import engines
from nerve.prediction.exporting import (
    FusedNormalization,
    GroupNormalization,
    with_fused_normalization,
)
from recipes import RECIPES


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with data/ and weights/, exported; and what the script printed."""
    folder = tmp_path_factory.mktemp("export")
    make_raw(folder / "raw", subjects=5, frames=8, test=6)
    data, weights = str(folder / "data"), str(folder / "weights" / "unet.h5")
    extract_data.main(["--raw", str(folder / "raw"), "--data", data])
    preprocess.main(["--data", data, "--height", "32", "--width", "48"])
    flags = ["--filters", "4", "--depth", "2", "--batch-size", "4", "--epochs", "20"]
    train.main(["--data", data, "--out", weights, "--learning-rate", "0.005", *flags])
    done = subprocess.run(
        [sys.executable, str(ROOT / "export.py"), "--data", data, "--weights", weights],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_every_form_is_written_and_compared(exported):
    folder, text = exported
    names = {path.name for path in (folder / "weights").iterdir()}
    assert names >= {
        "unet.onnx",
        "unet.xml",
        "unet.bin",
        "unet_int8.xml",
        "unet_int8.bin",
        "unet.tflite",
        "unet_int8.tflite",
        "unet.exports.json",
    }
    assert not [name for name in names if "tmp" in name]
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    keras = float(rows["keras"][1])
    for engine in engines.FILES:
        megabytes, dice, difference, spent = map(float, rows[engine])
        limit = 0.01 if engine.endswith("int8") else 0.002
        assert abs(dice - keras) <= limit
        assert difference == pytest.approx(dice - keras, abs=2e-4)
        assert spent > 0
    assert keras > 0.2  # a network that finds something


def read_masks(out):
    with open(out / "submission.csv", newline="") as file:
        return [run_length.decode(row["pixels"], 64, 80) for row in csv.DictReader(file)]


@pytest.mark.parametrize("engine", engines.FILES)
def test_engines_predict_without_tensorflow_what_keras_does(exported, tmp_path, engine):
    folder, _ = exported
    flags = ["--data", str(folder / "data"), "--weights"]
    flags += [str(folder / "weights" / "unet.h5"), "--out"]
    code = (
        "import sys, predict; from nerve import command; "
        "sys.argv = ['predict.py', *sys.argv[1:]]; "
        "status = command.run(predict.main); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules), 'imported'; "
        "sys.exit(status)"
    )
    out = tmp_path / engine
    done = subprocess.run(
        [sys.executable, "-c", code, *flags, str(out), "--engine", engine],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    predict.main([*flags, str(tmp_path / "keras"), "--precision", "float32"])
    pairs = zip(read_masks(out), read_masks(tmp_path / "keras"), strict=True)
    differing = np.mean([np.mean(one != two) for one, two in pairs])
    assert differing < (0.03 if engine.endswith("int8") else 0.005)


def test_an_engine_computes_in_the_precision_that_is_asked_for(exported):
    weights = exported[0] / "weights" / "unet.h5"
    x = np.random.default_rng(0).normal(size=(2, 32, 48, 1)).astype(np.float32)
    found = {
        engine: engines.load(engine, engines.exported(weights, engine), "float32")
        for engine in ("onnx", "openvino", "litert")
    }
    one, *others = [network.predict_on_batch(x) for network in found.values()]
    assert one.std() > 0.01  # says something
    for other in others:  # bfloat16, where the processor has it, is off by 1e-3 and more
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_openvino_runs_where_kernels_are_held_to_older_processors(exported):
    path = engines.exported(exported[0] / "weights" / "unet.h5", "openvino")
    code = f"""
import numpy as np
from pathlib import Path
from nerve.prediction import engines
x = np.zeros((1, 32, 48, 1), np.float32)
print(engines.load("openvino", Path({str(path)!r})).predict_on_batch(x).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(1, 32, 48, 1)\n", done.stderr


def test_a_precision_that_openvino_cannot_run_is_one_line(exported, monkeypatch):
    import openvino

    def fail(*_):
        raise RuntimeError("no kernel\n of this type")

    path = engines.exported(exported[0] / "weights" / "unet.h5", "openvino")
    network = engines.load("openvino", path, "bfloat16")
    monkeypatch.setattr(openvino.Core, "compile_model", fail)
    said = r"unet\.xml in bfloat16 here \(no kernel of this type\)$"
    with pytest.raises(ValueError, match=said):
        network.predict_on_batch(np.zeros((1, 32, 48, 1), np.float32))


def test_a_precision_that_an_engine_lacks_is_refused(copy):
    said = r"^--engine litert-int8 computes in float32, not in bfloat16$"
    refused(copy, said, "--engine", "litert-int8", "--precision", "bfloat16")


def test_what_is_exported_has_the_same_results_without_keras_own_normalization():
    recipe = replace(RECIPES["modern"], filters=4, depth=2)
    network = build_network(recipe, 16, 24)
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0.5, 0.2, w.shape) for w in network.get_weights()])
    fused = with_fused_normalization(network)
    kinds = {type(layer) for layer in fused.layers}
    assert FusedNormalization in kinds
    assert GroupNormalization not in kinds
    x = rng.normal(3, 20, (2, 16, 24, 1)).astype(np.float32)
    expected = network.predict_on_batch(x)
    assert expected.std() > 0.01  # says something
    np.testing.assert_allclose(fused.predict_on_batch(x), expected, atol=1e-5)


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "copy")


def refused(copy, message, *flags):
    weights = str(copy / "weights" / "unet.h5")
    data = ["--data", str(copy / "data"), "--out", str(copy / "out")]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predict.main([*data, "--weights", weights, "--engine", "onnx", *flags])


def test_an_export_that_is_missing_changed_or_of_other_weights_is_refused(copy):
    path = copy / "weights" / "unet.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    refused(copy, r"unet\.onnx is not what python export\.py wrote")
    path.unlink()
    refused(copy, r"unet\.onnx is missing; make it with: python export\.py --weights")
    path.write_bytes(content)
    record = copy / "weights" / "unet.json"
    settings = json.loads(record.read_text())
    h5 = copy / "weights" / "unet.h5"
    h5.write_bytes(h5.read_bytes() + b"\0")  # as another training's would
    settings["h5_sha256"] = atomic.sha256(h5)
    record.write_text(json.dumps(settings))
    refused(copy, r"unet\.onnx is of other weights")
    (copy / "weights" / "unet.exports.json").unlink()
    refused(copy, r"unet\.exports\.json is missing; make it with")


def test_openvinos_weights_are_checked_too(copy):
    path = copy / "weights" / "unet.bin"
    path.write_bytes(path.read_bytes()[:-4])
    refused(copy, r"unet\.bin is not what python export\.py wrote", "--engine", "openvino")


def test_subjects_that_were_trained_on_may_be_compared_on_and_it_is_said(
    copy, monkeypatch, capsys
):
    data = copy / "data"
    rows = json.loads((data / "preprocess.json").read_text())["val"]["subjects"]
    flags = ["--data", str(data), "--height", "32", "--width", "48"]
    for seed in range(1, 20):
        preprocess.main([*flags, "--seed", str(seed)])
        record = json.loads((data / "preprocess.json").read_text())
        if record["val"]["subjects"] != rows:
            break
    monkeypatch.setattr(export, "read_calibration", lambda *_: 1 / 0)  # far enough
    with pytest.raises(ZeroDivisionError):
        export.main(["--data", str(data), "--weights", str(copy / "weights/unet.h5")])
    assert "note: the weights were trained on subjects" in capsys.readouterr().out


def test_an_engine_that_is_not_installed_says_what_to_install(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(copy, r"engine onnx needs: pip install -r requirements/export\.txt")


@pytest.mark.parametrize("name", export.NEEDED)
def test_what_exporting_needs_is_said_before_any_work(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    said = r"^export\.py needs: pip install -r requirements/export\.txt$"
    with pytest.raises(ValueError, match=said):
        export.main(["--weights", "absent.h5"])


def test_a_file_that_the_engine_cannot_read_is_one_line(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no network")
    for engine in ("onnx", "openvino", "litert"):
        with pytest.raises(ValueError, match=rf"a\.onnx cannot be read by {engine}"):
            engines.load(engine, tmp_path / "a.onnx")


def test_arrays_of_another_size_are_refused(copy):
    preprocess.main(["--data", str(copy / "data"), "--height", "32", "--width", "32"])
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    with pytest.raises(ValueError, match=r"take 32 x 48; mend it with: .*--width 48"):
        export.main(flags)


def test_a_form_that_differs_too_much_is_an_error(copy, monkeypatch):
    original = export.mean_dice

    def worse(*arguments):
        return original(*arguments) - 0.003 * (arguments[-1] == "onnx")

    monkeypatch.setattr(export, "mean_dice", worse)
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    with pytest.raises(ValueError, match="^onnx: Dice differs from Keras's by more"):
        export.main(flags)
    files = json.loads((copy / "weights" / "unet.exports.json").read_text())["files"]
    assert sorted(files) == [
        "unet.bin",
        "unet.tflite",
        "unet.xml",
        "unet_int8.bin",
        "unet_int8.tflite",
        "unet_int8.xml",
    ]
    refused(copy, r"unet\.onnx is not what python export\.py wrote")


def test_other_weights_than_one_h5_are_refused(capsys):
    with pytest.raises(SystemExit):
        predict.main(["--engine", "onnx", "--weights", "a.h5", "b.h5"])
    assert "takes one .h5, exported" in capsys.readouterr().err


def test_only_openvinos_file_is_counted_with_its_weights(tmp_path):
    for suffix, size in ((".h5", 3), (".xml", 5), (".bin", 7)):
        (tmp_path / f"unet{suffix}").write_bytes(bytes(size))
    assert export.file_size(tmp_path / "unet.h5") == 3
    assert export.file_size(tmp_path / "unet.xml") == 12
