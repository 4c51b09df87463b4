"""How sure a nerve is there: pairs of crops, and the calibration made on them."""

import numpy as np
import pytest
from scipy.special import expit

from nerve.frames.crops import crop_pair
from nerve.prediction import sureness
from nerve.records import Calibration


def test_of_two_crops_one_has_the_whole_nerve_and_the_other_none():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30, 50:62] = 255
    frame = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    for seed in range(20):
        (one, with_nerve), (other, without) = crop_pair(
            frame, mask, np.random.default_rng(seed)
        )
        assert one.shape == other.shape == with_nerve.shape == without.shape
        assert 30 <= one.shape[0] <= 45
        assert one.shape[1] / one.shape[0] == pytest.approx(80 / 60, abs=0.03)
        assert np.count_nonzero(with_nerve) == np.count_nonzero(mask)
        assert not without.any()
        # cut where the frame's own mask is
        assert (mask[np.divmod(one[0, 0], 80)] > 0) == (with_nerve[0, 0] > 0)


def test_a_nerve_that_fills_the_frame_has_no_pair():
    mask = np.full((60, 80), 255, np.uint8)
    assert crop_pair(mask, mask, np.random.default_rng(0)) == []


def draw(seed, count=4000):
    """Return presences whose logit is off by a factor and a shift, and what is there."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, count)
    return expit(2 * x + 1), rng.random(count) < expit(x)


def test_the_calibration_finds_the_true_probability():
    presence, nerve = draw(0)
    found = sureness.calibrate(presence, nerve, np.arange(len(nerve)) % 50, crops=False)
    assert (found.frames, found.subjects, found.crops) == (4000, 50, False)
    raw = sureness.calibration_error(presence, nerve)
    assert raw > 0.1  # what it mends
    assert found.error < 0.03
    for x in (-2.0, -1.0, 0.0, 1.0, 2.0):
        assert found.sure(expit(2 * x + 1)) == pytest.approx(expit(x), abs=0.05)
    assert 0 < found.sure(0.0) < found.sure(1.0) < 1


def test_the_error_is_of_subjects_that_the_fit_did_not_see():
    # two kinds of subjects, for which the same presence means the opposite
    presence = np.tile([0.1, 0.9], 400)
    subjects = np.repeat(np.arange(400), 2)
    nerve = (presence > 0.5) ^ (subjects % 2 == 0)
    found = sureness.calibrate(presence, nerve, subjects, crops=True)
    assert found.error < 0.1  # about one half each: it says so
    assert found.sure(0.9) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("change", ["no empty frame", "few", "one subject"])
def test_what_cannot_be_calibrated_is_not_known(change):
    presence, nerve = draw(0, 100)
    subjects = np.arange(100)
    if change == "no empty frame":
        nerve = np.ones(100, bool)
    if change == "few":
        nerve = np.arange(100) < sureness.FEW - 1
    if change == "one subject":
        subjects = np.zeros(100)
    assert sureness.calibrate(presence, nerve, subjects, crops=False) is None


def test_an_error_by_bins_is_that_of_the_formula():
    probability = np.repeat([0.25, 0.85], 50)
    nerve = np.concatenate([np.arange(50) < 15, np.arange(50) < 45])  # 0.3 and 0.9
    assert sureness.calibration_error(probability, nerve) == pytest.approx(0.05)
    nerve[:50] = False
    assert sureness.calibration_error(probability, nerve) == pytest.approx(0.15)
    assert sureness.calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_the_corners_are_those_of_levels_and_nothing_is_certain():
    # 0.2 and 0.4 pool to one half, of four; 0.9 stays; 0 and 1 are the frames added
    presence = np.array([0.2, 0.2, 0.4, 0.4, 0.9, 0.9, 0.9])
    nerve = np.array([True, False, True, False, True, True, True])
    x, y = sureness.fit(presence, nerve)
    np.testing.assert_allclose(x, [0, 0.4, 0.9, 1])
    np.testing.assert_allclose(y, [0.6, 0.6, 0.75, 0.75])  # 3 of 5, 3 of 4


def test_a_calibration_that_does_not_rise_is_refused():
    for x, y in (([], []), ([0.0], [0.1, 0.2]), ([0.0, 1.0], [0.5, 0.4])):
        with pytest.raises(ValueError, match="do not rise"):
            Calibration(x, y, 0.01, 100, 10, crops=False)
