"""run_length.py: the challenge's encoding, by hand, by a slow reference, on its data."""

import csv

import numpy as np
import pytest
from conftest import ROOT, slow_decode, slow_encode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nerve.files import run_length

TRAIN_MASKS = ROOT.parent / "shared" / "data" / "train_masks.csv"

masks = arrays.arrays(
    np.uint8,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([0, 1]),
)


# ---------------------------------------------------------------- by hand

# Pixels are numbered down the columns:   1 4 7 10      . . X .
#                                         2 5 8 11      X . . X
#                                         3 6 9 12      X X . .
HAND = np.array([[0, 0, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0]], np.uint8)
# nerve: 2 3 | 6 7 (the end of column 2 and the start of column 3) | 11
HAND_RUNS = "2 2 6 2 11 1"


def test_the_3_by_4_mask_encodes_down_its_columns():
    assert run_length.encode(HAND) == HAND_RUNS


def test_the_3_by_4_mask_decodes_down_its_columns():
    mask = run_length.decode(HAND_RUNS, 3, 4)
    assert mask.tolist() == HAND.tolist()
    assert mask.dtype == np.uint8
    assert mask.flags.c_contiguous


def test_rows_and_columns_are_not_swapped():
    # the first row of 2 x 3: pixels 1, 3, 5; its first column: pixels 1, 2
    assert run_length.encode(np.array([[1, 1, 1], [0, 0, 0]])) == "1 1 3 1 5 1"
    assert run_length.encode(np.array([[1, 0, 0], [1, 0, 0]])) == "1 2"


def test_an_empty_mask_is_an_empty_field():
    assert run_length.encode(np.zeros((3, 4), np.uint8)) == ""
    assert not run_length.decode("", 3, 4).any()
    assert not run_length.decode("  \t", 3, 4).any()
    assert run_length.parse("", 12).shape == (0, 2)


def test_a_full_mask_is_one_run():
    assert run_length.encode(np.ones((3, 4), np.uint8)) == "1 12"
    assert run_length.decode("1 12", 3, 4).all()


def test_a_run_goes_on_in_the_next_column():
    # rows 2 and 3 of column 1, all of column 2, row 1 of column 3: pixels 2 to 7
    mask = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    assert run_length.encode(mask) == "2 6"


def test_the_corner_pixels_are_the_first_and_the_last():
    mask = np.zeros((420, 580), bool)
    mask[0, 0] = mask[-1, -1] = True
    assert run_length.encode(mask) == "1 1 243600 1"  # 420 x 580 = 243,600
    assert run_length.decode("1 1 243600 1").sum() == 2


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_every_value_but_0_is_nerve(dtype):
    mask = (HAND * 255).astype(dtype)
    assert run_length.encode(mask) == HAND_RUNS


def test_parse_counts_starts_from_0():
    runs = run_length.parse(HAND_RUNS, 12)
    assert runs.tolist() == [[1, 2], [5, 2], [10, 1]]
    assert run_length.run_pixels(runs).tolist() == [1, 2, 5, 6, 10]


def test_no_runs_cover_no_pixels():
    assert run_length.run_pixels(run_length.parse("", 12)).tolist() == []


def test_touching_runs_are_accepted():
    # 2 3 | 4 5: the second starts right behind the first
    assert run_length.decode("2 2 4 2", 3, 4).sum() == 4


# ---------------------------------------------------------------- a slow reference


@settings(derandomize=True, deadline=None, max_examples=80)
@given(masks)
def test_encoding_equals_the_pixel_by_pixel_one(mask):
    assert run_length.encode(mask) == slow_encode(mask)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(masks)
def test_decoding_equals_the_pixel_by_pixel_one(mask):
    pixels = slow_encode(mask)
    decoded = run_length.decode(pixels, *mask.shape)
    assert decoded.tolist() == slow_decode(pixels, *mask.shape).tolist()
    assert decoded.tolist() == mask.tolist()


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 5)), max_size=4))
def test_exactly_the_runs_that_can_be_painted_in_order_are_accepted(runs):
    painted, valid = [], True
    for start, length in runs:
        valid &= length > 0
        painted += range(start, start + length)
    valid &= painted == sorted(set(painted))
    valid &= all(1 <= number <= 12 for number in painted)
    text = " ".join(f"{start} {length}" for start, length in runs)
    if valid:
        covered = run_length.run_pixels(run_length.parse(text, 12))
        assert covered.tolist() == [number - 1 for number in painted]
    else:
        with pytest.raises(ValueError, match=r"^(a run|runs) "):
            run_length.parse(text, 12)


@pytest.mark.skipif(not TRAIN_MASKS.exists(), reason="the challenge's data is not here")
def test_every_mask_of_the_challenge_round_trips_to_the_same_text():
    with open(TRAIN_MASKS, newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) > 4000
    for subject, image, pixels in rows:
        mask = run_length.decode(pixels)
        lengths = map(int, pixels.split()[1::2])
        assert np.count_nonzero(mask) == sum(lengths)
        assert run_length.encode(mask) == pixels, (subject, image)


# ---------------------------------------------------------------- malformed fields


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("1", "pixels hold 1 numbers; expected pairs"),
        ("1 2 3", "pixels hold 3 numbers; expected pairs"),
        ("a b", "pixels hold 'a b'; expected 'start length start length ...'"),
        ("1 2x", "pixels hold '1 2x'; expected"),
        ("1,2", "pixels hold '1,2'; expected"),
        ("1  2", "pixels hold '1  2'; expected"),
        ("1\t2", r"pixels hold '1\\t2'; expected"),
        ("1.0 2", "pixels hold '1.0 2'; expected"),
        ("-1 2", "pixels hold '-1 2'; expected"),
        ("+1 2", r"pixels hold '\+1 2'; expected"),
        ("1_0 2", "pixels hold '1_0 2'; expected"),
        ("[1 2]", r"pixels hold '\[1 2\]'; expected"),
        ("١ ٢", "pixels hold '١ ٢'; expected"),  # int() would take Arabic digits
        ("１ ２", "pixels hold '１ ２'; expected"),  # and full-width ones
        ("nan", "pixels hold 'nan'; expected"),
        ("9999999999 1", "pixels hold '9999999999 1'; expected"),
        ("1 " + "9" * 5000, "pixels hold '1 9999.*'; expected"),
        ("0 3", "a run starts before pixel 1 or is shorter than 1"),
        ("3 0", "a run starts before pixel 1 or is shorter than 1"),
        ("1 2 0 0", "a run starts before pixel 1 or is shorter than 1"),
        ("12 2", "a run ends at pixel 13 of 12"),  # 12 and 13
        ("1 13", "a run ends at pixel 13 of 12"),
        ("13 1", "a run ends at pixel 13 of 12"),
        ("999999999 999999999", "a run ends at pixel 1999999997 of 12"),
        ("5 2 1 2", "runs are out of order: 5 2, then 1"),
        ("1 1 9 1 5 1", "runs are out of order: 9 1, then 5"),
        ("1 3 3 2", "runs are overlapping: 1 3, then 3"),  # both cover 3
        ("4 1 4 1", "runs are overlapping: 4 1, then 4"),
    ],
    ids=lambda text: text[:20],
)
def test_a_malformed_field_is_refused(pixels, expected):
    with pytest.raises(ValueError, match=f"^{expected}"):
        run_length.parse(pixels, 12)
    with pytest.raises(ValueError, match=f"^{expected}"):
        run_length.decode(pixels, 3, 4)


def test_a_run_may_end_at_the_last_pixel():
    assert run_length.parse("12 1", 12).tolist() == [[11, 1]]


# ---------------------------------------------------------------- CSV files


def write(tmp_path, content):
    path = tmp_path / "train_masks.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_table_is_read_by_subject_and_image(tmp_path):
    path = write(tmp_path, "subject,img,pixels\n1,10,2 2\n10,1,\n")
    table = run_length.read_train_masks(path)
    assert table == {(1, 10): "2 2", (10, 1): ""}


@pytest.mark.parametrize(
    "content",
    [
        "pixels,img,subject\n2 2,10,1\n",  # another order
        "subject,img,pixels,extra\n1,10,2 2,x\n",  # one more column
        "\ufeffsubject,img,pixels\r\n1,10,2 2\r\n",  # as a spreadsheet saves it
        '"subject","img","pixels"\n"1","10","2 2"\n',
        "subject,img,pixels\n\n1,10,2 2",  # a blank line, no last line feed
    ],
    ids=["order", "extra", "bom-crlf", "quoted", "blank"],
)
def test_tables_of_the_same_content_are_read_alike(tmp_path, content):
    assert run_length.read_train_masks(write(tmp_path, content)) == {(1, 10): "2 2"}


def test_a_mask_of_very_many_runs_is_read(tmp_path):
    # every other pixel of a 420 x 580 frame, 121,800 runs: 1,028,349 characters and
    # more than the csv module's own limit of 131,072
    pixels = " ".join(f"{number} 1" for number in range(1, 243601, 2))
    assert len(pixels) > 131_072
    path = write(tmp_path, f"subject,img,pixels\n1,1,{pixels}\n")
    assert run_length.read_train_masks(path)[1, 1] == pixels


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "has no column 'subject'; its first line should name subject,img,pixels"),
        ("subject,image,pixels\n", "has no column 'img'; its first line should name"),
        ("1,1,2 2\n", "has no column 'subject'; "),
        ("subject,img,img,pixels\n1,1,2,\n", "has 2 column 'img'; its first line should"),
        ("subject,img,pixels\n1,1,\n1,2\n", "line 3: expected 3 fields"),
        ("subject,img,pixels\n1,1,,\n", "line 2: expected 3 fields"),
        ("subject,img,pixels\n1,1,\nx,2,\n", "line 3: 'x' is not a whole number"),
        ("subject,img,pixels\n1,,\n", "line 2: '' is not a whole number"),
        ("subject,img,pixels\n1,-2,\n", "line 2: '-2' is not a whole number"),
        ("subject,img,pixels\n1,2.0,\n", "line 2: '2.0' is not a whole number"),
        ("subject,img,pixels\n٣,2,\n", "line 2: '٣' is not a whole number"),
        ("subject,img,pixels\n1,1234567890,\n", "line 2: '1234567890' is not a whole"),
        (
            "subject,img,pixels\n12,7,\n1,1,\n12,07,1 1\n",
            "line 4: frame 12_7 is listed twice",
        ),
        (
            b"subject,img,pixels\n1,1,\xff\xfe\n",
            "is not a CSV text file: 'utf-8' codec",
        ),
        (b"II*\x00\xff\xd8\x00\x01", "is not a CSV text file: 'utf-8' codec"),
        ('subject,img,pixels\n1,1,"2 2\n', "is not a CSV text file: unexpected end"),
        ('subject,img,pixels\n1,1,"2"2\n', "is not a CSV text file: "),
    ],
    ids=[
        "empty",
        "column",
        "no-header",
        "column-twice",
        "short-row",
        "long-row",
        "letter",
        "no-number",
        "negative",
        "decimal",
        "arabic",
        "huge",
        "twice",
        "not-utf8",
        "tiff",
        "open-quote",
        "inner-quote",
    ],
)
def test_a_malformed_table_is_refused_with_its_line(tmp_path, content, expected):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=rf"^{path} {expected}"):
        run_length.read_train_masks(path)


def test_the_line_of_a_row_counts_line_feeds_in_quotes(tmp_path):
    # the first row fills lines 2 and 3, so that the bad one is on line 4
    path = write(tmp_path, 'subject,img,pixels\n1,1,"1 1\n"\nx,2,\n')
    with pytest.raises(ValueError, match="line 4: 'x' is not a whole number"):
        run_length.read_train_masks(path)


@pytest.mark.parametrize("text", ["1", "007", "999999999"])
def test_plain_digits_are_a_whole_number(text):
    assert run_length.whole_number(text, "here") == int(text)


def test_zero_is_not_a_positive_number(tmp_path):
    # the challenge counts subjects and images from 1
    with pytest.raises(ValueError, match="here: '0' is not a whole number"):
        run_length.whole_number("0", "here")
