"""Cameras: the latest frame, and what is said of one that is gone."""

import itertools
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import wait_for

from nerve.frames import cameras, sources


class FakeCamera:
    """Gives frames, each after a call of `before`, then none, as one that is unplugged."""

    def __init__(self, frames, before):
        self.frames, self.before, self.reads = iter(frames), before, 0
        self.released = threading.Event()

    def isOpened(self):
        return True

    def get(self, _):
        return 30.0

    def read(self):
        self.reads += 1
        self.before()
        frame = next(self.frames, None)
        return frame is not None, frame

    def release(self):
        self.released.set()


def numbered(count):
    """Return colour frames whose grey is their number."""
    return [np.full((4, 6, 3), number, np.uint8) for number in range(count)]


@pytest.fixture
def plug_in(monkeypatch):
    """A function that makes a FakeCamera camera 0, and returns it with its source."""

    def plug(*given):
        camera = FakeCamera(*given)
        monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
        return camera, sources.open_source(Path("0"))

    return plug


def test_every_frame_of_a_slow_camera_comes_with_its_time(plug_in):
    gate = threading.Semaphore(0)
    camera, source = plug_in(numbered(5), gate.acquire)
    frames = iter(source.frames)
    for number in range(5):
        time.sleep(0.01)
        gate.release()
        assert next(frames)[0, 0] == number
    gate.release()
    assert not list(frames)
    assert source.times[0] == 0
    assert (np.diff(source.times) >= 0.01).all()
    assert source.notes == [f"camera0 {cameras.GONE}"]
    assert camera.released.wait(5)


def test_frames_that_are_late_are_dropped_for_the_latest(plug_in):
    gate = threading.Semaphore(0)
    camera, source = plug_in(numbered(7), gate.acquire)
    frames = iter(source.frames)
    gate.release()
    assert next(frames)[0, 0] == 0
    gate.release(4)
    wait_for(lambda: camera.reads == 6)
    assert next(frames)[0, 0] == 4
    assert source.notes == ["of 5 frames of camera0, 3 were dropped for newer ones"]
    gate.release(9)
    wait_for(camera.released.is_set)
    assert next(frames)[0, 0] == 6  # the last one of all is not lost
    assert not list(frames)
    assert source.notes[0] == "of 7 frames of camera0, 4 were dropped for newer ones"


def test_a_camera_that_falls_silent_is_taken_for_gone(plug_in, monkeypatch):
    monkeypatch.setattr(cameras, "SILENCE", 0.3)
    gate = threading.Semaphore(1)
    camera, source = plug_in(numbered(2), gate.acquire)
    assert len(list(source.frames)) == 1
    assert source.notes == ["camera0 has given no frame for 0.3 s: it is taken for gone"]
    gate.release()
    assert camera.released.wait(5)


def test_a_camera_is_released_when_enough_was_seen(plug_in):
    camera, source = plug_in(itertools.repeat(numbered(1)[0]), lambda: time.sleep(0.001))
    assert next(source.frames).shape == (4, 6)
    source.frames.close()
    assert camera.released.wait(5)
