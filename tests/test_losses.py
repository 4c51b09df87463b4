"""Dice against values computed by hand."""

from dataclasses import replace

import numpy as np
import pytest

from losses import (
    build_loss,
    build_tversky_crossentropy_loss,
    dice_coef,
    dice_coef_loss,
)
from recipes import CLASSIC, MODERN

tversky_crossentropy_loss = build_tversky_crossentropy_loss(0.7, 0.01)


def masks(*frames):
    """Return `(batch, 2, 2, 1)` float32 from lists of four pixels."""
    return np.array(frames, np.float32).reshape(len(frames), 2, 2, 1)


EMPTY = [0, 0, 0, 0]


def test_dice_coef_pools_over_the_batch():
    y_true = masks([1, 1, 0, 0], [0, 0, 0, 1])
    y_pred = masks([1, 0, 0, 0], [0, 0, 0.5, 0.5])
    # overlap 1 + 0.5, sums 3 and 2: (2 * 1.5 + 1) / (3 + 2 + 1) = 4 / 6
    assert float(dice_coef(y_true, y_pred)) == pytest.approx(4 / 6)


def test_dice_coef_of_full_overlap_and_of_empty_on_empty_is_1():
    full = masks([1, 1, 0, 1])
    assert float(dice_coef(full, full)) == pytest.approx(1)
    assert float(dice_coef(masks(EMPTY), masks(EMPTY))) == pytest.approx(1)


def test_dice_coef_of_a_miss_and_of_a_false_alarm_is_small_but_above_0():
    three = masks([1, 1, 1, 0])
    # (0 + 1) / (3 + 0 + 1) = 1 / 4, either way round
    assert float(dice_coef(three, masks(EMPTY))) == pytest.approx(0.25)
    assert float(dice_coef(masks(EMPTY), three)) == pytest.approx(0.25)


def test_the_loss_is_the_negative():
    y_true, y_pred = masks([1, 1, 0, 0]), masks([1, 0, 0, 0])
    # (2 + 1) / (2 + 1 + 1)
    assert float(dice_coef_loss(y_true, y_pred)) == pytest.approx(-0.75)


def test_dice_coef_takes_integer_masks_and_shorter_floats():
    y_pred = masks([1, 0, 0, 0])
    for dtype in (np.uint8, np.int32, np.float64):
        y_true = masks([1, 1, 0, 0]).astype(dtype)
        assert float(dice_coef(y_true, y_pred)) == pytest.approx(0.75)


def test_tversky_crossentropy_is_a_value_for_each_frame():
    truth = masks([1, 1, 0, 0], EMPTY)
    predicted = masks([0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25])
    # TP 1, FN 1, FP 1: (2 * 1 + 1) / (2 * (1 + 0.7 + 0.3) + 1) = 0.6; FP 1 alone, and a
    # hundredth of 4 pixels: 0.04 / (2 * 0.3 + 0.04) = 0.0625; cross-entropy ln 2, -ln 0.75
    expected = [1 - 0.6 + np.log(2), 1 - 0.0625 - np.log(0.75)]
    values = np.asarray(tversky_crossentropy_loss(truth, predicted))
    assert values == pytest.approx(expected, abs=1e-5)


def test_tversky_crossentropy_of_an_empty_mask_predicted_empty_is_near_0():
    values = np.asarray(tversky_crossentropy_loss(masks(EMPTY), masks(EMPTY)))
    assert values == pytest.approx([0], abs=1e-6)


def test_first_false_pixels_cost_an_empty_frame_little_and_a_false_nerve_much():
    truth, values = np.zeros((1, 100, 100, 1), np.float32), []
    for side in (1, 17):  # 289 pixels: 2.9 % of the frame, as a nerve
        predicted = truth.copy()
        predicted[0, :side, :side] = 0.9
        values.append(float(tversky_crossentropy_loss(truth, predicted)[0]))
        # 100 pixels of smoothing, and the entropy of the false ones
        expected = 1 - 100 / (0.6 * 0.9 * side**2 + 100) - np.log(0.1) * side**2 / 1e4
        assert values[-1] == pytest.approx(expected, abs=1e-4)
    assert values[0] < 0.01
    assert values[1] > 0.6


@pytest.mark.parametrize("empty_smooth", [0.01, None])
def test_a_missed_pixel_costs_more_than_a_false_one(empty_smooth):
    truth = masks([1, 1, 0, 0])
    missed, false = masks([0.9, 0.1, 0.1, 0.1]), masks([0.9, 0.9, 0.9, 0.1])

    # as many wrong pixels, so an equal cross-entropy
    both = np.concatenate([truth, truth]), np.concatenate([missed, false])
    losses = np.asarray(tversky_crossentropy_loss(*both))
    assert losses[0] > losses[1]
    half = build_tversky_crossentropy_loss(0.5, empty_smooth)  # Dice

    def loss(predicted):
        return float(half(truth, predicted)[0])

    entropy = -np.log(0.1) / 4 - 3 * np.log(0.9) / 4
    assert loss(missed) == pytest.approx(entropy + 1 - 3 / (2 + 1.2 + 1), abs=1e-5)
    assert loss(false) == pytest.approx(entropy + 1 - 4.6 / (2 + 2.8 + 1), abs=1e-5)


def test_soft_masks_are_best_predicted_as_they_are():
    soft = masks([0.5, 1, 0, 0])
    values = [
        float(tversky_crossentropy_loss(soft, masks([p, 1, 0, 0]))[0])
        for p in (0.3, 0.5, 0.7)
    ]
    # the entropy pulls to 0.5, Dice upwards: not lower than the truth
    assert values[0] > values[1]


def test_the_recipe_decides_the_loss():
    assert build_loss(CLASSIC) is dice_coef_loss
    truth, predicted = masks([1, 1, 0, 0]), masks([0.5, 0.5, 0.5, 0.5])
    recipe = replace(MODERN, missed_share=0.9)
    # TP 1, FN 1, FP 1: (2 * 1 + 1) / (2 * (1 + 0.9 + 0.1) + 1) whatever the share; with
    # FN 1.5 and FP 0.5 not: TP 0.5, (1 + 1) / (2 * (0.5 + 0.9 * 1.5 + 0.1 * 0.5) + 1)
    loss = build_loss(recipe)
    assert float(loss(truth, predicted)[0]) == pytest.approx(1 - 0.6 + np.log(2), abs=1e-5)
    fewer = masks([0.25, 0.25, 0.25, 0.25])
    entropy = -np.log(0.25) / 2 - np.log(0.75) / 2
    assert float(loss(truth, fewer)[0]) == pytest.approx(1 - 2 / 4.8 + entropy, abs=1e-5)


@pytest.mark.parametrize(("empty_smooth", "smooth"), [(None, 1), (0.01, 0.04), (0.5, 2)])
def test_empty_smooth_is_a_share_of_the_frame_and_one_pixel_where_none_is_given(
    empty_smooth, smooth
):
    loss = build_tversky_crossentropy_loss(0.7, empty_smooth)
    found = float(loss(masks(EMPTY), masks([0.25, 0.25, 0.25, 0.25]))[0])
    # of 4 pixels, FP 1: smooth / (2 * 0.3 + smooth)
    expected = 1 - smooth / (0.6 + smooth) - np.log(0.75)
    assert found == pytest.approx(expected, abs=1e-5)
