"""Arrays on disk: the bytes of np.save, written flat, read back checked."""

import errno
import hashlib
import io
import os

import numpy as np
import pytest

from nerve.files.arrays import Array, ArrayWriter, read_array, scratch_array

REPAIR = "python make_it.py --data there"


def saved_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_rows(path, rows, planned, dtype):
    """Write rows with ArrayWriter; return (record, the file's bytes)."""
    writer = ArrayWriter(path, (planned, *rows.shape[1:]), dtype)
    for row in rows:
        writer.append(row)
    return writer.close(), path.read_bytes()


@pytest.fixture
def stored(tmp_path):
    """A folder with `x.npy`, uint8 (5, 4, 3), and the record of its arrays."""
    rows = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    entry, _ = write_rows(tmp_path / "x.npy", rows, 5, np.uint8)
    return tmp_path, {"x.npy": entry}


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
    assert record == Array(
        dtype=np.dtype(dtype).name,
        shape=list(shape),
        sha256=hashlib.sha256(content).hexdigest(),
    )


# 100 -> 9 and 100 -> 0 change the number of digits in the header
@pytest.mark.parametrize(("planned", "written"), [(100, 9), (100, 0), (10, 9), (3, 2)])
def test_fewer_rows_than_planned_make_the_shorter_array(tmp_path, planned, written):
    rows = np.random.default_rng(1).normal(size=(written, 6, 2)).astype(np.float32)
    record, content = write_rows(tmp_path / "x.npy", rows, planned, np.float32)
    assert content == saved_bytes(rows)
    assert record.shape == [written, 6, 2]
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_array_writer_converts_and_straightens_its_rows(tmp_path):
    rows = np.arange(24, dtype=np.int64).reshape(2, 3, 4).swapaxes(1, 2)
    assert not rows[0].flags.c_contiguous
    _, content = write_rows(tmp_path / "x.npy", rows, 2, np.float32)
    assert content == saved_bytes(np.ascontiguousarray(rows).astype(np.float32))


def test_a_row_of_another_shape_is_refused(tmp_path):
    writer = ArrayWriter(tmp_path / "x.npy", (2, 3, 4), np.uint8)
    with pytest.raises(ValueError, match=r"x\.npy: a row of \(4, 3\), expected \(3, 4"):
        writer.append(np.zeros((4, 3), np.uint8))
    writer.close()


def test_an_array_gets_its_name_once_it_is_whole(tmp_path):
    writer = ArrayWriter(tmp_path / "x.npy", (1, 2), np.uint8)
    assert [path.name for path in tmp_path.iterdir()] == [".nerve~x.npy"]
    writer.append(np.zeros(2, np.uint8))
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_a_full_disk_is_named_before_the_work(tmp_path, monkeypatch):
    def full(descriptor, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    # 128 bytes of header and 3 x 2,000,000: 6 MB
    expected = r"x\.npy could not be written: it needs 6\.0 MB; [\d,.]+ MB are free \(No"
    with pytest.raises(OSError, match=expected):
        ArrayWriter(tmp_path / "x.npy", (3, 2_000_000), np.uint8)


def test_a_scratch_array_is_zeroed_writable_and_leaves_no_file(tmp_path):
    array = scratch_array(tmp_path, (3, 4), np.float32)
    assert array.shape == (3, 4)
    assert array.dtype == np.float32
    assert not array.any()
    array[1] = 7
    assert array.sum() == 28
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_matches_its_record_is_mapped_read_only(stored):
    folder, record = stored
    array = read_array(folder, "x.npy", record, REPAIR)
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
        read_array(folder, "x.npy", record, REPAIR)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"}", b" "),  # a header that does not end
        (b"'descr'", b"'descr\""),
        (b"(5, 4, 3)", b"(5, 4, 3("),
        (b"'|", b"[[["),
        (b"False", b"F()()"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x09"),
    ],
)
def test_a_header_that_is_none_is_one_line(stored, old, new):
    folder, record = stored
    content = (folder / "x.npy").read_bytes()
    (folder / "x.npy").write_bytes(content.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"x\.npy (is|changed)[^\n]*make it again with"):
        read_array(folder, "x.npy", record, REPAIR)


def test_another_dtype_is_refused(stored):
    folder, record = stored
    np.save(folder / "x.npy", np.zeros((5, 4, 3), np.int8))
    expected = rf"x\.npy is int8 .*, its record says uint8 .*; make it .*: {REPAIR}$"
    with pytest.raises(ValueError, match=expected):
        read_array(folder, "x.npy", record, REPAIR)


def test_another_shape_is_refused(stored):
    folder, record = stored
    np.save(folder / "x.npy", np.zeros((5, 3, 4), np.uint8))
    expected = rf"x\.npy is uint8 \[5, 3, 4\], .* says uint8 \[5, 4, 3\]; .*: {REPAIR}$"
    with pytest.raises(ValueError, match=expected):
        read_array(folder, "x.npy", record, REPAIR)


@pytest.mark.parametrize("size", [0, 5, 100, 128, 187])  # whole: 128 + 60 bytes
def test_a_truncated_array_is_refused(stored, size):
    folder, record = stored
    os.truncate(folder / "x.npy", size)
    expected = rf"x\.npy is not a whole \.npy file; make it again with: {REPAIR}$"
    with pytest.raises(ValueError, match=expected):
        read_array(folder, "x.npy", record, REPAIR)


def test_a_pickled_array_is_refused_unopened(stored, monkeypatch):
    folder, record = stored

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder / "exploded"),)

    np.save(folder / "x.npy", np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(ValueError, match=rf"x\.npy is not a whole .*: {REPAIR}$"):
        read_array(folder, "x.npy", record, REPAIR)
    assert not (folder / "exploded").exists()
    np.load(folder / "x.npy", allow_pickle=True)  # the bomb does work
    assert (folder / "exploded").exists()


def test_an_npz_under_the_name_of_an_array_is_refused(stored):
    folder, record = stored
    with open(folder / "x.npy", "wb") as file:
        np.savez(file, x=np.zeros(3))
    with pytest.raises(ValueError, match=rf"x\.npy is not a whole .*: {REPAIR}$"):
        read_array(folder, "x.npy", record, REPAIR)


def test_a_missing_array_is_named_with_its_repair(stored):
    folder, record = stored
    (folder / "x.npy").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"x\.npy is missing; make it with: {REPAIR}$"
    ):
        read_array(folder, "x.npy", record, REPAIR)


@pytest.mark.parametrize("record", [{}, {"y.npy": Array("uint8", [5, 4, 3], "0")}])
def test_an_array_that_the_record_does_not_list_is_refused(stored, record):
    folder, _ = stored
    with pytest.raises(
        ValueError, match=rf"the record of .*/ lists no x\.npy; make it with: {REPAIR}$"
    ):
        read_array(folder, "x.npy", record, REPAIR)
