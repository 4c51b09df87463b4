"""requirements/lock.txt: the versions of requirements.txt, each file by its hash."""

import re

from conftest import ROOT

LINE = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.!+-]+)( ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def read_lock():
    """Return `{package: [versions]}`; every line must be a package or one of its hashes."""
    versions, hashes = {}, 0
    for line in (ROOT / "requirements/lock.txt").read_text().splitlines():
        if match := LINE.fullmatch(line):
            name = match["name"].lower().replace("_", "-")
            versions.setdefault(name, []).append(match["version"])
            hashes = 0
        else:
            assert HASH.fullmatch(line), line
            hashes += 1
    assert hashes
    return versions


def test_the_lock_has_hashes_alone_and_no_address():
    text = (ROOT / "requirements/lock.txt").read_text()
    assert "://" not in text
    assert len(read_lock()) > 30  # TensorFlow's own dependencies, too


def test_the_lock_holds_the_versions_of_requirements():
    lock = read_lock()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert lock[name] == [version]
