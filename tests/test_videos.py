"""Videos in the containers that people have, whole and cut."""

import av
import numpy as np
import pytest
from clips import sweep, write_video
from PIL import Image

from nerve.frames import sources

SUFFIXES = [".avi", ".mp4", ".mov", ".mkv", ".webm", ".wmv", ".flv", ".3gp", ".ts"]
SUFFIXES += [".mpg", ".GIF"]
CODES = {".avi": "MJPG", ".flv": "FLV1", ".webm": "VP80", ".wmv": "WMV2", ".mpg": "mpg1"}


def read(path):
    """Return the frames of a file, and its notes in one text."""
    source = sources.open_source(path)
    frames = np.stack(list(source.frames))
    return frames, "\n".join(source.notes)


@pytest.mark.parametrize(
    "suffix",
    [
        ".avi",
        ".mp4",
        ".mov",
        ".mkv",
        ".webm",
        ".wmv",
        ".flv",
        ".3gp",
        ".ts",
        ".mpg",
        ".GIF",
    ],
)
def test_containers_of_videos_are_read(tmp_path, suffix, capfd):
    frames = np.repeat(sweep(3)[0], 2, axis=0)
    path = tmp_path / f"clip{suffix}"
    if suffix == ".GIF":
        pictures = [Image.fromarray(frame) for frame in frames[::2]]
        pictures[0].save(path, append_images=pictures[1:], save_all=True, duration=50)
        frames = frames[::2]
    else:
        write_video(path, frames, CODES.get(suffix, "mp4v"))
    capfd.readouterr()  # of OpenCV, about the writing
    assert sources.list_files(tmp_path) == [path]
    source = sources.open_source(path)
    assert (source.kind, source.moving) == ("video", True)
    found = np.stack(list(source.frames))
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 12
    uncounted = suffix in (".ts", ".mpg", ".GIF")
    assert len(source.notes) == uncounted
    assert not uncounted or "does not say how many" in source.notes[0]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".flv", ".webm", ".wmv", ".mp4"])
def test_a_cut_video_is_refused_or_says_how_many_frames_it_should_have(
    tmp_path, suffix, capfd
):
    path = tmp_path / f"clip{suffix}"
    write_video(path, np.concatenate([sweep(6)[0]] * 2), CODES.get(suffix, "mp4v"))
    whole, most = path.read_bytes(), 0
    capfd.readouterr()
    for share in range(5, 100, 5):
        path.write_bytes(whole[: len(whole) * share // 100])
        try:
            found, notes = read(path)
        except ValueError as error:
            text = str(error)
            assert path.name in text
            continue
        if suffix in (".avi", ".flv"):
            assert "is cut" in notes
        if len(found) < 12:
            most = max(most, len(found))
            said = f"should hold 12 frames, of which {len(found)} could be read"
            if suffix == ".wmv":  # of which OpenCV then has no count
                said = f"how many frames it should hold: {len(found)} were read"
            assert said in notes
    assert most or suffix == ".mp4"  # whose table of frames is at its end
    assert capfd.readouterr() == ("", "")


def test_a_count_of_one_does_not_make_a_video_a_still(tmp_path):
    path = tmp_path / "a.avi"
    write_video(path, sweep(3)[0])
    content = path.read_bytes()
    place = content.index(b"strh") + 8 + 32  # dwLength, in frames
    path.write_bytes(content[:place] + bytes([1, 0, 0, 0]) + content[place + 4 :])
    source = sources.open_source(path)
    assert source.moving
    assert len(list(source.frames)) == 3
    assert "should hold 1 frame, and holds 3" in source.notes[0]


def test_of_several_videos_in_a_file_the_first_is_read_and_it_is_said(tmp_path):
    frames, path = sweep(3)[0], tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        streams = [container.add_stream("ffv1", rate=20) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width = frames.shape[1:]
            stream.pix_fmt = "gray"
        for frame in frames:
            for stream, picture in zip(streams, (frame, 255 - frame), strict=True):
                picture = av.VideoFrame.from_ndarray(picture, format="gray")
                container.mux(stream.encode(picture))
    found, notes = read(path)
    np.testing.assert_array_equal(found, frames)
    assert notes == f"{path} holds 2 videos, of which the first is read"


def test_what_is_no_source_is_refused_with_what_is_read(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.xyz is not a whole picture.*\.png.*\.3gp"):
        sources.open_source(tmp_path / "a.xyz")
