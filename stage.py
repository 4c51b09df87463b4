"""How every script writes, locks and reads back the files that it hands over.

A stage writes its files in full under temporary names, then renames them into place,
its JSON record last: no record, no stage. The record holds dtype, shape and SHA-256 of
each array, and a reader refuses an array that does not match.
"""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WRITE_BLOCK = 1 << 22  # bytes written at a time
ESCAPED = "backslashreplace"  # what an encoding lacks, such as names of odd bytes
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # disk, file size limit, quota


def temporary(path: str | Path) -> Path:
    """Return where a file is written before it is whole: `x.npy` -> `.x.npy.tmp`."""
    path = Path(path)
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def lock(folder: str | Path, name: str = "") -> Iterator[None]:
    """Hold a folder, or the result `name` in it, for this process; made if absent.

    The lock is the kernel's (flock), so a killed run blocks nothing. Temporary files of
    a folder's failed run are removed.

    Raises:
        ValueError: another process holds it.
    """
    make_folder(folder)
    path = Path(folder) / f".{name}.lock" if name else Path(folder) / ".lock"
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another run is writing {Path(folder) / name} (it holds {path}); "
                "wait for it, or choose another place"
            ) from error
        except OSError as error:
            print(
                f"note: {folder} lies on a file system without locks ({error.strerror}): "
                "never start two runs in it"
            )
        try:
            yield
        finally:
            if not name:
                # a run on a name, `.NAME.lock`, may be writing beside this one
                names = [
                    p.name.removesuffix("lock") for p in path.parent.glob(".?*.lock")
                ]
                for leftover in path.parent.glob(".*.tmp"):
                    if not leftover.name.startswith(tuple(names)):
                        leftover.unlink()


def make_folder(path: str | Path) -> None:
    """Create the folder `path` with its parents; a file in its way is named."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"{path} is a file or lies below one; a folder was expected"
        ) from error


@contextlib.contextmanager
def writing(path: str | Path, num_bytes: int | None = None) -> Iterator[None]:
    """Name the file, and the space it needs, where the system cannot write it.

    Args:
        path: What the file is going to be called.
        num_bytes: What it needs, where that is known.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        need = "" if num_bytes is None else f"it needs {num_bytes / 1e6:,.1f} MB; "
        free = shutil.disk_usage(Path(path).parent).free / 1e6
        raise OSError(
            f"{path} could not be written: {need}{free:,.1f} MB are free "
            f"({error.strerror}); make room or choose another folder"
        ) from error


def reserve(file: io.IOBase, path: str | Path, num_bytes: int) -> None:
    """Claim disk space: a full disk is met before the work, not in the middle of it."""
    if num_bytes and hasattr(os, "posix_fallocate"):  # macOS has none
        with writing(path, num_bytes):
            os.posix_fallocate(file.fileno(), 0, num_bytes)


def scratch_array(folder: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Return a zeroed array backed by a nameless file in `folder`, gone with the process.

    It takes disk space instead of anonymous memory.
    """
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, Path(folder) / "(scratch)", max(num_bytes, 1))
        return np.memmap(file, dtype, "r+", shape=tuple(shape))


class ArrayWriter:
    """Appends rows to a temporary .npy file and hashes them; memory stays flat.

    Whole blocks go to the disk past the page cache (O_DIRECT) where the system can: 4 GB of
    rows would else cost 12 to 21 CPU seconds of fresh pages on a virtual machine.

    Args:
        path: The file's final path; until `publish` it lies at `temporary(path)`.
        shape: Shape of the whole array. Fewer rows than `shape[0]` may be appended.
        dtype: The rows' dtype.
    """

    def __init__(self, path, shape, dtype):
        self.path, self.shape, self.dtype = Path(path), tuple(shape), np.dtype(dtype)
        self.count = 0
        self.file = open(temporary(path), "w+b", buffering=0)  # noqa: SIM115
        header = self._header(self.shape)
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        reserve(self.file, path, len(header) + self.shape[0] * row_bytes)
        self._set_direct(True)
        self.block = mmap.mmap(-1, WRITE_BLOCK)  # of pages, as direct writing asks for
        self.filled = self.block.write(header)
        self.hash = hashlib.sha256(header)

    def _header(self, shape):
        header = io.BytesIO()
        fields = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(header, fields)
        return header.getvalue()

    def _set_direct(self, direct):
        """Write past the page cache or through it; where the former fails, the latter."""
        flag = getattr(os, "O_DIRECT", 0)  # Linux
        flags = fcntl.fcntl(self.file, fcntl.F_GETFL) & ~flag
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.file, fcntl.F_SETFL, flags | flag * direct)

    def _write(self, view):
        with writing(self.path):
            while view:  # a raw write may take less than it is given
                view = view[self.file.write(view) :]

    def append(self, row: np.ndarray) -> None:
        """Add one row of shape `shape[1:]`."""
        row = np.ascontiguousarray(row, self.dtype)
        if row.shape != self.shape[1:]:
            raise ValueError(
                f"{self.path}: a row of {row.shape}, expected {self.shape[1:]}"
            )
        view = memoryview(row).cast("B")
        self.hash.update(view)
        while view:
            part = view[: WRITE_BLOCK - self.filled]
            self.block[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            view = view[len(part) :]
            if self.filled == WRITE_BLOCK:
                self._write(memoryview(self.block))
                self.filled = 0
        self.count += 1

    def close(self) -> dict:
        """Bring the file to disk and return its record: dtype, shape, sha256."""
        self._set_direct(False)
        self._write(memoryview(self.block)[: self.filled])
        self.file.truncate()
        shape = (self.count, *self.shape[1:])
        if shape != self.shape:
            # of the same length: NumPy pads headers so that the row count can change
            os.pwrite(self.file.fileno(), self._header(shape), 0)
        os.fsync(self.file.fileno())
        self.file.close()
        digest = self.hash.hexdigest()
        if shape != self.shape:
            digest = sha256(temporary(self.path))
        return {"dtype": self.dtype.name, "shape": list(shape), "sha256": digest}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256sum` prints it."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_temporary(path: str | Path, content: bytes | memoryview) -> None:
    """Bring `content` to disk at `temporary(path)`."""
    with writing(path, len(content)), open(temporary(path), "wb") as file:
        reserve(file, path, len(content))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring renames in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Replace a file in one step: a reader sees the old content or the new one."""
    write_temporary(path, content)
    os.replace(temporary(path), path)
    sync_folder(Path(path).parent)


@contextlib.contextmanager
def write_csv(path: Path, columns: Iterable[str]) -> Iterator[Any]:
    """Yield a csv writer whose rows replace the file `path` once all are written."""
    with (
        writing(path),
        open(
            temporary(path), "w", newline="", encoding="utf-8", errors=ESCAPED
        ) as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary(path), path)
    sync_folder(Path(path).parent)


def as_text(name: str) -> str:
    """Return a file's name for a table; a spreadsheet would run some as formulas.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def to_json(record: dict) -> str:
    """Return a record as JSON text with one line a key, so that long lists stay short."""
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}"
        for key, value in record.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def publish(
    record_path: Path, record: dict, paths: Iterable[Path], stale: Iterable[Path] = ()
) -> None:
    """Give finished temporary files their names, and write the record last.

    Args:
        record_path: The stage's JSON file. While it is absent, there is no stage.
        record: What it will hold.
        paths: The files, whole at `temporary(path)`.
        stale: Files of an earlier run that this one does not make; removed.
    """
    record_path = Path(record_path)
    write_temporary(record_path, to_json(record).encode())
    record_path.unlink(missing_ok=True)
    for path in stale:
        Path(path).unlink(missing_ok=True)
    for path in paths:
        os.replace(temporary(path), path)
    os.replace(temporary(record_path), record_path)
    sync_folder(record_path.parent)


def read_record(path: Path, repair: str) -> dict:
    """Read a stage's JSON record.

    Args:
        path: The JSON file.
        repair: The command that makes it, for the error.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not a JSON object.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} is missing; make it with: {repair}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, a JSON file was expected") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid JSON; make it again with: {repair}"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds no JSON object; make it again with: {repair}")
    return record


def read_array(folder: Path, name: str, record: dict, repair: str) -> np.ndarray:
    """Map an array of a stage read-only, after checking it against the stage's record.

    Args:
        folder: Where the array lies.
        name: Its file name, a key of `record["arrays"]`.
        record: What `read_record` returned.
        repair: The command that makes the array, for the error.

    Returns:
        Memory-mapped array with the dtype and shape of the record.

    Raises:
        FileNotFoundError: the array is not there.
        ValueError: dtype, shape or SHA-256 differ from the record.
    """
    path = Path(folder) / name
    expected = record.get("arrays", {}).get(name)
    if expected is None:
        raise ValueError(
            f"the record of {folder}/ lists no {name}; make it with: {repair}"
        )
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; make it with: {repair}") from error
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole .npy file; make it again with: {repair}"
        ) from error
    found = {"dtype": array.dtype.name, "shape": list(array.shape)}
    for key, value in found.items():
        if value != expected[key]:
            raise ValueError(
                f"{path} has {key} {value}, its record says {expected[key]}; "
                f"make it again with: {repair}"
            )
    if sha256(path) != expected["sha256"]:
        raise ValueError(
            f"{path} changed after its record was written (SHA-256 differs); "
            f"make it again with: {repair}"
        )
    return array


def run(main: Callable[[], None]) -> int:
    """Run a script's `main`; a foreseeable mistake is one line on stderr and status 1.

    A Ctrl-C is one line and status 130, also where it comes while TensorFlow traces a
    network and makes another error of it.
    """
    pressed, before = [], signal.getsignal(signal.SIGINT)

    def interrupt(number, frame):
        pressed.append(number)
        raise KeyboardInterrupt

    heeded = before is signal.default_int_handler  # not by a job behind `&`
    if heeded:
        signal.signal(signal.SIGINT, interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ESCAPED)
    text = ""
    try:
        main()
        return 0
    except KeyboardInterrupt as error:
        text = str(error)
    except Exception as error:
        if not pressed:
            if not isinstance(error, ValueError | OSError):
                raise
            # in one piece, which other writers of stderr cannot part
            sys.stderr.write(f"{Path(sys.argv[0]).name}: {error}\n")
            return 1
    finally:
        if heeded:
            signal.signal(signal.SIGINT, before)
    text = text or "stopped; the previous outputs are intact, run it again"
    print(f"\n{text}", file=sys.stderr)
    return 130
