"""A look at an .h5 of weights, before Keras or TensorFlow opens it.

Keras's own readers follow links out of a file, allocate what a few bytes declare, and run
the code of Lambda layers (tf-keras; Keras 3 before 3.15). A file that passes here holds
plain arrays of finite numbers that lie in it, and describes layers of Keras's own.
"""

import json
import math
from pathlib import Path

import h5py
import numpy as np

from nerve.command import refusing

MAX_OBJECTS, MAX_DEPTH = 20_000, 12  # of groups and arrays in a file; of groups
READ = 1 << 24  # values looked at in one go
# Layers of segmentation networks that hold no code
LAYERS = """
Activation Add Average AveragePooling2D BatchNormalization Concatenate Conv2D
Conv2DTranspose DepthwiseConv2D Dropout Functional GlobalAveragePooling2D
GroupNormalization InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum Model
Multiply PReLU ReLU Rescaling Reshape SeparableConv2D Sequential SpatialDropout2D Subtract
UpSampling2D ZeroPadding2D
"""
LAYERS = frozenset(LAYERS.split())
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
        raise FileNotFoundError(
            f"{path} is missing ({path.parent}/ holds {there}); train it with: "
            "python train.py"
        )
    if not path.is_file() or not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file; expected weights saved as .h5")
    damaged = OSError, RuntimeError, KeyError, TypeError, ValueError
    with refusing(f"{path} is damaged or not of Keras", *damaged), h5py.File(path) as file:
        problem = arrays_problem(file, path.stat().st_size) or names_problem(file)
        problem = problem or layers_problem(file.attrs.get("model_config"))
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
    rows = max(1, READ // max(1, math.prod(array.shape[1:])))
    for start in range(0, array.shape[0] if array.shape else 1, rows):
        part = array[start : start + rows] if array.shape else array[()]
        if not np.isfinite(part).all():
            return "holds weights that are not finite; train it again"
    return None


def names_problem(file: h5py.File) -> str | None:
    """Return what is wrong with the list of layers that Keras reads first, or None."""
    if "layer_names" not in file.get("model_weights", file).attrs:
        return "holds no Keras weights; expected an .h5 of train.py"
    return None


def layers_problem(config: str | bytes | None) -> str | None:
    """Return what is unsafe about a model's description (JSON text or None), or None."""
    if config is None:
        return None
    try:
        open_values = [json.loads(config)]
    except RecursionError:
        return "describes layers nested too deep"
    while open_values:
        value = open_values.pop()
        if isinstance(value, dict):
            if value.get("class_name") in CODE:
                return f"holds code to be run ({value['class_name']})"
            for layer in value.get("layers") or ():
                name = layer.get("class_name") if isinstance(layer, dict) else layer
                if name not in LAYERS and name not in CODE:
                    return f"has a layer of class {name!r}, which this project never uses"
            open_values += value.values()
        elif isinstance(value, list):
            open_values += value
    return None
