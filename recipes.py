"""How to train: what each recipe is."""

ENCODER = "weights/lite0_imagenet.h5"  # of ImageNet; see encoder.py

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
        "depth": 4,
        "encoder": ENCODER,
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
RECIPES["small"] = {
    **RECIPES["modern"],
    "network": "small_unet",
    "filters": 22,
    "epochs": 20,
}
FLAGS = ("filters", "depth", "learning_rate", "batch_size", "epochs")  # override it
