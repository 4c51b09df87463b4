"""What the benchmarks share: timing whole processes, and keeping what was measured."""

import json
import os
import platform
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.jsonl"
PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python", "pillow")
POLL = 0.01  # seconds between two looks at a process's memory


def run(command, cwd=ROOT):
    """Run a command to its end.

    Returns:
        `(seconds, peak anonymous memory in MB)`; files mapped into memory not counted.
        The memory is None where the system does not tell it (only Linux does).
    """
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon"):
                    peak = max(peak, int(line.split()[1]))
        time.sleep(POLL)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{command} failed: {process.stderr.read().decode()[-500:]}")
    return seconds, peak / 1000 or None


def compare(commands, rounds):
    """Run several commands in turn, a few rounds, so that drift meets all alike.

    Args:
        commands: `{name: command}`; ratios are taken to the first.
        rounds: How often each runs; a round before that is not counted.

    Returns:
        `{name: {"seconds", "peak_anonymous_mb", "ratio"}}`, medians; `ratio` is the first
        command's seconds divided by this one's of the same round.
    """
    samples = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            samples[name].append(run(command))
    first = next(iter(commands))
    results = {}
    for name, values in samples.items():
        pairs = zip(samples[first][1:], values[1:], strict=True)
        memory = [peak for _, peak in values[1:] if peak]
        results[name] = {
            "seconds": statistics.median(seconds for seconds, _ in values[1:]),
            "peak_anonymous_mb": max(memory) if memory else None,
            "ratio": statistics.median(one[0] / other[0] for one, other in pairs),
        }
    return results


def machine():
    """Return what a measurement depends on: processor, versions, commit."""
    info = {"processor": platform.processor() or platform.machine()}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        models = [line.split(":")[1].strip() for line in lines if "model name" in line]
        info["processor"] = models[0] if models else info["processor"]
    info["cores"] = len(os.sched_getaffinity(0))
    info["python"] = platform.python_version()
    for package in PACKAGES:
        info[package] = metadata.version(package)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    info["commit"] = commit.stdout.strip()
    return info


def keep(benchmark, settings, results):
    """Append one line to `benchmarks/results.jsonl`."""
    line = {
        "benchmark": benchmark,
        **settings,
        "results": results,
        "machine": machine(),
    }
    with open(RESULTS, "a") as file:
        file.write(json.dumps(line) + "\n")
