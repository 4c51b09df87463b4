"""The released weights: those that the model card lists, with the records they need."""

import re

import pytest
from conftest import ROOT

from nerve.files import atomic
from nerve.prediction import networks

LINE = re.compile(r"^    ([0-9a-f]{64})  (\S+\.h5)$", re.M)
LISTED = {n: s for s, n in LINE.findall((ROOT / "weights" / "README.md").read_text())}


@pytest.mark.parametrize("name", LISTED)
def test_a_file_is_what_the_card_says(name):
    assert atomic.sha256(ROOT / "weights" / name) == LISTED[name]


@pytest.mark.parametrize("name", [n for n in LISTED if n != "lite0_imagenet.h5"])
def test_a_network_has_its_record_and_what_it_was_trained_on(name):
    settings = networks.read_settings(ROOT / "weights" / name, None)
    assert settings["data"]["validation_subjects"] == []  # trained on all
    ((frames, subjects),) = [
        (p["frames"], p["subjects"]) for p in settings["trained_on"]
    ]
    assert (frames, len(subjects)) == (1915, 38)
    rows = (ROOT / "weights" / name).with_suffix(".csv").read_text().splitlines()
    assert len(rows) == 1 + settings["epochs"] == 1 + settings["kept"]["epoch"]
