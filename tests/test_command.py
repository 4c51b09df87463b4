"""The command line: ranges, help, one line for a mistake, Ctrl-C."""

import importlib
import math
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from nerve import command, records
from nerve.command import number, whole

SCRIPTS = sorted(p.stem for p in ROOT.glob("*.py") if "command.Parser" in p.read_text())


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(0), "0", 0),
        (whole(0), "+7", 7),
        (whole(1, 6), "1", 1),
        (whole(1, 6), "6", 6),
        (whole(0), "1" + "0" * 400, 10**400),  # no float holds it
        (number(0, 1), "0", 0.0),
        (number(0, 1), "1", 1.0),
        (number(0, 1, above=True), "1", 1.0),
        (number(0, 1, above=True), "5e-324", 5e-324),
        (number(0, 1, below=True), "0", 0.0),
        (number(-1, 1, above=True, below=True), "-0.999", -0.999),
    ],
)
def test_a_number_in_its_range_is_taken(kind, text, value):
    found = kind(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (whole(1), "0", "1 or more"),
        (whole(1, 6), "0", "1 to 6"),
        (whole(1, 6), "7", "1 to 6"),
        (whole(1, 6), "2.0", "1 to 6"),
        (whole(1, 6), "1e400", "1 to 6"),
        (whole(1, 6), "nan", "1 to 6"),
        (whole(1, 6), "six", "1 to 6"),
        (whole(1, 6), "", "1 to 6"),
        (whole(1, 10**6), "1000001", "1 to 1000000"),
        (whole(1), "9" * 5000, "1 or more"),  # more digits than Python reads
        (number(0, 1), "nan", "0 to 1"),
        (number(0, 1), "1e400", "0 to 1"),  # float gives inf
        (number(0, 1), "-1e400", "0 to 1"),
        (number(0, math.inf), "nan", "0 or more"),
        (number(0, 1), "text", "0 to 1"),
        (number(0, 1), "1.0000000000000002", "0 to 1"),
        (number(0, 1, above=True), "0", "above 0, up to 1"),
        (number(0, 1, above=True), "-0.0", "above 0, up to 1"),
        (number(0, 1, below=True), "1", "0 to below 1"),
        (number(0.5, 2, above=True, below=True), "0.5", "above 0.5, below 2"),
        (number(0.5, 2, above=True, below=True), "2", "above 0.5, below 2"),
    ],
)
def test_another_is_refused_with_what_was_given_and_the_range(kind, text, expected):
    with pytest.raises(command.argparse.ArgumentTypeError) as caught:
        kind(text)
    assert str(caught.value) == f"{text}; expected {expected}"


def test_the_line_names_the_flag_the_value_and_the_range(capsys):
    parser = command.Parser("Train.\n\nMore.")
    parser.add_argument("--epochs", type=whole(1, 10**6), help="times")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--epochs", "0"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("error: argument --epochs: 0; expected 1 to 1000000")


# ---------------------------------------------------------------- help


def paragraph(parser, action):
    """Return what the help says of a flag, on one line."""
    formatter = parser._get_formatter()
    formatter.add_argument(action)
    return " ".join(formatter.format_help().split())


def test_help_says_range_and_default_where_there_are_such():
    parser = command.Parser("Train a network.\n\nMore.")
    add = parser.add_argument
    flags = [
        (
            add("--width", type=whole(1, 60), default=5, help="px"),
            "(1 to 60; default: 5)",
        ),
        (add("--seed", type=whole(0), default=0, help="seed"), "(0 or more; default: 0)"),
        (add("--rate", type=number(0, 1), help="of learning"), "(0 to 1)"),
        (add("--out", default="a.h5", help="file"), "(default: a.h5)"),
        (add("--init", help="weights"), "weights"),
        (add("--resume", action="store_true", help="go on"), "go on"),
    ]
    for action, end in flags:
        assert paragraph(parser, action).endswith(end)
    assert parser.description == "Train a network."


@pytest.fixture(params=SCRIPTS)
def shown(request, monkeypatch, capsys):
    """Return `(parser, help)` of a script, as `--help` prints it."""
    made = []

    class Kept(command.Parser):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    script = importlib.import_module(request.param)
    monkeypatch.setattr(command, "Parser", Kept)
    parse_args = getattr(script, "parse_args", script.main)
    with pytest.raises(SystemExit, match="0"):
        parse_args(["--help"])
    (parser,) = made
    return parser, capsys.readouterr().out


def test_every_script_has_help_and_no_python_in_it(shown):
    parser, text = shown
    assert parser.description in " ".join(text.split())
    for word in (r"\bNone\b", r"Path\(", "PosixPath", r"\binf\b", r"\bnan\b", r"Number\("):
        assert not re.search(word, text)
    for action in parser._actions:
        assert action.help, action


def test_every_flag_says_its_range_and_default_once(shown):
    parser, _ = shown
    for action in parser._actions:
        line = paragraph(parser, action)
        assert line.lower().count("default") <= 1, line
        assert action.type not in (int, float), f"{line}: without a range"
        if isinstance(action.type, command.Number):
            assert line.count(str(action.type)) == 1, line
            if action.default is not None:
                assert line.endswith(f"; default: {action.default})"), line


def test_a_default_is_within_its_range(shown):
    parser, _ = shown
    for action in parser._actions:
        if isinstance(action.type, command.Number) and action.default is not None:
            assert action.type(str(action.default)) == action.default


def test_all_scripts_were_asked_for_help():
    assert set(SCRIPTS) >= {"train", "predict", "evaluate", "preprocess", "demo"}
    rest = {p.stem for p in ROOT.glob("*.py")} - set(SCRIPTS)
    assert rest == {"losses", "recipes"}


# ---------------------------------------------------------------- run


def run_with(monkeypatch, capsys, main):
    monkeypatch.setattr(sys, "argv", ["somewhere/script.py"])
    status = command.run(main)
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
        found = run_with(monkeypatch, capsys, lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == (0, "", "")


def test_an_interrupt_waits_for_the_end_of_a_step_that_has_to_be_whole():
    done = []

    def step():
        with command.undisturbed():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # somebody impatient
            done.append("whole")
        done.append("more")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_success_is_status_0_and_silent(monkeypatch, capsys):
    assert run_with(monkeypatch, capsys, lambda: None) == (0, "", "")


def test_control_characters_of_a_name_do_not_reach_the_terminal(monkeypatch, capsys):
    def main():
        print("left out: \x1b[2J\x9b\u202ea.png\tis empty")
        raise ValueError("a\nb\x1b]0;c\x07.png is missing")

    status, out, err = run_with(monkeypatch, capsys, main)
    assert out == "left out: \\x1b[2J\\x9b\\u202ea.png\tis empty\n"
    assert (status, err) == (1, "script.py: a\\nb\\x1b]0;c\\x07.png is missing\n")


def test_a_command_to_copy_has_its_paths_quoted(tmp_path):
    folder = tmp_path / "my data; rm x"
    folder.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        records.read_extract(folder)
    end = str(caught.value).rpartition("make it with: ")[2]
    expected = ["python", "extract_data.py", "--data", str(folder)]
    assert shlex.split(end, comments=True) == expected


def test_a_programming_error_is_not_hidden(monkeypatch, capsys):
    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, capsys, lambda: 1 / 0)


def test_tables_are_utf8_and_output_is_no_error_in_any_locale(tmp_path):
    code = (
        "import sys\n"
        "from nerve import command\n"
        "from nerve.files import atomic\n"
        "def main():\n"
        "    with atomic.write_csv(sys.argv[1], ['\\xfc']):\n"
        "        print('\\xfc')\n"
        "sys.exit(command.run(main))"
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
