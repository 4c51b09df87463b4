"""EfficientNet-Lite0 as the contracting path of a U-Net, with weights of ImageNet.

Its batch normalisation is folded into its convolutions, and the weights of the first one
are summed over the colours: `weights/lite0_imagenet.h5`, made by
benchmarks/fold_encoder.py.

Sources: https://arxiv.org/abs/1905.11946 (EfficientNet); the Lite variant, without
squeeze-and-excitation and with ReLU6:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from typing import NamedTuple

from nerve.backend import keras


class Stage(NamedTuple):
    """Some inverted blocks alike; the first of them may halve the frame."""

    kernel: int
    stride: int  # of the first
    wide: int  # channels within, times those before
    channels: int  # out of it
    repeats: int


STAGES = (
    Stage(kernel=3, stride=1, wide=1, channels=16, repeats=1),
    Stage(kernel=3, stride=2, wide=6, channels=24, repeats=2),
    Stage(kernel=5, stride=2, wide=6, channels=40, repeats=2),
    Stage(kernel=3, stride=2, wide=6, channels=80, repeats=3),
    Stage(kernel=5, stride=1, wide=6, channels=112, repeats=3),
)
SMALL_STAGES = (*STAGES[:-1], STAGES[-1]._replace(repeats=1))  # half of its weights
STEM_CHANNELS = 32
DEPTH = 4  # times it halves the frame; Lite0 goes on to 5


def inverted_block(
    x: keras.KerasTensor, stage: Stage, stride: int, depthwise_dtype: str | None, name: str
) -> keras.KerasTensor:
    """Apply a 1 x 1 convolution, one by channel, and a 1 x 1 convolution.

    Args:
        x: Features, `(batch, height, width, channels)`.
        depthwise_dtype: Keras's dtype policy of the convolution by channel; None is the one
            in force.
        name: What the layers' names begin with.

    Source: https://arxiv.org/abs/1801.04381, figure 3b.
    """
    layers, shortcut = keras.layers, x
    if stage.wide > 1:
        x = layers.Conv2D(
            stage.wide * x.shape[-1], 1, activation="relu6", name=f"{name}_expand"
        )(x)
    x = layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        activation="relu6",
        dtype=depthwise_dtype,
        name=f"{name}_depthwise",
    )(x)
    x = layers.Conv2D(stage.channels, 1, name=f"{name}_project")(x)
    if stride == 1 and shortcut.shape[-1] == stage.channels:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def contract(
    x: keras.KerasTensor, training: bool, stages: tuple[Stage, ...] = STAGES
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Return the bottom of the network, and what to skip to it, the largest first.

    Args:
        x: Frames, `(batch, height, width, 1)`, each side a multiple of 16.
        training: Whether gradients are going to be taken: TensorFlow's of a convolution by
            channel take 2 to 8 times as long in bfloat16, which is then left out for it.
        stages: STAGES or SMALL_STAGES.

    Returns:
        `(bottom, skips)`: 112 channels at a 16th of the size; 16, 24 and 40 channels at a
        half, a fourth and an eighth.
    """
    layers = keras.layers
    x = layers.Conv2D(
        STEM_CHANNELS, 3, strides=2, padding="same", activation="relu6", name="stem"
    )(x)
    skips, number = [], 0
    depthwise_dtype = "float32" if training else None
    for stage in stages:
        if stage.stride == 2:
            skips.append(x)
        for repeat in range(stage.repeats):
            stride = 1 if repeat else stage.stride
            x = inverted_block(x, stage, stride, depthwise_dtype, f"block{number}")
            number += 1
    return x, skips
