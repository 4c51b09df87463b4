"""Frame in to overlay out, as of a camera, and whether memory grows.

    python export.py --weights weights/unet_nerve_small.h5
    python benchmarks/live.py --minutes 30

Feeds phantom frames as a camera does, at a fixed rate whatever becomes of them, to what
`predict.py --input 0 --show` runs. Prints percentiles of the milliseconds from the moment
that a frame is there to that at which its overlay is made, and is in the window, with the
first second left out; how many frames were dropped for newer ones; and the anonymous memory
after the first tenth and at the end. Where there is no display, handing the picture
over is left out of it (Xvfb gives one).
"""

import os
import sys
import tempfile
import time
from array import array
from pathlib import Path

import cv2
import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve.files import atomic
from nerve.frames import cameras, window
from nerve.phantom.scanner import make_subject, render
from nerve.phantom.sweep import plan_subjects
from nerve.prediction import engines, own_predictions
from nerve.prediction.networks import read_trained
from predict import load_model

FRAMES, SEED = 50, 7
SHARES = (50, 90, 95, 99, 99.9, 100)  # percentiles


class Camera:
    """Gives frames at a rate, as `cv2.VideoCapture`; what is not taken in time is lost."""

    def __init__(self, frames, rate, seconds):
        self.frames, self.rate, self.begin = frames, rate, None
        self.number, self.last, self.given = 0, round(rate * seconds), {}

    def isOpened(self):
        return True

    def get(self, _):
        return self.rate

    def read(self):
        """Return the next frame when it is due, with its number in its first pixels."""
        self.begin = self.begin or time.perf_counter()
        due = int((time.perf_counter() - self.begin) * self.rate)
        self.number = max(self.number + 1, due)
        if self.number > self.last:
            return False, None
        time.sleep(max(0, self.begin + self.number / self.rate - time.perf_counter()))
        frame = self.frames[self.number % len(self.frames)].copy()
        frame[0, :3] = np.array(list(self.number.to_bytes(3)))[:, np.newaxis]
        self.given[self.number] = time.perf_counter()
        return True, frame

    def release(self):
        pass


class Timed(window.Window):
    """A window that notes how old each frame is once it is shown."""

    def __init__(self, folder, camera, display):
        super().__init__(folder)
        self.camera, self.display, self.memory = camera, display, array("d")
        self.ages = {"overlay": array("d"), "window": array("d")}

    def show(self, picture, frame, *more):
        number = int.from_bytes(frame[0, :3].tobytes())
        begin = self.camera.given.pop(number)
        self.ages["overlay"].append(1000 * (time.perf_counter() - begin))
        if self.display:
            super().show(picture, frame, *more)
        self.ages["window"].append(1000 * (time.perf_counter() - begin))
        for old in [key for key in list(self.camera.given) if key < number]:
            del self.camera.given[old]  # dropped
        if len(self.ages["window"]) % 100 == 0:
            lines = Path("/proc/self/status").read_text().splitlines()
            line = next(line for line in lines if line.startswith("RssAnon"))
            self.memory.append(int(line.split()[1]) / 1000)


def make_frames(height, width):
    """Return frames of a phantom's sweep as a camera gives them, uint8 BGR."""
    plan = plan_subjects(FRAMES, 1, 5001, 0.5, SEED)
    subject = make_subject(SEED, 5001)
    for each in sorted(plan, key=lambda frame: frame.sweep):
        frame = cv2.resize(render(subject, each.sweep, each.visibility), (width, height))
        yield cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, 1)
    add = parser.add_argument
    add("--weights", type=Path, default="weights/unet_nerve_small.h5")
    add("--engine", choices=engines.NAMES, default="openvino")
    add("--minutes", type=float, default=3)
    add("--rate", type=float, default=30, help="frames/s of the camera")
    add("--height", type=int, default=480, help="of its frames")
    add("--width", type=int, default=640, help="of its frames")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    trained = read_trained(args.weights)
    model = load_model([args.weights], [trained], args.engine, "auto")
    frames = list(make_frames(args.height, args.width))
    camera = Camera(frames, args.rate, 60 * args.minutes)
    cameras.cv2.VideoCapture = lambda number: camera
    try:
        window.check_display()
        display = True
    except ValueError:
        display = False
    model.predict_on_batch(
        np.zeros((1, trained.inputs.height, trained.inputs.width, 1), "f")
    )
    with tempfile.TemporaryDirectory() as folder:
        shown = Timed(Path(folder) / "saved", camera, display)
        with atomic.lock(folder):
            options = own_predictions.Options(window=shown)
            own_predictions.predict(model, trained, [Path("0")], Path(folder), options)
    early = int(args.rate)  # frames of the first second, when all is still being loaded
    results = {
        name: {f"{share:g}": float(np.percentile(ages[early:], share)) for share in SHARES}
        for name, ages in shown.ages.items()
    }
    count, memory = len(shown.ages["window"]), shown.memory
    results |= {"shown": count, "given": camera.last, "load": os.getloadavg()[0]}
    results["rss_anon_mb"] = {"early": memory[len(memory) // 10], "end": memory[-1]}
    print("percentile  overlay made, ms  in the window, ms")
    for share in results["overlay"]:
        values = [results[name][share] for name in shown.ages]
        print(f"{share:>10}{values[0]:>18.1f}{values[1]:>19.1f}")
    print(f"{camera.last - count} of {camera.last} frames dropped")
    print(
        "RssAnon {early:.1f} MB early, {end:.1f} MB at the end".format(
            **results["rss_anon_mb"]
        )
    )
    print(f"window {'shown' if display else 'not shown'}, load {results['load']:.1f}")
    results["display"] = display
    settings = {name: getattr(args, name) for name in ("engine", "minutes", "rate")}
    settings |= {"weights": args.weights.name, "size": [args.height, args.width]}
    measure.keep("live", settings, results, args.results)


if __name__ == "__main__":
    main()
