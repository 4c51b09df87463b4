"""A page on this computer to look at what a network finds in a frame, clip or DICOM file.

    python app.py

Opens http://127.0.0.1:7860 with a phantom frame already segmented. Nothing leaves this
computer: the page is served on its own address alone, without analytics, fonts or scripts
from elsewhere, to pages of its own alone; what it is given goes with it.
Needs: pip install -r requirements/app.txt

Reads   weights/*.h5 with their .json
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np

from nerve import command
from nerve.files import atomic
from nerve.frames import sources
from nerve.frames.overlays import write_picture
from nerve.frames.spacing import spacing_at
from nerve.frames.video_writing import write_video
from nerve.phantom.anatomy import draw_mask
from nerve.phantom.scanner import make_subject, render
from nerve.phantom.sweep import plan_frames
from nerve.precision import choose_precision
from nerve.prediction import inference, own_predictions
from nerve.prediction.networks import load_network, read_trained
from nerve.records import Trained

MAX_FRAMES = 300  # of a clip, kept in memory
MAX_UPLOAD = "200mb"
MAX_UPLOADS = 10**9  # bytes of all that a page is given and makes
FOLDER = "nerve_page_"  # in the system's folder for temporary files
NOTE = "**Research only.** Not a medical device: not for diagnosis or for guiding a needle."
PHANTOM_SEED = 0


class Networks:
    """Trained weights of a folder, each loaded when it is first chosen."""

    def __init__(self, folder):
        self.paths = {
            path.stem: path
            for path in sorted(folder.glob("*.h5"))
            if path.with_suffix(".json").exists()
        }
        if not self.paths:
            raise ValueError(
                f"{folder} holds no .h5 with its .json; expected a folder of weights"
            )
        self.loaded = {}

    def get(self, name: str) -> tuple:
        """Return `(network, its record)`."""
        if name not in self.loaded:
            from model import build_network  # here: TensorFlow takes seconds to import

            trained = read_trained(self.paths[name])
            precision, _ = choose_precision("auto")
            model = load_network(build_network, self.paths[name], trained, precision)
            self.loaded[name] = inference.as_used(model, trained), trained
        return self.loaded[name]


def phantom_frame() -> np.ndarray:
    """Return the phantom frame of a few whose nerve is largest, uint8 `(420, 580)`."""
    frames = plan_frames(24, 1, 4, PHANTOM_SEED)
    subjects = {f.subject: make_subject(PHANTOM_SEED, f.subject) for f in frames}

    def area(frame):
        return np.count_nonzero(draw_mask(subjects[frame.subject], frame, PHANTOM_SEED))

    frame = max(frames, key=area)
    return render(subjects[frame.subject], frame.sweep, frame.visibility)


def read_upload(path: str | None) -> tuple[sources.Source, bool]:
    """Return an uploaded file, or the phantom for None, with its frames in memory.

    Beside it, whether these are all of its frames. One that cannot be read is a ValueError.
    """
    if path is None:
        frames = [phantom_frame()]
        return sources.Source("phantom.png", None, "picture", frames, 1, sources.RATE), True
    source = sources.open_source(Path(path))
    rest = iter(source.frames)
    frames = list(itertools.islice(rest, MAX_FRAMES))
    if not frames:
        raise ValueError(f"{source.name} holds no frame")
    return source._replace(frames=frames), next(rest, None) is None


class State(NamedTuple):
    """What the sliders work on."""

    source: sources.Source  # read already
    predictions: list[inference.Prediction]  # a frame each
    whole: bool  # whether these are all frames of the file
    trained: Trained  # the weights' record
    clips: list[Path]  # made of it, of which the last is shown


def analyse(networks: Networks, name: str, path: str | None) -> State:
    """Return the frames of a file with their probabilities."""
    model, trained = networks.get(name)
    source, whole = read_upload(path)
    how = trained.inputs, own_predictions.SMOOTHING
    predictions = list(own_predictions.predict_source(model, source, *how))
    return State(source, predictions, whole, trained, [])


def find(
    state: State, number: float, threshold: float, smallest: float
) -> inference.Prediction:
    """Return a frame with its mask under the sliders' limits, the area in %."""
    found = state.predictions[min(int(number), len(state.predictions)) - 1]
    changes = {"threshold": threshold, "smallest_area": smallest / 100}
    limits = dataclasses.replace(state.trained.limits, **changes)
    mask = inference.to_mask(found.probability, found.geometry, limits)
    return found._replace(mask=mask)


def find_all(state: State, *limits: float) -> Iterator[tuple[int, inference.Prediction]]:
    """Yield the number of each frame, and what `find` returns of it."""
    for number in range(1, len(state.predictions) + 1):
        yield number, find(state, number, *limits)


def heat(found: inference.Prediction) -> np.ndarray:
    """Return a probability map at the frame's size as an RGB picture."""
    full = found.geometry.whole(found.geometry.back(found.probability))
    grey = np.rint(255 * full).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def show(
    state: State, number: float, threshold: float, smallest: float
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the page's pictures and numbers for a frame."""
    found = find(state, number, threshold, smallest)
    parts, area, area_mm2, _, _, axis, axis_mm = own_predictions.measure_mask(
        found.mask, spacing_at(found.mask, state.source.regions)
    )
    unit = f" ({area_mm2} mm²)" if area_mm2 else ""
    length = f"{axis} pixels" + (f" ({axis_mm} mm)" if axis_mm else "") if axis else "-"
    sure, unlike = own_predictions.assess(found, state.trained)
    empty = ""
    if inference.presence(found.probability) < state.trained.limits.least_presence:
        empty = ": below the weights' limit, left empty"
    if unlike != own_predictions.NOT_KNOWN and float(unlike) > 1:
        unlike += ": **unlike all training frames, the outline may be wrong**"
    cut = "" if state.whole else "; the file has more: predict.py does all of them"
    text = (
        f"| {state.source.name} | |\n|---|---|\n"
        f"| frame | {int(number)} of {len(state.predictions)}{cut} |\n"
        f"| how sure a nerve is there | {sure}{empty} |\n"
        f"| how unlike the training frames (above 1: foreign) | {unlike} |\n"
        f"| area | {area} pixels{unit} |\n"
        f"| longest axis | {length} |\n| parts | {parts} |\n"
    )
    text += "".join(f"| note | {note} |\n" for note in state.source.notes)
    return found.overlay(), heat(found), text


def play(state: State, threshold: float, smallest: float, folder: Path) -> str | None:
    """Return the path of a clip's overlay as a video, below a folder; None of a still.

    That of other limits goes.
    """
    while state.clips:
        state.clips.pop().unlink(missing_ok=True)
    if len(state.predictions) < 2:
        return None
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{state.source.stem}.mp4"
    state.clips.append(path)
    with write_video(path, state.source.rate) as append:
        for number, found in find_all(state, threshold, smallest):
            append(found.overlay(), state.source.time_of(number))
    return str(path)


def save(
    state: State, number: float, threshold: float, smallest: float, folder: Path
) -> list[str]:
    """Return paths of mask, overlay and table for download, below a folder.

    The table has a row for every frame, mask and overlay are of the one shown.
    """
    start = Path(tempfile.mkdtemp(dir=folder)) / f"{state.source.stem}_"
    found, source = find(state, number, threshold, smallest), state.source
    paths = [Path(f"{start}{end}") for end in ("mask.png", "overlay.png", "frames.csv")]
    write_picture(paths[0], found.mask * 255)
    write_picture(paths[1], found.overlay())
    with atomic.write_csv(paths[2], own_predictions.COLUMNS) as writer:
        for k, each in find_all(state, threshold, smallest):
            writer.writerow(own_predictions.describe(source, k, each, state.trained))
    return [str(path) for path in paths]


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that goes with this process; those of killed ones go at once."""
    for left in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        # of others, or of a page that runs: it stays
        with contextlib.suppress(ValueError, OSError):
            if (left / ".lock").exists():
                with atomic.lock(left):
                    atomic.remove(left)
    how = {"prefix": FOLDER, "ignore_cleanup_errors": True}
    with tempfile.TemporaryDirectory(**how) as folder, atomic.lock(folder):
        yield Path(folder)


class Guard:
    """Passes on what this page asks for, and bounds what it is given (an ASGI app).

    Any website in the same browser can send something here, and one whose name is made to
    lead to this computer (DNS rebinding) could read the answers: Host and Origin tell.
    Uploads are kept in `folder`.
    """

    def __init__(self, app, port: int, folder: Path):
        self.app, self.folder, self.coming = app, folder, 0
        self.hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]

    def refusal(self, scope: dict) -> tuple[int, str] | None:
        """Return the status and the reason with which a request is refused, or None."""
        headers = dict(scope["headers"])
        host, origin = (headers.get(n, b"").decode("latin-1") for n in (b"host", b"origin"))
        if host not in self.hosts or (origin and origin != f"http://{host}"):
            return 403, "only this page itself may ask here"
        if scope.get("method") in ("POST", "PUT"):
            if b"content-length" not in headers:
                return 411, "the length of an upload was expected"
            files = [path for path in self.folder.rglob("*") if path.is_file()]
            kept = sum(path.stat().st_size for path in files) + self.coming
            if kept + int(headers[b"content-length"]) > MAX_UPLOADS:
                return 413, f"the page holds {kept:,} bytes already; start app.py again"
        return None

    async def __call__(self, scope, receive, send) -> None:
        refused = scope["type"] != "lifespan" and self.refusal(scope)
        if refused:
            start = {"type": "http.response.start", "status": refused[0], "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": refused[1].encode()})
            return
        size = int(dict(scope.get("headers", [])).get(b"content-length", 0))
        self.coming += size
        try:
            await self.app(scope, receive, send)
        finally:
            self.coming -= size


def stop(number: int, frame) -> None:
    """End the page on a signal as Ctrl-C does, so that what it was given goes."""
    raise KeyboardInterrupt


def lay_out(names: list[str]) -> SimpleNamespace:
    """Return the parts of the page that is being built, for weights of these names."""
    import gradio

    first = "unet_nerve" if "unet_nerve" in names else names[0]
    gradio.Markdown(f"# Ultrasound nerve segmentation\n{NOTE}")
    parts = SimpleNamespace(state=gradio.State())
    with gradio.Row():
        with gradio.Column(scale=1):
            how = {"file_types": list(sources.KNOWN), "elem_id": "upload"}
            parts.upload = gradio.File(label="frame, clip or DICOM file", **how)
            parts.weights = gradio.Dropdown(names, value=first, label="weights")
            how = {"step": 0.05, "label": "threshold", "elem_id": "threshold"}
            parts.threshold = gradio.Slider(0.05, 0.95, 0.5, **how)
            text = "smallest area, % of the frame"
            parts.smallest = gradio.Slider(0, 5, 0, step=0.1, label=text)
            how = {"step": 1, "label": "frame", "visible": False}
            parts.number = gradio.Slider(1, 2, 1, **how)
            parts.numbers = gradio.Markdown(elem_id="numbers")
            how = {"file_count": "multiple", "elem_id": "files"}
            parts.files = gradio.File(label="mask, overlay, table", **how)
            parts.prepare = gradio.Button("prepare downloads", elem_id="prepare")
        with gradio.Column(scale=2):
            how = {"buttons": ["download"], "visible": False, "elem_id": "clip"}
            parts.clip = gradio.Video(label="clip", autoplay=True, loop=True, **how)
            how = {"buttons": ["download", "fullscreen"]}
            parts.overlay = gradio.Image(label="outline", elem_id="overlay", **how)
            label = "probability"
            parts.probability = gradio.Image(label=label, elem_id=label, **how)
    return parts


def build(networks: Networks, folder: Path):
    """Return the page, a gradio.Blocks; `folder` takes its downloads."""
    import gradio

    def start(name, path):
        try:
            found = analyse(networks, name, path)
        except (ValueError, OSError) as error:
            text = str(error).replace(str(path), Path(str(path)).name)
            raise gradio.Error(text) from error
        limits, count = found.trained.limits, len(found.predictions)
        values = limits.threshold, round(100 * limits.smallest_area, 2)
        area = gradio.Slider(0, max(5.0, 2 * values[1]), values[1])
        slider = gradio.Slider(1, max(count, 2), 1, visible=count > 1)
        video = gradio.Video(play(found, *values, folder), visible=count > 1)
        return [found, values[0], area, slider, video, *show(found, 1, *values), None]

    with gradio.Blocks(title="Nerve segmentation", analytics_enabled=False) as page:
        parts = lay_out(list(networks.paths))
        limits = [parts.threshold, parts.smallest]
        shown = [parts.overlay, parts.probability, parts.numbers]
        chosen = [parts.state, parts.number, *limits]
        outputs = [parts.state, *limits, parts.number, parts.clip, *shown, parts.files]
        upload, weights = parts.upload, parts.weights
        for event in (page.load, upload.upload, upload.clear, weights.change):
            event(start, [weights, upload], outputs, show_progress="minimal")
        for slider in (parts.number, *limits):
            slider.input(show, chosen, shown, show_progress="hidden")
        make, last = functools.partial(play, folder=folder), {"trigger_mode": "always_last"}
        for slider in limits:
            slider.input(make, [parts.state, *limits], parts.clip, **last)
        prepare = functools.partial(save, folder=folder)
        parts.prepare.click(prepare, chosen, parts.files)
    return page


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--weights", type=Path, default="weights", help="folder of trained .h5")
    add("--port", type=command.whole(1024, 65535), default=7860, help="of the page")
    add("--no-browser", action="store_true", help="do not open the browser")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    networks = Networks(args.weights)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("NO_PROXY", "no_proxy"):  # gradio asks the page whether it is there
        os.environ[name] = f"{os.environ.get(name, '')},127.0.0.1".lstrip(",")
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), stop)
    with temporary_folder() as folder:  # what is in it is of patients, perhaps
        os.environ["GRADIO_TEMP_DIR"] = str(folder)  # read when it is imported
        text = "app.py needs: pip install -r requirements/app.txt"
        with command.refusing(text, ImportError):
            import gradio
            import starlette.middleware
        page = build(networks, folder)
        guard = starlette.middleware.Middleware(Guard, port=args.port, folder=folder)
        page.launch(
            server_name="127.0.0.1",
            server_port=args.port,
            share=False,
            inbrowser=not args.no_browser,
            max_file_size=MAX_UPLOAD,
            ssr_mode=False,
            footer_links=[],
            app_kwargs={"middleware": [guard]},
            theme=gradio.themes.Default(font=["system-ui"], font_mono=["monospace"]),
        )


if __name__ == "__main__":
    sys.exit(command.run(main))
