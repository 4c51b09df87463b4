"""Masks written as outlines for labelme and CVAT, and read again by extract_data.py."""

import json
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

import extract_data
from nerve.frames import labels
from nerve.scoring.scores import dice

SIZE = (60, 90)


def empty():
    return np.zeros(SIZE, np.uint8)


def disc(row, column, radius, mask=None, value=1):
    return cv2.circle(empty() if mask is None else mask, (column, row), radius, value, -1)


def draw_masks():
    """Return masks of 0 and 1 that outlines find hard, by name."""
    masks = {"empty": empty(), "full": empty() + np.uint8(1), "disc": disc(30, 40, 20)}
    masks["island"] = disc(30, 40, 4, disc(30, 40, 12, disc(30, 40, 25), 0))
    masks["parts"] = disc(12, 70, 9, disc(40, 20, 15))
    masks["pixel"], masks["pixels"] = empty(), disc(30, 60, 20)
    masks["pixel"][7, 80] = 1
    masks["pixels"][::59, ::89] = 1  # the corners of the frame, beside a large part
    masks["pixels"][30, 60] = 0
    masks["corner"] = empty()  # two squares that touch at a corner, and two holes
    masks["corner"][10:30, 10:30] = masks["corner"][30:50, 30:50] = 1
    masks["corner"][15:18, 15:18] = masks["corner"][18:21, 18:21] = 0
    masks["border"] = disc(5, 85, 22)
    masks["line"] = empty()
    masks["line"][20, 10:70] = masks["line"][5:50, 30] = 1
    masks["ring"] = disc(30, 40, 20, disc(30, 40, 21), 0)
    noise = np.random.default_rng(0).random(SIZE)
    masks["noise"] = (noise < 0.5).astype(np.uint8)
    masks["blobs"] = (cv2.GaussianBlur(noise, (0, 0), 2) < 0.5).astype(np.uint8)
    return masks


@pytest.fixture(scope="module", params=labels.FORMATS)
def written(request, tmp_path_factory):
    """Return the folder of outlines of `draw_masks`; each frame is of another grey."""
    folder = tmp_path_factory.mktemp("written") / "labels"
    with labels.writing(folder, request.param) as write:
        for grey, (name, mask) in enumerate(sorted(draw_masks().items())):
            write(name, empty() + np.uint8(grey), mask)
    return folder


def extract(folder, data, *flags):
    """Return the masks of a folder of outlines and frames, 0 and 255."""
    words = ["--images", str(folder), "--masks", str(folder), "--data", str(data)]
    extract_data.main([*words, *flags])
    return np.load(data / "imgs_mask_train.npy")


def test_outlines_come_back_as_the_masks_that_they_were_drawn_from(written, tmp_path):
    masks = draw_masks()
    found = extract(written, tmp_path)
    assert len(found) == len(masks)
    for name, mask in zip(sorted(masks), found, strict=True):
        assert dice(masks[name], mask) >= 0.995, name
    exact = {"empty", "full", "pixel", "line", "ring"}  # where no pixel can be spared
    for name, mask in zip(sorted(masks), found, strict=True):
        assert name not in exact or (masks[name] == mask // 255).all(), name
    frames = np.load(tmp_path / "imgs_train.npy")
    for grey, frame in enumerate(frames):
        assert (frame == grey).all()


def test_outlines_have_as_few_points_as_people_correct():
    rows, columns = np.mgrid[:400, :600]
    ellipse = np.hypot((rows - 200) / 60, (columns - 300) / 100) < 1
    (shape,) = labels.trace(ellipse.astype(np.uint8))
    assert 12 <= len(shape.points) <= 40  # of 560 pixels around it


def test_a_part_of_one_pixel_costs_a_large_one_no_points():
    alone, both = disc(30, 40, 25), disc(30, 40, 25)
    both[1, 1] = 1
    large, small = labels.trace(both)
    assert len(large.points) <= len(labels.trace(alone)[0].points)
    assert len(small.points) == 4
    assert small.points.min() >= 1
    assert small.points.max() <= 2  # columns and rows of the pixel's edges


def test_files_of_labelme_are_as_it_writes_them(tmp_path):
    with labels.writing(tmp_path, "labelme") as write:
        write("a b_00001", empty(), draw_masks()["island"])
        write("a b_00002", empty(), empty())
    assert len(list(tmp_path.iterdir())) == 4
    record = json.loads((tmp_path / "a b_00001.json").read_text())
    assert list(record) == ["version", "flags", "shapes", "imagePath", "imageData"] + [
        "imageHeight",
        "imageWidth",
    ]
    assert record["imagePath"] == "a b_00001.png"
    assert (record["imageHeight"], record["imageWidth"]) == SIZE
    assert record["imageData"] is None
    names = [shape["label"] for shape in record["shapes"]]
    assert names == ["nerve", "_background_", "nerve"]
    for shape in record["shapes"]:
        assert shape["shape_type"] == "polygon"
        assert shape["points"][0] != shape["points"][-1]  # labelme closes it itself
    assert json.loads((tmp_path / "a b_00002.json").read_text())["shapes"] == []


def test_the_file_of_cvat_has_every_frame_in_order(tmp_path):
    with labels.writing(tmp_path, "cvat") as write:
        write('a"<&_1', empty(), draw_masks()["island"])
        write("b", empty(), empty())
    root = ElementTree.parse(tmp_path / labels.CVAT).getroot()
    images = root.findall("image")
    assert [image.get("name") for image in images] == ['a"<&_1.png', "b.png"]
    assert [image.get("id") for image in images] == ["0", "1"]
    polygons = images[0].findall("polygon")
    assert [p.get("label") for p in polygons] == ["nerve", "background", "nerve"]
    assert [p.get("z_order") for p in polygons] == ["0", "1", "2"]
    assert not list(images[1])


def test_a_name_that_xml_cannot_hold_is_refused_and_the_file_stays_whole(tmp_path):
    with labels.writing(tmp_path, "cvat") as write:
        with pytest.raises(ValueError, match=r"'a\\x07\.png' holds characters that XML"):
            write("a\a", empty(), empty())
        write("b", empty(), empty())
    assert len(ElementTree.parse(tmp_path / labels.CVAT).getroot().findall("image")) == 1


def test_outlines_drawn_on_another_picture_are_refused_by_name(tmp_path, capsys):
    folder, masks = tmp_path / "labels", draw_masks()
    with labels.writing(folder, "labelme") as write:
        for name in ("disc", "island", "parts"):
            write(name, empty() + np.uint8(9), masks[name])
    text = (folder / "disc.json").read_text()
    (folder / "parts.json").write_text(text)
    expected = r"parts\.json is drawn on 'disc' \(its imagePath\), not on parts\.png; "
    with pytest.raises(ValueError, match=expected) as error:
        extract(folder, tmp_path / "data")
    assert "\n" not in str(error.value)
    assert len(extract(folder, tmp_path / "data", "--skip-bad")) == 2
    # paths of Windows, and other suffixes, are the same picture
    (folder / "parts.json").write_text(text.replace("disc.png", r"..\\b\\parts.JPG"))
    assert len(extract(folder, tmp_path / "data")) == 3
    record = json.loads(text) | {"imagePath": "parts.png", "imageHeight": 61}
    (folder / "parts.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"parts\.json is of 61 x 90 pixels, parts\.png"):
        extract(folder, tmp_path / "data")
