"""Geometry: a frame is stretched or letterboxed into an array, and comes back as it was."""

import numpy as np
import pytest

from nerve.frames.geometry import Box, Geometry, find_content
from nerve.prediction.inference import Prediction, find_geometry, smooth
from nerve.records import Inputs

ASPECT = 580 / 420  # of the challenge's frames


def ramp(shape):
    """Return a smooth map, float32, that tells each place from the others: 0 to 1."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows / shape[0] + columns / shape[1]).astype(np.float32) / 2


def test_a_frame_of_the_trainings_aspect_is_stretched_to_fill_the_array():
    # 580 x 420 into 100 x 60: 1.38 against 1.67, but it is the aspect that fills it
    geometry = Geometry.of((420, 580), (60, 100), ASPECT, {})
    assert geometry.crop == Box(0, 0, 420, 580)
    assert geometry.inner == Box(0, 0, 60, 100)
    frame = np.zeros((420, 580), np.uint8)
    frame[:210, :290] = 200  # the upper left quarter, also of the array
    array = geometry.fit(frame)
    assert (array[:30, :50] == 200).all()
    assert np.count_nonzero(array) == 30 * 50


@pytest.mark.parametrize(
    ("shape", "inner"),
    [
        # for an aspect of 1: 1.5 % wider or narrower is near enough to be stretched
        ((200, 203), Box(0, 0, 32, 32)),
        ((200, 197), Box(0, 0, 32, 32)),
        # 3 % wider: 32 / 1.03 = 31.07 rows; 3 % narrower: 32 x 0.97 = 31.04 columns
        ((100, 103), Box(0, 0, 31, 32)),
        ((100, 97), Box(0, 0, 32, 31)),
        # twice as wide: half of the rows, in the middle; three times as high: 10.67 columns
        ((100, 200), Box(8, 0, 16, 32)),
        ((300, 100), Box(0, 10, 32, 11)),
        # never less than a row or a column: 32 / 100 = 0.3
        ((10, 1000), Box(15, 0, 1, 32)),
        ((1000, 10), Box(0, 15, 32, 1)),
    ],
)
def test_a_frame_of_another_aspect_is_letterboxed_in_the_middle(shape, inner):
    assert Geometry.of(shape, (32, 32), 1.0, {}).inner == inner


@pytest.mark.parametrize("shape", [(40, 40), (30, 80), (80, 30), (420, 580)])
def test_what_is_put_into_a_box_comes_out_of_it(shape):
    geometry, smooth = Geometry.of(shape, (192, 256), ASPECT, {}), ramp(shape)
    boxed = geometry.fit(smooth)
    height, width = geometry.inner[2:]
    assert min(192 - height, 256 - width) == 0
    # the pixels are of 580 / 420 by 256 / 192: the aspect is kept
    assert width / 256 * 580 / (height / 192 * 420) == pytest.approx(
        shape[1] / shape[0], rel=0.02
    )
    outside = boxed.copy()
    geometry.inner.of(outside)[...] = 0
    assert not outside.any()
    back = geometry.back(boxed)
    assert back.shape == shape
    assert np.abs(back - smooth).max() < 0.02


def test_only_frames_of_the_crops_size_are_cropped():
    crops = {"100x120": [10, 20, 60, 80]}
    assert Geometry.of((100, 120), (30, 40), 4 / 3, crops).crop == Box(10, 20, 60, 80)
    assert Geometry.of((120, 100), (30, 40), 4 / 3, crops).crop == Box(0, 0, 120, 100)
    # it is the part's aspect that counts: 80 by 60 fills an array of 4 by 3
    assert Geometry.of((100, 120), (30, 40), 4 / 3, crops).inner == Box(0, 0, 30, 40)


def test_a_cropped_frame_is_looked_at_in_part_and_comes_back_whole():
    geometry = Geometry.of((100, 120), (30, 40), 4 / 3, {"100x120": [10, 20, 60, 80]})
    frame = np.full((100, 120), 255, np.uint8)  # text and borders beside the part
    frame[10:70, 20:100] = 0
    frame[10:40, 20:60] = 90  # the upper left quarter of the part
    array = geometry.fit(frame)
    assert (array[:15, :20] == 90).all()
    assert np.count_nonzero(array) == 15 * 20  # nothing of what lies beside it
    part = geometry.back((array > 0).astype(np.float32)) >= 0.5
    assert part.shape == (60, 80)
    whole = geometry.whole(part)
    assert whole.shape == (100, 120)
    assert whole.dtype == bool
    np.testing.assert_array_equal(whole, frame == 90)


def test_a_cropped_frame_of_another_aspect_is_letterboxed_too():
    # a part of 40 x 20 pixels in an array of 16 x 32 for an aspect of 2, whose rows thus
    # stand for 40 and its columns for 80 pixels: the part takes 20 / 80 of the columns
    geometry = Geometry.of((80, 20), (16, 32), 2.0, {"80x20": [40, 0, 40, 20]})
    assert geometry.crop == Box(40, 0, 40, 20)
    assert geometry.inner == Box(0, 12, 16, 8)
    frame = np.full((80, 20), 255, np.uint8)
    frame[40:] = 7
    array = geometry.fit(frame)
    assert (array[:, 12:20] == 7).all()
    assert not array[:, :12].any()
    assert not array[:, 20:].any()
    whole = geometry.whole(geometry.back(array.astype(np.float32)))
    assert (whole[40:] == 7).all()
    assert not whole[:40].any()


def test_the_share_of_an_area_counts_the_letterbox():
    # 40 x 20 pixels of nerve in 80 x 80; in an array of an aspect of 1.5 the frame takes
    # 32 of 48 columns: 800 / 6,400 of the frame, two thirds of that of the array
    geometry = Geometry.of((80, 80), (32, 48), 1.5, {})
    assert geometry.inner == Box(0, 8, 32, 32)
    mask = np.zeros((80, 80), np.uint8)
    mask[:40, :20] = 255
    assert geometry.area_share(mask) == pytest.approx(800 / 6400 * 2 / 3)
    assert geometry.area_share(mask > 0) == geometry.area_share(mask)
    assert geometry.area_share(mask * 0) == 0
    filled = Geometry.of((80, 80), (32, 48), 1.0, {})  # without a letterbox
    assert filled.area_share(mask) == pytest.approx(800 / 6400)


def test_the_share_of_an_area_is_of_the_part_that_is_looked_at():
    geometry = Geometry.of((100, 120), (30, 40), 4 / 3, {"100x120": [10, 20, 60, 80]})
    part = np.zeros((60, 80), bool)
    part[:6] = True  # a tenth
    assert geometry.area_share(part) == pytest.approx(0.1)
    assert geometry.area_share(geometry.whole(part)) == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(42, 58), (42, 80), (90, 58)])
@pytest.mark.parametrize("crops", [{}, {"42x58": [1, 2, 30, 40], "42x80": [0, 9, 42, 50]}])
def test_shapes_and_types_are_kept(shape, crops):
    geometry = Geometry.of(shape, (24, 32), ASPECT, crops)
    rng = np.random.default_rng(0)
    array = geometry.fit(rng.integers(0, 256, shape, np.uint8))
    assert (array.shape, array.dtype) == ((24, 32), np.uint8)
    part = geometry.back(rng.random((24, 32), np.float32))
    assert (part.shape, part.dtype) == (geometry.crop[2:], np.float32)
    mask = (part >= 0.5).view(np.uint8)
    whole = geometry.whole(mask)
    assert (whole.shape, whole.dtype) == (shape, np.uint8)
    assert whole.sum() == mask.sum() == geometry.crop.of(whole).sum()


def test_a_mask_of_0_and_255_comes_back_as_it_was():
    # at an array of the part's own size nothing is resized
    geometry = Geometry.of((20, 30), (20, 30), 1.5, {})
    mask = np.zeros((20, 30), np.uint8)
    mask[3:9, 4:20] = 255
    np.testing.assert_array_equal(geometry.fit(mask), mask)
    np.testing.assert_array_equal(geometry.back(mask.astype(np.float32)), mask)
    assert geometry.whole(mask) is mask


def test_a_box_is_a_view_and_knows_its_pixels():
    array, box = np.zeros((5, 7), np.uint8), Box(1, 2, 3, 4)
    box.of(array)[...] = 1
    assert box.area == array.sum() == 12
    assert array[1:4, 2:6].all()


def bordered(top, left, height, width):
    """Return a frame of 100 x 120 whose picture is a box, with a letter in its border."""
    frame = np.zeros((100, 120), np.uint8)
    frame[top : top + height, left : left + width] = 90
    frame[2:5, 2:4] = 255
    return frame


def test_black_borders_are_cut_whatever_is_written_in_them():
    assert find_content(bordered(20, 30, 60, 70)) == Box(20, 30, 60, 70)
    whole = Box(0, 0, 100, 120)
    assert find_content(np.full((100, 120), 90, np.uint8)) == whole
    assert find_content(np.zeros((100, 120), np.uint8)) == whole
    assert find_content(bordered(20, 30, 20, 20)) == whole  # a dark frame, not a border


def test_a_crop_and_black_borders_within_it_add_up():
    frame = bordered(20, 30, 60, 70)
    crops = {"100x120": [10, 40, 50, 80]}
    geometry = Geometry.of(frame.shape, (50, 60), 1.2, crops, frame)
    assert geometry.crop == Box(20, 40, 40, 60)
    back = geometry.whole(np.ones((40, 60), np.uint8))
    assert back.sum() == 40 * 60
    assert back[20:60, 40:100].all()


def test_a_clip_keeps_all_of_the_picture_that_it_has_shown():
    inputs = Inputs(32, 48, mean=90.0, standard_deviation=50.0, aspect=1.5, crops={})
    small, large = bordered(20, 30, 60, 60), bordered(10, 30, 60, 70)
    first = find_geometry(small, inputs)
    second = find_geometry(large, inputs, first)
    assert second.crop == Box(10, 30, 70, 70)  # of both
    assert find_geometry(small, inputs, second) is second
    # maps of one place are mixed, of two are not
    maps = np.zeros((32, 48), np.float32), np.ones((32, 48), np.float32)
    pairs = [(first, maps[0]), (second, maps[1]), (second, maps[0])]
    found = smooth((Prediction(small, *pair) for pair in pairs), 0.4)
    assert [each.probability.max() for each in found] == pytest.approx([0, 1, 0.4])
