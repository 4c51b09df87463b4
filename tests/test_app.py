"""app.py in a real browser: it opens, takes files, follows sliders, and stays at home."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import cv2
import numpy as np
import pytest
from conftest import ROOT, draw_frame, make_raw, wait_for

import app
import extract_data
import predict
import preprocess
import train
from nerve import command
from nerve.prediction import inference
from nerve.records import Calibration, Look

pytest.importorskip("gradio", reason="app.py's packages are not installed")

HEIGHT, WIDTH = 64, 80


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with the .h5 of a short training."""
    folder = tmp_path_factory.mktemp("app")
    make_raw(folder / "raw", subjects=5, frames=8, test=2)
    data, out = str(folder / "data"), str(folder / "weights" / "unet_nerve.h5")
    extract_data.main(["--raw", str(folder / "raw"), "--data", data])
    preprocess.main(["--data", data, "--height", "32", "--width", "32"])
    flags = ["--filters", "4", "--depth", "2", "--batch-size", "4", "--epochs", "20"]
    train.main(["--data", data, "--out", out, "--learning-rate", "0.005", *flags])
    return folder / "weights"


def write_clip(path, count):
    """Write a video of so many frames with a nerve."""
    code = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 20, (WIDTH, HEIGHT))
    for number in range(count):
        grey, _ = draw_frame(2, number, True, 3, HEIGHT, WIDTH)
        writer.write(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    writer.release()


def test_sliders_change_masks_and_downloads(weights, tmp_path):
    networks = app.Networks(weights)
    frame, truth = draw_frame(2, 1, True, 3, HEIGHT, WIDTH)
    cv2.imwrite(str(tmp_path / "own.png"), frame)
    state = app.analyse(networks, "unet_nerve", str(tmp_path / "own.png"))
    areas = [app.find(state, 1, t, 0).mask.sum() for t in (0.05, 0.5, 0.95)]
    assert areas[0] >= areas[1] >= areas[2]
    assert areas[0] > areas[2]
    assert app.find(state, 1, 0.5, 90).mask.sum() == 0
    found = app.find(state, 1, 0.5, 0).mask
    assert 2 * (found & (truth > 0)).sum() / (found.sum() + (truth > 0).sum()) > 0.6
    mask, overlay, table = app.save(state, 1, 0.5, 0, tmp_path)
    np.testing.assert_array_equal(cv2.imread(mask, 0), found * 255)
    assert cv2.imread(overlay).shape == (HEIGHT, WIDTH, 3)
    assert len(Path(table).read_text().splitlines()) == 2


def test_it_opens_with_a_phantom_and_a_clip_has_all_its_frames(
    weights, tmp_path, monkeypatch
):
    networks = app.Networks(weights)
    state = app.analyse(networks, "unet_nerve", None)
    overlay, probability, text = app.show(state, 1, 0.5, 0)
    assert overlay.shape == probability.shape == (420, 580, 3)
    assert "phantom.png" in text
    write_clip(tmp_path / "c.avi", 5)
    state = app.analyse(networks, "unet_nerve", str(tmp_path / "c.avi"))
    assert len(state.predictions) == 5
    assert "| frame | 1 of 5 |" in app.show(state, 1, 0.5, 0)[2]
    monkeypatch.setattr(app, "MAX_FRAMES", 5)
    assert app.read_upload(str(tmp_path / "c.avi"))[1]  # all of them
    monkeypatch.setattr(app, "MAX_FRAMES", 4)
    cut = app.analyse(networks, "unet_nerve", str(tmp_path / "c.avi"))
    assert "| frame | 1 of 4; the file has more" in app.show(cut, 1, 0.5, 0)[2]
    table = Path(app.save(state, 2, 0.5, 0, tmp_path)[2])
    assert len(table.read_text().splitlines()) == 6
    clips = [Path(app.play(state, threshold, 0, tmp_path)) for threshold in (0.5, 0.95)]
    assert [path.exists() for path in clips] == [False, True]
    assert len(list(app.sources.open_source(clips[1]).frames)) == 5


def test_the_page_finds_what_predict_finds(weights, tmp_path):
    write_clip(tmp_path / "c.avi", 3)
    state = app.analyse(app.Networks(weights), "unet_nerve", str(tmp_path / "c.avi"))
    limits = state.trained.limits
    flags = ["--input", str(tmp_path / "c.avi"), "--out", str(tmp_path / "out")]
    predict.main([*flags, "--weights", str(weights / "unet_nerve.h5")])
    sliders = limits.threshold, 100 * limits.smallest_area
    for number in (1, 2, 3):
        mask = app.find(state, number, *sliders).mask
        found = cv2.imread(str(tmp_path / f"out/masks/c_{number:05}.png"), 0)
        np.testing.assert_array_equal(255 * mask, found)
    # more than there is
    limits = dataclasses.replace(limits, least_presence=1.5)
    trained = dataclasses.replace(state.trained, limits=limits)
    state = state._replace(trained=trained)
    assert not app.find(state, 1, *sliders).mask.any()
    assert "below the weights' limit, left empty" in app.show(state, 1, *sliders)[2]


def test_the_page_says_how_sure_a_nerve_is_and_how_unlike_the_frame(weights, tmp_path):
    write_clip(tmp_path / "c.avi", 3)
    state = app.analyse(app.Networks(weights), "unet_nerve", str(tmp_path / "c.avi"))
    trained = dataclasses.replace(state.trained, calibration=None, looks=[])
    text = app.show(state._replace(trained=trained), 1, 0.5, 0)[2]
    assert "| how sure a nerve is there | not known |" in text
    assert "(above 1: foreign) | not known |" in text
    look = Look([0.0] * 13, np.eye(13).tolist(), 1e-6)  # of something else
    calibration = Calibration([0.0, 1.0], [0.0, 1.0], 0.01, 100, 10, crops=False)
    trained = dataclasses.replace(trained, calibration=calibration, looks=[look])
    text = app.show(state._replace(trained=trained), 1, 0.5, 0)[2]
    sure = inference.presence(state.predictions[0].probability)
    assert f"| how sure a nerve is there | {sure:.2f} |" in text
    assert "unlike all training frames, the outline may be wrong" in text


def test_no_weights_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.h5 with its \.json"):
        app.Networks(tmp_path)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def running(weights, folder):
    """Yield the address of app.py in a process of its own, and that process.

    Temporary files go to `folder`.
    """
    port = free_port()
    command = [sys.executable, str(ROOT / "app.py"), "--weights", str(weights)]
    log = open(folder / "app.log", "w")  # noqa: SIM115
    process = subprocess.Popen(
        [*command, "--port", str(port), "--no-browser"],
        stdout=log,
        stderr=log,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=2)
            break
        except OSError:
            assert process.poll() is None, (folder / "app.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)
    try:
        yield address, process
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture
def server(weights, tmp_path):
    """The address of a running app.py."""
    with running(weights, tmp_path) as (address, _):
        yield address


def ask(address, content=None, **headers):
    """Return the status of a request; `content` is sent as an uploaded file."""
    if content is not None:
        headers["Content-Type"] = "multipart/form-data; boundary=edge"
        part = 'Content-Disposition: form-data; name="files"; filename="patient.png"'
        content = f"--edge\r\n{part}\r\n\r\n{content}\r\n--edge--\r\n".encode()
        address += "/gradio_api/upload"
    try:
        request = urllib.request.Request(address, content, headers)
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code


def uploads(folder):
    return [path for path in folder.rglob("*.png") if "PATIENT" in path.read_text()]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGKILL"])
def test_what_a_page_was_given_goes_with_it(weights, tmp_path, name):
    other = tmp_path / f"{app.FOLDER}notes"  # of somebody else
    other.mkdir()
    (other / "file").write_text("mine")
    with running(weights, tmp_path) as (address, process):
        assert ask(address, "PATIENT") == 200
        assert uploads(tmp_path)
        process.send_signal(getattr(signal, name))
        process.wait(60)
        if name == "SIGKILL":
            assert uploads(tmp_path)
            with running(weights, tmp_path):
                assert not uploads(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.log", other.name]
    assert (other / "file").read_text() == "mine"


def test_other_sites_of_the_same_browser_are_refused(server, tmp_path):
    port = server.rpartition(":")[2]
    assert ask(server, Origin=server) == 200
    for origin in (
        "http://example.org",
        "null",
        f"http://localhost:{port}",
        "http://127.0.0.1",
    ):
        assert ask(server, Origin=origin) == 403
        assert ask(server, "PATIENT", Origin=origin) == 403
    for host in ("example.org", f"example.org:{port}", "127.0.0.1", f"127.0.0.1.x:{port}"):
        assert ask(server, Host=host, Origin=f"http://{host}") == 403
        assert ask(server, "PATIENT", Host=host) == 403
    assert not uploads(tmp_path)


def test_what_a_page_is_given_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "MAX_UPLOADS", 1000)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.png").write_bytes(bytes(600))
    sent, passed = [], []

    async def page(scope, receive, send):
        passed.append(scope)
        if len(passed) == 1:  # another comes while this one is taken
            await guard(request(b"200"), None, keep)

    async def keep(message):
        sent.append(message.get("status"))

    def request(length):
        headers = [(b"host", b"127.0.0.1:7"), (b"content-length", length)]
        return {"type": "http", "method": "POST", "headers": headers[: 1 + bool(length)]}

    guard = app.Guard(page, 7, tmp_path)
    for length in (b"300", b"401", b"", b"400"):
        asyncio.run(guard(request(length), None, keep))
    assert [dict(scope["headers"])[b"content-length"] for scope in passed] == [
        b"300",
        b"400",
    ]
    assert [status for status in sent if status] == [413, 413, 411]


def requested(driver):
    """Return the hosts that the browser asked for anything so far."""
    hosts = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] in (
            "Network.requestWillBeSent",
            "Network.webSocketCreated",
        ):
            parameters = message["params"]
            url = urlparse(parameters.get("url") or parameters["request"]["url"])
            if url.scheme in ("http", "https", "ws", "wss"):
                hosts.add(url.hostname)
    return hosts


def test_a_visit_in_a_browser(server, browser, tmp_path):
    def find(selector):
        return browser.find_element("css selector", selector)

    def picture(name):
        return find(f"#{name} img").get_attribute("src")

    def numbers():
        return find("#numbers").text

    browser.get(server)
    wait_for(lambda: "phantom.png" in numbers())
    first = wait_for(lambda: picture("overlay"))
    assert wait_for(lambda: picture("probability"))
    assert "Research only" in find("body").text
    frame, _ = draw_frame(2, 1, True, 3, HEIGHT, WIDTH)
    cv2.imwrite(str(tmp_path / "own.png"), frame)
    find("#upload input[type=file]").send_keys(str(tmp_path / "own.png"))
    wait_for(lambda: "own.png" in numbers())
    wait_for(lambda: picture("overlay") != first)

    def area():
        line = next(li for li in numbers().splitlines() if li.startswith("area"))
        return int(line.split()[1])

    before = area()
    assert before > 0
    slider = find("#threshold input[type=range]")
    from selenium.webdriver.common.keys import Keys

    slider.send_keys(Keys.END)  # the highest threshold
    wait_for(lambda: area() < before)
    fewest = area()
    slider.send_keys(Keys.HOME)
    wait_for(lambda: area() > fewest)
    find("#prepare").click()
    links = wait_for(
        lambda: (
            len(browser.find_elements("css selector", "#files a[href]")) >= 3
            and browser.find_elements("css selector", "#files a[href]")
        )
    )
    contents = {}
    for link in links:
        address = link.get_attribute("href")
        contents[address.rpartition("_")[2]] = urllib.request.urlopen(address).read()
    mask = cv2.imdecode(np.frombuffer(contents["mask.png"], np.uint8), 0)
    assert (mask > 0).sum() == area()
    assert contents["frames.csv"].startswith(b"name,frame,height")
    # a clip plays, and anew under other limits
    write_clip(tmp_path / "c.avi", 5)
    find("#upload button[aria-label='Clear']").click()
    wait_for(lambda: "phantom.png" in numbers())
    assert not browser.find_elements("css selector", "#clip video")
    find("#upload input[type=file]").send_keys(str(tmp_path / "c.avi"))

    def clip(what):
        return browser.execute_script(f"return arguments[0].{what}", find("#clip video"))

    wait_for(lambda: clip("currentTime") > 0)
    assert (clip("videoWidth"), clip("videoHeight")) == (WIDTH, HEIGHT)
    assert clip("duration") == pytest.approx(5 / 20, abs=0.01)
    address = clip("src")
    find("#threshold input[type=range]").send_keys(Keys.END)
    wait_for(lambda: clip("src") != address and clip("currentTime") > 0)
    # a file that is none: a message, and the page goes on
    (tmp_path / "broken.png").write_bytes(b"no picture")
    find("#upload button[aria-label='Clear']").click()
    wait_for(lambda: "phantom.png" in numbers())
    find("#upload input[type=file]").send_keys(str(tmp_path / "broken.png"))
    wait_for(lambda: "not a whole picture" in find("body").text)
    assert requested(browser) == {"127.0.0.1"}


def test_a_wrong_port_and_missing_packages_are_one_line(weights, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        app.main(["--port", "80"])
    assert "--port: 80; expected 1024 to 65535" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    status = command.run(lambda: app.main(["--weights", str(weights)]))
    assert status == 1
    assert "pip install -r requirements/app.txt" in capsys.readouterr().err
