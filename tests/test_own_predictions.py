"""Predicting on anything: pictures, videos, DICOM and cameras, good ones and bad ones."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import highdicom
import numpy as np
import pydicom
import pytest
from clips import HEIGHT, WIDTH, encode, sweep, write_dicom, write_video
from conftest import ROOT, make_raw
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from test_cameras import FakeCamera

import extract_data
import predict
import preprocess
import train
from nerve.frames import cameras, pictures, sources, video_writing, window
from nerve.frames.geometry import Geometry
from nerve.prediction import dicom_seg, inference, own_predictions


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An .h5 that finds bright ovals."""
    folder = tmp_path_factory.mktemp("own")
    make_raw(folder / "raw", subjects=5, frames=8, test=2)
    data, weights = str(folder / "data"), folder / "weights" / "unet.h5"
    extract_data.main(["--raw", str(folder / "raw"), "--data", data])
    preprocess.main(["--data", data, "--height", "32", "--width", "32"])
    flags = ["--filters", "4", "--depth", "2", "--batch-size", "4", "--epochs", "25"]
    train.main(["--data", data, "--out", str(weights), "--learning-rate", "0.005", *flags])
    return weights


def run(weights, source, out, *flags):
    """Predict; return the rows of frames.csv."""
    predict.main(
        ["--input", str(source), "--weights", str(weights), "--out", str(out), *flags]
    )
    return read_table(out)


def read_table(out):
    with open(out / "frames.csv", newline="") as file:
        return list(csv.DictReader(file))


def start_long(weights, folder, *flags):
    """Start predicting `long.avi` of a folder into `out`."""
    command = [sys.executable, str(ROOT / "predict.py"), "--input", "long.avi"]
    command += ["--weights", str(weights), "--out", "out", *flags]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def contents(out):
    """Return `{path: content}` of what a run has left, without what is hidden."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
        and not any(name in str(path) for name in (".nerve~", ".lock", "unfinished_"))
    }


def dice(found, truth):
    found, truth = found > 0, truth > 0
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_gives_a_mask_and_a_row_for_each_frame_and_an_overlay(
    weights, tmp_path, suffix, capsys
):
    frames, masks = sweep()
    write_video(tmp_path / f"clip{suffix}", frames, "MJPG" if suffix == ".avi" else "mp4v")
    rows = run(weights, tmp_path / f"clip{suffix}", tmp_path / "out", "--smoothing", "0")
    assert [row["frame"] for row in rows] == list("123456")
    assert list(rows[0]) == list(own_predictions.COLUMNS)
    for number, (row, truth) in enumerate(zip(rows, masks, strict=True), 1):
        found = cv2.imread(str(tmp_path / f"out/masks/clip_{number:05}.png"), 0)
        assert set(np.unique(found)) <= {0, 255}
        assert dice(found, truth) > 0.6
        assert int(row["area"]) == (found > 0).sum()
        assert row["area_mm2"] == ""
        centre = np.argwhere(found).mean(axis=0)
        assert float(row["centroid_row"]) == pytest.approx(centre[0], abs=0.06)
        assert float(row["centroid_column"]) == pytest.approx(centre[1], abs=0.06)
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlays" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20)
    assert "frames/s" in capsys.readouterr().out


def test_smoothing_is_causal_and_steadies_what_flickers():
    frame, geometry = np.zeros((2, 2), np.uint8), Geometry.of((2, 2), (2, 2), 1.0, {})

    def smooth(*values):
        maps = [np.full((2, 2), value, np.float32) for value in values]
        found = [inference.Prediction(frame, geometry, p) for p in maps]
        steady = inference.smooth(iter(found), 0.5)
        return [float(each.probability[0, 0]) for each in steady]

    assert smooth(0.0, 1.0, 0.0, 1.0) == [0.0, 0.5, 0.25, 0.625]
    assert smooth(1.0) == [1.0]


def test_longest_axis_and_area_in_millimetres():
    mask = np.zeros((40, 60), np.uint8)
    mask[10, 5:36] = 1  # 31 pixels in a row
    values = own_predictions.measure_mask(mask, (0.5, 0.1))
    assert values == [1, 31, "1.55", "10.0", "20.0", "30.0", "3.00"]
    mask[20:31, 5] = 1  # 11 pixels in a column, a part of its own
    values = own_predictions.measure_mask(mask, (0.5, 0.1))
    assert values[:2] == [2, 42]
    # from (30, 5) to (10, 35): 20 rows of 0.5 mm, 30 columns of 0.1 mm
    assert float(values[6]) == pytest.approx(np.hypot(10, 3), abs=0.01)
    assert own_predictions.measure_mask(mask * 0, None) == [0, 0, "", "", "", "", ""]


def test_a_cine_loop_is_measured_in_millimetres_and_its_segmentation_read_back(
    weights, tmp_path
):
    frames, masks = sweep()
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.01, 0.02  # cm
    source = write_dicom(
        tmp_path / "cine.dcm", frames, SequenceOfUltrasoundRegions=[region]
    )
    rows = run(weights, tmp_path / "cine.dcm", tmp_path / "out", "--dicom-seg")
    assert len(rows) == 6
    for row in rows:
        assert float(row["area_mm2"]) == pytest.approx(int(row["area"]) * 0.02, abs=0.01)
    found = highdicom.seg.segread(tmp_path / "out" / "segmentations" / "cine.dcm")
    ((study, series, instance),) = found.get_source_image_uids()
    assert study == source.StudyInstanceUID
    assert series == source.SeriesInstanceUID
    assert instance == source.SOPInstanceUID
    assert (found.Rows, found.Columns) == (HEIGHT, WIDTH)
    pixels = found.get_pixels_by_source_frame(
        instance, range(1, 7), ignore_spatial_locations=True
    )[..., 0]
    for number, frame in enumerate(pixels, 1):
        picture = cv2.imread(str(tmp_path / f"out/masks/cine_{number:05}.png"), 0)
        np.testing.assert_array_equal(frame > 0, picture > 0)
    for sequence in dicom_seg.references(found):
        assert sequence[0].ReferencedSOPClassUID == source.SOPClassUID
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlays" / "cine.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(15)


def test_a_still_of_dicom_and_its_segmentation(weights, tmp_path):
    frames, masks = sweep(1)
    write_dicom(tmp_path / "still", frames, PixelSpacing=[0.1, 0.2])  # of no suffix
    (row,) = run(weights, tmp_path / "still", tmp_path / "out", "--dicom-seg")
    assert float(row["area_mm2"]) == pytest.approx(int(row["area"]) * 0.02, abs=0.01)
    found = highdicom.seg.segread(tmp_path / "out" / "segmentations" / "still.dcm")
    picture = cv2.imread(str(tmp_path / "out" / "masks" / "still.png"), 0)
    np.testing.assert_array_equal(found.pixel_array > 0, picture > 0)
    assert dice(picture, masks[0]) > 0.6


@pytest.mark.parametrize(
    "syntax",
    [
        "JPEGBaseline8Bit",
        "JPEG2000Lossless",
        "RLELossless",
        "JPEGLSLossless",
        "Deflated",
    ],
)
def test_the_common_compressed_transfer_syntaxes(tmp_path, syntax):
    frames, _ = sweep(3)
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, frames)
    uid = {"Deflated": "DeflatedExplicitVRLittleEndian"}.get(syntax, syntax)
    uid = getattr(pydicom.uid, uid)
    if syntax in ("RLELossless", "JPEGLSLossless"):
        dataset.compress(uid)
    elif syntax != "Deflated":
        kind = "JPEG" if syntax == "JPEGBaseline8Bit" else "JPEG2000"
        dataset.PixelData = encapsulate([encode(frame, kind) for frame in frames])
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid
    dataset.save_as(path, enforce_file_format=True)
    found = np.stack(list(sources.open_source(path).frames))
    tolerance = 20 if syntax == "JPEGBaseline8Bit" else 0
    assert np.abs(found.astype(int) - frames).max() <= tolerance


def test_colours_windows_and_inverted_greys_of_dicom(tmp_path):
    frames, _ = sweep(2)
    path = tmp_path / "a.dcm"
    rgb = np.repeat(frames[..., np.newaxis], 3, axis=-1)
    more = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    write_dicom(path, rgb, **more, PlanarConfiguration=0)
    np.testing.assert_array_equal(list(sources.open_source(path).frames), frames)
    write_dicom(path, 255 - frames, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(list(sources.open_source(path).frames), frames)
    deep = frames.astype(np.uint16) * 100  # more than 8 bits: from lowest to highest
    write_dicom(path, deep)
    expected = (frames - float(frames.min())) / np.ptp(frames) * 255
    found = np.stack(list(sources.open_source(path).frames))
    assert np.abs(found - expected).max() <= 1
    expected = expected[0]
    for empty in ({"WindowCenter": None, "WindowWidth": None}, {"WindowCenter": 5}):
        write_dicom(path, deep, **empty)  # no window: likewise
        assert np.abs(next(iter(sources.open_source(path).frames)) - expected).max() <= 1
        write_dicom(path, frames, **empty)
        np.testing.assert_array_equal(list(sources.open_source(path).frames), frames)
    window = {"WindowCenter": 10_000, "WindowWidth": 10_000}
    write_dicom(path, deep, **window)
    found = next(iter(sources.open_source(path).frames))
    assert found[deep[0] < 4900].max(initial=0) == 0
    assert found[deep[0] > 15_100].min(initial=255) == 255


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, -300), (-1, 0)])
def test_a_window_is_of_rescaled_values(tmp_path, signed, slope, intercept):
    stored = np.linspace(-20_000, 20_000, HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH)
    stored = stored.astype(np.int16) if signed else (stored + 20_000).astype(np.uint16)
    values = stored[0] * float(slope) + intercept
    center, width = np.median(values), 8_001.0
    more = {"WindowCenter": round(center), "WindowWidth": round(width)}
    if slope != 1:
        more |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    path = tmp_path / "a.dcm"
    write_dicom(path, stored, PixelRepresentation=int(signed), **more)
    (found,) = sources.open_source(path).frames
    # DICOM PS3.3 C.11.2.1.2.1: black below the window, white above it, even in between
    expected = (values - (round(center) - 0.5)) / (width - 1) + 0.5
    assert np.abs(found - 255 * expected.clip(0, 1)).max() <= 1


def bad_files(folder):
    """Write files that cannot be read; return `{name: what is said of it}`."""
    frames, _ = sweep()
    write_video(folder / "cut.avi", frames)
    whole = (folder / "cut.avi").read_bytes()
    (folder / "cut.avi").write_bytes(whole[:300])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "words.mp4").write_text("no video")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "text.dcm").write_text("no DICOM")
    write_dicom(folder / "no_pixels.dcm", frames)
    dataset = pydicom.dcmread(folder / "no_pixels.dcm")
    del dataset.PixelData
    dataset.save_as(folder / "no_pixels.dcm")
    write_dicom(folder / "huge.dcm", frames)
    dataset = pydicom.dcmread(folder / "huge.dcm")
    dataset.Rows = dataset.Columns = 65_000
    dataset.save_as(folder / "huge.dcm")
    return {
        "cut.avi": "no video that can be decoded",
        "empty.mp4": "is empty",
        "words.mp4": "no video that can be decoded",
        "broken.png": "is not a whole picture",
        "text.dcm": "is no DICOM file",
        "no_pixels.dcm": "is no DICOM file with pixels",
        "huge.dcm": "claims to hold",
    }


def test_bad_files_are_named_and_the_rest_of_the_folder_done(weights, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    expected = bad_files(folder)
    frames, _ = sweep(2)
    Image.fromarray(frames[0]).save(folder / "=good.png")
    write_video(folder / "good.avi", frames)
    with pytest.raises(ValueError, match=f"{len(expected)} of {len(expected) + 2} files"):
        run(weights, folder, tmp_path / "out")
    said = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("left out: ")
    ]
    assert len(said) == len(expected)
    for name, text in expected.items():
        (line,) = (line for line in said if name in line)
        assert text in line
        assert "JPEG lossless" not in line
    rows = read_table(tmp_path / "out")
    assert {row["name"] for row in rows} >= {"'=good.png", "good.avi"}


def test_a_frame_of_4k_is_done(weights, tmp_path):
    frames, masks = sweep(1)
    large = cv2.resize(frames[0], (3840, 2160), interpolation=cv2.INTER_LINEAR)
    Image.fromarray(large).save(tmp_path / "large.png")
    (row,) = run(weights, tmp_path / "large.png", tmp_path / "out")
    assert (row["height"], row["width"]) == ("2160", "3840")
    assert cv2.imread(str(tmp_path / "out/masks/large.png"), 0).shape == (2160, 3840)


def test_an_absent_camera_an_empty_folder_and_nothing(weights, tmp_path):
    with pytest.raises(ValueError, match="1 of 1 files were left out"):
        run(weights, "97", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no picture, video or DICOM file"):
        run(weights, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is missing; expected a picture"):
        run(weights, tmp_path / "none.mp4", tmp_path / "out")
    with pytest.raises(ValueError, match="a camera has no end"):
        run(weights, "0", tmp_path / "out", "--prevalence", "0.5")


def test_a_camera_is_followed_until_enough_was_seen_or_it_is_gone(
    weights, tmp_path, monkeypatch, capsys
):
    results = tmp_path / "out" / ".nerve~results"

    def capture(number):
        def wait():  # until the frame before is done, so that none is dropped
            while results.exists() and camera.reads - 1 > len(list(results.glob("m*/*"))):
                time.sleep(0.01)

        camera = FakeCamera(sweep()[0], wait)
        return camera

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    rows = run(weights, "0", tmp_path / "out", "--frames", "4")
    assert [row["name"] for row in rows] == ["camera0"] * 4
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 4
    rows = run(weights, "0", tmp_path / "out")
    assert len(rows) == len(list((tmp_path / "out" / "masks").iterdir())) == 6
    overlay = sources.open_source(tmp_path / "out" / "overlays" / "camera0.mp4")
    assert len(list(overlay.frames)) == 6
    output = capsys.readouterr().out
    assert f"note: camera0 {cameras.GONE}" in output
    assert "dropped" not in output


def test_quitting_the_window_keeps_what_was_shown(weights, tmp_path, monkeypatch):
    for name in "ab":
        write_video(tmp_path / f"{name}.avi", sweep(5)[0])
    shown = []

    def show(self, picture, frame, mask, stem):
        shown.append((stem, picture.shape, frame.shape, mask.shape))
        self.closed = len(shown) == 3

    monkeypatch.setattr(window, "check_display", lambda: None)
    monkeypatch.setattr(window.Window, "show", show)
    rows = run(weights, tmp_path, tmp_path / "out", "--show")
    size = HEIGHT, WIDTH
    assert shown == [("a", (*size, 3), size, size)] * 3
    assert [(row["name"], row["frame"]) for row in rows] == [("a.avi", n) for n in "123"]
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 3


def test_dicom_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    write_dicom(tmp_path / "a.dcm", sweep(1)[0])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements/dicom\.txt"):
        sources.open_source(tmp_path / "a.dcm")


def test_ctrl_c_finishes_the_file(weights, tmp_path):
    frames, _ = sweep()
    write_video(tmp_path / "long.avi", np.concatenate([frames] * 400))
    process = start_long(weights, tmp_path)
    deadline = time.monotonic() + 120
    while len(list(Path(tmp_path).glob("out/.nerve~results/masks/*"))) < 40:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "stopped: what was found so far is written" in errors
    assert "Traceback" not in errors
    rows = read_table(tmp_path / "out")
    assert 40 <= len(rows) < 2400
    masks = {path.name for path in tmp_path.glob("out/masks/*")}
    assert masks == {f"long_{int(row['frame']):05}.png" for row in rows}
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlays" / "long.mp4"))
    assert abs(capture.get(cv2.CAP_PROP_FRAME_COUNT) - len(rows)) <= 1
    assert json.loads(weights.with_suffix(".json").read_text())["threshold"] == 0.5


def test_a_killed_run_leaves_the_results_before_it_and_what_it_found(weights, tmp_path):
    frames, out = np.concatenate([sweep()[0]] * 50), tmp_path / "out"
    write_video(tmp_path / "long.avi", frames)
    assert start_long(weights, tmp_path).wait(120) == 0
    before = contents(out)
    assert len(before) == len(frames) + 2
    shares = 0.1, 0.5, 0.95  # more each time than the killed one has left
    for share in shares:
        process = start_long(weights, tmp_path, "--smoothing", "0.9")
        while len(list(out.glob(".nerve~results/masks/*"))) < share * len(frames):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.wait(60)
        assert contents(out) == before, share
    assert start_long(weights, tmp_path, "--smoothing", "0.9").wait(120) == 0
    assert contents(out).keys() == before.keys()
    assert contents(out) != before
    assert not list(out.glob(".nerve~*"))
    for number, share in enumerate(shares, 1):
        kept = out / f"unfinished_{number}"
        masks, rows = sorted(kept.glob("masks/*")), read_table(kept)
        assert len(masks) >= share * len(frames)
        # each mask is written before its row
        assert [f"long_{int(row['frame']):05}.png" for row in rows] in (
            [path.name for path in masks],
            [path.name for path in masks[:-1]],
        )


def test_a_cut_overlay_does_not_get_its_name(weights, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (20, HEIGHT, WIDTH), np.uint8)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_video(folder / "a.avi", noise)
    Image.fromarray(noise[0]).save(folder / "b.png")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, hard))
    try:
        with pytest.raises(ValueError, match="1 of 2 files were left out"):
            run(weights, folder, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    expected = r"left out: .*/a\.avi: a\.mp4 could not be written: of its 20 frames \d+ can"
    assert re.search(expected, capsys.readouterr().err)
    assert [path.name for path in (out / "overlays").iterdir()] == ["b.png"]
    assert len(read_table(out)) == len(list((out / "masks").iterdir())) == 21


def test_no_file_costs_another_its_results(weights, tmp_path, monkeypatch, capsys):
    for name in "abc":
        Image.fromarray(sweep(1)[0][0]).save(tmp_path / f"{name}.png")
    real = pictures.read_picture

    def read(path):
        if path.name == "a.png":
            raise MemoryError
        if path.name == "b.png":
            raise RuntimeError("a decoder's\nown words")
        return real(path)

    monkeypatch.setattr(pictures, "read_picture", read)
    with pytest.raises(ValueError, match="2 of 3 files were left out"):
        run(weights, tmp_path, tmp_path / "out")
    assert [row["name"] for row in read_table(tmp_path / "out")] == ["c.png"]
    errors = capsys.readouterr().err
    assert f"left out: {tmp_path / 'a.png'}: MemoryError\n" in errors
    assert f"left out: {tmp_path / 'b.png'}: RuntimeError a decoder's own words" in errors


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.5])
def test_what_is_no_probability_makes_no_mask(
    weights, tmp_path, monkeypatch, value, capsys
):
    frames = sweep(2)[0]
    for name, frame in zip("ab", frames, strict=True):
        Image.fromarray(frame).save(tmp_path / f"{name}.png")

    def give(x):  # of one pixel of each frame
        found = np.full(x.shape, 0.5, np.float32)
        found[:, 3, 4] = value
        return found

    model = SimpleNamespace(predict_on_batch=give)
    monkeypatch.setattr(predict, "load_model", lambda *_: model)
    with pytest.raises(ValueError, match="2 of 2 files were left out"):
        run(weights, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "frames.csv").exists()
    said = rf"/b\.png: the network gives .*{value:g}.*; expected probabilities, 0 to 1"
    assert re.search(said, capsys.readouterr().err)


def test_results_never_replace_what_is_read_or_others_made(weights, tmp_path):
    frames, study = sweep(2)[0], tmp_path / "study"
    for name in ("masks", "overlays"):
        (study / name).mkdir(parents=True)
    for name in ("a.png", "masks/a.png", "overlays/a.png"):
        Image.fromarray(frames[0]).save(study / name)
    write_video(study / "overlays" / "clip.mp4", frames, "mp4v")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "masks").symlink_to(study)
    (tmp_path / "link.mp4").symlink_to(study / "overlays" / "clip.mp4")
    (tmp_path / "b.png").write_bytes((study / "a.png").read_bytes())
    before = contents(tmp_path)
    for source, out, expected in (
        (study, study, "frames to read lie in"),
        (study / "masks", study, "frames to read lie in .*masks, where results are"),
        (study / "overlays" / "clip.mp4", study, "frames to read lie in .*overlays"),
        (tmp_path / "link.mp4", study, "frames to read lie in .*overlays"),
        (study, tmp_path / "linked", "frames to read lie in .*masks"),
        (
            tmp_path / "b.png",
            study,
            "holds masks or overlays that no run",
        ),
    ):
        with pytest.raises(ValueError, match=f"--out .*{expected}.*; choose another"):
            run(weights, source, out)
    assert contents(tmp_path) == before


def test_palettes_of_dicom_are_looked_up(tmp_path):
    frames, _ = sweep(1)
    greys = np.arange(255, -1, -1, dtype=np.uint8)  # index 0 is white
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        palette |= {f"{name}Descriptor": [256, 0, 8], f"{name}Data": greys.tobytes()}
    write_dicom(tmp_path / "a.dcm", 255 - frames, **palette)
    (found,) = sources.open_source(tmp_path / "a.dcm").frames
    np.testing.assert_array_equal(found, frames[0])


@pytest.mark.parametrize(
    ("says", "rate"),
    [
        ({"CineRate": None, "FrameTime": 100}, 10),  # ms
        ({"CineRate": None, "RecommendedDisplayFrameRate": None}, sources.RATE),
        ({"CineRate": None, "RecommendedDisplayFrameRate": 30}, 30),
        ({"CineRate": 0, "FrameTime": 0}, sources.RATE),
    ],
)
def test_the_rate_of_a_cine_loop(tmp_path, says, rate):
    frames, _ = sweep(2)
    write_dicom(tmp_path / "a.dcm", frames, **says)
    assert sources.open_source(tmp_path / "a.dcm").rate == pytest.approx(rate)


def test_an_overlay_that_cannot_be_written_is_named_and_the_masks_are(
    weights, tmp_path, monkeypatch, capsys
):
    write_video(tmp_path / "a.avi", sweep(2)[0])
    monkeypatch.setattr(video_writing, "MAX_SIDE", WIDTH - 1)
    rows = run(weights, tmp_path / "a.avi", tmp_path / "out")
    assert len(rows) == len(list((tmp_path / "out" / "masks").iterdir())) == 2
    assert not list((tmp_path / "out" / "overlays").iterdir())
    text = capsys.readouterr().out
    assert text.count("note: no a.mp4: H.264 takes no 64 x 80 pixels") == 1
    assert "frames/s:" not in text  # as where the overlay lies


def test_a_loop_that_breaks_off_keeps_its_segmentation(weights, tmp_path, monkeypatch):
    frames, _ = sweep(4)
    write_dicom(tmp_path / "cine.dcm", frames)
    seen = []

    def stop(*_):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(own_predictions.advice.Watch, "see", stop)
    with pytest.raises(KeyboardInterrupt, match="what was found so far is written"):
        run(weights, tmp_path / "cine.dcm", tmp_path / "out", "--dicom-seg")
    found = highdicom.seg.segread(tmp_path / "out" / "segmentations" / "cine.dcm")
    masks = sorted((tmp_path / "out" / "masks").iterdir())
    assert found.NumberOfFrames == len(masks) == 3  # of the rest it says nothing
    for frame, path in zip(found.pixel_array, masks, strict=True):
        np.testing.assert_array_equal(frame > 0, cv2.imread(str(path), 0) > 0)


def test_a_share_of_a_video_is_ranked_as_it_is_limited(weights, tmp_path):
    # smoothed, and of the first frames alone: exactly half of these are kept
    frames = np.concatenate([sweep(6)[0], np.zeros((6, HEIGHT, WIDTH), np.uint8)])
    write_video(tmp_path / "a.avi", frames)
    settings = json.loads(weights.with_suffix(".json").read_text())
    settings |= {"smallest_area": 0.0, "threshold": 0.0}  # nothing else empties a mask
    (tmp_path / "all.json").write_text(json.dumps(settings))
    flags = ["--prevalence", "0.5", "--frames", "8", "--smoothing", "0.5"]
    flags += ["--settings", str(tmp_path / "all.json")]
    rows = run(weights, tmp_path / "a.avi", tmp_path / "out", *flags)
    limit = sorted(float(row["presence"]) for row in rows)[4]
    assert len(rows) == 8
    for row in rows:
        if float(row["presence"]) < limit:
            assert row["area"] == "0"
    assert sum(int(row["area"]) > 0 for row in rows) == 4


def test_a_cut_video_is_noted_with_both_numbers(weights, tmp_path, capsys):
    write_video(tmp_path / "a.avi", np.concatenate([sweep(6)[0]] * 5))
    run(weights, tmp_path / "a.avi", tmp_path / "out", "--frames", "20")
    assert "should hold" not in capsys.readouterr().out
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) * 55 // 100])
    rows = run(
        weights, tmp_path / "a.avi", tmp_path / "out", "--prevalence", "0.5"
    )  # reads it twice
    assert 10 < len(rows) < 20
    text = capsys.readouterr().out
    assert text.count(f"a.avi should hold 30 frames, of which {len(rows)} could") == 1


def test_a_still_called_as_a_frame_of_a_video_is_refused(tmp_path):
    frames, _ = sweep(2)
    write_video(tmp_path / "clip.avi", frames)
    for name in ("clip_0001", "other_00001", "clip_a_00001"):
        Image.fromarray(frames[0]).save(tmp_path / f"{name}.png")
    write_video(tmp_path / "clip_00007.avi", frames)  # its masks: clip_00007_00001.png
    write_dicom(tmp_path / "still.dcm", frames[:1])
    write_dicom(tmp_path / "still_00001.dcm", frames[:1])
    assert len(sources.list_files(tmp_path)) == 7
    Image.fromarray(frames[0]).save(tmp_path / "clip_00001.png")
    with pytest.raises(ValueError, match=r"clip_00001\.png is called as a frame of clip"):
        sources.list_files(tmp_path)


def test_files_called_by_numbers_with_points_keep_their_names(weights, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["1.2.840.1", "1.2.840.2", "IM.001", "IM.002", "a.b.DCM"]
    for name in names:
        write_dicom(folder / name, sweep(1)[0])
    rows = run(weights, folder, tmp_path / "out", "--dicom-seg")
    assert [row["name"] for row in rows] == names
    stems = {*names[:-1], "a.b"}
    for kind, suffix in (
        ("masks", "png"),
        ("overlays", "png"),
        ("segmentations", "dcm"),
    ):
        found = {path.name for path in (tmp_path / "out" / kind).iterdir()}
        assert found == {f"{stem}.{suffix}" for stem in stems}
    write_dicom(folder / "IM.001.dcm", sweep(1)[0])
    with pytest.raises(ValueError, match=r"2 files called IM\.001; their masks"):
        sources.list_files(folder)


@pytest.mark.parametrize("name", [b"12:30.avi", b"\xff.avi"])
def test_videos_of_any_name_are_read_and_their_overlays_written(
    weights, tmp_path, monkeypatch, name
):
    write_video(tmp_path / "a.avi", sweep(2)[0])
    path = (tmp_path / "a.avi").rename(tmp_path / os.fsdecode(name))
    monkeypatch.chdir(tmp_path)
    assert len(run(weights, path.name, Path(os.fsdecode(b"out\xff")))) == 2
    (overlay,) = tmp_path.glob("out*/overlays/*")
    assert overlay.stem == path.stem
    assert len(list(sources.open_source(overlay).frames)) == 2


def test_overlays_keep_the_times_of_a_video_whose_rate_varies(weights, tmp_path, capsys):
    times = np.array([0, 40, 500, 620, 1500])  # ms
    with av.open(tmp_path / "a.mkv", "w") as container:  # which states no number of frames
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, shown in zip(sweep(5)[0], times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts, frame.time_base = int(shown), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(run(weights, tmp_path / "a.mkv", tmp_path / "out")) == 5
    assert "does not say how many frames it should hold: 5" in capsys.readouterr().out
    overlay = sources.open_source(tmp_path / "out" / "overlays" / "a.mp4")
    assert len(list(overlay.frames)) == 5
    np.testing.assert_allclose(overlay.times, times / 1000, atol=1e-4)


def test_an_absent_decoder_is_named_with_what_to_install(tmp_path):
    dataset = write_dicom(tmp_path / "a.dcm", sweep(1)[0])
    dataset.PixelData = encapsulate([b"lossless"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match=r"needs: pip install pylibjpeg pylibjpeg-libjpeg"):
        list(sources.open_source(tmp_path / "a.dcm").frames)


def test_what_an_earlier_run_wrote_of_a_source_goes_and_nothing_else(weights, tmp_path):
    frames, out = sweep()[0], tmp_path / "out"
    write_dicom(tmp_path / "cine.dcm", frames)
    write_dicom(tmp_path / "still.dcm", frames[:1])
    run(weights, tmp_path / "cine.dcm", out, "--dicom-seg")
    run(weights, tmp_path / "still.dcm", out, "--dicom-seg")
    others = ["masks/cine_1.png", "masks/cine_00001_x.png", "masks/cine.png"]
    others += ["masks/cine2_00001.png", "overlays/cine.png", "segmentations/other.dcm"]
    others += ["masks/still_00001.png", "overlays/still.mp4"]
    for name in others:
        (out / name).write_text("mine")
    (out / "masks.scores.json").write_text("evaluate.py's, of the masks replaced")
    run(weights, tmp_path / "cine.dcm", out, "--frames", "2")
    assert not (out / "masks.scores.json").exists()
    run(weights, tmp_path / "still.dcm", out)
    assert {path.name for path in (out / "segmentations").iterdir()} == {"other.dcm"}
    masks = {f"masks/{path.name}" for path in (out / "masks").iterdir()}
    expected = {"masks/cine_00001.png", "masks/cine_00002.png", "masks/still.png"}
    assert masks == expected | {name for name in others if name.startswith("masks")}
    for name in others:
        assert (out / name).read_text() == "mine"


def test_a_file_that_cannot_be_written_leaves_the_others(weights, tmp_path, capsys):
    folder, long = tmp_path / "in", "n" * 250
    folder.mkdir()
    for name in ("a", long, "z"):
        Image.fromarray(sweep(1)[0][0]).save(folder / f"{name}.png")
    with pytest.raises(ValueError, match="1 of 3 files were left out"):
        run(weights, folder, tmp_path / "out")
    assert [row["name"] for row in read_table(tmp_path / "out")] == ["a.png", "z.png"]
    assert "left out: [Errno 36] File name too long" in capsys.readouterr().err


def test_a_lacking_segmentation_is_told_from_what_is_left_out(weights, tmp_path, capsys):
    path, out = tmp_path / "cine.dcm", tmp_path / "out"
    write_dicom(path, sweep()[0])
    dataset = pydicom.dcmread(path)
    del dataset.SOPClassUID
    dataset.save_as(path)
    with pytest.raises(ValueError, match="1 of 1 files have no segmentation"):
        run(weights, path, out, "--dicom-seg")
    assert len(read_table(out)) == len(list((out / "masks").iterdir())) == 6
    errors = capsys.readouterr().err
    assert "left out" not in errors
    assert f"no segmentation: {path}: no DICOM Segmentation of it" in errors
    assert "no attribute 'SOPClassUID'" in errors


def test_masks_of_a_loop_are_kept_as_bits(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(dicom_seg, "write", lambda _, masks, out: kept.extend(masks))
    write_dicom(tmp_path / "cine.dcm", sweep()[0])
    source = sources.open_source(tmp_path / "cine.dcm")
    with own_predictions.collect_masks(source, tmp_path, []) as keep:
        for mask in sweep()[1]:
            keep(mask // 255)
    assert sum(mask.nbytes for mask in kept) == 6 * HEIGHT * WIDTH / 8


def test_a_lacking_segmentation_does_not_hide_what_went_wrong_before(tmp_path):
    path, lacking = tmp_path / "cine.dcm", []
    write_dicom(path, sweep()[0])
    source = sources.open_source(path)
    path.write_bytes(b"")  # so that no segmentation can be written

    def break_off():
        with own_predictions.collect_masks(source, tmp_path, lacking) as keep:
            keep(np.ones((HEIGHT, WIDTH), np.uint8))
            raise ValueError("cannot be decoded")

    with pytest.raises(ValueError, match="cannot be decoded"):
        break_off()
    assert "cine.dcm: no DICOM Segmentation of it" in lacking[0]


def test_segmentations_without_their_packages_or_of_no_dicom(
    weights, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(sweep(1)[0][0]).save(folder / "a.png")
    (folder / "notes.txt").write_text("")
    run(weights, folder, tmp_path / "out", "--dicom-seg")
    text = capsys.readouterr().out
    assert text.count("note: no segmentation: --dicom-seg is of DICOM files") == 1
    assert text.count("are not looked at") == 1
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements/dicom\.txt"):
        run(weights, folder, tmp_path / "new", "--dicom-seg")
    assert not (tmp_path / "new").exists()


def test_outlines_of_all_kinds_of_frames_come_back_as_their_masks(weights, tmp_path):
    frames, folder, out = sweep(3)[0], tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_video(folder / "clip.avi", frames)
    write_dicom(folder / "still.dcm", frames[:1])
    Image.fromarray(frames[1] * 0).save(folder / "black.bmp")  # in which none is found
    run(weights, folder, out, "--labels", "cvat")
    assert (out / "labels" / "annotations.xml").exists()
    run(weights, folder, out, "--labels", "labelme")
    names = ["black", "clip_00001", "clip_00002", "clip_00003", "still"]
    expected = {f"{name}.{end}" for name in names for end in ("json", "png")}
    assert {path.name for path in (out / "labels").iterdir()} == expected
    words = ["--images", str(out / "labels"), "--masks", str(out / "labels")]
    extract_data.main([*words, "--data", str(tmp_path / "data")])
    for name, found in zip(
        names, np.load(tmp_path / "data" / "imgs_mask_train.npy"), strict=True
    ):
        mask = cv2.imread(str(out / "masks" / f"{name}.png"), 0)
        assert name == "black" or dice(found, mask) >= 0.995
        assert mask.any() == found.any() == (name != "black")
    shown = cv2.imread(str(out / "labels" / "still.png"), 0)
    np.testing.assert_array_equal(shown, frames[0])


@pytest.mark.parametrize("kind", ["labelme", "cvat"])
def test_a_folder_for_each_patient_keeps_same_names_apart(weights, tmp_path, kind, capsys):
    frames, folder, out = sweep()[0], tmp_path / "in", tmp_path / "out"
    for name, frame in (("anna", frames[0]), ("dick", frames[1])):
        (folder / name / "deeper").mkdir(parents=True)
        Image.fromarray(frame).save(folder / name / "7.png")
        Image.fromarray(frame).save(folder / name / "deeper" / "8.png")
    (folder / "DICOMDIR").write_text("of none")
    write_video(folder / "dick" / "clip.avi", frames)
    write_dicom(folder / "dick" / "still.dcm", frames[:1])
    keys = tmp_path / "keys" / "dick"
    keys.mkdir(parents=True)
    square = np.zeros_like(frames[0])
    square[10:30, 10:40] = 255  # where the network finds nothing
    Image.fromarray(square).save(keys / "clip_00003.png")
    flags = ["--labels", kind, "--dicom-seg"]
    rows = run(weights, folder, out, *flags)
    text = capsys.readouterr().out
    assert "3 other files or folders" in text  # DICOMDIR, deeper twice
    assert "its folders are read: anna, dick\n" in text
    clip = [f"dick/clip_{number:05}" for number in range(1, 7)]
    names = ["anna/7", "dick/7", *clip, "dick/still"]
    found = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    written = {str(path) for path in found if not path.name.startswith(".")}
    expected = {f"masks/{name}.png" for name in names} | {"frames.csv"}
    expected |= {f"overlays/{name}.png" for name in ("anna/7", "dick/7", "dick/still")}
    expected |= {"overlays/dick/clip.mp4", "segmentations/dick/still.dcm"}
    expected |= {f"labels/{name}.png" for name in names}
    labelme = {f"labels/{name}.json" for name in names}
    expected |= labelme if kind == "labelme" else {"labels/annotations.xml"}
    assert written == expected
    assert [row["name"] for row in rows][:3] == [
        "anna/7.png",
        "dick/7.png",
        "dick/clip.avi",
    ]
    # what comes back is read with the folders as subjects, each mask its own
    words = ["--images", str(out / "labels"), "--masks", str(out / "labels")]
    extract_data.main([*words, "--data", str(tmp_path / "data"), "--missing-empty"])
    record = json.loads((tmp_path / "data" / "extract.json").read_text())
    assert record["train"]["name"] == [f"{name}.png" for name in names]
    assert set(record["subject_names"].values()) == {"anna", "dick"}
    masks = np.load(tmp_path / "data" / "imgs_mask_train.npy")
    for name, mask in zip(names, masks, strict=True):
        assert dice(cv2.imread(str(out / "masks" / f"{name}.png"), 0), mask) >= 0.99
    with pytest.raises(ValueError, match="frames to read lie in"):
        run(weights, folder, folder)
    with pytest.raises(ValueError, match="^3 of 4 files were left out"):  # stills
        run(weights, folder, out, "--keyframes", str(keys.parent))
    drawn = cv2.imread(str(out / "masks" / "dick" / "clip_00003.png"), 0)
    np.testing.assert_array_equal(drawn, square)
    assert not (out / "labels" / "dick" / "clip_00003.png").exists()


def test_corrected_outlines_are_never_replaced_and_others_go_with_their_masks(
    weights, tmp_path
):
    path, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(sweep(1)[0][0]).save(path)
    run(weights, path, out, "--labels", "labelme")
    file = out / "labels" / "a.json"
    written = (out / "frames.csv").stat().st_mtime
    os.utime(file, (written + 60, written + 60))
    with pytest.raises(ValueError, match=r"were corrected since: a\.json; move them"):
        run(weights, path, out)
    assert file.exists()
    os.utime(file, (written, written))
    run(weights, path, out)  # of masks that are no longer there
    assert not list((out / "labels").iterdir())


def test_a_clip_is_done_from_keyframes_and_bad_ones_are_named(weights, tmp_path, capsys):
    frames, masks = sweep(6)
    write_video(tmp_path / "clip.avi", frames)
    keys = tmp_path / "keys"
    keys.mkdir()
    square = np.zeros_like(masks[0])
    square[10:30, 10:40] = 255  # where the network finds nothing
    Image.fromarray(square).save(keys / "clip_00003.png")
    Image.fromarray(square[:50]).save(keys / "clip_00005.png")
    flags = ["--keyframes", str(keys), "--labels", "labelme"]
    with pytest.raises(ValueError, match="^1 keyframes were left out"):
        run(weights, tmp_path / "clip.avi", tmp_path / "out", *flags)
    rows = read_table(tmp_path / "out")
    assert len(rows) == len(list((tmp_path / "out" / "masks").iterdir())) == 6
    found = cv2.imread(str(tmp_path / "out" / "masks" / "clip_00003.png"), 0)
    np.testing.assert_array_equal(found, square)
    assert rows[2]["area"] == "600"
    assert (tmp_path / "out" / "labels" / "clip_00003.json").exists()
    output = capsys.readouterr()
    assert "clip_00005.png is of 50 x 80 pixels, clip_00005.png of 64 x 80" in output.err
    assert "frames 1 to 2 and 4 to 6 follow one alone" in output.out
    with pytest.raises(ValueError, match="not with a camera"):
        run(weights, "97", tmp_path / "out", *flags)
