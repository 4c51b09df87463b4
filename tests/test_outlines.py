"""What people's outlines, brush masks and labels say, and what is made of it."""

import base64
import io
import json
import math
import re
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import Image

import extract_data
from nerve.frames import outlines, pairs

HEIGHT, WIDTH = 105, 145
STEMS = ("an_1", "bo_1", "cy_1", "di_1")


def corners(left=20, top=20, width=40, height=40):
    right, bottom = left + width, top + height
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def polygon(label, *box):
    return {"label": label, "points": corners(*box), "shape_type": "polygon"}


NERVE, ARTERY = polygon("nerve"), polygon("artery", 80, 20, 40, 40)


def labelme(*shapes, **more):
    record = {"shapes": list(shapes), "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps(record | more)


def cvat(*shapes, names=STEMS):
    images = "".join(
        f'<image name="{name}.png" width="{WIDTH}" height="{HEIGHT}">{"".join(shapes)}'
        "</image>"
        for name in names
    )
    return f'<?xml version="1.0" encoding="utf-8"?><annotations>{images}</annotations>'


def cvat_polygon(label, *box, order=0):
    points = ";".join(f"{x},{y}" for x, y in corners(*box))
    return f'<polygon label="{label}" points="{points}" z_order="{order}"/>'


def coco(segmentation, evidence=(), **more):
    """Return a file of COCO; `evidence` is what annotations say of their outlines."""
    evidence = dict(evidence)
    flat = [value for point in corners() for value in point]
    segmentation = [flat] if segmentation is None else segmentation
    images = [
        {"id": k, "file_name": f"x/{name}.png", "height": HEIGHT, "width": WIDTH}
        for k, name in enumerate(STEMS)
    ]
    about = {"category_id": 7, "segmentation": segmentation, **evidence}
    drawn = [{"image_id": k, **about} for k in (0, 1, 2)]
    kinds = [{"id": 7, "name": "nerve"}]
    return json.dumps({"images": images, "categories": kinds, "annotations": drawn} | more)


@pytest.fixture
def own(tmp_path):
    """Folders frames/ of four frames and labels/, which is empty."""
    for name in ("frames", "labels"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for stem in STEMS:
        frame = rng.integers(0, 200, (HEIGHT, WIDTH), np.uint8)
        Image.fromarray(frame).save(tmp_path / "frames" / f"{stem}.png")
    return tmp_path


def write(own, *texts, stems=STEMS):
    """Write a .json of labelme for each of some frames; the last text for the rest."""
    for k, stem in enumerate(stems):
        text = texts[min(k, len(texts) - 1)]
        (own / "labels" / f"{stem}.json").write_text(text, encoding="utf-8")


def extract(own, *flags, masks="labels"):
    """Return the areas of the masks."""
    folders = ["--images", str(own / "frames"), "--masks", str(own / masks)]
    extract_data.main([*folders, "--data", str(own / "data"), *flags])
    return json.loads((own / "data" / "extract.json").read_text())["train"]["area"]


def refuse(own, message, *flags, masks="labels"):
    with pytest.raises(ValueError, match=message) as error:
        extract(own, *flags, masks=masks)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- labels


def test_several_labels_are_refused_with_their_list_and_counted_with_one_chosen(
    own, capsys
):
    write(own, labelme(NERVE, ARTERY))
    refuse(own, r"an_1\.json holds the labels 'artery', 'nerve'; say which is nerve")
    assert extract(own, "--label", "nerve") == [1600] * 4
    assert "passed over beside --label nerve: 'artery' (4)\n" in capsys.readouterr().out
    (own / "all.xml").write_text(cvat(cvat_polygon("nerve"), cvat_polygon("artery", 80)))
    refuse(own, "holds the labels 'artery', 'nerve'; say which", masks="all.xml")
    assert extract(own, "--label", "nerve", masks="all.xml") == [1600] * 4


def test_a_label_that_differs_from_file_to_file_is_never_passed_over_in_silence(
    own, capsys
):
    write(own, *(labelme(polygon(name)) for name in ("nerve", "Nerve", "nerve ", "nerv")))
    refuse(own, r"several labels \(in so many frames\): 'Nerve' \(1\), 'nerv' \(1\), ")
    assert extract(own, "--label", "nerve") == [1600, 0, 0, 0]
    expected = "3 frames hold other labels alone: 'Nerve' (1), 'nerv' (1), 'nerve ' (1)\n"
    assert expected in capsys.readouterr().out


def test_a_label_in_another_unicode_form_is_the_same(own):
    write(own, labelme(polygon(unicodedata.normalize("NFD", "Nérvus"))))
    assert extract(own, "--label", "Nérvus") == [1600] * 4


@pytest.mark.parametrize("flags", [[], ["--label", "nerve"]])
def test_holes_stay_holes(own, flags):
    # 60 x 60 without 20 x 20
    hole = polygon("_background_", 40, 40, 20, 20)
    write(own, labelme(polygon("nerve", 20, 20, 60, 60), hole))
    assert extract(own, *flags) == [3200] * 4
    # in CVAT the order is that of z_order, not that of the file
    drawn = cvat_polygon("background", 40, 40, 20, 20, order=1)
    (own / "all.xml").write_text(cvat(drawn, cvat_polygon("nerve", 20, 20, 60, 60)))
    assert extract(own, *flags, masks="all.xml") == [3200] * 4
    write(own, labelme(NERVE, polygon("_background_", 0, 0, 145, 105)))
    refuse(own, r"an_1\.json cannot be drawn \(holes cover all", *flags)


def test_a_hole_drawn_as_an_outline_within_one_is_said(own, capsys):
    write(own, labelme(polygon("nerve", 20, 20, 60, 60), polygon("nerve", 40, 40, 20, 20)))
    assert extract(own) == [3600] * 4
    assert "4 frames have outlines within others, which" in capsys.readouterr().out


def test_an_outline_that_crosses_itself_is_said_and_a_slip_of_the_hand_is_not(own, capsys):
    left, top = [20, 20], [60, 60]
    bow = {"label": "nerve", "points": [left, top, [60, 20], [20, 60]]}
    write(own, labelme(bow))
    assert extract(own) == [840] * 4  # of 1600
    said = "4 frames have outlines that cross themselves and lose area"
    assert said in capsys.readouterr().out
    slip = [[22, 18], *corners(), [20, 22], [22, 18]]
    beyond = [[-2, -2], [WIDTH + 2, -2], [WIDTH + 2, 30], [-2, 30]]  # cut by the frame
    for points in (slip, beyond):
        write(own, labelme({"label": "nerve", "points": points}))
        extract(own)
        assert "cross themselves" not in capsys.readouterr().out


def paint(own, name, values, **flags):
    Image.fromarray(values).save(own / "labels" / name, **flags)


def test_classes_and_colours_that_differ_from_picture_to_picture(own, capsys):
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for stem, channel in zip(STEMS, (0, 0, 0, 1), strict=True):
        coloured = mask.copy()
        coloured[20:60, 20:60, channel] = 200
        paint(own, f"{stem}.png", coloured)
    refuse(own, r"several labels .*: '#c80000' \(3\), '#00c800' \(1\); say which")
    assert extract(own, "--label", "#c80000") == [1600, 1600, 1600, 0]
    assert "1 frames hold other labels alone: '#00c800' (1)" in capsys.readouterr().out
    for stem, value in zip(STEMS, (1, 255, 255, 255), strict=True):
        paint(own, f"{stem}.png", coloured[..., 1] // 200 * np.uint8(value))
    assert extract(own) == [1600] * 4
    assert "255 (3), 1 (1); each is taken for the nerve" in capsys.readouterr().out
    assert extract(own, "--label", "1") == [1600, 0, 0, 0]
    assert "3 frames hold other labels alone: 255 (3)" in capsys.readouterr().out
    picture = Image.fromarray(coloured[..., 1] // 200, "P")
    for stem, colour in zip(
        STEMS, ([9, 200, 9], [9, 200, 9], [250, 0, 0], [1] * 3), strict=True
    ):
        picture.putpalette([0, 0, 0, *colour])  # of colours in the order that they come in
        picture.save(own / "labels" / f"{stem}.png")
    refuse(own, r"several labels .*: '#09c809' \(2\), '#fa0000' \(1\), 1 \(1\)")
    assert extract(own, "--label", "#fa0000") == [0, 0, 1600, 0]
    assert extract(own, "--label", "1") == [1600] * 4
    coloured[70:90, 20:60, 0] = 200
    (own / "labels" / "an_1.png").unlink()
    paint(own, "an_1.jpg", coloured, quality=95)
    refuse(own, r"an_1\.jpg holds the values 0, #00ff00, #ff0000; say which is nerve")


# ---------------------------------------------------------------- outlines


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"points": [[20, 20], [60, 60]]}, "an outline without an area"),
        ({"points": [[20, 20], [40, 40], [60, 60]]}, "an outline without an area"),
        ({"points": []}, "an outline that is no list of points"),
        ({"points": [[1, 2], [3]]}, "cannot be drawn"),
        ({"points": corners(120, 20)}, "an outline outside the frame of 105 x 145"),
        ({"points": [[20, 20], [60, 20], [60, 10**400]]}, "cannot be drawn"),
        ({"points": [[20, 20], [60, 20], [60, float("inf")]]}, "outside the frame"),
        ({"points": [[20, 20], [60, 20], [60, float("nan")]]}, "outside the frame"),
        ({"points": None}, "an outline that is no list of points"),
        ({"shape_type": "rectangle"}, "'rectangle'; expected polygons and brush masks"),
    ],
)
def test_an_outline_that_makes_no_area_is_refused_by_name(own, shape, message):
    write(own, labelme(NERVE | shape), labelme(NERVE))
    refuse(own, rf"an_1\.json .*{message}", "--label", "nerve")
    assert extract(own, "--label", "nerve", "--skip-bad") == [1600] * 3
    write(own, labelme(NERVE, NERVE | shape | {"label": "other"}))
    assert extract(own, "--label", "nerve") == [1600] * 4


@pytest.mark.parametrize(
    "text",
    ["[", "[1]", "7", "null", '{"shapes": 3}', '{"shapes": [3]}', "[" * 10_000]
    + ['{"shapes": [{"label": "nerve"}]}', '{"imageHeight": ' + "1" * 5000 + "}", "\xff"],
)
def test_what_is_no_file_of_labelme_is_one_line(own, text):
    write(own, labelme(NERVE))
    (own / "labels" / "bo_1.json").write_bytes(text.encode("latin-1"))
    refuse(own, r"bo_1\.json is no file of labelme")
    assert extract(own, "--skip-bad") == [1600] * 3


@pytest.mark.parametrize("size", [{}, {"imageHeight": None, "imageWidth": None}])
def test_outlines_without_a_size_are_of_their_frames(own, size):
    record = {"shapes": [NERVE]} | size
    write(own, json.dumps(record))
    assert extract(own) == [1600] * 4
    for value in (10**400, float("inf"), "105", -1, [1]):
        write(own, labelme(NERVE, imageHeight=value), labelme(NERVE))
        refuse(own, r"an_1\.json is of .* x 145 pixels, an_1\.png of 105 x 145")


def test_outlines_drawn_as_lines_are_warned_of_and_real_masks_are_not(own, capsys):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot((rows - 52) / 30, (columns - 72) / 40)
    disc = (distance < 1).astype(np.uint8) * 255
    disc[48:56, 60:80] = 0  # a hole
    line = np.zeros_like(disc)
    cv2.ellipse(line, (72, 52), (40, 30), 0, 10, 350, 255, 2)  # not quite closed
    for stem, mask in zip(STEMS, (disc, disc, line, disc * 0), strict=True):
        paint(own, f"{stem}.png", mask)
    extract(own)
    text = capsys.readouterr().out
    assert "1 frames have masks that are lines around an area (outlines?)" in text
    assert text.endswith("fill them: cy_1.png\n")


# ---------------------------------------------------------------- formats


def brush(points, bits):
    content = io.BytesIO()
    Image.fromarray(bits).save(content, "PNG")
    text = base64.b64encode(content.getvalue()).decode()
    return {"label": "nerve", "points": points, "shape_type": "mask", "mask": text}


def test_brush_masks(own):
    bits = np.ones((41, 31), bool)
    bits[0, 0] = False
    write(own, labelme(brush([[20, 20], [50, 60]], bits)))
    assert extract(own) == [41 * 31 - 1] * 4
    mask = np.load(own / "data" / "imgs_mask_train.npy")[0]
    np.testing.assert_array_equal(mask[20:61, 20:51] > 0, bits)
    # counts begin with the pixels that are not marked: row by row 1, then 1,199
    box = 'left="20" top="30" width="30" height="40"'
    (own / "all.xml").write_text(cvat(f'<mask label="nerve" rle="1, 1199" {box}/>'))
    assert extract(own, masks="all.xml") == [1199] * 4
    mask = np.load(own / "data" / "imgs_mask_train.npy")[0]
    assert not mask[30, 20]
    assert mask[30, 21:50].all()
    assert mask[31:70, 20:50].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": [[20, 20], [51, 60]]}, "of another size than its box"),
        ({"points": [[130, 20], [160, 60]]}, "outside the frame's 105 x 145"),
        ({"points": [[-5, 20], [25, 60]]}, "outside the frame's 105 x 145"),
        ({"points": [[20, 20, 3], [50, 60]]}, None),
        ({"points": [[20, 20], [float("nan"), 60]]}, None),
        ({"points": [[20, 20], [10**400, 60]]}, "outside the frame's 105 x 145"),
        ({"mask": "AAAA"}, "cannot identify image"),
        ({"mask": None}, "argument should be"),
        ({"mask": "é"}, "should contain only ASCII"),
    ],
)
def test_brush_masks_of_labelme_that_contradict_themselves(own, change, message):
    shape = brush([[20, 20], [50, 60]], np.ones((41, 31), bool))
    write(own, labelme(shape | change))
    expected = f"cannot be drawn .*{message}" if message else "is no file of labelme"
    refuse(own, rf"an_1\.json {expected}")


@pytest.mark.parametrize(
    "changes",
    [
        {'rle="1, 1199"': 'rle="1, 1198"'},
        {'rle="1, 1199"': 'rle="1, 9223372036854775807, 1199"'},
        {'rle="1, 1199"': 'rle="-1, 1201"'},
        {'rle="1, 1199"': 'rle=""'},
        {'left="20"': 'left="120"'},
        {'width="30"': 'width="' + "3" * 400 + '"'},
        {'height="40"': 'height="0"'},
    ],
)
def test_brush_masks_of_cvat_that_contradict_themselves(own, changes):
    box = 'rle="1, 1199" left="20" top="30" width="30" height="40"'
    for old, new in changes.items():
        box = box.replace(old, new)
    (own / "all.xml").write_text(cvat(f'<mask label="nerve" {box}/>'))
    refuse(own, r"all\.xml, 'an_1\.png', cannot be drawn", masks="all.xml")


def test_a_file_of_coco(own, capsys):
    path = own / "labels" / "instances_default.json"
    path.write_text(coco(None))
    assert extract(own) == [1600, 1600, 1600, 0]
    assert extract(own, masks="labels/instances_default.json") == [1600, 1600, 1600, 0]
    # down the columns: row 3 to 7 of column 2, which lies behind 2 x 105 pixels
    runs = [2 * HEIGHT + 3, 5, HEIGHT * WIDTH - 2 * HEIGHT - 8]
    path.write_text(coco({"counts": runs, "size": [HEIGHT, WIDTH]}))
    assert extract(own) == [5, 5, 5, 0]
    assert np.load(own / "data" / "imgs_mask_train.npy")[0, 3:8, 2].all()
    two = [{"id": 7, "name": "nerve"}, {"id": 8, "name": "artery"}]
    drawn = json.loads(coco(None))["annotations"]
    drawn.append(drawn[0] | {"category_id": 8})
    path.write_text(coco(None, categories=two, annotations=drawn))
    refuse(own, "'x/an_1.png', holds the labels 'artery', 'nerve'; say which")
    for segmentation, message in (
        ({"counts": "ab", "size": [HEIGHT, WIDTH]}, "compressed RLE; import it in CVAT"),
        ({"counts": [9, 9], "size": [HEIGHT, WIDTH]}, "runs do not fill its box"),
        ({"counts": [9, 9], "size": [3, 6]}, "outside the frame's 105 x 145"),
        ({"counts": [9, 9], "size": [HEIGHT]}, "cannot be drawn"),
        ([], "'box'; expected polygons"),
        ([[1, 2, 3]], "is no file of COCO"),
        ([[]], "no list of points"),
    ):
        path.write_text(coco(segmentation))
        refuse(own, message)
    for more in (
        {"images": [{"id": 0, "file_name": "an_1.png"}] * 2},
        {"annotations": [{"image_id": 99, "category_id": 7}]},
        {"annotations": [{"image_id": 0, "category_id": 99}]},
        {"images": 3},
    ):
        path.write_text(coco(None, **more))
        refuse(own, "is no file of COCO")


@pytest.mark.parametrize(
    ("evidence", "agrees"),
    [
        ({}, True),
        ({"bbox": [], "area": 0}, True),  # of those who do not count
        ({"bbox": [20, 20, 40, 40], "area": 1600.0}, True),
        ({"bbox": [20, 20, 39, 41], "area": 1640}, True),  # of pixels
        ({"bbox": [20, 20, 40, 47]}, False),
        ({"bbox": [10, 20, 40, 40]}, False),
        ({"bbox": [20, 20, 60, 60]}, False),  # corners
        ({"area": 2600}, False),
        ({"bbox": [math.nan] * 4}, False),
    ],
)
def test_outlines_of_coco_that_contradict_their_box_or_area_are_said(
    own, capsys, evidence, agrees
):
    (own / "all.json").write_text(coco(None, evidence))
    assert extract(own, masks="all.json") == [1600, 1600, 1600, 0]
    said = r"warning: .*all\.json: 3 outlines contradict their bbox or area.*: x/an_1\.png"
    assert agrees != bool(re.search(said, capsys.readouterr().out))


def test_the_area_of_a_box_is_one_that_some_programs_give(own, capsys):
    corner = [[20, 30, 60, 30, 20, 70]]  # 800, of a box of 1600
    for area, agrees in ((800, True), (1600, True), (1200, False)):
        (own / "all.json").write_text(coco(corner, {"area": area}))
        extract(own, masks="all.json")
        assert agrees != ("contradict" in capsys.readouterr().out)
    two = [[20, 30, 60, 30, 60, 70, 20, 70], [80, 30, 90, 30, 90, 40, 80, 40]]
    (own / "all.json").write_text(coco(two, {"area": 1700, "bbox": [20, 30, 70, 40]}))
    extract(own, masks="all.json")
    assert "contradict" not in capsys.readouterr().out
    for evidence in ({"bbox": [1, 2]}, {"bbox": "abcd"}, {"area": "much"}):
        (own / "all.json").write_text(coco(two, evidence))
        refuse(own, "is no file of COCO", masks="all.json")


def test_the_other_xml_is_named_with_the_way_to_convert_it(own):
    for text, message in (
        ("<annotations><track/></annotations>", "it is CVAT for video; export it as CVAT"),
        ("<annotation><object/></annotation>", "it is 'annotation'; export it as CVAT for"),
        ("<a", r"is no \.xml of CVAT"),
        (cvat(names=("x/an_1", "y/an_1")), "holds several pictures called 'an_1'"),
        (cvat().replace('width="145"', 'width="' + "1" * 5000 + '"'), "is no .xml of CVAT"),
    ):
        (own / "all.xml").write_text(text)
        refuse(own, message, masks="all.xml")
    entities = '<!DOCTYPE a [<!ENTITY b "c">]>' + cvat().partition("?>")[2]
    for encoding in ("utf-8", "utf-16"):  # expat would read both
        (own / "all.xml").write_text(entities, encoding=encoding)
        refuse(own, r"is no \.xml of CVAT", masks="all.xml")


def test_names_with_dots_and_without_a_suffix_in_cvat(own):
    names = ("1.2.840.1", "1.2.840.2", "clip.left", "d")
    for stem, name in zip(STEMS, names, strict=True):
        (own / "frames" / f"{stem}.png").rename(own / "frames" / f"{name}.png")
    text = cvat(cvat_polygon("nerve"), names=names)
    for written in (text, text.replace(".png", ""), text.replace(".png", ".JPEG")):
        (own / "all.xml").write_text(written)
        assert extract(own, masks="all.xml") == [1600] * 4


def test_several_files_and_formats_that_are_not_read_are_listed(own):
    for name in ("a.png.json", "b.png.json"):
        (own / "labels" / name).write_text('{"objects": []}')
    refuse(
        own, r"holds a\.png\.json, b\.png\.json; masks are pictures .* labelme's .* CVAT"
    )
    (own / "labels" / "a.png.json").unlink()
    refuse(own, r"b\.png\.json is called as no frame and is no file of COCO")
    (own / "labels" / "b.png.json").unlink()
    paint(own, "task-1-an_1.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    refuse(own, "4 of 4 lack a mask of their name .*; masks are pictures .* are not read$")


# ---------------------------------------------------------------- names


def test_frames_without_outlines_show_no_nerve_where_that_is_asked_for(own, capsys):
    write(own, labelme(NERVE), stems=STEMS[:2])
    refuse(
        own, "2 of 4 lack a mask .*: cy_1, di_1; .*do they show no nerve. --missing-empty"
    )
    assert extract(own, "--missing-empty") == [1600, 1600, 0, 0]
    assert "2 of 4 lack a mask of their name" in capsys.readouterr().out
    (own / "all.xml").write_text(cvat(cvat_polygon("nerve"), names=STEMS[:3]))
    assert extract(own, "--missing-empty", masks="all.xml") == [1600, 1600, 1600, 0]
    (own / "labels" / "an_1.json").rename(own / "labels" / "other.json")
    refuse(own, "1 of 2 lack a frame of their name .*: other", "--missing-empty")
    write(own, labelme(NERVE), stems=())
    for path in (own / "labels").iterdir():
        path.rename(path.with_name(f"_{path.name}"))
    refuse(own, "labels holds _bo_1.json, _other.json; masks are", "--missing-empty")


@pytest.mark.parametrize("together", [False, True])
def test_several_masks_of_a_frame_are_joined(own, capsys, together):
    folder = "frames" if together else "labels"
    for stem in STEMS:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[20:40, 20:40] = True
        Image.fromarray(mask).save(own / folder / f"{stem}_mask.png")
    Image.fromarray(np.roll(mask, 50, axis=0)).save(own / folder / "di_1_mask_1.png")
    assert extract(own, masks=folder) == [400, 400, 400, 800]
    assert "1 frames have several masks, joined: di_1\n" in capsys.readouterr().out


def test_two_files_of_one_stem_are_refused(own):
    for name in ("an_1.png", "an_1.jpg", *(f"{stem}.png" for stem in STEMS[1:])):
        paint(own, name, np.full((HEIGHT, WIDTH), 255, np.uint8))
    refuse(own, r"labels holds several pictures called an_1$")
    (own / "labels" / "an_1.jpg").rename(own / "frames" / "an_1.jpg")
    refuse(own, r"frames holds several pictures called an_1$")


def test_of_outlines_beside_painted_masks_one_is_read_and_the_other_said(own, capsys):
    write(own, labelme(NERVE))
    for stem in STEMS[:2]:
        paint(own, f"{stem}_mask.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    assert extract(own) == [1600] * 4
    expected = f"note: of {own}/labels passed over: other files of an_1, bo_1\n"
    assert expected in capsys.readouterr().out


def test_names_in_two_unicode_forms_are_one(own):
    for stem, name in zip(STEMS, ("Böhm_1", "Böhm_2", "Müller_1", "Müller_2"), strict=True):
        path = own / "frames" / f"{stem}.png"
        path.rename(path.with_name(unicodedata.normalize("NFD", name) + ".png"))
        name = unicodedata.normalize("NFC", name)
        (own / "labels" / f"{name}.json").write_text(labelme(NERVE))
    assert extract(own, "--subject-pattern", "^(Böhm|Müller)_") == [1600] * 4
    record = json.loads((own / "data" / "extract.json").read_text())
    assert record["train"]["subject"] == [1, 1, 2, 2]


def test_folders_and_what_is_no_picture_are_passed_over_aloud(own, capsys):
    write(own, labelme(NERVE))
    (own / "frames" / "p2").mkdir()
    (own / "frames" / "clip.mp4").write_bytes(b"")
    extract(own)
    assert f"note: of {own}/frames passed over: clip.mp4, p2\n" in capsys.readouterr().out
    for path in (own / "frames").glob("*.png"):
        path.unlink()
    refuse(own, r"holds no picture .* but clip\.mp4, p2; folders are entered one deep")


def make_folders(own):
    """Put the frames into a folder for each subject; return their names without suffix."""
    names = [stem.replace("_", "/") for stem in STEMS]
    for stem, name in zip(STEMS, names, strict=True):
        path = own / "frames" / f"{name}.png"
        path.parent.mkdir()
        (own / "frames" / f"{stem}.png").rename(path)
    return names


@pytest.mark.parametrize("kind", ["pictures", "labelme", "cvat", "beside"])
def test_a_folder_for_each_subject(own, kind, capsys):
    names, masks = make_folders(own), "frames" if kind == "beside" else "labels"
    for name in names:
        path = own / masks / (f"{name}_mask.png" if kind == "beside" else f"{name}.png")
        path.parent.mkdir(exist_ok=True)
        if kind == "labelme":
            path.with_suffix(".json").write_text(labelme(NERVE))
        else:
            white = np.zeros((HEIGHT, WIDTH), np.uint8)
            white[20:60, 20:60] = 255
            Image.fromarray(white).save(path)
    if kind == "cvat":
        masks = "labels.xml"
        (own / masks).write_text(cvat(cvat_polygon("nerve"), names=names))
    assert extract(own, masks=masks) == [1600] * 4
    record = json.loads((own / "data" / "extract.json").read_text())
    assert record["train"]["name"] == [f"{name}.png" for name in names]
    assert list(record["subject_names"].values()) == ["an", "bo", "cy", "di"]
    assert record["subjects_known"]
    note = "note: each folder is taken for a subject: an, bo, cy, di\n"
    assert note in capsys.readouterr().out


def test_a_folder_belongs_to_the_name_in_the_pattern_and_the_table(own):
    names = make_folders(own)
    (own / "labels.xml").write_text(cvat(cvat_polygon("nerve"), names=names))
    rows = "".join(f"{name}.png,{name[0]}\n" for name in names)
    (own / "subjects.csv").write_text(f"name,subject\n{rows}")
    table = ["--subjects", str(own / "subjects.csv")]
    for flags in (table, ["--subject-pattern", "^(.)[a-z]/1"]):
        extract(own, *flags, masks="labels.xml")
        record = json.loads((own / "data" / "extract.json").read_text())
        assert list(record["subject_names"].values()) == ["a", "b", "c", "d"]


def test_a_folder_that_is_a_link_out_of_the_frames_is_refused(own):
    names = make_folders(own)
    (own / "frames" / "an").rename(own / "elsewhere")
    (own / "frames" / "an").symlink_to(own / "elsewhere")
    refuse(own, f"{names[0]}.png is a link out of .*frames; put the file itself there")


@pytest.mark.parametrize("folder", ["frames", "labels"])
def test_links_out_of_a_folder_are_refused(own, folder):
    write(own, labelme(NERVE))
    path = next((own / folder).iterdir())
    path.rename(own / path.name)
    path.symlink_to(own / path.name)
    refuse(own, f"{path.name} is a link out of .*{folder}; put the file itself there")


@pytest.mark.parametrize("flags", ["pattern", "table"])
def test_a_person_spelt_in_several_ways_is_one_subject(own, capsys, flags):
    names = ("Anna", "anna ", "ANNA", "ann")
    if flags == "pattern":
        for stem, name in zip(STEMS, names, strict=True):
            (own / "frames" / f"{stem}.png").rename(own / "frames" / f"{name}_{stem}.png")
            (own / "labels" / f"{name}_{stem}.json").write_text(labelme(NERVE))
        extract(own, "--subject-pattern", "^([^_]+)_")
    else:
        write(own, labelme(NERVE))
        rows = "".join(f"{s},{n}\n" for s, n in zip(STEMS, names, strict=True))
        (own / "s.csv").write_text(f"name,subject\n{rows}")
        extract(own, "--subjects", str(own / "s.csv"))
    record = json.loads((own / "data" / "extract.json").read_text())
    assert sorted(record["train"]["subject"]) == [1, 1, 1, 2]
    expected = (
        "1 subjects are spelt in several ways and joined: 'ANNA' = 'Anna' = 'anna '\n"
    )
    assert expected in capsys.readouterr().out


def test_what_makes_two_spellings_of_one_person():
    for one, other in (
        ("A", "a"),
        ("Ann  B", " ann b"),
        ("P07", "p7"),
        ("Böhm", unicodedata.normalize("NFD", "Böhm")),
        ("A1", "Ａ１"),  # full-width
        ("Ann\u00a0B", "Ann B"),  # a blank that does not break
        ("Ann\u200b", "Ann"),  # one of no width
        ("Ann-B.", "ann_b"),  # signs for blanks
    ):
        assert pairs.as_person(one) == pairs.as_person(other)
    for one, other in (
        ("P1", "P10"),
        ("ann", "anna"),
        ("P100", "P1"),
        ("0", "00a"),
        ("1.5", "15"),
    ):
        assert pairs.as_person(one) != pairs.as_person(other)


def test_a_table_that_gives_a_name_two_subjects_is_refused(own):
    write(own, labelme(NERVE))
    rows = "".join(f"{stem}.png,{stem[0]}\n" for stem in STEMS)
    path = own / "s.csv"
    for more, message in (
        ("an_1,B\n", r"line 6: an_1 has the subjects 'a' and 'B'"),
        ("x, \n", None),  # of no frame
        ("an_1,A \n", None),  # the same
        ("an_1.png,b\n", r"line 6: an_1\.png has the subjects 'a' and 'b'"),
    ):
        path.write_text(f"name,subject\n{rows}{more}")
        if message:
            refuse(own, message, "--subjects", str(path))
        else:
            assert extract(own, "--subjects", str(path)) == [1600] * 4
    path.write_text(f"name,subject,subject\n{rows}")
    refuse(own, r"s\.csv has 2 column 'subject'", "--subjects", str(path))
    path.write_text(f"name,subject\n{rows.replace('di_1.png,d', 'di_1.png, ')}")
    refuse(own, r"names no subject for di_1\.png", "--subjects", str(path))


def test_stems_of_names_in_files():
    for name, stem in (
        ("x/y/a.png", "a"),
        ("x\\a.JPG", "a"),
        ("a.1.2", "a.1.2"),
        ("a.b.tiff", "a.b"),
        ("12:30.png", "12:30"),
        ("clip.MP4", "clip"),
        ("apng", "apng"),
        (None, "None"),
    ):
        assert outlines.stem_of(name) == stem
