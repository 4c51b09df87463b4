"""The saved .h5 in Keras 3 and in Keras 2 (tf-keras, in a process of its own)."""

import hashlib
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

import h5_file
from losses import dice_coef, dice_coef_loss
from model import build_unet

# The README's lines for plain Keras 2, word for word.
KERAS_2 = """
import numpy as np
import tf_keras as keras
import tf_keras.backend as K

def dice_coef(y_true, y_pred):
    overlap = K.sum(y_true * y_pred)
    return (2.0 * overlap + 1.0) / (K.sum(y_true) + K.sum(y_pred) + 1.0)

def dice_coef_loss(y_true, y_pred):
    return -dice_coef(y_true, y_pred)

path, frames, out = {arguments}
model = keras.models.load_model(path, custom_objects = {{"dice_coef":dice_coef, \
"dice_coef_loss": dice_coef_loss}}, compile=True, options=None)
frames = np.load(frames)
np.save(out, model.predict(frames, verbose=0))
rate = float(K.get_value(model.optimizer.learning_rate))
masks = (frames > 0).astype("float32")
history = model.fit(frames, masks, epochs=3, verbose=0).history
assert rate == np.float32(1e-5), rate
assert history["loss"][2] < history["loss"][0] < 0, history
assert abs(history["dice_coef"][0] + history["loss"][0]) < 1e-6, history
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return `(network, path of its .h5, frames, its probabilities)`."""
    keras.utils.set_random_seed(1)
    network = build_unet(16, 24, filters=4, depth=2)
    path = tmp_path_factory.mktemp("h5") / "unet.h5"
    h5_file.save(network, path, "dice_coef_loss", ["dice_coef"], 1e-5)
    frames = np.random.default_rng(0).normal(size=(3, 16, 24, 1)).astype(np.float32)
    return network, path, frames, np.asarray(network(frames))


def test_keras_3_opens_it_in_the_documented_line_and_trains_on(saved):
    _, path, frames, expected = saved
    loaded = keras.models.load_model(
        path,
        custom_objects={"dice_coef": dice_coef, "dice_coef_loss": dice_coef_loss},
        compile=True,
    )
    np.testing.assert_allclose(loaded.predict(frames, verbose=0), expected, atol=1e-5)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(1e-5)
    masks = (frames > 0).astype(np.float32)
    history = loaded.fit(frames, masks, epochs=3, verbose=0).history
    assert history["loss"][2] < history["loss"][0] < 0
    assert history["dice_coef"][0] == pytest.approx(-history["loss"][0], abs=1e-6)


def test_keras_2_opens_it_word_for_word_and_trains_on(saved, tmp_path):
    _, path, frames, expected = saved
    np.save(tmp_path / "frames.npy", frames)
    arguments = str(path), str(tmp_path / "frames.npy"), str(tmp_path / "out.npy")
    code = KERAS_2.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_the_same_weights_give_the_same_bytes(saved, tmp_path):
    network, path, *_ = saved
    h5_file.save(network, tmp_path / "b.h5", "dice_coef_loss", ["dice_coef"], 1e-5)
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


def test_weights_that_are_not_finite_are_refused(saved, tmp_path):
    network = build_unet(16, 24, filters=4, depth=2)
    weights = saved[0].get_weights()
    weights[3][0] = np.nan
    network.set_weights(weights)
    h5_file.save(network, tmp_path / "nan.h5", "dice_coef_loss", ["dice_coef"], 1e-5)
    with pytest.raises(ValueError, match=r"nan\.h5 holds weights that are not finite"):
        h5_file.load(build_unet(16, 24, filters=4, depth=2), tmp_path / "nan.h5")


def test_what_is_no_h5_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("not weights")
    with pytest.raises(ValueError, match=r"text\.h5 is not an HDF5 file"):
        h5_file.check(tmp_path / "text.h5")
    with pytest.raises(FileNotFoundError, match=r"none\.h5 is missing; train it with"):
        h5_file.check(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.arange(3)
    with pytest.raises(ValueError, match=r"other\.h5 holds no Keras weights"):
        h5_file.check(tmp_path / "other.h5")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(ValueError, match=r"folder\.h5 is not an HDF5 file"):
        h5_file.check(tmp_path / "folder.h5")
