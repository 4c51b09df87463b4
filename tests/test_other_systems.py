"""The chain where modules and functions are missing that Linux alone has."""

import os
import subprocess
import sys

from conftest import ROOT, make_raw

# Python imports this before anything else
BLOCKED = """
import os, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # an import raises ImportError
for name in ("posix_fallocate", "O_DIRECT", "sched_getaffinity", "pwrite", "sync"):
    if hasattr(os, name):
        delattr(os, name)
"""
CHAIN = """
import sys
sys.path.insert(0, sys.argv[1])
import evaluate, extract_data, model, phantom, predict, preprocess, train, tune
phantom.main(["--out", "phantom", "--train", "4", "--test", "2", "--subjects", "2"])
extract_data.main([])
preprocess.main(["--height", "16", "--width", "16"])
model.main(["--height", "16", "--width", "16", "--filters", "2"])
train.main(["--filters", "2", "--depth", "2", "--epochs", "2", "--batch-size", "5"])
tune.main([])
predict.main([])
evaluate.main(["predictions/submission.csv", "raw/test_truth.csv", "--height", "64",
               "--width", "80"])
"""


def test_the_chain_runs_without_what_linux_alone_has(tmp_path):
    make_raw(tmp_path / "raw", subjects=4, frames=5)
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    done = subprocess.run(
        [sys.executable, "-c", CHAIN, str(ROOT)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "phantom" / "SHA256SUMS").exists()
    assert (tmp_path / "predictions" / "submission.scores.json").exists()
    assert "Traceback" not in done.stderr


def test_what_was_blocked_is_really_missing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    code = (
        "import os\ntry:\n import fcntl\nexcept ImportError: print(hasattr(os, 'pwrite'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
