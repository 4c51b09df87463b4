"""Trained weights: the record beside them, the network, and the mean of several."""

import h5_file
import stage

TRAIN = "python train.py"
NEEDED = ("height", "width", "mean", "standard_deviation", "threshold", "smallest_area")
NEEDED += ("presence", "filters", "depth")  # what NAME.json must give, as numbers


def read_settings(weights, settings_path):
    """Return the record of trained weights; it is checked that it is theirs.

    Args:
        weights: The .h5.
        settings_path: A JSON lent by other weights, or None for the one beside them.
    """
    h5_file.check(weights)
    path = settings_path or weights.with_suffix(".json")
    if settings_path is None and not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: {weights} alone does not say which size and scaling it "
            "was trained with; lend it the JSON of like weights by --settings"
        )
    settings = stage.read_record(path, TRAIN)
    for name in NEEDED:
        value = settings.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{path} gives {name} {value!r}; expected a number")
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
