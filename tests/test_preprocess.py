"""preprocess.py: resized and scaled as documented; no subject on both sides."""

import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import make_raw, run_script, write_tiff

import extract_data
import preprocess
from nerve.files.arrays import read_array
from nerve.frames import challenge, geometry, split
from nerve.records import read_split

ARRAYS = ("x_train.npy", "y_train.npy", "x_val.npy", "y_val.npy")
SUBJECTS, FRAMES = 6, 5


def extract(raw, data):
    extract_data.main(["--raw", str(raw), "--data", str(data)])
    return data


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Extracted frames of 6 subjects with 5 frames each; copied before use."""
    folder = tmp_path_factory.mktemp("extracted")
    raw = make_raw(folder / "raw", subjects=SUBJECTS, frames=FRAMES)
    return extract(raw, folder / "data")


@pytest.fixture
def data(extracted, tmp_path):
    return shutil.copytree(extracted, tmp_path / "data")


def run(data, *flags):
    """Run the script; return its record."""
    preprocess.main(["--data", str(data), *map(str, flags)])
    return json.loads((data / "preprocess.json").read_text())


def contents(data):
    return {n: (data / n).read_bytes() for n in ("preprocess.json", *ARRAYS)}


def of_subjects(data, name, record):
    """Return the subjects of a split's rows, looked up in extract.json."""
    extract = json.loads((data / "extract.json").read_text())
    return [extract["train"]["subject"][row] for row in record[name]["rows"]]


# ---------------------------------------------------------------- resizing


def test_resize_takes_rows_first():
    image = np.zeros((64, 80), np.uint8)
    image[:32] = 200  # the upper half
    small = geometry.resize(image, 16, 8)
    assert small.shape == (16, 8)
    assert small[:8].min() == 200
    assert small[8:].max() == 0


def test_shrinking_takes_the_mean_of_the_area():
    # 4 x 6 to 2 x 2: blocks of 2 rows and 3 columns
    image = np.array(
        [
            [0, 6, 12, 100, 100, 100],
            [0, 6, 12, 100, 100, 100],
            [255, 255, 255, 1, 2, 3],
            [255, 255, 255, 4, 5, 6],
        ],
        np.uint8,
    )
    # (0+6+12)/3 = 6; 100; 255; (1+...+6)/6 = 3.5, which rounds to even, 4
    assert geometry.resize(image, 2, 2).tolist() == [[6, 100], [255, 4]]


def test_shrinking_does_not_alias():
    # columns 0 and 255 in turn, 9 to a pixel: 4/9 or 5/9 of 255 are 113 and 142;
    # the pixel in the middle alone would be 0 or 255
    stripes = np.tile(np.array([0, 255], np.uint8), (99, 50))[:, :99]
    assert set(np.unique(geometry.resize(stripes, 11, 11)).tolist()) == {113, 142}


def test_growing_interpolates_between_neighbours():
    image = np.array([[0, 100]] * 2, np.uint8)
    grown = geometry.resize(image, 4, 8)
    assert grown.shape == (4, 8)
    # centres of the pixels at 0.5 and 1.5 of 2: column k lies at (k + 0.5) / 4 - 0.5
    expected = [min(max((k + 0.5) / 4 - 0.5, 0), 1) * 100 for k in range(8)]
    assert np.abs(grown - np.array(expected)).max() <= 0.5


def test_one_side_shrinks_without_aliasing_while_the_other_grows():
    stripes = np.tile(np.array([0, 255], np.uint8), (10, 50))[:, :99]
    assert set(np.unique(geometry.resize(stripes, 20, 11)).tolist()) == {113, 142}


@pytest.mark.parametrize("factor", [2, 4])
def test_a_pixel_is_nerve_where_half_of_it_or_more_is(factor):
    # every count of nerve pixels in a block, 0 to factor^2, once
    area = factor * factor
    mask = np.zeros((factor, factor * (area + 1)), np.uint8)
    for count in range(area + 1):
        block = np.zeros(area, np.uint8)
        block[:count] = 255
        columns = slice(factor * count, factor * (count + 1))
        mask[:, columns] = block.reshape(factor, factor)
    fitted = geometry.Geometry.of(mask.shape, (1, area + 1), area + 1, {})
    label = fitted.fit_mask(mask)
    assert label[0].tolist() == [255 * (2 * n >= area) for n in range(area + 1)]


# ---------------------------------------------------------------- what is written


def test_arrays_are_float32_with_one_channel_and_masks_of_0_and_1(data):
    record = run(data, "--height", 24, "--width", 40)
    for name in ("train", "val"):
        count = len(record[name]["rows"])
        x, y = np.load(data / f"x_{name}.npy"), np.load(data / f"y_{name}.npy")
        assert x.shape == y.shape == (count, 24, 40, 1)
        assert x.dtype == y.dtype == np.float32
        assert np.unique(y).tolist() == [0.0, 1.0]
        assert count > 0
    assert (record["height"], record["width"]) == (24, 40)


def test_scaling_uses_the_training_subjects_alone(data):
    record = run(data, "--height", 24, "--width", 40)
    frames = np.load(data / "imgs_train.npy")
    small = np.array(
        [cv2.resize(f, (40, 24), interpolation=cv2.INTER_AREA) for f in frames]
    ).astype(np.float64)
    training = small[record["train"]["rows"]]
    assert record["mean"] == pytest.approx(training.mean(), rel=1e-12)
    assert record["standard_deviation"] == pytest.approx(training.std(), rel=1e-12)
    assert abs(small.mean() - training.mean()) > 0.5  # so the two are told apart
    for name in ("train", "val"):
        x = np.load(data / f"x_{name}.npy")[..., 0]
        expected = (small[record[name]["rows"]] - training.mean()) / training.std()
        assert np.abs(x - expected).max() < 1e-6


def test_each_mask_stays_beside_its_frame(data):
    # without a change of size, x and y are the frames and masks themselves
    record = run(data, "--height", 64, "--width", 80)
    frames = np.load(data / "imgs_train.npy")
    masks = np.load(data / "imgs_mask_train.npy")
    for name in ("train", "val"):
        x, y = np.load(data / f"x_{name}.npy"), np.load(data / f"y_{name}.npy")
        for k, row in enumerate(record[name]["rows"]):
            grey = x[k, ..., 0] * record["standard_deviation"] + record["mean"]
            assert np.abs(grey - frames[row]).max() < 1e-3
            assert np.array_equal(y[k, ..., 0], masks[row] // 255)


def test_the_record_describes_the_files_and_where_they_come_from(data, capsys):
    record = run(data)
    extract = json.loads((data / "extract.json").read_text())
    for name in ARRAYS:
        entry = record["arrays"][name]
        digest = hashlib.sha256((data / name).read_bytes()).hexdigest()
        assert entry["sha256"] == digest
        assert entry["shape"] == list(np.load(data / name).shape)
        assert entry["dtype"] == "float32"
    assert record["extract"] == {
        name: hashlib.sha256((data / name).read_bytes()).hexdigest()
        for name in extract["arrays"]
    }
    assert (record["height"], record["width"]) == (96, 96)
    assert (record["split"], record["leaky"], record["seed"]) == ("subject", False, 0)
    assert record["same_sweep"] == []  # subjects of the fixture differ
    area = np.array(extract["train"]["area"])
    for name in ("train", "val"):
        rows = record[name]["rows"]
        assert record[name]["subjects"] == sorted(set(of_subjects(data, name, record)))
        assert record[name]["with_nerve"] == (area[rows] > 0).sum()
    out = capsys.readouterr().out
    train, val = record["train"], record["val"]
    assert out == (
        f"{len(train['rows'])} frames of {len(train['subjects'])} subjects "
        f"({train['with_nerve']} with a nerve) for training, "
        f"{len(val['rows'])} frames of {len(val['subjects'])} subjects "
        f"({val['with_nerve']} with a nerve) for validation, 96 x 96 pixels: {data}/\n"
    )


def test_the_same_seed_gives_the_same_bytes_in_any_folder(data, tmp_path):
    run(data, "--seed", 3)
    again = shutil.copytree(data, tmp_path / "elsewhere" / "other_name")
    for name in contents(again):
        (again / name).unlink()
    run(again, "--seed", 3)
    assert contents(again) == contents(data)


def test_only_outputs_and_the_lock_are_added(data):
    before = {path.name for path in data.iterdir()}
    run(data)
    added = {path.name for path in data.iterdir()} - before
    assert added == {"preprocess.json", *ARRAYS}


def test_the_script_runs_bare_from_the_shell(data, tmp_path):
    status, out, err = run_script("preprocess.py", cwd=tmp_path)
    assert (status, err) == (0, "")
    assert out.endswith("for validation, 96 x 96 pixels: data/\n")


# ---------------------------------------------------------------- split by subject


@pytest.mark.parametrize("seed", range(4))
def test_no_subject_is_on_both_sides(data, seed):
    record = run(data, "--seed", seed, "--height", 8, "--width", 8)
    train = set(of_subjects(data, "train", record))
    val = set(of_subjects(data, "val", record))
    assert train
    assert val
    assert not train & val
    rows = record["train"]["rows"] + record["val"]["rows"]
    assert sorted(rows) == list(range(SUBJECTS * FRAMES))


def challenge_labels(seed):
    """Subjects and presence of 5,635 frames: 42 subjects of 120, 5 of 119, 20-65 %."""
    rng = np.random.default_rng(seed)
    sizes = [119] * 5 + [120] * 42
    subjects = np.repeat(np.arange(1, 48), sizes)
    share = np.repeat(rng.uniform(0.2, 0.65, 47), sizes)
    return subjects, rng.random(len(subjects)) < share


@pytest.mark.parametrize("seed", range(5))
def test_the_challenge_splits_5000_to_635_as_nearly_as_subjects_allow(seed):
    subjects, nerve = challenge_labels(seed)
    assert len(subjects) == 5635
    validation = split.choose_validation(subjects, nerve, seed)
    # five subjects hold 595 to 600 frames, six 714 to 720: five are nearer to 635
    assert 595 <= validation.sum() <= 600
    assert len(np.unique(subjects[validation])) == 5
    assert not set(subjects[validation]) & set(subjects[~validation])
    # five subjects at random miss the share of nerves by 0.06 on average
    assert abs(nerve[validation].mean() - nerve.mean()) < 0.01


def test_the_choice_depends_on_the_seed_and_nothing_else():
    subjects, nerve = challenge_labels(0)
    chosen = [split.choose_validation(subjects, nerve, k) for k in (0, 0, 1, 2)]
    assert np.array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])
    assert not np.array_equal(chosen[2], chosen[3])


def test_two_subjects_are_split_one_to_one():
    groups = np.array([1, 1, 1, 1, 2, 2])
    nerve = np.array([1, 0, 1, 0, 1, 0], bool)
    # 0.11 x 6 = 0.7 frames wanted: the subject of two is nearer than that of four
    validation = split.choose_validation(groups, nerve, 0)
    assert validation.tolist() == [False] * 4 + [True] * 2


def test_a_single_subject_is_refused_with_what_to_do(tmp_path):
    data = extract(make_raw(tmp_path / "raw", subjects=1), tmp_path / "data")
    with pytest.raises(
        ValueError,
        match=r"only one subject \(those that share near-identical frames count as "
        r"one\): no split by subject is possible; choose "
        r"--split frames \(leaky\) or --split none",
    ):
        run(data)
    assert not (data / "preprocess.json").exists()
    run(data, "--split", "none")
    assert len(np.load(data / "x_train.npy")) == 4


# ---------------------------------------------------------------- sweeps of two names


def copy_subject(raw, old, new):
    """Give a subject's frames to another subject, each pixel 0 to 3 greys brighter."""
    for path in list((raw / "train").glob(f"{old}_*.tif")):
        name = path.name.replace(f"{old}_", f"{new}_", 1)
        if path.name.endswith("_mask.tif"):
            shutil.copy(path, path.with_name(name))
            continue
        image = challenge.read_tiff(path)
        noise = np.random.default_rng(new).integers(0, 4, image.shape)
        brighter = (image.clip(0, 250) + noise).astype(np.uint8)
        write_tiff(path.with_name(name), brighter)


@pytest.mark.parametrize("flags", [("--seed", 0), ("--seed", 1), ("--folds", 3)])
def test_a_sweep_under_two_names_is_found_named_and_kept_together(tmp_path, capsys, flags):
    raw = make_raw(tmp_path / "raw", subjects=(2, 5, 10), frames=3)
    (raw / "train_masks.csv").unlink()
    copy_subject(raw, 5, 17)
    data = extract(raw, tmp_path / "data")
    sides = []
    for fold in range(3 if "--folds" in flags else 1):
        more = ("--fold", fold) if "--folds" in flags else ()
        record = run(data, *flags, *more)
        assert record["same_sweep"] == [[17, 5]]
        line = "subjects 5 and 17 share near-identical frames: kept together\n"
        assert line in capsys.readouterr().out
        sides += [set(record["train"]["subjects"]), set(record["val"]["subjects"])]
    assert all((5 in side) == (17 in side) for side in sides)
    assert any(5 in side for side in sides)


def test_masks_too_small_for_the_size_are_counted_as_they_are_written(tmp_path, capsys):
    raw = make_raw(tmp_path / "raw", subjects=2, frames=5)
    for path in (raw / "train").glob("*_mask.tif"):
        mask = np.array(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        rows, columns = np.nonzero(mask)
        mask[:] = 0
        mask[rows[:3], columns[:3]] = 255
        write_tiff(path, mask)
    (raw / "train_masks.csv").unlink()
    data = extract(raw, tmp_path / "data")
    record = run(data, "--height", "8", "--width", "8")
    assert record["train"]["with_nerve"] == record["val"]["with_nerve"] == 0
    expected = "warning: 6 masks of a nerve are empty now, too small for 8 x 8 pixels; "
    assert expected in capsys.readouterr().out
    record = run(data, "--height", "8", "--width", "8", "--soft-masks")
    assert record["train"]["with_nerve"] == record["val"]["with_nerve"] == 3


def test_masks_in_black_borders_and_halved_ones_are_counted(tmp_path, capsys):
    raw = make_raw(tmp_path / "raw", subjects=2, frames=5)
    (raw / "train_masks.csv").unlink()
    frame, mask = np.full((64, 80), 90, np.uint8), np.zeros((64, 80), np.uint8)
    frame[:, :30], mask[20:40, 10:50] = 0, 255  # half of the nerve lies in the black
    write_tiff(raw / "train" / "1_1.tif", frame)
    write_tiff(raw / "train" / "1_1_mask.tif", mask)
    mask[...] = 0
    mask[::4, :40] = 255  # of every 8 rows two: no half of a pixel
    mask[32:40, 40:50] = 255
    write_tiff(raw / "train" / "1_2_mask.tif", mask)
    data = extract(raw, tmp_path / "data")
    run(data, "--height", "8", "--width", "8")
    text = capsys.readouterr().out
    expected = "1 masks of a nerve reach into black borders, which are cut: 50% of them on"
    assert expected in text
    assert (
        "1 masks of a nerve lost more than half, too thin for 8 x 8 pixels; a larger size"
        in text
    )
    run(data, "--soft-masks", "--height", "8", "--width", "8")
    assert "lost more than half" not in capsys.readouterr().out


def smooth_frames(count, seed):
    """Return uint8 frames (count, 32, 32) of unrelated smooth backgrounds."""
    rng = np.random.default_rng(seed)
    grids = rng.uniform(0, 255, (count, 6, 6))
    grown = [cv2.resize(g, (32, 32), interpolation=cv2.INTER_LINEAR) for g in grids]
    return np.array(grown).astype(np.uint8)


def test_unlike_subjects_are_not_grouped(tmp_path):
    images = smooth_frames(12, seed=1)
    subjects = np.repeat([4, 7, 9], 4)
    group = split.find_sweeps(images, subjects, tmp_path)
    assert group == {4: 4, 7: 7, 9: 9}


def test_brightness_and_contrast_do_not_hide_a_sweep(tmp_path):
    images = smooth_frames(4, seed=2)
    images[3] = (images[1] * 0.5 + 60).astype(np.uint8)
    group = split.find_sweeps(images, np.array([1, 2, 3, 4]), tmp_path)
    assert group == {1: 1, 2: 2, 3: 3, 4: 2}


def fan_frames(count, seed):
    """Return uint8 frames (count, 96, 128): speckle in a fan that is the same in all."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :128] - np.array([-20, 64])[:, np.newaxis, np.newaxis]
    fan = (np.hypot(rows, columns) < 100) & (np.abs(np.arctan2(columns, rows)) < 0.6)
    speckle = rng.normal(0, 1, (count, 96, 128))
    speckle = np.array([cv2.GaussianBlur(s, (0, 0), 3) for s in speckle])
    return np.where(fan, 110 + 20 * speckle / speckle.std(), 0).clip(0, 255).astype("uint8")


def test_a_fan_that_all_frames_have_makes_no_sweep(tmp_path):
    images = fan_frames(12, seed=6)
    small = np.array([geometry.normalized_thumbnail(i, 16, 16) for i in images])
    assert np.median(small @ small.T) > 0.95  # what correlation alone would say
    subjects = np.repeat([4, 7, 9], 4)
    group = split.find_sweeps(images, subjects, tmp_path)
    assert group == {4: 4, 7: 7, 9: 9}
    _, jpeg = cv2.imencode(".jpg", images[0], [cv2.IMWRITE_JPEG_QUALITY, 75])
    images[5] = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
    group = split.find_sweeps(images, subjects, tmp_path)
    assert group == {4: 4, 7: 4, 9: 9}


def test_two_frames_are_one_sweep_if_identical(tmp_path):
    images = np.repeat(smooth_frames(1, seed=7), 2, axis=0)
    images[1] += 1
    group = split.find_sweeps(images, np.array([1, 2]), tmp_path)
    assert group == {1: 1, 2: 1}


def test_a_negative_is_not_the_same_sweep(tmp_path):
    images = smooth_frames(2, seed=3)
    images[1] = 255 - images[0]
    group = split.find_sweeps(images, np.array([1, 2]), tmp_path)
    assert group == {1: 1, 2: 2}


def test_flat_frames_are_not_near_identical(tmp_path):
    images = np.zeros((2, 32, 32), np.uint8)
    group = split.find_sweeps(images, np.array([1, 2]), tmp_path)
    assert group == {1: 1, 2: 2}


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([(1, 2), (2, 3)], {1: 1, 2: 1, 3: 1, 4: 4}),
        ([(1, 3), (2, 3)], {1: 1, 2: 1, 3: 1, 4: 4}),
        ([(1, 4), (2, 3), (3, 4)], {1: 1, 2: 1, 3: 1, 4: 1}),
        ([(1, 2), (3, 4)], {1: 1, 2: 1, 3: 3, 4: 3}),
    ],
)
def test_a_chain_of_sweeps_is_one_group_named_by_its_smallest(tmp_path, links, expected):
    # each link is one frame that two subjects share; every frame else is its own
    own, shared = smooth_frames(4, seed=4), smooth_frames(len(links), seed=5)
    images, subjects = list(own), [1, 2, 3, 4]
    for frame, pair in zip(shared, links, strict=True):
        images += [frame, frame]
        subjects += pair
    group = split.find_sweeps(np.array(images), np.array(subjects), tmp_path)
    assert group == expected


def test_the_fixtures_subjects_are_unlike(extracted):
    # what the tests above rest on: no pair of frames of two subjects above 0.9
    frames = np.load(extracted / "imgs_train.npy")
    small = [cv2.resize(f, (16, 16), interpolation=cv2.INTER_AREA) for f in frames]
    correlation = np.corrcoef(np.array(small).reshape(len(small), -1))
    subjects = np.repeat(np.arange(SUBJECTS), FRAMES)
    assert correlation[subjects[:, None] != subjects].max() < 0.9


# ---------------------------------------------------------------- folds


def test_folds_hold_each_frame_and_each_subject_exactly_once(data):
    rows, subjects = [], []
    for fold in range(4):
        record = run(data, "--folds", 4, "--fold", fold, "--height", 8, "--width", 8)
        assert (record["folds"], record["fold"]) == (4, fold)
        rows += record["val"]["rows"]
        subjects += record["val"]["subjects"]
        both = record["train"]["rows"] + record["val"]["rows"]
        assert sorted(both) == list(range(SUBJECTS * FRAMES))
    assert sorted(rows) == list(range(SUBJECTS * FRAMES))
    assert sorted(subjects) == list(range(1, SUBJECTS + 1))


def test_folds_of_the_challenge_are_of_nearly_one_size():
    subjects, nerve = challenge_labels(0)
    parts = [split.choose_fold(subjects, nerve, 5, k, 0) for k in range(5)]
    assert np.sum(parts, axis=0).tolist() == [1] * 5635
    # 47 = 10 + 10 + 9 + 9 + 9 subjects, so that sizes differ by one subject at most
    assert sorted(len(np.unique(subjects[part])) for part in parts) == [9, 9, 9, 10, 10]
    sizes = [part.sum() for part in parts]
    assert max(sizes) - min(sizes) <= 120


def test_large_groups_are_dealt_first():
    # 5 | 3 + 2 is balanced; dealt in another order, 3 | 2 + 5 or 2 | 3 + 5 could come out
    groups = np.repeat([1, 2, 3], [2, 3, 5])
    for seed in range(5):
        part = split.choose_fold(groups, np.zeros(10, bool), 2, 0, seed)
        assert part.sum() == 5


def test_of_equal_folds_the_one_with_fewest_nerves_is_filled():
    # the groups of 3, all with a nerve and none, go to a part each; that of 2 to the part
    # without: nerves 3 and 2, not 5 and 0
    groups = np.repeat([1, 2, 3], [3, 3, 2])
    nerve = np.repeat([True, False, True], [3, 3, 2])
    for seed in range(6):
        part = split.choose_fold(groups, nerve, 2, 0, seed)
        assert sorted([nerve[part].sum(), nerve[~part].sum()]) == [2, 3]


def test_more_folds_than_subjects_are_refused(data):
    with pytest.raises(ValueError, match="--folds 7, but there are 6 subjects to deal"):
        run(data, "--folds", 7, "--fold", 0)


# ---------------------------------------------------------------- other splits


def test_a_split_of_frames_is_labelled_as_leaky(data, capsys):
    record = run(data, "--split", "frames")
    assert record["split"] == "frames"
    assert record["leaky"] is True
    out = capsys.readouterr().out
    assert "leaky split: neighbouring frames of one video lie on both sides" in out
    # 635 / 5635 of 30 frames: 3.4
    assert len(record["val"]["rows"]) == 3
    rows = record["train"]["rows"] + record["val"]["rows"]
    assert sorted(rows) == list(range(SUBJECTS * FRAMES))


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match="no training frame is left"):
        preprocess.scaling(np.zeros((1, 4, 4), np.uint8), [])


def test_the_classic_split_of_frames_holds_out_635():
    subjects, nerve = challenge_labels(0)
    rows = split.split_frames("frames", subjects, nerve, None, None, 0)
    other = split.split_frames("frames", subjects, nerve, None, None, 1)
    assert rows.sum() == other.sum() == 635
    assert not np.array_equal(rows, other)


def test_a_split_of_frames_always_holds_out_a_frame(tmp_path):
    # 635 / 5635 of 4 frames: 0.45, which rounds to none
    data = extract(make_raw(tmp_path / "raw", subjects=1), tmp_path / "data")
    record = run(data, "--split", "frames")
    assert len(record["val"]["rows"]) == 1


def test_a_split_by_subject_is_not_called_leaky(data, capsys):
    assert run(data)["leaky"] is False
    assert "leaky" not in capsys.readouterr().out


def test_split_none_trains_on_all_and_leaves_validation_empty(data):
    record = run(data, "--split", "none")
    assert record["train"]["rows"] == list(range(SUBJECTS * FRAMES))
    empty = {"subjects": [], "rows": [], "subject": [], "with_nerve": 0}
    assert record["val"] == empty
    assert len(np.load(data / "x_train.npy")) == SUBJECTS * FRAMES
    arrays = read_split(data).arrays
    for name in ("x_val.npy", "y_val.npy"):  # empty, and yet readable
        assert read_array(data, name, arrays, "-").shape == (0, 96, 96, 1)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["imgs_train.npy", "imgs_mask_train.npy"])
def test_a_changed_extract_is_refused_with_its_repair(data, name):
    run(data)
    before = contents(data)
    content = bytearray((data / name).read_bytes())
    content[-1] ^= 255
    (data / name).write_bytes(content)
    with pytest.raises(
        ValueError,
        match=rf"{data}/{name} changed .*\(SHA-256 differs\); make it again with: "
        rf"python extract_data\.py --data {data}$",
    ):
        run(data, "--seed", 1)
    assert contents(data) == before


@pytest.mark.parametrize("name", ["extract.json", "imgs_train.npy"])
def test_a_missing_stage_is_named_with_its_repair(data, name):
    (data / name).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=rf"{data}/{name} is missing; make it with: "
        rf"python extract_data\.py --data {data}$",
    ):
        run(data)


def test_a_wrong_folder_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/extract\.json is missing"):
        run(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_test_frames_alone_are_refused(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "raw")
    shutil.rmtree(folder / "train")
    data = extract(folder, tmp_path / "data")
    with pytest.raises(ValueError, match="data/ holds test frames alone; extract a"):
        run(data)


def test_frames_of_one_flat_grey_are_refused():
    images = np.full((3, 4, 4), 80, np.uint8)
    with pytest.raises(ValueError, match="all training frames are one flat grey"):
        preprocess.scaling(images, [0, 1, 2])


def test_scale_subtracts_the_mean_and_divides():
    # (100 - 90) / 20 = 0.5; (0 - 90) / 20 = -4.5; (255 - 90) / 20 = 8.25
    scaled = preprocess.scale(np.array([[100, 0, 255]], np.uint8), 90, 20)
    assert scaled.tolist() == [[0.5, -4.5, 8.25]]
    assert scaled.dtype == np.float32


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--height", "7"], "--height: 7; expected 8 to 2048"),
        (["--height", "2049"], "--height: 2049; expected 8 to 2048"),
        (["--width", "0"], "--width: 0; expected 8 to 2048"),
        (["--width", "-96"], "--width: -96; expected 8 to 2048"),
        (["--height", "96.5"], "--height: 96.5; expected 8 to 2048"),
        (["--seed", "-1"], "--seed: -1; expected 0 or more"),
        (["--split", "video"], "invalid choice: 'video'"),
        (["--folds", "5"], "--folds and --fold go together"),
        (["--fold", "0"], "--folds and --fold go together"),
        (["--folds", "1", "--fold", "0"], "--folds: 1; expected 2 or more"),
        (["--folds", "5", "--fold", "5"], "--folds 5 --fold 5; expected 0 <= fold <"),
        (["--folds", "5", "--fold", "-1"], "--fold: -1; expected 0 or more"),
        (
            ["--folds", "5", "--fold", "1", "--split", "frames"],
            "--folds deals subjects; it does not go with --split frames",
        ),
        (
            ["--folds", "5", "--fold", "1", "--split", "none"],
            "--folds deals subjects; it does not go with --split none",
        ),
    ],
)
def test_flags_out_of_range_end_with_status_2(flags, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        preprocess.parse_args(flags)
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("size", ["8", "2048"])
def test_the_ends_of_the_range_are_accepted(size):
    args = preprocess.parse_args(["--height", size, "--width", size])
    assert (args.height, args.width) == (int(size), int(size))
