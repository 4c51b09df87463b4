"""Keras, imported with what must be settled before TensorFlow starts.

from nerve.backend import keras
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator

# TensorFlow takes oneDNN's convolutions by itself only where the processor has
# AVX512_VNNI. On one with AVX2 they train the classic U-Net 1.45 times as fast.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
LEVEL, QUIET = "TF_CPP_MIN_LOG_LEVEL", "3"
os.environ.setdefault(LEVEL, QUIET)
# What Keras imports where it is installed, for what is not used here.
UNUSED = ("sklearn", "pandas", "matplotlib")


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Drop TensorFlow's lines on stderr about absent GPUs, which no setting keeps back.

    With another TF_CPP_MIN_LOG_LEVEL than 3 they are shown.
    """
    if os.environ[LEVEL] != QUIET:
        yield
        return
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextlib.contextmanager
def without_packages(names: Iterable[str]) -> Iterator[None]:
    """Let packages of these names, unless they are imported, seem not to be installed."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


try:
    # a quarter of the time that a script takes to start, where all are installed
    with without_chatter(), without_packages(UNUSED):
        import keras as keras
        from keras import ops as ops
except KeyboardInterrupt:  # this takes seconds: long enough to change one's mind
    print("\nstopped", file=sys.stderr)
    sys.exit(130)
except ModuleNotFoundError as error:  # such as jax with KERAS_BACKEND=jax
    wanted = os.environ.get("KERAS_BACKEND")
    package = error.name if wanted else "-r requirements.txt"
    text = f" (KERAS_BACKEND is {wanted})" if wanted else ""
    print(f"{error.name} is missing{text}: pip install {package}", file=sys.stderr)
    sys.exit(1)


def list_devices() -> list[str]:
    """Return the names of the devices that Keras computes on, such as "gpu:0"."""
    with without_chatter():
        return keras.distribution.list_devices()


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Build the block's layers in a dtype policy of Keras, such as "mixed_bfloat16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
