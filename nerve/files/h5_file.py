"""One .h5 that `load_model` opens in Keras 3 and in Keras 2, and that trains on in both.

Keras 3 writes an .h5 that Keras 2 cannot read, and that cannot be trained on, since it
drops the optimizer's state. This writes the same file with the description of its layers
in the form that both read.
"""

import io
import json
from pathlib import Path

import h5py
import numpy as np

from nerve.command import refusing
from nerve.files.h5_look import look

# What Keras 3 adds to a layer's configuration and Keras 2 refuses.
UNKNOWN_TO_KERAS_2 = ("optional", "synchronized", "lora_rank", "lora_alpha")
UNKNOWN_TO_KERAS_2 += ("quantization_config",)


def load(model, path: Path) -> None:
    """Load weights into a model of the same architecture; the input size may differ.

    Raises:
        ValueError: the weights are of another architecture, or unsafe to load.
    """
    look(path)
    text = f"{path} does not fit this U-Net; filters and depth must be its own"
    with refusing(text, Exception):  # Keras's are of many kinds
        model.load_weights(path)


def old_value(value):
    """Return a value of a layer's configuration as Keras 2 writes it."""
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    name, config = value["class_name"], dict(value.get("config") or {})
    if name.endswith("Policy"):  # a dtype
        return config["name"]
    for key in ("input_axes", "output_axes"):
        config.pop(key, None)
    return {"class_name": name, "config": config}


def old_layer(layer: dict) -> dict:
    """Return the description of one layer as Keras 2 writes it."""
    config = {
        key: old_value(value)
        for key, value in layer["config"].items()
        if key not in UNKNOWN_TO_KERAS_2 and not key.startswith("renorm")
    }
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
    kind, nodes = layer["class_name"], [old_node(node) for node in layer["inbound_nodes"]]
    if kind == "Conv2DTranspose":
        config.pop("groups", None)
    about = {"class_name": kind, "config": config, "name": layer["name"]}
    return about | {"inbound_nodes": nodes}


def old_node(node: dict) -> list[list]:
    """Return one call of a layer as `[[layer, node, tensor, {}], ...]`."""
    (inputs,) = node["args"]
    tensors = inputs if isinstance(inputs, list) else [inputs]
    return [[*tensor["config"]["keras_history"], {}] for tensor in tensors]


def old_ends(ends: list) -> list:
    """Return the input or output layers as a list of `[layer, node, tensor]`."""
    return [ends] if isinstance(ends[0], str) else ends


def to_bytes(model, loss: str, metrics: list[str], learning_rate: float) -> bytes:
    """Return a functional model of stock layers, in float32, as an .h5 for both Kerases.

    It is compiled anew, with Adam. The same weights give the same bytes.
    """
    config = model.get_config()
    config["layers"] = [old_layer(layer) for layer in config["layers"]]
    config["input_layers"] = old_ends(config["input_layers"])
    config["output_layers"] = old_ends(config["output_layers"])
    optimizer = {"name": "Adam", "learning_rate": learning_rate, "beta_1": 0.9}
    optimizer |= {"beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
    training = {"loss": loss, "metrics": metrics, "weighted_metrics": None}
    training["loss_weights"] = None
    training["optimizer_config"] = {"class_name": "Adam", "config": optimizer}
    buffer = io.BytesIO()  # so that a full disk meets no half-written file
    with h5py.File(buffer, "w") as file:
        description = {"class_name": "Functional", "config": config}
        file.attrs["model_config"] = json.dumps(description)
        file.attrs["training_config"] = json.dumps(training)
        file.attrs["keras_version"] = "2.15.0"  # whose form this is
        file.attrs["backend"] = "tensorflow"
        write_weights(file.create_group("model_weights"), model)
    return buffer.getvalue()


def write_weights(group: h5py.Group, model) -> None:
    """Write each layer's weights under the names that both Kerases look for."""
    names = [layer.name for layer in model.layers]
    group.attrs["layer_names"] = np.array(names, "S")
    group.attrs["keras_version"] = "2.15.0"
    group.attrs["backend"] = "tensorflow"
    for layer in model.layers:
        folder = group.create_group(layer.name)
        weights = {f"{layer.name}/{weight.name}:0": weight for weight in layer.weights}
        folder.attrs["weight_names"] = np.array(list(weights), "S")
        for name, weight in weights.items():
            folder[name] = np.asarray(weight, np.float32)
