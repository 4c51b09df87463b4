"""Weights from strangers: each kind of hostile file is refused by a look, in one line."""

import dataclasses
import json
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import ROOT

from model import build_network, build_unet
from nerve.backend import keras
from nerve.files import h5_file
from nerve.files.h5_look import look
from recipes import MODERN


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An .h5 of train.py's kind."""
    path = tmp_path_factory.mktemp("good") / "unet.h5"
    network = build_unet(16, 24, filters=4, depth=2)
    path.write_bytes(h5_file.to_bytes(network, "dice_coef_loss", ["dice_coef"], 1e-5))
    return path


@pytest.fixture
def copy(good, tmp_path):
    """A copy of it, to be changed."""
    path = tmp_path / "unet.h5"
    path.write_bytes(good.read_bytes())
    return path


KERNEL = "model_weights/down1_conv1/down1_conv1/kernel:0"


def replace(path, make):
    """Replace an array of the file by what `make(group, name)` makes."""
    with h5py.File(path, "r+") as file:
        group, name = file[KERNEL].parent, KERNEL.rpartition("/")[2]
        del group[name]
        make(group, name)


def external_storage(path):
    (path.parent / "secret.bin").write_bytes(bytes(144))
    external = [(str(path.parent / "secret.bin"), 0, 144)]
    replace(path, lambda g, n: g.create_dataset(n, (3, 3, 1, 4), "f4", external=external))


def external_link(path):
    def link(group, name):
        group[name] = h5py.ExternalLink("/etc/passwd", "/")

    replace(path, link)


def soft_link(path):
    def link(group, name):
        group[name] = h5py.SoftLink("/model_weights")

    replace(path, link)


def virtual(path):
    with h5py.File(path.parent / "other.h5", "w") as file:
        file["x"] = np.zeros((3, 3, 1, 4), "f4")
    layout = h5py.VirtualLayout((3, 3, 1, 4), "f4")
    layout[:] = h5py.VirtualSource(path.parent / "other.h5", "x", (3, 3, 1, 4))
    replace(path, lambda group, name: group.create_virtual_dataset(name, layout))


def shape_bomb(path):
    replace(path, lambda group, name: group.create_dataset(name, (1 << 20, 1 << 20), "f4"))


def bomb_of_65_bits(path):
    shape = (1 << 33, 1 << 32)
    replace(path, lambda group, name: group.create_dataset(name, shape, "f4"))


def compression_bomb(path):
    zeros = np.zeros((1 << 14, 1 << 10), "f4")
    replace(path, lambda g, n: g.create_dataset(n, data=zeros, compression="gzip"))


def text_array(path):
    replace(path, lambda group, name: group.create_dataset(name, data=[b"import os"]))


def object_array(path):
    kind = h5py.vlen_dtype(np.float32)
    replace(path, lambda group, name: group.create_dataset(name, (3,), kind))


def committed_type(path):
    def commit(group, name):
        group[name] = np.dtype("f4")

    replace(path, commit)


def loop(path):
    with h5py.File(path, "r+") as file:  # a group within itself is no danger: seen once
        file["model_weights/again"] = file["model_weights"]
    replace(path, lambda g, n: g.create_dataset(n, data=np.full((3, 3, 1, 4), np.nan)))


def deep_groups(path):
    with h5py.File(path, "r+") as file:
        file.create_group("/".join("g" * 40))


def many_groups(path):
    with h5py.File(path, "r+") as file:
        for number in range(20_100):
            file.create_group(f"many/{number}")


def infinite(path):
    with h5py.File(path, "r+") as file:
        file[KERNEL][0, 0, 0, 0] = np.inf


def change_config(path, change):
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = change(config)


def lambda_layer(path):
    def change(config):
        config["config"]["layers"][1]["class_name"] = "Lambda"
        return json.dumps(config)

    change_config(path, change)


def nested_lambda(path):
    def change(config):
        inner = {"class_name": "Lambda", "config": {}, "name": "x"}
        nested = {"class_name": "Functional", "config": {"layers": [inner]}}
        config["config"]["layers"].append(nested)
        return json.dumps(config)

    change_config(path, change)


def code_in_an_activation(path):
    def change(config):
        code = {"class_name": "__lambda__", "config": {"code": "AAAA"}}
        config["config"]["layers"][1]["config"]["activation"] = code
        return json.dumps(config)

    change_config(path, change)


def foreign_layer(path):
    def change(config):
        config["config"]["layers"][1]["class_name"] = "os>system"
        return json.dumps(config)

    change_config(path, change)


def deep_json(path):
    # an attribute of 64 kB at most lies in the file's own head
    change_config(path, lambda config: '{"a":' * 9000 + "1" + "}" * 9000)


def no_json(path):
    change_config(path, lambda config: "{not JSON")


def layer_in_a_bare_list(path):
    inner = [{"class_name": "InputLayer"}, {"class_name": "TextVectorization"}]
    change_config(path, lambda _: json.dumps({"class_name": "Sequential", "config": inner}))


def first_layer(**more):
    """Return a damage that changes what is said of a layer."""

    def damage(path):
        def change(config):
            config["config"]["layers"][1].update(more)
            return json.dumps(config)

        change_config(path, change)

    damage.__name__ = "_".join(more)
    return damage


def in_its_config(key, name):
    """Return a damage that sets a class below a key of a layer's configuration."""

    def damage(path):
        def change(config):
            value = {"class_name": name, "config": {}}
            config["config"]["layers"][1]["config"][key] = [value]
            return json.dumps(config)

        change_config(path, change)

    damage.__name__ = f"{key}_{name}"
    return damage


def optimizer_of_others(path):
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["training_config"])
        config["optimizer_config"]["class_name"] = "Conv2D"
        file.attrs["training_config"] = json.dumps(config)


def attribute(name, value):
    """Return a damage that sets an attribute of the weights, or of the file."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            place = file if name.endswith("config") else file["model_weights"]
            del place.attrs[name]
            place.attrs[name] = value

    damage.__name__ = f"{name}_{type(value).__name__}"
    return damage


def weights_listed_twice(path):
    with h5py.File(path, "r+") as file:
        attributes = file["model_weights/down1_conv1"].attrs
        attributes["weight_names"] = np.repeat(attributes["weight_names"], 2)


def weights_that_are_absent(path):
    with h5py.File(path, "r+") as file:
        file["model_weights/down1_conv1"].attrs["weight_names"] = [b"absent"]


def endless_shape(path):
    shape = (1 << 40, 0)
    replace(path, lambda group, name: group.create_dataset(name, shape, "f4"))


def too_large_for_float32(path):
    numbers = np.full((3, 3, 1, 4), 1e39)
    replace(path, lambda group, name: group.create_dataset(name, data=numbers))


def negative_variance(path):
    with h5py.File(path, "r+") as file:
        file["model_weights/x/moving_variance:0"] = np.float32([1, -1])


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path):
    path.write_text("not weights")


def zip_of_keras(path):
    path.write_bytes(b"PK\3\4" + bytes(100))


def no_weights(path):
    path.unlink()
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(3)


KINDS = {
    external_storage: "lie in another file",
    external_link: "has a link out of itself",
    soft_link: "has a link out of itself or to a name",
    virtual: "lie in another file",
    shape_bomb: "not stored plainly and in full",
    bomb_of_65_bits: "not stored plainly and in full",
    compression_bomb: "not stored plainly and in full",
    text_array: "expected numbers",
    object_array: "expected numbers",
    committed_type: "something other than arrays",
    loop: "not finite",
    deep_groups: "more groups and arrays",
    many_groups: "more groups and arrays",
    infinite: "not finite",
    lambda_layer: "holds code",
    nested_lambda: "holds code",
    code_in_an_activation: "holds code",
    foreign_layer: "layer of class 'os>system'",
    layer_in_a_bare_list: "layer of class 'TextVectorization'",
    first_layer(module="os"): "a class of the module 'os'",
    first_layer(module=["keras"]): "a class of the module",
    first_layer(module="keras.src", registered_name="x>y"): "registered as 'x>y'",
    first_layer(class_name=["Conv2D"]): "has a layer of class",
    in_its_config("kernel_initializer", "Conv2D"): "kernel_initializer of class 'Conv2D'",
    in_its_config("dtype", "Lambda"): "holds code",
    in_its_config("anything", "Zeros"): "has a layer of class 'Zeros'",
    in_its_config("args", "Functional"): "has args of class 'Functional'",
    optimizer_of_others: "optimizer_config of class 'Conv2D'",
    attribute("layer_names", 3): "damaged or not of Keras",
    attribute("layer_names", "down1_conv1"): "damaged or not of Keras",
    attribute("layer_names", np.arange(3)): "damaged or not of Keras",
    attribute("layer_names", [b"absent"]): "damaged or not of Keras .*absent",
    attribute("layer_names", [b"\xff"]): "damaged or not of Keras",
    attribute("model_config", 1.5): "damaged or not of Keras",
    attribute("training_config", "{"): "damaged or not of Keras",
    weights_listed_twice: "weight_names lists a name twice",
    weights_that_are_absent: "lists weights that it does not hold",
    endless_shape: "an array without numbers",
    too_large_for_float32: "not finite",
    negative_variance: "negative variance",
    deep_json: "damaged or not of Keras .*recursion",
    no_json: "damaged or not of Keras",
    truncated: "damaged or not of Keras",
    text: "is not an HDF5 file",
    zip_of_keras: "is not an HDF5 file",
    no_weights: "holds no Keras weights",
}


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_hostile_files_are_refused(copy, damage):
    damage(copy)
    with pytest.raises(ValueError, match=KINDS[damage]) as caught:
        look(copy)
    assert str(caught.value).startswith(str(copy))
    assert "\n" not in str(caught.value)


def test_good_files_pass(good, tmp_path):
    look(good)
    recipe = dataclasses.replace(MODERN, filters=4, depth=3)
    fast = build_network(recipe, 16, 32)
    (tmp_path / "a.h5").write_bytes(
        h5_file.to_bytes(fast, "dice_coef_loss", ["dice_coef"], 1e-5)
    )
    look(tmp_path / "a.h5")
    build_unet(16, 24, filters=4, depth=2).save(tmp_path / "keras.h5")  # Keras's own
    look(tmp_path / "keras.h5")
    build_unet(16, 24, filters=4, depth=2).save_weights(tmp_path / "k.weights.h5")
    assert keras.__version__.startswith("3.")


def test_a_folder_and_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        look(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.h5 is missing .*; train it with"):
        look(tmp_path / "none.h5")


def test_numbers_are_looked_at_in_parts(copy, monkeypatch):
    monkeypatch.setattr(
        "nerve.files.h5_look.READ", 10
    )  # fewer than the array has in a row of it
    look(copy)
    with h5py.File(copy, "r+") as file:
        file[KERNEL][2, 2, 0, 3] = np.nan  # the very last
    with pytest.raises(ValueError, match="not finite"):
        look(copy)


def test_the_look_is_quick_small_and_needs_no_tensorflow(copy):
    lambda_layer(copy)
    code = (
        "import sys; from nerve import command; from nerve.files.h5_look import look; "
        "status = command.run(lambda: look(sys.argv[1])); "
        "assert 'tensorflow' not in sys.modules; "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); "
        "sys.exit(status)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1
    assert "holds code to be run (Lambda)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert int(done.stdout) < 300_000  # KiB
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 2  # of the processor


@pytest.mark.parametrize(
    ("script", "flag"), [("predict", "--weights"), ("train", "--init")]
)
def test_hostile_weights_are_refused_before_tensorflow_is_imported(copy, script, flag):
    lambda_layer(copy)
    copy.with_suffix(".json").write_text("{}")
    code = (
        f"import sys, {script}; from nerve import command; "
        f"sys.argv = ['{script}.py', '{flag}', sys.argv[1]]; "
        f"status = command.run({script}.main); assert 'tensorflow' not in sys.modules; "
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "holds code to be run" in done.stderr
    assert len(done.stderr.splitlines()) == 1
