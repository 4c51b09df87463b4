"""Trained weights: the record beside them, the network, and the mean of several."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from nerve.files import atomic, h5_file
from nerve.files.h5_look import look
from nerve.records import TRAIN, Trained

KERNEL_BYTES = 4 * 9  # of a 3 x 3 kernel's weights for one pair of channels


def read_trained(weights: Path, lent: Path | None = None) -> Trained:
    """Return the record of trained weights: theirs, as is checked, or one that is lent."""
    look(weights)
    path = lent or weights.with_suffix(".json")
    if lent is None and not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: {weights} alone does not say which size and scaling it "
            "was trained with; lend it the JSON of like weights by predict.py --settings"
        )
    trained = Trained.from_dict(atomic.read_record(path, TRAIN), path)
    # of all networks here, the widest convolution leads between this many channels or more
    recipe = trained.recipe
    channels = recipe.filters * 2 ** (recipe.depth - 1)
    if KERNEL_BYTES * channels**2 > weights.stat().st_size:
        raise ValueError(
            f"{path} gives filters {recipe.filters} and depth {recipe.depth}, for which "
            f"{weights} is too small"
        )
    if lent is None and trained.h5_sha256 != atomic.sha256(weights):
        raise ValueError(
            f"{weights} is not the file that {path} describes (SHA-256 differs); copy both "
            "together, or lend it another JSON by predict.py --settings"
        )
    return trained


def load_network(
    build_network: Callable, weights: Path, trained: Trained, policy: str = "float32"
):
    """Return the network with trained weights, which a dtype policy of Keras casts, too."""
    from nerve.backend import computing_in  # here: TensorFlow takes seconds to import

    with computing_in(policy):
        model = build_network(trained.recipe, trained.inputs.height, trained.inputs.width)
    h5_file.load(model, weights)
    return model


def merge(weights: Sequence[Path], records: list[Trained]) -> Trained:
    """Return the record of several weights together: the first, with all subjects.

    Raises:
        ValueError: their input sizes, aspects or crops differ.
    """
    first = records[0]
    for path, record in zip(weights, records, strict=True):
        mine, expected = record.inputs, first.inputs
        if (mine.height, mine.width) != (expected.height, expected.width):
            raise ValueError(
                f"{path} takes frames of {mine.height} x {mine.width} pixels, {weights[0]} "
                f"of {expected.height} x {expected.width}; only weights of one size are "
                "averaged"
            )
        if (mine.aspect, mine.crops) != (expected.aspect, expected.crops):
            raise ValueError(
                f"{path} was trained on frames of another aspect or crop than {weights[0]}"
            )
    data = first.data if all(r.data == first.data for r in records) else []
    parts = [part for record in records for part in record.trained_on]
    looks = [look for record in records for look in record.looks]
    return dataclasses.replace(first, data=data, trained_on=parts, looks=looks)


def load_networks(build_network: Callable, weights: Sequence[Path], records: list, *policy):
    """Return the network of one .h5, or one that gives the mean probability of several.

    It takes frames scaled as the first record says; each network gets them scaled as its
    own says. Arguments as of `load_network`.
    """
    pairs = zip(weights, records, strict=True)
    networks = [load_network(build_network, *pair, *policy) for pair in pairs]
    if len(networks) == 1:
        return networks[0]
    from nerve.backend import keras  # here: TensorFlow takes seconds to import

    first, outputs = records[0].inputs, []
    inputs = keras.layers.Input((first.height, first.width, 1))
    for k, (network, record) in enumerate(zip(networks, records, strict=True)):
        network.name = f"network{k + 1}"  # names must differ within a model
        deviation = record.inputs.standard_deviation
        scale = first.standard_deviation / deviation
        offset = (first.mean - record.inputs.mean) / deviation
        rescale = keras.layers.Rescaling(scale, offset)
        outputs.append(network(rescale(inputs)))
    return keras.Model(inputs, keras.layers.Average()(outputs))
