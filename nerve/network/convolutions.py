"""The convolutions of the networks: plain, normalised, with standardised kernels."""

import math
from collections.abc import Callable

import numpy as np

from nerve.backend import keras, ops

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # keeps the variance at 1 behind a ReLU


class StandardizedConv2D(keras.layers.Layer):
    """A 3 x 3 convolution with ReLU, its kernel standardised anew at every step.

    Each filter's weights are used with mean 0 and a norm of `gain`, which does what batch
    normalisation does without its cost, and without tying the frames of a batch to each
    other. Once trained, it is a plain Conv2D: `plain_weights`.

    Source: https://arxiv.org/abs/2101.08692, equation 1.
    """

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: tuple) -> None:
        shape = (3, 3, input_shape[-1], self.filters)
        # float32 where the rest computes in a shorter type: their mean needs its digits
        self.kernel = self.add_weight(
            shape, "he_normal", name="kernel", autocast=False, dtype="float32"
        )
        gain = keras.initializers.Constant(RELU_GAIN)
        self.gain = self.add_weight(
            (self.filters,), gain, name="gain", autocast=False, dtype="float32"
        )
        self.bias = self.add_weight((self.filters,), "zeros", name="bias")

    def standardized_kernel(self):
        """Return the kernel as the convolution uses it, float32."""
        kernel = self.kernel - ops.mean(self.kernel, axis=(0, 1, 2))
        square = ops.sum(ops.square(kernel), axis=(0, 1, 2))
        return kernel * (self.gain * ops.rsqrt(square + 1e-6))

    def call(self, inputs):
        kernel = ops.cast(self.standardized_kernel(), self.compute_dtype)
        # not `+`: this one TensorFlow fuses with the convolution, both ways
        return ops.relu(ops.add(ops.conv(inputs, kernel, padding="same"), self.bias))

    def plain_weights(self) -> list[np.ndarray]:
        """Return kernel and bias of the Conv2D that computes the same."""
        return [np.asarray(self.standardized_kernel()), np.asarray(self.bias)]

    def set_plain_weights(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        """Take over a Conv2D's weights; each filter's mean is lost unless it is 0."""
        kernel = np.asarray(kernel)
        centred = kernel - kernel.mean(axis=(0, 1, 2))
        self.set_weights([kernel, np.sqrt((centred**2).sum(axis=(0, 1, 2))), bias])


def plain_convolution(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Apply a 3 x 3 convolution with ReLU."""
    return keras.layers.Conv2D(
        filters,
        3,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",  # the paper's
        name=name,
    )(x)


def standardized_convolution(
    x: keras.KerasTensor, filters: int, name: str
) -> keras.KerasTensor:
    """Apply the same with its kernel standardised."""
    return StandardizedConv2D(filters, name=name)(x)


def normalized_convolution(
    x: keras.KerasTensor, filters: int, name: str
) -> keras.KerasTensor:
    """Apply a 3 x 3 convolution, instance normalisation and ReLU.

    Each channel of each frame gets mean 0 and variance 1: a frame's own gain and contrast
    go out, and frames of a batch are not tied to each other.

    Source: https://arxiv.org/abs/1607.08022, equation 3.
    """
    layers = keras.layers
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=False,  # the normalisation would take it out
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # a group of each channel; it sums in float32 whatever the type
    x = layers.GroupNormalization(filters, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def double_convolution(
    x: keras.KerasTensor,
    convolution: Callable[[keras.KerasTensor, int, str], keras.KerasTensor],
    filters: int,
    name: str,
) -> keras.KerasTensor:
    """Apply two convolutions."""
    for k in (1, 2):
        x = convolution(x, filters, f"{name}_conv{k}")
    return x


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy weights between two forms of a network, standardised convolutions or plain."""
    for layer in target.layers:
        other = source.get_layer(layer.name)
        weights = other.get_weights()
        if isinstance(other, StandardizedConv2D):
            weights = other.plain_weights()
        if isinstance(layer, StandardizedConv2D):
            layer.set_plain_weights(*weights)
        else:
            layer.set_weights(weights)
