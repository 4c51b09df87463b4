"""The networks: the plain U-Net of the classic recipe, and those of the others.

    python model.py --height 96 --width 96

Writes  model_summary.txt
"""

import argparse
import os
import sys
from collections.abc import Callable

from nerve import command
from nerve.backend import keras
from nerve.files import atomic
from nerve.records import Recipe

SUMMARY_WIDTH = 110  # characters


def check_size(height: int, width: int, depth: int) -> None:
    """Refuse a size that cannot be halved `depth` times.

    Raises:
        ValueError: it names the nearest sizes that can.
    """
    step = 2**depth

    def nearest(size):
        low = size // step * step
        options = {low, low + step * (size % step > 0)} - {0} or {step}
        return " or ".join(map(str, sorted(options)))

    if height % step or width % step or not (height and width):
        raise ValueError(
            f"a U-Net of depth {depth} cannot halve {height} x {width} pixels {depth} "
            f"times; expected multiples of {step}: {nearest(height)} rows, "
            f"{nearest(width)} columns"
        )


def convolution(filters: int, size: int, **how) -> keras.layers.Conv2D:
    """Return a convolution that keeps the size, initialized as in the paper."""
    how |= {"padding": "same", "kernel_initializer": "he_normal"}
    return keras.layers.Conv2D(filters, size, **how)


def plain_convolution(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Apply a 3 x 3 convolution with ReLU."""
    return convolution(filters, 3, activation="relu", name=name)(x)


def normalized_convolution(
    x: keras.KerasTensor, filters: int, name: str
) -> keras.KerasTensor:
    """Apply a 3 x 3 convolution, instance normalisation and ReLU.

    Each channel of each frame gets mean 0 and variance 1: a frame's own gain and contrast
    go out, and frames of a batch are not tied to each other.

    Source: https://arxiv.org/abs/1607.08022, equation 3.
    """
    # without a bias, which the normalisation would take out
    x = convolution(filters, 3, use_bias=False, name=name)(x)
    # a group of each channel; it sums in float32 whatever the type
    norm = keras.layers.GroupNormalization(filters, epsilon=1e-5, name=f"{name}_norm")
    return keras.layers.ReLU(name=f"{name}_relu")(norm(x))


def double_convolution(
    x: keras.KerasTensor, convolve: Callable, filters: int, name: str
) -> keras.KerasTensor:
    """Apply two convolutions, of one of the two kinds above."""
    for k in (1, 2):
        x = convolve(x, filters, f"{name}_conv{k}")
    return x


def contract(
    x: keras.KerasTensor, convolve: Callable, filters: int, levels: int, dropout: float
) -> tuple[keras.KerasTensor, list[keras.KerasTensor]]:
    """Apply the contracting path and the bottom; return the result, and the skips."""
    skips = []
    for level in range(levels):
        name = f"down{level + 1}"
        skips.append(double_convolution(x, convolve, filters * 2**level, name))
        x = keras.layers.MaxPooling2D(2, name=f"{name}_pool")(skips[-1])
    x = double_convolution(x, convolve, filters * 2**levels, "bottom")
    if dropout:
        x = keras.layers.SpatialDropout2D(dropout, name="bottom_dropout")(x)
    return x, skips


def output(initial_logit: float) -> dict:
    """Return how the last layer gives probabilities, at first of this logit.

    They are in float32 also where the rest computes in a shorter type.
    """
    bias = keras.initializers.Constant(initial_logit)
    how = {"activation": "sigmoid", "bias_initializer": bias}
    return how | {"dtype": "float32", "name": "probability"}


def build_unet(
    height: int = 96,
    width: int = 96,
    filters: int = 32,
    depth: int = 4,
    dropout: float = 0.0,
    initial_logit: float = -4.0,
) -> keras.Model:
    """Return the plain U-Net, uncompiled.

    Args:
        height: Rows of the frames, in pixels, a multiple of `2 ** depth`.
        width: Columns, likewise.
        filters: Channels of the first level; doubled at each further one.
        depth: Number of times the frame is halved.
        dropout: Share of the channels at the bottom that a training step leaves out.
        initial_logit: Of every pixel's probability before anything is learnt.

    Returns:
        Functional model: float32 scaled frames `(batch, height, width, 1)` to nerve
        probabilities in [0, 1], same shape.

    Raises:
        ValueError: a size that `depth` does not divide.

    Source: https://arxiv.org/abs/1505.04597, here with padded convolutions.
    """
    layers = keras.layers
    check_size(height, width, depth)
    x = inputs = layers.Input((height, width, 1), name="image")
    x, skips = contract(x, plain_convolution, filters, depth, dropout)
    for level in reversed(range(depth)):  # expanding path
        name, channels = f"up{level + 1}", filters * 2**level
        x = layers.Conv2DTranspose(channels, 2, 2, "same", name=f"{name}_grow")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[level]])
        x = double_convolution(x, plain_convolution, channels, name)
    outputs = layers.Conv2D(1, 1, **output(initial_logit))(x)
    return keras.Model(inputs, outputs, name="unet")


def build_fast_unet(
    height: int,
    width: int,
    filters: int,
    depth: int,
    dropout: float,
    initial_logit: float,
) -> keras.Model:
    """Return a U-Net that computes nothing at full size, uncompiled.

    The first convolution halves the frame and the last one doubles it, skips are added
    instead of concatenated, 1 x 1 convolutions come before what they enlarge, convolutions
    are followed by instance normalisation, and each frame is brought to mean 0 and
    variance 1 before the first. Arguments and result as of `build_unet`; the
    first level has half of the frame's size.

    Source: https://arxiv.org/abs/1609.05158 for the last layer (a transposed convolution of
    2 x 2 with stride 2 is its 1 x 1 convolution and shuffle).
    """
    layers = keras.layers
    check_size(height, width, depth)
    x = inputs = layers.Input((height, width, 1), name="image")
    # of all pixels of a frame: its gain and brightness do not matter
    how = {"epsilon": 1e-3, "center": False, "scale": False}
    x = layers.GroupNormalization(1, **how, name="frame_norm")(x)
    x = convolution(filters, 4, strides=2, activation="relu", name="stem")(x)
    x, skips = contract(x, normalized_convolution, filters, depth - 1, dropout)
    for level in reversed(range(depth - 1)):  # expanding path
        name, channels = f"up{level + 1}", filters * 2**level
        x = layers.Conv2D(channels, 1, name=f"{name}_reduce")(x)
        x = layers.UpSampling2D(2, name=f"{name}_grow")(x)
        x = layers.Add(name=f"{name}_skip")([x, skips[level]])
        x = double_convolution(x, normalized_convolution, channels, name)
    outputs = layers.Conv2DTranspose(1, 2, 2, "same", **output(initial_logit))(x)
    return keras.Model(inputs, outputs, name="fast_unet")


NETWORKS = {"unet": build_unet, "fast_unet": build_fast_unet}


def build_network(recipe: Recipe, height: int, width: int) -> keras.Model:
    """Return the network that a recipe describes, in Keras's dtype policy in force.

    Raises:
        ValueError: a network that is not in NETWORKS, or a size that does not fit it.
    """
    if recipe.network not in NETWORKS:
        raise ValueError(
            f"network {recipe.network!r} in the recipe; expected one of "
            f"{', '.join(NETWORKS)}"
        )
    sizes = height, width, recipe.filters, recipe.depth
    return NETWORKS[recipe.network](*sizes, recipe.dropout, recipe.initial_logit)


def summary(model: keras.Model) -> str:
    """Return Keras's table of a model's layers, as plain text."""
    lines = []
    os.environ["COLUMNS"] = str(SUMMARY_WIDTH)  # else cut at the terminal's width
    model.summary(line_length=SUMMARY_WIDTH, print_fn=lines.append)
    return "\n".join(lines).rstrip() + "\n"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, whole = parser.add_argument, command.whole
    add("--height", type=whole(8, 2048), default=96, help="rows, in pixels")
    add("--width", type=whole(8, 2048), default=96, help="columns, in pixels")
    add("--filters", type=whole(1, 256), default=32, help="channels of the first level")
    add("--depth", type=whole(1, 6), default=4, help="times the frame is halved")
    add("--out", default="model_summary.txt", help="file to write")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    model = build_unet(args.height, args.width, args.filters, args.depth)
    atomic.write_bytes(args.out, summary(model).encode())
    print(f"{len(model.layers)} layers, {model.count_params():,} parameters: {args.out}")


if __name__ == "__main__":
    sys.exit(command.run(main))
