"""Training on two devices and in two processes: the same losses, and what a loss ends."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, make_raw

import extract_data
import preprocess
import train
from nerve.training import devices

TWO_MINUTES = 120  # seconds
EPOCHS = 5
# 15 frames: classic 6 + 6 + 3, so that two processes take 3 frames each, then all 3;
# modern, on 4 devices of two processes, 4 + 4 + 4 + 3
BATCH_SIZES = {"classic": 6, "modern": 4}
SMALL = ["--filters", "2", "--depth", "2", "--learning-rate", "0.001"]
SMALL += ["--epochs", str(EPOCHS), "--precision", "float32", "--keep", "last"]
REFUSED = r"KERAS_BACKEND=jax python train\.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Preprocessed arrays of 16 x 16 pixels: 15 frames of 3 subjects to train on."""
    folder = tmp_path_factory.mktemp("devices")
    make_raw(folder / "raw", subjects=4, frames=5, test=1)
    extract_data.main(["--raw", str(folder / "raw"), "--data", str(folder / "data")])
    size = ["--height", "16", "--width", "16"]
    preprocess.main(["--data", str(folder / "data"), *size])
    return folder / "data"


def start(data, cwd, recipe, num_devices, *flags, **variables):
    """Start `python train.py` on JAX in the folder `cwd`; it writes `cwd`/unet.h5.

    Compiled code is shared by all runs below one folder, and barely optimised: compiling
    is nearly all of a run's time. TensorFlow cannot be imported: JAX needs none.
    """
    cwd.mkdir(exist_ok=True)
    blocked = cwd.parent / "blocked"
    blocked.mkdir(exist_ok=True)
    text = "import sys\nsys.modules['tensorflow'] = None\n"
    (blocked / "sitecustomize.py").write_text(text)
    flags = ["--recipe", recipe, "--batch-size", str(BATCH_SIZES[recipe]), *flags]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "JAX_COMPILATION_CACHE_DIR": str(cwd.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} "
        "--xla_backend_optimization_level=0",
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", "--data", data, "--out", "unet.h5"]
        + [*SMALL, *flags],
        cwd=cwd,
        env={**environment, "PYTHONPATH": f"{blocked}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_pair(data, folders, recipe, num_devices, *flags):
    """Start two processes that train together on 127.0.0.1, each in its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    return [
        start(
            data,
            folder,
            recipe,
            num_devices,
            *flags,
            **variables,
            KERAS_DISTRIBUTION_PROCESS_ID=str(process),
        )
        for process, folder in enumerate(folders)
    ]


def finish(process):
    """Wait for a run that should succeed; return what it printed."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def kill_one(pair, victim, folder):
    """Kill one of two processes after an epoch; return what became of the other.

    The first process works in `folder`/shared, the second in `folder`/second.
    """
    while not (folder / "shared" / "unet.csv").exists():
        assert pair[0].poll() is pair[1].poll() is None, pair[0].communicate()
        time.sleep(0.01)
    pair[victim].send_signal(signal.SIGKILL)
    _, errors = pair[1 - victim].communicate(timeout=TWO_MINUTES)
    pair[victim].communicate()
    return {
        "folder": folder,
        "victim": victim,
        "status": pair[1 - victim].returncode,
        "errors": errors,
        "left": {path.name for path in (folder / "shared").iterdir()},
        "left_by_second": {path.name for path in (folder / "second").iterdir()},
    }


def train_classic(data, folder):
    """Train alone, on two devices, and in two processes; the second one is killed.

    Returns:
        What the tests ask for, by name; `resumed` has the output of the two processes
        that were then started again.
    """
    pair = start_pair(data, [folder / "shared", folder / "second"], "classic", 1)
    others = [start(data, folder / "alone", "classic", 1)]
    others += [start(data, folder / "two", "classic", 2, "--devices", "2")]
    seen = kill_one(pair, 1, folder)
    for process in others:
        finish(process)
    pair = start_pair(data, [folder / "shared"] * 2, "classic", 1, "--resume")
    return {**seen, "resumed": [finish(process) for process in pair]}


def train_modern(data, folder):
    """Train alone, and in two processes of two devices; the first one is killed.

    `resumed` has the output of the one process of two devices that then went on.
    """
    pair = start_pair(data, [folder / "shared", folder / "second"], "modern", 2)
    alone = start(data, folder / "alone", "modern", 1)
    seen = kill_one(pair, 0, folder)
    finish(alone)
    flags = ("--devices", "2", "--resume")
    resumed = start(data, folder / "shared", "modern", 2, *flags)
    return {**seen, "resumed": [finish(resumed)]}


@pytest.fixture(scope="module", params=[train_classic, train_modern])
def runs(request, data, tmp_path_factory):
    """What the runs of a recipe left and said."""
    folder = tmp_path_factory.mktemp("runs")
    return request.param(data, folder)


def read_table(folder):
    with open(folder / "unet.csv", newline="") as file:
        return [[float(v) for v in row.values()] for row in csv.DictReader(file)]


def test_two_devices_and_two_processes_give_the_losses_of_one(runs):
    folders = [runs["folder"] / name for name in ("alone", "two", "shared")]
    alone, *others = [folder for folder in folders if folder.exists()]
    one = json.loads((alone / "unet.json").read_text())["kept"]
    for folder in others:
        # the last epoch, in all digits, has the differences of all steps in it
        kept = json.loads((folder / "unet.json").read_text())["kept"]
        assert kept["epoch"] == one["epoch"] == EPOCHS
        assert kept == pytest.approx(one, abs=1e-6)
        # written with 6 digits: 1.07817 is known to 1e-5
        rows = zip(read_table(folder), read_table(alone), strict=True)
        for row, expected in rows:
            assert row == pytest.approx(expected, abs=1e-6, rel=1e-5)


def test_a_killed_process_ends_the_other_within_two_minutes_and_it_says_so(runs):
    other = 1 - runs["victim"]
    assert runs["status"] != 0
    if runs["status"] == -signal.SIGABRT:  # JAX was quicker than the broken connection
        assert "another task died" in runs["errors"]
        return
    (line,) = [text for text in runs["errors"].splitlines() if text.startswith("train.py:")]
    assert line.startswith(f"train.py: process {other} of 2 ")
    assert line.endswith(
        "ended or cannot be reached; see what it said, then start all "
        "of them again with --resume"
    )
    assert "Traceback" not in runs["errors"]


def test_only_the_first_process_writes(runs):
    assert runs["left_by_second"] == set()
    assert {"unet.csv", "unet.state.npz"} <= runs["left"]


def test_a_killed_run_resumes_in_as_many_processes_or_in_one(runs):
    for text in runs["resumed"]:
        assert "resuming after epoch" in text
    first, *others = runs["resumed"]
    assert "epoch 1/" not in first  # it had been trained
    assert f"kept epoch {EPOCHS} of {EPOCHS}" in first
    for text in others:
        assert "kept epoch" not in text
    names = {path.name for path in (runs["folder"] / "shared").iterdir()}
    made = ("h5", "json", "csv", "png", "progress.png")
    assert names == {".unet.lock", *(f"unet.{name}" for name in made)}


def test_tensorflow_with_two_devices_names_the_way_that_works(data, tmp_path):
    with pytest.raises(ValueError, match=f"--devices 2: on tensorflow.*{REFUSED}"):
        train.main(
            ["--data", str(data), "--out", str(tmp_path / "unet.h5"), "--devices", "2"]
        )


def test_a_backend_that_is_not_installed_is_named(tmp_path):
    code = "import sys; sys.modules['jax'] = None; import nerve.backend"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    message = "jax is missing (KERAS_BACKEND is jax): pip install jax\n"
    assert (found.returncode, found.stderr) == (1, message)


def test_tensorflow_on_two_machines_names_the_way_that_works(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "127.0.0.1:1234")
    with pytest.raises(ValueError, match=f"only JAX trains on several.*{REFUSED}"):
        train.main([])


@pytest.fixture
def on_jax(monkeypatch):
    """Keras as it looks on JAX with two devices."""
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(
        devices.keras.distribution, "list_devices", lambda: ["cpu:0", "cpu:1"]
    )


@pytest.mark.parametrize(
    ("address", "process", "message"),
    [
        ("10.0.0.1", "0", "JOB_ADDRESSES is '10.0.0.1'; expected HOST:PORT"),
        ("10.0.0.1:1234", "", "PROCESS_ID is ''; expected a number"),
        ("10.0.0.1:1234", "-1", "PROCESS_ID is '-1'; expected a number"),
        ("10.0.0.1:1234", "2", "PROCESS_ID is 2; expected 0 to 1"),
    ],
)
def test_a_wrong_variable_is_refused(on_jax, monkeypatch, address, process, message):
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", address)
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", process)
    with pytest.raises(ValueError, match=message):
        devices.read_variables()


def test_devices_that_are_not_there_are_refused(on_jax):
    with pytest.raises(ValueError, match="--devices 3, but there are 2: cpu:0, cpu:1"):
        devices.find_worker(0, 1, 3, 6)


def test_a_batch_that_the_devices_cannot_share_is_refused(on_jax):
    with pytest.raises(ValueError, match="2 devices cannot share batches of 5 frames"):
        devices.find_worker(0, 1, 2, 5)
