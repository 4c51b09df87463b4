"""The U-Net of the classic recipe.

    python model.py --height 96 --width 96

Writes  model_summary.txt
"""

import argparse
import os
import sys

import keras
from keras import initializers, layers

import stage

# The network starts by calling 1.8 % of the pixels nerve; in the challenge 1.2 % are.
# From one half, Dice first pushes every pixel down: on phantoms, four trainings of four
# at rates of 3e-4 and 1e-3 stayed at "all empty".
# Source: https://arxiv.org/abs/1708.02002, section 4.1.
EMPTY_LOGIT = -4.0
SUMMARY_WIDTH = 110  # characters


def check_size(height, width, depth):
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


def double_convolution(x, filters, name):
    """Apply two 3 x 3 convolutions, each followed by a ReLU."""
    for k in (1, 2):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",  # the paper's
            name=f"{name}_conv{k}",
        )(x)
    return x


def build_unet(height=96, width=96, filters=32, depth=4):
    """Return the plain U-Net, uncompiled.

    Args:
        height: Rows of the frames, in pixels, a multiple of `2 ** depth`.
        width: Columns, likewise.
        filters: Channels of the first level; doubled at each further one.
        depth: Number of times the contracting path halves the frame.

    Returns:
        Functional model: float32 scaled frames `(batch, height, width, 1)` to nerve
        probabilities in [0, 1], same shape.

    Raises:
        ValueError: a size that `depth` does not divide.

    Source: https://arxiv.org/abs/1505.04597, here with padded convolutions.
    """
    check_size(height, width, depth)
    x = inputs = layers.Input((height, width, 1), name="image")
    skips = []
    for level in range(depth):  # contracting path
        x = double_convolution(x, filters * 2**level, f"down{level + 1}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level + 1}_pool")(x)
    x = double_convolution(x, filters * 2**depth, "bottom")
    for level in reversed(range(depth)):  # expanding path
        x = layers.Conv2DTranspose(
            filters * 2**level, 2, strides=2, padding="same", name=f"up{level + 1}_grow"
        )(x)
        x = layers.Concatenate(name=f"up{level + 1}_skip")([x, skips[level]])
        x = double_convolution(x, filters * 2**level, f"up{level + 1}")
    # float32 also where the rest computes in a shorter type
    outputs = layers.Conv2D(
        1,
        1,
        activation="sigmoid",
        bias_initializer=initializers.Constant(EMPTY_LOGIT),
        dtype="float32",
        name="probability",
    )(x)
    return keras.Model(inputs, outputs, name="unet")


def parse_args(argv=None):
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


def summary(model):
    """Return Keras's table of a model's layers, as plain text."""
    lines = []
    os.environ["COLUMNS"] = str(SUMMARY_WIDTH)  # else cut at the terminal's width
    model.summary(line_length=SUMMARY_WIDTH, print_fn=lines.append)
    return "\n".join(lines).rstrip() + "\n"


def main(argv=None):
    args = parse_args(argv)
    model = build_unet(args.height, args.width, args.filters, args.depth)
    stage.write_bytes(args.out, summary(model).encode())
    print(
        f"{len(model.layers)} layers, {model.count_params():,} parameters: {args.out}"
    )


if __name__ == "__main__":
    sys.exit(stage.run(main))
