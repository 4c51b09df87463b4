"""Frames of people's own: any names, sizes and kinds of mask, into the same arrays."""

import csv
import json
import struct
import zlib

import cv2
import numpy as np
import pytest
from clips import write_dicom
from PIL import ExifTags, Image

import extract_data
import predict
import preprocess
import train
from nerve.frames import own_frames, pictures

HEIGHT, WIDTH = 48, 60
BOX = np.s_[10:30, 20:40]  # of the nerve


def frame(seed, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (height, width), np.uint8)
    image[BOX] += 100
    return image


def mask(value=255, height=HEIGHT, width=WIDTH):
    result = np.zeros((height, width), np.uint8)
    result[BOX] = value
    return result


@pytest.fixture
def own(tmp_path):
    """Folders images/ and masks/ of six frames a_1 to c_2, in several formats."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    suffixes = iter([".png", ".jpg", ".bmp", ".tif", ".png", ".PNG"])
    for seed, stem in enumerate(("a_1", "a_2", "b_1", "b_2", "c_1", "c_2")):
        Image.fromarray(frame(seed)).save(tmp_path / "images" / (stem + next(suffixes)))
        Image.fromarray(mask()).save(tmp_path / "masks" / f"{stem}.png")
    return tmp_path


def extract(own, *flags, masks="masks"):
    folders = ["--images", str(own / "images"), "--masks", str(own / masks)]
    extract_data.main([*folders, "--data", str(own / "data"), *flags])
    record = json.loads((own / "data" / "extract.json").read_text())
    arrays = [
        np.load(own / "data" / f"imgs{part}.npy") for part in ("_train", "_mask_train")
    ]
    return record, *arrays


def test_pairs_are_found_by_stem_and_their_pixels_kept(own):
    record, frames, masks = extract(own)
    assert frames.shape == masks.shape == (6, HEIGHT, WIDTH)
    assert record["train"]["name"][:3] == ["a_1.png", "a_2.jpg", "b_1.bmp"]
    np.testing.assert_array_equal(frames[0], frame(0))
    np.testing.assert_array_equal(frames[3], frame(3))
    for found in masks:
        np.testing.assert_array_equal(found, mask())
    assert record["train"]["area"] == [400] * 6
    assert not record["subjects_known"]


def test_subjects_by_pattern_and_by_table(own, capsys):
    record, *_ = extract(own, "--subject-pattern", r"^([a-z])_")
    assert record["train"]["subject"] == [1, 1, 2, 2, 3, 3]
    assert record["subject_names"] == {"1": "a", "2": "b", "3": "c"}
    with open(own / "subjects.csv", "w", newline="") as file:
        rows = [
            ("name", "subject"),
            *((f"{s}_{k}", "xyz"[k]) for s in "abc" for k in (1, 2)),
        ]
        csv.writer(file).writerows(rows)
    record, *_ = extract(own, "--subjects", str(own / "subjects.csv"))
    assert record["train"]["name"][:3] == ["a_1.png", "b_1.bmp", "c_1.png"]
    assert record["train"]["subject"] == [1, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match=r"'\^z' finds none in a_1\.png"):
        extract(own, "--subject-pattern", "^z")
    with pytest.raises(ValueError, match=r"finds none in b_1\.bmp"):
        extract(own, "--subject-pattern", "^(a)?")
    with pytest.raises(ValueError, match="--subject-pattern '\\('"):
        extract(own, "--subject-pattern", "(")
    (own / "subjects.csv").write_text("name,subject\na_1,x\n")
    with pytest.raises(ValueError, match=r"names no subject for a_2\.jpg"):
        extract(own, "--subjects", str(own / "subjects.csv"))
    (own / "subjects.csv").write_text("name,subject\na_1,x\na_2\n")
    with pytest.raises(ValueError, match=r"subjects\.csv line 3: expected 2 fields"):
        extract(own, "--subjects", str(own / "subjects.csv"))


def test_a_split_without_subjects_says_so(own, capsys):
    extract(own)
    preprocess.main(["--data", str(own / "data"), "--height", "16", "--width", "16"])
    text = capsys.readouterr().out
    assert "no subjects are named" in text
    assert "leaky split" in text
    record = json.loads((own / "data" / "preprocess.json").read_text())
    assert record["leaky"]


def test_one_class_of_a_palette_picture(own):
    values = mask(1)
    values[0:5, 0:5] = 2  # a vessel
    picture = Image.fromarray(values, "P")
    picture.putpalette([0, 0, 0, 9, 200, 9, 250, 0, 0])
    picture.save(own / "masks" / "a_1.png")
    with pytest.raises(ValueError, match=r"a_1\.png holds the values 0, #09c809, #fa0000;"):
        extract(own)
    for stem in ("a_2", "b_1", "b_2", "c_1", "c_2"):
        picture.save(own / "masks" / f"{stem}.png")
    _, _, masks = extract(own, "--label", "1")
    np.testing.assert_array_equal(masks[0], mask())
    _, _, masks = extract(own, "--label", "2")
    assert masks[0].sum() == 25 * 255
    _, _, masks = extract(own, "--label", "#fa0000")
    assert masks[0].sum() == 25 * 255
    with pytest.raises(ValueError, match="--label nerve; expected a number"):
        extract(own, "--label", "nerve")


@pytest.mark.parametrize("kind", ["binary", "colour", "jpeg", "of 0 and 1"])
def test_masks_drawn_in_other_ways(own, kind):
    path, image = own / "masks" / "a_1.png", Image.fromarray(mask())
    if kind == "binary":
        image = image.convert("1")
    elif kind == "colour":
        image = Image.fromarray(np.stack([mask(), mask(0), mask(0)], axis=-1))
        for other in (own / "masks").iterdir():
            image.save(other)
    elif kind == "jpeg":
        path.unlink()
        path = path.with_suffix(".jpg")
    else:
        image = Image.fromarray(mask(1))
    image.save(path)
    _, _, masks = extract(own)
    assert (masks[0] != mask()).sum() <= (40 if kind == "jpeg" else 0)


def test_outlines_of_labelme(own):
    corners = [[20, 10], [40, 10], [40, 30], [20, 30]]
    (own / "json").mkdir()
    for stem in ("a_1", "a_2", "b_1", "b_2", "c_1", "c_2"):
        shapes = [
            {"label": "nerve", "points": corners, "shape_type": "polygon"},
            {
                "label": "artery",
                "points": [[1, 1], [5, 1], [5, 5]],
                "shape_type": "polygon",
            },
        ]
        record = {"shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        (own / "json" / f"{stem}.json").write_text(json.dumps(record))
    _, _, masks = extract(own, "--label", "nerve", masks="json")
    np.testing.assert_array_equal(masks[0], mask())
    with pytest.raises(ValueError, match="holds the labels 'artery', 'nerve'; say which"):
        extract(own, masks="json")
    (own / "json" / "a_1.json").write_text("[" * 10_000)
    with pytest.raises(ValueError, match=r"a_1\.json is no file of labelme"):
        extract(own, masks="json")


def cvat(names, points="20,10;40,10;40,30;20,30"):
    images = "".join(
        f'<image name="x/{name}.png" width="{WIDTH}" height="{HEIGHT}">'
        f'<polygon label="nerve" points="{points}"/>'
        '<polygon label="artery" points="1,1;5,1;5,5"/></image>'
        for name in names
    )
    return f'<?xml version="1.0"?><annotations>{images}</annotations>'


def test_outlines_of_cvat(own):
    names = ("a_1", "a_2", "b_1", "b_2", "c_1", "c_2")
    (own / "all.xml").write_text(cvat(names))
    _, _, masks = extract(own, "--label", "nerve", masks="all.xml")
    np.testing.assert_array_equal(masks[0], mask())
    for text, message in (
        (cvat(names[1:]), r"1 of 6 lack a mask of their name in .*all\.xml: a_1"),
        (cvat(names, "1,2;x"), r"all\.xml, 'x/a_1\.png', cannot be drawn"),
        ("<a", r"is no \.xml of CVAT"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + cvat(names), "defines entities"),
        (cvat(names, "1e300,2;3,4"), "an outline outside the frame"),
    ):
        (own / "all.xml").write_text(text)
        with pytest.raises(ValueError, match=message):
            extract(own, "--label", "nerve", masks="all.xml")


def test_stills_of_dicom_are_frames_and_a_loop_is_named(own, capsys):
    for path in sorted((own / "images").iterdir()):
        with Image.open(path) as image:
            pixels = np.asarray(image)[np.newaxis]
        path.unlink()
        # also without a suffix, and with points in its name
        name = {"a_1": "1.2.840.1", "a_2": "1.2.840.2"}.get(path.stem, f"{path.stem}.dcm")
        write_dicom(path.with_name(name), pixels, PhotometricInterpretation="MONOCHROME1")
        (own / "masks" / f"{path.stem}.png").rename(
            own / "masks" / f"{name.removesuffix('.dcm')}.png"
        )
    record, frames, masks = extract(own, "--crop")
    assert record["train"]["name"][:3] == ["1.2.840.1", "1.2.840.2", "b_1.dcm"]
    assert record["train"]["size"] == [[HEIGHT, WIDTH]] * 6
    np.testing.assert_array_equal(frames[0], 255 - frame(0))
    np.testing.assert_array_equal(masks[0], mask())

    loop = np.stack([frame(0), frame(1)])
    write_dicom(own / "images" / "c_2.dcm", loop, NumberOfFrames=3)
    with pytest.raises(ValueError, match=r"c_2\.dcm holds several frames; write each as"):
        extract(own)
    write_dicom(own / "images" / "c_1.dcm", loop[:1], NumberOfFrames=3)
    record, *_ = extract(own, "--skip-bad")
    assert [each["frame"] for each in record["train"]["skipped"]] == ["c_2.dcm"]
    said = capsys.readouterr().out
    assert f"note: {own / 'images' / 'c_1.dcm'} should hold 3 frames, of which 1" in said


def test_half_of_a_pair_is_named(own):
    (own / "masks" / "b_1.png").unlink()
    with pytest.raises(ValueError, match="1 of 6 lack a mask of their name in .*: b_1"):
        extract(own)
    (own / "images" / "b_1.bmp").unlink()
    (own / "images" / "c_2.PNG").unlink()
    with pytest.raises(ValueError, match="1 of 5 lack a frame of their name in .*: c_2"):
        extract(own)


def test_a_bad_frame_is_named_and_left_out_where_asked(own):
    (own / "images" / "a_1.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"a_1\.png is not a whole picture"):
        extract(own)
    Image.fromarray(frame(0)).save(own / "images" / "a_1.png")
    Image.fromarray(mask(255, 20, 20)[:20, :20]).save(own / "masks" / "a_1.png")
    with pytest.raises(ValueError, match=r"a_1\.png is of 20 x 20 pixels, a_1\.png of 48"):
        extract(own)
    record, frames, _ = extract(own, "--skip-bad")
    assert len(frames) == 5
    (entry,) = record["train"]["skipped"]
    assert entry["frame"] == "a_1.png"
    assert str(own) not in entry["why"]


def test_frames_of_another_size_are_letterboxed(own):
    wide = frame(9, HEIGHT, 2 * WIDTH)
    Image.fromarray(wide).save(own / "images" / "a_1.png")
    Image.fromarray(mask(255, HEIGHT, 2 * WIDTH)).save(own / "masks" / "a_1.png")
    record, frames, masks = extract(own)
    assert record["train"]["size"][0] == [HEIGHT, 2 * WIDTH]
    assert frames.shape[1:] == (HEIGHT, WIDTH)
    assert not frames[0, :12].any()  # half as high, in the middle
    assert not frames[0, 36:].any()
    assert frames[0, 12:36].any(axis=0).all()
    # 20 x 20 pixels from row 10 and column 20, halved and moved down by 12
    rows, columns = np.nonzero(masks[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 26, 10, 19)


def test_what_never_changes_is_cut(own):
    for number, path in enumerate(sorted((own / "images").iterdir())):
        image = np.zeros((HEIGHT + 20, WIDTH + 16), np.uint8)
        image[4 : 4 + HEIGHT, 6 : 6 + WIDTH] = frame(number) + 1
        image[HEIGHT + 10 : HEIGHT + 16, 3:20] = 200  # burned-in text
        path.unlink()
        Image.fromarray(image).save(path.with_suffix(".png"))
        large = np.zeros_like(image)
        large[4 : 4 + HEIGHT, 6 : 6 + WIDTH] = mask()
        Image.fromarray(large).save(own / "masks" / f"{path.stem}.png")
    record, frames, masks = extract(own, "--crop")
    assert record["crops"] == {f"{HEIGHT + 20}x{WIDTH + 16}": [4, 6, HEIGHT, WIDTH]}
    np.testing.assert_array_equal(frames[2], frame(2) + 1)
    np.testing.assert_array_equal(masks[2], mask())


def test_a_crop_takes_in_all_masks(own):
    # frames of 48 x 60, of which rows 4 to 23 and columns 6 to 25 change; the nerve lies in
    # rows 10 to 29 and columns 20 to 39, and in one mask also in row 47
    for number, path in enumerate(sorted((own / "images").iterdir())):
        image = np.full((HEIGHT, WIDTH), 50, np.uint8)
        image[4:24, 6:26] = frame(number)[:20, :20]
        path.unlink()
        Image.fromarray(image).save(path.with_suffix(".png"))
    large = mask()
    large[47, 30] = 255
    Image.fromarray(large).save(own / "masks" / "b_2.png")
    record, _, masks = extract(own, "--crop")
    assert record["crops"] == {f"{HEIGHT}x{WIDTH}": [4, 6, 44, 34]}
    assert record["train"]["area"] == [400, 400, 400, 401, 400, 400]
    np.testing.assert_array_equal(masks[3], large[4:48, 6:40])


def test_a_mask_that_letterboxing_empties_is_named(own, capsys):
    Image.fromarray(frame(9, HEIGHT, 8 * WIDTH)).save(own / "images" / "a_1.png")
    thin = mask(0, HEIGHT, 8 * WIDTH)
    thin[20:23, 100:200] = 255  # of 3 rows, an eighth of which is no half of one
    Image.fromarray(thin).save(own / "masks" / "a_1.png")
    record, *_ = extract(own)
    assert record["train"]["area"][0] == 0
    text = "1 frames have masks that lost more than half of their area by letterboxing: a_1"
    assert text in capsys.readouterr().out


def test_own_frames_are_predicted_at_their_own_size(own):
    for path in (own / "images").iterdir():  # one of another size, all with text to cut
        image = np.array(Image.open(path))
        image = np.pad(image, ((0, 12), (0, 0)), constant_values=77)
        path.unlink()
        Image.fromarray(image).save(path.with_suffix(".png"))
        large = np.pad(mask(), ((0, 12), (0, 0)))
        Image.fromarray(large).save(own / "masks" / f"{path.stem}.png")
    extract(own, "--crop", "--subject-pattern", "^(.)")
    data, weights = str(own / "data"), str(own / "weights" / "unet.h5")
    preprocess.main(["--data", data, "--height", "32", "--width", "32"])
    flags = ["--filters", "4", "--depth", "2", "--batch-size", "4", "--epochs", "30"]
    train.main(["--data", data, "--out", weights, "--learning-rate", "0.01", *flags])
    record = own / "weights" / "unet.json"
    settings = json.loads(record.read_text())
    # of the 48 x 60 pixels left, not of the 60 x 60 of a file
    assert settings["smallest_area"] == pytest.approx(400 / (HEIGHT * WIDTH))
    settings["smallest_area"] *= 0.81  # a mask may come out a little smaller
    record.write_text(json.dumps(settings))
    Image.fromarray(frame(3, 96, 60)).save(own / "images" / "tall.png")
    flags = ["--input", str(own / "images"), "--weights", weights]
    predict.main([*flags, "--out", str(own / "out")])
    masks = {p.stem: cv2.imread(str(p), 0) for p in (own / "out" / "masks").iterdir()}
    assert masks["a_1"].shape == (HEIGHT + 12, WIDTH)
    assert masks["tall"].shape == (96, 60)
    assert not masks["a_1"][HEIGHT:].any()  # what was cut is never nerve
    overlap = (masks["a_1"][:HEIGHT] > 0) & (mask() > 0)
    assert 2 * overlap.sum() / ((masks["a_1"] > 0).sum() + 400) > 0.7


def test_flags_that_do_not_fit_are_one_line(own, capsys):
    for flags, message in (
        (["--images", "a"], "--images and --masks go together"),
        (
            [
                "--images",
                "a",
                "--masks",
                "b",
                "--subjects",
                "c",
                "--subject-pattern",
                "d",
            ],
            "not both",
        ),
    ):
        with pytest.raises(SystemExit):
            extract_data.main(flags)
        assert message in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="none is missing; expected masks"):
        extract(own, masks="none")


def test_alpha_is_no_colour_and_of_several_colours_one_is_chosen(own):
    opaque = np.full((HEIGHT, WIDTH), 255, np.uint8)
    path = own / "masks" / "a_1.png"
    for channels, mode in (
        ((mask(), opaque), "LA"),
        ((mask(), mask(), mask(), opaque), "RGBA"),
    ):
        Image.fromarray(np.stack(channels, axis=-1), mode).save(path)
        _, _, masks = extract(own)
        np.testing.assert_array_equal(masks[0], mask())
    Image.fromarray(np.stack([opaque, opaque, opaque, mask()], axis=-1)).save(path)
    with pytest.raises(ValueError, match=r"a_1\.png is drawn in transparency; save it as"):
        extract(own)
    vessel = np.zeros((HEIGHT, WIDTH), np.uint8)
    vessel[:5, :5] = 255
    Image.fromarray(np.stack([mask(), vessel, mask(0)], axis=-1)).save(path)
    with pytest.raises(ValueError, match=r"a_1\.png holds the values 0, #00ff00, #ff0000;"):
        extract(own)
    _, _, masks = extract(own, "--label", "#ff0000")
    np.testing.assert_array_equal(masks[0], mask())
    classes = mask(1) + vessel // 255 * 2  # in greys, saved as colour
    Image.fromarray(np.repeat(classes[..., None], 3, axis=2)).save(path)
    for stem in ("a_2", "b_1", "b_2", "c_1", "c_2"):
        Image.fromarray(mask(1)).save(own / "masks" / f"{stem}.png")
    _, _, masks = extract(own, "--label", "1")
    np.testing.assert_array_equal(masks[0], mask())
    path.unlink()
    Image.fromarray(mask(1)).save(path.with_suffix(".jpg"))
    with pytest.raises(ValueError, match=r"a_1\.jpg is a JPEG, which changes"):
        extract(own, "--label", "1")


def test_two_pictures_of_one_name_in_cvat_are_refused(own):
    names = ("a_1", "a_2", "b_1", "b_2", "c_1", "c_2")
    (own / "all.xml").write_text(cvat(names).replace("x/a_2", "y/a_1"))
    with pytest.raises(ValueError, match="holds several pictures called 'a_1'"):
        extract(own, masks="all.xml")


def test_hidden_files_are_no_frames(own):
    for folder in ("images", "masks"):  # as macOS leaves them
        (own / folder / "._a_1.png").write_bytes(b"\0\5\x16\7")
    (own / "masks" / "._all.xml").write_bytes(b"\0\5\x16\7")
    _, frames, _ = extract(own)
    assert len(frames) == 6


@pytest.mark.parametrize("flags", [[], ["--crop"]])
@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_damaged_frame_is_left_out_before_sizes_and_borders_are_found(own, damage, flags):
    path = own / "images" / "c_1.png"
    path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"c_1\.png is not a whole picture"):
        extract(own, *flags)
    record, frames, _ = extract(own, *flags, "--skip-bad")
    assert len(frames) == 5
    assert [entry["frame"] for entry in record["train"]["skipped"]] == ["c_1.png"]


def test_no_readable_frame_at_all(own):
    for path in (own / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a_1\.png is not a whole picture"):
        extract(own, "--skip-bad")


def test_masks_named_as_the_challenges_also_beside_their_frames(own):
    for path in sorted((own / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    _, frames, masks = extract(own)
    assert len(frames) == 6
    for path in (own / "masks").iterdir():
        path.rename(own / "images" / path.name)
    _, again, _ = extract(own, masks="images")
    np.testing.assert_array_equal(again, frames)


def test_what_is_no_nerve_is_doubted(own, capsys):
    for path in (own / "masks").iterdir():
        Image.fromarray(255 - mask()).save(path)
    extract(own)
    text = "6 frames have masks that cover more than half of them (inverted?): a_1.png, a_2"
    assert text in capsys.readouterr().out
    for stem in ("a_1", "a_2", "b_1", "b_2"):
        Image.fromarray(mask()).save(own / "masks" / f"{stem}.png")
    extract(own)
    text = "2 frames have masks that cover more than half of them (inverted?): c_1.png, c_2"
    assert text in capsys.readouterr().out
    extract(own, "--label", "3")
    text = capsys.readouterr().out
    assert "warning: no mask shows a nerve" in text
    assert "replacing another extraction" not in text  # of the same frames
    for stem in ("a_1", "c_1"):  # blank ones, of which one has no mask to doubt
        Image.fromarray(mask() * 0).save(own / "images" / f"{stem}.png")
    Image.fromarray(mask() * 0).save(own / "masks" / "c_1.png")
    extract(own)
    text = "1 frames have masks though they are of one grey: a_1.png\n"
    assert text in capsys.readouterr().out


def test_classes_that_differ_from_mask_to_mask_are_refused(own):
    Image.fromarray(mask(2)).save(own / "masks" / "b_1.png")
    with pytest.raises(ValueError, match=r"b_1\.png holds the values 0, 2; say which"):
        extract(own)
    soft = cv2.GaussianBlur(mask(), (15, 15), 5)
    Image.fromarray(soft).save(own / "masks" / "b_1.png")
    with pytest.raises(ValueError, match=r"b_1\.png holds \d+ greys: no mask, or one with"):
        extract(own)
    photograph = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(photograph).save(own / "masks" / "a_1.png")
    with pytest.raises(ValueError, match=r"a_1\.png holds 2880 greys: no mask, or one"):
        extract(own, "--label", "255")


def test_another_extraction_is_not_replaced_in_silence(own, capsys):
    extract(own)
    (own / "images" / "c_2.PNG").unlink()
    (own / "masks" / "c_2.png").unlink()
    extract(own)
    text = capsys.readouterr().out
    assert "note: replacing another extraction, of 6 training frames" in text


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),  # EXIF: to be turned clockwise
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_lie_as_viewers_show_them(tmp_path, orientation):
    stored, drawn = frame(0), mask(1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    kinds = [("a.png", {}), ("b.jpg", {"quality": 100}), ("c.tif", {})]
    for name, flags in (*kinds, ("d.tif", {"compression": "tiff_lzw"})):
        Image.fromarray(stored).save(tmp_path / name, exif=exif, **flags)
        found, expected = pictures.read_picture(tmp_path / name), TURNED[orientation]
        assert np.abs(found.astype(int) - expected(stored)).max() <= 3, name
        assert own_frames.find_size(tmp_path / name) == found.shape
        if orientation < 5 and name != "c.tif":  # some OpenCV cannot read those on a side
            np.testing.assert_allclose(cv2.imread(str(tmp_path / name), 0), found, atol=3)
    palette = Image.fromarray(drawn, "P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(
        pictures.read_mask(tmp_path / "mask.png", None)[0],
        TURNED[orientation](drawn) * 255,
    )


def test_an_orientation_behind_the_pixels_counts_and_a_broken_one_does_not(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(frame(0)).save(tmp_path / "late.png")
    content = (tmp_path / "late.png").read_bytes()
    chunk = b"eXIf" + exif.tobytes()[6:]  # without "Exif\0\0"
    length = (len(chunk) - 4).to_bytes(4, "big")
    chunk = length + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "late.png").write_bytes(content[:-12] + chunk + content[-12:])
    assert pictures.read_picture(tmp_path / "late.png").shape == (WIDTH, HEIGHT)
    assert own_frames.find_size(tmp_path / "late.png") == (WIDTH, HEIGHT)
    for broken in (b"Exif\0\0nothing", exif.tobytes()[:20]):
        Image.fromarray(frame(0)).save(tmp_path / "broken.jpg", exif=broken)
        assert pictures.read_picture(tmp_path / "broken.jpg").shape == (HEIGHT, WIDTH)
        assert own_frames.find_size(tmp_path / "broken.jpg") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("colour", [0, 255])
def test_a_frame_drawn_in_transparency_is_refused(tmp_path, colour):
    path, grey = tmp_path / "a.png", mask() // 3
    flat = np.full_like(grey, colour)
    for channels in ((flat, grey), (flat, flat, flat, grey)):
        Image.fromarray(np.stack(channels, axis=-1)).save(path)
        with pytest.raises(
            ValueError, match=r"a\.png is drawn in transparency; save it in"
        ):
            pictures.read_picture(path)
    Image.fromarray(np.stack([grey, flat], axis=-1)).save(path)  # as good as opaque
    np.testing.assert_array_equal(pictures.read_picture(path), grey)


def test_several_pages_and_more_than_8_bits_are_refused(tmp_path):
    pages = [Image.fromarray(frame(seed)) for seed in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"stack\.tif holds several pages; save each"):
        pictures.read_picture(tmp_path / "stack.tif")
    deep = np.stack([frame(0)] * 3, axis=-1).astype(np.uint16) * 256
    for name in ("deep.png", "deep.tif"):
        cv2.imwrite(str(tmp_path / name), deep)
        for read in (pictures.read_picture, lambda path: pictures.read_mask(path, "1")):
            with pytest.raises(ValueError, match=f"{name} has more than 8 bits"):
                read(tmp_path / name)
    for name in ("flat.png", "flat.tif"):  # and 8 bits are not
        cv2.imwrite(str(tmp_path / name), (deep >> 8).astype(np.uint8))
        np.testing.assert_array_equal(pictures.read_picture(tmp_path / name), frame(0))


def test_a_flipped_bit_of_a_png_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(frame(0)).save(path)
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 97):  # bits of the header, the pixels, the end
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"a\.png (is not a whole|claims to be|has more)"
        ):
            pictures.read_picture(path)


def save_few_bits(path, values, bits=4):
    """Write a grey PNG of 2 or 4 bits, which Pillow reads but does not write."""

    def chunk(kind, content):
        size, check = len(content), zlib.crc32(kind + content)
        return size.to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")

    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    places = np.arange(8 // bits)[::-1] * bits
    packed = (values.reshape(height, -1, 8 // bits).astype(int) << places).sum(axis=2)
    rows = np.pad(packed.astype(np.uint8), ((0, 0), (1, 0)))  # each with its filter, none
    content = zlib.compress(rows.tobytes())
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_numbers_of_classes_in_other_depths(tmp_path):
    classes = mask(1)
    classes[0:5, 0:5] = 2
    cv2.imwrite(str(tmp_path / "16.png"), classes.astype(np.uint16))
    cv2.imwrite(str(tmp_path / "16.tif"), classes.astype(np.uint16))
    Image.fromarray(classes.astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(classes.astype(np.int32)).save(tmp_path / "32.tif")
    for bits in (2, 4):
        save_few_bits(tmp_path / f"{bits}.png", classes, bits)
    for path in tmp_path.iterdir():
        found, labels = pictures.read_mask(path, "1")
        np.testing.assert_array_equal(found, mask())
        assert labels == {1, 2}, path
        with pytest.raises(ValueError, match=f"{path.name} holds the values 0, 1, 2; say"):
            pictures.read_mask(path, None)
    for name, white, kind in (("a.png", 65535, np.uint16), ("b.tif", 1, np.float32)):
        Image.fromarray(mask(1).astype(kind) * kind(white)).save(tmp_path / name)
        found, labels = pictures.read_mask(tmp_path / name, None)
        np.testing.assert_array_equal(found, mask())
        assert labels == {white}
    save_few_bits(tmp_path / "white.png", mask(15))
    assert pictures.read_mask(tmp_path / "white.png", None)[1] == {15}
    for value in (0.5, np.nan, np.inf, -1, 1e30):
        values = np.where(mask() > 0, np.float32(value), np.float32(0))
        Image.fromarray(values).save(tmp_path / "odd.tif")
        with pytest.raises(ValueError, match=r"odd\.tif holds numbers that are no classes"):
            pictures.read_mask(tmp_path / "odd.tif", None)
    with pytest.raises(
        ValueError, match=r"16\.png has more than 8 bits .*as on the screen"
    ):
        pictures.read_picture(tmp_path / "16.png")
