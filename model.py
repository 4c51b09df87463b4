"""The networks: the plain U-Net of the classic recipe, and those of the others.

    python model.py --height 96 --width 96

Writes  model_summary.txt
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable

import encoder
import stage
from backend import keras
from convolutions import (
    StandardizedConv2D,
    double_convolution,
    normalized_convolution,
    plain_convolution,
    standardized_convolution,
)

# The network starts by calling 1.8 % of the pixels nerve; in the challenge 1.2 % are.
# From one half, Dice first pushes every pixel down: on phantoms, four trainings of four
# at rates of 3e-4 and 1e-3 stayed at "all empty".
# Source: https://arxiv.org/abs/1708.02002, section 4.1.
EMPTY_LOGIT = -4.0
SUMMARY_WIDTH = 110  # characters
DROPOUT = 0.2  # share of the channels at the bottom that a step leaves out


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


def build_unet(
    height: int = 96,
    width: int = 96,
    filters: int = 32,
    depth: int = 4,
    dtype: str = "float32",
    training: bool = False,
) -> keras.Model:
    """Return the plain U-Net, uncompiled.

    Args:
        height: Rows of the frames, in pixels, a multiple of `2 ** depth`.
        width: Columns, likewise.
        filters: Channels of the first level; doubled at each further one.
        depth: Number of times the contracting path halves the frame.
        dtype: Keras's dtype policy, as `precision.dtype_policy` returns it.
        training: Makes no difference to this network.

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
        x = double_convolution(
            x, plain_convolution, filters * 2**level, dtype, f"down{level + 1}"
        )
        skips.append(x)
        x = layers.MaxPooling2D(2, dtype=dtype, name=f"down{level + 1}_pool")(x)
    x = double_convolution(x, plain_convolution, filters * 2**depth, dtype, "bottom")
    for level in reversed(range(depth)):  # expanding path
        name, channels = f"up{level + 1}", filters * 2**level
        x = layers.Conv2DTranspose(
            channels, 2, strides=2, padding="same", dtype=dtype, name=f"{name}_grow"
        )(x)
        x = layers.Concatenate(dtype=dtype, name=f"{name}_skip")([x, skips[level]])
        x = double_convolution(x, plain_convolution, channels, dtype, name)
    # float32 also where the rest computes in a shorter type
    outputs = layers.Conv2D(
        1,
        1,
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(EMPTY_LOGIT),
        dtype="float32",
        name="probability",
    )(x)
    return keras.Model(inputs, outputs, name="unet")


def build_fast_unet(
    height: int = 128,
    width: int = 176,
    filters: int = 32,
    depth: int = 4,
    dtype: str = "float32",
    training: bool = False,
) -> keras.Model:
    """Return a U-Net that computes nothing at full size, uncompiled.

    The first convolution halves the frame and the last one doubles it, skips are added
    instead of concatenated, 1 x 1 convolutions come before what they enlarge, convolutions
    are followed by instance normalisation, and dropout leaves out whole channels.

    Args:
        height: Rows of the frames, in pixels, a multiple of `2 ** depth`.
        width: Columns, likewise.
        filters: Channels of the first level, at half size; doubled at each further one.
        depth: Number of times the frame is halved, the first convolution included.
        dtype: Keras's dtype policy, as `precision.dtype_policy` returns it.
        training: Makes no difference to this network.

    Returns:
        Functional model as of `build_unet`.

    Raises:
        ValueError: a size that `depth` does not divide.

    Source: https://arxiv.org/abs/1609.05158 for the last layer (a transposed convolution of
    2 x 2 with stride 2 is its 1 x 1 convolution and shuffle).
    """
    layers = keras.layers
    check_size(height, width, depth)
    x = inputs = layers.Input((height, width, 1), name="image")
    x = layers.Conv2D(
        filters,
        4,
        strides=2,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
        dtype=dtype,
        name="stem",
    )(x)
    skips = []
    for level in range(depth - 1):  # contracting path
        name, channels = f"down{level + 1}", filters * 2**level
        x = double_convolution(x, normalized_convolution, channels, dtype, name)
        skips.append(x)
        x = layers.MaxPooling2D(2, dtype=dtype, name=f"{name}_pool")(x)
    channels = filters * 2 ** (depth - 1)
    x = double_convolution(x, normalized_convolution, channels, dtype, "bottom")
    x = layers.SpatialDropout2D(DROPOUT, dtype=dtype, name="bottom_dropout")(x)
    outputs = expand(x, skips, filters, dtype, normalized_convolution)
    return keras.Model(inputs, outputs, name="fast_unet")


def expand(
    x: keras.KerasTensor,
    skips: list[keras.KerasTensor],
    filters: int,
    dtype: str,
    convolution: Callable[[keras.KerasTensor, int, str, str], keras.KerasTensor],
) -> keras.KerasTensor:
    """Return nerve probabilities from the bottom of a network whose skips are added.

    Args:
        x: The bottom, at half the size of the last skip.
        skips: From half of the frame's size on; of `filters` channels, doubled at each.
        filters: As of `build_fast_unet`, likewise `dtype`.
        convolution: Of convolutions.py.
    """
    layers = keras.layers
    for level in reversed(range(len(skips))):
        name, channels = f"up{level + 1}", filters * 2**level
        x = layers.Conv2D(channels, 1, dtype=dtype, name=f"{name}_reduce")(x)
        x = layers.UpSampling2D(2, dtype=dtype, name=f"{name}_grow")(x)
        x = layers.Add(dtype=dtype, name=f"{name}_skip")([x, skips[level]])
        x = double_convolution(x, convolution, channels, dtype, name)
    return layers.Conv2DTranspose(
        1,
        2,
        strides=2,
        padding="same",
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(EMPTY_LOGIT),
        dtype="float32",
        name="probability",
    )(x)


def build_lite_unet(
    height: int = 192,
    width: int = 256,
    filters: int = 32,
    depth: int = 4,
    dtype: str = "float32",
    training: bool = False,
    stages: tuple[encoder.Stage, ...] = encoder.STAGES,
) -> keras.Model:
    """Return a U-Net whose contracting path is EfficientNet-Lite0's, uncompiled.

    The expanding path is that of `build_fast_unet`, without its normalisation.

    Args:
        height: Rows of the frames, in pixels, a multiple of 16.
        width: Columns, likewise.
        filters: Channels of the expanding path at half size; doubled at each further level.
        depth: Number of times the frame is halved: 4, the encoder's.
        dtype: Keras's dtype policy, as `precision.dtype_policy` returns it.
        training: Whether to standardise the kernels of the 3 x 3 convolutions; otherwise
            all layers are Keras's own. `copy_weights` leads from one to the other.
        stages: Of encoder.py.

    Returns:
        Functional model as of `build_unet`.

    Raises:
        ValueError: another depth, or a size that it does not divide.
    """
    if depth != encoder.DEPTH:
        raise ValueError(f"depth {depth}; the encoder of ImageNet has {encoder.DEPTH}")
    layers = keras.layers
    check_size(height, width, depth)
    inputs = layers.Input((height, width, 1), name="image")
    x, skips = encoder.contract(inputs, dtype, training, stages)
    x = layers.SpatialDropout2D(DROPOUT, dtype=dtype, name="bottom_dropout")(x)
    for level in reversed(range(depth - 1)):
        channels, name = filters * 2**level, f"up{level + 1}"
        skips[level] = layers.Conv2D(channels, 1, dtype=dtype, name=f"{name}_side")(
            skips[level]
        )
    convolution = standardized_convolution if training else plain_convolution
    outputs = expand(x, skips, filters, dtype, convolution)
    return keras.Model(inputs, outputs, name="lite_unet")


NETWORKS = {
    "unet": build_unet,
    "fast_unet": build_fast_unet,
    "lite_unet": build_lite_unet,
    "small_unet": functools.partial(build_lite_unet, stages=encoder.SMALL_STAGES),
}


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


def build_network(
    settings: dict, dtype: str = "float32", training: bool = False
) -> keras.Model:
    """Return the network that a record of settings describes.

    Args:
        settings: Record with `network`, `height`, `width`, `filters`, `depth`.
        dtype: Keras's dtype policy.
        training: Whether it is going to be trained, else all layers are Keras's own.

    Raises:
        ValueError: a network that is not in NETWORKS.
    """
    if settings.get("network") not in list(NETWORKS):  # also of what has no hash
        raise ValueError(
            f"network {settings.get('network')!r} in the settings; expected one of "
            f"{', '.join(NETWORKS)}"
        )
    names = ("height", "width", "filters", "depth")
    sizes = {name: settings[name] for name in names}
    build = NETWORKS[settings["network"]]
    return build(**sizes, dtype=dtype, training=training)


def summary(model: keras.Model) -> str:
    """Return Keras's table of a model's layers, as plain text."""
    lines = []
    os.environ["COLUMNS"] = str(SUMMARY_WIDTH)  # else cut at the terminal's width
    model.summary(line_length=SUMMARY_WIDTH, print_fn=lines.append)
    return "\n".join(lines).rstrip() + "\n"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--height", type=int, default=96, help="rows, in pixels")
    add("--width", type=int, default=96, help="columns, in pixels")
    add("--filters", type=int, default=32, help="channels of the first level, 1 to 256")
    add("--depth", type=int, default=4, help="times the frame is halved, 1 to 6")
    add("--out", default="model_summary.txt", help="file to write")
    args = parser.parse_args(argv)
    if not 1 <= args.filters <= 256:
        parser.error(f"--filters {args.filters}; expected 1 to 256")
    if not 1 <= args.depth <= 6:
        parser.error(f"--depth {args.depth}; expected 1 to 6")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    model = build_unet(args.height, args.width, args.filters, args.depth)
    stage.write_bytes(args.out, summary(model).encode())
    print(
        f"{len(model.layers)} layers, {model.count_params():,} parameters: {args.out}"
    )


if __name__ == "__main__":
    sys.exit(stage.run(main))
