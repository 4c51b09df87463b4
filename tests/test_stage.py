"""stage.py: files are handed over whole, checked and one writer at a time."""

import errno
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT

import machine
import stage

REPAIR = "python make_it.py --data there"

HOLD_LOCK = """
import sys, time
import stage
with stage.lock(sys.argv[1], *sys.argv[2:]):
    open(sys.argv[1] + "/.half.npy.tmp", "w").write("half")
    print("held", flush=True)
    time.sleep(60)
"""


def saved_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_rows(path, rows, planned, dtype):
    """Write rows with ArrayWriter; return (record, the temporary file's bytes)."""
    writer = stage.ArrayWriter(path, (planned, *rows.shape[1:]), dtype)
    for row in rows:
        writer.append(row)
    return writer.close(), stage.temporary(path).read_bytes()


@pytest.fixture
def held_folder(tmp_path):
    """A folder that another process has locked, and that process."""
    folder = tmp_path / "data"
    command = [sys.executable, "-c", HOLD_LOCK, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        yield folder, run
        run.kill()


@pytest.fixture
def stored(tmp_path):
    """A folder with `x.npy`, uint8 (5, 4, 3), and its record."""
    rows = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    entry, _ = write_rows(tmp_path / "x.npy", rows, 5, np.uint8)
    record = {"arrays": {"x.npy": entry}}
    stage.publish(tmp_path / "stage.json", record, [tmp_path / "x.npy"])
    return tmp_path, record


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("uint8", (7, 5, 4)),
        ("float32", (3, 5, 4, 1)),
        ("int64", (2, 3)),
        ("f8", (0, 2)),
    ],
)
def test_array_writer_makes_the_bytes_of_np_save(tmp_path, dtype, shape):
    rows = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    record, content = write_rows(tmp_path / "x.npy", rows, len(rows), dtype)
    assert content == saved_bytes(rows)
    assert record == {
        "dtype": np.dtype(dtype).name,
        "shape": list(shape),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


# 100 -> 9 and 100 -> 0 change the number of digits in the header
@pytest.mark.parametrize(("planned", "written"), [(100, 9), (100, 0), (10, 9), (3, 2)])
def test_fewer_rows_than_planned_make_the_shorter_array(tmp_path, planned, written):
    rows = np.random.default_rng(1).normal(size=(written, 6, 2)).astype(np.float32)
    record, content = write_rows(tmp_path / "x.npy", rows, planned, np.float32)
    assert content == saved_bytes(rows)
    assert record["shape"] == [written, 6, 2]
    assert record["sha256"] == hashlib.sha256(content).hexdigest()


def test_array_writer_converts_and_straightens_its_rows(tmp_path):
    rows = np.arange(24, dtype=np.int64).reshape(2, 3, 4).swapaxes(1, 2)
    assert not rows[0].flags.c_contiguous
    _, content = write_rows(tmp_path / "x.npy", rows, 2, np.float32)
    assert content == saved_bytes(np.ascontiguousarray(rows).astype(np.float32))


def test_a_row_of_another_shape_is_refused(tmp_path):
    writer = stage.ArrayWriter(tmp_path / "x.npy", (2, 3, 4), np.uint8)
    with pytest.raises(ValueError, match=r"x\.npy: a row of \(4, 3\), expected \(3, 4"):
        writer.append(np.zeros((4, 3), np.uint8))
    writer.close()


def test_an_unfinished_array_has_only_its_temporary_name(tmp_path):
    writer = stage.ArrayWriter(tmp_path / "x.npy", (1, 2), np.uint8)
    assert [path.name for path in tmp_path.iterdir()] == [".x.npy.tmp"]
    writer.close()
    assert not (tmp_path / "x.npy").exists()


def test_a_full_disk_is_named_before_the_work(tmp_path, monkeypatch):
    def full(descriptor, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    # 128 bytes of header and 3 x 2,000,000: 6 MB
    expected = (
        r"x\.npy could not be written: it needs 6\.0 MB; [\d,.]+ MB are free \(No"
    )
    with pytest.raises(OSError, match=expected):
        stage.ArrayWriter(tmp_path / "x.npy", (3, 2_000_000), np.uint8)


@pytest.mark.parametrize("kind", ["bytes", "csv", "array"])
def test_a_file_beyond_the_limit_is_named_and_the_old_one_intact(tmp_path, kind):
    path = tmp_path / "x"
    path.write_text("old")

    def write():
        if kind == "bytes":
            stage.write_bytes(path, bytes(20_000))
        elif kind == "csv":
            with stage.write_csv(path, ("a", "b")) as writer:
                writer.writerows([("1234567", "1234567")] * 2000)
        else:
            stage.ArrayWriter(path, (20, 1000), np.uint8)

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match=r"x could not be written: .*MB are free"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert path.read_text() == "old"


def test_free_memory_is_at_most_the_shells_limit():
    code = (
        "import resource, machine; resource.setrlimit(resource.RLIMIT_AS, (1 << 31,) * 2);"
        "print(machine.free_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert 0 < int(done.stdout) < 1 << 31
    assert machine.free_memory() > 1 << 20


def test_a_scratch_array_is_zeroed_writable_and_leaves_no_file(tmp_path):
    array = stage.scratch_array(tmp_path, (3, 4), np.float32)
    assert array.shape == (3, 4)
    assert array.dtype == np.float32
    assert not array.any()
    array[1] = 7
    assert array.sum() == 28
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 19) + 3])
def test_sha256_is_that_of_the_whole_content(tmp_path, size):
    content = bytes(k % 251 for k in range(size))
    (tmp_path / "f").write_bytes(content)
    assert stage.sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- publish


def listing(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def test_publish_puts_the_record_last_and_removes_the_stale(tmp_path, monkeypatch):
    for name in ("stage.json", "a.npy", "old.npy"):
        (tmp_path / name).write_text("old")
    for name in ("a.npy", "b.npy"):
        stage.write_temporary(tmp_path / name, b"new")
    steps, replace = [], os.replace

    def logged(source, target):
        present = (tmp_path / "stage.json").exists()
        steps.append((target.name, present, (tmp_path / "old.npy").exists()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", logged)
    names = [tmp_path / "a.npy", tmp_path / "b.npy"]
    stage.publish(tmp_path / "stage.json", {"n": 1}, names, [tmp_path / "old.npy"])
    # (file, record present, stale file present) before each rename
    assert steps == [
        ("a.npy", False, False),
        ("b.npy", False, False),
        ("stage.json", False, False),
    ]
    found = listing(tmp_path)
    assert json.loads(found.pop("stage.json")) == {"n": 1}
    assert found == {"a.npy": b"new", "b.npy": b"new"}


def test_files_are_on_disk_before_they_get_their_names(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (steps.append("rename"), replace(a, b))
    )
    write_rows(tmp_path / "x.npy", np.zeros((1, 2), np.uint8), 1, np.uint8)
    stage.publish(tmp_path / "stage.json", {}, [tmp_path / "x.npy"])
    # the array, the record; both renames; the folder
    assert steps == ["fsync", "fsync", "rename", "rename", "fsync"]


def test_a_record_that_cannot_be_written_leaves_the_previous_outputs(tmp_path):
    before = {"stage.json": b"old", "x.npy": b"old", "stale.npy": b"old"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)

    def run():
        with stage.lock(tmp_path):
            stage.write_temporary(tmp_path / "x.npy", b"new")
            stage.publish(
                tmp_path / "stage.json",
                {"mean": float("nan")},
                [tmp_path / "x.npy"],
                [tmp_path / "stale.npy"],
            )

    with pytest.raises(ValueError, match="not JSON compliant"):
        run()
    assert listing(tmp_path) == before


def test_a_stop_between_the_renames_leaves_no_record(tmp_path, monkeypatch):
    (tmp_path / "stage.json").write_text("old")
    replace = os.replace

    def stops_at_b(source, target):
        if target.name == "b.npy":
            raise KeyboardInterrupt
        replace(source, target)

    for name in ("a.npy", "b.npy"):
        stage.write_temporary(tmp_path / name, b"new")
    monkeypatch.setattr(os, "replace", stops_at_b)
    with pytest.raises(KeyboardInterrupt):
        stage.publish(
            tmp_path / "stage.json", {}, [tmp_path / "a.npy", tmp_path / "b.npy"]
        )
    assert not (tmp_path / "stage.json").exists()


def test_a_failed_run_leaves_its_folder_as_it_was(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"old")

    def run():
        with stage.lock(tmp_path):
            write_rows(tmp_path / "x.npy", np.zeros((1, 2)), 1, np.uint8)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert listing(tmp_path) == {"x.npy": b"old"}


def test_write_bytes_replaces_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    seen, replace = [], os.replace

    def logged(source, target):
        seen.append((source.read_bytes(), target.read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", logged)
    stage.write_bytes(path, b"new")
    assert seen == [(b"new", b"old")]
    assert listing(tmp_path) == {"f": b"new"}


def test_a_csv_replaces_the_old_one_only_when_all_rows_are_written(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("old")

    def fail():
        with stage.write_csv(path, ["a", "b"]) as writer:
            writer.writerow([1, 2])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    with stage.write_csv(path, ["a", "b"]) as writer:
        writer.writerow([1, "x,y"])
        assert path.read_text() == "old"
    assert path.read_bytes() == b'a,b\n1,"x,y"\n'


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0.tif", "+1.png", "-x", "@a"])
def test_a_name_that_a_spreadsheet_would_run_is_written_as_text(name):
    assert stage.as_text(name) == "'" + name
    assert stage.as_text("a" + name) == "a" + name


def test_a_record_is_json_with_one_line_a_key():
    record = {"rows": [1, 2, 3], "mean": 0.1, "none": None, "deep": {"a": [True]}}
    text = stage.to_json(record)
    assert json.loads(text) == record
    assert len(text.splitlines()) == len(record) + 2  # and the two braces


# ---------------------------------------------------------------- reading


def test_an_array_that_matches_its_record_is_mapped_read_only(stored):
    folder, record = stored
    array = stage.read_array(folder, "x.npy", record, REPAIR)
    assert isinstance(array, np.memmap)
    assert array.tolist() == np.arange(60).reshape(5, 4, 3).tolist()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize("place", [128, 128 + 59])  # first and last byte of the data
def test_a_changed_byte_is_refused(stored, place):
    folder, record = stored
    content = bytearray((folder / "x.npy").read_bytes())
    content[place] ^= 1
    (folder / "x.npy").write_bytes(content)
    expected = rf"x\.npy changed after its record .*\(SHA-256 differs\).*: {REPAIR}$"
    with pytest.raises(ValueError, match=expected):
        stage.read_array(folder, "x.npy", record, REPAIR)


def test_another_dtype_is_refused(stored):
    folder, record = stored
    np.save(folder / "x.npy", np.zeros((5, 4, 3), np.int8))
    expected = rf"x\.npy has dtype int8, its record says uint8; .*: {REPAIR}$"
    with pytest.raises(ValueError, match=expected):
        stage.read_array(folder, "x.npy", record, REPAIR)


def test_another_shape_is_refused(stored):
    folder, record = stored
    np.save(folder / "x.npy", np.zeros((5, 3, 4), np.uint8))
    expected = rf"x\.npy has shape \[5, 3, 4\], .* says \[5, 4, 3\]; .*: {REPAIR}$"
    with pytest.raises(ValueError, match=expected):
        stage.read_array(folder, "x.npy", record, REPAIR)


@pytest.mark.parametrize("size", [0, 5, 100, 128, 187])  # whole: 128 + 60 bytes
def test_a_truncated_array_is_refused(stored, size):
    folder, record = stored
    os.truncate(folder / "x.npy", size)
    expected = rf"x\.npy is not a whole \.npy file; make it again with: {REPAIR}$"
    with pytest.raises(ValueError, match=expected):
        stage.read_array(folder, "x.npy", record, REPAIR)


def test_a_pickled_array_is_refused_unopened(stored, monkeypatch):
    folder, record = stored

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder / "exploded"),)

    np.save(folder / "x.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(ValueError, match=rf"x\.npy is not a whole .*: {REPAIR}$"):
        stage.read_array(folder, "x.npy", record, REPAIR)
    assert not (folder / "exploded").exists()
    np.load(folder / "x.npy", allow_pickle=True)  # the bomb does work
    assert (folder / "exploded").exists()


def test_an_npz_under_the_name_of_an_array_is_refused(stored):
    folder, record = stored
    with open(folder / "x.npy", "wb") as file:
        np.savez(file, x=np.zeros(3))
    with pytest.raises(ValueError, match=rf"x\.npy is not a whole .*: {REPAIR}$"):
        stage.read_array(folder, "x.npy", record, REPAIR)


def test_a_missing_array_is_named_with_its_repair(stored):
    folder, record = stored
    (folder / "x.npy").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"x\.npy is missing; make it with: {REPAIR}$"
    ):
        stage.read_array(folder, "x.npy", record, REPAIR)


@pytest.mark.parametrize("record", [{}, {"arrays": {}}])
def test_an_array_that_the_record_does_not_list_is_refused(stored, record):
    folder, _ = stored
    with pytest.raises(
        ValueError, match=rf"the record of .*/ lists no x\.npy; make it with: {REPAIR}$"
    ):
        stage.read_array(folder, "x.npy", record, REPAIR)


@pytest.mark.parametrize("place", ["absent.json", "file/stage.json"])
def test_a_missing_record_is_named_with_its_repair(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=f"{place} is missing; .*: {REPAIR}$"):
        stage.read_record(tmp_path / place, REPAIR)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b'{"a": "\xff"}', "is not valid JSON"),
        (b"[" * 200_000, "is not valid JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b"null", "holds no JSON object"),
    ],
    ids=["empty", "cut", "not-utf8", "deep", "list", "null"],
)
def test_a_damaged_record_is_refused(tmp_path, content, expected):
    (tmp_path / "s.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"s\.json {expected}; make it .*: {REPAIR}$"):
        stage.read_record(tmp_path / "s.json", REPAIR)


def test_a_folder_in_the_record_s_place_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder, a JSON file was expected"):
        stage.read_record(tmp_path, REPAIR)


# ---------------------------------------------------------------- lock


def test_a_folder_that_another_process_writes_is_refused(held_folder):
    folder, _ = held_folder
    expected = rf"another run is writing {folder}.* \(it holds {folder}/\.lock\); wait"
    with pytest.raises(ValueError, match=expected), stage.lock(folder):
        pass
    assert (folder / ".half.npy.tmp").exists()  # the other's files are left alone


def test_a_killed_process_frees_its_lock(held_folder):
    folder, run = held_folder
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    with stage.lock(folder):
        pass
    assert not (folder / ".half.npy.tmp").exists()  # the next run cleans up after it


def test_results_of_two_names_are_locked_apart(tmp_path):
    stage.write_temporary(tmp_path / "other.npy", b"half")
    with stage.lock(tmp_path, "a.h5"):
        with stage.lock(tmp_path, "b.h5"):
            pass
        with (
            pytest.raises(
                ValueError, match=r"another run is writing .*a\.h5 .*a\.h5\."
            ),
            stage.lock(tmp_path, "a.h5"),
        ):
            pass
    assert stage.temporary(tmp_path / "other.npy").exists()
    with stage.lock(tmp_path, "a.h5"):
        pass


def test_a_table_takes_names_that_are_no_text(tmp_path):
    with stage.write_csv(tmp_path / "a.csv", ["name"]) as writer:
        writer.writerow([os.fsdecode(b"\xdcbung.png")])
    assert (tmp_path / "a.csv").read_text() == "name\n\\udcdcbung.png\n"


def test_tables_are_utf8_and_output_is_no_error_in_any_locale(tmp_path):
    code = (
        "import sys, stage\n"
        "def main():\n"
        "    with stage.write_csv(sys.argv[1], ['\\xfc']):\n"
        "        print('\\xfc')\n"
        "sys.exit(stage.run(main))"
    )
    path = tmp_path / "a.csv"
    odd = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        env=os.environ | odd,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xfc\n", "")
    assert path.read_text(encoding="utf-8") == "\xfc\n"


def test_a_folders_lock_leaves_what_a_run_on_a_name_is_writing(tmp_path):
    with stage.lock(tmp_path, "net"):
        stage.write_temporary(tmp_path / "net.h5", b"half")
        with stage.lock(tmp_path):
            stage.write_temporary(tmp_path / "network.npy", b"half")
        assert stage.temporary(tmp_path / "net.h5").exists()
        assert not stage.temporary(tmp_path / "network.npy").exists()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(stage.fcntl, "flock", refuse)
    with stage.lock(tmp_path):
        pass
    assert "without locks (No locks available)" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(
            ValueError, match=f"{place} is a file or lies below one; a folder"
        ),
        stage.lock(tmp_path / place),
    ):
        pass


# ---------------------------------------------------------------- threads


def test_map_threads_keeps_the_order_of_unequal_work():
    rng = np.random.default_rng(0)
    pauses = rng.permutation(np.linspace(0, 0.004, 60))

    def work(k):
        time.sleep(pauses[k])
        return k * k

    assert list(machine.map_threads(work, range(60))) == [k * k for k in range(60)]


def test_map_threads_runs_at_most_a_few_ahead_of_a_slow_consumer():
    started = []
    ahead = 8 * machine.num_threads()
    taken = 0
    for _ in machine.map_threads(started.append, range(20 * ahead)):
        taken += 1
        if taken % 10 == 0:
            time.sleep(0.002)  # the workers have time to run away
        assert len(started) <= taken + ahead
    assert len(started) == taken == 20 * ahead


def test_map_threads_works_on_several_items_at_once():
    # two workers meet at the barrier; one alone would wait for 5 s and break it
    if machine.num_threads() < 2:
        pytest.skip("one processor")
    barrier = threading.Barrier(2)
    list(machine.map_threads(lambda _: barrier.wait(5), range(2)))


def test_map_threads_raises_the_error_and_cancels_what_waits():
    started, forever = [], threading.Event()

    def work(k):
        started.append(k)
        if k == 0:
            raise ValueError("item 0")
        forever.wait(0.3)  # the others are busy while the error is raised

    with pytest.raises(ValueError, match="item 0"):
        list(machine.map_threads(work, range(1000)))
    # item 0, and one or two more on each core; 8 on each were waiting
    assert len(started) <= 1 + 2 * machine.num_threads()


# ---------------------------------------------------------------- run


def run_with(monkeypatch, capsys, main):
    monkeypatch.setattr(sys, "argv", ["somewhere/script.py"])
    status = stage.run(main)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, OSError])
def test_a_foreseeable_mistake_is_one_line_and_status_1(monkeypatch, capsys, kind):
    def main():
        raise kind("x.tif is missing")

    found = run_with(monkeypatch, capsys, main)
    assert found == (1, "", "script.py: x.tif is missing\n")


def test_an_interrupt_is_one_line_and_status_130(monkeypatch, capsys):
    def main():
        raise KeyboardInterrupt

    status, out, err = run_with(monkeypatch, capsys, main)
    assert (status, out) == (130, "")
    # a line feed ends the line that shows ^C or the progress bar
    assert err == "\nstopped; the previous outputs are intact, run it again\n"


@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_an_interrupt_that_tensorflow_made_an_error_of(monkeypatch, capsys, kind):
    def main():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise kind("Failed to convert elements to Tensor") from None

    status, out, err = run_with(monkeypatch, capsys, main)
    assert (status, out) == (130, "")
    assert err == "\nstopped; the previous outputs are intact, run it again\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_interrupt_stays_ignored(monkeypatch, capsys):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job behind `&`
    try:
        found = run_with(
            monkeypatch, capsys, lambda: signal.raise_signal(signal.SIGINT)
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == (0, "", "")


def test_success_is_status_0_and_silent(monkeypatch, capsys):
    assert run_with(monkeypatch, capsys, lambda: None) == (0, "", "")


def test_a_programming_error_is_not_hidden(monkeypatch, capsys):
    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, capsys, lambda: 1 / 0)
