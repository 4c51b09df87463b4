"""The number of threads changes no byte of what extraction to prediction write.

Training is another matter: TensorFlow sums in another order with other thread counts, so
its weights repeat only with the same count (docs/recipes.md, "Does it repeat").
"""

import hashlib

import pytest
from conftest import make_raw

import extract_data
import predict
import preprocess
import train
import tune
from nerve import machine

FLAGS = ["--filters", "2", "--depth", "2", "--epochs", "2"]
COUNTS = (1, 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder for each of COUNTS, made with that many threads from the same frames."""
    parent = tmp_path_factory.mktemp("threads")
    make_raw(parent / "raw", subjects=4, frames=5, test=5)
    train_data = parent / str(COUNTS[0]) / "data"
    for count in COUNTS:
        folder = parent / str(count)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(machine, "num_threads", lambda count=count: count)
            data = ["--data", str(folder / "data")]
            extract_data.main(["--raw", str(parent / "raw"), *data])
            flags = ["--height", "16", "--width", "16", "--contradictory"]
            preprocess.main([*data, *flags])
            if count == COUNTS[0]:
                out = ["--out", str(parent / "unet.h5")]
                train.main(["--data", str(train_data), *out, *FLAGS])
            weights = ["--weights", str(parent / "unet.h5")]
            predict.main([*data, *weights, "--out", str(folder / "predictions")])
    return [parent / str(count) for count in COUNTS]


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("lock")
    }


def test_files_do_not_depend_on_the_number_of_threads(folders):
    one, three = map(digests, folders)
    assert len(one) > 15
    assert one == three


def test_limits_do_not_depend_on_the_number_of_threads(folders, tmp_path, monkeypatch):
    found = []
    for count in COUNTS:
        monkeypatch.setattr(machine, "num_threads", lambda count=count: count)
        record = tmp_path / f"{count}.json"
        record.write_bytes((folders[0].parent / "unet.json").read_bytes())
        data, weights = folders[0] / "data", folders[0].parent / "unet.h5"
        flags = ["--data", str(data), "--weights", str(weights), "--into", str(record)]
        tune.main(flags)
        found.append(record.read_bytes())
    assert found[0] == found[1]
