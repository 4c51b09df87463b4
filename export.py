"""Export a trained network for other engines, and check each against Keras.

    python export.py --weights weights/unet.h5 --data data
    python predict.py --engine onnx --weights weights/unet.h5 --data data

Reads   weights/unet.h5 and weights/unet.json; of data/ the training frames, to calibrate
        int8 on, and the validation frames, to compare on
Writes  weights/unet.onnx; weights/unet.xml and .bin (OpenVINO); weights/unet.tflite,
        unet_float16.tflite and unet_int8.tflite (LiteRT); weights/unet_savedmodel/
        (TensorFlow); weights/unet.exports.json

Prints, for each, its file's size, the mean Dice on the validation frames, and the time of
one frame. Needs: pip install -r requirements-export.txt
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

import engines
import inference
import scores
import stage
from held_out import read_validation
from trained import load_network, read_settings

PREPROCESS = "python preprocess.py"
CALIBRATION = 100  # training frames
TOLERANCE, INT8_TOLERANCE = 0.002, 0.01  # of mean Dice
TIMED, WARM_UP = 30, 5  # single frames
SAVED_MODEL = "_savedmodel"


def export_all(model, weights: Path, folder: Path, frames: np.ndarray) -> None:
    """Write the network in all forms into a folder.

    Args:
        model: Keras model, float32.
        weights: The .h5 whose name the files get.
        folder: Where.
        frames: float32 array `(N, height, width, 1)` to calibrate int8 on.
    """
    import tensorflow

    saved = folder / (weights.stem + SAVED_MODEL)
    model.predict_on_batch(frames[:1])  # the ONNX export wants a call before
    model.export(str(saved), format="tf_saved_model", verbose=False)
    for engine in ("onnx", "openvino"):
        path = folder / engines.exported(weights, engine).name
        model.export(str(path), format=engine, verbose=False)
    lite = tensorflow.lite
    for engine in ("litert", "litert-float16", "litert-int8"):
        converter = lite.TFLiteConverter.from_saved_model(str(saved))
        if engine != "litert":
            converter.optimizations = [lite.Optimize.DEFAULT]
        if engine == "litert-float16":
            converter.target_spec.supported_types = [tensorflow.float16]
        if engine == "litert-int8":
            converter.representative_dataset = lambda: ([f[np.newaxis]] for f in frames)
        path = folder / engines.exported(weights, engine).name
        path.write_bytes(converter.convert())


def load_saved_model(folder: Path) -> SimpleNamespace:
    """Return a SavedModel as what `inference.predict_frames` calls."""
    import tensorflow

    served = tensorflow.saved_model.load(str(folder))
    # kept beside it: the functions hold no reference to what they were loaded from
    return SimpleNamespace(
        predict_on_batch=lambda x: served.serve(x).numpy(), served=served
    )


def mean_dice(
    model, frames: np.ndarray, masks: np.ndarray, settings: dict, name: str
) -> float:
    """Return the mean Dice of a network's masks; settings as the weights' record says."""
    found = inference.find_masks(model, frames, settings)
    bar = tqdm(found, name, total=len(masks), unit=" frames", disable=None)
    return np.mean(
        [scores.dice(t > 0, m) for t, (_, _, m, _) in zip(masks, bar, strict=True)]
    )


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
    """Return the bytes of a file, OpenVINO's .xml with its .bin, or of a whole folder."""
    paths = list(path.rglob("*")) if path.is_dir() else [path]
    if path.suffix == ".xml":
        paths.append(path.with_suffix(".bin"))
    return sum(p.stat().st_size for p in paths if p.is_file())


def compare(
    networks: dict, frames: np.ndarray, masks: np.ndarray, settings: dict
) -> list[str]:
    """Print a line for each network; return the names of those that differ too much.

    Args:
        networks: `{name: (network, its file)}`, Keras's first.
        frames: uint8 array `(N, rows, columns)`.
        masks: Theirs, same shape.
        settings: The weights' record.
    """
    size, wrong, first = (settings["height"], settings["width"]), [], None
    print(
        f"{'engine':16}{'MB':>8}{'mean Dice':>11}{'difference':>12}{'ms a frame':>12}"
    )
    for name, (model, path) in networks.items():
        dice = mean_dice(model, frames, masks, settings, name)
        first = dice if first is None else first
        spent = milliseconds(model, size)
        megabytes = file_size(path) / 1e6
        numbers = f"{megabytes:>8.1f}{dice:>11.4f}{dice - first:>+12.4f}{spent:>12.1f}"
        print(f"{name:16}{numbers}")
        limit = INT8_TOLERANCE if name.endswith("int8") else TOLERANCE
        if abs(dice - first) > limit:
            wrong.append(name)
    return wrong


def withdraw(weights: Path, wrong: list[str]) -> None:
    """Take engines off the record of exports, so that predict.py refuses their files."""
    record = stage.read_record(engines.record_path(weights), engines.EXPORT)
    for engine in set(wrong) & set(engines.FILES):  # a SavedModel is not listed
        record["files"].pop(engines.exported(weights, engine).name)
    stage.write_bytes(engines.record_path(weights), stage.to_json(record).encode())


def publish(folder: Path, weights: Path, settings: dict) -> None:
    """Move what lies in a folder to its places beside the weights, the record last."""
    names = sorted(path.name for path in folder.iterdir())
    files = {
        path.name: stage.sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    record = {"h5_sha256": settings["h5_sha256"], "files": files}
    engines.record_path(weights).unlink(missing_ok=True)
    for name in names:
        place = weights.with_name(name)
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(folder / name, place)
    stage.write_bytes(engines.record_path(weights), stage.to_json(record).encode())


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--weights", type=Path, default="weights/unet.h5", help="trained .h5")
    add("--data", type=Path, default="data", help="folder of preprocess.py's arrays")
    add("--frames", type=int, default=200, help="validation frames compared, at most")
    args = parser.parse_args(argv)
    if args.frames < 1:
        parser.error(f"--frames {args.frames}; expected 1 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings(args.weights, None)
    settings, split, _, frames, masks = read_validation(settings, args.data)
    repair = f"{PREPROCESS} --data {args.data}"
    x = stage.read_array(args.data, "x_train.npy", split, repair)
    if x.shape[1:3] != (settings["height"], settings["width"]):
        raise ValueError(
            f"{args.data}/ holds frames of {x.shape[1]} x {x.shape[2]} pixels, the weights "
            f"take {settings['height']} x {settings['width']}; mend it with: {repair} "
            f"--height {settings['height']} --width {settings['width']}"
        )
    rows = split["val"]["rows"][: args.frames]
    if not rows:
        raise ValueError(f"{args.data}/ holds no validation frames to compare on")
    with stage.lock(args.weights.parent, args.weights.stem):
        model = load_network(args.weights, settings)
        making = args.weights.with_name(f".{args.weights.stem}.exports.tmp")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        try:
            steps = len(x) // CALIBRATION + 1
            calibration = x[::steps] * split["standard_deviation"] + split["mean"]
            calibration -= settings["mean"]  # the weights' scaling, not the folder's
            calibration /= settings["standard_deviation"]
            export_all(model, args.weights, making, calibration)
            publish(making, args.weights, settings)
        except ImportError as error:
            raise ValueError(
                f"{error.name} is missing: pip install -r requirements-export.txt"
            ) from error
        finally:
            shutil.rmtree(making, ignore_errors=True)
        networks = {engines.KERAS: (model, args.weights)}
        for engine in engines.FILES:
            path = engines.check(args.weights, engine, settings)
            networks[engine] = engines.load(engine, path), path
        saved = args.weights.with_name(args.weights.stem + SAVED_MODEL)
        networks["savedmodel"] = load_saved_model(saved), saved
        wrong = compare(networks, frames[rows], masks[rows], settings)
        if wrong:
            withdraw(args.weights, wrong)
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: Dice differs from Keras's by more than {TOLERANCE} "
            f"(int8: {INT8_TOLERANCE}); do not use"
        )
    print(f"predict with: python predict.py --engine onnx --weights {args.weights}")


if __name__ == "__main__":
    sys.exit(stage.run(main))
