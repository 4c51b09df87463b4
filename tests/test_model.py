"""The U-Net: sizes, parameters, and the committed summary."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import model as model_script
from model import build_network, build_unet, summary
from recipes import CLASSIC, MODERN, RECIPES

ROOT = Path(__file__).parent.parent
FAST = replace(MODERN, filters=4, depth=3)


def count_parameters(filters, depth):
    """Count by hand: 3 x 3 convolutions, 2 x 2 transposed ones, a final 1 x 1."""

    def convolution(size, inputs, outputs):
        return size * size * inputs * outputs + outputs

    total, inputs = 0, 1
    for level in range(depth + 1):  # contracting path and bottom
        outputs = filters * 2**level
        total += convolution(3, inputs, outputs) + convolution(3, outputs, outputs)
        inputs = outputs
    for level in reversed(range(depth)):
        outputs = filters * 2**level
        total += convolution(2, 2 * outputs, outputs)
        total += convolution(3, 2 * outputs, outputs) + convolution(3, outputs, outputs)
    return total + convolution(1, filters, 1)


@pytest.mark.parametrize(("filters", "depth"), [(32, 4), (4, 1), (3, 2), (2, 5)])
def test_parameters_are_those_of_the_drawing(filters, depth):
    size = 2**depth * 3
    assert build_unet(size, size, filters, depth).count_params() == count_parameters(
        filters, depth
    )


def test_output_is_a_probability_of_the_input_size():
    network = build_unet(16, 24, filters=2, depth=3)
    frames = np.random.default_rng(0).normal(size=(2, 16, 24, 1)).astype(np.float32)
    output = np.asarray(network(frames))
    assert output.shape == (2, 16, 24, 1)
    assert output.dtype == np.float32
    assert 0 <= output.min() < output.max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (100, 96, "multiples of 16: 96 or 112 rows, 96 columns"),
        (96, 90, "multiples of 16: 96 rows, 80 or 96 columns"),
        (8, 32, "multiples of 16: 16 rows, 32 columns"),
    ],
)
def test_a_size_that_the_depth_does_not_divide_names_the_nearest(height, width, message):
    with pytest.raises(ValueError, match=message):
        build_unet(height, width, filters=2, depth=4)


def test_the_committed_summary_is_current():
    assert (ROOT / "model_summary.txt").read_text() == summary(build_unet())


def test_the_script_writes_the_summary_of_the_size_asked_for(tmp_path, capsys):
    path = tmp_path / "summary.txt"
    flags = ["--height", "32", "--width", "48", "--filters", "2", "--depth", "2"]
    model_script.main([*flags, "--out", str(path)])
    assert "(None, 32, 48, 1)" in path.read_text()
    assert f"{count_parameters(2, 2):,} parameters: {path}" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--filters", "0"], ["--depth", "9"]])
def test_flags_out_of_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit, match="2"):
        model_script.main(flags)
    assert "expected 1 to" in capsys.readouterr().err


def random_frames(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 1)).astype("float32")


def test_the_fast_unet_gives_a_probability_of_the_input_size():
    output = np.asarray(build_network(FAST, 16, 32)(random_frames(16, 32)))
    assert output.shape == (2, 16, 32, 1)
    assert 0 <= output.min() < output.max() <= 1


def test_each_frame_is_normalised_by_itself():
    network = build_network(FAST, 16, 32)
    rng = np.random.default_rng(1)
    layer = network.get_layer("down1_conv1_norm")
    gamma, beta = rng.normal(size=(2, 4)).astype(np.float32)
    layer.set_weights([gamma, beta])
    x = 5 + 3 * rng.normal(size=(2, 8, 16, 4)).astype(np.float32)
    # by hand: of each frame's channel, mean 0 and variance 1, then gamma and beta
    mean, variance = (f(axis=(1, 2), keepdims=True) for f in (x.mean, x.var))
    expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, atol=1e-4)


def test_a_frame_of_a_batch_changes_nothing_for_the_others():
    network = build_network(FAST, 16, 32)
    frames = random_frames(16, 32)
    other = np.stack([frames[0], frames[0, ::-1]])
    one, two = (np.asarray(network(x)) for x in (frames, other))
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)
    assert not np.allclose(one[1], two[1], atol=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_its_network_its_dropout_and_what_it_starts_with(name):
    recipe = replace(RECIPES[name], filters=3, dropout=0.45, initial_logit=-2.5)
    network = build_network(recipe, 32, 48)
    assert network.input_shape == (None, 32, 48, 1)
    (dropout,) = (layer for layer in network.layers if "dropout" in layer.name)
    assert dropout.rate == 0.45
    last = network.get_layer("probability")
    assert np.asarray(last.bias).tolist() == [-2.5]
    assert network.get_layer("up1_conv2").filters == 3


def test_the_classic_network_leaves_out_no_channel():
    network = build_network(replace(CLASSIC, filters=2), 16, 16)
    assert not [layer for layer in network.layers if "dropout" in layer.name]


def test_a_network_that_is_not_there_is_refused_with_those_that_are():
    message = "network 'vnet' in the recipe; expected one of unet, fast_unet"
    with pytest.raises(ValueError, match=message):
        build_network(replace(CLASSIC, network="vnet"), 16, 16)


def test_gain_and_brightness_of_a_frame_change_nothing_for_the_modern_network():
    network = build_network(FAST, 16, 32)
    frames = random_frames(16, 32)
    one, two = (np.asarray(network(x)) for x in (frames, 3 * frames - 2))
    np.testing.assert_allclose(one, two, atol=1e-4)
    assert np.ptp(one) > 1e-3
