"""A page on this computer to look at what a network finds in a frame, clip or DICOM file.

    python app.py

Opens http://127.0.0.1:7860 with a phantom frame already segmented. Nothing leaves this
computer: the page is served on its own address alone, without analytics, fonts or scripts
from elsewhere. Needs: pip install -r requirements-app.txt

Reads   weights/*.h5 with their .json
"""

import argparse
import csv
import functools
import io
import itertools
import os
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

import frames as sources
import inference
import own_predictions
import stage
from anatomy import draw_mask
from overlays import PREDICTION_COLOUR, outline
from phantom import plan_frames
from precision import choose_precision
from scanner import make_subject, render
from trained import load_network, read_settings

MAX_FRAMES = 300  # of a clip, kept in memory
MAX_UPLOAD = "200mb"
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
        """Return `(network, settings)`."""
        if name not in self.loaded:
            settings = read_settings(self.paths[name], None)
            precision, _ = choose_precision("auto")
            model = load_network(self.paths[name], settings, precision)
            self.loaded[name] = model, settings
        return self.loaded[name]


def phantom_frame() -> np.ndarray:
    """Return the phantom frame of a few whose nerve is largest, uint8 `(420, 580)`."""
    frames = plan_frames(24, 1, 4, PHANTOM_SEED)
    subjects = {f.subject: make_subject(PHANTOM_SEED, f.subject) for f in frames}

    def area(frame):
        return np.count_nonzero(draw_mask(subjects[frame.subject], frame, PHANTOM_SEED))

    frame = max(frames, key=area)
    return render(subjects[frame.subject], frame.sweep, frame.visibility)


def read_upload(path: str | None) -> tuple[sources.Source, list[np.ndarray], bool]:
    """Return an uploaded file, or the phantom for None, with its frames.

    Returns:
        `(source, frames, whole)`: the last False where there are more frames.

    Raises:
        ValueError: it cannot be read.
    """
    if path is None:
        frames = [phantom_frame()]
        source = sources.Source(
            "phantom.png", None, "picture", frames, 1, sources.RATE, None
        )
        return source, frames, True
    source = sources.open_source(Path(path))
    rest = iter(source.frames)
    frames = list(itertools.islice(rest, MAX_FRAMES))
    if not frames:
        raise ValueError(f"{source.name} holds no frame")
    return source, frames, next(rest, None) is None


def analyse(networks: Networks, name: str, path: str | None) -> dict:
    """Return what the sliders work on: frames with their probabilities, and defaults."""
    model, settings = networks.get(name)
    source, frames, whole = read_upload(path)
    probabilities = inference.predict_frames(model, frames, settings)
    smoothing = {"smoothing": own_predictions.SMOOTHING}  # as predict.py does
    share = own_predictions.share_before(source, smoothing)
    return {
        "title": source.name,
        "frames": frames,
        "probabilities": list(inference.smooth(probabilities, share)),
        "spacing": source.spacing,
        "whole": whole,
        "settings": settings,
    }


def find(
    state: dict, number: float, threshold: float, smallest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `(frame, probability, mask)` of a frame under the sliders' limits.

    Args:
        state: What `analyse` returned.
        number: Of the frame, from 1.
        threshold: Probability from which a pixel is nerve.
        smallest: Smallest area, in % of the frame.
    """
    k = min(int(number), len(state["frames"])) - 1
    limits = {"threshold": threshold, "smallest_area": smallest / 100}
    frame, probability = state["frames"][k], state["probabilities"][k]
    mask = inference.to_mask(probability, frame.shape, {**state["settings"], **limits})
    return frame, probability, mask


def heat(probability: np.ndarray, shape: tuple[int, int], settings: dict) -> np.ndarray:
    """Return a probability map at the frame's size as an RGB picture."""
    top, left, height, width = inference.crop_of(shape, settings)
    full = np.zeros(shape, np.float32)
    full[top : top + height, left : left + width] = inference.take_out(
        probability, (height, width), settings["aspect"]
    )
    grey = np.rint(255 * full).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def show(
    state: dict, number: float, threshold: float, smallest: float
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the page's pictures and numbers for a frame."""
    frame, probability, mask = find(state, number, threshold, smallest)
    parts, area, area_mm2, _, _, axis, axis_mm = own_predictions.measure_mask(
        mask, state["spacing"]
    )
    unit = f" ({area_mm2} mm²)" if area_mm2 else ""
    length = f"{axis} pixels" + (f" ({axis_mm} mm)" if axis_mm else "") if axis else "-"
    sure, least = inference.presence(probability), state["settings"]["presence"]
    empty = f", below {least:.2f}: left empty" if sure < least else ""
    cut = "" if state["whole"] else "; the file has more: predict.py does all of them"
    text = (
        f"| {state['title']} | |\n|---|---|\n"
        f"| frame | {int(number)} of {len(state['frames'])}{cut} |\n"
        f"| how sure a nerve is there | {sure:.2f}{empty} |\n"
        f"| area | {area} pixels{unit} |\n"
        f"| longest axis | {length} |\n| parts | {parts} |\n"
    )
    overlay = outline(frame, mask, PREDICTION_COLOUR)
    return overlay, heat(probability, frame.shape, state["settings"]), text


def save(
    state: dict, number: float, threshold: float, smallest: float, folder: Path
) -> list[str]:
    """Return paths of mask, overlay and table for download, below a folder.

    The table has a row for every frame, mask and overlay are of the one shown.
    """
    folder = Path(tempfile.mkdtemp(dir=folder))
    stem = sources.stem_of(state["title"])
    frame, _, mask = find(state, number, threshold, smallest)
    paths = [folder / f"{stem}_{n}" for n in ("mask.png", "overlay.png", "frames.csv")]
    cv2.imwrite(str(paths[0]), mask * 255)
    cv2.imwrite(str(paths[1]), outline(frame, mask, PREDICTION_COLOUR)[..., ::-1])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(own_predictions.COLUMNS)
    for k in range(1, len(state["frames"]) + 1):
        frame, probability, mask = find(state, k, threshold, smallest)
        sure = f"{inference.presence(probability):.4f}", f"{probability.max():.4f}"
        row = [stage.as_text(state["title"]), k, *frame.shape, *sure]
        writer.writerow([*row, *own_predictions.measure_mask(mask, state["spacing"])])
    paths[2].write_text(text.getvalue(), encoding="utf-8")
    return [str(path) for path in paths]


def build(networks: Networks, folder: Path):
    """Return the page, a gradio.Blocks; `folder` takes its downloads."""
    import gradio

    names = list(networks.paths)
    first = "unet_nerve" if "unet_nerve" in names else names[0]
    with gradio.Blocks(title="Nerve segmentation", analytics_enabled=False) as page:
        gradio.Markdown(f"# Ultrasound nerve segmentation\n{NOTE}")
        state = gradio.State()
        with gradio.Row():
            with gradio.Column(scale=1):
                types = [*sources.SUFFIXES, *sources.VIDEO, *sources.DICOM]
                upload = gradio.File(
                    label="frame, clip or DICOM file",
                    file_types=types,
                    elem_id="upload",
                )
                weights = gradio.Dropdown(names, value=first, label="weights")
                threshold = gradio.Slider(
                    0.05, 0.95, 0.5, step=0.05, label="threshold", elem_id="threshold"
                )
                smallest = gradio.Slider(
                    0, 5, 0, step=0.1, label="smallest area, % of the frame"
                )
                number = gradio.Slider(1, 2, 1, step=1, label="frame", visible=False)
                numbers = gradio.Markdown(elem_id="numbers")
                files = gradio.File(
                    label="mask, overlay, table", file_count="multiple", elem_id="files"
                )
                prepare = gradio.Button("prepare downloads", elem_id="prepare")
            with gradio.Column(scale=2):
                buttons = ["download", "fullscreen"]
                overlay = gradio.Image(
                    label="outline", elem_id="overlay", buttons=buttons
                )
                probability = gradio.Image(
                    label="probability", elem_id="probability", buttons=buttons
                )
        shown = [overlay, probability, numbers]
        limits = [state, number, threshold, smallest]

        def start(name, path):
            try:
                found = analyse(networks, name, path)
            except (ValueError, OSError) as error:
                text = str(error).replace(str(path), Path(str(path)).name)
                raise gradio.Error(text) from error
            settings = found["settings"]
            values = settings["threshold"], round(100 * settings["smallest_area"], 2)
            area = gradio.Slider(0, max(5.0, 2 * values[1]), values[1])
            count = len(found["frames"])
            slider = gradio.Slider(1, max(count, 2), 1, visible=count > 1)
            shows = show(found, 1, *values)
            return [found, values[0], area, slider, *shows, None]

        outputs = [state, threshold, smallest, number, *shown, files]
        for event in (page.load, upload.upload, upload.clear, weights.change):
            event(start, [weights, upload], outputs, show_progress="minimal")
        for slider in (number, threshold, smallest):
            slider.input(show, limits, shown, show_progress="hidden")
        prepare.click(functools.partial(save, folder=folder), limits, files)
    return page


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--weights", type=Path, default="weights", help="folder of trained .h5")
    add("--port", type=int, default=7860, help="1024 to 65535")
    add("--no-browser", action="store_true", help="do not open the browser")
    args = parser.parse_args(argv)
    if not 1024 <= args.port <= 65535:
        parser.error(f"--port {args.port}; expected 1024 to 65535")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    networks = Networks(args.weights)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("NO_PROXY", "no_proxy"):  # gradio asks the page whether it is there
        os.environ[name] = f"{os.environ.get(name, '')},127.0.0.1".lstrip(",")
    try:
        import gradio
    except ImportError as error:
        raise ValueError("app.py needs: pip install -r requirements-app.txt") from error
    # of patients, perhaps: gone with the page
    with tempfile.TemporaryDirectory(prefix="nerve_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(networks, Path(folder))
        page.launch(
            server_name="127.0.0.1",
            server_port=args.port,
            share=False,
            inbrowser=not args.no_browser,
            max_file_size=MAX_UPLOAD,
            ssr_mode=False,
            footer_links=[],
            theme=gradio.themes.Default(font=["system-ui"], font_mono=["monospace"]),
        )


if __name__ == "__main__":
    sys.exit(stage.run(main))
