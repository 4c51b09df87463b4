"""Soft Dice, the losses made of it, and cross-entropy."""

from nerve.backend import ops
from nerve.records import Recipe

SMOOTH = 1.0  # pixels; keeps an empty batch predicted empty at 1 instead of 0 / 0


def smooth_dice(overlap, total, smooth=SMOOTH):
    """Return `(2 overlap + smooth) / (total + smooth)` of sums over pixels."""
    return (2.0 * overlap + smooth) / (total + smooth)


def dice_coef(y_true, y_pred):
    """Soft Dice overlap of a batch, `(2 sum(t p) + smooth) / (sum(t) + sum(p) + smooth)`.

    Args:
        y_true: Masks, `(batch, height, width, 1)`, each pixel 0 or 1.
        y_pred: Nerve probabilities in [0, 1], same shape.

    Returns:
        Float scalar in (0, 1]; 1 is full overlap, and an empty batch predicted empty.

    Source: https://arxiv.org/abs/2207.09521 (pooling over the batch, and `smooth`).
    """
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    total = ops.sum(y_true) + ops.sum(y_pred)
    return smooth_dice(ops.sum(y_true * y_pred), total)


def dice_coef_loss(y_true, y_pred):
    """The negative of `dice_coef`, in [-1, 0): a loss of -1 is perfect."""
    return -dice_coef(y_true, y_pred)


def build_tversky_crossentropy_loss(missed_share: float, empty_smooth: float | None):
    """Return the loss `1 - Tversky index` plus binary cross-entropy, frame by frame.

    The Tversky index `TP / (TP + missed_share FN + (1 - missed_share) FP)` is Dice at one
    half; above, it asks for larger masks. SMOOTH is added to both of its sums.

    Args:
        missed_share: Weight of missed pixels, 0 to 1; false ones get the rest.
        empty_smooth: Pixels, as a share of the frame, that stand for SMOOTH where the mask
            is empty; None is SMOOTH there, too.

    Sources: https://arxiv.org/abs/1809.10486, section 2.2 (their sum, here frame by frame);
    https://arxiv.org/abs/1706.05721, equation 4.
    """

    def tversky_crossentropy_loss(y_true, y_pred):
        """Return the loss of each frame, `(batch,)`, 0 or more.

        Arguments as of `dice_coef`; a pixel of a mask is 0 to 1, its share of nerve.
        """
        y_pred = ops.convert_to_tensor(y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        overlap = ops.sum(y_true * y_pred, axis=(1, 2, 3))
        true, found = (ops.sum(y, axis=(1, 2, 3)) for y in (y_true, y_pred))
        total = 2.0 * (missed_share * true + (1.0 - missed_share) * found)
        smooth = SMOOTH
        if empty_smooth is not None:
            empty = empty_smooth * y_true.shape[1] * y_true.shape[2]
            smooth = ops.where(true > 0, SMOOTH, empty)
        entropy = ops.mean(ops.binary_crossentropy(y_true, y_pred), axis=(1, 2, 3))
        return 1.0 - smooth_dice(overlap, total, smooth) + entropy

    return tversky_crossentropy_loss


def build_loss(recipe: Recipe):
    """Return the loss that a recipe names, a function of (y_true, y_pred).

    Raises:
        ValueError: there is none of that name.
    """
    if recipe.loss == "dice_coef_loss":
        return dice_coef_loss
    if recipe.loss == "tversky_crossentropy_loss":
        return build_tversky_crossentropy_loss(recipe.missed_share, recipe.empty_smooth)
    raise ValueError(
        f"recipe {recipe.name}: loss {recipe.loss!r}; expected dice_coef_loss or "
        "tversky_crossentropy_loss (losses.py)"
    )
