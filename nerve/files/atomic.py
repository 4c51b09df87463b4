"""How every script writes, locks and reads back the files that it hands over.

A stage writes its files in full into a folder of `aside`, then moves them into place, its
JSON record last: no record, no stage. Temporary names begin with MINE: what does not is of
others, and never removed.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import filelock

from nerve.command import undisturbed

MINE = ".nerve~"
WRITTEN = "stopped: all that was made is written"
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # disk, file size limit, quota
# what locking says on a file system that cannot
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class DiskFull(OSError):
    """The system cannot take what is written: a disk, a limit or a quota is full."""


def temporary(path: str | Path) -> Path:
    """Return where a file is written before it is whole: `x.npy` -> `.nerve~x.npy`."""
    path = Path(path)
    return path.with_name(f"{MINE}{path.name}")


def create(path: str | Path, mode: str = "xb", **how) -> IO:
    """Open a new file at `temporary(path)`; a link there is removed, not followed."""
    temporary(path).unlink(missing_ok=True)  # of a killed run
    return open(temporary(path), mode, **how)


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a new folder at `temporary(path)`, to write a result into; gone at the end."""
    folder = temporary(path)
    remove(folder)
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(folder: str | Path, name: str = "") -> Iterator[None]:
    """Hold a folder, or the result `name` in it, for this process; made if absent.

    The lock is the kernel's where the system has such, so a killed run blocks nothing.
    Temporary files of a folder's failed run are removed.

    Raises:
        ValueError: another process holds it, or the lock is a link.
    """
    make_folder(folder)
    path = Path(folder) / f".{name}.lock" if name else Path(folder) / ".lock"
    if path.is_symlink():
        raise ValueError(f"{path} is a link; a lock is a file of its own: remove it")
    held = filelock.FileLock(path)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout as error:
        said = f"another run is writing {Path(folder) / name} (it holds {path})"
        raise ValueError(f"{said}; wait for it, or choose another place") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:  # such as a folder that may not be written
            raise
        said = f"{folder} lies on a file system without locks ({error.strerror})"
        print(f"note: {said}: never start two runs in it")
    try:
        yield
    finally:
        if not name:
            # a run on a name, `.NAME.lock`, may be writing beside this one
            names = [p.name[1:].removesuffix("lock") for p in path.parent.glob(".?*.lock")]
            for leftover in path.parent.glob(f"{MINE}*"):
                if not leftover.name.removeprefix(MINE).startswith(tuple(names)):
                    remove(leftover)
        held.release()


def make_folder(path: str | Path) -> None:
    """Create the folder `path` with its parents; a file in its way is named."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        said = f"{path} is a file or lies below one"
        raise ValueError(f"{said}; a folder was expected") from error


def check_output(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to replace a file that is read, by whatever name."""
    for other in inputs:
        if path.exists() and other.exists() and path.samefile(other):
            raise ValueError(f"{path} is read here ({other}); write to another place")


@contextlib.contextmanager
def writing(path: str | Path, num_bytes: int = 0) -> Iterator[None]:
    """Name the file, and the bytes that it needs if known, where it cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        need = f"it needs {num_bytes / 1e6:,.1f} MB; " if num_bytes else ""
        free = shutil.disk_usage(Path(path).parent).free / 1e6
        raise DiskFull(
            f"{path} could not be written: {need}{free:,.1f} MB are free "
            f"({error.strerror}); make room or choose another folder"
        ) from error


def reserve(file: io.IOBase, path: str | Path, num_bytes: int) -> None:
    """Claim disk space: a full disk is met before the work, not in the middle of it."""
    if num_bytes and hasattr(os, "posix_fallocate"):  # macOS has none
        with writing(path, num_bytes):
            os.posix_fallocate(file.fileno(), 0, num_bytes)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256sum` prints it."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Bring renames in a folder to disk, where the system opens folders: not Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | Path, num_bytes: int = 0, **how) -> Iterator[IO]:
    """Yield a file that replaces the file `path` in one step; `how` is as of `create`."""
    with writing(path, num_bytes), create(path, **how) as file:
        reserve(file, path, num_bytes)
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary(path), path)
    sync_folder(Path(path).parent)


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Replace a file in one step: a reader sees the old content or the new one."""
    with replacing(path, len(content)) as file:
        file.write(content)


def write_text(path: Path) -> contextlib.AbstractContextManager[IO[str]]:
    """Return the context of a text that replaces the file `path` once it is written.

    Each line is with the system at once, so that a killed run has lost none.
    """
    how = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    return replacing(path, mode="x", buffering=1, **how)


@contextlib.contextmanager
def write_csv(path: Path, columns: Iterable[str]) -> Iterator[Any]:
    """Yield a csv writer whose rows replace the file `path` once all are written."""
    with write_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer


def as_text(name: str) -> str:
    """Return a file's name for a table; a spreadsheet would run some as formulas.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    first = unicodedata.normalize("NFKC", name[:1])  # full-width signs run, too
    strange = first.isspace() or not first.isprintable()
    return f"'{name}" if strange or first.startswith(("=", "+", "-", "@")) else name


def to_json(record: dict) -> str:
    """Return a record as JSON text with one line a key, so that long lists stay short."""
    lines = (
        f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in record.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_json(path: Path, record: dict) -> None:
    """Replace a JSON file in one step."""
    write_bytes(path, to_json(record).encode())


def sync_files(folder: Path) -> None:
    """Bring all files below a folder to disk, where that was put off."""
    for place, _, names in os.walk(folder):
        for path in (Path(place) / name for name in names):
            with writing(path), open(path, "r+b") as file:
                os.fsync(file.fileno())


def move(
    folder: Path, out: Path, tables: Sequence[str], stale: Iterable[Path] = ()
) -> None:
    """Give all files below a folder of `aside`, on disk already, their places in `out`.

    Args:
        tables: Names in `out` of what lists the others, a stage's record: while these are
            absent, there is no result. They come last, in this order.
        stale: What an earlier run may have made; removed.
    """
    with undisturbed(WRITTEN):
        for name in tables:
            (out / name).unlink(missing_ok=True)
        for path in stale:
            path.unlink(missing_ok=True)
        for place, _, names in os.walk(folder, topdown=False):
            target = out / Path(place).relative_to(folder)
            make_folder(target)
            for name in names:
                if target != out or name not in tables:
                    os.replace(Path(place) / name, target / name)
            sync_folder(target)
        for name in tables:
            if (folder / name).exists():
                os.replace(folder / name, out / name)
        sync_folder(out)


def read_record(path: Path, repair: str) -> dict:
    """Read a stage's JSON record.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not a JSON object.
    """
    again = f"make it again with: {repair}"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} is missing; make it with: {repair}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, a JSON file was expected") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON; {again}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds no JSON object; {again}")
    return record
