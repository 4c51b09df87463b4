"""evaluate.py: frames are paired, checked row by row, and scored as the challenge does."""

import csv
import json
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
from conftest import run_script, slow_decode, slow_encode, write_table

import evaluate
from nerve.files import atomic

# Small frames: pixels 1 to 3 are column 1, and so on.
HEIGHT, WIDTH = 3, 4
SIZE = ["--height", str(HEIGHT), "--width", str(WIDTH)]


def write(path, rows, columns="img,pixels"):
    write_table(path, columns.split(","), rows)
    return path


def score(predicted, truth, size=SIZE, flags=()):
    """Run the script; return the summary."""
    evaluate.main([str(predicted), str(truth), *size, *flags])
    return json.loads(predicted.with_suffix(".scores.json").read_text())


@pytest.fixture
def files(tmp_path):
    """Function of two lists of (img, pixels): their paths, to be scored."""

    def make(predicted, truth):
        return write(tmp_path / "p.csv", predicted), write(tmp_path / "t.csv", truth)

    return make


TRUTH = [(1, "1 6"), (2, ""), (3, "4 2 8 1"), (4, ""), (5, "")]


# ---------------------------------------------------------------- scores


def test_the_truth_itself_scores_1(files):
    summary = score(*files(TRUTH, TRUTH))
    assert summary["challenge_dice"] == summary["nerve_dice"] == 1
    assert summary["nerve_iou"] == summary["sensitivity"] == summary["specificity"] == 1
    assert summary["hausdorff_95"] == summary["centroid_distance"] == 0
    assert (summary["frames"], summary["frames_with_nerve"]) == (5, 2)


def test_predicting_nothing_scores_the_share_of_empty_frames(files):
    summary = score(*files([(img, "") for img, _ in TRUTH], TRUTH))
    assert summary["challenge_dice"] == summary["predicting_nothing"] == 0.6  # 3 of 5
    assert summary["nerve_dice"] == summary["sensitivity"] == 0
    assert summary["specificity"] == 1
    assert summary["hausdorff_95"] is None


def test_frames_are_scored_by_hand(files):
    # 1: pixels 1-6 against 4-9, 3 common: 2 * 3 / 12 = 0.5.  2: a false alarm, 0.
    # 3: missed, 0.  4 and 5: empty, 1 each
    predicted = [(1, "4 6"), (2, "1 1"), (3, ""), (4, ""), (5, "")]
    summary = score(*files(predicted, TRUTH))
    assert summary["challenge_dice"] == pytest.approx(2.5 / 5)
    assert summary["nerve_dice"] == pytest.approx(0.25)
    assert summary["sensitivity"] == 0.5
    assert summary["specificity"] == pytest.approx(2 / 3)
    # full columns 1, 2 against 2, 3: centres one column apart
    assert summary["centroid_distance"] == pytest.approx(1)


def test_random_masks_score_as_decoded_pixel_by_pixel(files):
    rng = np.random.default_rng(0)
    masks = (rng.random((2, 12, 7, 5)) < 0.4) * (rng.random((2, 12, 1, 1)) < 0.6)
    rows = [[(k + 1, slow_encode(m)) for k, m in enumerate(part)] for part in masks]
    expected = []
    for one, other in masks.transpose(1, 0, 2, 3):
        total = int(one.sum()) + int(other.sum())
        expected.append(2 * int((one & other).sum()) / total if total else 1)
    assert {0, 1} < set(expected)  # both empty, one empty, and neither
    summary = score(*files(*rows), size=["--height", "7", "--width", "5"])
    assert summary["challenge_dice"] == pytest.approx(np.mean(expected))


def test_rows_are_paired_by_number_and_not_by_place(files):
    assert score(*files(TRUTH[::-1], TRUTH))["challenge_dice"] == 1


def test_frames_of_the_challenge_are_the_default_size(files, tmp_path):
    # 420 x 580 = 243,600 pixels
    pair = files([(1, "243600 1")], [(1, "243600 1")])
    assert score(*pair, size=[])["challenge_dice"] == 1
    with pytest.raises(ValueError, match="a run ends at pixel 243601 of 243600"):
        score(*files([(1, "243600 2")], [(1, "")]), size=[])


def test_empty_masks_alone_leave_undefined_scores_null(files):
    summary = score(*files([(1, "")], [(1, "")]))
    assert summary["challenge_dice"] == 1
    assert summary["sensitivity"] is None
    assert summary["nerve_dice_constant_mask"] is None
    assert summary["challenge_dice_interval"] is None  # of a single frame


# ---------------------------------------------------------------- subjects


def test_a_subject_column_pairs_by_subject_and_image(tmp_path):
    # image 1 of both subjects; by image alone they could not be told apart
    columns = "subject,img,pixels"
    truth = write(tmp_path / "t.csv", [(1, 1, "1 3"), (2, 1, "")], columns)
    swapped = [(2, 1, ""), (1, 1, "1 3")]
    predicted = write(tmp_path / "p.csv", swapped, columns)
    summary = score(predicted, truth)
    assert summary["challenge_dice"] == 1
    assert summary["subjects"] == 2
    crossed = write(tmp_path / "p.csv", [(2, 1, "1 3"), (1, 1, "")], columns)
    assert score(crossed, truth)["challenge_dice"] == 0


@pytest.mark.parametrize(
    "header", ["\ufeffsubject,img,pixels\r\n", '"subject","img","pixels"\n']
)
def test_a_subject_column_is_seen_as_a_spreadsheet_saves_it(tmp_path, header):
    rows = "1,1,1 3\n2,1,\n"
    (tmp_path / "p.csv").write_bytes((header + rows).encode())
    (tmp_path / "t.csv").write_text("subject,img,pixels\n" + rows)
    assert score(tmp_path / "p.csv", tmp_path / "t.csv")["challenge_dice"] == 1


def test_intervals_are_by_the_subjects_of_the_truth(tmp_path):
    # subject 7 scores 1 and 1, subject 8 scores 0 and 0: means of whole subjects reach
    # from 0 to 1, those of four frames would, too, but not with one subject
    rows = [(1, "1 1"), (2, "1 1"), (3, "1 1"), (4, "1 1")]
    predicted = write(tmp_path / "p.csv", [*rows[:2], (3, ""), (4, "")])
    columns = "img,pixels,subject,image"  # as phantom.py writes it
    for subjects, interval, count in (
        ([7, 7, 8, 8], [0, 1], 2),
        ([7, 7, 7, 7], None, 1),
    ):
        full = [(*r, s, 1) for r, s in zip(rows, subjects, strict=True)]
        summary = score(predicted, write(tmp_path / "t.csv", full, columns))
        assert summary["challenge_dice_interval"] == interval
        assert summary["subjects"] == count


def test_without_subjects_each_frame_is_its_own_cluster(files):
    predicted = [(1, "1 6"), (2, ""), (3, ""), (4, ""), (5, "1 1")]
    summary = score(*files(predicted, TRUTH))
    assert summary["subjects"] is None
    low, high = summary["challenge_dice_interval"]
    assert 0 < low < 0.6 < high <= 1  # the mean is 3 / 5


def test_predictions_by_subject_need_a_truth_by_subject(tmp_path):
    predicted = write(tmp_path / "p.csv", [(1, 1, "")], "subject,img,pixels")
    truth = write(tmp_path / "t.csv", [(1, "")])
    with pytest.raises(ValueError, match=rf"^{truth} has no column 'subject'; its first"):
        score(predicted, truth)


# ---------------------------------------------------------------- best constant mask


def slow_constant_mask(rows, height, width):
    """Score each frame with a nerve by the vote of the other subjects' frames.

    Args:
        rows: (subject or None, pixels) of each frame.
    """
    frames = [(s, slow_decode(p, height, width)) for s, p in rows if p]
    several = len({subject for subject, _ in frames}) > 1
    best = 0
    for twentieths in range(1, 20):
        level = Fraction(twentieths, 20)
        total = Fraction(0)
        for subject, mask in frames:
            voters = [m for s, m in frames if s != subject or not several]
            common = area = 0
            for row in range(height):
                for column in range(width):
                    votes = sum(int(m[row, column]) for m in voters)
                    if votes and Fraction(votes, len(voters)) >= level:
                        area += 1
                        common += int(mask[row, column])
            total += Fraction(2 * common, area + int(mask.sum()))
        best = max(best, total / len(frames))
    return float(best)


@pytest.mark.parametrize("subjects", [None, 1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_constant_mask_equals_brute_force(tmp_path, subjects, seed):
    rng = np.random.default_rng(seed)
    chance = rng.random((5, 6))  # places where a nerve is likely and where it is not
    rows = []
    for number in range(1, 15):
        mask = rng.random((5, 6)) < chance * (rng.random() < 0.7)
        subject = number % subjects + 1 if subjects else None
        rows.append((number, slow_encode(mask), subject))
    slow = slow_constant_mask([(s, p) for _, p, s in rows], 5, 6)
    predicted = write(tmp_path / "p.csv", [(n, "") for n, *_ in rows])
    if subjects:
        truth = write(tmp_path / "t.csv", rows, "img,pixels,subject")
    else:
        truth = write(tmp_path / "t.csv", [r[:2] for r in rows])
    summary = score(predicted, truth, size=["--height", "5", "--width", "6"])
    assert 0 < slow < 1
    assert summary["nerve_dice_constant_mask"] == pytest.approx(slow)


def test_a_share_of_exactly_15_percent_counts(files):
    # 20 frames: pixels 1-10 are nerve in three, 11-70 in two, 15 single ones in one each.
    # 3 votes or more: three frames score 1, the others 0: 3 / 20.  2 or more, 70 pixels:
    # 3 x 20 / 80 + 2 x 120 / 130 = 2.6.  1 or more, 85 pixels: 3 x 20 / 95 +
    # 2 x 120 / 145 + 15 x 2 / 86 = 2.6.  So 3 votes of 20, exactly 15 %, are the best
    rows = [(n, "1 10") for n in (1, 2, 3)] + [(n, "11 60") for n in (4, 5)]
    rows += [(n, f"{100 + n} 1") for n in range(6, 21)]
    summary = score(*files(rows, rows), size=["--height", "10", "--width", "20"])
    assert summary["nerve_dice_constant_mask"] == pytest.approx(3 / 20)


def test_frames_without_a_nerve_do_not_count_for_the_constant_mask(files):
    # one and the same nerve in all frames that have one: the constant mask is right
    rows = [(1, "5 2"), (2, ""), (3, "5 2"), (4, "")]
    assert score(*files(rows, rows))["nerve_dice_constant_mask"] == 1


# ---------------------------------------------------------------- malformed files

GOOD = ["1,1 2", "2,", "3,5 1"]


@pytest.mark.parametrize(
    ("line", "content", "expected"),
    [
        (3, "x,", "line 3: 'x' is not a whole number"),
        (3, ",", "line 3: '' is not a whole number"),
        (3, "2.0,", "line 3: '2.0' is not a whole number"),
        (3, "2.tif,", "line 3: '2.tif' is not a whole number"),
        (3, "1,", "line 3: frame 1 is listed twice"),
        (2, "1,9 1 1 1", "line 2, frame 1: runs are out of order: 9 1, then 1"),
        (2, "1,1 3 3 2", "line 2, frame 1: runs are overlapping: 1 3, then 3"),
        (4, "3,12 2", "line 4, frame 3: a run ends at pixel 13 of 12"),
        (4, "3,0 1", "line 4, frame 3: a run starts before pixel 1 or is shorter"),
        (4, "3,1 0", "line 4, frame 3: a run starts before pixel 1 or is shorter"),
        (4, "3,1", "line 4, frame 3: pixels hold 1 numbers; expected pairs"),
        (4, "3,nan", "line 4, frame 3: pixels hold 'nan'; expected 'start length"),
        (4, "3", "line 4: expected 2 fields"),
        (4, "3,1 1,1 1", "line 4: expected 2 fields"),
        (
            1,
            "image,pixels",
            "has no column 'img'; its first line should name img,pixels",
        ),
        (1, "img,rle", "has no column 'pixels'; its first line should name img,pixels"),
        (1, "img;pixels", "has no column 'img'; its first line should name img,pixels"),
    ],
)
@pytest.mark.parametrize("side", ["predicted", "truth"])
def test_a_malformed_row_is_named_by_its_line(tmp_path, side, line, content, expected):
    lines = ["img,pixels", *GOOD]
    paths = {name: tmp_path / f"{name}.csv" for name in ("predicted", "truth")}
    for path in paths.values():
        path.write_text("\n".join(lines) + "\n")
    lines[line - 1] = content
    paths[side].write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"^{paths[side]} {expected}"):
        score(paths["predicted"], paths["truth"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["predicted.csv", "truth.csv"]


def test_a_missing_and_an_unknown_row_are_named(tmp_path):
    short = write(tmp_path / "short.csv", [(1, ""), (4, "")])
    whole = write(tmp_path / "whole.csv", [(1, ""), (2, ""), (3, ""), (4, "")])
    expected = rf"{short} has no row for frame 2 of {whole} \(2 frames are missing\)"
    for predicted, truth in ((short, whole), (whole, short)):
        with pytest.raises(ValueError, match=expected):
            score(predicted, truth)


def test_a_missing_pair_of_subject_and_image_is_named(tmp_path):
    columns = "subject,img,pixels"
    one = write(tmp_path / "one.csv", [(1, 1, ""), (1, 2, "")], columns)
    other = write(tmp_path / "other.csv", [(1, 1, ""), (2, 1, "")], columns)
    with pytest.raises(ValueError, match=rf"{other} has no row for frame \(1, 2\) of"):
        score(one, other)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has no column 'img'; its first line should name img,pixels"),
        (b"img,pixels\n", "lists no frames"),
        (b"img,pixels\n1,\xff\n", "is not a CSV text file: 'utf-8' codec can't decode"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a CSV text file: 'utf-8' codec can't"),
        (b'img,pixels\n1,"1 1\n', "is not a CSV text file: unexpected end of data"),
    ],
    ids=["empty", "header-only", "not-utf8", "picture", "open-quote"],
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_file_that_is_no_table_is_refused(tmp_path, side, content, expected):
    good = write(tmp_path / "good.csv", [(1, "")])
    bad = tmp_path / "bad.csv"
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{bad} {expected}"):
        score(*((bad, good) if side == 0 else (good, bad)))


@pytest.mark.parametrize("place", ["absent.csv", "."])
@pytest.mark.parametrize("side", [0, 1])
def test_a_missing_file_or_a_folder_is_named(tmp_path, side, place):
    good, bad = write(tmp_path / "good.csv", [(1, "")]), tmp_path / place
    with pytest.raises(
        FileNotFoundError, match=f"^{bad} is missing or a folder; expected a CSV file$"
    ):
        score(*((bad, good) if side == 0 else (good, bad)))


# ---------------------------------------------------------------- folders of masks


def paint(folder, masks):
    """Write masks `{name: uint8 array of 0 and 1}` as pictures into a folder."""
    folder.mkdir()
    for name, mask in masks.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), mask * 255)
    return folder


def column(number, shape=(HEIGHT, WIDTH)):
    """Return a mask whose one column is nerve; of none, an empty one."""
    mask = np.zeros(shape, np.uint8)
    if number is not None:
        mask[:, number] = 1
    return mask


def score_folders(predicted, truth, *flags):
    evaluate.main([str(predicted), str(truth), *flags])
    scored = predicted.with_name(f"{predicted.name}.scores.json")
    return json.loads(scored.read_text())


def test_folders_are_scored_by_name_each_frame_at_its_own_size(tmp_path, capsys):
    truth = {"b_2": column(0), "a_1": column(0), "c": column(None, (5, 7))}
    paint(tmp_path / "truth", {f"{n}_mask": m for n, m in truth.items()})
    found = {"a_1": column(0), "b_2": column(1), "c": column(None, (5, 7))}
    predicted = paint(tmp_path / "found.masks", found)
    summary = score_folders(predicted, tmp_path / "truth")
    assert summary["challenge_dice"] == pytest.approx(2 / 3)
    assert summary["nerve_dice_constant_mask"] is None  # there is none of two sizes
    text = capsys.readouterr().out
    assert f"3 frames scored: {predicted}.scores.json, {predicted}.scores.csv" in text
    rows = (tmp_path / "found.masks.scores.csv").read_text().splitlines()
    assert rows[0].startswith("name,area,")
    assert [row.split(",")[0] for row in rows[1:]] == ["a_1", "b_2", "c"]


def test_a_folder_is_scored_against_outlines_of_labelme(tmp_path):
    predicted = paint(tmp_path / "masks", {"a_1": column(1), "a_2": column(None)})
    # x from 1 to 2 is column 1
    shape = {"label": "nerve", "shape_type": "polygon", "group_id": None}
    shape["points"] = [[1, 0], [2, 0], [2, 3], [1, 3]]
    drawn = {"imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape]}
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "a_1.json").write_text(json.dumps(drawn))
    with pytest.raises(ValueError, match=r"1 of 2 lack a mask .* --missing-empty"):
        score_folders(predicted, tmp_path / "drawn")
    summary = score_folders(predicted, tmp_path / "drawn", "--missing-empty")
    assert summary["challenge_dice"] == 1
    other = shape | {"label": "artery"}
    text = json.dumps(drawn | {"shapes": [shape, other]})
    (tmp_path / "drawn" / "a_1.json").write_text(text)
    with pytest.raises(ValueError, match="'artery', 'nerve'; say which is nerve: --label"):
        score_folders(predicted, tmp_path / "drawn", "--missing-empty")
    flags = ("--missing-empty", "--label", "nerve")
    assert score_folders(predicted, tmp_path / "drawn", *flags)["challenge_dice"] == 1


def test_a_predicted_picture_that_is_no_mask_is_refused(tmp_path):
    truth = paint(tmp_path / "truth", {"a": column(0)})
    (tmp_path / "found").mkdir()
    cv2.imwrite(str(tmp_path / "found" / "a.png"), np.arange(12, dtype=np.uint8) * 20)
    with pytest.raises(ValueError, match=r"a\.png is of .* pixels|holds the values"):
        score_folders(tmp_path / "found", truth)


def test_masks_of_another_size_are_named_with_both(tmp_path):
    predicted = paint(tmp_path / "found", {"a": column(0)})
    truth = paint(tmp_path / "truth", {"a": column(0, (5, 7))})
    with pytest.raises(ValueError, match=r"a\.png is of 5 x 7 pixels, a\.png of 3 x 4"):
        score_folders(predicted, truth)


def test_a_folder_named_by_dots_is_written_beside(tmp_path, monkeypatch):
    paint(tmp_path / "truth", {"a": column(0)})
    monkeypatch.chdir(paint(tmp_path / "found", {"a": column(0)}))
    evaluate.main([".", "../truth"])
    assert (tmp_path / "found.scores.json").exists()


def test_flags_of_folders_are_refused_of_tables(files):
    for flags in (["--label", "1"], ["--subject-pattern", "a"], ["--missing-empty"]):
        with pytest.raises(
            ValueError, match=f"^{flags[0]} is of folders of masks; .*p.csv"
        ):
            score(*files(TRUTH, TRUTH), flags=flags)


# ---------------------------------------------------------------- clips


def read_clips(path):
    with open(path, newline="") as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


def test_subjects_of_a_table_are_clips_whose_frames_go_by_number(tmp_path):
    # subject 7: frames 2, 9 and 10 in the file's order 10, 2, 9; found from 9 on, which
    # comes before 10; its 3 true columns against 2 right ones: 6 of 9 pixels. Subject 8:
    # one frame without a nerve, in which one is outlined
    truth = [(7, 10, "1 3"), (7, 2, "1 3"), (7, 9, "1 3"), (8, 1, "")]
    predicted = [(8, 1, "4 3"), (7, 10, "1 3"), (7, 9, "1 3"), (7, 2, "")]
    columns = "subject,img,pixels"
    paths = (
        write(tmp_path / f"{name}.csv", rows, columns)
        for name, rows in (("p", predicted), ("t", truth))
    )
    summary = score(*paths, flags=["--by", "clip", "--spacing", "0.5", "2"])
    assert (summary["clips"], summary["clips_with_nerve"]) == (2, 1)
    assert (summary["nerve_found"], summary["false_structure"]) == (1, 0.5)
    assert summary["frames_until_found"] == 1
    assert (summary["flicker"], summary["flicker_truth"]) == (0.5, 0)  # 1 and 0; 0 and 0
    assert summary["area_bias_mm2"] == 0
    rows = read_clips(tmp_path / "p.clips.csv")
    assert list(rows) == ["7", "8"]
    assert rows["7"]["iou"] == "0.666667"
    assert (rows["7"]["flicker"], rows["8"]["flicker"]) == ("0.5", "")
    assert (rows["8"]["found"], rows["8"]["false_structure"]) == ("", "1")


def test_the_place_in_the_sweep_goes_before_the_number_of_the_submission(tmp_path):
    # test frames are numbered at random over all subjects; `image` says their order
    truth = [(1, "1 3", 5, 2), (2, "1 3", 5, 1)]
    truth = write(tmp_path / "t.csv", truth, "img,pixels,subject,image")
    predicted = write(tmp_path / "p.csv", [(1, "1 3"), (2, "")])
    summary = score(predicted, truth, flags=["--by", "clip"])
    assert summary["frames_until_found"] == 1


def test_clips_without_subjects_are_one_line(files):
    with pytest.raises(ValueError, match=r"--by clip needs to know .*t\.csv has no column"):
        score(*files(TRUTH, TRUTH), flags=["--by", "clip"])


def test_frames_of_a_folder_are_clips_by_their_names(tmp_path):
    names = ("anna_2", "anna_10", "ben_00001", "00003")
    truth = paint(tmp_path / "truth", {name: column(0) for name in names})
    found = {name: column(0) for name in names} | {"anna_2": column(1)}
    predicted = paint(tmp_path / "masks", found)
    summary = score_folders(predicted, truth, "--by", "clip")
    rows = read_clips(tmp_path / "masks.clips.csv")
    assert {clip: row["frames"] for clip, row in rows.items()} == {
        "'-": "1",  # a name of a number alone; an apostrophe before what is no formula
        "anna": "2",
        "ben": "1",
    }
    assert rows["anna"]["frames_until_found"] == "1"  # 2 comes before 10
    # anna's 3 of 9 pixels are not enough, two of three clips are found
    assert summary["nerve_found"] == pytest.approx(2 / 3)
    flags = ("--by", "clip", "--overlap", "0.3", "--subject-pattern", "^.")
    assert score_folders(predicted, truth, *flags)["nerve_found"] == 1
    assert list(read_clips(tmp_path / "masks.clips.csv")) == ["0", "a", "b"]


def test_frames_in_folders_are_clips_of_these(tmp_path):
    for folder in ("truth", "masks"):
        (tmp_path / folder).mkdir()
        for name in ("anna", "ben"):
            paint(tmp_path / folder / name, {"7": column(0), "08": column(1)})
    summary = score_folders(tmp_path / "masks", tmp_path / "truth", "--by", "clip")
    assert (summary["frames"], summary["clips"], summary["nerve_found"]) == (4, 2, 1)
    rows = (tmp_path / "masks.scores.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[2:]} == {"anna/7", "ben/08", "ben/7"}
    assert list(read_clips(tmp_path / "masks.clips.csv")) == ["anna", "ben"]
    frames = {f"{clip}_0000{k}": column(k) for clip in "ab" for k in (1, 2)}
    for folder in ("truth", "masks"):  # several clips of a subject
        paint(tmp_path / folder / "cy", frames)
    summary = score_folders(tmp_path / "masks", tmp_path / "truth", "--by", "clip")
    assert (summary["frames"], summary["clips"], summary["subjects"]) == (8, 4, 3)
    rows = read_clips(tmp_path / "masks.clips.csv")
    assert list(rows) == ["anna", "ben", "cy/a", "cy/b"]


def test_clips_change_neither_the_frames_scores_nor_their_table(tmp_path):
    columns = "subject,img,pixels"
    truth = write(tmp_path / "t.csv", [(1, 1, "1 3"), (2, 1, "")], columns)
    predicted = write(tmp_path / "p.csv", [(1, 1, "1 2"), (2, 1, "1 1")], columns)
    plain, rows = score(predicted, truth), (tmp_path / "p.scores.csv").read_bytes()
    assert not (tmp_path / "p.clips.csv").exists()
    by_clip = score(predicted, truth, flags=["--by", "clip"])
    assert plain == {name: by_clip[name] for name in plain}
    assert (tmp_path / "p.scores.csv").read_bytes() == rows


# ---------------------------------------------------------------- several raters


def test_several_raters_are_compared_with_the_prediction_and_with_each_other(
    tmp_path, capsys
):
    # columns 1 and 2 are pixels 1 to 6. Frame 1: the prediction is column 1, as is anna;
    # ben has both: Dice 2 * 3 / 9. Frame 2: the prediction is empty, anna, too, ben not
    names = {"p": ("1 3", ""), "anna": ("1 3", ""), "ben": ("1 6", "1 3")}
    paths = [
        write(tmp_path / f"{name}.csv", list(enumerate(masks, 1)))
        for name, masks in names.items()
    ]
    evaluate.main([*map(str, paths), *SIZE])
    summary = json.loads((tmp_path / "p.scores.json").read_text())
    assert (summary["raters"], summary["frames_of_raters"]) == (["anna", "ben"], 2)
    assert (summary["dice_1"], summary["dice_2"]) == (1, pytest.approx(1 / 3))
    assert summary["dice_1_2"] == pytest.approx(1 / 3)
    assert summary["predicted_dice"] == pytest.approx(2 / 3)
    assert summary["difference"] == pytest.approx(1 / 3)
    # the majority of two is where both have nerve: column 1, and nothing
    assert summary["challenge_dice"] == summary["majority_dice"] == 1
    text = capsys.readouterr().out
    assert "Those are scores against the majority of 2 raters.\nDice with each" in text
    table = [line.split() for line in text.split("each rater:\n")[1].splitlines()[:3]]
    rows = [["anna", "ben"], ["predicted", "1.0000", "0.3333"], ["anna", "0.3333"]]
    assert table == rows
    assert "the network agrees with the raters more than they agree with each" in text
    row = (tmp_path / "p.scores.csv").read_text().splitlines()
    assert row[0].endswith(
        ",dice_1,dice_2,dice_1_2,predicted_dice,raters_dice,difference,majority_dice,"
        "staple_dice"
    )
    assert row[1].split(",")[7:10] == ["1", "0.666667", "0.666667"]


def test_frames_that_a_rater_lacks_are_left_out_and_said(tmp_path, capsys):
    full = [(k, "1 3") for k in range(1, 8)]
    predicted = write(tmp_path / "p.csv", full)
    anna, ben = (write(tmp_path / f"{n}.csv", full[k:]) for n, k in (("a", 6), ("b", 0)))
    evaluate.main([str(predicted), str(anna), str(ben), *SIZE])
    text = capsys.readouterr().out
    assert (
        f"note: {anna} lacks 6 of 7 frames, which are left out: 1, 2, 3, 4, 5, ...\n"
        in text
    )
    assert "1 frames of 3 x 4 pixels scored" in text
    other = write(tmp_path / "c.csv", [(9, "")])
    with pytest.raises(
        ValueError, match=r"no frame is in all of .*p\.csv, .*a\.csv, .*c\."
    ):
        evaluate.main([str(predicted), str(anna), str(other), *SIZE])


def test_folders_of_raters_lack_frames_alike_unless_these_show_no_nerve(tmp_path, capsys):
    masks = {name: column(0) for name in ("a_1", "a_2", "a_3")}
    predicted = paint(tmp_path / "found", masks)
    anna = paint(tmp_path / "anna", masks)
    ben = paint(tmp_path / "ben", {"a_3": column(0)})
    summary = score_folders(predicted, anna, str(ben))
    assert (summary["frames"], summary["raters"]) == (1, ["anna", "ben"])
    assert f"{ben} lacks 2 of 3 frames" in capsys.readouterr().out
    summary = score_folders(predicted, anna, str(ben), "--missing-empty", "--by", "clip")
    assert (summary["frames"], summary["raters_dice"]) == (3, pytest.approx(1 / 3))
    assert summary["clips"] == 1


def test_the_gain_is_required_over_the_raters_majority(tmp_path):
    # both raters see a nerve, the prediction finds it: a gain of 1 over nothing
    full, none = [(1, "1 3"), (2, "1 3")], [(1, ""), (2, "")]
    paths = [write(tmp_path / f"{n}.csv", full) for n in "pab"]
    flags = [*SIZE, "--require-gain", "0.9"]
    evaluate.main([*map(str, paths), *flags])
    # one of them does not: the majority of two is empty, and predicting nothing right
    paths[2] = write(tmp_path / "c.csv", none)
    with pytest.raises(ValueError, match=r"is -1\.0000 above predicting nothing"):
        evaluate.main([*map(str, paths), *flags])


def test_raters_who_see_no_nerve_are_said(tmp_path, capsys):
    paths = [write(tmp_path / f"{n}.csv", [(1, "")]) for n in "pab"]
    evaluate.main([*map(str, paths), *SIZE])
    text = capsys.readouterr().out
    assert "no rater shows a nerve in any frame" in text
    summary = json.loads((tmp_path / "p.scores.json").read_text())
    assert summary["frames_of_raters"] == 0


def test_without_simpleitk_all_but_staple_is_scored(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    paths = [write(tmp_path / f"{n}.csv", [(1, "1 3")]) for n in "pab"]
    evaluate.main([*map(str, paths), *SIZE])
    line = "STAPLE is left out; it needs: pip install -r requirements/raters.txt\n"
    assert line in capsys.readouterr().out
    summary = json.loads((tmp_path / "p.scores.json").read_text())
    assert summary["majority_dice"] == 1
    assert "staple_dice" not in summary


def test_subjects_come_from_any_rater(tmp_path):
    rows = [(1, "1 3"), (2, "")]
    predicted, anna = (write(tmp_path / f"{name}.csv", rows) for name in ("p", "anna"))
    known = [(1, "1 3", 4), (2, "", 5)]
    ben = write(tmp_path / "ben.csv", known, "img,pixels,subject")
    evaluate.main([*map(str, (predicted, anna, ben)), *SIZE])
    assert json.loads((tmp_path / "p.scores.json").read_text())["subjects"] == 2


# ---------------------------------------------------------------- what is written


def test_each_frame_gets_a_row_beside_the_predictions(tmp_path):
    predicted = [(3, ""), (1, "4 6"), (2, "1 1"), (4, ""), (5, "")]
    write(tmp_path / "sub.mission.csv", predicted)
    write(tmp_path / "t.csv", TRUTH)
    score(tmp_path / "sub.mission.csv", tmp_path / "t.csv")
    with open(tmp_path / "sub.mission.scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # columns 1, 2 against 2, 3 of a 3 x 4 frame. Outlines: all pixels, as each touches
    # the edge or the background; the farthest columns are 1 apart, so all distances 0, 1
    assert [row["img"] for row in rows] == ["3", "1", "2", "4", "5"]
    assert rows[0] == {
        "img": "3",
        "area": "3",
        "predicted_area": "0",
        "dice": "0",
        "iou": "0",
        "hausdorff_95": "",
        "centroid_distance": "",
    }
    assert rows[1] == {
        "img": "1",
        "area": "6",
        "predicted_area": "6",
        "dice": "0.5",
        "iou": "0.333333",
        "hausdorff_95": "1",
        "centroid_distance": "1",
    }
    assert (rows[2]["dice"], rows[3]["dice"]) == ("0", "1")
    names = {path.name for path in tmp_path.glob("[!.]*")}
    scored = {"sub.mission.scores.csv", "sub.mission.scores.json"}
    assert names == {"sub.mission.csv", "t.csv", *scored}


def test_subjects_are_columns_of_the_scores(tmp_path):
    rows = [(2, 1, "1 1"), (1, 5, "")]
    path = write(tmp_path / "p.csv", rows, "subject,img,pixels")
    score(path, path)
    lines = (tmp_path / "p.scores.csv").read_text().splitlines()
    assert lines[0].startswith("subject,img,area,")
    assert lines[1].startswith("2,1,1,1,1,1,")
    assert lines[2] == "1,5,0,0,1,1,,"


def test_areas_above_a_million_are_written_in_full(tmp_path):
    # 1024 x 1024 = 1,048,576; six digits would make it 1.04858e+06
    path = write(tmp_path / "p.csv", [(1, "1 1048576")])
    score(path, path, size=["--height", "1024", "--width", "1024"])
    row = (tmp_path / "p.scores.csv").read_text().splitlines()[1]
    assert row.startswith("1,1048576,1048576,1,1,")


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        predicted = [(img, "1 2") for img, _ in TRUTH]
        write(tmp_path / name / "p.csv", predicted)
        write(tmp_path / name / "t.csv", TRUTH)
        score(tmp_path / name / "p.csv", tmp_path / name / "t.csv")
    for name in ("p.scores.json", "p.scores.csv"):
        one, other = ((tmp_path / k / name).read_bytes() for k in ("a", "b"))
        assert one == other


def test_the_screen_shows_the_table_and_the_files(files, capsys):
    predicted, truth = files(TRUTH, TRUTH)
    score(predicted, truth)
    lines = capsys.readouterr().out.splitlines()
    table = dict(line.split(maxsplit=1) for line in lines[:-1])
    assert table["frames"] == "5"
    assert table["challenge_dice"] == "1.0000  (95 % interval 1.0000 to 1.0000)"
    assert table["predicting_nothing"] == "0.6000"
    assert table["subjects"] == "-"
    base = str(predicted).removesuffix(".csv")
    assert lines[-1] == (
        f"5 frames of 3 x 4 pixels scored: {base}.scores.json, {base}.scores.csv"
    )


def test_the_table_is_printed_even_where_no_file_can_be_written(files, capsys, monkeypatch):
    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(evaluate, "write_scores", full)
    with pytest.raises(OSError, match="no space"):
        score(*files(TRUTH, TRUTH))
    assert "challenge_dice" in capsys.readouterr().out


# ---------------------------------------------------------------- flags


@pytest.mark.parametrize("end", ["csv", "json"])
def test_scores_never_replace_the_truth(tmp_path, end):
    predicted = write(tmp_path / "p.csv", TRUTH)
    truth = write(tmp_path / f"p.scores.{end}", TRUTH)
    before = truth.read_bytes()
    with pytest.raises(ValueError, match=rf"p\.scores\.{end} is read here"):
        score(predicted, truth)
    assert truth.read_bytes() == before


def test_a_required_gain_over_predicting_nothing_is_checked(files):
    # 0.8 against the 0.6 of predicting nothing: one of two nerves found
    predicted = [(1, "1 6"), (2, ""), (3, ""), (4, ""), (5, "")]
    pair = files(predicted, TRUTH)
    assert score(*pair, flags=["--require-gain", "0.19"])["challenge_dice"] == 0.8
    with pytest.raises(
        ValueError, match=r"is 0\.2000 above predicting nothing; 0\.2100 was required"
    ):
        score(*pair, flags=["--require-gain", "0.21"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--height", "0"], "--height: 0; expected 1 to 10000"),
        (["--width", "10001"], "--width: 10001; expected 1 to 10000"),
        (["--width", "x"], "--width: x; expected 1 to 10000"),
    ],
)
def test_flags_out_of_range_end_with_status_2(flags, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate.parse_args(["p.csv", "t.csv", *flags])
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_mistake_on_the_shell_is_one_line_and_status_1(tmp_path):
    write(tmp_path / "p.csv", [(1, "1")])
    write(tmp_path / "t.csv", [(1, "")])
    found = run_script("evaluate.py", "p.csv", "t.csv", cwd=tmp_path)
    message = "p.csv line 2, frame 1: pixels hold 1 numbers; expected pairs"
    assert found == (1, "", f"evaluate.py: {message}\n")


def test_two_evaluations_at_once_do_not_write_one_table(files):
    predicted, truth = files(TRUTH, TRUTH)
    with (
        atomic.lock(predicted.parent, predicted.stem),
        pytest.raises(ValueError, match="another run is writing .*p "),
    ):
        score(predicted, truth)
    assert not predicted.with_suffix(".scores.json").exists()
