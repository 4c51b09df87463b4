"""README.md and docs/: links lead somewhere, and scripts take the flags that they name."""

import importlib
import re
import runpy
import shlex

import pytest
from conftest import ROOT

import demo

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "weights" / "README.md", *DOCS]
# CHANGELOG.md names flags without values, and flags that are gone
WITH_COMMANDS = [page for page in PAGES if page.stem != "CHANGELOG"]
SCRIPTS = {path.name for path in ROOT.glob("*.py")}
LINES = 120  # of README.md, at most
# a block's language says what is done with it: test_docs_runs.py runs those in sh
LANGUAGES = {"sh", "bat", "python", "text"}
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.M | re.S)


def read_blocks(page):
    """Return a page's fenced blocks, `(language, text)`."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def read_inline(page):
    """Return a page's words in code within sentences and tables, each in one line."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose)]


def read_commands(page):
    """Return the command lines of scripts that a page gives, `(script, flags)`.

    A variable of the shell stands for a number there, and counts as 0.
    """
    lines = [line for _, text in read_blocks(page) for line in text.splitlines()]
    found = [match for line in lines for match in re.findall(r"python ([^'\n]+)", line)]
    for words in read_inline(page):
        script, *rest = words.removeprefix("python ").split(" ", 1)
        if script in SCRIPTS and (rest or words.startswith("python ")):
            found.append(" ".join([script, *rest]))
    commands = [shlex.split(re.sub(r"\$\w+", "0", text), comments=True) for text in found]
    return [(script, flags) for script, *flags in commands if script != "-m"]


def name_headings(page):
    """Return the anchors of a page's headings, as GitHub makes them of their words."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}


def name_page(page):
    return str(page.relative_to(ROOT))


def read_recipes():
    """Return the recipes of recipes.py, and the one that docs/recipes.md adds."""
    (code,) = (
        text
        for language, text in read_blocks(ROOT / "docs" / "recipes.md")
        if language == "python"
    )
    names = runpy.run_path(str(ROOT / "recipes.py"))
    exec(code, names)
    return names["RECIPES"]


def accepts(script, flags):
    """Tell whether a script's own parser takes these flags; it prints why not."""
    module = importlib.import_module(script.removesuffix(".py"))
    if not hasattr(module, "parse_args"):
        return not flags
    others = [read_recipes()] if script == "train.py" else []
    try:
        module.parse_args(flags, *others)
    except SystemExit:
        return False
    return True


def test_the_readme_is_read_in_two_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LINES


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=name_page)
def test_every_link_leads_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in (link for link in links if "://" not in link):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in name_headings(target), link


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT).as_posix()})" in text


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_page)
def test_scripts_take_the_flags_that_a_page_names(page):
    for script, flags in read_commands(page):
        if "/" in script:  # of benchmarks/
            assert (ROOT / script).exists(), script
        else:
            assert accepts(script, flags), f"python {script} {shlex.join(flags)}"


def test_the_pages_name_every_script_that_has_a_command_line():
    named = {script for page in WITH_COMMANDS for script, _ in read_commands(page)}
    assert SCRIPTS - {"recipes.py", "losses.py"} <= named


def test_scripts_take_the_flags_of_the_demo():
    for line in demo.STEPS.strip().splitlines():
        script, *flags = shlex.split(line)
        assert accepts(script, flags), line


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_requirements_and_make_targets_are_there(page):
    texts = [text for _, text in read_blocks(page)] + read_inline(page)
    texts += re.findall(r"^    (.*)$", page.read_text(encoding="utf-8"), re.M)
    for text in texts:
        for path in re.findall(r"pip install .*(?:-r|--requirement) (\S+)", text):
            assert (ROOT / path).exists(), text
        for target in re.findall(r"^make ([\w-]+)", text, re.M):
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, re.M), text


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_no_command_escapes_being_run(page):
    assert {language for language, _ in read_blocks(page)} <= LANGUAGES
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert not re.search(r"^    .*python ", prose, re.M)  # indented: nobody runs it


def test_the_readme_loads_weights_by_the_lines_that_are_tried():
    (block,) = (text for name, text in read_blocks(ROOT / "README.md") if name == "python")
    page = ROOT / "docs" / "transfer-learning.md"  # its lines: test_h5_file.py
    assert ("python", block) in read_blocks(page)
