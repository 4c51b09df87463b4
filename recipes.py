"""How to train: what each recipe is, and the losses it may name."""

import encoder
from backend import keras
from losses import dice_coef_loss, tversky_crossentropy_loss

# A recipe is one entry. `height` and `width` are what it is meant for; the arrays decide.
RECIPES = {
    "classic": {
        "height": 96,
        "width": 96,
        "network": "unet",
        "filters": 32,
        "depth": 4,
        "encoder": None,  # weights of the contracting path to start from
        "loss": "dice_coef_loss",
        "learning_rate": 1e-5,
        "schedule": "constant",
        "average": False,  # of the weights over the last steps
        "balance": False,  # subjects drawn by the root of their number of frames
        "augment": False,
        "batch_size": 32,
        "epochs": 60,
    },
    "modern": {
        "height": 192,
        "width": 256,
        "network": "lite_unet",
        "filters": 32,
        "depth": encoder.DEPTH,
        "encoder": encoder.WEIGHTS,
        "loss": "tversky_crossentropy_loss",
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "average": True,
        "balance": True,
        "augment": True,
        "batch_size": 16,
        "epochs": 10,
    },
}
RECIPES["small"] = {**RECIPES["modern"], "network": "small_unet", "filters": 16}
FLAGS = ("filters", "depth", "learning_rate", "batch_size", "epochs")  # override it
LOSSES = {
    "dice_coef_loss": dice_coef_loss,
    "tversky_crossentropy_loss": tversky_crossentropy_loss,
}
WARM_UP = 0.1  # share of all steps in which "cosine" raises the rate from 0
FINAL_RATE = 0.01  # share of the rate that it ends with
AVERAGED_SHARE = 0.1  # of all steps: the window of the exponential average


def build_optimizer(settings, num_frames):
    """Return the optimizer that the recipe asks for.

    Args:
        settings: What `choose_settings` returned.
        num_frames: Frames an epoch.
    """
    steps = settings["epochs"] * -(-num_frames // settings["batch_size"])
    rate = settings["learning_rate"]
    if settings["schedule"] == "cosine":
        warm_up = round(WARM_UP * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm_up), FINAL_RATE, "rate", rate, warm_up
        )
    average = {}
    if settings["average"]:
        momentum = max(0.0, 1 - 1 / (AVERAGED_SHARE * steps))
        average = {"use_ema": True, "ema_momentum": momentum}
    optimizer = keras.optimizers.Adam(rate, **average)
    if settings["precision"] == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
