"""scores.py: values computed by hand, and slow versions of what can go wrong."""

import math

import numpy as np
import pytest

from nerve.scoring import scores


def mask(*rows):
    """Return a uint8 mask drawn in text: `mask(".X", "X.")`."""
    return np.array([[char == "X" for char in row] for row in rows], np.uint8)


EMPTY = np.zeros((3, 4), np.uint8)
FULL = np.ones((3, 4), np.uint8)


def square(top, left, side=2, shape=(12, 12)):
    image = np.zeros(shape, np.uint8)
    image[top : top + side, left : left + side] = 1
    return image


# ---------------------------------------------------------------- Dice and IoU


def test_empty_against_empty_is_1():
    assert scores.dice(EMPTY, EMPTY) == 1.0


@pytest.mark.parametrize("pair", [(EMPTY, FULL), (FULL, EMPTY)])
def test_empty_against_a_nerve_is_0(pair):
    assert scores.dice(*pair) == 0.0


def test_a_mask_against_itself_is_1():
    assert scores.dice(FULL, FULL) == 1.0
    assert scores.dice(square(0, 0), square(0, 0)) == 1.0


def test_masks_that_do_not_touch_score_0():
    assert scores.dice(square(0, 0), square(5, 5)) == 0.0


def test_dice_and_iou_by_hand():
    # 3 pixels and 5 pixels, 2 of them common: Dice 2 * 2 / (3 + 5), IoU 2 / 6
    truth = mask("XX..", "X...", "....")
    predicted = mask("XX..", ".XX.", "X...")
    assert scores.dice(truth, predicted) == 0.5
    row = scores.frame_scores(truth, predicted)
    assert row["dice"] == 0.5
    assert row["iou"] == pytest.approx(1 / 3)
    assert (row["area"], row["predicted_area"]) == (3, 5)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_dice_is_the_same_for_bool_and_integers(dtype):
    truth, predicted = square(0, 0).astype(dtype), square(1, 0).astype(dtype)
    assert scores.dice(truth, predicted) == 0.5  # 2 * 2 / (4 + 4)


def test_dice_of_a_large_mask_does_not_overflow():
    # 243,600 pixels do not fit into uint8 or uint16 sums
    frame = np.ones((420, 580), np.uint8)
    half = frame.copy()
    half[:210] = 0
    assert scores.dice(frame, half) == pytest.approx(2 * 0.5 / 1.5)


def test_iou_is_intersection_over_union_on_random_masks():
    rng = np.random.default_rng(0)
    for share in (0.05, 0.3, 0.7):
        truth, predicted = (rng.random((2, 9, 11)) < share).astype(np.uint8)
        union = np.logical_or(truth, predicted).sum()
        common = np.logical_and(truth, predicted).sum()
        found = scores.frame_scores(truth, predicted)["iou"]
        assert found == pytest.approx(common / union)


# ---------------------------------------------------------------- distances


def test_hausdorff_of_single_pixels_is_their_distance():
    # 3 rows and 4 columns apart: 5
    truth, predicted = square(2, 2, 1), square(5, 6, 1)
    assert scores.hausdorff_95(truth, predicted) == pytest.approx(5)


def test_hausdorff_of_equal_masks_is_0():
    assert scores.hausdorff_95(square(2, 2, 5), square(2, 2, 5)) == 0


def test_hausdorff_of_a_filled_and_a_hollow_square_is_0():
    # only outlines count, and the outer one is the same; the hole's own, of row 4 to 6,
    # is one pixel from it
    hollow = square(2, 2, 7)
    hollow[4:7, 4:7] = 0
    # the outline of the hollow one is the ring without its corners' insides: each pixel
    # of it lies at most 1 from the filled one's outline
    assert scores.hausdorff_95(square(2, 2, 7), hollow) == 1


def test_hausdorff_takes_the_95th_percentile_of_the_worse_direction():
    # a row of 21 pixels against its first: distances 0, 1 ... 20 one way, 0 the other.
    # 95 % of 20 steps is the 19th: 19
    row = np.zeros((1, 21), np.uint8)
    first = row.copy()
    row[:], first[0, 0] = 1, 1
    assert scores.hausdorff_95(row, first) == 19
    assert scores.hausdorff_95(first, row) == 19


def test_a_mask_at_the_edge_has_an_outline_there():
    # all of a 3 x 3 frame: 8 pixels of outline; the centre pixel alone is 1 or sqrt(2)
    # from them, 95 % of 7 steps is 6.65: between the 7th and 8th, both sqrt(2)
    centre = square(1, 1, 1, (3, 3))
    found = scores.hausdorff_95(np.ones((3, 3), np.uint8), centre)
    assert found == pytest.approx(math.sqrt(2))


def slow_outline(image):
    """Pixels of a mask with one of four neighbours outside the mask or the frame."""
    height, width = image.shape
    pixels = []
    for row in range(height):
        for column in range(width):
            if not image[row, column]:
                continue
            for r, c in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                y, x = row + r, column + c
                if not (0 <= y < height and 0 <= x < width and image[y, x]):
                    pixels.append((row, column))
                    break
    return pixels


def slow_hausdorff_95(truth, predicted):
    results = []
    for one, other in ((truth, predicted), (predicted, truth)):
        goal = slow_outline(other)
        values = sorted(min(math.dist(p, q) for q in goal) for p in slow_outline(one))
        place = 0.95 * (len(values) - 1)
        low, high = values[math.floor(place)], values[math.ceil(place)]
        results.append(low + (high - low) * (place - math.floor(place)))
    return max(results)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_hausdorff_equals_brute_force_on_random_masks(share):
    rng = np.random.default_rng(int(share * 100))
    for _ in range(8):
        truth, predicted = (rng.random((2, 13, 17)) < share).astype(np.uint8)
        truth[3, 4] = predicted[7, 2] = 1  # neither is empty
        expected = slow_hausdorff_95(truth, predicted)
        assert scores.hausdorff_95(truth, predicted) == pytest.approx(expected, 1e-5)


def test_centroid_distance_by_hand():
    # centres of squares of side 2 at (0.5, 0.5) and (3.5, 4.5): 3 and 4 apart, so 5
    assert scores.centroid_distance(square(0, 0), square(3, 4)) == pytest.approx(5)
    # pixels in columns 0 and 3 have their centre at 1.5; one pixel in column 1: 0.5
    found = scores.centroid_distance(mask("X..X"), mask(".X.."))
    assert found == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("truth", "predicted", "dice"),
    [(EMPTY, EMPTY, 1), (EMPTY, FULL, 0), (FULL, EMPTY, 0)],
)
def test_distances_to_an_empty_mask_are_not_defined(truth, predicted, dice):
    assert scores.frame_scores(truth, predicted) == {
        "area": truth.sum(),
        "predicted_area": predicted.sum(),
        "dice": dice,
        "iou": dice,
        "hausdorff_95": None,
        "centroid_distance": None,
    }


# ---------------------------------------------------------------- intervals


def test_constant_values_have_an_interval_without_width():
    assert scores.bootstrap(np.full(9, 0.25), np.repeat([1, 2, 3], 3)) == [0.25, 0.25]


def test_one_cluster_has_no_interval():
    assert scores.bootstrap(np.array([0.1, 0.9]), np.array([7, 7])) is None


def test_the_interval_of_two_clusters_spans_their_means():
    # both picks are the low cluster in a quarter of the resamples, the high one in
    # another: more than 2.5 %, so the interval ends at the two means
    values = np.array([0.2, 0.4, 0.8])
    assert scores.bootstrap(values, np.array([1, 1, 2])) == pytest.approx([0.3, 0.8])


def test_whole_clusters_are_resampled():
    # 400 frames of 4 subjects; within a subject all are alike: the interval is that of
    # 4 values, about 0.5 +- 0.4, and not that of 400, 0.5 +- 0.04
    clusters = np.repeat([1, 2, 3, 4], 100)
    values = np.repeat([0.0, 0.0, 1.0, 1.0], 100)
    assert scores.bootstrap(values, clusters) == [0, 1]
    low, high = scores.bootstrap(values, np.arange(400))
    assert 0.44 < low < 0.46
    assert 0.54 < high < 0.56


def test_clusters_weigh_by_their_frames():
    # ten clusters of 9 frames of 1, ten of a single 0. Of 20 picks k are large ones,
    # binomially: 6 to 14 with 95 %. 54 / (54 + 14) = 0.79 and 126 / (126 + 6) = 0.95; the
    # means of clusters' means would be 0.3 and 0.7. One k more or less is chance
    values = np.array([1.0] * 90 + [0.0] * 10)
    clusters = np.concatenate([np.repeat(np.arange(10), 9), np.arange(10, 20)])
    low, high = scores.bootstrap(values, clusters)
    assert 45 / 60 <= low <= 63 / 76
    assert 117 / 124 <= high <= 135 / 140


def test_the_interval_has_the_width_of_the_normal_one_for_many_frames():
    # 1.96 x 0.2 / sqrt(400) = 0.0196 each side, within the bootstrap's own error
    values = np.random.default_rng(1).normal(0.5, 0.2, 400)
    low, high = scores.bootstrap(values, np.arange(400))
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.003)
    assert high == pytest.approx(values.mean() + half, abs=0.003)
    assert scores.bootstrap(values, np.arange(400)) == [low, high]


# ---------------------------------------------------------------- the summary


def row(area, predicted_area, dice, hausdorff=None, centroid=None):
    return {
        "area": area,
        "predicted_area": predicted_area,
        "dice": dice,
        "iou": dice / (2 - dice),
        "hausdorff_95": hausdorff,
        "centroid_distance": centroid,
    }


HAND = [
    row(100, 80, 0.8, 4.0, 2.0),
    row(100, 50, 0.05, 30.0, 20.0),  # found, but Dice below 0.1
    row(100, 0, 0.0),  # missed
    row(100, 90, 0.6, 8.0, 5.0),
    row(0, 0, 1.0),
    row(0, 0, 1.0),
    row(0, 40, 0.0),  # a false alarm
]


def test_a_hand_made_table_is_summed_up():
    summary = scores.summarize(HAND, [1, 1, 2, 2, 1, 2, 2])
    intervals = [summary.pop(f"{n}_interval") for n in ("challenge_dice", "nerve_dice")]
    assert summary == {
        "frames": 7,
        "frames_with_nerve": 4,
        "challenge_dice": pytest.approx(3.45 / 7),  # 0.8 + 0.05 + 0.6 + 1 + 1
        "predicting_nothing": pytest.approx(3 / 7),
        "nerve_dice": pytest.approx(1.45 / 4),
        "nerve_dice_median": pytest.approx(0.325),  # 0, 0.05 | 0.6, 0.8
        # 0.8 / 1.2 + 0.05 / 1.95 + 0 + 0.6 / 1.4
        "nerve_iou": pytest.approx((2 / 3 + 1 / 39 + 3 / 7) / 4),
        "share_below_0.1": 0.5,  # 0 and 0.05 of four
        "hausdorff_95": pytest.approx(14),  # (4 + 30 + 8) / 3
        "centroid_distance": pytest.approx(9),  # (2 + 20 + 5) / 3
        "sensitivity": 0.75,  # three of four nerves
        "specificity": pytest.approx(2 / 3),  # one alarm in three empty frames
    }
    # two subjects: the interval is that of their means. Subject 1: 0.8, 0.05 and 1;
    # subject 2: 0, 0.6, 1 and 0. With a nerve: 0.8, 0.05 and 0, 0.6
    assert intervals[0] == pytest.approx([1.6 / 4, 1.85 / 3])
    assert intervals[1] == pytest.approx([0.3, 0.425])


def test_presence_scores_are_none_where_undefined():
    only_nerves = scores.summarize([row(10, 5, 0.6), row(10, 0, 0.0)], [1, 2])
    assert only_nerves["specificity"] is None
    assert only_nerves["sensitivity"] == 0.5
    assert only_nerves["predicting_nothing"] == 0
    only_empty = scores.summarize([row(0, 0, 1.0), row(0, 9, 0.0)], [1, 2])
    assert only_empty["sensitivity"] is None
    assert only_empty["specificity"] == 0.5
    assert only_empty["predicting_nothing"] == 1
    for name in ("nerve_dice", "nerve_dice_interval", "nerve_dice_median", "nerve_iou"):
        assert only_empty[name] is None
    for name in ("share_below_0.1", "hausdorff_95", "centroid_distance"):
        assert only_empty[name] is None


def test_a_dice_of_exactly_0_1_is_not_below_it():
    summary = scores.summarize([row(10, 5, 0.1), row(10, 5, 0.09)], [1, 2])
    assert summary["share_below_0.1"] == 0.5


def test_a_mean_leaves_undefined_values_out():
    assert scores.mean([1, None, 3]) == 2
    assert scores.mean([None, None]) is None
    assert scores.mean([]) is None
    assert scores.mean([0.0, None]) == 0


def test_the_table_shows_counts_intervals_and_what_is_undefined():
    lines = scores.format_table(
        {
            "frames": 7,
            "challenge_dice": 0.49286,
            "challenge_dice_interval": [0.4, 0.61667],
            "specificity": None,
            "sensitivity": 1.0,
            "sensitivity_interval": None,
        }
    ).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["frames", "7"],
        ["challenge_dice", "0.4929  (95 % interval 0.4000 to 0.6167)"],
        ["specificity", "-"],
        ["sensitivity", "1.0000"],
    ]
