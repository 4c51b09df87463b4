"""report.py: one page with everything in it, that says what was measured."""

import html.parser
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from conftest import make_raw, write_table

import extract_data
import predict
import preprocess
import report
import train
import tune
from nerve.files import atomic
from nerve.files.run_length import encode
from nerve.prediction import inference, networks
from nerve.records import Inputs
from nerve.scoring import plots


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder with data/, weights/ and predictions/ of a short training."""
    folder = tmp_path_factory.mktemp("report")
    make_raw(folder / "raw", subjects=6, frames=15, test=2)
    data, weights = str(folder / "data"), str(folder / "weights" / "unet.h5")
    extract_data.main(["--raw", str(folder / "raw"), "--data", data])
    flags = ["--height", "32", "--width", "32", "--folds", "3", "--fold", "0"]
    preprocess.main(["--data", data, *flags])
    flags = ["--filters", "4", "--depth", "2", "--batch-size", "5", "--epochs", "8"]
    train.main(["--data", data, "--out", weights, "--learning-rate", "0.005", *flags])
    return folder


def make(folder, *flags):
    data, weights = folder / "data", folder / "weights" / "unet.h5"
    out = folder / "pages" / "report.html"
    report.main(["--data", str(data), "--weights", str(weights), "--out", str(out), *flags])
    return out.read_text()


class Collector(html.parser.HTMLParser):
    """Gathers tags, addresses and text of a page."""

    def __init__(self):
        super().__init__()
        self.open_tags, self.addresses, self.pictures, self.text = [], [], 0, []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.pictures += 1
        if tag not in ("img", "meta"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_all_it_shows_and_the_scores_of_predict(chain, capsys):
    page = make(chain)
    capsys.readouterr()
    flags = ["--data", str(chain / "data"), "--out", str(chain / "predictions")]
    predict.main([*flags, "--weights", str(chain / "weights" / "unet.h5")])
    printed = capsys.readouterr().out
    found = Collector()
    found.feed(page)
    assert not found.open_tags
    assert found.addresses
    assert all(address.startswith("data:image/") for address in found.addresses)
    assert not re.search(r"https?://|<script|@import|url\(", page)
    # 8 plots; of 30 frames 12 without a nerve, most of them found empty: of the others
    # 12 worst and 12 best
    assert found.pictures == 8 + 2 * report.SHOWN
    assert len(page) < 5_000_000
    text = " ".join(found.text)
    for name in ("challenge_dice", "nerve_dice", "sensitivity"):
        value = float(re.search(rf"^{name} +([\d.]+)", printed, re.M)[1])
        assert f"{value:.3f}" in text, name


def see(tally, image, frame, truth, probability, mask, inputs):
    """Count a frame of subject 1 with a mask of its own choosing."""
    geometry = inference.find_geometry(frame, inputs)
    found = inference.Prediction(frame, geometry, probability, mask)
    tally.see((1, image), found, truth)


def test_frames_of_one_kind_are_said(chain, tmp_path):
    copy = shutil.copytree(chain, tmp_path / "copy")
    tally = report.Tally()
    weights = copy / "weights" / "unet.h5"
    trained = networks.read_trained(weights)
    mask = np.zeros((64, 80), np.uint8)
    mask[10:30, 10:30] = 1
    frame = np.full((64, 80), 100, np.uint8)
    probability = np.full((32, 32), 0.9, np.float32)
    for image in range(3):
        see(tally, image, frame, mask, probability, mask, trained.inputs)
    page = report.make_page(tally, trained, weights, ["<odd>"])
    assert "All frames are with a nerve" in page
    assert "&lt;odd&gt;" in page
    assert tally.pixels[plots.BINS - 1, 0] == 3 * 32 * 32
    assert not tally.pixels[: plots.BINS - 1].any()
    # of 5,120 pixels 400 are nerve
    share = tally.pixels[plots.BINS - 1, 1] / tally.pixels[plots.BINS - 1, 0]
    assert share == pytest.approx(400 / 5120, abs=0.02)


def test_a_page_of_frames_without_a_nerve(chain):
    tally, weights = report.Tally(), chain / "weights" / "unet.h5"
    trained = networks.read_trained(weights)
    empty, probability = np.zeros((64, 80), np.uint8), np.zeros((32, 32), np.float32)
    for image in range(3):
        see(tally, image, empty, empty, probability, empty, trained.inputs)
    page = report.make_page(tally, trained, weights, [])
    assert "All frames are without a nerve" in page
    assert "No frame shows a nerve" in page


def test_calibration_is_of_what_the_network_saw():
    # a frame of 80 x 20 pixels, of which 40 x 20 are looked at, in an array of 16 x 32: the
    # array stands for 40 rows of 80 columns, so that the frame takes 8 columns of it
    inputs = Inputs(16, 32, 100.0, 50.0, 2.0, {"80x20": [40, 0, 40, 20]})
    truth = np.zeros((80, 20), np.uint8)
    truth[40:, :10] = 1
    probability = np.zeros((16, 32), np.float32)
    probability[:, 12:16] = 0.99  # the left half of these 8 columns
    tally = report.Tally()
    see(tally, 1, truth * 0, truth, probability, truth, inputs)
    everywhere, nerve = tally.pixels[-1]
    assert everywhere == nerve == 16 * 4
    assert tally.pixels[0].tolist() == [16 * 28, 0]


def test_the_worst_and_the_best_are_kept():
    tally = report.Tally()
    inputs = Inputs(16, 16, 100.0, 50.0, 1.5, {})
    frame, probability = np.zeros((40, 60), np.uint8), np.zeros((16, 16), np.float32)
    truth = np.zeros((40, 60), np.uint8)
    truth[:, :20] = 1
    for number in range(30):
        mask = np.zeros((40, 60), np.uint8)
        mask[:, : 1 + number * 7 % 30] = 1  # every width from 1 to 30 once
        see(tally, number, frame, truth, probability, mask, inputs)
    dice = sorted(row["dice"] for row in tally.rows)
    worst, best = (sorted(item[4] for item in h) for h in (tally.worst, tally.best))
    assert worst == dice[:12]
    assert best == dice[-12:]
    page = report.show_frames(tally.best)
    assert page.index("Dice 1.00") < page.index("Dice 0.9")


def test_rates_and_their_area(monkeypatch):
    monkeypatch.delattr(np, "trapezoid", raising=False)  # NumPy 1.26 has none
    values = np.array([0.9, 0.8, 0.8, 0.3])
    positive = np.array([True, True, False, False])
    false, true, area = plots.rates(values, positive)
    np.testing.assert_allclose(false, [0, 0, 0.5, 1])
    np.testing.assert_allclose(true, [0, 0.5, 1, 1])
    assert area == pytest.approx(0.875)  # of 4 pairs 3 right and one even


def write_raters(folder, chain):
    """Write masks of three raters: the truth, it moved down, and half of its frames."""
    extract = json.loads((chain / "data" / "extract.json").read_text())["train"]
    masks = np.load(chain / "data" / "imgs_mask_train.npy") // 255
    names = list(zip(extract["subject"], extract["image"], strict=True))
    moved = np.roll(masks, 6, axis=1)
    paths = [folder / f"{name}.csv" for name in ("anna", "<ben>", "carla")]
    for path, drawn, some in zip(paths, (masks, moved, moved), (1, 1, 2), strict=True):
        rows = [(*n, encode(m)) for n, m in zip(names, drawn, strict=True)]
        write_table(path, ("subject", "img", "pixels"), rows[::some])
    return paths


def test_raters_are_drawn_in_colours_of_their_own_and_compared(chain, tmp_path):
    plain, paths = make(chain), write_raters(tmp_path, chain)
    page = make(chain, "--raters", *map(str, paths))
    found = Collector()
    found.feed(page)
    assert not found.open_tags
    text = " ".join(found.text)
    assert "<ben>" in text
    assert re.search("carla lacks [0-9]+ of 30 frames; raters are compared in", text)
    assert "The network agrees with the raters" in text
    for label in ("Dice of the raters with each other", "majority", "STAPLE"):
        assert label in text
        assert label not in plain
    for colour in report.RATER_COLOURS[:3]:
        assert f'<span style="background:rgb{colour}">' in page
    assert "<span" not in plain
    assert 0 < len(re.findall("<img", page)) - len(re.findall("<img", plain)) <= 12
    # the outlines are in the pictures: those of both pages differ
    assert set(re.findall('jpeg;base64,[^"]+', page)).isdisjoint(
        re.findall('jpeg;base64,[^"]+', plain)
    )


def test_outlines_of_raters_are_of_their_colours():
    truth, frame = np.zeros((270, 360), np.uint8), np.zeros((270, 360), np.uint8)
    truth[100:140, 100:140] = 1
    moved = [np.roll(truth, 60 * k, axis=1) for k in (1, 2)]
    picture = report.draw(frame, truth, truth, [moved[0], None, moved[1]])
    picture = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for shift, colour in ((60, report.RATER_COLOURS[0]), (120, report.RATER_COLOURS[2])):
        near = picture[99:141, 95 + shift : 145 + shift].reshape(-1, 3).astype(int)
        assert np.abs(near - colour).sum(axis=1).min() < 100  # JPEG blurs colours


def test_a_single_rater_is_drawn_and_too_many_are_refused(chain, tmp_path, capsys):
    paths = [str(path) for path in write_raters(tmp_path, chain)]
    page = make(chain, "--raters", paths[0])
    assert "anna" in page
    assert "<h2>Raters</h2>" not in page
    with pytest.raises(SystemExit):
        report.parse_args(["--raters", *paths, "d.csv", "e.csv"])
    assert "--raters: 5; expected up to 4" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"none\.csv is missing or a folder; exp"):
        make(chain, "--raters", "none.csv")


def test_no_validation_frames_is_one_line(chain, tmp_path):
    copy = shutil.copytree(chain, tmp_path / "copy")
    flags = ["--data", str(copy / "data"), "--height", "32", "--width", "32"]
    preprocess.main([*flags, "--split", "none"])
    with pytest.raises(ValueError, match="holds no validation frames; hold some out with"):
        make(copy)


def test_subjects_that_were_trained_on_are_refused(chain, tmp_path):
    copy = shutil.copytree(chain, tmp_path / "copy")
    flags = ["--data", str(copy / "data"), "--height", "32", "--width", "32"]
    preprocess.main([*flags, "--folds", "3", "--fold", "1"])
    with pytest.raises(ValueError, match="the weights were trained on subjects"):
        make(copy)


def test_a_split_of_an_earlier_extraction_is_refused(chain, tmp_path):
    copy = shutil.copytree(chain, tmp_path / "copy")
    path = copy / "data" / "preprocess.json"
    record = json.loads(path.read_text())
    record["extract"]["imgs_train.npy"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is of an earlier extraction"):
        make(copy)
    flags = ["--data", str(copy / "data"), "--weights"]
    with pytest.raises(ValueError, match="is of an earlier extraction"):
        tune.main([*flags, str(copy / "weights" / "unet.h5")])


def test_names_are_text_in_the_page_whatever_they_are():
    shown = report.show_frames([(0.5, 0, (1, "<script>alert(1)</script>"), b"", 0.5)])
    assert "<script" not in shown
    assert "image &lt;script&gt;alert(1)&lt;/script&gt;: Dice 0.50</figcaption>" in shown


@pytest.mark.parametrize("name", ["weights/unet.h5", "weights/unet.csv", "data/link"])
def test_a_page_never_replaces_what_is_read(chain, tmp_path, name):
    copy = shutil.copytree(chain, tmp_path / "copy")
    (copy / "data" / "link").symlink_to("imgs_train.npy")
    before = (copy / name).read_bytes()
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "weights/unet.h5")]
    with pytest.raises(ValueError, match=f"{name} is read here .*; write to another"):
        report.main([*flags, "--out", str(copy / name)])
    assert (copy / name).read_bytes() == before


@pytest.mark.parametrize("text", ["", "epoch\n1\n", "a,b\n1,2,3\n1\n", "\0"])
def test_a_history_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "unet.csv").write_text(text)
    with pytest.raises(
        ValueError, match=r"unet\.csv is no table of train\.py.*$"
    ) as caught:
        report.plot_history(tmp_path / "unet.csv")
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_the_page_is_refused_first(tmp_path):
    with pytest.raises(ValueError, match="is a folder; expected a page"):
        report.main(["--weights", "none.h5", "--out", str(tmp_path)])


def test_two_reports_at_once_do_not_write_one_page(chain):
    (chain / "pages").mkdir(exist_ok=True)
    before = list((chain / "pages").glob("*.html"))
    expected = "another run is writing .*report.html"
    with (
        atomic.lock(chain / "pages", "report.html"),
        pytest.raises(ValueError, match=expected),
    ):
        make(chain)
    assert list((chain / "pages").glob("*.html")) == before
