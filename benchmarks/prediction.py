"""Prediction: predict.py beside stock Keras, ONNX Runtime and OpenVINO.

    python benchmarks/prediction.py --data data --weights weights/unet.h5 --rounds 5

Prints two tables, and appends a line to benchmarks/results.jsonl: frames a second from the
test frames of --data to submission.csv, the network loaded and warm; and milliseconds from
one frame to its mask, by the same network and by an untrained one of a quarter of its
filters. Each engine is a process of its own, in turn. Without --data and --weights, frames
of noise and an untrained network are used, whose masks are all empty.
"""

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve.files import atomic
from nerve.files.arrays import ArrayWriter
from nerve.prediction.networks import load_network, read_trained
from nerve.records import Extract, Extracted, Inputs, to_dict
from recipes import CLASSIC

HERE = measure.ROOT / "benchmarks"
# of noise: bytes, each as likely
NOISE = Inputs(96, 96, mean=127.5, standard_deviation=73.9, aspect=580 / 420, crops={})
NOISE_FRAMES = 640
STOCK = "stock Keras, float32"
WHOLE_COLUMNS = {
    "frames_per_second": ("frames/s", ".1f"),
    "seconds": ("seconds", ".2f"),
    "peak_anonymous_mb": ("RssAnon MB", ".0f"),
    "ratio": ("to stock", ".2f"),
}
SINGLE_COLUMNS = {
    "median_ms": ("50 %, ms", ".2f"),
    "percentile_99_ms": ("99 %, ms", ".2f"),
    "ratio": ("to stock", ".2f"),
}


def write_frames(folder, num_frames, height, width):
    """Write test frames of noise, as extract_data.py leaves them."""
    rng = np.random.default_rng(0)
    shape = height, width
    frames = (rng.integers(0, 256, shape, np.uint8) for _ in range(num_frames))
    write_extract(folder, frames, (num_frames, *shape))


def write_extract(folder, frames, shape):
    """Write test frames, uint8 arrays, as extract_data.py leaves them."""
    folder.mkdir()
    path = folder / "imgs_test.npy"
    writer = ArrayWriter(path, shape, np.uint8)
    for frame in frames:
        writer.append(frame)
    test = Extracted(image=list(range(1, shape[0] + 1)), skipped=[])
    extract = Extract(*shape[1:], arrays={path.name: writer.close()}, test=test)
    atomic.write_json(folder / "extract.json", to_dict(extract))


def write_untrained(path, trained):
    """Write an untrained network with the record that predict.py needs."""
    from model import build_network
    from nerve.files import h5_file

    recipe, inputs = trained.recipe, trained.inputs
    model = build_network(recipe, inputs.height, inputs.width)
    path.write_bytes(
        h5_file.to_bytes(model, "dice_coef_loss", ["dice_coef"], recipe.learning_rate)
    )
    record = replace(trained, h5_sha256=atomic.sha256(path)).to_dict()
    atomic.write_json(path.with_suffix(".json"), record)


def prepare(folder, weights, filters):
    """Copy or make the network, and one of a quarter of its filters, each as .onnx too.

    Args:
        folder: Where.
        weights: Trained .h5, or None for an untrained network.
        filters: Channels of the untrained network's first level.

    Returns:
        `{label: path of the .h5}`.
    """
    whole, small = folder / "unet.h5", folder / "small.h5"
    if weights:
        for suffix in (".h5", ".json"):
            shutil.copy(weights.with_suffix(suffix), whole.with_suffix(suffix))
    else:
        write_untrained(whole, measure.untrained(replace(CLASSIC, filters=filters), NOISE))
    trained = read_trained(whole)
    recipe, inputs = trained.recipe, trained.inputs
    quarter = max(1, recipe.filters // 4)
    write_untrained(small, measure.untrained(replace(recipe, filters=quarter), inputs))
    if measure.has("tf2onnx", "ONNX Runtime and OpenVINO"):
        for path in (whole, small):
            export(path)
    return {f"{recipe.filters} filters": whole, f"{quarter} filters": small}


def export(path):
    """Write the .onnx of an .h5 beside it."""
    from model import build_network

    model = load_network(build_network, path, read_trained(path))
    model.predict_on_batch(np.zeros((1, *model.input_shape[1:]), np.float32))
    model.export(path.with_suffix(".onnx"), format="onnx", verbose=False)


def engine_rows(precisions, has_onnx):
    """Return `{row: the engine and its precision as flags}`."""
    rows = {STOCK: ["stock", "--precision", "float32"]}
    for precision in precisions:
        rows[f"predict.py, {precision}"] = ["predict", "--precision", precision]
    if has_onnx and measure.has("onnxruntime", "ONNX Runtime"):
        release = measure.version("onnxruntime")
        rows[f"ONNX Runtime {release}, float32"] = [
            *("onnxruntime", "--precision", "float32")
        ]
    if has_onnx and measure.has("openvino", "OpenVINO"):
        name = f"OpenVINO {measure.version('openvino')}"
        rows[f"{name}, float32"] = ["openvino", "--precision", "float32"]
        rows[f"{name}, its own precision"] = ["openvino"]
        ours = "predict.py --engine openvino"
        rows[ours] = ["predict-openvino"]
        rows[f"{ours} --precision float32"] = ["predict-openvino", "--precision", "float32"]
    return rows


def compare(rows, weights, data, rounds, calls):
    """Return the medians of each engine; `calls` single frames, or None for all at once."""
    flags = ["--weights", weights, "--data", data]
    flags += ["--calls", calls] if calls else []
    commands = {
        name: [sys.executable, HERE / "predict_engine.py", *row, *flags]
        for name, row in rows.items()
    }
    key = "median_ms" if calls else "seconds"
    return measure.summarize(measure.take_turns(commands, rounds), key)


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=5)
    add = parser.add_argument
    add("--data", type=Path, help="folder of extract_data.py with test frames")
    add("--weights", type=Path, help="trained .h5, its .json beside it")
    add("--precisions", nargs="+", default=["float32", "bfloat16"], help="of predict.py")
    add("--rows", nargs="+", help="only rows whose name holds one of these texts")
    add("--calls", type=int, default=300, help="single frames timed, 1 or more")
    add("--frames", type=int, default=NOISE_FRAMES, help="of noise, without --data")
    add("--height", type=int, default=420, help="their rows, in pixels")
    add("--width", type=int, default=580, help="their columns, in pixels")
    add("--filters", type=int, default=32, help="of the network, without --weights")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder, data = Path(folder), args.data
        if data is None:
            data = folder / "data"
            write_frames(data, args.frames, args.height, args.width)
        weights = prepare(folder, args.weights, args.filters)
        data, whole = data.resolve(), next(iter(weights.values()))
        rows = engine_rows(args.precisions, whole.with_suffix(".onnx").exists())
        rows = measure.choose(rows, args.rows, STOCK)
        results = {"whole": compare(rows, whole, data, args.rounds, None)}
        for row in results["whole"].values():
            row["frames_per_second"] = row["frames"] / row["seconds"]
        measure.print_table(
            "test frames to submission.csv", results["whole"], WHOLE_COLUMNS
        )
        for label, path in weights.items():
            results[label] = compare(rows, path, data, args.rounds, args.calls)
            measure.print_table(
                f"one frame to its mask, {label}", results[label], SINGLE_COLUMNS
            )
    settings = {"rounds": args.rounds, "calls": args.calls}
    settings |= {"trained": args.weights is not None}
    measure.keep("prediction", settings, results, args.results)


if __name__ == "__main__":
    main()
