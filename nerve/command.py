"""A script's command line: flags with ranges, help, one line for a mistake, Ctrl-C."""

import argparse
import contextlib
import functools
import io
import math
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO


class Number(NamedTuple):
    """A flag's type: a number in a range."""

    kind: type  # int or float
    low: float
    high: float = math.inf
    above: bool = False  # whether `low` itself is out of it
    below: bool = False  # likewise `high`

    def __call__(self, text: str) -> int | float:
        """Return the number that a text gives, or raise an argparse.ArgumentTypeError."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        low = value > self.low if self.above else value >= self.low
        if not low or not (value < self.high if self.below else value <= self.high):
            raise argparse.ArgumentTypeError(f"{text}; expected {self}")
        return value

    def __str__(self):
        low, high = (f"{end:g}" if end < 1e5 else f"{end:.0f}" for end in self[1:3])
        if self.high == math.inf:
            return f"{low} or more"
        if self.above:
            return f"above {low}, {'below' if self.below else 'up to'} {high}"
        return f"{low} to below {high}" if self.below else f"{low} to {high}"


whole, number = (functools.partial(Number, kind) for kind in (int, float))


class Help(argparse.HelpFormatter):
    """Help that says the range and the default of each flag once."""

    def _get_help_string(self, action):
        notes = [str(action.type)] if isinstance(action.type, Number) else []
        value = action.default
        said = value is not None and value is not False and value != argparse.SUPPRESS
        if said and action.option_strings:
            values = value if isinstance(value, list) else [value]
            notes.append(f"default: {' '.join(map(str, values))}")
        return f"{action.help} ({'; '.join(notes)})" if notes else action.help


class Parser(argparse.ArgumentParser):
    """A parser whose description is the first line of a script's docstring."""

    def __init__(self, doc: str):
        super().__init__(description=doc.splitlines()[0], formatter_class=Help)


@contextlib.contextmanager
def refusing(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Make errors of these kinds ValueErrors: `message`, then what was said, in a line."""
    try:
        yield
    except kinds as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{message} ({said:.300})" if said else message) from error


@contextlib.contextmanager
def undisturbed(done: str = "") -> Iterator[None]:
    """Put a Ctrl-C off until the end of a short step that has to be whole.

    What is `done` is said then, instead of what `run` says.
    """
    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *given: pressed.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed and callable(before):  # not by a job behind `&`, which ignores it
            try:
                before(*pressed[0])
            except KeyboardInterrupt as error:
                raise KeyboardInterrupt(*error.args or [done]) from None


def quoted(path: Path) -> str:
    """Return a path as it stands in a command that people copy."""
    return shlex.quote(str(path))


def listed(names: Iterable) -> str:
    """Return the first of some names for a message."""
    names = sorted(name if name.isprintable() else repr(name) for name in names)
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


class Plain:
    """A text stream on which control characters, as of a file's name, are escaped."""

    # neither tabs nor the line ends that progress bars need
    CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        return self.stream.write(self.CONTROL.sub(lambda c: ascii(c[0])[1:-1], text))

    def __getattr__(self, name):
        return getattr(self.stream, name)


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
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that a locale lacks is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    text, before_plain = "", (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = map(Plain, before_plain)
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
            line = "\\n".join(str(error).splitlines())  # of a file's name, perhaps
            sys.stderr.write(f"{Path(sys.argv[0]).name}: {line}\n")
            return 1
    finally:
        sys.stdout, sys.stderr = before_plain
        if heeded:
            signal.signal(signal.SIGINT, before)
    text = text or "stopped; the previous outputs are intact, run it again"
    print(f"\n{text}", file=sys.stderr)
    return 130
