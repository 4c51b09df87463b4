"""A window that shows frames with what was found in them, and heeds keys."""

import itertools
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from nerve.files import atomic
from nerve.frames.overlays import write_picture

TITLE = "space: pause, s: save frame and mask, q: quit"
FLAGS = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
QUIT = (ord("q"), 27)  # Esc
PROBE = "import cv2; cv2.namedWindow('display'); cv2.pollKey()"


def check_display() -> None:
    """Refuse, by a ValueError, to open a window where OpenCV would end this process."""
    if subprocess.run([sys.executable, "-c", PROBE], capture_output=True).returncode:
        raise ValueError(
            "--show: no window can be opened here, as without a display or by ssh; without "
            "--show, masks and overlays are written all the same"
        )


class Window:
    """Shows pictures until its user quits; frames chosen are saved in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.opened, self.closed = folder, False, False

    def show(self, picture: np.ndarray, frame: np.ndarray, mask: np.ndarray, stem: str):
        """Show a picture, uint8 RGB, and do what its user wants.

        Frame and mask, uint8 `(height, width)`, this of 0 and 1, are saved on demand, under
        names after the stem.
        """
        if not self.opened:
            cv2.namedWindow(TITLE, FLAGS)
            cv2.resizeWindow(TITLE, picture.shape[1], picture.shape[0])
            self.opened = True
        cv2.imshow(TITLE, np.ascontiguousarray(picture[..., ::-1]))
        key, paused = cv2.pollKey(), False
        while True:
            gone = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
            if gone or key in QUIT:
                self.closed = True
                cv2.destroyAllWindows()
                return
            if key == ord("s"):
                save_pair(self.folder, stem, frame, mask)
            paused ^= key == ord(" ")
            if not paused:
                return
            key = cv2.waitKey(30)


def save_pair(folder: Path, stem: str, frame: np.ndarray, mask: np.ndarray) -> None:
    """Write a frame and its mask, `NAME_mask` beside `NAME`; none is ever replaced."""
    atomic.make_folder((folder / stem).parent)
    names = (f"{stem}_{number:05}" for number in itertools.count(1))
    name = next(name for name in names if not (folder / f"{name}.png").exists())
    write_picture(folder / f"{name}.png", frame)
    write_picture(folder / f"{name}_mask.png", mask * 255)
    print(f"saved: {folder / name}.png and its mask")
