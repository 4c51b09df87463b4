"""The saved .h5 in Keras 3 and in Keras 2 (tf-keras), by the documentation's own lines."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import predict
from model import build_network, build_unet
from nerve.backend import keras
from nerve.files import h5_file
from nerve.phantom.scanner import make_subject, render
from nerve.phantom.sweep import plan_frames
from recipes import MODERN

ROOT = Path(__file__).parent.parent
# What is done with `model` after those lines, in either Keras.
USE = """
import numpy as np
frames = np.load({frames!r})
np.save({out!r}, model.predict(frames, verbose=0))
rate = float(np.asarray(model.optimizer.learning_rate))
masks = (frames > 0).astype("float32")
history = model.fit(frames, masks, epochs=3, verbose=0).history
assert rate == np.float32(1e-5), rate
assert max(history["loss"]) < 0, history
assert {noisy} or history["loss"][2] < history["loss"][0], history
assert abs(history["dice_coef"][0] + history["loss"][0]) < 1e-6, history
print("made by", type(model).__module__)
"""


def documented_blocks(word):
    """Return the blocks of Python in the README and in docs/ that hold a word."""
    texts = [path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))]
    blocks = re.findall(r"```python\n(.*?)```", "\n".join(texts), re.S)
    return {block for block in blocks if word in block}


def documented_lines(keras_2, path):
    """Return the documented lines for one of the Kerases, with the path filled in."""
    blocks = documented_blocks("dice_coef_loss")
    (block,) = (block for block in blocks if ("options=None" in block) == keras_2)
    documented = (
        "keras.models.load_model('path to pretrained weights', "
        'custom_objects = {"dice_coef":dice_coef, "dice_coef_loss": dice_coef_loss}, '
        f"compile=True{', options=None' if keras_2 else ''})"
    )
    assert documented in block
    return block.replace("path to pretrained weights", str(path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return `(network, path of its .h5, frames, its probabilities)`."""
    keras.utils.set_random_seed(1)
    network = build_unet(16, 24, filters=4, depth=2)
    path = tmp_path_factory.mktemp("h5") / "unet.h5"
    path.write_bytes(h5_file.to_bytes(network, "dice_coef_loss", ["dice_coef"], 1e-5))
    frames = np.random.default_rng(0).normal(size=(3, 16, 24, 1)).astype(np.float32)
    return network, path, frames, np.asarray(network(frames))


@pytest.fixture(scope="module", params=["unet", "fast_unet"])
def either(saved, request, tmp_path_factory):
    """Return the like of `saved` for each of the networks."""
    if request.param == "unet":
        return saved
    network = build_network(replace(MODERN, filters=4, depth=3), 16, 24)
    path = tmp_path_factory.mktemp("h5") / "fast_unet.h5"
    path.write_bytes(h5_file.to_bytes(network, "dice_coef_loss", ["dice_coef"], 1e-5))
    return network, path, saved[2], np.asarray(network(saved[2]))


@pytest.mark.parametrize("version", [2, 3])
def test_the_documented_lines_open_it_and_it_trains_on(either, tmp_path, version):
    network, path, frames, expected = either
    np.save(tmp_path / "frames.npy", frames)
    out = tmp_path / "out.npy"
    code = documented_lines(version == 2, path)
    # three steps at 1e-5 move the loss by less than dropout does
    noisy = network.name == "fast_unet"
    code += USE.format(frames=str(tmp_path / "frames.npy"), out=str(out), noisy=noisy)
    # TensorFlow then takes its `keras` from tf-keras, which is Keras 2
    environment = os.environ | ({"TF_USE_LEGACY_KERAS": "1"} if version == 2 else {})
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert f"made by {'tf_keras' if version == 2 else 'keras'}." in done.stdout
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)


def test_the_documented_lines_predict_without_this_repository(tmp_path):
    (block,) = documented_blocks("compile=False")
    (tmp_path / "weights").mkdir()
    for suffix in (".h5", ".json"):
        shutil.copy(ROOT / "weights" / f"unet_nerve{suffix}", tmp_path / "weights")
    subject = make_subject(0, 1)
    frame = next(f for f in plan_frames(24, 1, 4, 0) if f.subject == 1 and f.nerve)
    cv2.imwrite(str(tmp_path / "frame.png"), render(subject, frame.sweep, frame.visibility))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", f"{block}\nimport numpy\nnumpy.save('mask', mask)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    flags = ["--weights", str(tmp_path / "weights" / "unet_nerve.h5")]
    flags += ["--input", str(tmp_path / "frame.png"), "--out", str(tmp_path / "out")]
    predict.main([*flags, "--precision", "float32", "--no-mirror"])
    expected = cv2.imread(str(tmp_path / "out" / "masks" / "frame.png"), 0) > 0
    found = np.load(tmp_path / "mask.npy")
    assert expected.any()
    # resized by the mean of areas here, linearly there
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.85


def test_the_same_weights_give_the_same_bytes(saved, tmp_path):
    network, path, *_ = saved
    (tmp_path / "b.h5").write_bytes(
        h5_file.to_bytes(network, "dice_coef_loss", ["dice_coef"], 1e-5)
    )
    assert (
        hashlib.sha256(path.read_bytes()).digest()
        == hashlib.sha256((tmp_path / "b.h5").read_bytes()).digest()
    )


def test_weights_fit_a_network_for_another_input_size(saved):
    network, path, *_ = saved
    other = build_unet(32, 16, filters=4, depth=2)
    h5_file.load(other, path)
    for one, two in zip(network.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_weights_of_another_architecture_are_refused(saved):
    with pytest.raises(ValueError, match=r"unet\.h5 does not fit this U-Net"):
        h5_file.load(build_unet(16, 24, filters=8, depth=2), saved[1])
