"""Batches of training frames out of memory-mapped arrays, made ahead by threads."""

from collections.abc import Iterator

import numpy as np

from nerve import machine
from nerve.records import Augmentation
from nerve.training.augment import augment


def draw_order(num_frames: int, seed: int, epoch: int) -> np.ndarray:
    """Return all rows in a random order of (seed, epoch), int array `(num_frames,)`."""
    return np.random.default_rng([seed, epoch]).permutation(num_frames)


def draw_balanced(subjects: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return an epoch's rows, about N, each subject drawn by the root of its frames.

    A subject's frames all come once before one comes twice. `subjects` names that of each
    of the N rows.
    """
    rng = np.random.default_rng([seed, epoch])
    names, counts = np.unique(subjects, return_counts=True)
    shares = np.sqrt(counts) / np.sqrt(counts).sum()
    drawn = []
    for name, count, share in zip(names, counts, shares, strict=True):
        quota = int(share * len(subjects) + rng.random())  # fractions count over epochs
        rows = np.flatnonzero(subjects == name)
        rounds = [rng.permutation(rows) for _ in range(-(-quota // count))]
        drawn.append(np.concatenate([*rounds, rows[:0]])[:quota])
    return rng.permutation(np.concatenate(drawn))


def batches(
    x: np.ndarray,
    y: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    changes: tuple[Augmentation, int, int] | None = None,
    worker: tuple[int, int, int] = (0, 1, 1),
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of an epoch, `(frames, masks)`, made a few ahead by all cores.

    Args:
        x: Scaled frames, float32 `(N, height, width, 1)`; `y` their masks.
        order: int array, the rows to take; the last batch may have fewer.
        changes: `(augmentation, seed, epoch)`, which with a frame's place in the order
            decide its random changes; None leaves the frames as they are.
        worker: `(process, num_processes, num_devices)`: of a batch that the devices can
            share equally, a process is given its part; of another, all.
    """
    process, num_processes, num_devices = worker

    def read(start):
        stop = min(start + batch_size, len(order))
        if (stop - start) % num_devices == 0:
            share = (stop - start) // num_processes
            start, stop = start + process * share, start + (process + 1) * share
        frames, masks = x[order[start:stop]], y[order[start:stop]]
        for k in range(len(frames)) if changes else ():
            augmentation, *seeds = changes
            rng = np.random.default_rng([*seeds, start + k])
            frame, mask = frames[k, ..., 0], masks[k, ..., 0]
            frame[:], mask[:] = augment(frame, mask, augmentation, rng)
        return frames, masks

    return machine.map_threads(read, range(0, len(order), batch_size))
