"""From raw files to a submission by stock Keras, as most notebooks do it.

    python benchmarks/stock_whole.py raw 0.1 10

The network and batches of the recipe modern, on a share of the frames of a raw folder, for
so many epochs: arrays in memory, `fit` in float32 without augmentation, `predict`, and
loops over frames. Prints the seconds of each part, as one line of JSON.
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import measure
import numpy as np
from run_length_speed import snippet

sys.path.insert(0, str(measure.ROOT))

from recipes import MODERN

SIZE = MODERN.width, MODERN.height  # cv2: width first
THRESHOLD = 0.5
START = "start"  # of TensorFlow, and tracing: the same for any number of frames


def read(raw, share):
    """Return frames, masks and test frames as lists of uint8 arrays."""
    masks = sorted((raw / "train").glob("*_mask.tif"))
    frames = [path.with_name(path.name.replace("_mask", "")) for path in masks]
    parts = frames, masks, sorted((raw / "test").glob("*.tif"))
    return [
        [
            cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            for path in paths[: max(1, round(share * len(paths)))]
        ]
        for paths in parts
    ]


def resize(frames, masks, test):
    """Return float32 arrays `(N, height, width, 1)`: scaled frames, masks, test frames."""
    x, y, z = (
        np.array([cv2.resize(each, SIZE) for each in part], np.float32)[..., np.newaxis]
        for part in (frames, masks, test)
    )
    mean, deviation = x.mean(), x.std()
    return (x - mean) / deviation, np.round(y / 255), (z - mean) / deviation


def build():
    """Return the network, compiled and traced by a batch of zeros."""
    import keras  # isort: skip  # before backend.py, which chooses kernels

    from losses import dice_coef, dice_coef_loss
    from model import build_fast_unet

    recipe = MODERN
    values = recipe.filters, recipe.depth, recipe.dropout, recipe.initial_logit
    model = build_fast_unet(recipe.height, recipe.width, *values)
    optimizer = keras.optimizers.Adam(recipe.learning_rate)
    model.compile(optimizer=optimizer, loss=dice_coef_loss, metrics=[dice_coef])
    zeros = np.zeros((recipe.batch_size, recipe.height, recipe.width, 1), np.float32)
    model.fit(zeros, zeros, verbose=0)
    model.predict(zeros, verbose=0)
    return model


def submit(probabilities, shape, path):
    """Write a submission of probabilities `(N, height, width, 1)`."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img", "pixels"])
        for number, probability in enumerate(probabilities, 1):
            mask = cv2.resize(probability[..., 0], shape[::-1]) > THRESHOLD
            writer.writerow([number, snippet(mask)])


def main():
    raw, share, epochs = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    seconds, begin = {}, time.perf_counter()

    def lap(name):
        nonlocal begin
        seconds[name], begin = time.perf_counter() - begin, time.perf_counter()

    frames, masks, test = read(raw, share)
    lap("read")
    x, y, z = resize(frames, masks, test)
    lap("resize")
    model = build()
    lap(START)
    how = {"batch_size": MODERN.batch_size, "epochs": epochs, "validation_split": 0.1}
    model.fit(x, y, verbose=0, **how)
    lap("fit")
    probabilities = model.predict(z, verbose=0)
    lap("predict")
    with tempfile.TemporaryDirectory() as folder:
        submit(probabilities, test[0].shape, Path(folder) / "submission.csv")
    lap("write")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
