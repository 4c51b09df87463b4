"""One engine of prediction.py, alone in its process.

    python benchmarks/predict_engine.py predict --weights weights/unet.h5 --data data

Prints one line of JSON: seconds from the test frames of --data to submission.csv, once the
network is loaded and warm; or with --calls, percentiles of the milliseconds from one frame
to its mask. `stock` is Keras's `model.predict` and the usual snippets; the others are what
predict.py runs, around another engine that runs the same network.
"""

import csv
import functools
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import measure
import numpy as np
from run_length_speed import snippet

sys.path.insert(0, str(measure.ROOT))

import predict
from nerve.prediction import engines, inference, networks

ENGINES = ("predict", "stock", "onnxruntime", "openvino", "predict-openvino")
WARM_UP = 20  # single frames before those that are timed


def load_stock(weights):
    """Return the Keras model, as a user loads it."""
    import keras

    from losses import dice_coef, dice_coef_loss

    names = {"dice_coef": dice_coef, "dice_coef_loss": dice_coef_loss}
    return keras.models.load_model(weights, custom_objects=names)


def load_onnxruntime(path):
    """Return ONNX Runtime's session as what `inference.predict_frames` calls."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return SimpleNamespace(predict_on_batch=lambda x: session.run(None, {name: x})[0])


def load_openvino(path, precision, batch_size):
    """Return OpenVINO's compiled network as what `inference.predict_frames` calls.

    Args:
        path: The .onnx file.
        precision: "float32", or None for its own choice.
        batch_size: Frames of a call, fixed, since that is faster; fewer are padded.
    """
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    shape = network.inputs[0].partial_shape
    network.reshape([batch_size, *(shape[k].get_length() for k in (1, 2, 3))])
    options = {"INFERENCE_PRECISION_HINT": "f32"} if precision == "float32" else {}
    compiled = core.compile_model(network, "CPU", options)

    def predict_on_batch(x):
        padding = [(0, batch_size - len(x)), (0, 0), (0, 0), (0, 0)]
        return compiled(np.pad(x, padding) if len(x) < batch_size else x)[0][: len(x)]

    chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return SimpleNamespace(predict_on_batch=predict_on_batch, precision=chosen)


def load_engine(engine, weights, trained, precision, batch_size):
    """Return the engine's network; its `predict_on_batch` takes and gives batches."""
    if engine == "predict":
        from model import build_network  # here: other engines do without TensorFlow

        return networks.load_network(build_network, weights, trained, precision)
    if engine == "stock":
        return load_stock(weights)
    path = weights.with_suffix(".onnx")
    if engine == "onnxruntime":
        return load_onnxruntime(path)
    if engine == "predict-openvino":
        return engines.load("openvino", path, precision or "auto")
    return load_openvino(path, precision, batch_size)


def resize_stock(frames, inputs):
    """Return frames resized and scaled as a user does, float32 `(N, height, width, 1)`."""
    import cv2

    size = inputs.width, inputs.height  # cv2: width first
    x = np.stack([cv2.resize(frame, size) for frame in frames])[..., np.newaxis]
    return (x.astype(np.float32) - inputs.mean) / inputs.standard_deviation


def stock_mask(probability, shape):
    """Return a mask of the frame's size as a user makes it, uint8, 0 or 1."""
    import cv2

    return (cv2.resize(probability, shape[::-1]) > 0.5).astype(np.uint8)


def submit_stock(model, data, out, inputs):
    """Write submission.csv of the test frames, as a user does it."""
    frames = np.load(data / "imgs_test.npy")
    probabilities = model.predict(resize_stock(frames, inputs), verbose=0)
    with open(out / "submission.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("img", "pixels"))
        for number, probability in enumerate(probabilities, 1):
            mask = stock_mask(probability[..., 0], frames.shape[1:])
            writer.writerow([number, snippet(mask)])


def submit(model, data, out, trained):
    """Write submission.csv of the test frames, as predict.py does it."""
    chosen = predict.select_test(trained, data)
    predict.predict_selection(model, trained, chosen, out)


def time_submission(engine, model, data, trained):
    """Return the seconds from test frames to submission.csv, and their number."""
    inputs = trained.inputs
    frames = np.load(data / "imgs_test.npy", mmap_mode="r")
    with tempfile.TemporaryDirectory() as out:
        out = Path(out)
        if engine == "stock":
            model.predict(resize_stock(frames[: inference.BATCH], inputs), verbose=0)
            work = functools.partial(submit_stock, model, data, out, inputs)
        else:
            list(inference.predict_frames(model, frames[: inference.BATCH], inputs))
            work = functools.partial(submit, model, data, out, trained)
        return {"seconds": measure.seconds_of(work), "frames": len(frames)}


def time_frames(engine, model, data, trained, calls):
    """Return percentiles of the milliseconds from a frame to its mask."""
    inputs = trained.inputs
    frames = np.load(data / "imgs_test.npy")
    times = []
    for k in range(WARM_UP + calls):
        frame = frames[k % len(frames)]
        start = time.perf_counter()
        if engine == "stock":
            probability = model.predict(resize_stock([frame], inputs), verbose=0)
            stock_mask(probability[0, ..., 0], frame.shape)
        else:
            (found,) = inference.predict_frames(model, [frame], inputs)
            inference.to_mask(found.probability, found.geometry, trained.limits)
        times.append(1000 * (time.perf_counter() - start))
    half, most = np.percentile(times[WARM_UP:], (50, 99)).tolist()
    return {"median_ms": half, "percentile_99_ms": most}


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=1)
    add = parser.add_argument
    add("engine", choices=ENGINES, help="what runs the network")
    add(
        "--weights",
        type=Path,
        required=True,
        help=".h5, with .json and .onnx beside it",
    )
    add("--data", type=Path, required=True, help="folder with imgs_test.npy")
    add("--precision", help="float32 or bfloat16; default: the engine's own")
    add("--calls", type=int, help="single frames to time instead of all as a whole")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    trained = networks.read_trained(args.weights)
    batch_size = 1 if args.calls else inference.BATCH
    model = load_engine(args.engine, args.weights, trained, args.precision, batch_size)
    if args.calls:
        result = time_frames(args.engine, model, args.data, trained, args.calls)
    else:
        result = time_submission(args.engine, model, args.data, trained)
    result["precision"] = getattr(model, "precision", args.precision)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
