"""Batches: which frames, in which order, changed how, by which process."""

import numpy as np
import pytest

from nerve.training.batches import batches, draw_balanced, draw_order
from recipes import MODERN

CHANGES = MODERN.augmentation

X = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones((10, 8, 8, 1))
X = X.astype(np.float32)
Y = (X > 4).astype(np.float32)


def values(pairs):
    """Return the grey value of each frame, batch by batch."""
    return [frames[:, 0, 0, 0].tolist() for frames, _ in pairs]


def test_batches_hold_the_rows_in_order_and_the_last_one_the_rest():
    order = np.array([3, 1, 4, 0, 9])
    assert values(batches(X, Y, order, 2)) == [[3, 1], [4, 0], [9]]
    for frames, masks in batches(X, Y, order, 2):
        np.testing.assert_array_equal(masks, frames > 4)


def test_the_order_is_another_every_epoch_and_the_same_again():
    first, again, second = (draw_order(50, 0, epoch) for epoch in (0, 0, 1))
    assert sorted(first) == list(range(50))
    assert first.tolist() == again.tolist() != second.tolist()


def test_balanced_draws_go_by_the_root_of_each_subjects_frames():
    subjects = np.repeat([1, 2, 3], [100, 25, 4])
    counts = [np.bincount(subjects[draw_balanced(subjects, 0, e)]) for e in range(50)]
    # roots 10, 5, 2 of 17, times 129 frames: 75.9, 37.9, 15.2
    assert np.mean(counts, axis=0)[1:].tolist() == pytest.approx(
        [75.9, 37.9, 15.2], abs=0.2
    )
    assert np.ptp(counts, axis=0).max() <= 1


def test_subjects_of_one_frame_are_drawn_in_turn():
    subjects = np.concatenate([np.repeat(0, 100), np.arange(1, 26)])
    counts = sum(np.bincount(draw_balanced(subjects, 0, e), minlength=125) for e in (0, 1))
    # roots 10 and 1, of 35, times 125 frames: 3.6 an epoch
    assert set(counts[100:]) <= {6, 7, 8}


def test_a_balanced_subject_shows_all_its_frames_before_one_twice():
    subjects = np.repeat([1, 2], [100, 4])
    rows = draw_balanced(subjects, 0, 0)
    counts = np.bincount(rows, minlength=104)[100:]  # 17.3 draws from 4 frames
    assert counts.sum() in (17, 18)
    assert counts.max() - counts.min() <= 1
    assert np.bincount(rows)[:100].max() == 1


def test_changes_depend_on_seed_epoch_and_place_in_the_order_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 16, 16, 1)).astype(np.float32)
    y = (x > 0).astype(np.float32)
    order = np.arange(6)
    whole = np.concatenate([f for f, _ in batches(x, y, order, 6, (CHANGES, 0, 3))])
    pairs = np.concatenate([f for f, _ in batches(x, y, order, 2, (CHANGES, 0, 3))])
    np.testing.assert_array_equal(whole, pairs)
    other = np.concatenate([f for f, _ in batches(x, y, order, 6, (CHANGES, 0, 4))])
    seeded = np.concatenate([f for f, _ in batches(x, y, order, 6, (CHANGES, 1, 3))])
    assert not np.array_equal(whole, other)
    assert not np.array_equal(whole, seeded)
    assert not np.array_equal(whole, x)


def test_memory_mapped_frames_are_never_written_to(tmp_path):
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    for frames, _ in batches(x, x, np.arange(10), 5, (CHANGES, 0, 0)):
        assert frames.flags.writeable
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_processes_share_a_batch_that_divides_and_each_take_another_whole(
    num_processes,
):
    order = np.array([0, 1, 2, 3, 4, 5, 6])
    parts = [
        values(batches(X, Y, order, 4, None, (process, num_processes, 2)))
        for process in range(num_processes)
    ]
    if num_processes == 1:
        assert parts == [[[0, 1, 2, 3], [4, 5, 6]]]
    else:
        assert parts == [[[0, 1], [4, 5, 6]], [[2, 3], [4, 5, 6]]]
