"""Overlays as videos: what a browser plays, at which second, in which colours."""

import base64
import itertools

import av
import numpy as np
import pytest
from conftest import wait_for

from nerve.frames import sources
from nerve.frames.overlays import PREDICTION_COLOUR
from nerve.frames.video_writing import write_video

# starts a video in a page and hands it to the script's end
PLAY = """
const [source, done] = arguments;
const video = document.createElement("video");
video.muted = true;
video.src = source;
video.onloadeddata = () => video.play().then(() => done("plays"), e => done(String(e)));
video.onerror = () => done(video.error.message || "not played");
document.body.replaceChildren(video);
"""
# seeks, and tells the colours of two pixels that are shown then
LOOK = """
const [second, done] = arguments;
const video = document.querySelector("video");
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
const pen = canvas.getContext("2d");
video.pause();
video.onseeked = () => requestAnimationFrame(() => {
    pen.drawImage(video, 0, 0);
    const at = (x, y) => Array.from(pen.getImageData(x, y, 1, 1).data).slice(0, 3);
    done([at(8, 8), at(video.videoWidth - 1, video.videoHeight - 1)]);
});
video.currentTime = second;
"""


def write(path, times, size=(48, 64), rate=20):
    """Write pictures, each of its own grey with an orange corner."""
    with write_video(path, rate) as append:
        for number, second in enumerate(times):
            picture = np.full((*size, 3), grey_of(number), np.uint8)
            picture[:16, :16] = PREDICTION_COLOUR
            append(picture, second)


def grey_of(number):
    return 40 + 20 * (number % 10)


def play(browser, path):
    """Play a video in a page; return its width, height and length in seconds."""
    content = base64.b64encode(path.read_bytes()).decode()
    browser.get("about:blank")
    said = browser.execute_async_script(PLAY, f"data:video/mp4;base64,{content}")
    assert said == "plays"
    script = "const v = document.querySelector('video'); return "
    wait_for(lambda: browser.execute_script(script + "v.currentTime > 0"), 30)
    return browser.execute_script(script + "[v.videoWidth, v.videoHeight, v.duration]")


def test_a_browser_plays_them_at_any_size_and_rate(browser, tmp_path):
    path = tmp_path / "a.mp4"
    for size, rate in (
        ((48, 64), 1),
        ((48, 64), 120),
        ((49, 65), 25),
        ((64, 1), 1000 / 15),
        ((420, 580), 29.97),
    ):
        write(path, np.arange(20) / rate, size, rate)
        width, height, seconds = play(browser, path)
        even = [side + side % 2 for side in size]
        assert [height, width] == even
        assert seconds == pytest.approx(20 / rate, rel=0.01)


def test_a_browser_shows_each_frame_at_its_time_in_its_colour(browser, tmp_path):
    path = tmp_path / "a.mp4"
    times = [0, 0.04, 0.5, 0.62, 1.5, 1.6, 1.64]
    write(path, times, (49, 65))
    play(browser, path)
    for number, (begin, end) in enumerate(itertools.pairwise(times)):
        middle = (begin + end) / 2
        orange, corner = browser.execute_async_script(LOOK, middle)
        assert np.abs(np.subtract(corner, grey_of(number))).max() <= 4
        assert np.abs(np.subtract(orange, PREDICTION_COLOUR)).max() <= 12


def test_the_last_line_of_odd_sides_is_doubled_and_nothing_is_lost(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (5, 7), np.uint8).repeat(3, 0)
    picture = np.repeat(picture.repeat(3, 1)[..., np.newaxis], 3, axis=2)  # 15 x 21
    with write_video(tmp_path / "a.mp4", 20) as append:
        append(picture, 0)
        append(picture, 0.05)
    found, _ = sources.open_source(tmp_path / "a.mp4").frames
    assert found.shape == (16, 22)
    expected = np.pad(picture[..., 0], ((0, 1), (0, 1)), "edge").astype(int)
    assert np.abs(found - expected).mean() < 3


@pytest.mark.parametrize("rate", [1, 120, 1000 / 15, 1000 / 13, 68.03, 656.21, 0.01])
def test_any_rate_is_written_and_read_back(tmp_path, rate):
    write(tmp_path / "a.mp4", np.arange(3) / rate, rate=rate)
    with av.open(tmp_path / "a.mp4") as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(rate, 2e-3)
    source = sources.open_source(tmp_path / "a.mp4")
    assert len(list(source.frames)) == 3
    np.testing.assert_allclose(source.times, np.arange(3) / rate, atol=1e-5)


def test_times_that_stand_still_go_back_or_leap_are_mended(tmp_path):
    write(tmp_path / "a.mp4", [0, 0, -5, 0.1, 1e9, 1e9 + 1])
    source = sources.open_source(tmp_path / "a.mp4")
    assert len(list(source.frames)) == 6
    steps = np.diff(source.times)
    assert (steps > 0).all()
    assert steps.max() == pytest.approx(100, abs=1e-3)
    assert not source.notes


def test_sizes_that_change_are_fitted_to_the_first(tmp_path):
    with write_video(tmp_path / "a.mp4", 20) as append:
        for second, side in ((0, 48), (0.05, 96)):
            append(np.full((side, side, 3), 90, np.uint8), second)
    frames = list(sources.open_source(tmp_path / "a.mp4").frames)
    assert [frame.shape for frame in frames] == [(48, 48)] * 2
