"""How far a network agrees with several raters, and they with each other.

STAPLE needs SimpleITK: pip install -r requirements/raters.txt
"""

import importlib.util
import itertools
from pathlib import Path

import numpy as np

from nerve.scoring import scores

STEPS = 1000  # of STAPLE, at most; it converges after tens
LACKING = "STAPLE is left out; it needs: pip install -r requirements/raters.txt"


def majority(masks: list[np.ndarray]) -> np.ndarray:
    """Return where more than half of the raters' masks have nerve: of two, where both do.

    Masks here are uint8 `(height, width)` of 0 and 1.

    Source: https://doi.org/10.1016/j.patrec.2005.03.017 (as of a vote by label).
    """
    return (2 * np.sum(masks, axis=0, dtype=int) > len(masks)).astype(np.uint8)


def staple(masks: list[np.ndarray]) -> np.ndarray:
    """Return the consensus of raters, each weighted by how reliable the others show it.

    That is where the probability of nerve is 0.5 or more, by the sensitivity and
    specificity of each rater over the whole frame, which are estimated together with it.
    Where all agree, it is their mask, an empty one too: nothing can be estimated there.
    Without SimpleITK it is an ImportError.

    Source: https://doi.org/10.1109/TMI.2004.828354 (Warfield, Zou and Wells, STAPLE).
    """
    import SimpleITK

    if all((mask == masks[0]).all() for mask in masks[1:]):
        return masks[0]
    images = [SimpleITK.GetImageFromArray(mask) for mask in masks]
    probability = SimpleITK.STAPLE(images, 1.0, 1.0, STEPS)
    return (SimpleITK.GetArrayFromImage(probability) >= 0.5).astype(np.uint8)


def frame_agreement(
    predicted: np.ndarray, masks: list[np.ndarray], with_staple: bool
) -> dict[str, float] | None:
    """Return the Dice overlaps of a frame; None where no rater shows a nerve.

    They are of the prediction with each rater (`dice_1`, ...) and of each two raters
    (`dice_1_2`, ...); the means of both, `predicted_dice` and `raters_dice`, and their
    `difference`; and of the prediction with the raters' majority and consensus by STAPLE.

    Args:
        predicted: uint8 mask `(height, width)` of 0 and 1.
        masks: Likewise of each rater, two or more.

    Source: https://pmc.ncbi.nlm.nih.gov/articles/PMC11103080 compares a network with
    experts, and them with each other, in this way.
    """
    if not any(mask.any() for mask in masks):
        return None
    each = {f"dice_{k}": scores.dice(mask, predicted) for k, mask in enumerate(masks, 1)}
    pairs = {
        f"dice_{k}_{n}": scores.dice(one, other)
        for (k, one), (n, other) in itertools.combinations(enumerate(masks, 1), 2)
    }
    row = {"predicted_dice": scores.mean(each.values())}
    row["raters_dice"] = scores.mean(pairs.values())
    row["difference"] = row["predicted_dice"] - row["raters_dice"]
    row["majority_dice"] = scores.dice(majority(masks), predicted)
    if with_staple:
        row["staple_dice"] = scores.dice(staple(masks), predicted)
    return each | pairs | row


def summarize(rows: list[dict | None], clusters: list) -> dict:
    """Return the mean of each value of `frame_agreement`, with its 95 % interval.

    Beside it the number of frames that count; of none, that alone. `clusters` as of
    `scores.summarize`.
    """
    kept = [(row, c) for row, c in zip(rows, clusters, strict=True) if row is not None]
    summary = {"frames_of_raters": len(kept)}
    for name in kept[0][0] if kept else ():
        values = np.array([row[name] for row, _ in kept])
        interval = scores.bootstrap(values, np.array([cluster for _, cluster in kept]))
        summary |= {name: float(values.mean()), f"{name}_interval": interval}
    return summary


def matrix(summary: dict, names: list[str]) -> list[list[str]]:
    """Return the Dice of the prediction and each rater with each, by name, a text each."""
    rows, numbers = [["", *names]], range(1, len(names) + 1)
    for k, name in enumerate(("predicted", *names[:-1])):
        keys = [f"dice_{k}_{n}" if k else f"dice_{n}" for n in numbers]
        rows.append([name, *(f"{summary[x]:.4f}" if x in summary else "" for x in keys)])
    return rows


def without_pairs(summary: dict) -> dict:
    """Return what is of all raters together, which `matrix` does not show."""
    return {key: value for key, value in summary.items() if not key.startswith("dice_")}


def has_staple() -> bool:
    """Tell whether STAPLE's package is installed."""
    return importlib.util.find_spec("SimpleITK") is not None


def name_raters(paths: list[Path]) -> list[str]:
    """Return names of the files of raters, each another, as short as tells them apart."""
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is given twice; give a file of each rater once")
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else list(map(str, paths))


def say(summary: dict) -> str:
    """Return in a sentence whether the network agrees as the raters with each other."""
    if "difference" not in summary:
        return "no rater shows a nerve in any frame: there is no agreement to compare"
    low, high = summary["difference_interval"] or (-1, 1)
    how = "less than" if high < 0 else "more than" if low > 0 else "about as much as"
    certain = "" if high < 0 or low > 0 else ", no difference is certain"
    return (
        f"the network agrees with the raters {how} they agree with each other: Dice "
        f"{summary['predicted_dice']:.4f} and {summary['raters_dice']:.4f}{certain}"
    )
