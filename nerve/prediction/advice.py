"""What may have gone wrong where predictions look all alike, as far as can be checked."""

import numpy as np

from nerve.frames.foreign import unlike
from nerve.prediction.inference import Prediction
from nerve.records import Frames, Trained

FULL = 0.9  # share of a frame above which a mask counts as covering all of it
NEARLY_ALL = 0.98  # share of frames with a nerve predicted that is worth a word
ENOUGH = 20  # frames before which it is not, unless the training explains it
HARDLY_TRAINED = 0.3  # dice_coef of the training
FEW_EMPTY = 0.1  # share of training frames without a nerve
FOREIGN_SHARE = 0.2  # of the frames, unlike all training frames, that is worth a word


def empty_share(parts: list[Frames]) -> float:
    """Return the share of training frames without a nerve; 1.0 where it is not known."""
    total = sum(part.frames for part in parts)
    return 1 - sum(part.frames_with_nerve for part in parts) / total if total else 1.0


class Watch:
    """Counts what the predictions look like, to say what may have gone wrong."""

    def __init__(self, trained: Trained):
        """Watch what weights find; `trained` is their record."""
        self.trained = trained
        self.frames = self.positive = self.full = self.foreign = 0
        self.highest, self.grey_sum, self.brightest = 0.0, 0.0, 0

    def see(self, found: Prediction) -> None:
        """Count one frame with its mask."""
        self.frames += 1
        area = np.count_nonzero(found.mask)
        self.positive += area > 0
        self.full += area > FULL * found.mask.size
        self.highest = max(self.highest, float(found.probability.max()))
        self.grey_sum += float(found.frame[::4, ::4].mean())  # a sixteenth is enough
        self.brightest = max(self.brightest, int(found.frame.max()))
        self.foreign += (
            bool(self.trained.looks) and unlike(found.look, self.trained.looks) > 1
        )

    def advise(self, prevalence: float | None) -> str | None:
        """Return a warning with the likely causes, or None where all looks usual.

        A prevalence is the share of frames kept, instead of the limit on presence.
        """
        if not self.frames:
            return None
        if self.full == self.frames:
            what = "every mask covers its whole frame"
        elif self.positive == 0:
            what = "no frame has a nerve predicted"
        elif self.positive >= NEARLY_ALL * self.frames and (
            self.frames >= ENOUGH or empty_share(self.trained.trained_on) < FEW_EMPTY
        ):
            what = f"{self.positive} of {self.frames} frames have a nerve predicted"
        else:
            return None
        causes = self.causes(prevalence)
        if not causes:
            causes = ["no cause found in range, scaling or training data"]
        return f"warning: {what}. {'; '.join(causes)}"

    def advise_on_looks(self) -> str | None:
        """Return a warning where many frames are unlike all training frames, or None."""
        if not self.trained.looks:
            return (
                "note: whether these frames look like the training frames is not known: "
                "the weights do not say how those looked"
            )
        if self.foreign <= FOREIGN_SHARE * self.frames:
            return None
        return (
            f"warning: {self.foreign} of {self.frames} frames look unlike all training "
            "frames (another machine, setting or border): masks, found or not, may be "
            "wrong; look at them. To mend it, outline 10 or more and train on: python "
            "extract_data.py --images DIR --masks DIR --data own; python preprocess.py "
            "--data own --like WEIGHTS.h5 --soft-masks; python train.py --data own --init "
            "WEIGHTS.h5 --recipe modern --learning-rate 3e-4 --out weights/own.h5 "
            "(docs/transfer-learning.md)"
        )

    def causes(self, prevalence: float | None) -> list[str]:
        """Return the causes that can be checked."""
        trained = self.trained
        causes, limits = [], trained.limits
        grey, mean = self.grey_sum / self.frames, trained.inputs.mean
        if self.brightest <= 1:
            causes.append("the frames hold only 0 and 1; expected greys of 0 to 255")
        elif not trained.looks and abs(grey - mean) > trained.inputs.standard_deviation:
            causes.append(
                f"the frames' mean grey is {grey:.0f}, the training frames' {mean:.0f}: "
                "another range, gain or probe"
            )
        kept = (trained.kept or {}).get("dice_coef")
        if self.positive == 0 and self.highest >= limits.threshold:
            area = f"smallest_area {limits.smallest_area:.3g}"
            text = f"the weights' presence {limits.least_presence:.3g} or {area}"
            if prevalence is not None:
                text = f"--prevalence {prevalence:g} or the weights' {area}"
            causes.append(f"masks were found, and emptied by {text}")
        elif self.positive == 0:
            causes.append(
                f"the highest probability is {self.highest:.3f}, the threshold "
                f"{limits.threshold}"
            )
        if kept is not None and kept < HARDLY_TRAINED:
            causes.append(f"the weights are hardly trained (dice_coef {kept:.3f})")
        if self.positive and (share := empty_share(trained.trained_on)) < FEW_EMPTY:
            causes.append(
                f"{share:.1%} of the training frames were without a nerve: these weights "
                "hardly learnt to leave a frame empty (--prevalence keeps the surest)"
            )
        return causes
