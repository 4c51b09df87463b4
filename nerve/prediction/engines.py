"""Exported networks on other engines than Keras; only the one asked for is imported.

They need: pip install -r requirements/export.txt
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from nerve import machine
from nerve.command import quoted
from nerve.files import atomic
from nerve.precision import kernel_limit
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
# precisions that OpenVINO computes in, as it calls them; the others have float32 alone
OPENVINO_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
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


def load(engine: str, path: Path, precision: str = "auto") -> SimpleNamespace:
    """Return an exported network; its `predict_on_batch` takes and gives batches.

    Args:
        precision: One of precision.py; "auto" is what OpenVINO thinks best.

    Raises:
        ValueError: the engine is not installed, has no such precision, or cannot read the
            file.
    """
    name = engine.removesuffix("-int8")
    loaders = {"onnx": load_onnx, "litert": load_litert}
    loaders["openvino"] = functools.partial(load_openvino, precision=precision)
    if name != "openvino" and precision not in ("auto", "float32"):
        raise ValueError(f"--engine {engine} computes in float32, not in {precision}")
    try:
        function = loaders[name](path)
    except ImportError as error:
        raise ValueError(
            f"engine {engine} needs: pip install -r requirements/export.txt"
        ) from error
    except Exception as error:  # each engine has errors of its own
        raise ValueError(f"{path} cannot be read by {engine} ({brief(error)})") from error
    return SimpleNamespace(predict_on_batch=function)


def brief(error: Exception) -> str:
    """Return the beginning of an error's text as one line."""
    return " ".join(str(error).split())[:160]


def load_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of ONNX Runtime: float32 frames to probabilities, in batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def load_openvino(path: Path, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of OpenVINO, likewise.

    A network compiled for one number of frames is faster than one for any.
    """
    import openvino

    core, settings = openvino.Core(), {}
    if precision == "auto" and kernel_limit():  # it would look for kernels of bfloat16
        precision = "float32"
    if precision != "auto":
        settings["INFERENCE_PRECISION_HINT"] = OPENVINO_TYPES[precision]
    network, compiled = core.read_model(path), {}

    def predict_on_batch(x):
        if x.shape not in compiled:
            network.reshape(x.shape)
            try:
                compiled[x.shape] = core.compile_model(network, "CPU", settings)
            except RuntimeError as error:
                said = f"OpenVINO cannot run {path} in {precision} here ({brief(error)})"
                raise ValueError(said) from error
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
