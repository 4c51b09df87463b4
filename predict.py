"""Predict masks of the validation and test frames, or of pictures of your own.

    python predict.py --data data --weights weights/unet.h5 --out predictions
    python predict.py --input pictures/ --weights weights/unet.h5 --out predictions

Reads   weights/unet.h5 and weights/unet.json; data/imgs_train.npy,
        data/imgs_mask_train.npy and data/preprocess.json for the validation frames,
        data/imgs_test.npy for the test frames; or pictures (PNG, JPEG, TIFF, BMP)
Writes  predictions/validation.csv, validation_truth.csv, submission.csv and overlays/;
        for pictures masks/STEM.png, overlays/STEM.png and frames.csv
"""

import argparse
import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
from skimage.measure import label
from skimage.segmentation import find_boundaries
from tqdm import tqdm

import advice
import run_length
import scores
import stage
from letterbox import letterbox, place, take_out
from pictures import list_pictures, read_picture
from precision import PRECISIONS, choose_precision
from preprocess import read_extract, scale
from trained import load_networks, merge_settings, read_settings

PRESENCE_SHARE = 0.01  # of a frame's pixels
BATCH = 32  # frames predicted at a time
TRUTH_COLOUR = (0, 200, 0)  # green
PREDICTION_COLOUR = (255, 140, 0)  # orange
EXTRACT, PREPROCESS = "python extract_data.py", "python preprocess.py"


def predict_frames(model, frames, settings):
    """Yield the nerve probabilities of frames, in order; memory stays flat.

    Args:
        model: The U-Net.
        frames: Iterable of uint8 arrays `(rows, columns)`, 0 to 255, of any size.
        settings: Record with `height`, `width`, `mean`, `standard_deviation`; `aspect` of
            the training frames, None where any frame is to be stretched; and `crops`, as
            extract.json has them.

    Yields:
        float32 array `(height, width)` in [0, 1] for each frame.
    """
    size = settings["height"], settings["width"]

    def prepare(frame):
        frame = np.asarray(frame)
        top, left, height, width = crop_of(frame.shape, settings)
        view = frame[top : top + height, left : left + width]
        return letterbox(view, *size, settings["aspect"])

    images = stage.map_threads(prepare, frames)
    while batch := list(itertools.islice(images, BATCH)):
        scaled = scale(
            np.stack(batch), settings["mean"], settings["standard_deviation"]
        )
        yield from np.asarray(model.predict_on_batch(scaled[..., np.newaxis]))[..., 0]


def presence(probability):
    """Return how surely a frame shows a nerve: the mean of its highest probabilities.

    Args:
        probability: float32 array `(height, width)` in [0, 1].

    Returns:
        Float in [0, 1], the mean over the highest 1 % of the pixels (the smallest mask of
        the challenge covers 1.1 %).
    """
    count = max(1, round(PRESENCE_SHARE * probability.size))
    return float(np.partition(probability.ravel(), -count)[-count:].mean())


def keep_share(model, frames, settings):
    """Return settings whose `presence` keeps the share `prevalence` of these frames.

    Frames that are equally sure of it are all kept.

    Args:
        model: The U-Net.
        frames: As of `predict_frames`.
        settings: As of `predict_frames`; where its `prevalence` is None, it is returned.
    """
    if settings["prevalence"] is None:
        return settings
    bar = tqdm(predict_frames(model, frames, settings), "ranking", disable=None)
    values = sorted(presence(probability) for probability in bar)
    count = round(settings["prevalence"] * len(values))
    return {**settings, "presence": values[-count] if count else 2.0}  # 2: none has it


def crop_of(shape, settings):
    """Return the part of a frame of this size that is looked at: top, left, height, width.

    Frames of a size that was cropped for training are cropped alike.
    """
    whole = [0, 0, *shape]
    return settings["crops"].get(f"{shape[0]}x{shape[1]}", whole)


def to_mask(probability, shape, settings):
    """Return the uint8 mask, 0 or 1, of a probability map at the frame's own size.

    The probabilities are resized, not the mask: thresholding first leaves stairs. A mask
    smaller than the smallest of the training masks is taken for a false alarm.

    Args:
        probability: float32 array in [0, 1].
        shape: (height, width) of the frame, in pixels.
        settings: Record with `threshold`; `smallest_area` as a share of the frame;
            `presence`, below which a mask is left empty; `aspect` and `crops`.
    """
    mask = np.zeros(shape, np.uint8)
    if settings["presence"] and presence(probability) < settings["presence"]:
        return mask
    top, left, height, width = crop_of(shape, settings)
    found = take_out(probability, (height, width), settings["aspect"])
    mask[top : top + height, left : left + width] = found >= settings["threshold"]
    _, _, *inner = place((height, width), probability.shape, settings["aspect"])
    share = np.prod(inner) / probability.size  # of what training saw as one frame
    if np.count_nonzero(mask) * share < settings["smallest_area"] * height * width:
        mask[:] = 0
    return mask


def find_masks(model, frames, settings):
    """Yield `(frame, probability, mask, pixels)` of each frame, made on all cores.

    `pixels` is the mask's run-length encoding.

    Args:
        model: The U-Net.
        frames: As of `predict_frames`.
        settings: As of `predict_frames` and `to_mask`.
    """
    frames, again = itertools.tee(frames)
    pairs = zip(again, predict_frames(model, frames, settings), strict=True)

    def work(pair):
        frame, probability = pair
        mask = to_mask(probability, frame.shape, settings)
        return frame, probability, mask, run_length.encode(mask)

    return stage.map_threads(work, pairs)


def outline(image, mask, colour):
    """Return an RGB picture with a mask's outline drawn, two pixels wide.

    Args:
        image: uint8 array `(height, width)` grey or `(height, width, 3)` RGB.
        mask: Array `(height, width)`, 0 and 1.
        colour: RGB, 0 to 255.
    """
    picture = np.stack([image] * 3, axis=-1) if image.ndim == 2 else image.copy()
    picture[find_boundaries(mask, mode="thick")] = colour
    return picture


def write_picture(path, picture):
    """Write a grey or RGB uint8 array as PNG."""
    if picture.ndim == 3:
        picture = picture[..., ::-1]  # cv2 writes blue first
    stage.write_bytes(path, cv2.imencode(".png", picture)[1].tobytes())


def check_unseen(settings, split, data):
    """Refuse or mark validation frames that the weights were trained on.

    Args:
        settings: The weights' record.
        split: `preprocess.json`.
        data: Folder, for the error.
    """
    searched = set(settings.get("limits_searched_on") or [])
    if shared := sorted(searched & set(split["val"]["subjects"])):
        print(
            "note: threshold, smallest area and presence were searched on subjects "
            f"{', '.join(map(str, shared))}, which are validation subjects here: the "
            "scores are a little too good"
        )
    if settings.get("data", {}).get("arrays") == {
        name: array["sha256"] for name, array in split["arrays"].items()
    }:
        if split["leaky"]:
            print("leaky split: these scores say nothing about new subjects")
        return
    for part in settings.get("trained_on") or []:
        shared = sorted(set(part["subjects"]) & set(split["val"]["subjects"]))
        if not shared:
            continue
        names = ", ".join(map(str, shared))
        if part["imgs_train_sha256"] == split["extract"]["imgs_train.npy"]:
            raise ValueError(
                f"the weights were trained on subjects {names} of {data}/preprocess.json's "
                "validation frames; split as for their training, or train again"
            )
        print(
            f"note: the weights were trained on other data whose subjects {names} are "
            "numbered as validation subjects here; if they are the same people, the "
            "scores are too good"
        )


def evenly(count, total):
    """Return the set of up to `count` evenly spaced numbers below `total`."""
    return set(
        np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    )


def remove_stale(out, made):
    """Remove what an earlier run left that this one did not make."""
    names = ("validation*.csv", "submission.csv", "overlays/val_*.png")
    for name in (*names, "overlays/test_*.png"):
        for path in set(out.glob(name)) - set(made):
            path.unlink()


def predict_validation(model, data, out, settings, num_overlays):
    """Write masks, truth and overlays of the validation frames; print their scores.

    Returns:
        `(watch, paths)`: what `advice` saw, and the files written.
    """
    split = stage.read_record(data / "preprocess.json", f"{PREPROCESS} --data {data}")
    extract, frames, masks = read_extract(data)
    if (
        split["extract"]["imgs_train.npy"]
        != extract["arrays"]["imgs_train.npy"]["sha256"]
    ):
        raise ValueError(
            f"{data}/preprocess.json is of an earlier extraction; "
            f"make it again with: {PREPROCESS} --data {data}"
        )
    check_unseen(settings, split, data)
    rows, watch, results = split["val"]["rows"], advice.Watch(), []
    settings = keep_share(model, (frames[row] for row in rows), settings)
    made = [out / "validation.csv", out / "validation_truth.csv"]
    shown = evenly(num_overlays, len(rows))
    found = find_masks(model, (frames[row] for row in rows), settings)
    columns = ("subject", "img", "pixels")
    with (
        stage.write_csv(made[0], columns) as predicted_csv,
        stage.write_csv(made[1], columns) as truth_csv,
    ):
        bar = tqdm(found, "val", total=len(rows), unit=" frames", disable=None)
        for k, (row, (frame, probability, mask, pixels)) in enumerate(
            zip(rows, bar, strict=True)
        ):
            truth = masks[row] // 255
            watch.see(frame, probability, mask)
            name = extract["train"]["subject"][row], extract["train"]["image"][row]
            predicted_csv.writerow([*name, pixels])
            truth_csv.writerow([*name, run_length.encode(truth)])
            results.append(scores.frame_scores(truth, mask))
            if k in shown:
                picture = outline(frame, truth, TRUTH_COLOUR)
                picture = outline(picture, mask, PREDICTION_COLOUR)
                made.append(out / "overlays" / f"val_{name[0]}_{name[1]}.png")
                write_picture(made[-1], picture)
    subjects = [extract["train"]["subject"][row] for row in rows]
    print(scores.format_table(scores.summarize(results, subjects)))
    print(f"{len(rows)} validation frames: {out}/validation.csv")
    return watch, made


def predict_test(model, data, out, settings, num_overlays):
    """Write the submission and overlays of the test frames.

    Returns:
        `(watch, paths)`: what `advice` saw, and the files written.
    """
    repair = f"{EXTRACT} --data {data}"
    extract = stage.read_record(data / "extract.json", repair)
    frames = stage.read_array(data, "imgs_test.npy", extract, repair)
    numbers, watch = extract["test"]["image"], advice.Watch()
    settings = keep_share(model, frames, settings)
    made = [out / "submission.csv"]
    shown = evenly(num_overlays, len(numbers))
    found = find_masks(model, frames, settings)
    with stage.write_csv(made[0], ("img", "pixels")) as writer:
        bar = tqdm(found, "test", total=len(numbers), unit=" frames", disable=None)
        for k, (number, (frame, probability, mask, pixels)) in enumerate(
            zip(numbers, bar, strict=True)
        ):
            watch.see(frame, probability, mask)
            writer.writerow([number, pixels])
            if k in shown:
                made.append(out / "overlays" / f"test_{number}.png")
                write_picture(made[-1], outline(frame, mask, PREDICTION_COLOUR))
    print(
        f"{len(numbers)} test frames, {watch.positive} with a nerve: {out}/submission.csv"
    )
    return watch, made


def read_pictures(paths, failed):
    """Yield `(path, frame)` of each picture; what is wrong with others goes to `failed`."""
    for path in paths:
        try:
            yield path, read_picture(path)
        except ValueError as error:
            failed.append(str(error))


def predict_pictures(model, path, out, settings):
    """Write mask and overlay of each picture at its own size, and a table of them."""
    for name in ("masks", "overlays"):
        stage.make_folder(out / name)
    watch, failed, columns = advice.Watch(), [], ("name", "height", "width", "area")
    paths = list_pictures(path)
    frames = (frame for _, frame in read_pictures(paths, []))
    settings = keep_share(model, frames, settings)
    with stage.write_csv(out / "frames.csv", (*columns, "parts", "highest")) as writer:
        bar = tqdm(paths, "pictures", unit=" frames", disable=None)
        for path, frame in read_pictures(bar, failed):
            ((_, probability, mask, _),) = find_masks(model, [frame], settings)
            watch.see(frame, probability, mask)
            write_picture(out / "masks" / f"{path.stem}.png", mask * 255)
            overlay = outline(frame, mask, PREDICTION_COLOUR)
            write_picture(out / "overlays" / f"{path.stem}.png", overlay)
            parts, highest = label(mask).max(), f"{probability.max():.4f}"
            name = stage.as_text(path.name)
            writer.writerow([name, *frame.shape, mask.sum(), parts, highest])
    print(f"{watch.frames} pictures, {watch.positive} with a nerve: {out}/frames.csv")
    for error in failed:
        print(f"left out: {error}", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} pictures were left out")
    return watch


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default="data", help="folder of the extracted frames")
    add("--input", type=Path, help="a picture or a folder of them, instead of --data")
    add(
        "--weights",
        type=Path,
        nargs="+",
        default=[Path("weights/unet.h5")],
        help="trained .h5; of several the mean probability is taken",
    )
    add(
        "--settings", type=Path, help="JSON of other weights; default: the weights' own"
    )
    add(
        "--trust",
        action="store_true",
        help="load whole models of others (.h5, .keras), whatever code they hold: only "
        "where you would run their scripts, too",
    )
    add("--out", type=Path, default="predictions", help="folder to write")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="to compute in; auto takes bfloat16 where the machine has it",
    )
    add(
        "--prevalence",
        type=float,
        help="share of the frames that show a nerve, 0 to 1: that many are kept, those "
        "whose highest probabilities are highest. Default: the weights' own limits",
    )
    add("--overlays", type=int, default=24, help="pictures of each kind, 0 or more")
    args = parser.parse_args(argv)
    if args.overlays < 0:
        parser.error(f"--overlays {args.overlays}; expected 0 or more")
    if args.prevalence is not None and not 0 <= args.prevalence <= 1:
        parser.error(f"--prevalence {args.prevalence}; expected 0 to 1")
    return args


def main(argv=None):
    args = parse_args(argv)
    records = [read_settings(p, args.settings, args.trust) for p in args.weights]
    settings = merge_settings(args.weights, records)
    settings["prevalence"] = args.prevalence
    parts = find_parts(args.input, args.data)
    precision, why = choose_precision(args.precision)
    print(f"precision {precision}: {why}")
    model = load_networks(args.weights, records, precision, args.trust)
    functions = {"validation": predict_validation, "test": predict_test}
    with stage.lock(args.out):
        made = []
        stage.make_folder(args.out / "overlays")
        for part in parts:
            if part == "input":
                watch = predict_pictures(model, args.input, args.out, settings)
            else:
                watch, paths = functions[part](
                    model, args.data, args.out, settings, args.overlays
                )
                made += paths
            if text := watch.advise(settings):
                print(text)
        if args.input is None:
            remove_stale(args.out, made)
        print(f"overlays, truth green, prediction orange: {args.out}/overlays/")


def find_parts(picture, data):
    """Return what there is to predict: "input", or "validation" and "test"."""
    if picture is not None:
        list_pictures(picture)
        return ["input"]
    extract = stage.read_record(data / "extract.json", f"{EXTRACT} --data {data}")
    parts = []
    if "train" in extract and (data / "preprocess.json").exists():
        split = stage.read_record(data / "preprocess.json", PREPROCESS)
        if split["val"]["rows"]:
            parts.append("validation")
    if "test" in extract:
        parts.append("test")
    if not parts:
        raise ValueError(
            f"{data}/ holds neither validation nor test frames; make them with: "
            f"{PREPROCESS} --data {data}"
        )
    return parts


if __name__ == "__main__":
    sys.exit(stage.run(main))
