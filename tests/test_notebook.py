"""docs/transfer_learning.ipynb, run from top to bottom on phantoms."""

import csv

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "transfer_learning.ipynb"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The executed notebook and its folder; smaller, and with one epoch, for the test."""
    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    for old, new in (
        ('Path("..").resolve()', f"Path({str(ROOT)!r})"),
        ("EPOCHS = 10", "EPOCHS = 1"),
    ):
        assert old in first.source
        first.source = first.source.replace(old, new)
    for cell in book.cells:
        cell.source = cell.source.replace("--train 120", "--train 24")
    NotebookClient(book, timeout=600, resources={"metadata": {"path": folder}}).execute()
    return book, folder


def test_ten_short_cells_without_outputs_are_kept():
    book = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(cells) == 10
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells) <= 11


def test_it_ends_with_weights_scores_and_pictures(done):
    book, folder = done
    assert (folder / "work" / "weights" / "own.h5").exists()
    with open(folder / "work" / "new" / "frames.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "nerve_dice" in text
    assert "predicting_nothing" in text
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3  # frames, strips, an overlay


def test_without_the_challenges_data_there_is_nothing_to_submit(done):
    book, folder = done
    assert "nothing to submit" in book.cells[-1].outputs[0]["text"]
    assert not (folder / "submission.csv").exists()
