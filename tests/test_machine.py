"""The machine's cores and memory: all cores at once, a few results ahead."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT

from nerve import machine


def test_free_memory_is_at_most_the_shells_limit():
    code = (
        "import resource; from nerve import machine; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 31,) * 2); "
        "print(machine.free_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert 0 < int(done.stdout) < 1 << 31
    assert machine.free_memory() > 1 << 20


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
