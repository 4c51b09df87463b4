"""clips.py: scores of clips, each by hand."""

import numpy as np
import pytest
from test_scores import EMPTY, mask, square

from nerve.scoring import clips, scores

NERVE, LEFT = square(4, 4), square(0, 0)  # of 4 pixels each, apart
NONE = NERVE * 0


def rows(*pairs):
    """Return `scores.frame_scores` of pairs of a true and a predicted mask."""
    return [scores.frame_scores(truth, predicted) for truth, predicted in pairs]


def area(true, predicted):
    """Return a frame's row whose masks lie within each other."""
    dice = 2 * min(true, predicted) / (true + predicted) if true + predicted else 1
    return {"area": true, "predicted_area": predicted, "dice": dice}


# ---------------------------------------------------------------- found or not


def test_the_overlap_of_a_clip_is_of_all_its_pixels_together():
    # 3 of 3 and 5 pixels, of which 2 are common, and 4 of 4: (2 + 4) / (6 + 4)
    small = mask("XX..", "X...", "...."), mask("XX..", ".XX.", "X...")
    assert clips.clip_iou(rows(small, (NERVE, NERVE))) == pytest.approx(0.6)
    # the mean of the frames' own ratios would be (1 / 3 + 1) / 2
    assert clips.clip_iou(rows(small)) == pytest.approx(1 / 3)


def test_a_clip_without_a_nerve_in_which_nothing_is_outlined_has_no_overlap():
    assert clips.clip_iou(rows((EMPTY, EMPTY), (EMPTY, EMPTY))) is None


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(NERVE, NERVE), (NERVE, NONE)], (True, False)),  # 4 of 8 pixels: just enough
        ([(NERVE, NERVE), (NERVE, NONE), (NERVE, NONE)], (False, True)),  # 4 of 12
        ([(NERVE, NERVE), (NERVE, LEFT)], (False, True)),  # 4 of 12, too
        # found while it shows, and outlined when it is gone: 4 of 4, and 4 of 12 pixels
        ([(NERVE, NERVE), (NONE, LEFT), (NONE, NERVE)], (True, True)),
        ([(NERVE, NERVE), (NONE, LEFT)], (True, False)),  # 4 of 8: just enough
        ([(NERVE, LEFT)], (False, True)),
        ([(NERVE, NONE)], (False, False)),
        ([(NONE, LEFT)], (None, True)),
        ([(NONE, NONE)], (None, False)),
    ],
)
def test_a_nerve_is_judged_while_it_shows_and_an_outline_over_the_whole_clip(
    pairs, expected
):
    assert clips.judge(rows(*pairs), 0.5) == expected


def test_the_overlap_that_is_asked_for_can_be_another():
    pair = mask("XX..", "X...", "...."), mask("XX..", ".XX.", "X...")  # 1 / 3
    assert clips.judge(rows(pair), 0.34) == (False, True)
    assert clips.judge(rows(pair), 0.33) == (True, False)


# ---------------------------------------------------------------- when it was found


def test_frames_until_found_count_from_the_first_that_shows_the_nerve():
    before, missed, wrong, hit = (NONE, NONE), (NERVE, NONE), (NERVE, LEFT), (NERVE, NERVE)
    for pairs, expected in (
        ([hit], 0),
        ([before, before, hit], 0),
        ([before, missed, wrong, hit, hit], 2),
        ([missed, before, hit], 2),  # it went out of sight in between
        ([missed, wrong], None),
        ([before, before], None),
    ):
        assert clips.frames_until_found(rows(*pairs), 0.5) == expected


def test_a_nerve_that_is_never_found_is_infinitely_late():
    hit, late, never = (
        rows((NERVE, NERVE), (NERVE, NERVE)),
        rows((NERVE, NONE), (NERVE, NERVE)),
        rows((NERVE, NONE), (NERVE, LEFT)),
    )
    empty = rows((NONE, NONE))
    several = {1: hit, 2: late, 3: never, 4: empty}  # 0, 1 and never
    assert clips.summarize(several)["frames_until_found"] == 1
    assert clips.summarize({1: hit, 2: never})["frames_until_found"] is None
    assert clips.summarize({1: empty})["frames_until_found"] is None


# ---------------------------------------------------------------- flicker


def test_flicker_is_1_minus_dice_of_neighbours_of_which_one_is_not_empty():
    half = square(4, 5)  # 2 of its 4 pixels are the nerve's: Dice 0.5
    assert clips.flicker([NERVE, NERVE, half, NONE, NONE]) == [0, 0.5, 1]
    assert clips.flicker([NERVE]) == clips.flicker([NONE, NONE]) == clips.flicker([]) == []


def test_neighbours_of_different_sizes_do_not_flicker():
    assert clips.flicker([NERVE, EMPTY, EMPTY + 1]) == [1]  # of the last two


# ---------------------------------------------------------------- areas


def test_limits_of_agreement_of_one_difference_a_clip_are_the_textbooks():
    # mean 2, standard deviation 1 of 1, 2, 3
    bias, low, high = clips.limits_of_agreement([[1], [2], [3]])
    assert (bias, low, high) == pytest.approx((2, 2 - 1.96, 2 + 1.96))
    assert clips.limits_of_agreement([[1, 2, 3]]) == pytest.approx((bias, low, high))


def test_limits_of_agreement_know_that_frames_of_a_clip_are_alike():
    # clips of 0, 2 and of 10, 12: within (1 + 1 + 1 + 1) / 2 = 2; between
    # (2 * 25 + 2 * 25) / 1 = 100, of clips of two: 2 + (100 - 2) / 2 = 51
    bias, low, high = clips.limits_of_agreement([[0, 2], [10, 12]])
    margin = 1.96 * 51**0.5
    assert (bias, low, high) == pytest.approx((6, 6 - margin, 6 + margin))
    # of unequal clips, [0] and [3, 3, 6]: mean 3, within 6 / 2 = 3, between
    # 9 + 3 * 1 = 12, size 4 - 10 / 4 = 1.5: 3 + 9 / 1.5 = 9
    bias, _, high = clips.limits_of_agreement([[0], [], [3, 3, 6]])
    assert (bias, high - bias) == pytest.approx((3, 1.96 * 3))


def test_clips_that_differ_less_than_their_frames_add_nothing():
    # both clips have the mean 1: within 4 / 2 = 2
    _, low, high = clips.limits_of_agreement([[0, 2], [0, 2]])
    assert high - low == pytest.approx(2 * 1.96 * 2**0.5)


def test_fewer_than_two_differences_have_no_limits():
    assert clips.limits_of_agreement([]) is None
    assert clips.limits_of_agreement([[], [5]]) is None


def test_areas_are_of_frames_in_which_both_outline_a_nerve_and_in_mm2_by_the_spacing():
    frames = {1: [area(10, 12), area(10, 0), area(0, 9)], 2: [area(10, 14)]}
    found = clips.summarize(frames)
    assert found["area_bias_pixels"] == 3  # of 2 and 4
    # one difference a clip: standard deviation 2 ** 0.5
    assert found["area_high_pixels"] == pytest.approx(3 + 1.96 * 2**0.5)
    found = clips.summarize(frames, spacing=(0.5, 0.1))
    assert found["area_bias_mm2"] == pytest.approx(3 * 0.05)
    assert "area_bias_pixels" not in found
    assert clips.summarize({1: [area(0, 0)]})["area_low_pixels"] is None


# ---------------------------------------------------------------- together


def test_clips_together_by_hand():
    found = clips.summarize(
        {
            "a": rows((NERVE, NERVE), (NERVE, NERVE), (NONE, NONE)),
            "b": rows((NERVE, LEFT), (NONE, NONE)),
            "c": rows((NERVE, NONE)),
            "d": rows((NONE, LEFT), (NONE, NONE)),
        }
    )
    assert (found["clips"], found["clips_with_nerve"], found["overlap"]) == (4, 3, 0.5)
    assert found["nerve_found"] == pytest.approx(1 / 3)
    assert found["nerve_missed"] == pytest.approx(2 / 3)
    assert found["false_structure"] == 0.5  # b and d
    assert found["matched_throughout"] == pytest.approx(1 / 3)  # a
    # of 4 frames with a nerve 2 are found, all in one clip; of 8 frames 2 are false
    assert (found["frames_found"], found["frames_missed"]) == (0.5, 0.5)
    assert found["frames_found_interval"] == [0, 1]
    assert found["frames_false"] == 0.25


def test_the_interval_of_a_share_of_clips_is_wilsons():
    # 9 of 10, z = 1.96: (0.9 + z^2 / 20 -+ z sqrt(0.09 / 10 + z^2 / 400)) / (1 + z^2 / 10)
    share, interval = clips.share([True] * 9 + [False])
    z = 1.959964
    margin = z * (0.009 + z**2 / 400) ** 0.5
    assert share == 0.9
    expected = [(0.9 + z**2 / 20 + sign * margin) / (1 + z**2 / 10) for sign in (-1, 1)]
    assert interval == pytest.approx(expected, abs=1e-6)
    assert clips.share([True])[1][0] > 0  # a bootstrap of one value has no interval
    assert clips.share([]) == (None, None)


def test_clips_of_a_single_frame_and_without_a_nerve_have_defined_values():
    found = clips.summarize({1: rows((EMPTY, EMPTY))})
    none = ("nerve_found", "nerve_missed", "frames_found", "frames_until_found")
    assert [found[name] for name in (*none, "matched_throughout")] == [None] * 5
    assert found["false_structure"] == found["frames_false"] == 0
    assert found["frames_false_interval"] is None  # of one clip
    row = clips.score_clip(rows((NERVE, NERVE)))
    assert (row["frames"], row["iou"], row["found"]) == (1, 1, 1)
    assert row["frames_until_found"] == 0
    row = clips.score_clip(rows((EMPTY, EMPTY)))
    assert (row["iou"], row["found"], row["false_structure"]) == (None, None, 0)


def test_frames_are_counted_as_clips_of_one():
    row = clips.score_clip(rows((NERVE, NERVE), (NERVE, LEFT), (NERVE, NONE), (NONE, LEFT)))
    assert (row["frames"], row["frames_with_nerve"]) == (4, 3)
    counts = ("frames_found", "frames_missed", "frames_false")
    assert [row[name] for name in counts] == [1, 2, 2]
    assert row["iou"] == pytest.approx(4 / 20)
    assert row["nerve_iou"] == pytest.approx(4 / 16)


def test_values_are_numbers_that_json_and_tables_take():
    values = clips.summarize({1: rows((NERVE, NERVE)), 2: rows((NONE, LEFT))}).values()
    for value in values:
        assert value is None or type(value) in (int, float, list), value
    assert not any(isinstance(v, np.generic) for v in clips.score_clip([]).values())
