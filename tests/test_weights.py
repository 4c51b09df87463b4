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


@pytest.mark.parametrize("name", LISTED)
def test_a_network_has_its_record_and_what_it_was_trained_on(name):
    trained = networks.read_trained(ROOT / "weights" / name)
    assert not any(data.validation_subjects for data in trained.data)  # trained on all
    part = trained.trained_on[0]
    assert (part.frames, len(part.subjects)) == (1915, 38)
    rows = (ROOT / "weights" / name).with_suffix(".csv").read_text().splitlines()
    assert len(rows) == 1 + trained.recipe.epochs == 1 + trained.kept["epoch"]
