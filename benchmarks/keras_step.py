"""One Keras contender of training_step.py, alone in its process.

    python benchmarks/keras_step.py ours --steps 10

Prints the seconds of a step and the GFLOP of its convolutions, as one line of JSON. `stock`
is `model.fit` in float32 on arrays in memory; `ours` is train.py's loop, fed from
memory-mapped arrays; `modern` is the modern recipe, and each of its convolutions alone;
`product` is a matrix product.
"""

import functools
import json
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np

sys.path.insert(0, str(measure.ROOT))

from nerve.records import Inputs
from recipes import RECIPES

# Keras is imported in the functions: TensorFlow reads at its import which kernels to take,
# and `stock` has its own choice, the others that of backend.py.

WARM_UP = 2  # calls before those that are timed
PRODUCTS = 5  # that are
SIZES = ("height", "width", "filters", "batch_size")  # of a recipe


def convolution_gflop(layer):
    """Return the GFLOP of a layer's convolution, forward, of one frame."""
    grows = type(layer).__name__ == "Conv2DTranspose"  # each input pixel meets the kernel
    pixels = math.prod((layer.input if grows else layer.output).shape[1:3])
    return 2 * math.prod(layer.kernel.shape) * pixels / 1e9


def convolutions(model):
    """Return a model's layers with a convolution, in order."""
    return [layer for layer in model.layers if hasattr(layer, "kernel")]


def step_gflop(model, batch_size):
    """Return the GFLOP of all convolutions of a training step.

    Each computes its output and the gradients of kernel and input; the first needs no
    gradient of its input.
    """
    first, *rest = map(convolution_gflop, convolutions(model))
    return batch_size * (2 * first + 3 * sum(rest))


def plan(name, changes):
    """Return the record of a recipe with some values changed, at the precision `auto`."""
    from nerve.precision import choose_precision

    precision, _ = choose_precision("auto")
    recipe = replace(RECIPES[name], **changes)
    inputs = Inputs(recipe.height, recipe.width, 0.0, 1.0, recipe.width / recipe.height, {})
    return measure.untrained(recipe, inputs, precision)


def build_model(run, num_frames):
    """Return the compiled network as train.py builds it."""
    from losses import build_loss, dice_coef, smooth_dice
    from model import build_network
    from nerve.training import loop

    design = loop.Design(build_network, build_loss(run.recipe), dice_coef, smooth_dice)
    return loop.build_model(design, run, num_frames, None)


def measure_stock(changes, steps):
    """Train as a user of Keras does; return seconds and GFLOP of a step."""
    import keras  # isort: skip  # before backend.py, see above

    from losses import dice_coef, dice_coef_loss
    from model import build_unet

    recipe = replace(RECIPES["classic"], **changes)
    height, width, filters, batch_size = (getattr(recipe, name) for name in SIZES)
    x, y = measure.draw_frames(batch_size * steps, height, width)
    model = build_unet(height, width, filters)
    optimizer = keras.optimizers.Adam(learning_rate=1e-5)
    model.compile(optimizer=optimizer, loss=dice_coef_loss, metrics=[dice_coef])
    times = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: times.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
    )
    model.fit(x, y, batch_size=batch_size, epochs=2, verbose=0, callbacks=[clock])
    return {
        "seconds": (times[-1] - times[-2]) / steps,
        "frames": batch_size,
        "gflop": step_gflop(model, batch_size),
        "precision": "float32",
    }


def time_epoch(model, run, steps):
    """Train two epochs from memory-mapped arrays; return the second's seconds a step."""
    from nerve.training.batches import batches, draw_order
    from nerve.training.loop import train_batches

    recipe = run.recipe
    height, width, _, batch_size = (getattr(recipe, name) for name in SIZES)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("x.npy", "y.npy")]
        frames = measure.draw_frames(batch_size * steps, height, width)
        for path, array in zip(paths, frames, strict=True):
            np.save(path, array)
        x, y = (np.load(path, mmap_mode="r") for path in paths)

        def train(epoch):
            order = draw_order(len(x), run.seed, epoch)
            changes = recipe.augmentation and (recipe.augmentation, run.seed, epoch)
            pairs = batches(x, y, order, batch_size, changes)
            train_batches(model, pairs, len(x), batch_size, f"epoch {epoch}")

        train(0)
        return measure.seconds_of(functools.partial(train, 1)) / steps


def measure_ours(changes, steps):
    """Train as train.py does; return seconds and GFLOP of a step."""
    run = plan("classic", changes)
    batch_size = run.recipe.batch_size
    model = build_model(run, batch_size * steps)
    return {
        "seconds": time_epoch(model, run, steps),
        "frames": batch_size,
        "gflop": step_gflop(model, batch_size),
        "precision": run.precision,
    }


def convolution_alone(layer, batch_size, is_first):
    """Return a function that runs a layer's convolution, forward and backward.

    Args:
        layer: The layer, of a functional model.
        batch_size: Frames.
        is_first: Whether its input is the frame, of which no gradient is needed.
    """
    import tensorflow as tf

    dtype = layer.compute_dtype
    x = tf.random.normal((batch_size, *layer.input.shape[1:]), dtype=dtype)
    output_shape = (batch_size, *layer.output.shape[1:])
    gradient = tf.random.normal(output_shape, dtype=dtype)
    kernel = tf.cast(layer.kernel, dtype)
    strides = getattr(layer, "strides", 1)

    @tf.function
    def run(x, kernel, gradient):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            if type(layer).__name__ == "Conv2DTranspose":
                y = tf.nn.conv2d_transpose(x, kernel, output_shape, strides)
            elif type(layer).__name__ == "DepthwiseConv2D":
                y = tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), "SAME")
            else:
                y = tf.nn.conv2d(x, kernel, strides, "SAME")
        wanted = [kernel] if is_first else [x, kernel]
        return y, tape.gradient(y, wanted, gradient)

    return functools.partial(run, x, kernel, gradient)


def measure_modern(changes, steps, rounds):
    """Measure the modern recipe's step, and its convolutions alone, in turn.

    Returns:
        Record: `step`, seconds on a batch that is ready; `fed_step`, as trained, frames
        changed at random; `share`, of `step`, that the convolutions take together;
        `convolutions`, `{layer name: {"seconds", "gflop", "what"}}`. All medians.
    """
    run = plan("modern", changes)
    height, width, _, batch_size = (getattr(run.recipe, name) for name in SIZES)
    model = build_model(run, batch_size * steps)
    layers = convolutions(model)
    functions = {
        layer.name: convolution_alone(layer, batch_size, layer is layers[0])
        for layer in layers
    }
    batch = measure.draw_frames(batch_size, height, width)
    functions["step"] = functools.partial(model.train_on_batch, *batch)
    for function in functions.values():
        measure.seconds_of(function, WARM_UP)
    times = {name: [] for name in (*functions, "fed_step")}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(measure.seconds_of(function, steps))
        times["fed_step"].append(time_epoch(model, run, steps))
    medians = {name: measure.median(values) for name, values in times.items()}
    sums = np.sum([times[layer.name] for layer in layers], axis=0)
    alone = {}
    for layer in layers:
        passes = 2 if layer is layers[0] else 3
        alone[layer.name] = {
            "seconds": medians[layer.name],
            "gflop": passes * batch_size * convolution_gflop(layer),
            "what": f"{layer.compute_dtype} {tuple(layer.kernel.shape)}, "
            f"{layer.input.shape[1]} x {layer.input.shape[2]}",
        }
    return {
        "step": medians["step"],
        "fed_step": medians["fed_step"],
        "share": measure.median((sums / times["step"]).tolist()),
        "frames": batch_size,
        "precision": run.precision,
        "convolutions": alone,
    }


def measure_product(size, precision):
    """Return the seconds and GFLOP of a product of two square matrices."""
    from nerve import backend  # noqa: F401, I001  chooses the kernels of TensorFlow
    import tensorflow as tf

    a = tf.random.normal((size, size), dtype=precision)
    multiply = functools.partial(tf.function(tf.linalg.matmul), a, a)
    measure.seconds_of(multiply, WARM_UP)
    seconds = measure.seconds_of(multiply, PRODUCTS)
    return {"seconds": seconds, "gflop": 2 * size**3 / 1e9, "precision": precision}


def parse_args(argv=None):
    parser = measure.start_parser(__doc__, rounds=1)
    add = parser.add_argument
    add("what", choices=("stock", "ours", "modern", "product"), help="what to measure")
    add("--size", type=int, default=3072, help="rows of the product's matrices")
    add("--precision", default="float32", help="of the product")
    measure.add_step_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    given = {name: getattr(args, name) for name in SIZES}
    changes = {name: value for name, value in given.items() if value is not None}
    if args.what == "stock":
        result = measure_stock(changes, args.steps)
    elif args.what == "ours":
        result = measure_ours(changes, args.steps)
    elif args.what == "modern":
        result = measure_modern(changes, args.steps, args.rounds)
    else:
        result = measure_product(args.size, args.precision)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
