"""A look at an .h5 of weights, before Keras or TensorFlow opens it.

Keras's own readers follow links out of a file, allocate what a few bytes declare, and run
the code of Lambda layers (tf-keras; Keras 3 before 3.15). A file that passes here holds
plain arrays of finite numbers that lie in it, and describes layers of Keras's own.
"""

import itertools
import json
import math
import re
from pathlib import Path

import h5py
import numpy as np

from nerve.command import refusing

MAX_OBJECTS, MAX_DEPTH = 20_000, 12  # of groups and arrays in a file; of groups
READ = 1 << 24  # values looked at in one go
LAYERS = """
Activation Add Average AveragePooling2D BatchNormalization Concatenate Conv2D
Conv2DTranspose DepthwiseConv2D Dropout Functional GlobalAveragePooling2D
GroupNormalization InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum Model
Multiply PReLU ReLU Rescaling Reshape SeparableConv2D Sequential SpatialDropout2D Subtract
UpSampling2D ZeroPadding2D
"""
TRAINING = """
AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy BinaryIoU Dice IoU
Mean MeanAbsoluteError MeanIoU MeanMetricWrapper MeanSquaredError Precision Recall Tversky
"""
INITIALIZERS = """
Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones
Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
"""
# What a description may call a class, by the end of the key under which it stands; under
# any other, it is a layer, of segmentation networks and without code
ROLES = {
    "_initializer": INITIALIZERS,
    "_regularizer": "L1 L1L2 L2",
    "_constraint": "MaxNorm MinMaxNorm NonNeg UnitNorm",
    "dtype": "DTypePolicy FloatDTypePolicy Policy",
    "args": "__keras_tensor__",
    "optimizer_config": "Adam AdamW Adamax Nadam RMSprop SGD",
    "learning_rate": "CosineDecay ExponentialDecay PiecewiseConstantDecay PolynomialDecay",
    "loss": TRAINING,
    "metrics": TRAINING,
}
ROLES = {end: frozenset(names.split()) for end, names in {**ROLES, "": LAYERS}.items()}
CODE = ("Lambda", "TFOpLambda", "__lambda__")


def look(path: Path) -> None:
    """Refuse a file that is no .h5 of weights, or that is unsafe to load.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is something else, damaged, or unsafe; the message says what.
    """
    path = Path(path)
    if not path.exists():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.h5"))) or "no .h5"
        said = f"{path} is missing ({path.parent}/ holds {there})"
        raise FileNotFoundError(f"{said}; train it with: python train.py")
    if not path.is_file() or not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file; expected weights saved as .h5")
    text = f"{path} is damaged or not of Keras"
    with refusing(text, Exception), h5py.File(path) as file:  # h5py's are of many kinds
        problem = (
            arrays_problem(file, path.stat().st_size)
            or names_problem(file)
            or classes_problem(file)
        )
    if problem:
        raise ValueError(f"{path} {problem}")


def arrays_problem(file: h5py.File, size: int) -> str | None:
    """Return what is unsafe about the groups and arrays of an open file, or None."""
    seen, declared, open_groups = set(), 0, [(file, 0)]
    while open_groups:
        group, depth = open_groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return f"has a link out of itself or to a name ({name!r})"
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MAX_OBJECTS or depth > MAX_DEPTH:
                return "holds more groups and arrays than a network has"
            if isinstance(item, h5py.Group):
                open_groups.append((item, depth + 1))
            elif not isinstance(item, h5py.Dataset):
                return f"holds something other than arrays ({name!r})"
            elif problem := array_problem(item):
                return f"{problem} ({item.name})"
            else:
                declared += item.dtype.itemsize * math.prod(item.shape)
            if declared > size:
                return f"declares {declared:,} bytes of arrays and has {size:,}"
    return None


def array_problem(array: h5py.Dataset) -> str | None:
    """Return what is unsafe about one array, or None."""
    if array.is_virtual or array.external:
        return "has an array whose numbers lie in another file"
    if array.dtype.kind not in "fiu" or array.shape is None:
        return f"has an array of {array.dtype}, expected numbers"
    num_bytes = array.dtype.itemsize * math.prod(array.shape)
    if array.chunks is not None or array.id.get_storage_size() < num_bytes:
        return "has an array that is not stored plainly and in full"
    if 0 in array.shape:
        return "has an array without numbers"
    rows = max(1, READ // math.prod(array.shape[1:]))
    for start in range(0, array.shape[0] if array.shape else 1, rows):
        part = array[start : start + rows] if array.shape else array[()]
        with np.errstate(over="ignore"):
            part = part.astype(np.float32)  # what Keras makes of them
        if not np.isfinite(part).all():
            return "holds weights that are not finite; train it again"
        if "moving_variance" in array.name and part.min() < 0:
            return "holds a negative variance; train it again"
    return None


def read_names(group: h5py.Group, key: str) -> list[str]:
    """Return the names in an attribute, which Keras parts in several where it is long.

    Raises:
        TypeError, ValueError: it is no list of texts, each another.
    """
    keys = [key] if key in group.attrs else (f"{key}{k}" for k in itertools.count())
    lists = (group.attrs[k] for k in itertools.takewhile(group.attrs.__contains__, keys))
    names = [n.decode() if isinstance(n, bytes) else n for part in lists for n in part]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{key} holds something other than names")
    if len(set(names)) < len(names):
        raise ValueError(f"{key} lists a name twice")
    return names


def names_problem(file: h5py.File) -> str | None:
    """Return what is wrong with the lists of layers and weights that Keras goes by."""
    group = file if "layer_names" in file.attrs else file.get("model_weights", file)
    layers = [group[name] for name in read_names(group, "layer_names")]
    named = [layer.get(n) for layer in layers for n in read_names(layer, "weight_names")]
    if not named:
        return "holds no Keras weights; expected an .h5 of train.py"
    return "lists weights that it does not hold" if None in named else None


def classes_problem(file: h5py.File) -> str | None:
    """Return what is unsafe about the classes that descriptions in JSON name, or None.

    Each stands under a key which says what it is for, perhaps in lists: ROLES.
    """
    texts = (file.attrs.get(f"{name}_config", "null") for name in ("model", "training"))
    open_values = [("", json.loads(text)) for text in texts]
    while open_values:
        key, value = open_values.pop()
        if isinstance(value, list):
            open_values += [(key, item) for item in value]
        elif isinstance(value, dict):
            if "class_name" in value and (problem := class_problem(key, value)):
                return problem
            open_values += value.items()
    return None


def class_problem(key: str, value: dict) -> str | None:
    """Return what is unsafe about a class that stands under a key, or None."""
    name, module = str(value["class_name"]), value.get("module")
    if name in CODE:
        return f"holds code to be run ({name})"
    allowed = next(names for end, names in ROLES.items() if key.endswith(end))
    if name.removeprefix("Custom>") not in allowed:  # tf-keras's for its optimizers
        what = "a layer" if allowed is ROLES[""] else key
        return f"has {what} of class {name!r:.40}, which this project never uses"
    if module is not None and not re.fullmatch(r"(tf_)?keras(\.\w+)*", str(module)):
        return f"has a class of the module {module!r:.40}, expected Keras's"
    if value.get("registered_name") not in (None, name):
        return f"has a class registered as {value['registered_name']!r:.40}"
    return None
