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
    skips = []
    for level in range(depth):  # contracting path
        x = double_convolution(x, plain_convolution, filters * 2**level, f"down{level + 1}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level + 1}_pool")(x)
    x = double_convolution(x, plain_convolution, filters * 2**depth, "bottom")
    if dropout:
        x = layers.SpatialDropout2D(dropout, name="bottom_dropout")(x)
    for level in reversed(range(depth)):  # expanding path
        name, channels = f"up{level + 1}", filters * 2**level
        x = layers.Conv2DTranspose(
            channels, 2, strides=2, padding="same", name=f"{name}_grow"
        )(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[level]])
        x = double_convolution(x, plain_convolution, channels, name)
    # float32 also where the rest computes in a shorter type
    outputs = layers.Conv2D(
        1,
        1,
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(initial_logit),
        dtype="float32",
        name="probability",
    )(x)
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
    x = layers.GroupNormalization(
        1, epsilon=1e-3, center=False, scale=False, name="frame_norm"
    )(x)
    x = layers.Conv2D(
        filters,
        4,
        strides=2,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
        name="stem",
    )(x)
    skips = []
    for level in range(depth - 1):  # contracting path
        name, channels = f"down{level + 1}", filters * 2**level
        x = double_convolution(x, normalized_convolution, channels, name)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    channels = filters * 2 ** (depth - 1)
    x = double_convolution(x, normalized_convolution, channels, "bottom")
    x = layers.SpatialDropout2D(dropout, name="bottom_dropout")(x)
    for level in reversed(range(depth - 1)):  # expanding path
        name, channels = f"up{level + 1}", filters * 2**level
        x = layers.Conv2D(channels, 1, name=f"{name}_reduce")(x)
        x = layers.UpSampling2D(2, name=f"{name}_grow")(x)
        x = layers.Add(name=f"{name}_skip")([x, skips[level]])
        x = double_convolution(x, normalized_convolution, channels, name)
    outputs = layers.Conv2DTranspose(
        1,
        2,
        strides=2,
        padding="same",
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(initial_logit),
        dtype="float32",
        name="probability",
    )(x)
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
