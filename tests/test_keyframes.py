"""Outlines of a few frames of a clip carried to all of its frames."""

import json

import cv2
import numpy as np
import pytest

from nerve.frames.geometry import Geometry
from nerve.frames.outlines import HOLES
from nerve.frames.sources import Source
from nerve.prediction import keyframes
from nerve.prediction.inference import Prediction
from nerve.scoring.scores import dice

SIZE = HEIGHT, WIDTH = (90, 120)
COUNT, STEP = 21, 2  # frames, and the pixels by which the picture moves in each


def make_clip(nerve=range(COUNT)):
    """Return predictions of a texture that moves to the right, and its true masks.

    The network sees a nerve, all over the frame, in the numbers of `nerve` from 0.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (HEIGHT, WIDTH + COUNT * STEP))
    texture = cv2.normalize(
        cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX
    )
    found, masks = [], []
    for k in range(COUNT):
        left = (COUNT - k) * STEP
        frame = texture[:, left : left + WIDTH].astype(np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        cv2.ellipse(mask, (30 + k * STEP, 45), (18, 12), 20, 0, 360, 1, -1)
        geometry = Geometry.of(SIZE, SIZE, WIDTH / HEIGHT, {})
        probability = np.full(SIZE, float(k in nerve), np.float32)
        found.append(Prediction(frame, geometry, probability, 1 - mask))
        masks.append(mask)
    return found, masks


def make_source(count=COUNT):
    return Source("clip.avi", None, "video", (), count, 25.0)


def write(folder, masks, numbers, count=COUNT, **more):
    """Write masks as keyframes of labelme, or as pictures where there is nothing more."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        name = f"clip_{number:05}" if count > 1 else "clip"
        cv2.imwrite(str(folder / f"{name}.png"), masks[number - 1] * 255)
    return folder


def apply(found, folder, label=None, count=COUNT):
    """Return the masks, and what is said of bad keyframes."""
    bad = []
    reader = keyframes.Reader(make_source(count), folder, label, bad)
    return [each.mask for each in keyframes.apply(iter(found), reader)], bad


def test_outlines_follow_what_moves_and_are_kept_to_the_pixel(tmp_path, capsys):
    found, masks = make_clip()
    odd = masks[10].copy()
    odd[3, 3] = 1  # as only a person would draw it
    masks[10] = odd
    carried, bad = apply(found, write(tmp_path, masks, (1, 11, 21)))
    for number in (1, 11, 21):
        np.testing.assert_array_equal(carried[number - 1], masks[number - 1])
    for mask, truth in zip(carried, masks, strict=True):
        assert dice(mask, truth) > 0.95
    # where they stay in place, those half-way would be 10 pixels off
    assert dice(masks[0], masks[5]) < 0.75
    assert not bad
    assert "clip.avi: 3 keyframes\n" in capsys.readouterr().out


def test_one_keyframe_goes_both_ways(tmp_path, capsys):
    found, masks = make_clip()
    carried, bad = apply(found, write(tmp_path, masks, (11,)))
    assert len(carried) == COUNT
    for mask, truth in zip(carried, masks, strict=True):
        assert dice(mask, truth) > 0.9
    expected = "clip.avi: 1 keyframes; frames 1 to 10 and 12 to 21 follow one alone\n"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("backwards", [False, True])
def test_a_nerve_goes_where_the_network_no_longer_sees_it(tmp_path, backwards):
    last = 14  # of the frames, from 0, in which the network sees it
    found, masks = make_clip(range(last + 1))
    masks[20] = masks[20] * 0
    if backwards:
        found, masks = found[::-1], masks[::-1]
    carried, _ = apply(found, write(tmp_path, masks, (1, 21)))
    seen = [bool(mask.any()) for mask in carried]
    expected = [k <= last for k in range(COUNT)]
    assert seen == (expected[::-1] if backwards else expected)


def test_frames_between_keyframes_without_a_nerve_have_none(tmp_path):
    found, masks = make_clip()
    masks = [mask * 0 for mask in masks]
    carried, _ = apply(found, write(tmp_path, masks, (3, 11)))
    assert not np.any(carried)


def test_a_clip_of_one_frame_takes_its_own_outline(tmp_path):
    found, masks = make_clip()
    carried, _ = apply(found[:1], write(tmp_path, masks, (1,), count=1), count=1)
    np.testing.assert_array_equal(carried, masks[:1])


def labelme(*names, **more):
    """Return a file of labelme with a square of each of some labels."""
    shapes = [
        {"label": name, "points": [[9, 9], [40, 9], [40, 30], [9, 30]]} for name in names
    ]
    return json.dumps({"shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH} | more)


def test_bad_keyframes_are_named_and_the_others_used(tmp_path, capsys):
    found, masks = make_clip()
    (tmp_path / "clip_00001.json").write_text(labelme("nerve"))
    (tmp_path / "clip_00005.json").write_text(labelme("nerve", imageWidth=99))
    (tmp_path / "clip_00007.json").write_text(labelme("nerve", imagePath="clip_00008.png"))
    (tmp_path / "clip_00009.json").write_text(labelme("nerve", "artery"))
    (tmp_path / "clip_00099.json").write_text(labelme("nerve"))
    (tmp_path / "other_00001.json").write_text(labelme("nerve"))
    write(tmp_path, masks, (1, 2))  # frames, as they lie beside outlines
    carried, bad = apply(found, tmp_path)
    assert len(carried) == COUNT
    assert carried[0].sum() == 31 * 21
    expected = ["is of 90 x 99 pixels, clip_00005.png of 90 x 120", "drawn on 'clip_00008'"]
    expected += ["say which is nerve: --label", "is of no frame of clip.avi, which has 21"]
    for text in expected:
        assert sum(text in line for line in bad) == 1, text
    assert len(bad) == len(expected)
    output = capsys.readouterr().out
    assert "note: no keyframes of clip.avi: other_00001.json\n" in output
    assert "clip.avi: 1 keyframes; frames 2 to 21 follow one alone" in output
    (tmp_path / "clip_00001.json").write_text(labelme("nerve", HOLES[0], "artery"))
    carried, bad = apply(found, tmp_path, label="artery")
    assert carried[0].sum() == 31 * 21


def test_keyframes_that_are_not_there_are_said(tmp_path):
    found, masks = make_clip()
    with pytest.raises(FileNotFoundError, match="is no folder; expected one of keyframes"):
        apply(found, tmp_path / "none")
    with pytest.raises(
        ValueError, match=r"expected clip_00001\.json of labelme, or a mask"
    ):
        apply(found, tmp_path)
    (tmp_path / "clip_00099.json").write_text(labelme("nerve"))
    with pytest.raises(ValueError, match=r"clip\.avi has no keyframe left"):
        apply(found, tmp_path)


def test_large_frames_are_carried_at_a_smaller_size(tmp_path, monkeypatch):
    found, masks = make_clip()
    monkeypatch.setattr(keyframes, "LONGEST", 80)
    carried, _ = apply(found, write(tmp_path, masks, (1, 11, 21)))
    assert {mask.shape for mask in carried} == {SIZE}
    for mask, truth in zip(carried, masks, strict=True):
        assert dice(mask, truth) > 0.93
