"""Export a trained network for other engines, and check each against Keras.

    python export.py --weights weights/unet.h5 --data data
    python predict.py --engine onnx --weights weights/unet.h5 --data data

Reads   weights/unet.h5 and weights/unet.json; of data/ the training frames, to calibrate
        int8 on, and the validation frames, to compare on
Writes  weights/unet.onnx; weights/unet.xml and .bin (OpenVINO); weights/unet.tflite
        (LiteRT); both also as unet_int8; weights/unet.exports.json

Prints, for each, its file's size, the mean Dice on the validation frames, and the time of
one frame. Needs: pip install -r requirements/export.txt
"""

import argparse
import dataclasses
import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nerve import command
from nerve.files import atomic
from nerve.files.arrays import read_array
from nerve.prediction import engines
from nerve.prediction.held_out import read_validation
from nerve.prediction.inference import find_masks, predict_frames
from nerve.prediction.networks import load_network, read_trained
from nerve.records import PREPROCESS, Inputs, Limits, Split, Trained
from nerve.scoring import scores

CALIBRATION = 100  # training frames
TOLERANCE, INT8_TOLERANCE = 0.002, 0.01  # of mean Dice
TIMED, WARM_UP = 30, 5  # single frames
NEEDED = ("nncf", "onnx", "openvino", "tf2onnx")


def mean_dice(
    model, frames: np.ndarray, masks: np.ndarray, inputs: Inputs, limits: Limits, name: str
) -> float:
    """Return the mean Dice of a network's masks of frames, uint8 `(N, rows, columns)`."""
    found = find_masks(predict_frames(model, frames, inputs), limits)
    bar = tqdm(found, name, total=len(masks), unit=" frames", disable=None)
    return np.mean([scores.dice(t > 0, f.mask) for t, f in zip(masks, bar, strict=True)])


def milliseconds(model, size: tuple[int, int]) -> float:
    """Return the median time of one frame through a network."""
    frame = np.random.default_rng(0).normal(size=(1, *size, 1)).astype(np.float32)
    times = []
    for _ in range(WARM_UP + TIMED):
        begin = time.perf_counter()
        np.asarray(model.predict_on_batch(frame))
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times[WARM_UP:]))


def file_size(path: Path) -> int:
    """Return the bytes of a file, OpenVINO's .xml with its .bin."""
    return sum(p.stat().st_size for p in engines.parts(path))


def compare(
    model, weights: Path, folder: Path, trained: Trained, inputs: Inputs, *pair: np.ndarray
) -> list[str]:
    """Print a line for Keras and for each export in a folder; remove those that differ.

    Args:
        pair: Frames, uint8 `(N, rows, columns)`, and their masks.

    Returns:
        The names of those that differ too much.
    """
    wrong, first = [], None
    print(f"{'engine':16}{'MB':>8}{'mean Dice':>11}{'difference':>12}{'ms a frame':>12}")
    for name in engines.NAMES:
        path, network = weights, model
        if name != engines.KERAS:
            path = folder / engines.exported(weights, name).name
            network = engines.load(name, path)
        dice = mean_dice(network, *pair, inputs, trained.limits, name)
        first = dice if first is None else first
        spent = milliseconds(network, (inputs.height, inputs.width))
        megabytes = file_size(path) / 1e6
        numbers = f"{megabytes:>8.1f}{dice:>11.4f}{dice - first:>+12.4f}{spent:>12.1f}"
        print(f"{name:16}{numbers}")
        limit = INT8_TOLERANCE if name.endswith("int8") else TOLERANCE
        if abs(dice - first) > limit:
            wrong.append(name)
            for part in engines.parts(path):
                part.unlink()
    return wrong


def record_files(folder: Path, weights: Path, trained: Trained) -> None:
    """Write the record of the exports in a folder, which are brought to disk."""
    files = {}
    for path in sorted(folder.iterdir()):
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
        files[path.name] = atomic.sha256(path)
    record = dataclasses.asdict(engines.Exports(trained.h5_sha256, files))
    path = folder / engines.record_path(weights).name
    atomic.write_json(path, record)


def read_calibration(data: Path, split: Split, inputs: Inputs) -> np.ndarray:
    """Return training frames to calibrate int8 on, as the weights take them.

    Raises:
        ValueError: the arrays are of another size.
    """
    repair = f"{PREPROCESS} --data {command.quoted(data)}"
    x = read_array(data, "x_train.npy", split.arrays, repair)
    if x.shape[1:3] != (inputs.height, inputs.width):
        raise ValueError(
            f"{data}/ holds frames of {x.shape[1]} x {x.shape[2]} pixels, the weights take "
            f"{inputs.height} x {inputs.width}; mend it with: {repair} --height "
            f"{inputs.height} --width {inputs.width}"
        )
    grey = x[:: len(x) // CALIBRATION + 1] * split.standard_deviation + split.mean
    return (grey - inputs.mean) / inputs.standard_deviation


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--weights", type=Path, default="weights/unet.h5", help="trained .h5")
    add("--data", type=Path, default="data", help="folder of preprocess.py's arrays")
    text = "validation frames compared, at most"
    add("--frames", type=command.whole(1), default=200, help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if not all(map(importlib.util.find_spec, NEEDED)):
        raise ValueError("export.py needs: pip install -r requirements/export.txt")
    trained = read_trained(args.weights)
    # networks are compared with each other here, on whatever frames
    inputs, split, _, frames, masks = read_validation(trained, args.data, refuse=False)
    calibration = read_calibration(args.data, split, inputs)
    rows = split.val.rows[: args.frames]
    # here: TensorFlow takes seconds to import
    from model import build_network
    from nerve.prediction.exporting import export_all

    with atomic.lock(args.weights.parent, args.weights.stem):
        model = load_network(build_network, args.weights, trained)
        name = engines.record_path(args.weights).name
        with atomic.aside(args.weights.with_name(name)) as making:
            text = f"{args.weights} could not be written for other engines"
            # errors of TensorFlow, ONNX and OpenVINO, as of a full disk, are of many kinds
            with command.refusing(text, Exception):
                export_all(model, args.weights, making, calibration)
            compared = inputs, frames[rows], masks[rows]
            wrong = compare(model, args.weights, making, trained, *compared)
            record_files(making, args.weights, trained)
            atomic.move(making, args.weights.parent, [name])
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: Dice differs from Keras's by more than {TOLERANCE} "
            f"(int8: {INT8_TOLERANCE}); do not use"
        )
    weights = command.quoted(args.weights)
    print(f"predict with: python predict.py --engine onnx --weights {weights}")


if __name__ == "__main__":
    sys.exit(command.run(main))
