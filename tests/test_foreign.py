"""What frames look like, and which are foreign to the training frames."""

import numpy as np
import pytest

from nerve.frames import foreign


def frames(seed, count, level, grain):
    """Return noise of a mean grey and a size of grain, uint8 `(count, 48, 64)`."""
    rng = np.random.default_rng(seed)
    levels = level + rng.normal(0, 6, (count, 1, 1))
    noise = rng.normal(0, 30, (count, 48 // grain, 64 // grain))
    return np.clip(levels + np.kron(noise, np.ones((grain, grain))), 0, 255).astype(
        np.uint8
    )


def test_a_description_has_the_greys_and_the_texture():
    image = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[:, np.newaxis], 50, axis=1)
    look = foreign.describe(image)
    assert len(look) == 13
    assert look[3] * 255 == pytest.approx(98, abs=2)  # the median
    assert look[7] == pytest.approx(np.log(1e-3))  # neighbours in a row are equal
    assert look[8] == pytest.approx(np.log(2 / 255 + 1e-3), abs=1e-6)
    assert look[10] == pytest.approx(np.log(4 / 255 + 1e-3), abs=1e-3)  # at half the size


def test_frames_of_the_same_kind_are_known_and_others_foreign():
    groups = np.repeat(np.arange(40), 5)
    look = foreign.learn(frames(0, 200, 100, 1), groups)
    known, darker, coarser = (
        np.mean([foreign.unlike(foreign.describe(f), [look]) > 1 for f in images])
        for images in (
            frames(1, 200, 100, 1),
            frames(1, 200, 50, 1),
            frames(1, 200, 100, 4),
        )
    )
    assert known < 0.1
    assert darker > 0.9
    assert coarser > 0.9


def test_the_nearest_source_counts():
    groups = np.arange(100)
    looks = [foreign.learn(frames(0, 100, level, 1), groups) for level in (60, 140)]
    both = [foreign.unlike(foreign.describe(f), looks) for f in frames(1, 50, 140, 1)]
    one = [foreign.unlike(foreign.describe(f), looks[1:]) for f in frames(1, 50, 140, 1)]
    assert both == one
    assert foreign.unlike(foreign.describe(frames(0, 1, 60, 1)[0]), []) is None


def test_a_source_of_two_subjects_tells_nothing():
    assert foreign.learn(frames(0, 20, 100, 1), np.repeat([1, 2], 10)) is None


def test_flat_frames_have_a_look():
    look = foreign.learn(np.full((9, 20, 20), 7, np.uint8), np.arange(9))
    assert np.isfinite(look.inverse).all()
    assert look.limit > 0
