"""Random changes: moved alike, repeatable, of the stated strength."""

from dataclasses import fields, replace

import numpy as np
import pytest

from nerve.records import Augmentation
from nerve.training.augment import augment, change_grey, random_matrix
from recipes import MODERN

CHANGES = MODERN.augmentation
NONE = Augmentation(0, 0, (1, 1), 0, 0, 0, 0, 0, 0, 0, 0)
HEIGHT, WIDTH = 48, 64


def disc(radius=8.0):
    """Return a frame that is bright where its mask is, float32 both."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = np.hypot(rows - 24, columns - 32) < radius
    return np.where(inside, 3.0, -1.0).astype(np.float32), inside.astype(np.float32)


def test_frame_and_mask_are_moved_alike():
    for seed in range(20):
        image, mask = augment(*disc(), CHANGES, np.random.default_rng(seed))
        # well inside and well outside of the moved mask: bright, and dark
        assert image[mask > 0.99].min() > image[mask < 0.01].max()


def test_the_same_state_gives_the_same_variant_and_another_another():
    one, same, other = (
        augment(*disc(), CHANGES, np.random.default_rng(s)) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_masks_stay_between_0_and_1_and_dtypes_float32():
    for seed in range(10):
        image, mask = augment(*disc(), CHANGES, np.random.default_rng(seed))
        assert image.dtype == mask.dtype == np.float32
        assert image.shape == mask.shape == (HEIGHT, WIDTH)
        assert 0 <= mask.min() <= mask.max() <= 1


def test_matrices_stay_within_the_stated_ranges_and_flip_half_of_the_time():
    flips, scales = [], []
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1])
    for seed in range(400):
        matrix = random_matrix(CHANGES, np.random.default_rng(seed), HEIGHT, WIDTH)
        linear = matrix[:, :2]
        # shear and rotation leave the area: |det| is scale^2, negative where flipped
        flips.append(np.linalg.det(linear) < 0)
        scales.append(np.sqrt(abs(np.linalg.det(linear))))
        moved = np.abs(matrix @ centre - centre[:2])
        assert (moved <= CHANGES.shift * np.array([WIDTH, HEIGHT]) + 1e-9).all()
        # the first column is the turned x axis, without shear
        angle = np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))
        angle = angle if not flips[-1] else (angle + 360) % 360 - 180
        assert abs(angle) <= CHANGES.rotation + np.degrees(np.arctan(CHANGES.shear))
    assert 0.4 < np.mean(flips) < 0.6
    assert CHANGES.scale[0] <= min(scales) < 0.8
    assert 1.2 < max(scales) <= CHANGES.scale[1]


def test_a_flat_frame_stays_finite():
    image = change_grey(np.zeros((8, 8), np.float32), CHANGES, np.random.default_rng(0))
    assert np.isfinite(image).all()


@pytest.mark.parametrize("seed", range(5))
def test_greys_change_but_keep_their_order_along_a_row(seed):
    # gain, gamma, offset and slope over depth are rising functions of grey in a row
    ramp = np.tile(np.linspace(-2, 3, WIDTH, dtype=np.float32), (HEIGHT, 1))
    changed = change_grey(ramp.copy(), CHANGES, np.random.default_rng(seed))
    assert (np.diff(changed[:, 3:-3], axis=1) > 0).all()
    assert not np.allclose(changed, ramp)


def test_changes_of_no_size_leave_a_frame_as_it_is():
    image, mask = disc()
    found = augment(image, mask, NONE, np.random.default_rng(0))
    np.testing.assert_allclose(found, (image, mask), atol=1e-5)


STRONG = {"flips": 1.0, "rotation": 30.0, "scale": (1.5, 1.6), "shear": 0.5, "shift": 0.3}
STRONG |= {"gain": 0.5, "offset": 1.0, "slope": 1.0, "gamma": 0.5, "blur": 3.0}
MOVES = ("flips", "rotation", "scale", "shear", "shift")


@pytest.mark.parametrize("name", STRONG)
def test_each_size_changes_what_its_name_says_alone(name):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    # an oval off the centre, of all greys, so that neither a turn nor a power leaves it
    far = np.hypot((rows - 20) / 6, (columns - 26) / 12)
    image, mask = (4 * np.exp(-(far**2)) - 1).astype("float32"), (far < 1).astype("float32")
    # blur is drawn for every frame and done to the share `blurred`
    changes = replace(NONE, blurred=1.0, **{name: STRONG[name]})
    changed, moved = augment(image, mask, changes, np.random.default_rng(1))
    assert np.abs(changed - image).max() > 0.02
    assert (np.abs(moved - mask).max() > 0.05) == (name in MOVES)


def test_a_blur_of_no_frame_is_none():
    image, mask = disc()
    changes = replace(NONE, blur=3.0)
    changed, _ = augment(image, mask, changes, np.random.default_rng(1))
    np.testing.assert_allclose(changed, image, atol=1e-5)


def test_no_size_is_left_out_above():
    assert {field.name for field in fields(Augmentation)} == {*STRONG, "blurred"}
