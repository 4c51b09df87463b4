"""Training on several devices or machines: Keras's DataParallel on its JAX backend.

Several machines find each other by Keras's own environment variables,
KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID.
"""

import os
import typing
from contextlib import nullcontext

from backend import keras

VARIABLES = "KERAS_DISTRIBUTION_"
JAX = "KERAS_BACKEND=jax python train.py (pip install jax)"


class DataParallel(keras.distribution.DataParallel):
    """Shares each batch among the devices; one that does not divide goes whole to each.

    The loss is that of the whole batch in both cases, as on one device.
    """

    def get_data_layout(self, data_shape):
        """Return how an array whose first axis is the batch lies on the devices."""
        if data_shape[0] % self.num_model_replicas:
            return keras.distribution.TensorLayout(
                [None] * len(data_shape), self.device_mesh
            )
        return super().get_data_layout(data_shape)


def connect():
    """Join the other machines of the run, if the environment names them.

    Returns:
        `(process, num_processes)`; the first is 0 for the one that writes the files.

    Raises:
        ValueError: a variable is missing, or Keras runs on another backend.
    """
    if f"{VARIABLES}JOB_ADDRESSES" not in os.environ:
        return 0, 1
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"{VARIABLES}JOB_ADDRESSES is set, but only JAX trains on several machines: "
            f"{JAX}"
        )
    numbers = []
    for name in ("PROCESS_ID", "NUM_PROCESSES"):
        text = os.environ.get(f"{VARIABLES}{name}", "")
        if not text.isdecimal():
            raise ValueError(f"{VARIABLES}{name} is {text!r}; expected a number")
        numbers.append(int(text))
    keras.distribution.initialize()
    return tuple(numbers)


class Place(typing.NamedTuple):
    """Which part of a training this process does."""

    process: int = 0
    num_processes: int = 1
    num_devices: int = 1  # of all processes
    distribution: DataParallel | None = None

    def scope(self):
        """Return the context in which what is built and trained lies on all devices."""
        return self.distribution.scope() if self.distribution else nullcontext()


def find_place(process, num_processes, num_devices, batch_size):
    """Return the `Place` of this process.

    Args:
        process: What `connect` returned.
        num_processes: Likewise.
        num_devices: Devices to use, of all machines; None takes one, or with several
            machines all.
        batch_size: Frames a batch, of all devices.

    Raises:
        ValueError: so many devices are not there, or cannot share a batch.
    """
    if num_devices in (None, 1) and num_processes == 1:
        return Place()
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"--devices {num_devices}: on {keras.backend.backend()} one device is used; "
            f"several train by JAX: {JAX}"
        )
    found = keras.distribution.list_devices()
    wanted = num_devices or len(found)
    if wanted > len(found) or (num_processes > 1 and wanted != len(found)):
        raise ValueError(
            f"--devices {wanted}, but there are {len(found)}: {', '.join(found)}"
        )
    if batch_size % wanted:
        raise ValueError(
            f"{wanted} devices cannot share batches of {batch_size} frames; "
            f"expected a --batch-size that {wanted} divides"
        )
    distribution = DataParallel(devices=found[:wanted])
    return Place(process, num_processes, wanted, distribution)
