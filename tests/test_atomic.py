"""Files are handed over whole, a record last, by one writer at a time."""

import errno
import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from nerve.files import atomic
from nerve.files.arrays import ArrayWriter

REPAIR = "python make_it.py --data there"

HOLD_LOCK = """
import sys, time
from nerve.files import atomic
with atomic.lock(sys.argv[1], *sys.argv[2:]):
    open(sys.argv[1] + "/.nerve~half.npy", "w").write("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held_folder(tmp_path):
    """A folder that another process has locked, and that process."""
    folder = tmp_path / "data"
    command = [sys.executable, "-c", HOLD_LOCK, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        yield folder, run
        run.kill()


@pytest.mark.parametrize("kind", ["bytes", "csv", "array"])
def test_a_file_beyond_the_limit_is_named_and_the_old_one_intact(tmp_path, kind):
    path = tmp_path / "x"
    path.write_text("old")

    def write():
        if kind == "bytes":
            atomic.write_bytes(path, bytes(20_000))
        elif kind == "csv":
            with atomic.write_csv(path, ("a", "b")) as writer:
                writer.writerows([("1234567", "1234567")] * 2000)
        else:
            ArrayWriter(path, (20, 1000), np.uint8)

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match=r"x could not be written: .*MB are free"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert path.read_text() == "old"


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 19) + 3])
def test_sha256_is_that_of_the_whole_content(tmp_path, size):
    content = bytes(k % 251 for k in range(size))
    (tmp_path / "f").write_bytes(content)
    assert atomic.sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def write_array(path):
    """Write an array of one row under its temporary name."""
    writer = ArrayWriter(path, (1, 2), np.uint8)
    writer.append(np.zeros(2, np.uint8))
    writer.close()


def listing(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def test_files_are_on_disk_before_they_get_their_places(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append(b), replace(a, b)))
    with atomic.aside(tmp_path / "stage") as folder:
        write_array(folder / "x.npy")
        atomic.write_json(folder / "stage.json", {})
        for name in ("x.npy", "stage.json"):
            assert steps[steps.index(folder / name) - 1] == "fsync"
        steps.clear()
        atomic.move(folder, tmp_path, ["stage.json"])
    # the array, its folder; the record, its folder
    assert steps == [tmp_path / "x.npy", "fsync", tmp_path / "stage.json", "fsync"]


def test_a_record_that_cannot_be_written_leaves_the_previous_outputs(tmp_path):
    before = {"stage.json": b"old", "x.npy": b"old", "stale.npy": b"old"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)

    def run():
        with atomic.lock(tmp_path), atomic.aside(tmp_path / "stage") as folder:
            atomic.write_bytes(folder / "x.npy", b"new")
            atomic.write_json(folder / "stage.json", {"mean": float("nan")})
            atomic.move(folder, tmp_path, ["stage.json"], [tmp_path / "stale.npy"])

    with pytest.raises(ValueError, match="not JSON compliant"):
        run()
    assert listing(tmp_path) == before


def test_a_stop_between_the_renames_leaves_no_record(tmp_path, monkeypatch):
    (tmp_path / "stage.json").write_text("old")
    replace = os.replace

    def stops_at_b(source, target):
        if target == tmp_path / "b.npy":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stops_at_b)
    with atomic.aside(tmp_path / "stage") as folder:
        for name in ("a.npy", "b.npy", "stage.json"):
            (folder / name).write_text("new")
        with pytest.raises(KeyboardInterrupt):
            atomic.move(folder, tmp_path, ["stage.json"])
    assert not (tmp_path / "stage.json").exists()


def test_a_failed_run_leaves_its_folder_as_it_was(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"old")

    def run():
        with atomic.lock(tmp_path), atomic.aside(tmp_path / "stage") as folder:
            write_array(folder / "x.npy")
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
    atomic.write_bytes(path, b"new")
    assert seen == [(b"new", b"old")]
    assert listing(tmp_path) == {"f": b"new"}


def test_a_csv_replaces_the_old_one_only_when_all_rows_are_written(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("old")

    def fail():
        with atomic.write_csv(path, ["a", "b"]) as writer:
            writer.writerow([1, 2])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    with atomic.write_csv(path, ["a", "b"]) as writer:
        writer.writerow([1, "x,y"])
        assert path.read_text() == "old"
    assert path.read_bytes() == b'a,b\n1,"x,y"\n'


@pytest.mark.parametrize(
    "name",
    ["=cmd|' /C calc'!A0.tif", "+1", "-x", "@a", " =1", "\t=1", "＝1", "＋1", "\u200b=1"],
)
def test_a_name_that_a_spreadsheet_would_run_is_written_as_text(name):
    assert atomic.as_text(name) == "'" + name
    assert atomic.as_text("a" + name) == "a" + name


def test_a_record_is_json_with_one_line_a_key():
    record = {"rows": [1, 2, 3], "mean": 0.1, "none": None, "deep": {"a": [True]}}
    text = atomic.to_json(record)
    assert json.loads(text) == record
    assert len(text.splitlines()) == len(record) + 2  # and the two braces


@pytest.mark.parametrize("place", ["absent.json", "file/stage.json"])
def test_a_missing_record_is_named_with_its_repair(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=f"{place} is missing; .*: {REPAIR}$"):
        atomic.read_record(tmp_path / place, REPAIR)


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
        atomic.read_record(tmp_path / "s.json", REPAIR)


def test_a_folder_in_the_record_s_place_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder, a JSON file was expected"):
        atomic.read_record(tmp_path, REPAIR)


def test_a_folder_that_another_process_writes_is_refused(held_folder):
    folder, _ = held_folder
    expected = rf"another run is writing {folder}.* \(it holds {folder}/\.lock\); wait"
    with pytest.raises(ValueError, match=expected), atomic.lock(folder):
        pass
    assert (folder / ".nerve~half.npy").exists()  # the other's files are left alone


def test_a_killed_process_frees_its_lock(held_folder):
    folder, run = held_folder
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    with atomic.lock(folder):
        pass
    assert not (folder / ".nerve~half.npy").exists()  # the next run cleans up after it


def test_results_of_two_names_are_locked_apart(tmp_path):
    atomic.temporary(tmp_path / "other.npy").write_bytes(b"half")
    with atomic.lock(tmp_path, "a.h5"):
        with atomic.lock(tmp_path, "b.h5"):
            pass
        with (
            pytest.raises(ValueError, match=r"another run is writing .*a\.h5 .*a\.h5\."),
            atomic.lock(tmp_path, "a.h5"),
        ):
            pass
    assert atomic.temporary(tmp_path / "other.npy").exists()
    with atomic.lock(tmp_path, "a.h5"):
        pass


def test_a_table_takes_names_that_are_no_text(tmp_path):
    with atomic.write_csv(tmp_path / "a.csv", ["name"]) as writer:
        writer.writerow([os.fsdecode(b"\xdcbung.png")])
    assert (tmp_path / "a.csv").read_text() == "name\n\\udcdcbung.png\n"


def test_a_folders_lock_leaves_what_a_run_on_a_name_is_writing(tmp_path):
    with atomic.lock(tmp_path, "net"):
        atomic.temporary(tmp_path / "net.h5").write_bytes(b"half")
        with atomic.lock(tmp_path):
            atomic.temporary(tmp_path / "network.npy").write_bytes(b"half")
        assert atomic.temporary(tmp_path / "net.h5").exists()
        assert not atomic.temporary(tmp_path / "network.npy").exists()


@pytest.mark.parametrize("name", ["", "net"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_intact(tmp_path, name):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / f".{name}.lock".replace("..", ".")).symlink_to("precious")
    with pytest.raises(ValueError, match=r"lock is a link"), atomic.lock(tmp_path, name):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_lies_in_a_lock_of_others_is_not_truncated(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    with atomic.lock(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "mine"


@pytest.mark.parametrize("kind", ["bytes", "csv", "array", "aside"])
def test_a_link_at_a_temporary_name_is_not_followed(tmp_path, kind):
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "file").write_text("mine")
    target = folder if kind == "aside" else folder / "file"
    atomic.temporary(tmp_path / "x.npy").symlink_to(target)
    if kind == "bytes":
        atomic.write_bytes(tmp_path / "x.npy", b"new")
    elif kind == "csv":
        with atomic.write_csv(tmp_path / "x.npy", ["a"]):
            pass
    elif kind == "array":
        write_array(tmp_path / "x.npy")
    else:
        with atomic.aside(tmp_path / "x.npy") as made:
            (made / "new").write_text("")
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "mine"


def test_only_files_of_this_project_are_removed_with_a_lock(tmp_path):
    names = [".mynotes.tmp", ".x.npy.tmp", "notes~", ".nerve", ".nerve.tmp"]
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    atomic.temporary(tmp_path / "link").symlink_to("elsewhere")
    atomic.temporary(tmp_path / "x.npy").write_text("half")
    (atomic.temporary(tmp_path / "results") / "masks").mkdir(parents=True)
    with atomic.lock(tmp_path):
        pass
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {*names, ".lock", "elsewhere"}
    assert (tmp_path / "elsewhere" / "file").read_text() == "mine"


def test_a_result_is_moved_with_its_tables_last(tmp_path, monkeypatch):
    for name in ("table.csv", "stale.png"):
        (tmp_path / name).write_text("old")
    steps, replace = [], os.replace

    def logged(source, target):
        present = (tmp_path / "table.csv").exists()
        steps.append((target.name, present, (tmp_path / "stale.png").exists()))
        replace(source, target)

    with atomic.aside(tmp_path / "results") as folder:
        (folder / "masks").mkdir()
        for name in ("table.csv", "a.png", "masks/b.png"):
            (folder / name).write_text("new")
        monkeypatch.setattr(os, "replace", logged)
        atomic.move(folder, tmp_path, ["table.csv"], [tmp_path / "stale.png"])
    # (file, table present, stale file present) before each rename
    assert sorted(steps[:2]) == [("a.png", False, False), ("b.png", False, False)]
    assert steps[2:] == [("table.csv", False, False)]
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "a.png", "masks"}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic.lock(tmp_path):
        pass
    assert "without locks (No locks available)" in capsys.readouterr().out


def test_a_lock_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OSError, match=r"\.lock"), atomic.lock(tmp_path):
        pass


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match=f"{place} is a file or lies below one; a folder"),
        atomic.lock(tmp_path / place),
    ):
        pass
