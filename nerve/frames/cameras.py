"""Frames of cameras: always the latest, older ones are dropped and never queue up."""

import contextlib
import queue
import threading
import time
from array import array

import cv2

from nerve.frames.videos import RATE, Clip

GONE = "gives no more frames: it is unplugged, or another program's"
SILENCE = 10  # s without a frame, after which a camera is taken for gone


def follow(capture: cv2.VideoCapture, latest: queue.Queue, stop: threading.Event) -> None:
    """Put each frame of a camera in the place of the one before, None after the last.

    Args:
        capture: Released at the end, or once `stop` is set.
        latest: Takes `(number of the frame, from 1, second, frame)`.
    """
    number = 0
    try:
        while not stop.is_set():
            found, frame = capture.read()
            if not found:
                return
            number += 1
            with contextlib.suppress(queue.Empty):
                latest.get_nowait()
            latest.put((number, time.monotonic(), frame))
    except cv2.error:
        return
    finally:
        capture.release()
        latest.put(None)


def open_camera(number: int) -> Clip:
    """Return the frames of a camera."""
    logging, name = cv2.utils.logging, f"camera{number}"
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # the errors here say what is wrong
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise ValueError(f"there is no camera {number}, or another program holds it")
    rate, times, notes = capture.get(cv2.CAP_PROP_FPS), array("d"), []
    latest, stop = queue.Queue(), threading.Event()
    thread = threading.Thread(target=follow, args=(capture, latest, stop), daemon=True)

    def frames():
        thread.start()
        begin = None
        try:
            while item := latest.get(timeout=SILENCE):
                given, now, frame = item
                begin = now if begin is None else begin
                times.append(now - begin)
                if dropped := given - len(times):
                    text = f"of {given} frames of {name}, {dropped} were dropped for newer"
                    notes[:] = [f"{text} ones"]
                yield frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            notes.append(f"{name} {GONE}")
        except queue.Empty:
            notes.append(f"{name} has given no frame for {SILENCE} s: it is taken for gone")
        finally:
            stop.set()
            thread.join(1)

    return Clip(frames(), None, rate if 0 < rate < 1000 else RATE, notes, times)
