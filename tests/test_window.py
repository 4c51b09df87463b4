"""The window of predict.py --show: what it shows, and what its keys do."""

import os
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import ROOT

import predict
from nerve.frames import window
from nerve.frames.overlays import PREDICTION_COLOUR, outline

FRAME = np.full((48, 64), 90, np.uint8)
MASK = np.zeros((48, 64), np.uint8)
MASK[10:30, 20:50] = 1
PICTURE = outline(FRAME, MASK, PREDICTION_COLOUR)
SHOW = """
import sys, time
sys.path[:0] = [{tests!r}, {root!r}]
from test_window import FRAME, MASK, PICTURE
from nerve.frames.window import Window
shown = Window(None)
while True:
    shown.show(PICTURE, FRAME, MASK, "a")
    time.sleep(0.02)
"""


class Screen:
    """Stands in for OpenCV's windows; keys are those to come, "" for none."""

    def __init__(self, monkeypatch, keys=""):
        self.keys, self.shown, self.waited, self.visible = list(keys), [], 0, 1.0
        for name in ("namedWindow", "resizeWindow", "destroyAllWindows"):
            monkeypatch.setattr(cv2, name, lambda *given: None)
        monkeypatch.setattr(cv2, "imshow", lambda _, picture: self.shown.append(picture))
        monkeypatch.setattr(cv2, "pollKey", self.next_key)
        monkeypatch.setattr(cv2, "waitKey", self.wait)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *given: self.visible)

    def next_key(self):
        return ord(self.keys.pop(0)) if self.keys else -1

    def wait(self, _):
        self.waited += 1
        return self.next_key()


def test_pictures_are_shown_in_their_colours(monkeypatch, tmp_path):
    screen = Screen(monkeypatch)
    window.Window(tmp_path).show(PICTURE, FRAME, MASK, "a")
    (found,) = screen.shown
    np.testing.assert_array_equal(found[..., ::-1], PICTURE)  # OpenCV has blue first
    assert not list(tmp_path.iterdir())


def test_space_pauses_until_it_comes_again(monkeypatch, tmp_path):
    screen = Screen(monkeypatch, " xx x")
    shown = window.Window(tmp_path)
    shown.show(PICTURE, FRAME, MASK, "a")
    assert (screen.waited, screen.keys) == (3, ["x"])
    assert not shown.closed


@pytest.mark.parametrize("keys", ["q", "\x1b", " q", " \x1b"])
def test_q_and_escape_close_it_also_where_it_pauses(monkeypatch, tmp_path, keys):
    screen = Screen(monkeypatch, keys)
    shown = window.Window(tmp_path)
    shown.show(PICTURE, FRAME, MASK, "a")
    assert shown.closed
    assert not screen.keys


def test_closing_it_by_the_mouse_is_quitting(monkeypatch, tmp_path):
    screen = Screen(monkeypatch)
    screen.visible = 0.0
    shown = window.Window(tmp_path)
    shown.show(PICTURE, FRAME, MASK, "a")
    assert shown.closed


def test_s_saves_frame_and_mask_and_replaces_none(monkeypatch, tmp_path, capsys):
    Screen(monkeypatch, "ss")
    for _ in range(2):
        window.Window(tmp_path / "saved").show(PICTURE, FRAME, MASK, "camera0")
    names = [f"camera0_0000{k}{end}.png" for k in (1, 2) for end in ("", "_mask")]
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == sorted(names)
    for name, expected in zip(names, [FRAME, 255 * MASK] * 2, strict=True):
        found = cv2.imread(str(tmp_path / "saved" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, expected)
    assert capsys.readouterr().out.count("saved: ") == 2


def test_no_display_is_one_line_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", FRAME)[1])
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    flags = ["--weights", str(ROOT / "weights/unet_nerve_small.h5"), "--show"]
    flags += ["--input", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="^--show: no window can be opened here"):
        predict.main(flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not shutil.which("Xvfb"), reason="Xvfb is absent")
def test_a_real_window_shows_the_outline(tmp_path):
    read, write = os.pipe()
    place = ["-displayfd", str(write), "-fbdir", str(tmp_path)]
    server = subprocess.Popen(
        ["Xvfb", "-screen", "0", "320x240x24", *place],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        display = f":{os.read(read, 9).decode().strip()}"
        code = SHOW.format(tests=str(ROOT / "tests"), root=str(ROOT))
        variables = os.environ | {"DISPLAY": display}
        shower = subprocess.Popen([sys.executable, "-c", code], env=variables)
        deadline = time.monotonic() + 60
        while not (screenshot(tmp_path) == PREDICTION_COLOUR).all(axis=2).sum() > 100:
            assert time.monotonic() < deadline
            assert shower.poll() is None
            time.sleep(0.2)
        shower.kill()
        shower.wait()
    finally:
        server.terminate()
        server.wait()
        os.close(read)


def screenshot(folder):
    """Return what Xvfb shows, an RGB array; its file is an XWD dump."""
    content = (folder / "Xvfb_screen0").read_bytes()
    header = np.frombuffer(content, ">u4", 25)
    height, width, begin = header[5], header[4], header[0] + 12 * header[19]
    pixels = np.frombuffer(content, np.uint8, 4 * height * width, begin)
    return pixels.reshape(height, width, 4)[..., 2::-1]
