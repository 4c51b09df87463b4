"""Soft Dice, the losses made of it, and cross-entropy."""

from keras import ops

SMOOTH = 1.0  # pixels; keeps an empty batch predicted empty at 1 instead of 0 / 0
# Weight of missed pixels; false ones get the rest. With one half each, which is Dice, the
# outlines of subjects that training never saw come out a tenth too small.
MISSED_SHARE = 0.7
# Pixels, as a share of the frame, that stand for SMOOTH where the mask is empty: a third of
# a nerve. With one pixel, the first false ones cost as much as a missed nerve; where half
# of the frames are empty, networks then give up looking for any.
EMPTY_SMOOTH = 0.01


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


def tversky_crossentropy_loss(y_true, y_pred):
    """Each frame's `1 - Tversky index`, plus its binary cross-entropy.

    Args:
        y_true: Masks, `(batch, height, width, 1)`, each pixel 0 to 1: its share of nerve.
        y_pred: Nerve probabilities in [0, 1], same shape.

    Returns:
        Float tensor `(batch,)`, 0 or more; near 0 where an empty mask is predicted empty.

    The Tversky index `TP / (TP + MISSED_SHARE FN + (1 - MISSED_SHARE) FP)` is Dice at one
    half; above, it asks for larger masks. SMOOTH is added to both of its sums; for an empty
    mask, EMPTY_SMOOTH of the frame.

    Sources: https://arxiv.org/abs/1809.10486, section 2.2 (their sum, here frame by frame);
    https://arxiv.org/abs/1706.05721, equation 4.
    """
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    overlap = ops.sum(y_true * y_pred, axis=(1, 2, 3))
    true, found = (ops.sum(y, axis=(1, 2, 3)) for y in (y_true, y_pred))
    total = 2.0 * (MISSED_SHARE * true + (1.0 - MISSED_SHARE) * found)
    empty = EMPTY_SMOOTH * y_true.shape[1] * y_true.shape[2]
    smooth = ops.where(true > 0, SMOOTH, empty)
    entropy = ops.mean(ops.binary_crossentropy(y_true, y_pred), axis=(1, 2, 3))
    return 1.0 - smooth_dice(overlap, total, smooth) + entropy
