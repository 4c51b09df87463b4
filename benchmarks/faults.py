"""What is lost when runs are killed, disks are full, and two runs write at once.

    python benchmarks/faults.py --kills 50 --saves 50

Prints a table of trials and failures, appends them to results.jsonl, and ends with status 1
where anything failed. Each run of a script is a fork of this process, which has imported
TensorFlow already; outputs are compared byte for byte with those of an undisturbed run.
"""

import contextlib
import fcntl
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import measure

sys.path.insert(0, str(measure.ROOT / "tests"))
sys.path.insert(0, str(measure.ROOT))

import conftest  # noqa: F401 (signals and variables as the tests have them)
import cv2

import export
import extract_data
import phantom
import predict
import preprocess
import report
import train
import tune
from nerve import command
from nerve.files import atomic
from nerve.training import loop  # noqa: F401 (with TensorFlow, which no run need import again)

SIZE = ["--height", "32", "--width", "32"]
# with dropout, augmentation and averaged weights
TINY = ["--recipe", "modern", "--filters", "4", "--depth", "2"]
# 9 frames to train on: batches of one size, so that TensorFlow traces one step
TINY += ["--batch-size", "3", "--epochs", "4"]
PHANTOM = ["--train", "12", "--test", "4", "--subjects", "4"]


class Script(NamedTuple):
    """A run in a folder."""

    main: Callable
    flags: list[str]
    reads: list[str]  # what is in the folder before
    out: str  # what it writes
    tables: list[str] = []  # in `out`: while these are absent, there is no result
    earlier: list[str] | None = None  # flags of a run before it, whose outputs it replaces


DATA, WEIGHTS = ["--data", "data"], ["--weights", "weights/unet.h5"]
SCRIPTS = {
    "phantom.py": Script(phantom.main, ["--out", "raw", *PHANTOM], [], "raw"),
    "extract_data.py": Script(
        extract_data.main, ["--raw", "raw", *DATA], ["raw"], "data", ["extract.json"]
    ),
    "preprocess.py": Script(
        preprocess.main,
        [*DATA, *SIZE, "--soft-masks"],
        ["data"],
        "data",
        ["preprocess.json"],
        ["--seed", "1"],
    ),
    "train.py": Script(train.main, [*DATA, *TINY, "--resume"], ["data"], "weights"),
    "predict.py": Script(
        predict.main,
        [*DATA, *WEIGHTS, "--overlays", "3"],
        ["data", "weights"],
        "predictions",
        ["validation.csv", "validation_truth.csv", "submission.csv"],
        ["--prevalence", "0.5"],
    ),
    "predict.py --input": Script(
        predict.main,
        ["--input", "own", *WEIGHTS, "--out", "found"],
        ["own", "weights"],
        "found",
        ["frames.csv"],
        ["--prevalence", "0.5"],
    ),
    "tune.py": Script(tune.main, [*DATA, *WEIGHTS], ["data", "weights"], "weights"),
    "report.py": Script(
        report.main,
        [*DATA, *WEIGHTS, "--out", "pages/report.html"],
        ["data", "weights"],
        "pages",
    ),
    "export.py": Script(
        export.main,
        [*DATA, *WEIGHTS, "--frames", "2"],
        ["data", "weights"],
        "weights",
        ["unet.exports.json"],
    ),
}
GROWING = ("phantom.py", "train.py")  # file by file, the record last
LOGS = {}  # folder: pipes of the runs in it
LIMITS = [
    200,
    1000,
    5000,
    20_000,
    60_000,
    200_000,
    1_000_000,
    4_000_000,
]  # bytes a file
TIMEOUT = 300  # seconds, after which a run counts as hung


def start(folder, script, before=None, more=()):
    """Fork a run of a script in a folder, with `more` flags; return its process number.

    What it prints goes to a pipe (a full disk would cut a file): LOGS.
    """
    sys.stdout.flush()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    pid = os.fork()
    if pid:
        os.close(writing)
        LOGS[folder] = LOGS.get(folder, []) + [reading]
        return pid
    status = 99
    try:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        # new ones: the parent's remember whether a file or a terminal was behind them
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        sys.argv = [script]
        main, flags = SCRIPTS[script][:2]
        if before:
            before()
        status = command.run(lambda: main([*flags, *more]))
    except KeyboardInterrupt:  # before the script began or after its end
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid):
    """Return the status of a run, negative where a signal ended it."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def outputs(folder, name):
    """Return `{path: SHA-256}` below a folder, without what is hidden or unfinished."""
    root = folder / name
    paths = {str(path.relative_to(root)): path for path in sorted(root.rglob("*"))}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if path.is_file() and not re.search(r"(^|/)(\.|unfinished_)", name)
    }


def make_own(folder):
    """Write a video and a picture of the phantom's test frames."""
    paths = sorted((folder / "raw" / "test").glob("*.tif"))
    frames = [cv2.resize(cv2.imread(str(path)), (96, 64)) for path in paths]
    own = folder / "own"
    own.mkdir()
    cv2.imwrite(str(own / "still.png"), frames[0])
    code = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(own / "sweep.avi"), code, 20, (96, 64))
    for frame in frames * 3:
        writer.write(frame)
    writer.release()


def make_reference(folder):
    """Run all scripts in turn; return `{script: (seconds, outputs)}`."""
    found = {}

    def keep(name):
        (folder / name).mkdir()
        for part in ("raw", "own", "data", "weights", "predictions", "found", "pages"):
            if (folder / part).exists():
                shutil.copytree(folder / part, folder / name / part)

    for script, (_, _, _, out, _, earlier) in SCRIPTS.items():
        if earlier and wait(start(folder, script, more=earlier)) != 0:
            raise RuntimeError(f"{script}: {said(folder)}")
        keep(f"before {script}")
        begin = time.monotonic()
        if wait(start(folder, script)) != 0:
            raise RuntimeError(f"{script}: {said(folder)}")
        seconds = time.monotonic() - begin
        if script == "phantom.py":
            make_own(folder)
        found[script] = seconds, outputs(folder, out)
        keep(f"after {script}")
    return found


def fresh(folder, reference, script):
    """Return a new folder with what a script reads, and what a run before it wrote."""
    trial = Path(tempfile.mkdtemp(dir=folder))
    for name in {*SCRIPTS[script].reads, SCRIPTS[script].out}:
        source = reference / f"before {script}" / name
        if source.exists():
            hidden = shutil.ignore_patterns(".*lock")
            shutil.copytree(source, trial / name, ignore=hidden)
    return trial


def is_new(trial, script, whole):
    """Tell whether the outputs are those of an undisturbed run.

    Exports differ in their bytes from run to run: their record has to list them.
    """
    found, record = outputs(trial, SCRIPTS[script].out), trial / "weights/unet.exports.json"
    if script != "export.py":
        return found == whole
    files = atomic.read_record(record, "-")["files"] if record.exists() else {}
    return bool(files) and files.items() <= found.items()


def broken(trial, script, before, whole):
    """Tell what a kill left of outputs, where it is neither those before nor all new."""
    found = outputs(trial, SCRIPTS[script].out)
    if script in GROWING or found == before or is_new(trial, script, whole):
        return []
    if SCRIPTS[script].tables and not set(SCRIPTS[script].tables) & set(found):
        return []  # in the step of renaming
    return ["neither the previous outputs nor the new ones"]


def said(folder):
    """Return all that the last run in a folder printed, once it has ended."""
    *others, last = LOGS.pop(folder)
    for descriptor in others:
        os.close(descriptor)
    with os.fdopen(last, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def last_line(folder):
    """Return what the last run said last, and whether it was a traceback."""
    text = said(folder)
    lines = [line for line in text.splitlines() if line.strip()]
    return (lines or [""])[-1], "Traceback" in text


def disturb(folder, reference, expected, script, number, rng):
    """Send a signal at a random moment, run again; return the failures as text."""
    seconds, whole = expected[script]
    trial = fresh(folder, reference, script)
    before, failures = outputs(trial, SCRIPTS[script].out), []
    pid = start(trial, script)
    time.sleep(rng.uniform(0, seconds))
    os.kill(pid, number)
    status = wait(pid)
    if number == signal.SIGKILL:
        failures += broken(trial, script, before, whole)
    if number == signal.SIGINT and status not in (130, 0):
        failures.append(f"Ctrl-C: status {status}, {said(trial)}")
    if wait(start(trial, script)) != 0:
        failures.append(f"second run: {last_line(trial)}")
    elif not is_new(trial, script, whole):
        failures.append("other bytes")
    shutil.rmtree(trial)
    return failures


def die_at(count):
    """Have this process killed at its `count`-th step of writing files."""
    left = [count]

    def dying(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("replace", "fsync", "posix_fallocate", "unlink", "pwrite", "open"):
        setattr(os, name, dying(getattr(os, name)))


def kill_in_saves(folder, reference, expected, script, most):
    """Kill a script at each of its steps of writing; return `(trials, failures)`."""
    whole, trials, failures = expected[script][1], 0, []
    for count in range(1, most + 1):
        trial = fresh(folder, reference, script)
        before = outputs(trial, SCRIPTS[script].out)
        status = wait(start(trial, script, lambda count=count: die_at(count)))
        if status == 0:
            shutil.rmtree(trial)
            break
        trials += 1
        found = outputs(trial, SCRIPTS[script].out)
        failures += [f"step {count}: {t}" for t in broken(trial, script, before, whole)]
        if script == "train.py" and "unet.json" in found:
            record = atomic.read_record(trial / "weights" / "unet.json", "-")
            if record["h5_sha256"] != found.get("unet.h5"):
                failures.append(f"step {count}: record and weights do not belong together")
        if wait(start(trial, script)) != 0:
            failures.append(f"step {count}: second run: {last_line(trial)}")
        elif not is_new(trial, script, whole):
            failures.append(f"step {count}: other bytes")
        shutil.rmtree(trial)
    return trials, failures


def limit_files(size):
    """Let no file of this process grow beyond `size` bytes, as a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fill_disk(folder, reference, script):
    """Run a script over its own outputs with no room; return `(trials, failures)`."""
    trials, failures, out = 0, [], SCRIPTS[script].out
    for size in LIMITS:
        trial = Path(tempfile.mkdtemp(dir=folder))
        shutil.rmtree(trial)
        shutil.copytree(reference / f"after {script}", trial)
        if script in GROWING:  # these leave what is complete alone
            shutil.rmtree(trial / out)
        before = outputs(trial, out) if (trial / out).exists() else {}
        status = wait(start(trial, script, lambda size=size: limit_files(size)))
        line, traceback = last_line(trial)
        trials += 1
        # an overlay that is too large is one file's failure
        left_out = script.endswith("--input") and "were left out" in line
        named = "could not be written" in line or left_out
        if status not in (0, 1) or traceback or (status == 1 and not named):
            failures.append(f"{size} bytes: status {status}, {line}")
        if status == 1 and before and outputs(trial, out) != before and not left_out:
            failures.append(f"{size} bytes: the previous outputs are not intact")
        shutil.rmtree(trial)
        if status == 0:
            break
    return trials, failures


def stop_in_lock():
    """Have this process stopped as soon as it holds a lock."""
    lock = atomic.lock

    @contextlib.contextmanager
    def stopping(*place):
        with lock(*place):
            os.kill(os.getpid(), signal.SIGSTOP)
            yield

    atomic.lock = stopping


def hold(folder, reference, script):
    """Start a script twice at once; return the failures as text."""
    trial = fresh(folder, reference, script)
    first = start(trial, script, stop_in_lock)
    _, status = os.waitpid(first, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        return [f"no lock was taken: {last_line(trial)[0]}"]
    failures = []
    status, line = wait(start(trial, script)), last_line(trial)[0]
    if status != 1 or "another run" not in line:
        failures.append(f"the second run: status {status}, {line}")
    os.kill(first, signal.SIGCONT)
    if wait(first) != 0:
        failures.append("the first run failed")
    shutil.rmtree(trial)
    return failures


def parse_args(argv=None):
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=50, help="of each script, at random moments")
    add(
        "--saves",
        type=int,
        default=50,
        help="of each script, at its steps of writing; 0 leaves out full disks and two "
        "runs at once, too",
    )
    add("--scripts", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    rng, table, failed = random.Random(args.seed), {}, []

    def note(name, trials, failures):
        table[name] = {"trials": trials, "failures": len(failures)}
        failed.extend(f"{name}: {text}" for text in failures)
        print(f"{name:44}{trials:>9}{len(failures):>9}", flush=True)

    print(f"{'what':44}{'trials':>9}{'failures':>9}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        reference = folder / "reference"
        reference.mkdir()
        expected = make_reference(reference)
        for script in args.scripts:
            place = folder, reference, expected, script
            for name, number in (
                ("SIGKILL", signal.SIGKILL),
                ("Ctrl-C", signal.SIGINT),
            ):
                count = args.kills if number == signal.SIGKILL else args.kills // 5
                failures = []
                for _ in range(count):
                    failures += disturb(*place, number, rng)
                note(f"{script}: {name}", count, failures)
            if not args.saves:
                continue
            note(f"{script}: SIGKILL in a save", *kill_in_saves(*place, args.saves))
            note(f"{script}: disk full", *fill_disk(folder, reference, script))
            note(f"{script}: two at once", 1, hold(folder, reference, script))
    for text in failed[:20]:
        print(f"failed: {text}", file=sys.stderr)
    settings = {"kills": args.kills, "saves": args.saves}
    measure.keep("faults", settings, table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
