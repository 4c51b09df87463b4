"""Trained weights: the record beside them, the network, and the mean of several."""

import re
from collections.abc import Sequence
from pathlib import Path

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
    "aspect": (0.05, 20),
    "filters": (1, 256),
    "depth": (1, 6),
}
KERNEL_BYTES = 4 * 9  # of a 3 x 3 kernel's weights for one pair of channels


def check_numbers(path: Path, settings: dict) -> None:
    """Refuse a record whose numbers are none, or out of their limits."""
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


def is_within(crop: object, size: str) -> bool:
    """Tell whether a crop, [top, left, height, width], lies in a frame of "HxW" pixels."""
    if not isinstance(crop, list) or not all(type(value) is int for value in crop):
        return False
    height, width = map(int, size.split("x"))
    return (
        len(crop) == 4
        and min(crop) >= 0
        and min(crop[2:]) >= 1
        and crop[0] + crop[2] <= height
        and crop[1] + crop[3] <= width
    )


def check_provenance(path: Path, settings: dict) -> None:
    """Refuse a record whose account of the training is not laid out as train.py's."""
    parts = settings.get("trained_on") or []
    whole = isinstance(parts, list) and all(
        isinstance(part, dict)
        and isinstance(part.get("imgs_train_sha256"), str)
        and isinstance(part.get("subjects"), list)
        and all(isinstance(subject, int) for subject in part["subjects"])
        and all(isinstance(part.get(n), int) for n in ("frames", "frames_with_nerve"))
        for part in parts
    )
    kept, crops = settings.get("kept") or {}, settings.get("crops")
    if (
        not whole
        or not isinstance(crops, dict)
        or not all(
            re.fullmatch(r"\d{1,5}x\d{1,5}", size) and is_within(crop, size)
            for size, crop in crops.items()
        )
        or not isinstance(settings.get("data", {}), dict)
        or not isinstance(kept, dict)
        or not isinstance(kept.get("dice_coef", 0.0), int | float)
        or not isinstance(settings.get("limits_searched_on") or [], list)
    ):
        raise ValueError(f"{path} is not laid out as a record of {TRAIN}; train again")


def read_settings(
    weights: Path, settings_path: Path | None, trust: bool = False
) -> dict:
    """Return the record of trained weights; it is checked that it is theirs.

    Args:
        weights: The .h5.
        settings_path: A JSON lent by other weights, or None for the one beside them.
        trust: Whether the weights are a model of others, whatever it holds.
    """
    if not trust:
        look(weights)
    elif not weights.is_file():
        raise FileNotFoundError(f"{weights} is missing")
    path = settings_path or weights.with_suffix(".json")
    if settings_path is None and not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: {weights} alone does not say which size and scaling it "
            "was trained with; lend it the JSON of like weights by predict.py --settings"
        )
    settings = stage.read_record(path, TRAIN)
    check_numbers(path, settings)
    check_provenance(path, settings)
    # of all networks here, the widest convolution leads between this many channels or more
    channels = settings["filters"] * 2 ** (settings["depth"] - 1)
    if not trust and KERNEL_BYTES * channels**2 > weights.stat().st_size:
        raise ValueError(
            f"{path} gives filters {settings['filters']} and depth {settings['depth']}, "
            f"for which {weights} is too small"
        )
    if settings_path is None and settings.get("h5_sha256") != stage.sha256(weights):
        raise ValueError(
            f"{weights} is not the file that {path} describes (SHA-256 differs); copy both "
            "together, or lend it another JSON by predict.py --settings"
        )
    return settings


def load_network(weights: Path, settings: dict, precision: str = "float32"):
    """Return the U-Net with trained weights, computing in `precision`."""
    from model import build_network  # here: TensorFlow takes seconds to import

    model = build_network(settings, precision)  # all of it: no casts of the weights
    h5_file.load(model, weights)
    return model


def load_foreign(path: Path, settings: dict):
    """Return a whole model of others, whose layers may run any code.

    Args:
        path: Its .h5 or .keras.
        settings: Record with `height` and `width`.

    Raises:
        ValueError: Keras cannot load it, or it does not take such frames to such maps.
    """
    from backend import keras  # here: TensorFlow takes seconds to import

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=False)
        shapes = model.input_shape[1:], model.output_shape[1:]
    except Exception as error:  # code of others may raise anything
        text = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be loaded by Keras ({text:.300})") from error
    expected = settings["height"], settings["width"], 1
    for shape in shapes:
        if len(shape) != 3 or any(
            s not in (e, None) for s, e in zip(shape, expected, strict=True)
        ):
            raise ValueError(
                f"{path} takes {shapes[0]} and gives {shapes[1]}; expected {expected} both"
            )
    return model


def merge_settings(weights: Sequence[Path], records: list[dict]) -> dict:
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
        if any(record.get(name) != merged.get(name) for name in ("aspect", "crops")):
            raise ValueError(
                f"{path} was trained on frames of another aspect or crop than {weights[0]}"
            )
        if record.get("data") != merged.get("data"):
            merged["data"] = {}
    merged["trained_on"] = [p for r in records for p in r.get("trained_on") or []]
    return merged


def load_networks(
    weights: Sequence[Path],
    records: list[dict],
    precision: str = "float32",
    trust: bool = False,
):
    """Return the network of one .h5, or one that gives the mean probability of several.

    Args:
        weights: The .h5 files.
        records: What `read_settings` returned for each.
        precision: What to compute in.
        trust: Whether to load them as `load_foreign` does.

    Returns:
        Model that takes frames scaled as the first record says; each network gets them
        scaled as its own says.
    """
    networks = [
        load_foreign(path, record) if trust else load_network(path, record, precision)
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
