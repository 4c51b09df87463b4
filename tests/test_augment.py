"""Random changes: moved alike, repeatable, of the stated strength."""

from dataclasses import fields, replace

import numpy as np
import pytest

from nerve.records import Augmentation
from nerve.training.augment import augment, change_grey, random_matrix
from recipes import MODERN

CHANGES = MODERN.augmentation
NONE = Augmentation(**{field.name: 0 for field in fields(Augmentation)} | {"scale": (1, 1)})
PLAIN = replace(  # nothing that hides or blackens a part
    CHANGES, black_borders=0, fans=0, letters=0, speckle=0, scale=(0.9, 1.1), filtered=0
)
HEIGHT, WIDTH = 48, 64


def disc(radius=8.0):
    """Return a frame that is bright where its mask is, float32 both."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = np.hypot(rows - 24, columns - 32) < radius
    return np.where(inside, 3.0, -1.0).astype(np.float32), inside.astype(np.float32)


def test_frame_and_mask_are_moved_alike():
    for seed in range(20):
        image, mask = augment(*disc(), PLAIN, np.random.default_rng(seed))
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
        moved = np.abs(matrix @ centre - centre[:2]) / (WIDTH, HEIGHT)
        # enlarged, any part of the frame may be the one that is seen
        assert (moved <= CHANGES.shift + abs(scales[-1] - 1) / 2 + 1e-9).all()
        # the first column is the turned x axis, without shear
        angle = np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))
        angle = angle if not flips[-1] else (angle + 360) % 360 - 180
        assert abs(angle) <= CHANGES.rotation + np.degrees(np.arctan(CHANGES.shear))
    assert 0.4 < np.mean(flips) < 0.6
    assert CHANGES.scale[0] <= min(scales) < 0.7
    assert 1.5 < max(scales) <= CHANGES.scale[1]


def test_a_flat_frame_stays_finite():
    for seed in range(20):
        flat = np.full((32, 32), 7, np.float32)
        image, _ = augment(flat, flat * 0, CHANGES, np.random.default_rng(seed))
        assert np.isfinite(image).all()


@pytest.mark.parametrize("seed", range(5))
def test_greys_change_but_keep_their_order_along_a_row(seed):
    # levels, gamma and gain over depth are rising functions of grey in a row
    ramp = np.tile(np.linspace(0, 1, WIDTH, dtype=np.float32), (HEIGHT, 1))
    changed = change_grey(ramp.copy(), CHANGES, np.random.default_rng(seed))
    assert (np.diff(changed, axis=1) >= 0).all()
    assert (np.diff(changed[:, 20:-20], axis=1) > 0).mean() > 0.5
    assert not np.allclose(changed, ramp)


def test_changes_of_no_size_leave_a_frame_as_it_is():
    image, mask = disc()
    found = augment(image, mask, NONE, np.random.default_rng(0))
    np.testing.assert_allclose(found, (image, mask), atol=1e-5)


STRONG = {"flips": 1.0, "rotation": 30.0, "scale": (1.5, 1.6), "shear": 0.5, "shift": 0.3}
STRONG |= {"blur": 3.0, "sharpen": 2.0, "speckle": 0.9, "black_level": 0.5}
STRONG |= {"white_level": 0.5, "gamma": 0.5, "slope": 0.5, "depth_gain": 0.5, "gain": 0.5}
STRONG |= {"fans": 1.0, "letters": 1.0}
MOVES = ("flips", "rotation", "scale", "shear", "shift", "fans")


@pytest.mark.parametrize("name", STRONG)
def test_each_size_changes_what_its_name_says_alone(name):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    # an oval off the centre, of all greys, so that neither a turn nor a power leaves it
    far = np.hypot((rows - 20) / 6, (columns - 46) / 12)
    image, mask = (4 * np.exp(-(far**2)) - 1).astype("float32"), (far < 1).astype("float32")
    # half of the share `filtered` are blurred, and half of all speckled
    changes = replace(NONE, **{"filtered": 1.0, "blur": 1e-6, name: STRONG[name]})
    pairs = [augment(image, mask, changes, np.random.default_rng(k)) for k in range(15)]
    assert max(np.abs(changed - image).max() for changed, _ in pairs) > 0.02
    moved = max(np.abs(moved - mask).max() for _, moved in pairs)
    assert (moved > 0.05) == (name in MOVES)


def test_a_filter_of_no_frame_is_none():
    image, mask = disc()
    changes = replace(NONE, blur=3.0, sharpen=3.0)
    changed, _ = augment(image, mask, changes, np.random.default_rng(1))
    np.testing.assert_allclose(changed, image, atol=1e-5)


def test_borders_are_black_or_the_mirror_image():
    image, mask = disc()
    shrunk = replace(NONE, scale=(0.5, 0.5))
    for black, expected in ((1.0, -1.0), (0.0, -1.0)):
        changed, moved = augment(
            image + 5, mask, replace(shrunk, black_borders=black), np.random.default_rng(0)
        )
        assert changed.min() == pytest.approx(expected + 5, abs=0.01)
        # mirrored, the disc and its mask are seen several times
        assert (moved.sum() > 0.3 * mask.sum()) == (black == 0)


def test_a_large_frame_may_lose_its_nerve_and_says_so_in_the_mask():
    image, mask = disc(4.0)
    enlarged = replace(NONE, scale=(2.5, 2.5))
    sums = [
        augment(image, mask, enlarged, np.random.default_rng(k))[1].sum() for k in range(40)
    ]
    assert 0.1 < np.mean(np.array(sums) == 0) < 0.9


def test_no_size_is_left_out_above():
    names = {field.name for field in fields(Augmentation)}
    assert names == {*STRONG, "filtered", "black_borders", "halved", "crops"}


def test_a_share_of_the_frames_is_changed_by_half_the_sizes():
    image, mask = disc()
    changes = replace(NONE, rotation=40.0, gain=0.4, scale=(0.5, 2.0), flips=1.0)
    half = replace(NONE, rotation=20.0, gain=0.2, scale=(0.5**0.5, 2**0.5), flips=1.0)
    for seed in range(10):
        one, other = (np.random.default_rng(seed) for _ in range(2))
        mild = augment(image, mask, replace(changes, halved=1.0), one)
        np.testing.assert_allclose(mild, augment(image, mask, half, other), atol=1e-5)
