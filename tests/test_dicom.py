"""DICOM files whose headers say what their pixels are not, and those that are cut."""

import io
import os
import tempfile
from pathlib import Path

import cv2
import highdicom
import numpy as np
import pydicom
import pytest
from clips import HEIGHT, WIDTH, encode, sweep, write_compressed, write_dicom, write_video
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_encoder

from nerve.frames import sources
from nerve.frames.spacing import spacing_at
from nerve.prediction import dicom_seg

COLOURS = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
JPEG = pydicom.uid.JPEGBaseline8Bit


def read(path):
    """Return the frames of a file, and its notes in one text."""
    source = sources.open_source(path)
    frames = np.stack(list(source.frames))
    return frames, "\n".join(source.notes)


def refusal(path):
    """Return why a file is not read."""
    with pytest.raises(ValueError, match=path.name) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_markers(content):
    """Return a JPEG of Pillow's without JFIF, which says that it is YCbCr."""
    assert content[2:4] == b"\xff\xe0"
    return content[:2] + content[4 + int.from_bytes(content[4:6]) :]


def as_colours(frames, kind):
    """Return grey frames as RGB or YCbCr, `(count, height, width, 3)`; a corner is red."""
    rgb = np.repeat(frames[..., np.newaxis], 3, axis=-1)
    rgb[:, :5, :5] = 200, 30, 30
    if kind == "RGB":
        return rgb
    return np.stack([np.asarray(Image.fromarray(f).convert("YCbCr")) for f in rgb])


def grey_of(frames):
    return np.stack(
        [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in as_colours(frames, "RGB")]
    )


@pytest.mark.parametrize("says", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("holds", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("count", [1, 2])
def test_colours_are_those_of_the_pixels_not_of_the_header(tmp_path, says, holds, count):
    frames, _ = sweep(count)
    path = tmp_path / "a.dcm"
    write_dicom(path, as_colours(frames, holds), PhotometricInterpretation=says, **COLOURS)
    found, notes = read(path)
    assert np.abs(found.astype(int) - grey_of(frames)).max() <= 1
    contradiction = holds not in says or (says == "YBR_FULL_422" and holds == "RGB")
    assert (f"its header says {says}, its pixels are {holds}" in notes) == contradiction


@pytest.mark.parametrize("says", [0, 1])
@pytest.mark.parametrize("holds", [0, 1])
def test_the_order_of_colours_is_that_of_the_pixels(tmp_path, says, holds):
    frames, _ = sweep(2)
    samples = as_colours(frames, "RGB")
    if holds:
        samples = np.ascontiguousarray(np.moveaxis(samples, -1, 1))
    more = {"Rows": HEIGHT, "Columns": WIDTH, "SamplesPerPixel": 3}
    more |= {"PlanarConfiguration": says, "PhotometricInterpretation": "RGB"}
    write_dicom(tmp_path / "a.dcm", samples, **more)
    found, notes = read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(found, grey_of(frames))
    assert ("in the other Planar Configuration" in notes) == (says != holds)


def test_a_picture_in_true_colours_is_read_as_its_header_says(tmp_path):
    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 4)
    frame = cv2.normalize(frame, None, 0, 255, cv2.NORM_MINMAX)
    more = {"PhotometricInterpretation": "RGB", **COLOURS}
    write_dicom(tmp_path / "a.dcm", frame[np.newaxis], **more)
    found, notes = read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(found[0], cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
    assert not notes


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("says", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("planes", [0, 1])  # of JPEG it means nothing
def test_a_jpeg_without_markers_is_read_by_its_pixels(tmp_path, subsampling, says, planes):
    frames, _ = sweep(1)
    buffer = io.BytesIO()
    picture = Image.fromarray(as_colours(frames, "RGB")[0])
    picture.save(buffer, "JPEG", quality=95, subsampling=subsampling)
    more = {"PhotometricInterpretation": says, **COLOURS, "PlanarConfiguration": planes}
    part = without_markers(buffer.getvalue())
    write_compressed(tmp_path / "a.dcm", [part], frames, **more)
    found, notes = read(tmp_path / "a.dcm")
    assert np.abs(found[0, 8:].astype(int) - frames[0, 8:]).max() <= 20  # JPEG's loss
    assert abs(found.mean() - grey_of(frames).mean()) < 0.5
    # where chroma alone is stored with fewer pixels, the JPEG itself says what it is
    assert ("its pixels are YBR_FULL" in notes) == (says == "RGB" and not subsampling)


def test_a_jpeg_of_rgb_whose_header_says_ycbcr(tmp_path):
    frames, _ = sweep(1)
    buffer = io.BytesIO()
    picture = Image.fromarray(as_colours(frames, "RGB")[0])
    picture.save(buffer, "JPEG", quality=95, keep_rgb=True)
    more = {"PhotometricInterpretation": "YBR_FULL_422", **COLOURS}
    write_compressed(tmp_path / "a.dcm", [buffer.getvalue()], frames, **more)
    assert abs(read(tmp_path / "a.dcm")[0].mean() - grey_of(frames).mean()) < 0.5


@pytest.mark.parametrize("says", ["RGB", "YBR_FULL"])
def test_a_jpeg_of_rgb_without_any_sign_of_it(tmp_path, says):
    frames, _ = sweep(1)
    bands = [
        Image.fromarray(band) for band in np.moveaxis(as_colours(frames, "RGB")[0], -1, 0)
    ]
    buffer = io.BytesIO()
    Image.merge("YCbCr", bands).save(buffer, "JPEG", quality=95, subsampling=0)
    for part in (buffer.getvalue(), without_markers(buffer.getvalue())):
        more = {"PhotometricInterpretation": says, **COLOURS}
        write_compressed(tmp_path / "a.dcm", [part], frames, **more)
        found, notes = read(tmp_path / "a.dcm")
        assert abs(found.mean() - grey_of(frames).mean()) < 0.5
        assert ("its pixels are RGB" in notes) == (says != "RGB")


@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_more_bits(tmp_path, bits):
    frames, _ = sweep(2)
    deep = np.rint(as_colours(frames, "RGB") * ((2**bits - 1) / 255)).astype(np.uint16)
    more = {"PhotometricInterpretation": "RGB", "BitsStored": bits, "HighBit": bits - 1}
    write_dicom(tmp_path / "a.dcm", deep, **more, **COLOURS)
    found, _ = read(tmp_path / "a.dcm")
    assert np.abs(found.astype(int) - grey_of(frames)).max() <= 1


def test_colours_of_fewer_bits_than_stated(tmp_path):
    frames, _ = sweep(2)
    deep = np.rint(as_colours(frames, "RGB") * (4095 / 255)).astype(np.uint16)
    write_dicom(tmp_path / "a.dcm", deep, PhotometricInterpretation="RGB", **COLOURS)
    found, notes = read(tmp_path / "a.dcm")
    assert np.abs(found.astype(int) - grey_of(frames)).max() <= 1
    assert "samples said to be of 16 bits are of 12" in notes


@pytest.mark.parametrize("stored", [8, 16])
def test_8_bits_in_words_are_not_stretched(tmp_path, stored):
    frames = sweep(2)[0] // 2  # no frame reaches white
    more = {"BitsStored": stored, "HighBit": stored - 1}
    write_dicom(tmp_path / "a.dcm", frames.astype(np.uint16), **more)
    np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], frames)


def test_frames_of_a_loop_are_shown_alike(tmp_path):
    frames = np.full((2, HEIGHT, WIDTH), 1000, np.uint16)
    frames[0, 0], frames[1, 0] = 2000, 3000
    write_dicom(tmp_path / "a.dcm", frames)
    found, _ = read(tmp_path / "a.dcm")
    assert found[0, 0, 0] == 128  # 1000 of 2000, not white
    assert found[1, 0, 0] == 255
    assert not found[:, 1:].any()


def smooth(count, share=1.0):
    """Return frames as of `sweep` without noise, up to that share of white."""
    frames = [cv2.GaussianBlur(frame, (0, 0), 1) for frame in sweep(count)[0]]
    return np.rint(np.stack(frames) * (255 * share / np.max(frames))).astype(np.uint8)


@pytest.mark.parametrize("share", [0.4, 0.55, 1.0])  # of 0.4 no bit is that of a sign
@pytest.mark.parametrize("how", ["8 bits", "12 bits", "JPEG"])
def test_signs_that_are_none_are_told_by_the_pixels(tmp_path, share, how):
    frames, path = smooth(2, share), tmp_path / "a.dcm"
    signed, expected, near = {"PixelRepresentation": 1}, frames, 0
    if how == "JPEG":
        near = 10
        write_compressed(path, [encode(f, how) for f in frames], frames, JPEG, **signed)
    elif how == "12 bits":
        more = {"BitsStored": 12, "HighBit": 11}
        write_dicom(path, frames.astype(np.uint16) * 16, **more, **signed)
        expected = (frames - float(frames.min())) / np.ptp(frames) * 255
    else:
        write_dicom(path, frames, **signed)
    found, notes = read(path)
    assert np.abs(found - expected.astype(float)).max() <= near + 1
    assert ("pixels are signed; they are not" in notes) == (share > 0.5)


def test_greys_that_are_signed_stay_so(tmp_path):
    frames = smooth(2).astype(np.int16) * 10 - 900
    write_dicom(tmp_path / "a.dcm", frames, PixelRepresentation=1)
    found, notes = read(tmp_path / "a.dcm")
    assert np.abs(found - (frames - frames.min()) / np.ptp(frames) * 255).max() <= 1
    assert not notes


@pytest.mark.parametrize("factor", [1, 16, 200, 256])
def test_bytes_in_the_other_order_are_told_by_the_pixels(tmp_path, factor):
    frames, path = smooth(2).astype(np.uint16) * factor, tmp_path / "a.dcm"
    frames[0, 0, 0] = 0  # so that 8 bits are from black to white as they are
    write_dicom(path, frames)
    expected, notes = read(path)
    assert not notes
    write_dicom(path, frames.byteswap())
    found, notes = read(path)
    assert np.abs(found.astype(int) - expected).max() <= 1
    # of 8 bits in either byte both orders are the same picture
    assert ("other byte order" in notes) == (factor in (16, 200))


def test_inverted_greys_that_are_mostly_white_are_said(tmp_path):
    frames, more = smooth(1), {"PhotometricInterpretation": "MONOCHROME1"}
    frames = frames // 2
    write_dicom(tmp_path / "a.dcm", 255 - frames, **more)
    np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], frames)
    assert not read(tmp_path / "a.dcm")[1]
    write_dicom(tmp_path / "a.dcm", frames, **more)
    assert "MONOCHROME1, by which it is mostly white" in read(tmp_path / "a.dcm")[1]


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("kind", ["grey", "RGB", "16 bits"])
def test_exchanged_rows_and_columns_are_refused(tmp_path, count, kind):
    frames, more = smooth(count), {"Rows": WIDTH, "Columns": HEIGHT}
    if kind == "RGB":
        frames = as_colours(frames, kind)
        more |= {**COLOURS, "PhotometricInterpretation": kind}
    frames = frames.astype(np.uint16) * 100 if kind == "16 bits" else frames
    write_dicom(tmp_path / "a.dcm", frames, **more)
    assert "has Rows and Columns exchanged" in refusal(tmp_path / "a.dcm")


def test_more_bits_than_stated_are_refused(tmp_path):
    frames = sweep(1)[0].astype(np.uint16) * 16
    write_dicom(tmp_path / "a.dcm", frames, BitsStored=8, HighBit=7)
    assert "of more bits than the 8 of Bits Stored" in refusal(tmp_path / "a.dcm")
    # overlays that older files keep in unused bits are none of the picture
    overlay = frames // 16 | 1 << 15
    dataset = write_dicom(tmp_path / "a.dcm", overlay, BitsStored=8, HighBit=7)
    dataset.add_new((0x6000, 0x0102), "US", 15)
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], frames // 16)


@pytest.mark.parametrize(
    ("said", "dtype", "factor"),
    [(8, np.uint8, 1), (8, np.uint16, 1), (16, np.uint16, 1), (16, np.uint16, 257)],
)
def test_palettes_whatever_the_depth_of_their_entries(tmp_path, said, dtype, factor):
    frames, _ = sweep(1)
    entries = (np.arange(255, -1, -1) * factor).astype(dtype).tobytes()
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        palette |= {f"{name}Descriptor": [256, 0, said], f"{name}Data": entries}
    write_dicom(tmp_path / "a.dcm", 255 - frames, **palette)
    found, notes = read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(found, frames)
    assert ("said to be of 16 bits, and is of 8" in notes) == (said == 16 and factor == 1)


def encoded(frames, how):
    """Return `(frames as bytes, transfer syntax)`."""
    if how in ("RLE", "JPEG-LS"):
        syntax = getattr(pydicom.uid, f"{how.replace('-', '')}Lossless")
        encoder = get_encoder(syntax)
        options = {"rows": HEIGHT, "columns": WIDTH, "samples_per_pixel": 1}
        options |= {"bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0}
        options |= {"photometric_interpretation": "MONOCHROME2", "number_of_frames": 1}
        parts = [encoder.encode(f.tobytes(), index=0, **options) for f in frames]
        return parts, syntax
    kind, syntax = {
        "JPEG": ("JPEG", JPEG),
        "JPEG 2000": ("JPEG2000", pydicom.uid.JPEG2000Lossless),
    }[how]
    return [encode(frame, kind) for frame in frames], syntax


@pytest.mark.parametrize("says", [1, 8, None, 10_000_000])
@pytest.mark.parametrize("how", ["native", "RLE", "JPEG", "JPEG 2000", "JPEG-LS"])
@pytest.mark.parametrize("table", [True, False])
def test_all_frames_are_read_whatever_their_stated_number(tmp_path, says, how, table):
    frames, _ = sweep(6)
    path = tmp_path / "a.dcm"
    if how == "native":
        write_dicom(path, frames, NumberOfFrames=says)
    else:
        parts, syntax = encoded(frames, how)
        write_compressed(path, parts, frames, syntax, table, NumberOfFrames=says)
    if says is None:
        dataset = pydicom.dcmread(path)
        del dataset.NumberOfFrames
        dataset.save_as(path)
    source = sources.open_source(path)
    assert source.moving
    found = np.stack(list(source.frames))
    assert np.abs(found.astype(int) - frames).max() <= (20 if how == "JPEG" else 0)
    expected = "of which 6 could be read" if (says or 1) > 6 else "holds 6"
    assert f"should hold {says or 1} frame" in source.notes[0]
    assert expected in source.notes[0]


def test_a_count_that_is_no_number_and_one_that_is_right(tmp_path):
    frames, _ = sweep(2)
    write_dicom(tmp_path / "a.dcm", frames)
    assert read(tmp_path / "a.dcm")[1] == ""
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(
        content.replace(b"\x08\0IS\2\0002 ", b"\x08\0IS\2\000x ")
    )
    np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], frames)


@pytest.mark.parametrize("how", ["native", "RLE", "JPEG", "deflated"])
def test_a_cut_file_keeps_the_frames_that_it_has_and_says_so(tmp_path, how):
    frames, _ = sweep(6)
    path = tmp_path / "a.dcm"
    if how in ("native", "deflated"):
        dataset = write_dicom(path, frames)
        if how == "deflated":
            syntax = pydicom.uid.DeflatedExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(path, enforce_file_format=True)
    else:
        parts, syntax = encoded(frames, how)
        write_compressed(path, parts, frames, syntax)
    whole, counts = path.read_bytes(), set()
    truth, notes = read(path)
    assert not notes
    for size in range(0, len(whole) - 16, 700):
        path.write_bytes(whole[:size])
        if read_or_none(path) is not None:
            found, notes = read(path)
            np.testing.assert_array_equal(found, truth[: len(found)])
            counts.add(len(found))
            assert f"should hold 6 frames, of which {len(found)} could be read" in notes
    assert counts == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("says", [1, 2, 6])
def test_frames_in_several_fragments(tmp_path, says):
    frames, _ = sweep(2)
    parts, syntax = encoded(frames, "JPEG 2000")
    path = tmp_path / "a.dcm"
    write_compressed(path, parts, frames, syntax, NumberOfFrames=says)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate(parts, fragments_per_frame=3, has_bot=False)
    dataset.save_as(path)
    np.testing.assert_array_equal(read(path)[0], frames)


def test_several_pictures_in_a_fragment_are_refused(tmp_path):
    frames, _ = sweep(2)
    parts, syntax = encoded(frames, "JPEG")
    write_compressed(tmp_path / "a.dcm", [b"".join(parts)], frames, syntax)
    assert "a fragment holds several pictures" in refusal(tmp_path / "a.dcm")


def test_a_frame_that_is_damaged_ends_the_loop_and_is_named(tmp_path):
    frames, _ = sweep(4)
    parts, syntax = encoded(frames, "JPEG")
    parts[2] = parts[2][:40]
    write_compressed(tmp_path / "a.dcm", parts, frames, syntax)
    found, notes = read(tmp_path / "a.dcm")
    assert len(found) == 2
    assert "frame 3 cannot be decoded" in notes
    assert "of which 2 could be read" in notes


@pytest.mark.parametrize(
    "wrong",
    [
        {"Rows": HEIGHT - 8},
        {"Rows": HEIGHT + 8},
        {"Columns": WIDTH - 2},
        {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15},
        {**COLOURS, "PhotometricInterpretation": "RGB"},
        {"SamplesPerPixel": 3},
        {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
        {"PhotometricInterpretation": "HSV"},
        {"Rows": 0},
    ],
)
@pytest.mark.parametrize("count", [1, 6])
def test_sizes_that_are_not_those_of_the_pixels_are_refused(tmp_path, wrong, count):
    write_dicom(tmp_path / "a.dcm", sweep(count)[0], **wrong)
    assert "cannot be decoded" in refusal(tmp_path / "a.dcm")


@pytest.mark.parametrize("count", [1, 2])
def test_pixels_of_more_bits_or_samples_are_not_taken_for_more_frames(tmp_path, count):
    frames, _ = sweep(count)
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 1) for frame in frames])
    less = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    write_dicom(tmp_path / "a.dcm", frames.astype(np.uint16) * 257, **less)
    assert "samples or bits are wrong" in refusal(tmp_path / "a.dcm")
    write_dicom(tmp_path / "a.dcm", as_colours(frames, "RGB"))
    assert "samples or bits are wrong" in refusal(tmp_path / "a.dcm")


@pytest.mark.parametrize("count", [1, 6])
def test_black_at_the_end_is_not_taken_for_padding(tmp_path, count):
    frames, _ = sweep(count)
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 1) for frame in frames])
    frames[:, -20:] = 0
    for wrong in ({"Columns": WIDTH - n} for n in (1, 8, 20)):
        write_dicom(tmp_path / "a.dcm", frames, **wrong)
        assert "are wrong" in refusal(tmp_path / "a.dcm")
    write_dicom(tmp_path / "a.dcm", frames, Rows=HEIGHT - 1)
    if count > 1:
        assert "are wrong" in refusal(tmp_path / "a.dcm")
    else:  # a row of black less
        np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], frames[:, :-1])


def test_frames_of_noise_are_counted_all_the_same(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (6, HEIGHT, WIDTH), np.uint8)
    for says in (1, 2, 3, 5, 12):
        write_dicom(tmp_path / "a.dcm", frames, NumberOfFrames=says)
        np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], frames)


def test_loops_of_422_are_counted_by_their_bytes(tmp_path):
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in sweep(3)[0]])
    frames[:, :, 1::2] = frames[:, :, ::2]  # of pairs
    packed = np.full((3, HEIGHT, WIDTH // 2, 4), 128, np.uint8)
    packed[..., 0], packed[..., 1] = frames[:, :, ::2], frames[:, :, 1::2]
    more = {"PhotometricInterpretation": "YBR_FULL_422", "Columns": WIDTH, **COLOURS}
    for says in (1, 2, 3, 9):
        write_dicom(tmp_path / "a.dcm", packed, NumberOfFrames=says, **more)
        np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], frames)


def test_padding_is_no_frame(tmp_path):
    frames, _ = sweep(1)
    write_dicom(tmp_path / "a.dcm", frames, PixelData=frames.tobytes() + bytes(128))
    found, notes = read(tmp_path / "a.dcm")
    np.testing.assert_array_equal(found, frames)
    assert not notes


@pytest.mark.parametrize("wrong", [{"Rows": WIDTH, "Columns": HEIGHT}, {"Rows": 60}])
@pytest.mark.parametrize("how", ["JPEG", "JPEG 2000", "JPEG-LS"])
def test_a_jpeg_of_another_size_than_stated_is_refused(tmp_path, wrong, how):
    frames, _ = sweep(1)
    parts, syntax = encoded(frames, how)
    write_compressed(tmp_path / "a.dcm", parts, frames, syntax, **wrong)
    assert f"its pictures are {HEIGHT} x {WIDTH} of 1" in refusal(tmp_path / "a.dcm")


def test_a_syntax_that_the_pixels_do_not_have(tmp_path):
    frames, path = sweep(1)[0], tmp_path / "a.dcm"
    write_dicom(path, frames)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"10008.1.2.1\0", b"10008.1.2.5\0"))  # RLE
    assert "are not compressed, its header says they are" in refusal(path)
    write_compressed(path, encoded(frames, "RLE")[0], frames, pydicom.uid.RLELossless)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"10008.1.2.5\0", b"10008.1.2.1\0"))
    assert "are compressed, its header says they are not" in refusal(path)


def test_files_without_preamble_in_any_encoding(tmp_path):
    frames, _ = sweep(1)
    dataset = write_dicom(tmp_path / "whole.dcm", frames)
    for name, implicit, little in (
        ("IM000001", True, True),
        ("old.dcm", False, True),
        ("big", False, False),
    ):
        bare = Dataset(dataset)
        options = {"implicit_vr": implicit, "little_endian": little}
        pydicom.dcmwrite(tmp_path / name, bare, enforce_file_format=False, **options)
        assert (tmp_path / name).read_bytes()[128:132] != b"DICM"
        np.testing.assert_array_equal(read(tmp_path / name)[0], frames)
    content = (tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "no preamble").write_bytes(content[132:])
    np.testing.assert_array_equal(read(tmp_path / "no preamble")[0], frames)
    (tmp_path / "notes").write_bytes(b"\x08 words, no DICOM at all")
    names = [path.name for path in sources.list_files(tmp_path)]
    assert names == ["IM000001", "big", "no preamble", "old.dcm", "whole.dcm"]


def test_a_video_within_dicom(tmp_path, monkeypatch):
    frames, _ = sweep(6)
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    write_video(tmp_path / "a.mp4", frames, "mp4v")
    syntax = pydicom.uid.MPEG4HP41
    more = {"PhotometricInterpretation": "YBR_PARTIAL_420", "NumberOfFrames": 6, **COLOURS}
    path, content = tmp_path / "a.dcm", (tmp_path / "a.mp4").read_bytes()
    write_compressed(path, [content], frames, syntax, **more)
    source = sources.open_source(path)
    assert (source.kind, source.count, source.rate) == ("dicom", 6, 15)
    expected = list(sources.open_source(tmp_path / "a.mp4").frames)
    np.testing.assert_array_equal(list(source.frames), expected)
    write_compressed(path, [content], frames, syntax, **more | {"NumberOfFrames": 9})
    assert "should hold 9 frames, of which 6 could be read" in read(path)[1]
    write_compressed(path, [content[:100]], frames, syntax, **more)
    assert "is no video that can be decoded" in refusal(path)
    write_compressed(path, [content], frames, syntax, **more, Rows=HEIGHT + 2)
    assert "its header says" in refusal(path)
    assert not list((tmp_path / "copies").iterdir())


@pytest.mark.parametrize(
    "window",
    [
        *[(128, 0), (128, -5), (128, 65535), (3000, 256), (0, "nan"), ([1, 2], [0, 0])],
        *[(60, 1), (60, 8)],  # black and white, or hardly more
    ],
)
def test_a_window_that_shows_nothing_is_said_and_not_used(tmp_path, window):
    frames, path = sweep(1)[0], tmp_path / "a.dcm"
    write_dicom(path, frames)
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        dataset.WindowCenter, dataset.WindowWidth = window
        dataset.save_as(path)
    found, notes = read(path)
    np.testing.assert_array_equal(found, frames)
    assert "shown without its window" in notes


def test_what_to_install_for_a_syntax_is_named(tmp_path):
    frames, _ = sweep(1)
    for name, package in (("HTJ2K", "openjpeg"), ("JPEGLossless", "libjpeg")):
        syntax = getattr(pydicom.uid, name)
        write_compressed(tmp_path / "a.dcm", [b"\xff\x4f\xff\x51" * 9], frames, syntax)
        expected = f"needs: pip install pylibjpeg pylibjpeg-{package}"
        assert expected in refusal(tmp_path / "a.dcm")
    write_compressed(tmp_path / "a.dcm", [b"\xff\x0a"], frames, pydicom.uid.HTJ2KLossless)
    content = (tmp_path / "a.dcm").read_bytes().replace(b".4.201\0", b".4.110\0")
    (tmp_path / "a.dcm").write_bytes(content)
    assert "its transfer syntax, 1.2.840.10008.1.2.4.110, is not known" in refusal(
        tmp_path / "a.dcm"
    )


def test_the_rate_of_times_between_frames(tmp_path):
    frames, _ = sweep(3)
    more = {"CineRate": None, "FrameTimeVector": [0, 40, 60]}  # ms: 50 in the mean
    write_dicom(tmp_path / "a.dcm", frames, **more)
    assert sources.open_source(tmp_path / "a.dcm").rate == pytest.approx(20)


def region(place, delta, units=3):
    """Return an ultrasound region (top, left, bottom, right) of so many cm a pixel."""
    item = Dataset()
    for name, value in zip(("MinY0", "MinX0", "MaxY1", "MaxX1"), place, strict=True):
        setattr(item, f"RegionLocation{name}", value)
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta, -delta
    return item


def spacings_of(path, regions, **more):
    """Return the spacing of masks in two regions and across them, and the notes."""
    write_dicom(path, sweep(1)[0], SequenceOfUltrasoundRegions=regions, **more)
    source = sources.open_source(path)
    found = []
    for rows in (slice(2, 12), slice(22, 40), slice(2, 40), slice(55, 60)):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[rows, 30:40] = 1
        found.append(spacing_at(mask, source.regions))
    return found, "\n".join(source.notes)


def test_a_mask_has_the_spacing_of_the_region_in_which_it_lies(tmp_path):
    path, near = tmp_path / "a.dcm", pytest.approx
    small, large = (0, 0, 19, WIDTH - 1), (20, 0, 49, WIDTH - 1)
    pair = [region(small, 0.04), region(large, 0.01)]
    for regions in (pair, pair[::-1]):
        found, notes = spacings_of(path, regions)
        assert found == [near((0.4, 0.4)), near((0.1, 0.1)), None, None]
        assert not notes
    found, _ = spacings_of(path, [region(small, 0.01), region(large, 0.01)])
    assert found == [near((0.1, 0.1))] * 3 + [None]
    found, _ = spacings_of(path, [region(small, 0.01, units=4), pair[1]])  # seconds
    assert found == [None, near((0.1, 0.1)), None, None]
    found, _ = spacings_of(path, [region(small, float("nan")), pair[1]])
    assert found == [None, near((0.1, 0.1)), None, None]


def test_spacings_that_contradict_each_other_are_said_and_give_no_millimetres(tmp_path):
    path, large = tmp_path / "a.dcm", [region((20, 0, 49, WIDTH - 1), 0.01)]
    found, notes = spacings_of(path, large, PixelSpacing=[0.3, 0.3])
    assert found == [(0.3, 0.3), None, None, (0.3, 0.3)]
    assert "Pixel Spacing is 0.3 x 0.3 mm, its regions say 0.1 x 0.1 mm" in notes
    found, notes = spacings_of(path, large, PixelSpacing=[0.1002, 0.1])  # of rounding
    assert None not in found
    assert not notes
    beyond = [region((0, 0, 600, 800), 0.01)]  # of the picture before it was made smaller
    found, notes = spacings_of(path, beyond)
    assert found == [None] * 4
    assert "reach beyond its pixels" in notes
    for spacing in ([0, 0.1], None, [float("inf"), 1]):
        assert spacings_of(path, None, PixelSpacing=spacing)[0] == [None] * 4


def test_a_segmentation_says_only_what_was_looked_at(tmp_path):
    path, out = tmp_path / "loop.dcm", tmp_path / "out.dcm"
    # of 35 pixels: the bits of a frame do not end with a byte
    source = write_dicom(path, np.zeros((20, 5, 7), np.uint8))
    masks = np.random.default_rng(0).integers(0, 2, (17, 5, 7), np.uint8)
    for count in (1, 2, 17):
        dicom_seg.write(path, [np.packbits(mask) for mask in masks[:count]], out)
        found = highdicom.seg.segread(out)
        assert found.NumberOfFrames == count
        pixels = found.get_pixels_by_source_frame(
            source.SOPInstanceUID, range(1, count + 1), ignore_spatial_locations=True
        )
        np.testing.assert_array_equal(pixels[..., 0], masks[:count])


def test_a_segmentation_of_a_loop_that_states_any_number(tmp_path):
    path, out = tmp_path / "loop.dcm", tmp_path / "out.dcm"
    for says in (1, 10_000_000):
        write_dicom(path, sweep(2)[0], NumberOfFrames=says)
        dicom_seg.write(path, [np.packbits(mask) for mask in sweep(2)[1]], out)
        assert highdicom.seg.segread(out).NumberOfFrames == 2


def test_what_an_anonymised_file_lacks_is_left_empty_in_its_segmentation(tmp_path):
    path, out = tmp_path / "a.dcm", tmp_path / "out.dcm"
    dataset = write_dicom(path, sweep(1)[0])
    for name in dicom_seg.MAY_LACK:
        delattr(dataset, name)
    dataset.save_as(path)
    dicom_seg.write(path, [np.packbits(sweep(1)[1])], out)
    found = pydicom.dcmread(out)
    for name in dicom_seg.MAY_LACK:
        assert not found.get(name), name
        assert name == "ReferringPhysicianName" or name in found


def test_dicom_files_without_frames_and_masks_are_passed_over(tmp_path, capsys):
    frames, masks = sweep(1)
    write_dicom(tmp_path / "a.dcm", frames)
    meta = {
        "DICOMDIR": "1.2.840.10008.1.3.10",
        "report.dcm": "1.2.840.10008.5.1.4.1.1.88.11",
    }
    for name, uid in meta.items():
        dataset = pydicom.dcmread(tmp_path / "a.dcm")
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = uid
        dataset.save_as(tmp_path / name)
    for name in ("b.png", "b_mask.png", "b_mask_1.png", "alone_mask.png"):
        Image.fromarray(frames[0]).save(tmp_path / name)
    names = [path.name for path in sources.list_files(tmp_path)]
    assert names == ["a.dcm", "alone_mask.png", "b.png"]
    text = capsys.readouterr().out
    assert "2 masks of" in text
    assert "2 other files or folders" in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are none on Windows")
def test_a_pipe_among_the_pictures_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is not a file"):
        sources.open_source(tmp_path / "a.png")


FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))


def read_or_none(path):
    """Return the frames of a file, or None where it is refused in a line that names it."""
    try:
        return read(path)[0]
    except ValueError as error:
        text = str(error)
    assert path.name in text
    assert "\n" not in text
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pydicoms_own_files_are_read_as_it_reads_them_or_refused(path):
    found = read_or_none(path)
    if found is None:
        return
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = len(found)  # "1A" in one of them
    expected = dataset.pixel_array  # RGB, where it is YCbCr
    if dataset.SamplesPerPixel == 3:
        white = 2.0**dataset.BitsStored - 1
        grey = expected @ [0.299, 0.587, 0.114] * (255 / white)
        difference = np.abs(found - grey)
        assert difference.mean() < 0.5
        assert difference.max() < 9  # of colours that YCbCr has and RGB has not
    elif dataset.PhotometricInterpretation != "PALETTE COLOR":
        expected = apply_voi_lut(apply_modality_lut(expected, dataset), dataset)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_each_syntax_that_can_be_read_is_among_pydicoms_own_files():
    read_here = set()
    for path in FILES:
        if read_or_none(path) is not None:
            read_here.add(pydicom.dcmread(path).file_meta.TransferSyntaxUID.keyword)
    assert read_here == {
        "ImplicitVRLittleEndian",
        "ExplicitVRLittleEndian",
        "ExplicitVRBigEndian",
        "DeflatedExplicitVRLittleEndian",
        "JPEGBaseline8Bit",
        "JPEG2000",
        "JPEG2000Lossless",
        "JPEGLSLossless",
        "JPEGLSNearLossless",
        "RLELossless",
    }
