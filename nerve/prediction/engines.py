"""Exported networks on other engines than Keras; only the one asked for is imported.

They need: pip install -r requirements/export.txt
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from nerve import machine
from nerve.command import quoted
from nerve.files import atomic
from nerve.records import Trained, read_json

KERAS = "keras"
# engine: what the exported file's name ends with, after that of the weights
FILES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "openvino-int8": "_int8.xml",
    "litert": ".tflite",
    "litert-int8": "_int8.tflite",
}
NAMES = (KERAS, *FILES)
EXPORT = "python export.py"


@dataclasses.dataclass(frozen=True)
class Exports:
    """NAME.exports.json: what was exported of weights."""

    h5_sha256: str  # of the weights
    files: dict[str, str]  # {file: SHA-256}


def exported(weights: Path, engine: str) -> Path:
    """Return where the network of an .h5 lies for an engine."""
    return weights.with_name(weights.stem + FILES[engine])


def parts(path: Path) -> list[Path]:
    """Return the files of an exported network: OpenVINO's .xml has a .bin."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def record_path(weights: Path) -> Path:
    """Return where the record of an .h5's exports lies."""
    return weights.with_name(f"{weights.stem}.exports.json")


def check(weights: Path, engine: str, trained: Trained) -> Path:
    """Return an exported file, refused where it was not made from these weights."""
    path, repair = exported(weights, engine), f"{EXPORT} --weights {quoted(weights)}"
    record = read_json(Exports, record_path(weights), repair)
    if record.h5_sha256 != trained.h5_sha256:
        raise ValueError(f"{path} is of other weights; make it again with: {repair}")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make it with: {repair}")
    for part in parts(path):
        if not part.exists() or atomic.sha256(part) != record.files.get(part.name):
            raise ValueError(
                f"{part} is not what {EXPORT} wrote; make it again with: {repair}"
            )
    return path


def load(engine: str, path: Path) -> SimpleNamespace:
    """Return an exported network; its `predict_on_batch` takes and gives batches.

    Raises:
        ValueError: the engine is not installed, or cannot read the file.
    """
    loaders = {"onnx": load_onnx, "openvino": load_openvino, "litert": load_litert}
    try:
        function = loaders[engine.removesuffix("-int8")](path)
    except ImportError as error:
        raise ValueError(
            f"engine {engine} needs: pip install -r requirements/export.txt"
        ) from error
    except Exception as error:  # each engine has errors of its own
        text = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read by {engine} ({text:.160})") from error
    return SimpleNamespace(predict_on_batch=function)


def load_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of ONNX Runtime: float32 frames to probabilities, in batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def load_openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of OpenVINO, likewise; it computes in what it thinks best.

    A network compiled for one number of frames is faster than one for any.
    """
    import openvino

    core = openvino.Core()
    network, compiled = core.read_model(path), {}

    def predict_on_batch(x):
        if x.shape not in compiled:
            network.reshape(x.shape)
            compiled[x.shape] = core.compile_model(network, "CPU")
        return compiled[x.shape](x)[0]

    return predict_on_batch


def load_litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of LiteRT, likewise."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=machine.num_threads())
    given, found = (interpreter.get_input_details()[0], interpreter.get_output_details()[0])
    size = [0]

    def predict_on_batch(x):
        if size[0] != len(x):
            interpreter.resize_tensor_input(given["index"], x.shape)
            interpreter.allocate_tensors()
            size[0] = len(x)
        interpreter.set_tensor(given["index"], np.ascontiguousarray(x, np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])

    return predict_on_batch
