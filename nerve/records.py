"""What the scripts' JSON files say, as frozen dataclasses that read and check themselves.

`Extract` is extract.json, `Split` preprocess.json, `Trained` the NAME.json beside weights.
A field's type and range are checked where a file is read; what is wrong is one line.
"""

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np

from nerve import machine
from nerve.command import quoted
from nerve.files import atomic
from nerve.files.arrays import Array, read_array

EXTRACT, PREPROCESS, TRAIN = (
    f"python {name}.py" for name in ("extract_data", "preprocess", "train")
)


ARRAYS = {"train": ("imgs_train.npy", "imgs_mask_train.npy"), "test": ("imgs_test.npy",)}
# types of JSON's values, and what a message calls them; all others are objects
PLAIN = {int: (int, "a whole number"), float: ((int, float), "a number")}
PLAIN |= {str: (str, "text"), bool: (bool, "true or false")}
PLAIN |= {list: (list, "a list"), tuple: (list, "a list")}
# numbers, with their least and most
Side = Annotated[int, 8, 2048]  # of a network's input, in pixels
Share = Annotated[float, 0, 1]
Count = Annotated[int, 0, 10**9]  # or a number of a subject, a frame, a row
Grey = Annotated[float, 0, 255]  # mean of the training frames
Deviation = Annotated[float, 1e-3, 255]  # standard, of the training frames' grey
Aspect = Annotated[float, 0.05, 20]  # of the training frames: width by height


def check(value: Any, kind: Any, name: str) -> Any:
    """Return a value of JSON as a type asks for it.

    That is int, float, str, bool, a dataclass, a union with None, or a list, tuple or dict
    of such; a number perhaps Annotated with its least and most.

    Raises:
        ValueError: it is of another type, or out of its range.
    """
    bounds = getattr(kind, "__metadata__", ())
    kind = kind.__origin__ if bounds else kind
    outer, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if outer in (types.UnionType, typing.Union):
        return None if value is None else check(value, inner[0], name)
    wanted, text = PLAIN.get(outer, (dict, "an object"))
    fits = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
    if kind in (int, float):
        low, high = bounds or (-sys.float_info.max, sys.float_info.max)
        text += f", {low} to {high}" if bounds else ""
        fits = fits and low <= value <= high
    if not fits:
        raise ValueError(f"{name} {value!r:.40}; expected {text}")
    if dataclasses.is_dataclass(kind):
        return build(kind, value)
    if outer is dict:
        return {key: check(v, inner[1], f"{name} {key!r:.40}") for key, v in value.items()}
    if outer in (list, tuple):
        return outer(check(v, inner[0], name) for v in value)
    return value


def build(cls: type, values: Mapping) -> Any:
    """Return a dataclass of JSON's values; keys that it does not have are passed over.

    Raises:
        ValueError: as of `check`, or a field is missing.
    """
    found, kinds = {}, typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if field.name in values:
            found[field.name] = check(values[field.name], kinds[field.name], field.name)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"no {field.name}")
    return cls(**found)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training frames: half-widths of uniform draws, unless said."""

    flips: Share  # of the frames: left to right
    rotation: float  # degrees
    scale: tuple[float, ...]  # least and most, drawn evenly in its logarithm
    shear: float  # columns moved a row
    shift: float  # share of the frame's height and width
    black_borders: Share  # of the frames: black comes in, else the mirror image
    filtered: Share  # of the frames: half of them blurred, half sharpened
    blur: float  # pixels, standard deviation, 0 to this
    sharpen: float  # share of what a blur takes away, added, 0 to this
    speckle: float  # standard deviation of a factor, in half of the frames, 0 to this
    black_level: Share  # grey, of 0 to 1, that becomes black: -0.3 times this to this
    white_level: Share  # of 0 to 1, that is added to the grey that becomes white
    gamma: float  # in its logarithm
    slope: float  # of the gain, from the top to the bottom
    depth_gain: float  # standard deviation at each of five depths
    gain: float  # contrast, in its logarithm
    fans: Share  # of the frames: cut as by a curved probe
    letters: Share  # of the frames: words written in, as of a machine's settings
    halved: Share  # of the frames: changed by half of these sizes
    crops: Share  # of the frames: a part with the nerve, or as often one without: crops.py


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides a training beside arrays, seed and precision; see recipes.py."""

    name: str
    height: int  # what it is meant for; the arrays decide
    width: int
    network: str  # of model.py
    filters: Annotated[int, 1, 256]  # channels of the first level
    depth: Annotated[int, 1, 6]  # times the frame is halved
    dropout: Share  # of the channels at the bottom that a step leaves out
    initial_logit: float  # of every pixel, before anything is learnt
    loss: str  # of losses.py
    missed_share: float | None  # weight of missed pixels in Tversky's index
    empty_smooth: float | None  # its smoothing of an empty mask, as a share of the frame
    learning_rate: float
    schedule: str  # "constant" or "cosine"
    warm_up: Share | None  # of all steps, in which "cosine" raises the rate from 0
    final_rate: Share | None  # of the rate, which "cosine" ends with
    average: float | None  # of all steps: window of the weights' exponential average
    balance: bool  # subjects drawn by the root of their number of frames
    augmentation: Augmentation | None
    batch_size: int
    epochs: int
    weight_decay: float | None = None  # of Adam, decoupled, times the rate; kernels alone

    def __post_init__(self):
        name = f"recipe {self.name!r:.40}"
        if self.schedule not in ("constant", "cosine"):
            known = "expected constant or cosine"
            raise ValueError(f"{name}: schedule {self.schedule!r:.40}; {known}")
        if self.schedule == "cosine" and None in (self.warm_up, self.final_rate):
            raise ValueError(f"{name}: cosine needs warm_up and final_rate")


def check_crops(crops: dict[str, list[int]]) -> None:
    """Refuse crops, `{"HxW": [top, left, height, width]}`, that leave their frame."""
    for size, crop in crops.items():
        frame = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
        within = frame and len(crop) == 4 and min(crop) >= 0 and min(crop[2:]) >= 1
        if within:
            rows, columns = map(int, frame.groups())
            within = crop[0] + crop[2] <= rows and crop[1] + crop[3] <= columns
        if not within:
            raise ValueError(f"crops {size!r:.20} {crop!r:.40}; expected a part of it")


def check_array(arrays: dict[str, Array], name: str, dtype: str, shape: list[int]) -> None:
    """Refuse a record that lists an array otherwise than it lists its rows."""
    found = arrays.get(name)
    if found is None or (found.dtype, found.shape) != (dtype, shape):
        said = "nothing" if found is None else f"{found.dtype:.20} {found.shape!r:.40}"
        raise ValueError(f"{said} of {name}; expected {dtype} {shape}")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """How a network takes frames."""

    height: Side
    width: Side
    mean: Grey
    standard_deviation: Deviation
    aspect: Aspect
    crops: dict[str, list[int]]  # {"HxW" of a frame: its top, left, height, width}

    def __post_init__(self):
        check_crops(self.crops)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What makes masks of probabilities."""

    threshold: Share  # probability from which a pixel is nerve
    smallest_area: Share  # of a frame; a smaller mask is emptied
    least_presence: Share  # of a frame; below it the mask is left empty


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames that weights were trained on."""

    imgs_train_sha256: str
    subjects: list[int]
    frames: int
    frames_with_nerve: int


@dataclasses.dataclass(frozen=True)
class Look:
    """What a source's training frames look like: foreign.py."""

    mean: list[float]
    inverse: list[list[float]]  # of the covariance
    limit: Annotated[float, 1e-9, 1e9]  # of the squared distance


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How sure a nerve is there, by a network's presence: sureness.py."""

    presence: list[Share]  # rising: corners, with straight lines between
    probability: list[Share]
    error: Share  # of subjects held out
    frames: int
    subjects: int
    crops: bool  # whether they are pairs of crops, for want of frames without a nerve

    def __post_init__(self):
        x, y = self.presence, self.probability
        if not 0 < len(x) == len(y) or [x, y] != [sorted(x), sorted(y)]:
            raise ValueError("a calibration whose corners do not rise")

    def sure(self, presence: float) -> float:
        """Return the probability that a frame of some presence shows a nerve."""
        return float(np.interp(presence, self.presence, self.probability))


@dataclasses.dataclass(frozen=True)
class Data:
    """Which arrays of a source weights were trained on."""

    split: str
    leaky: bool
    extract: dict[str, str]  # {array: SHA-256}
    arrays: dict[str, str]
    validation_subjects: list[int]


@dataclasses.dataclass(frozen=True)
class Trained:
    """NAME.json: all that decided a training, and all that prediction needs."""

    recipe: Recipe
    seed: int
    precision: str
    keep: str  # "best" or "last" epoch
    init_sha256: str | None
    inputs: Inputs
    limits: Limits
    data: list[Data]  # of each source; none of several weights that do not share them
    trained_on: list[Frames]  # of each source, those of earlier trainings first
    looks: list[Look] = dataclasses.field(default_factory=list)  # likewise, where known
    calibration: Calibration | None = None
    limits_searched_on: list[int] = dataclasses.field(default_factory=list)
    h5_sha256: str | None = None
    kept: dict[str, float | None] | None = None  # row of NAME.csv
    versions: dict[str, str] | None = None

    def to_dict(self) -> dict:
        """Return what NAME.json holds; `inputs` and `limits` stand at its top."""
        values = dataclasses.asdict(self)
        inputs, limits = values.pop("inputs"), values.pop("limits")
        return values | inputs | limits

    @classmethod
    def from_dict(cls, values: dict, path: Path) -> Self:
        """Return the record that NAME.json holds, perhaps one of before November 2026.

        Raises:
            ValueError: a value is missing, of another type, or out of its range.
        """
        if isinstance(values.get("recipe"), str):
            if values.get("network", "unet") != "unet":
                said = f"{path} is of the network {values['network']!r:.40}, which is gone"
                mend = "train again, or predict with the version that trained it"
                raise ValueError(f"{said}; {mend}")
            values = values | {"recipe": old_recipe(values)}
        if not isinstance(values.get("data"), list):
            values = values | {"data": [values["data"]] if values.get("data") else []}
        if "presence" in values:  # a limit on an earlier measure, as is the calibration
            if values["presence"]:
                print(f"note: {path}: its limit on presence is an earlier one, ignored")
            values = values | {"least_presence": 0.0, "calibration": None}
        calibration = values.get("calibration")
        if isinstance(calibration, dict) and "slope" in calibration:  # a logistic fit
            print(f"note: {path}: its calibration is an earlier one, ignored")
            values = values | {"calibration": None}
        parts = {"inputs": values, "limits": values}
        try:
            return build(cls, values | parts)
        except ValueError as error:
            raise ValueError(f"{path} gives {error}; train again") from error


def old_recipe(values: Mapping) -> dict:
    """Return the classic recipe of a NAME.json that lists some of it at its top."""
    absent = ("missed_share", "empty_smooth", "warm_up", "final_rate", "average")
    fixed = {"name": values.get("recipe"), "dropout": 0.0, "initial_logit": -4.0}
    return {**values, **fixed, **dict.fromkeys((*absent, "augmentation"))}


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A bad frame left out of an extraction."""

    frame: str
    why: str


@dataclasses.dataclass(frozen=True)
class Extracted:
    """The rows of imgs_train.npy or of imgs_test.npy, in order."""

    image: list[Count]
    skipped: list[Skipped]
    subject: list[Count] | None = None  # of training frames; likewise:
    area: list[Count] | None = None  # of the mask, in pixels
    name: list[str] | None = None  # of people's own frames; likewise:
    size: list[list[Count] | None] | None = None  # height and width before fitting

    def __post_init__(self):
        for name in ("subject", "area", "name", "size"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.image):
                raise ValueError(f"{len(values)} of {name} for {len(self.image)} frames")


@dataclasses.dataclass(frozen=True)
class Extract:
    """extract.json."""

    height: Annotated[int, 1, 10**5]
    width: Annotated[int, 1, 10**5]
    arrays: dict[str, Array]
    train: Extracted | None = None
    test: Extracted | None = None
    subjects_known: bool = True
    subject_names: dict[str, str] | None = None  # {number: name}
    crops: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    any_scanner: bool | None = None  # True of phantoms that each look as by another one

    def __post_init__(self):
        check_crops(self.crops)
        if self.train and None in (self.train.subject, self.train.area):
            raise ValueError("no subject or no area of training frames")
        for key, part in (("train", self.train), ("test", self.test)):
            for name in ARRAYS[key] if part else ():
                shape = [len(part.image), self.height, self.width]
                check_array(self.arrays, name, "uint8", shape)


@dataclasses.dataclass(frozen=True)
class Part:
    """Training or validation frames of a split."""

    subjects: list[Count]
    rows: list[Count]  # in the extract
    subject: list[Count]  # of each
    with_nerve: Count

    def __post_init__(self):
        if len(self.subject) != len(self.rows):
            raise ValueError(f"{len(self.subject)} of subject for {len(self.rows)} rows")


@dataclasses.dataclass(frozen=True)
class Split:
    """preprocess.json."""

    height: Side
    width: Side
    mean: Grey
    standard_deviation: Deviation
    smallest_area: Share
    split: str  # "subject", "frames" or "none"
    leaky: bool
    subjects_known: bool
    soft_masks: bool
    folds: int | None
    fold: int | None
    seed: int
    aspect: Aspect
    crops: dict[str, list[int]]
    same_sweep: list[list[int]]  # [subject, the one it shares a sweep with]
    train: Part
    val: Part
    extract: dict[str, str]  # {array: SHA-256}
    arrays: dict[str, Array]
    look: Look | None = None  # of the training frames, where there are subjects enough

    def __post_init__(self):
        check_crops(self.crops)
        if "imgs_train.npy" not in self.extract:
            raise ValueError("no imgs_train.npy in extract")
        for name, part in (("train", self.train), ("val", self.val)):
            shape = [len(part.rows), self.height, self.width, 1]
            for array in (f"x_{name}.npy", f"y_{name}.npy"):
                check_array(self.arrays, array, "float32", shape)

    @property
    def inputs(self) -> Inputs:
        """How a network trained on these arrays takes frames."""
        names = [field.name for field in dataclasses.fields(Inputs)]
        return Inputs(**{name: getattr(self, name) for name in names})


def read_json(cls: type, path: Path, repair: str) -> Any:
    """Return the dataclass that a stage's JSON file holds; errors are of `read_record`."""
    values = atomic.read_record(path, repair)
    try:
        return build(cls, values)
    except ValueError as error:
        raise ValueError(f"{path} gives {error}; make it again with: {repair}") from error


def read_extract(data: Path) -> Extract:
    """Return extract.json of a folder."""
    return read_json(Extract, data / "extract.json", f"{EXTRACT} --data {quoted(data)}")


def read_training_frames(data: Path) -> tuple[Extract, np.ndarray, np.ndarray]:
    """Return `(extract, frames, masks)` of the extracted training frames, checked."""
    extract, repair = read_extract(data), f"{EXTRACT} --data {quoted(data)}"
    if extract.train is None:
        raise ValueError(
            f"{data}/ holds test frames alone; extract a folder with train/ for training"
        )

    def read(name):
        return read_array(data, name, extract.arrays, repair)

    frames, masks = machine.map_threads(read, ARRAYS["train"])  # hashed on two cores
    return extract, frames, masks


def read_split(data: Path) -> Split:
    """Return preprocess.json, refused where extract.json is of a later extraction."""
    repair = f"{PREPROCESS} --data {quoted(data)}"
    split = read_json(Split, data / "preprocess.json", repair)
    if (data / "extract.json").exists():
        extract = read_extract(data)
        digests = {name: array.sha256 for name, array in extract.arrays.items()}
        subjects = dict(enumerate(extract.train.subject)) if extract.train else {}
        if not split.extract.items() <= digests.items() or any(
            [subjects.get(row) for row in part.rows] != part.subject
            for part in (split.train, split.val)
        ):
            said = f"{data}/preprocess.json is of an earlier extraction"
            raise ValueError(f"{said}; make it again with: {repair}")
    return split


def to_dict(record: Extract | Split) -> dict:
    """Return what a stage's JSON file holds; what an Extract does not know is left out."""

    def known(pairs):
        return {k: v for k, v in pairs if v is not None or isinstance(record, Split)}

    return dataclasses.asdict(record, dict_factory=known)
