"""extract_data.py: exact arrays in numeric order; every bad input refused by name."""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, make_raw, run_script, slow_encode, write_tiff
from PIL import Image

import extract_data
from nerve.frames import challenge

OUTPUTS = ["extract.json", "imgs_mask_train.npy", "imgs_test.npy", "imgs_train.npy"]


@pytest.fixture
def folder(raw, tmp_path):
    """A copy of the challenge folder that a test may damage."""
    return shutil.copytree(raw, tmp_path / "raw")


def extract(folder, *flags):
    """Run the script on a folder; return where it wrote."""
    data = folder.parent / "data"
    extract_data.main(["--raw", str(folder), "--data", str(data), *map(str, flags)])
    return data


def refuse(folder, expected, *flags):
    """Check that a folder is refused with a message, and that nothing is left behind."""
    data = folder.parent / "data"
    before = read_folder(data)
    with pytest.raises(ValueError, match=expected) as error:
        extract(folder, *flags)
    assert "\n" not in str(error.value)
    assert read_folder(data) == before


def read_folder(folder):
    """Return `{name: content}` of a folder but for its lock, `{}` where it is absent."""
    if not folder.exists():
        return {}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def read_record(data):
    return json.loads((data / "extract.json").read_text())


def patch_tag(path, tag, value):
    """Overwrite one entry of a TIFF's directory with a 32-bit number."""
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, place) == (tag,):
            struct.pack_into("<HHII", content, place, tag, 4, 1, value)
            path.write_bytes(content)
            return
    raise AssertionError(f"no tag {tag}")


# ---------------------------------------------------------------- what is written


def test_the_arrays_hold_the_files_pixels_in_numeric_order(tmp_path):
    # as text, subject 10 comes before 2, image 10 before 2, and test frame 10 before 2
    folder = make_raw(tmp_path / "raw", subjects=(10, 2), frames=11, test=11)
    data = extract(folder)
    record = read_record(data)
    expected = [(subject, image) for subject in (2, 10) for image in range(1, 12)]
    train = record["train"]
    assert list(zip(train["subject"], train["image"], strict=True)) == expected
    assert record["test"]["image"] == list(range(1, 12))
    arrays = {name: np.load(data / name) for name in OUTPUTS[1:]}
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.uint8)}
    assert arrays["imgs_train.npy"].shape == (22, 64, 80)
    for row, (subject, image) in enumerate(expected):
        name = f"{subject}_{image}"
        frame = np.array(Image.open(folder / "train" / f"{name}.tif"))
        mask = np.array(Image.open(folder / "train" / f"{name}_mask.tif"))
        assert np.array_equal(arrays["imgs_train.npy"][row], frame)
        assert np.array_equal(arrays["imgs_mask_train.npy"][row], mask)
        assert train["area"][row] == (mask == 255).sum()
    assert set(np.unique(arrays["imgs_mask_train.npy"]).tolist()) == {0, 255}
    for row in range(11):
        frame = np.array(Image.open(folder / "test" / f"{row + 1}.tif"))
        assert np.array_equal(arrays["imgs_test.npy"][row], frame)


def test_the_record_holds_sizes_and_the_files_hashes(folder, capsys):
    data = extract(folder)
    record = read_record(data)
    assert (record["height"], record["width"]) == (64, 80)
    names = ["arrays", "crops", "height", "subjects_known", "test", "train", "width"]
    assert sorted(record) == names
    rows = {"imgs_train.npy": 12, "imgs_mask_train.npy": 12, "imgs_test.npy": 3}
    assert record["arrays"] == {
        name: {
            "dtype": "uint8",
            "shape": [count, 64, 80],
            "sha256": hashlib.sha256((data / name).read_bytes()).hexdigest(),
        }
        for name, count in rows.items()
    }
    assert record["train"]["skipped"] == record["test"]["skipped"] == []
    # 2 of every 5 frames are empty, the 3rd and the 5th: 3, 5, 8 and 10 of 12
    assert capsys.readouterr().out == (
        "12 training frames of 3 subjects (8 with a nerve), 3 test frames, "
        f"64 x 80 pixels: {data}/\n"
    )


def test_only_the_four_outputs_and_the_lock_are_left(folder):
    data = extract(folder)
    assert sorted(path.name for path in data.iterdir()) == [".lock", *OUTPUTS]


def test_the_same_input_gives_the_same_bytes(folder, tmp_path):
    first = read_folder(extract(folder))
    (tmp_path / "elsewhere").mkdir()
    again = shutil.copytree(folder, tmp_path / "elsewhere" / "other_name")
    assert read_folder(extract(again)) == first


def test_train_alone_is_extracted(folder, capsys):
    shutil.rmtree(folder / "test")
    data = extract(folder)
    assert sorted(read_folder(data)) == [n for n in OUTPUTS if "test" not in n]
    assert "test" not in read_record(data)
    assert "test frames" not in capsys.readouterr().out


def test_test_alone_is_extracted(folder, capsys):
    shutil.rmtree(folder / "train")
    (folder / "train_masks.csv").unlink()
    data = extract(folder)
    assert sorted(read_folder(data)) == ["extract.json", "imgs_test.npy"]
    assert "train" not in read_record(data)
    assert capsys.readouterr().out == f"3 test frames, 64 x 80 pixels: {data}/\n"


def test_arrays_of_an_earlier_run_with_more_folders_are_removed(folder):
    data = extract(folder)
    assert (data / "imgs_test.npy").exists()
    shutil.rmtree(folder / "test")
    extract(folder)
    assert sorted(read_folder(data)) == [n for n in OUTPUTS if "test" not in n]


def test_a_folder_without_the_table_is_extracted(folder):
    (folder / "train_masks.csv").unlink()
    assert len(read_record(extract(folder))["train"]["image"]) == 12


def test_hidden_files_are_passed_over(folder):
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "._1_1.tif").write_bytes(b"x")
    assert len(read_record(extract(folder))["train"]["image"]) == 12


def test_the_script_runs_bare_from_the_shell(folder, tmp_path):
    status, out, err = run_script("extract_data.py", cwd=tmp_path)
    assert (status, err) == (0, "")
    assert out.endswith("3 test frames, 64 x 80 pixels: data/\n")
    assert sorted(read_folder(tmp_path / "data")) == OUTPUTS


def test_a_damaged_frame_is_one_line_and_status_1(folder, tmp_path):
    path = folder / "train" / "2_1.tif"
    path.write_bytes(path.read_bytes()[:2000])
    status, out, err = run_script("extract_data.py", cwd=tmp_path)
    assert (status, out) == (1, "")
    assert re.fullmatch(
        r"extract_data\.py: raw/train/2_1\.tif is not a whole TIFF \(.*\) "
        r"\(--skip-bad leaves such frames out\)\n",
        err,
    )


# ---------------------------------------------------------------- the folder


def test_a_wrong_path_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=f"{tmp_path}/raw/ holds neither train/ nor test/; unpack",
    ):
        extract(tmp_path / "raw")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["train", "test"])
def test_an_empty_folder_is_refused(folder, name):
    shutil.rmtree(folder / name)
    (folder / name).mkdir()
    (folder / "train_masks.csv").unlink()
    refuse(folder, f"raw/{name} holds no .*; unpack")


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("train/1_1.png", "12_7.tif and 12_7_mask.tif"),
        ("train/1_1.TIF", "12_7.tif and 12_7_mask.tif"),
        ("train/1_1_mask.tif.part", "12_7.tif and 12_7_mask.tif"),
        ("train/1_5 (1).tif", "12_7.tif and 12_7_mask.tif"),
        ("train/1.tif", "12_7.tif and 12_7_mask.tif"),
        ("train/01_1.tif", "12_7.tif and 12_7_mask.tif"),  # would be frame 1_1 again
        ("train/0_1.tif", "12_7.tif and 12_7_mask.tif"),
        ("train/1_1234567890.tif", "12_7.tif and 12_7_mask.tif"),
        ("train/1٣_1.tif", "12_7.tif and 12_7_mask.tif"),
        ("train/line\n1_1.tif", "12_7.tif and 12_7_mask.tif"),
        ("test/1_1.tif", "12.tif"),
        ("test/1_mask.tif", "12.tif"),
        ("test/Thumbs.db", "12.tif"),
    ],
)
def test_a_name_of_another_form_is_refused(folder, name, example):
    name = os.fsdecode(name.encode())  # in any locale
    shutil.copy(folder / "test" / "1.tif", folder / name)
    part, file = name.split("/")
    refuse(folder, re.escape(f"raw/{part} holds {file!r}; ") + f".*such as {example}$")


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    path = folder / "train" / "1_1.tif"
    path.rename(tmp_path / "outside.tif")
    path.symlink_to(tmp_path / "outside.tif")
    refuse(folder, r"1_1\.tif is a link out of .*raw/train; put the file itself there")


def test_a_link_within_the_folder_is_followed(folder):
    path = folder / "test" / "3.tif"
    path.unlink()
    path.symlink_to("1.tif")
    frames = np.load(extract(folder) / "imgs_test.npy")
    assert np.array_equal(frames[2], frames[0])


def test_a_folder_named_like_a_frame_is_refused(folder):
    (folder / "train" / "9_1.tif").mkdir()
    refuse(folder, r"train/9_1\.tif is not a file")


def test_a_file_in_the_place_of_the_data_folder_is_named(folder):
    (folder.parent / "data").write_text("")
    with pytest.raises(ValueError, match="data is a file or lies below one; a folder"):
        extract(folder)


# ---------------------------------------------------------------- frames and masks


@pytest.mark.parametrize("name", ["2_3.tif", "2_3_mask.tif"])
@pytest.mark.parametrize("table", [True, False])
def test_half_a_pair_is_refused(folder, name, table):
    (folder / "train" / name).unlink()
    if not table:
        (folder / "train_masks.csv").unlink()
    refuse(folder, rf"train/{name} is missing; unpack the download again \(--skip-bad")


@pytest.mark.parametrize("name", ["train/2_3.tif", "train/2_3_mask.tif", "test/2.tif"])
def test_another_size_is_refused(folder, name):
    write_tiff(folder / name, np.zeros((80, 64), np.uint8))  # rows and columns swapped
    refuse(
        folder,
        f"{name} is 80 x 64 pixels, other frames 64 x 80; all must be of one size",
    )


# Made by Pillow from an array or converted; the mode is what Pillow names it on opening.
KINDS = {
    "I;16": lambda: Image.fromarray(np.full((64, 80), 300, np.uint16)),
    "RGB": lambda: Image.new("RGB", (80, 64)),
    "RGBA": lambda: Image.new("RGBA", (80, 64)),
    "LA": lambda: Image.new("LA", (80, 64)),
    "P": lambda: Image.new("L", (80, 64)).convert("P"),
    "1": lambda: Image.new("1", (80, 64)),
    "F": lambda: Image.new("F", (80, 64)),
}


@pytest.mark.parametrize(
    ("mode", "name"),
    [(mode, "train/2_3.tif") for mode in KINDS]
    + [
        ("RGB", "train/2_3_mask.tif"),
        ("P", "train/2_3_mask.tif"),
        ("I;16", "test/2.tif"),
    ],
)
def test_a_frame_that_is_not_8_bit_grey_is_refused(folder, mode, name):
    KINDS[mode]().save(folder / name)
    refuse(folder, f"{name} is of Pillow's mode {mode}; expected 8-bit grey \\(L\\)")


def test_a_folder_of_colour_frames_is_refused_with_the_reason(folder):
    for path in (folder / "train").iterdir():
        Image.new("RGB", (80, 64)).save(path)
    refuse(folder, "is of Pillow's mode RGB; expected 8-bit grey")


def test_two_pages_are_refused(folder):
    page = Image.new("L", (80, 64))
    page.save(folder / "test" / "2.tif", save_all=True, append_images=[page])
    refuse(folder, r"test/2\.tif has 2 pages; expected one")


def test_another_format_under_the_name_of_a_tiff_is_refused(folder):
    Image.new("L", (80, 64)).save(folder / "test" / "2.tif", format="PNG")
    refuse(folder, r"test/2\.tif is not a whole TIFF")


def test_an_empty_file_is_refused(folder):
    (folder / "test" / "2.tif").write_bytes(b"")
    refuse(folder, r"test/2\.tif is empty \(0 bytes\); download it again")


@pytest.mark.parametrize(
    ("name", "share"),
    [("train/1_1.tif", share) for share in (0.001, 0.01, 0.1, 0.5, 0.97)]
    + [("train/3_4_mask.tif", 0.5), ("test/3.tif", 0.5)],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_truncated_tiff_is_refused(folder, name, share):
    path = folder / name
    os.truncate(path, int(path.stat().st_size * share) or 1)
    refuse(folder, rf"{name} is not a whole TIFF \(.*\(--skip-bad")


@pytest.mark.filterwarnings("ignore")
def test_a_tiff_cut_at_any_byte_is_refused_by_name(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8)
    path = tmp_path / "1.tif"
    write_tiff(path, array)
    content = path.read_bytes()
    for size in range(1, len(content) - 4):  # the last 4 bytes only say "no more pages"
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"^{path} "):
            challenge.read_tiff(path)
    path.write_bytes(content)
    assert np.array_equal(challenge.read_tiff(path), array)


@pytest.mark.parametrize("tag", [279, 273])  # bytes of the strip; where it starts
def test_pixel_data_cut_short_behind_a_whole_header_is_refused(folder, tag):
    path = folder / "test" / "2.tif"
    patch_tag(path, tag, path.stat().st_size - 500 if tag == 273 else 500)
    refuse(folder, r"test/2\.tif is not a whole TIFF \(decoder error")


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_header_is_refused_by_name_or_read(folder):
    # every byte of the directory, three values each: no other error may come out
    path = folder / "test" / "2.tif"
    content = path.read_bytes()
    (start,) = struct.unpack_from("<I", content, 4)
    refused = 0
    for place in [*range(8), *range(start, len(content))]:
        for value in (0, 16, 255):
            damaged = bytearray(content)
            damaged[place] = value
            path.write_bytes(damaged)
            found = extract_data.attempt(challenge.read_tiff, path)
            if isinstance(found, ValueError):
                assert str(found).startswith(f"{path} "), (place - start, value)
                refused += 1
    assert refused > 100


def test_a_width_that_is_no_number_is_refused_by_name(folder):
    path = folder / "test" / "2.tif"
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    assert struct.unpack_from("<H", content, start + 2) == (256,)  # ImageWidth
    struct.pack_into("<H", content, start + 4, 5)  # of type RATIONAL
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path} is not a whole TIFF"):
        challenge.read_tiff(path)


# 10^10 pixels are stopped by Pillow's limit of 1.8 x 10^8, 8.1 x 10^7 by our own
@pytest.mark.parametrize("side", [100_000, 9_000])
def test_a_header_that_claims_huge_sizes_takes_no_memory(folder, side):
    path = folder / "test" / "2.tif"
    patch_tag(path, 256, side)
    patch_tag(path, 257, side)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from nerve.frames import challenge\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: challenge.read_tiff(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    message, growth = result.stdout.splitlines()
    assert f"test/2.tif claims to be {side} x {side} pixels" in message
    assert int(growth) < 20_000  # KiB; the smaller frame would take 81,000


def test_a_mask_with_greys_is_refused_with_its_values(folder):
    mask = np.zeros((64, 80), np.uint8)
    mask[3, 4], mask[5, 6] = 255, 128
    write_tiff(folder / "train" / "2_3_mask.tif", mask)
    refuse(
        folder,
        r"train/2_3_mask\.tif holds the values 0, 128, 255; a mask holds only 0 and 255",
    )


def test_a_mask_of_0_and_1_is_refused(folder):
    mask = np.zeros((64, 80), np.uint8)
    mask[3, 4] = 1
    write_tiff(folder / "train" / "2_3_mask.tif", mask)
    refuse(folder, r"2_3_mask\.tif holds the values 0, 1; a mask holds only 0 and 255")


# ---------------------------------------------------------------- train_masks.csv


def edit_table(folder, change):
    """Pass the rows of train_masks.csv, without its header, through a function."""
    path = folder / "train_masks.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *change(rows)]) + "\n")


def test_a_mask_that_differs_from_its_row_is_refused(folder):
    path = folder / "train" / "1_1_mask.tif"
    mask = np.array(Image.open(path))
    area = np.count_nonzero(mask)
    mask[0, 0] = 255
    write_tiff(path, mask)
    refuse(
        folder,
        rf"1_1_mask\.tif \({area + 1} pixels of nerve\) differs from its row of "
        rf"train_masks\.csv \({area}\); download both again",
    )


def test_a_mask_of_the_same_area_elsewhere_is_refused(folder):
    path = folder / "train" / "1_1_mask.tif"
    mask = np.array(Image.open(path))
    moved = np.roll(mask, 1, axis=0)
    assert mask.any()
    assert np.count_nonzero(moved) == np.count_nonzero(mask)
    write_tiff(path, moved)
    refuse(folder, r"1_1_mask\.tif .* differs from its row of train_masks\.csv")


def test_a_table_read_along_the_rows_is_refused(folder):
    mask = np.array(Image.open(folder / "train" / "1_1_mask.tif"))
    by_rows = slow_encode(mask.T)  # row-major: as if the frame were turned
    edit_table(folder, lambda rows: [f"1,1,{by_rows}", *rows[1:]])
    refuse(folder, r"1_1_mask\.tif .* differs from its row of train_masks\.csv")


def test_a_malformed_row_is_refused_with_its_frame(folder):
    edit_table(folder, lambda rows: ["1,1,5 2 1 2", *rows[1:]])
    refuse(folder, r"train_masks\.csv, row of 1_1_mask\.tif: runs are out of order: 5 2")
    edit_table(folder, lambda rows: ["1,1,5120 2", *rows[1:]])  # 64 x 80 = 5,120
    refuse(folder, r"row of 1_1_mask\.tif: a run ends at pixel 5121 of 5120")


def test_a_frame_without_a_row_is_refused(folder):
    edit_table(folder, lambda rows: [r for r in rows if not r.startswith("2,3,")])
    refuse(folder, "train_masks.csv has no row for 2,3")


def test_a_row_without_a_frame_is_refused(folder):
    edit_table(folder, lambda rows: [*rows, "3,5,"])
    refuse(folder, r"train/3_5_mask\.tif is missing; unpack the download again")


def test_a_malformed_table_is_refused_with_its_line(folder):
    edit_table(folder, lambda rows: [*rows, "3,4,"])
    refuse(folder, r"raw/train_masks\.csv line 14: frame 3_4 is listed twice")


# ---------------------------------------------------------------- failures


def test_bad_input_leaves_the_previous_outputs(folder):
    before = read_folder(extract(folder))
    assert sorted(before) == OUTPUTS
    (folder / "test" / "3.tif").write_bytes(b"")  # the very last frame read
    refuse(folder, r"test/3\.tif is empty")
    assert read_folder(folder.parent / "data") == before
    assert not list((folder.parent / "data").glob(".nerve~*"))


def damage_five(folder):
    """Make five bad frames; return their names and what is said of each."""
    (folder / "train" / "1_1.tif").write_bytes(b"")
    write_tiff(folder / "train" / "1_2_mask.tif", np.full((64, 80), 7, np.uint8))
    (folder / "train" / "2_1.tif").unlink()
    (folder / "train" / "3_4_mask.tif").write_bytes(b"no TIFF at all")
    write_tiff(folder / "test" / "2.tif", np.zeros((63, 80), np.uint8))
    return {
        "1_1": "is empty (0 bytes)",
        "1_2": "holds the values 7;",
        "2_1": "is missing",
        "3_4": "is not a whole TIFF",
        "2": "is 63 x 80 pixels, other frames 64 x 80",
    }


def test_skip_bad_leaves_bad_frames_out_and_lists_each(folder, capsys):
    bad = damage_five(folder)
    data = extract(folder, "--skip-bad")
    record = read_record(data)
    skipped = record["train"]["skipped"] + record["test"]["skipped"]
    assert [entry["frame"] for entry in skipped] == list(bad)
    for entry in skipped:
        assert bad[entry["frame"]] in entry["why"]
    kept = list(zip(record["train"]["subject"], record["train"]["image"], strict=True))
    everything = [(s, i) for s in (1, 2, 3) for i in (1, 2, 3, 4)]
    assert kept == [f for f in everything if f"{f[0]}_{f[1]}" not in bad]
    assert record["test"]["image"] == [1, 3]
    frames = np.load(data / "imgs_train.npy")
    masks = np.load(data / "imgs_mask_train.npy")
    assert len(frames) == len(masks) == len(record["train"]["area"]) == 8
    for row, (subject, image) in enumerate(kept):
        path = folder / "train" / f"{subject}_{image}.tif"
        assert np.array_equal(frames[row], np.array(Image.open(path)))
        assert record["train"]["area"][row] == np.count_nonzero(masks[row])
    for name, entry in record["arrays"].items():
        assert entry["sha256"] == hashlib.sha256((data / name).read_bytes()).hexdigest()
    out = capsys.readouterr().out
    assert "8 training frames of 3 subjects" in out
    assert f"5 bad frames left out; {data}/extract.json says which and why\n" in out


def test_the_list_of_bad_frames_holds_no_path_and_no_memory_address(folder, tmp_path):
    # extract.json is the same wherever the folder lies and in each run
    damage_five(folder)
    (tmp_path / "elsewhere").mkdir()
    again = shutil.copytree(folder, tmp_path / "elsewhere" / "other_name")
    first = read_record(extract(folder, "--skip-bad"))
    assert read_record(extract(again, "--skip-bad")) == first
    assert str(tmp_path) not in json.dumps(first)
    assert "0x" not in json.dumps(first)


def test_skip_bad_does_not_pass_over_strange_files(folder):
    (folder / "train" / "notes.txt").write_text("x")
    refuse(folder, r"raw/train holds 'notes\.txt'; expected only names", "--skip-bad")


def test_a_folder_with_no_good_pair_is_refused_even_with_skip_bad(folder):
    for path in (folder / "train").glob("*_mask.tif"):
        path.write_bytes(b"")
    refuse(folder, "raw/train.* no good frame", "--skip-bad")


def test_the_size_is_the_one_that_most_frames_have(folder):
    # the first frame in the list is of another size, and it alone is reported
    write_tiff(folder / "train" / "1_1.tif", np.zeros((50, 50), np.uint8))
    refuse(folder, r"train/1_1\.tif is 50 x 50 pixels, other frames 64 x 80")
