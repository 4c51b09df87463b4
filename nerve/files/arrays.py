"""Arrays in .npy files: written row by row, read back checked; memory stays flat."""

import contextlib
import dataclasses
import hashlib
import io
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nerve.files import atomic

WRITE_BLOCK = 1 << 22  # bytes written at a time


def scratch_array(folder: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Return a zeroed array backed by a nameless file in `folder`, gone with the process.

    It takes disk space instead of anonymous memory.
    """
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        atomic.reserve(file, Path(folder) / "(scratch)", max(num_bytes, 1))
        return np.memmap(file, dtype, "r+", shape=tuple(shape))


@dataclasses.dataclass(frozen=True)
class Array:
    """What a stage's record says of an array that it wrote."""

    dtype: str
    shape: list[int]
    sha256: str


class ArrayWriter:
    """Appends rows to a .npy file, named at the end, and hashes them; memory stays flat.

    Whole blocks go to the disk past the page cache (O_DIRECT) where the system can: 4 GB of
    rows would else cost 12 to 21 CPU seconds of fresh pages on a virtual machine. Fewer
    rows than the shape says may be appended.
    """

    def __init__(self, path, shape, dtype):
        self.path, self.shape, self.dtype = Path(path), tuple(shape), np.dtype(dtype)
        self.count = 0
        self.file = atomic.create(path, "x+b", buffering=0)
        header = self._header(self.shape)
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        atomic.reserve(self.file, path, len(header) + self.shape[0] * row_bytes)
        self._set_direct(True)
        self.block = mmap.mmap(-1, WRITE_BLOCK)  # of pages, as direct writing asks for
        self.block.write(header)
        self.hash = hashlib.sha256(header)

    def _header(self, shape):
        header, kind = io.BytesIO(), np.lib.format.dtype_to_descr(self.dtype)
        fields = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, fields)
        return header.getvalue()

    def _set_direct(self, direct):
        """Write past the page cache or through it; where the former fails, the latter."""
        flag = getattr(os, "O_DIRECT", 0)  # Linux
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # here: Windows has none

            flags = fcntl.fcntl(self.file, fcntl.F_GETFL) & ~flag
            fcntl.fcntl(self.file, fcntl.F_SETFL, flags | flag * direct)

    def _write(self, view):
        with atomic.writing(self.path):
            while view:  # a raw write may take less than it is given
                view = view[self.file.write(view) :]

    def append(self, row: np.ndarray) -> None:
        """Add one row of shape `shape[1:]`."""
        row = np.ascontiguousarray(row, self.dtype)
        if row.shape != self.shape[1:]:
            expected = f"expected {self.shape[1:]}"
            raise ValueError(f"{self.path}: a row of {row.shape}, {expected}")
        view = memoryview(row).cast("B")
        self.hash.update(view)
        while view:
            room = WRITE_BLOCK - self.block.tell()
            self.block.write(view[:room])
            view = view[room:]
            if self.block.tell() == WRITE_BLOCK:
                self._write(memoryview(self.block))
                self.block.seek(0)
        self.count += 1

    def close(self) -> Array:
        """Bring the file to disk and return its record."""
        self._set_direct(False)
        self._write(memoryview(self.block)[: self.block.tell()])
        self.file.truncate()
        shape, digest = (self.count, *self.shape[1:]), self.hash.hexdigest()
        if shape != self.shape:
            # of the same length: NumPy pads headers so that the row count can change
            self.file.seek(0)
            self.file.write(self._header(shape))
            digest = atomic.sha256(atomic.temporary(self.path))
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(atomic.temporary(self.path), self.path)
        return Array(self.dtype.name, list(shape), digest)


def read_array(
    folder: Path, name: str, arrays: Mapping[str, Array], repair: str
) -> np.ndarray:
    """Map an array of a stage read-only, after checking it against the stage's record.

    Raises:
        FileNotFoundError: the array is not there.
        ValueError: dtype, shape or SHA-256 differ from the record.
    """
    path, again = Path(folder) / name, f"make it again with: {repair}"
    expected = arrays.get(name)
    if expected is None:
        raise ValueError(f"the record of {folder}/ lists no {name}; make it with: {repair}")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; make it with: {repair}") from error
    except Exception as error:  # NumPy's, of a header that is none, are of many kinds
        raise ValueError(f"{path} is not a whole .npy file; {again}") from error
    found, wanted = (array.dtype.name, list(array.shape)), (expected.dtype, expected.shape)
    if found != wanted:
        text = "{} is {} {}, its record says {} {}".format(path, *found, *wanted)
        raise ValueError(f"{text}; {again}")
    if atomic.sha256(path) != expected.sha256:
        text = "changed after its record was written (SHA-256 differs)"
        raise ValueError(f"{path} {text}; {again}")
    return array


class Joined:
    """Arrays of rows of one shape one after the other, each left where it is."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays, self.shape = arrays, (sum(map(len, arrays)), *arrays[0].shape[1:])
        self.ends = np.cumsum([len(array) for array in arrays])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Return a copy of a row, or of some."""
        rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            return self[rows[np.newaxis]][0]
        found = np.empty((len(rows), *self.shape[1:]), self.arrays[0].dtype)
        part = np.searchsorted(self.ends, rows, side="right")
        for k in np.unique(part):
            mine = part == k
            found[mine] = self.arrays[k][rows[mine] - (self.ends[k] - len(self.arrays[k]))]
        return found
