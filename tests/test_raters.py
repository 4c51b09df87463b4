"""raters.py: agreement by hand, and consensus whose answer can be argued."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_scores import mask, square

from nerve.scoring import raters

NERVE, SHIFTED, LEFT = square(4, 4), square(4, 5), square(0, 0)  # 2 common; none
NONE = NERVE * 0


def same(one, other):
    np.testing.assert_array_equal(one, other)
    assert one.dtype == np.uint8


# ---------------------------------------------------------------- consensus


def test_a_majority_is_more_than_half_and_of_two_raters_both():
    masks = [mask("XXX."), mask("XX.."), mask("X..X")]
    same(raters.majority(masks), mask("XX.."))
    same(raters.majority(masks[:2]), mask("XX.."))
    same(raters.majority(masks[1:]), mask("X..."))
    same(raters.majority([*masks, mask("..X.")]), mask("X..."))  # 2 of 4 are no majority
    same(raters.majority(masks[:1]), masks[0])


def test_raters_who_agree_are_their_own_consensus():
    for one in (NERVE, NONE, NERVE * 0 + 1):  # of an empty frame SimpleITK makes NaN
        same(raters.staple([one] * 3), one)


def test_two_raters_who_agree_outweigh_a_third():
    # where two always agree, a third who differs is the unreliable one, wherever he is
    for other in (SHIFTED, LEFT, NONE):
        for masks in ([NERVE, NERVE, other], [other, NERVE, NERVE]):
            same(raters.staple(masks), NERVE)


def test_a_reliable_rater_outweighs_two_who_err_alone():
    # a and b are right but for a pixel each, c marks four of the six and four elsewhere:
    # where a and c, or b and c, agree, they are two; alone, nobody counts
    a, b, c = mask("XXXXX.......", "............"), mask(".XXXXX......"), None
    a, b = (np.vstack([m[:1], m[:1] * 0]) for m in (a, b))
    c = mask("XXXX........", "....XXXX....")
    found = raters.staple([a, b, c])
    same(found, raters.majority([a, b, c]))
    assert not found[1].any()


# ---------------------------------------------------------------- agreement


def test_a_frame_by_hand():
    # prediction = A; B shares 2 of 4 pixels with it, C none: Dice 1, 0.5 and 0. A and B
    # 0.5, A and C, B and C 0. Two of three have the 2 pixels that A and B share
    row = raters.frame_agreement(NERVE, [NERVE, SHIFTED, LEFT], False)
    assert [row[f"dice_{k}"] for k in (1, 2, 3)] == [1, 0.5, 0]
    assert [row[f"dice_{k}"] for k in ("1_2", "1_3", "2_3")] == [0.5, 0, 0]
    assert row["predicted_dice"] == pytest.approx(0.5)
    assert row["raters_dice"] == pytest.approx(1 / 6)
    assert row["difference"] == pytest.approx(1 / 3)
    assert row["majority_dice"] == pytest.approx(2 * 2 / (4 + 2))
    assert "staple_dice" not in row
    both = [NERVE, NERVE, LEFT]
    assert raters.frame_agreement(SHIFTED, both, True)["staple_dice"] == 0.5


def test_frames_without_a_nerve_to_any_rater_do_not_count():
    assert raters.frame_agreement(NERVE, [NONE, NONE], True) is None
    row = raters.frame_agreement(NONE, [NONE, NERVE], True)
    assert (row["dice_1"], row["dice_2"], row["dice_1_2"]) == (1, 0, 0)


def test_means_have_intervals_by_subject():
    rows = [
        raters.frame_agreement(NERVE, masks, False)
        for masks in ([NERVE, NERVE], [NERVE, LEFT], [NONE, NONE])
    ]
    summary = raters.summarize(rows, [1, 2, 3])
    assert summary["frames_of_raters"] == 2
    assert (summary["predicted_dice"], summary["raters_dice"]) == (0.75, 0.5)
    assert (summary["difference"], summary["difference_interval"]) == (0.25, [0, 0.5])
    assert raters.summarize([None], [1]) == {"frames_of_raters": 0}
    assert raters.summarize(rows, [1, 1, 1])["difference_interval"] is None


@pytest.mark.parametrize(
    ("difference", "interval", "expected"),
    [
        (-0.1, [-0.2, -0.01], "less than they agree with each other: Dice 0.7000 and 0.80"),
        (0.1, [0.01, 0.2], "more than they agree with each other: Dice 0.7000 and 0.8000$"),
        (-0.1, [-0.2, 0.01], "about as much as .* 0.8000, no difference is certain$"),
        (-0.1, None, "about as much as .* no difference is certain$"),
    ],
)
def test_a_sentence_says_who_agrees_more(difference, interval, expected):
    summary = {"predicted_dice": 0.7, "raters_dice": 0.8, "difference": difference}
    text = raters.say(summary | {"difference_interval": interval})
    assert re.search(expected, text), text


def test_no_nerve_at_all_is_said():
    assert raters.say({"frames_of_raters": 0}).startswith("no rater shows a nerve")


def test_the_matrix_names_rows_and_columns():
    summary = {"dice_1": 0.5, "dice_2": 0.25, "dice_1_2": 1.0}
    assert raters.matrix(summary, ["anna", "ben"]) == [
        ["", "anna", "ben"],
        ["predicted", "0.5000", "0.2500"],
        ["anna", "", "1.0000"],
    ]


def test_raters_are_called_as_their_files_are_told_apart():
    assert raters.name_raters([Path("x/anna.csv"), Path("ben.csv")]) == ["anna", "ben"]
    same = [Path("anna/masks"), Path("ben/masks")]
    assert raters.name_raters(same) == ["anna/masks", "ben/masks"]
    with pytest.raises(ValueError, match=r"^a\.csv is given twice"):
        raters.name_raters([Path("a.csv"), Path("b.csv"), Path("a.csv")])
