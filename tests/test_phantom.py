"""The phantom: speckle, likeness, masks, layout, repeatability, killed runs, refusals."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize
from scipy.stats import rankdata

import extract_data
import phantom
import preprocess
from nerve import machine
from nerve.files import atomic
from nerve.phantom import anatomy, limb, scanner
from nerve.records import read_split

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data" / "kaggle_frames"
SMALL = ["--train", "10", "--test", "4", "--subjects", "2", "--seed", "5"]


def digests(folder):
    """Return {relative path: SHA-256} of every file below a folder but the lock."""
    return {
        str(path.relative_to(folder)): atomic.sha256(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def slow_decode(pixels):
    """Decode run lengths pixel by pixel: numbered from 1, down the columns."""
    mask = np.zeros((420, 580), bool)
    numbers = [int(word) for word in pixels.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for number in range(start - 1, start - 1 + length):
            mask[number % 420, number // 420] = True
    return mask


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "raw"
    phantom.main(["--out", str(folder), *SMALL])
    return folder


@pytest.fixture(scope="module")
def frames():
    return phantom.plan_frames(600, 100, 12, 0)


def test_speckle_of_homogeneous_tissue_is_fully_developed():
    # the envelope of a complex Gaussian field is Rayleigh distributed:
    # mean / sd = sqrt(pi / (4 - pi)) = 1.913
    ones = np.ones((scanner.HEIGHT, anatomy.LINES), np.float32)
    for subject in (1, 2, 3):
        made = scanner.make_subject(0, subject)
        power = scanner.insonify(made, 1, 0.4, ones, 0 * ones)
        envelope = np.sqrt(power)
        assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.1)
        assert power.mean() == pytest.approx(1, abs=0.1)  # 0 dB in, 0 dB out


def test_tissue_that_reflects_like_a_mirror_is_not_speckled():
    ones = np.ones((scanner.HEIGHT, anatomy.LINES), np.float32)
    made = scanner.make_subject(0, 1)
    envelope = np.sqrt(scanner.insonify(made, 1, 0.4, ones, 5 * ones))[200:220]
    assert envelope.mean() / envelope.std() > 10  # Rician, nearly constant


def auc(scores, labels):
    """Area under the ROC curve from ranks (Mann-Whitney)."""
    ranks, positive = rankdata(scores), labels.sum()
    wins = ranks[labels].sum() - positive * (positive + 1) / 2
    return wins / (positive * (len(labels) - positive))


def logistic_scores(train, labels, test):
    """Fit logistic regression with a weak penalty; return scores of `test`."""
    mean, sd = train.mean(0), train.std(0) + 1e-9
    train, test = (train - mean) / sd, (test - mean) / sd
    signs = np.where(labels, 1, -1)

    def loss(weights):
        margin = signs * (train @ weights[1:] + weights[0])
        slope = -signs / (1 + np.exp(margin)) / len(signs)
        gradient = np.concatenate([[slope.sum()], train.T @ slope])
        gradient[1:] += 0.02 * weights[1:]
        return np.logaddexp(0, -margin).mean() + 0.01 * (weights[1:] ** 2).sum(), gradient

    best = minimize(loss, np.zeros(train.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return test @ best[1:] + best[0]


def test_the_grey_histogram_does_not_tell_whether_a_nerve_is_there():
    frames = phantom.plan_frames(180, 4, 12, 0)[:180]

    def histogram(frame):
        subject = scanner.make_subject(0, frame.subject)
        image = scanner.render(subject, frame.sweep, frame.visibility)
        return np.histogram(image, 32, (0, 256))[0] / image.size

    greys = np.array(list(machine.map_threads(histogram, frames)))
    labels = np.array([frame.nerve for frame in frames])
    subjects = np.array([frame.subject for frame in frames])
    results = []
    for fold in range(4):  # by whole subjects
        held_out = subjects % 4 == fold
        scores = logistic_scores(greys[~held_out], labels[~held_out], greys[held_out])
        results.append(auc(scores, labels[held_out]))
    assert np.mean(results) < 0.7


def test_masks_have_the_challenges_sizes_and_enclose_the_roots(frames):
    areas = []
    for frame in frames[:600]:
        subject = scanner.make_subject(0, frame.subject)
        mask = anatomy.draw_mask(subject, frame, 0)
        assert bool(mask.any()) == frame.nerve
        if not frame.nerve:
            continue
        areas.append(cv2.countNonZero(mask))
        assert cv2.connectedComponents(mask)[0] == 2  # background and one blob
        roots = anatomy.place_nerve(subject, frame.sweep)[3]
        assert 2 <= len(roots) <= 5
        for (x, y), *_ in roots:
            assert mask[round(y), round(x)] == 255
    assert 2684 <= min(areas) <= max(areas) <= 17439
    # the challenge's 5, 50 and 95 %: 4,660, 6,980 and 10,350
    assert np.percentile(areas, (5, 50, 95)) == pytest.approx((4660, 6980, 10350), rel=0.12)


def test_the_smallest_and_largest_nerves_stay_within_the_challenges_areas(frames):
    frame = next(frame for frame in frames if frame.nerve)
    subject = scanner.make_subject(0, frame.subject)
    plain = subject.zoom
    try:
        for zoom in (0.4, 1.8):
            subject.zoom = zoom
            area = cv2.countNonZero(anatomy.draw_mask(subject, frame, 0))
            assert 2684 <= area <= 17439
    finally:
        subject.zoom = plain  # the subject is cached


def test_the_shares_of_frames_without_a_nerve_are_the_challenges(frames):
    train, test = frames[:600], frames[600:]
    assert sum(not f.nerve for f in train) == 353  # 58.8 % of 600 is 352.8
    assert sum(not f.nerve for f in test) == 53
    assert {f.subject for f in train} == set(range(1, 13))
    assert not {f.subject for f in train} & {f.subject for f in test}
    for subject in range(1, 13):
        images = sorted(f.image for f in train if f.subject == subject)
        assert images == list(range(1, 51))
    full = phantom.plan_frames(5635, 5508, 47, 0)
    assert sum(not f.nerve for f in full[:5635]) == 3313
    assert len({f.subject for f in full[5635:]}) == 46


def test_neighbouring_frames_of_a_sweep_are_alike_and_distant_ones_are_not():
    subject = scanner.make_subject(0, 1)
    sweeps = (0.3, 0.303, 0.9)
    images = [scanner.render(subject, t, 1.0)[30:, 1:].ravel() for t in sweeps]
    near, far = (np.corrcoef(images[0], other)[0, 1] for other in images[1:])
    assert near > 0.85
    assert far < 0.6


def test_the_nerve_changes_only_its_surroundings():
    subject = scanner.make_subject(0, 1)
    there, gone = (scanner.render(subject, 0.5, share).astype(int) for share in (1, 0))
    (x, y), radii, _, _ = anatomy.place_nerve(subject, 0.5)
    rows, columns = np.mgrid[:420, :580]
    inside = np.hypot(rows - y, columns - x) < max(radii)
    far = np.abs(columns - x) > max(radii) + 40
    difference = np.abs(there - gone)
    assert difference[inside].mean() > 20
    assert difference[far].mean() < 1


def test_the_layout_is_the_challenges(small):
    rows = read_csv(small / "train_masks.csv")
    head = (small / "train_masks.csv").read_text().splitlines()[0]
    assert head == "subject,img,pixels"
    keys = [(int(row["subject"]), int(row["img"])) for row in rows]
    assert keys == sorted(keys)
    assert len(keys) == 10
    for row in rows:
        name = f"{row['subject']}_{row['img']}"
        with Image.open(small / "train" / f"{name}.tif") as image:
            assert (image.mode, image.size, image.format) == ("L", (580, 420), "TIFF")
            assert image.info["compression"] == "tiff_lzw"
            assert np.asarray(image).std() > 20
        with Image.open(small / "train" / f"{name}_mask.tif") as image:
            assert (image.mode, image.size) == ("L", (580, 420))
            assert image.info["compression"] == "tiff_lzw"
            mask = np.asarray(image)
        assert set(np.unique(mask)) <= {0, 255}
        np.testing.assert_array_equal(mask == 255, slow_decode(row["pixels"]))
    sample = (small / "sample_submission.csv").read_text()
    assert sample == "img,pixels\n1,1 1\n2,1 1\n3,1 1\n4,1 1\n"
    truth = read_csv(small / "test_truth.csv")
    assert list(truth[0]) == ["img", "pixels", "subject", "image"]
    assert [row["img"] for row in truth] == ["1", "2", "3", "4"]
    assert {int(row["subject"]) for row in truth}.isdisjoint({1, 2})
    assert sorted(p.name for p in (small / "test").iterdir()) == [
        f"{n}.tif" for n in (1, 2, 3, 4)
    ]
    assert len(list((small / "train").iterdir())) == 20


def test_the_hidden_truth_belongs_to_the_test_frames(small):
    frames = phantom.plan_frames(10, 4, 2, 5)
    for row in read_csv(small / "test_truth.csv"):
        frame = next(f for f in frames if f.name == f"test/{row['img']}")
        assert (frame.subject, frame.image) == (int(row["subject"]), int(row["image"]))
        subject = scanner.make_subject(5, frame.subject)
        mask = anatomy.draw_mask(subject, frame, 5)
        np.testing.assert_array_equal(mask == 255, slow_decode(row["pixels"]))
        image = scanner.render(subject, frame.sweep, frame.visibility)
        path = str(small / "test" / f"{row['img']}.tif")
        np.testing.assert_array_equal(cv2.imread(path, cv2.IMREAD_GRAYSCALE), image)


def test_the_sums_are_those_of_sha256sum(small):
    lines = (small / "SHA256SUMS").read_text().splitlines()
    listed = dict(line.split("  ")[::-1] for line in lines)
    found = digests(small)
    record = json.loads((small / "phantom.json").read_text())
    assert found.pop("SHA256SUMS") == record["sha256sums"]
    assert record["complete"] is True
    expected = {"train": 10, "test": 4, "subjects": 2, "seed": 5, "prevalence": 0.412}
    assert record["parameters"] == expected | {"nerve": "plexus"}
    found.pop("phantom.json")
    assert listed == found


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_cores(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(machine, "num_threads", lambda: 1)
    scanner.make_subject.cache_clear()
    phantom.main(["--out", str(tmp_path / "one"), *SMALL])
    assert digests(tmp_path / "one") == digests(small)
    other = [*SMALL[:-1], "6"]
    phantom.main(["--out", str(tmp_path / "six"), *other])
    assert digests(tmp_path / "six")["train/1_1.tif"] != digests(small)["train/1_1.tif"]


def test_a_complete_folder_is_left_alone(small, capsys):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    phantom.main(["--out", str(small), *SMALL])
    assert "was complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_a_complete_folder_that_lost_a_file_says_so(small, tmp_path):
    copy = shutil.copytree(small, tmp_path / "copy")
    (copy / "train" / "2_3_mask.tif").unlink()
    with pytest.raises(ValueError, match=r"train/2_3_mask\.tif is gone; bring it back"):
        phantom.main(["--out", str(copy), *SMALL])


def test_other_parameters_are_refused(small):
    with pytest.raises(ValueError, match="--train 10 --test 4 --subjects 2 --seed 5"):
        phantom.main(["--out", str(small), *SMALL[:-1], "6"])


@pytest.mark.parametrize("name", ["notes.txt", "train/1_1.tif", "phantom.json"])
def test_a_folder_with_files_of_others_is_refused_untouched(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"not made by phantom.py \\({name}\\)"):
        phantom.main(["--out", str(tmp_path), *SMALL])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "raw").write_text("")
    with pytest.raises(ValueError, match="raw is a file"):
        phantom.main(["--out", str(tmp_path / "raw"), *SMALL])


def unfinish(source, folder):
    """Copy a finished set as a power cut may leave it; return the record's path."""
    subprocess.run(["cp", "-r", source, folder], check=True)
    record = json.loads((folder / "phantom.json").read_text())
    del record["sha256sums"]
    record["complete"] = False
    (folder / "phantom.json").write_text(json.dumps(record))
    return folder / "phantom.json"


def test_a_foreign_file_in_an_unfinished_folder_is_refused(small, tmp_path):
    unfinish(small, tmp_path / "raw")
    (tmp_path / "raw" / "train" / "mine.tif").write_text("")
    with pytest.raises(ValueError, match=r"not made by phantom\.py \(train/mine\.tif\)"):
        phantom.main(["--out", str(tmp_path / "raw"), *SMALL])


def test_an_unfinished_folder_of_other_versions_is_made_anew(small, tmp_path):
    path = unfinish(small, tmp_path / "raw")
    path.write_text(path.read_text().replace(np.__version__, "1.0"))
    (tmp_path / "raw" / "train" / "1_1.tif").write_bytes(b"of another version")
    phantom.main(["--out", str(tmp_path / "raw"), *SMALL])
    assert digests(tmp_path / "raw") == digests(small)


def test_after_a_power_cut_all_frames_are_made_anew_and_no_link_followed(small, tmp_path):
    folder = tmp_path / "raw"
    unfinish(small, folder)
    short = folder / "train" / "1_2.tif"
    short.write_bytes(short.read_bytes()[:1000])
    (folder / "train" / "2_1_mask.tif").unlink()
    (folder / ".nerve~train_masks.csv").write_bytes(b"half")
    others = tmp_path / "others.txt"
    others.write_text("mine")
    (folder / "test" / "1.tif").unlink()
    (folder / "test" / "1.tif").symlink_to(others)
    phantom.main(["--out", str(folder), *SMALL])
    assert digests(folder) == digests(small)
    assert others.read_text() == "mine"


def start(folder):
    """Start phantom.py on `folder` and return once it has written a few frames."""
    command = [sys.executable, str(ROOT / "phantom.py"), "--out", str(folder)]
    flags = ["--train", "40", "--test", "4", "--subjects", "2", "--seed", "7"]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, cwd=ROOT)
    while len(list(folder.glob("train/*.tif"))) < 20 and process.poll() is None:
        time.sleep(0.01)
    return process, ["--out", str(folder), *flags]


def test_after_a_kill_the_same_command_ends_in_the_same_bytes(tmp_path):
    process, flags = start(tmp_path / "killed")
    process.send_signal(signal.SIGINT)
    message = process.communicate()[1].decode()
    assert process.returncode == 130
    assert "run it again" in message.splitlines()[-1]
    assert "Traceback" not in message
    process, _ = start(tmp_path / "killed")
    process.kill()
    process.communicate()
    record = json.loads((tmp_path / "killed" / "phantom.json").read_text())
    assert record["complete"] is False
    phantom.main(flags)
    phantom.main([flags[0], str(tmp_path / "whole"), *flags[2:]])
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "5", "--subjects", "6"], "--train 5; expected at least --subjects"),
        (["--subjects", "0"], "--subjects: 0; expected 1 or more"),
        (["--test", "0"], "--test: 0; expected 1 or more"),
        (["--seed", "-1"], "--seed: -1; expected 0 or more"),
    ],
)
def test_bad_flags_are_explained(flags, message, capsys):
    with pytest.raises(SystemExit):
        phantom.parse_args(flags)
    assert message in capsys.readouterr().err


def test_the_smallest_data_set_can_be_made(tmp_path):
    flags = ["--train", "1", "--test", "1", "--subjects", "1"]
    phantom.main(["--out", str(tmp_path / "raw"), *flags])
    assert len(read_csv(tmp_path / "raw" / "train_masks.csv")) == 1


def test_limb_nerves_lie_anywhere_in_many_sizes_and_numbers():
    frames = phantom.plan_frames(160, 4, 40, 0, 0.9)[:160]
    pairs = list(machine.map_threads(lambda f: phantom.make_frame(f, 0, "limb"), frames))
    nerve = [bool(mask.any()) for _, mask in pairs]
    assert nerve == [frame.nerve for frame in frames]
    masks = [mask for _, mask in pairs if mask.any()]
    assert {mask.shape for mask in masks} == {(420, 580)}
    assert set(np.unique(masks)) == {0, 255}
    areas = [cv2.countNonZero(mask) for mask in masks]
    assert min(areas) >= limb.SMALLEST
    low, high = np.percentile(areas, (5, 95))
    assert high > 8 * low
    parts = [cv2.connectedComponents(mask)[0] - 1 for mask in masks]
    assert {1, 2, 3} <= set(parts)
    centres = [np.mean(np.nonzero(mask), axis=1) for mask in masks]
    assert (np.std(centres, axis=0) > (60, 100)).all()  # plexus: 40 and 50
    greys = np.array([image.mean() for image, _ in pairs]).reshape(40, 4)
    assert greys.mean(axis=1).std() > 15  # of subjects; plexus: 10
    assert len({image.tobytes() for image, _ in pairs}) == 160


def test_the_limb_phantom_is_the_same_on_any_number_of_cores(tmp_path, monkeypatch):
    flags = ["--nerve", "limb", *SMALL]
    phantom.main(["--out", str(tmp_path / "two"), *flags])
    monkeypatch.setattr(machine, "num_threads", lambda: 1)
    scanner.make_subject.cache_clear()
    phantom.main(["--out", str(tmp_path / "one"), *flags])
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    with pytest.raises(ValueError, match="the phantom of .* --nerve limb"):
        phantom.main(["--out", str(tmp_path / "two"), *SMALL])


@pytest.mark.parametrize("nerve", ["plexus", "limb"])
def test_phantoms_of_any_scanner_make_none_known(tmp_path, nerve):
    flags = ["--train", "16", "--test", "4", "--subjects", "4", "--nerve", nerve]
    data = ["--data", str(tmp_path / "data")]
    phantom.main(["--out", str(tmp_path / "raw"), *flags])
    extract_data.main(["--raw", str(tmp_path / "raw"), *data])
    preprocess.main([*data, "--height", "32", "--width", "48", "--split", "none"])
    assert (read_split(tmp_path / "data").look is None) == (nerve == "limb")


@pytest.mark.skipif(not REAL.is_dir(), reason="the challenge's frames are not here")
def test_greys_are_those_of_real_frames(small):
    def percentiles(paths):
        images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
        return np.percentile(images, (25, 50, 75))

    real = [p for p in REAL.glob("*.tif") if "mask" not in p.name]
    made = percentiles((small / "test").glob("*.tif"))
    assert np.abs(made - percentiles(real)).max() < 40


@pytest.mark.parametrize("prevalence", [0.0, 0.8, 1.0])
def test_a_prevalence_is_that_of_the_training_frames_alone(prevalence):
    frames = phantom.plan_frames(200, 100, 5, 0, prevalence)
    nerve = np.array([frame.nerve for frame in frames])
    assert nerve[:200].mean() == prevalence
    assert nerve[200:].mean() == 0.47
