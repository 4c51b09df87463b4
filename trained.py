"""Trained weights: the record beside them, the network, and the mean of several."""

import h5_file
import stage
from h5_look import look

TRAIN = "python train.py"
# What NAME.json must give, as numbers between these.
NEEDED = {
    "height": (8, 2048),
    "width": (8, 2048),
    "mean": (0, 255),
    "standard_deviation": (1e-3, 255),
    "threshold": (0, 1),
    "smallest_area": (0, 1),
    "presence": (0, 1),
    "filters": (1, 256),
    "depth": (1, 6),
}
KERNEL_BYTES = 4 * 9  # of a 3 x 3 kernel's weights for one pair of channels


def read_settings(weights, settings_path):
    """Return the record of trained weights; it is checked that it is theirs.

    Args:
        weights: The .h5.
        settings_path: A JSON lent by other weights, or None for the one beside them.
    """
    look(weights)
    path = settings_path or weights.with_suffix(".json")
    if settings_path is None and not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: {weights} alone does not say which size and scaling it "
            "was trained with; lend it the JSON of like weights by --settings"
        )
    settings = stage.read_record(path, TRAIN)
    for name, (low, high) in NEEDED.items():
        value = settings.get(name)
        whole = name in ("height", "width", "filters", "depth")
        if (
            isinstance(value, bool)
            or not isinstance(value, int if whole else int | float)
            or not low <= value <= high
        ):
            number = "a whole number" if whole else "a number"
            raise ValueError(
                f"{path} gives {name} {value!r:.40}; expected {number}, {low} to {high}"
            )
    # of all networks here, the widest convolution leads between this many channels or more
    channels = settings["filters"] * 2 ** (settings["depth"] - 1)
    if KERNEL_BYTES * channels**2 > weights.stat().st_size:
        raise ValueError(
            f"{path} gives filters {settings['filters']} and depth {settings['depth']}, "
            f"for which {weights} is too small"
        )
    if settings_path is None and settings.get("h5_sha256") != stage.sha256(weights):
        raise ValueError(
            f"{weights} is not the file that {path} describes (SHA-256 differs); copy both "
            "together, or lend it another JSON by --settings"
        )
    return settings


def load_network(weights, settings, precision="float32"):
    """Return the U-Net with trained weights, computing in `precision`."""
    from model import build_network  # here: TensorFlow takes seconds to import

    model = build_network(settings, precision)  # all of it: no casts of the weights
    h5_file.load(model, weights)
    return model


def merge_settings(weights, records):
    """Return the record that stands for several weights together.

    Thresholds are the first one's; the subjects trained on, those of all.

    Args:
        weights: The .h5 files.
        records: What `read_settings` returned for each.

    Raises:
        ValueError: their input sizes differ.
    """
    merged = dict(records[0])
    for path, record in zip(weights, records, strict=True):
        size, expected = ((r["height"], r["width"]) for r in (record, merged))
        if size != expected:
            raise ValueError(
                f"{path} takes frames of {size[0]} x {size[1]} pixels, {weights[0]} of "
                f"{expected[0]} x {expected[1]}; only weights of one size are averaged"
            )
        if record.get("data") != merged.get("data"):
            merged["data"] = {}
    merged["trained_on"] = [p for r in records for p in r.get("trained_on") or []]
    return merged


def load_networks(weights, records, precision="float32"):
    """Return the network of one .h5, or one that gives the mean probability of several.

    Args:
        weights: The .h5 files.
        records: What `read_settings` returned for each.
        precision: What to compute in.

    Returns:
        Model that takes frames scaled as the first record says; each network gets them
        scaled as its own says.
    """
    networks = [
        load_network(path, record, precision)
        for path, record in zip(weights, records, strict=True)
    ]
    if len(networks) == 1:
        return networks[0]
    from backend import keras  # here: TensorFlow takes seconds to import

    first, outputs = records[0], []
    inputs = keras.layers.Input((first["height"], first["width"], 1))
    for k, (network, record) in enumerate(zip(networks, records, strict=True)):
        network.name = f"network{k + 1}"  # names must differ within a model
        deviation = record["standard_deviation"]
        rescale = keras.layers.Rescaling(
            first["standard_deviation"] / deviation,
            (first["mean"] - record["mean"]) / deviation,
        )
        outputs.append(network(rescale(inputs)))
    return keras.Model(inputs, keras.layers.Average()(outputs))
