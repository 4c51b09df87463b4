"""Training on several devices or machines: Keras's DataParallel on its JAX backend.

Several machines find each other by Keras's own environment variables,
KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID.
"""

import atexit
import contextlib
import os
import re
import sys
import typing
from collections.abc import Iterable, Iterator

from nerve.backend import keras, list_devices

VARIABLES = "KERAS_DISTRIBUTION_"
JAX = "KERAS_BACKEND=jax python train.py (pip install jax)"
LOST = (
    "most likely another process of this run has ended or cannot be reached; see what it "
    "said, then start all of them again with --resume"
)
# how JAX's errors begin that a lost process can cause; gloo's come as ValueError
LOST_ERRORS = ("UNKNOWN:", "UNAVAILABLE:", "ABORTED:", "CANCELLED:", "INTERNAL:")
LOST_ERRORS += ("DEADLINE_EXCEEDED:",)


class WholeBatch(keras.distribution.DataParallel):
    """Gives each device all of a batch."""

    def get_data_layout(self, data_shape: tuple) -> keras.distribution.TensorLayout:
        """Return how an array whose first axis is the batch lies on the devices."""
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


def read_variables() -> tuple[int, int]:
    """Return `(process, num_processes)` from Keras's variables; (0, 1) without them.

    Raises:
        ValueError: a variable is missing or wrong, or Keras runs on another backend.
    """
    address = os.environ.get(f"{VARIABLES}JOB_ADDRESSES")
    if address is None:
        return 0, 1
    name = f"{VARIABLES}JOB_ADDRESSES"
    if keras.backend.backend() != "jax":
        raise ValueError(f"{name} is set, but only JAX trains on several machines: {JAX}")
    if not re.search(r":\d+$", address.split(",")[0]):
        raise ValueError(f"{name} is {address!r}; expected HOST:PORT of process 0")
    numbers = []
    for name in ("PROCESS_ID", "NUM_PROCESSES"):
        text = os.environ.get(f"{VARIABLES}{name}", "")
        if not text.isdecimal():
            raise ValueError(f"{VARIABLES}{name} is {text!r}; expected a number")
        numbers.append(int(text))
    process, num_processes = numbers
    if process >= num_processes:
        raise ValueError(
            f"{VARIABLES}PROCESS_ID is {process}; expected 0 to {num_processes - 1}, "
            f"below {VARIABLES}NUM_PROCESSES"
        )
    return process, num_processes


def leave() -> typing.NoReturn:
    """End this process at once, with status 1."""
    sys.stdout.flush()
    os._exit(1)


@contextlib.contextmanager
def connect() -> Iterator[tuple[int, int]]:
    """Join the other machines of the run, if the environment names them.

    A process that fails ends at once: JAX would first wait for the others, which wait for
    it. They are then ended by a broken connection, or by JAX itself, at once or by its
    heartbeat (100 seconds): it aborts them from C++, and says that another task died.

    Yields:
        `(process, num_processes)`; the first is 0 for the one that writes the files.

    Raises:
        ConnectionError: another process has ended.
    """
    process, num_processes = read_variables()
    if num_processes == 1:
        yield process, num_processes
        return
    name = f"process {process} of {num_processes}"
    try:
        keras.distribution.initialize()
        yield process, num_processes
    except BaseException as error:
        atexit.register(leave)  # runs before JAX's, which was registered earlier
        lost = isinstance(error, ValueError | RuntimeError)
        if not lost or not str(error).startswith(LOST_ERRORS):
            raise
        first = str(error).splitlines()[0]
        raise ConnectionError(f"{name} stops ({first}): {LOST}") from error


class Worker(typing.NamedTuple):
    """Which part of a training this process does."""

    process: int = 0
    num_processes: int = 1
    num_devices: int = 1  # of all processes
    shared: keras.distribution.DataParallel | None = None
    whole: WholeBatch | None = None

    def scope(self, num_frames: int = 0) -> contextlib.AbstractContextManager:
        """Return the context for building a network, or for a batch of `num_frames`.

        Each device gets its share of the batch; one that does not divide goes whole to
        each. The loss is that of the whole batch in both cases, as on one device.
        """
        if self.num_devices == 1:
            return contextlib.nullcontext()
        even = num_frames % self.num_devices == 0
        return (self.shared if even else self.whole).scope()

    def spread(
        self, pairs: Iterable[tuple], num_frames: int, batch_size: int
    ) -> Iterator[tuple]:
        """Yield an epoch's batches of `num_frames` frames in all, each in its scope."""
        for k, pair in enumerate(pairs):
            with self.scope(min(batch_size, num_frames - k * batch_size)):
                yield pair


def find_worker(
    process: int, num_processes: int, num_devices: int | None, batch_size: int
) -> Worker:
    """Return the `Worker` of this process, refused where devices cannot share a batch.

    Args:
        num_devices: Of all machines; None takes one, or with several machines all.
        batch_size: Of all devices.
    """
    if num_devices in (None, 1) and num_processes == 1:
        return Worker()
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"--devices {num_devices}: on {keras.backend.backend()} one device is used; "
            f"several train by JAX: {JAX}"
        )
    found = list_devices()
    wanted = num_devices or len(found)
    if wanted > len(found) or (num_processes > 1 and wanted != len(found)):
        there = f"there are {len(found)}: {', '.join(found)}"
        raise ValueError(f"--devices {wanted}, but {there}")
    if batch_size % wanted:
        raise ValueError(
            f"{wanted} devices cannot share batches of {batch_size} frames; "
            f"expected a --batch-size that {wanted} divides"
        )
    chosen = found[:wanted]
    shared = keras.distribution.DataParallel(devices=chosen)
    return Worker(process, num_processes, wanted, shared, WholeBatch(devices=chosen))
