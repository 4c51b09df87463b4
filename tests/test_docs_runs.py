"""The commands of README.md and docs/, run word for word, page by page, on a few frames.

A page is run in a copy of the scripts, whose recipes are small networks for one epoch.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, make_raw
from test_docs import PAGES, read_blocks

SUFFIXES = (".h5", ".json")  # of weights
# appended to recipes.py
QUICK = """
from dataclasses import replace
quick = {"network": "unet", "filters": 2, "depth": 2, "epochs": 1}
RECIPES = {name: replace(recipe, **quick) for name, recipe in RECIPES.items()}
"""
# What a page's commands find instead of the programs of these names: nothing is
# installed, make would come back here, and there is no SLURM: one task, run in place.
PRELUDE = """
pip() { :; }
make() { :; }
labelme() { :; }
scontrol() { echo localhost; }
srun() { shift; SLURM_PROCID=0 "$@"; }
"""
SLURM = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "localhost"}
# Blocks that are not run, by words in them, and why.
NOT_RUN = {
    "10.0.0.1:1234": "two machines; test_devices.py trains in two such processes",
    "--input 0 --show": "a camera and a display; test_cameras.py and test_window.py",
    "python app.py": "serves until Ctrl-C; below, it is started and stopped",
}
# What a page's commands leave, by page.
LEFT = {
    "scores": ["weights/fold1.h5", "data/contradictory.csv", "predictions/surest"],
    "recipes": ["weights/modern.h5", "weights/wide.h5", "weights/watched.png", "runs/1"],
    "devices": ["weights/unet.h5", "weights/fold0.h5", "predictions/fold0/submission.csv"],
    "speed": ["weights/unet.onnx", "weights/unet.xml", "weights/unet_int8.tflite"],
    "phantom": ["raw/SHA256SUMS", "raw/sample_submission.scores.json"],
    "looking": ["report.html"],
}
APART = {"own-frames", "labelling", "transfer-learning"}  # run by test_walkthrough.py


def copy_scripts(folder, addition=QUICK):
    """Make a folder with the scripts and released weights; return it.

    The small ones, which take half the time, stand there for the others, too.
    """
    folder.mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    (folder / "nerve").symlink_to(ROOT / "nerve")
    (folder / "weights").mkdir()
    for suffix in SUFFIXES:
        small = ROOT / "weights" / f"unet_nerve_small{suffix}"
        shutil.copy(small, folder / "weights" / f"unet_nerve{suffix}")
    with open(folder / "recipes.py", "a") as file:
        file.write(addition)
    return folder


def shell_blocks(page):
    """Return the blocks of a page that are to be run."""
    blocks = [text for language, text in read_blocks(page) if language == "sh"]
    return [text for text in blocks if not any(words in text for words in NOT_RUN)]


def shell(block, folder):
    """Return the arguments of subprocess that run a block in a folder."""
    environment = {
        **os.environ,
        **SLURM,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BROWSER": "true",  # in which the page would open
        # JAX: four devices, and code that is compiled sooner
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 "
        "--xla_backend_optimization_level=0",
    }
    return {
        "args": ["bash", "-euo", "pipefail", "-c", PRELUDE + block],
        "cwd": folder,
        "env": environment,
        "text": True,
    }


def run_page(page, folder):
    """Run a page's blocks, one after the other, each in a shell of its own."""
    for block in shell_blocks(page):
        done = subprocess.run(**shell(block, folder), capture_output=True, timeout=600)
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def arrived(tmp_path_factory):
    """The folder of someone who has followed the README, with the challenge's data."""
    folder = copy_scripts(tmp_path_factory.mktemp("docs") / "readme")
    make_raw(folder / "raw", subjects=5, frames=2, height=420, width=580, test=2)
    run_page(ROOT / "README.md", folder)
    return folder


def test_the_readme_runs_as_it_stands(arrived):
    for name in ("weights/unet.png", "predictions/submission.csv"):
        assert (arrived / name).exists()
    assert (arrived / "predictions" / "validation.scores.json").exists()


@pytest.mark.parametrize("name", LEFT)
def test_a_page_runs_as_it_stands_after_the_readme(arrived, tmp_path, name):
    page, folder = ROOT / "docs" / f"{name}.md", tmp_path / "copy"
    shutil.copytree(arrived, folder, symlinks=True)
    if name == "devices":  # its trainings are the first ones
        for path in (folder / "weights").glob("unet.*"):
            path.unlink()
    if name == "phantom":  # likewise its frames
        shutil.rmtree(folder / "raw")
    if name == "recipes":
        (code,) = (text for language, text in read_blocks(page) if language == "python")
        recipes = (ROOT / "recipes.py").read_text(encoding="utf-8")
        (folder / "recipes.py").write_text(recipes + code + QUICK, encoding="utf-8")
    run_page(page, folder)
    for left in LEFT[name]:
        assert (folder / left).exists(), left


def test_the_page_opens_and_stops_at_ctrl_c(arrived):
    pytest.importorskip("gradio", reason="app.py's packages are not installed")
    with socket.socket() as tried:
        if tried.connect_ex(("127.0.0.1", 7860)) == 0:
            pytest.skip("port 7860 is taken")
    page = ROOT / "docs" / "looking.md"
    (block,) = (text for _, text in read_blocks(page) if "python app.py" in text)
    # exec: so that Ctrl-C reaches Python alone
    block = block.replace("python app.py", "exec python app.py")
    process = subprocess.Popen(
        **shell(block, arrived), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 120
    with socket.socket() as page:
        while page.connect_ex(("127.0.0.1", 7860)) and time.monotonic() < end:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130), errors
    assert "Traceback" not in errors


def test_every_page_with_commands_is_run():
    run = {"README", *LEFT, *APART}
    for page in PAGES:
        texts = [text for language, text in read_blocks(page) if language == "sh"]
        assert page.stem in run or "python " not in "".join(texts), page
    texts = [text for page in PAGES for _, text in read_blocks(page)]
    for words in NOT_RUN:
        assert sum(words in text for text in texts) == 1, words
