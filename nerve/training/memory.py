"""What a training step needs of the memory, said before the system ends the run."""

import contextlib
import math
from collections.abc import Iterator

from nerve import machine
from nerve.backend import keras, list_devices

# Memory of a step to that of all layers' outputs: 1.1 to 1.6 in batches of 64 and more
MEMORY_FACTOR = 1.5


def step_bytes(model: keras.Model, precision: str) -> float:
    """Return about how many bytes of memory a training step takes for each frame."""
    values = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    return MEMORY_FACTOR * values * (4 if precision == "float32" else 2)


def check_memory(model: keras.Model, precision: str, batch_size: int) -> None:
    """Refuse a batch that the memory cannot hold; on a CPU the system would end the run.

    Raises:
        ValueError: it names the batch size that fits.
    """
    free = machine.free_memory()
    if free is None or not all(n.lower().startswith("cpu") for n in list_devices()):
        return
    num_bytes = step_bytes(model, precision)
    fits = max(1, int(free / num_bytes))
    if batch_size > fits:
        needed = batch_size * num_bytes / 1e9
        raise ValueError(
            f"batches of {batch_size} frames need about {needed:,.1f} GB and "
            f"{free / 1e9:,.1f} GB are free; --batch-size {fits} fits"
        )


@contextlib.contextmanager
def naming_memory(batch_size: int) -> Iterator[None]:
    """Turn what Keras's backends raise without memory into a line that says what helps."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in (
            f"{error} {getattr(error, 'error_code', '')}".upper().replace(" ", "_")
        ):
            raise
        raise ValueError(
            f"out of memory with batches of {batch_size} frames; what was kept before is "
            f"intact. Try --batch-size {max(1, batch_size // 2)}, or smaller frames"
        ) from error
