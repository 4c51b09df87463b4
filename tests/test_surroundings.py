"""conftest.py: whoever starts the tests, and how, they find the same surroundings."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

CHILD = "import signal; signal.raise_signal(signal.SIGINT)"
HOSTILE = {
    "COLUMNS": "20",
    "HOME": "/missing",
    "KERAS_BACKEND": "none",
    "KERAS_DISTRIBUTION_JOB_ADDRESSES": "127.0.0.1:1",
    "LC_ALL": "POSIX",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "http_proxy": "http://127.0.0.1:1",
}


def test_what_a_test_finds():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    child = subprocess.run([sys.executable, "-c", CHILD], stderr=subprocess.PIPE)
    assert child.returncode == -signal.SIGINT
    umask = os.umask(0o022)
    assert umask == 0o022
    assert Path.home().is_dir()
    assert not HOSTILE.items() & os.environ.items()
    code = "import locale; print(locale.getpreferredencoding())"
    child = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout.decode().strip().lower().replace("-", "") == "utf8"


def test_it_is_the_same_where_the_caller_is_odd(tmp_path):
    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job behind `&`
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.umask(0o077)

    outer = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    one = f"{ROOT / 'tests' / 'test_surroundings.py'}::{test_what_a_test_finds.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one],
        cwd=tmp_path,
        env=outer | HOSTILE,
        preexec_fn=prepare,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
