"""The encoder of ImageNet: its weights by name, its place in a network, its absence."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from conftest import ROOT, make_raw

import extract_data
import preprocess
import train
from losses import build_loss, dice_coef, smooth_dice
from model import build_network
from nerve.backend import keras
from nerve.files import h5_file
from nerve.network import encoder
from nerve.network.convolutions import copy_weights
from nerve.records import read_split
from nerve.training import loop
from nerve.training.plan import plan
from recipes import ENCODER, MODERN

WEIGHTS = ROOT / ENCODER
SIZE = ["--height", "32", "--width", "48"]
TINY = ["--recipe", "modern", "--filters", "4", "--batch-size", "4", "--epochs", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    make_raw(folder / "raw", subjects=3, frames=4, test=2)
    data = str(folder / "data")
    extract_data.main(["--raw", str(folder / "raw"), "--data", data])
    preprocess.main(["--data", data, *SIZE, "--soft-masks"])
    return folder / "data"


def features(seed=0):
    """Return the encoder with weights of ImageNet, and frames."""
    inputs = keras.layers.Input((32, 48, 1))
    bottom, skips = encoder.contract(inputs, training=False)
    model = keras.Model(inputs, [bottom, *skips])
    h5_file.load_encoder(model, WEIGHTS)
    frames = np.random.default_rng(seed).normal(size=(2, 32, 48, 1))
    return model, frames.astype(np.float32)


def test_skips_and_bottom_have_the_sizes_of_a_network_that_halves_four_times():
    model, frames = features()
    shapes = [tuple(output.shape[1:]) for output in model(frames)]
    assert shapes == [(2, 3, 112), (16, 24, 16), (8, 12, 24), (4, 6, 40)]


def test_a_block_computes_what_its_formula_says():
    # the first one, by hand: a convolution by channel with ReLU6, then a product
    model, frames = features()
    stem = keras.Model(model.input, model.get_layer("stem").output)
    skip = np.asarray(model(frames)[1])
    kernel, bias = model.get_layer("block0_depthwise").get_weights()
    x = np.pad(np.asarray(stem(frames)), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        x[:, i : i + 16, j : j + 24] * kernel[i, j, :, 0]
        for i in range(3)
        for j in range(3)
    )
    y = np.clip(y + bias, 0, 6)
    kernel, bias = model.get_layer("block0_project").get_weights()
    np.testing.assert_allclose(y @ kernel[0, 0] + bias, skip, atol=1e-4)


def test_weights_of_imagenet_answer_to_contrast_and_not_to_a_flat_frame():
    model, frames = features()
    flat, noisy = (np.asarray(model(x)[0]) for x in (frames * 0, frames))
    assert np.abs(noisy - flat).mean() > 0.1


def test_training_starts_from_the_encoder_and_leaves_the_rest_to_the_seed(data):
    split, loss = read_split(data), build_loss(MODERN)
    design = loop.Design(build_network, loss, dice_coef, smooth_dice)
    one, two = (
        loop.build_model(
            design, plan(MODERN, {}, seed, "best", "float32", None, split), 10, None
        )
        for seed in (0, 1)
    )
    with h5py.File(WEIGHTS) as file:
        kernel = file["model_weights/block5_expand/block5_expand/kernel:0"][()]
    for model in (one, two):
        np.testing.assert_array_equal(
            model.get_layer("block5_expand").get_weights()[0], kernel
        )
    kernels = [m.get_layer("up1_conv1").get_weights()[0] for m in (one, two)]
    assert not np.array_equal(*kernels)


def test_plain_layers_compute_what_was_trained():
    recipe = replace(MODERN, filters=4)
    trained = build_network(recipe, 32, 48, training=True)
    plain = build_network(recipe, 32, 48)
    copy_weights(trained, plain)
    frames = features()[1]
    np.testing.assert_allclose(plain(frames), trained(frames), atol=1e-5)
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)


def test_another_depth_is_refused():
    with pytest.raises(ValueError, match="depth 3; the encoder of ImageNet has 4"):
        build_network(replace(MODERN, depth=3), 32, 48)


def starting_from(path):
    """Return the modern recipe, by name, with another encoder."""
    return {"modern": replace(MODERN, encoder=str(path))}


def test_missing_weights_are_named(data, tmp_path):
    flags = ["--data", str(data), "--out", str(tmp_path / "unet.h5"), *TINY]
    with pytest.raises(FileNotFoundError, match=r"none\.h5 is missing"):
        train.main(flags, starting_from("weights/none.h5"))


def test_weights_of_another_shape_are_refused(data, tmp_path):
    inputs = keras.layers.Input((32, 32, 1))
    x = keras.layers.Conv2D(5, 3, name="stem")(inputs)
    other = tmp_path / "other.h5"
    h5_file.save(keras.Model(inputs, x), other, "mse", [], 1e-3)
    flags = ["--data", str(data), "--out", str(tmp_path / "unet.h5"), *TINY]
    with pytest.raises(ValueError, match=r"other\.h5 does not fit the encoder"):
        train.main(flags, starting_from(other))


def test_weights_to_start_from_take_the_encoders_place(data, tmp_path):
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    train.main(["--data", str(data), "--out", str(first), *TINY])
    record = json.loads((tmp_path / "first.json").read_text())
    assert record["recipe"]["encoder"] == ENCODER
    flags = ["--data", str(data), "--out", str(second), *TINY, "--init", str(first)]
    train.main(flags, starting_from("weights/none.h5"))  # not needed
    assert second.exists()
