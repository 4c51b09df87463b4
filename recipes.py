"""How to train: each recipe with all its values. Add one of your own to RECIPES."""

from nerve.records import Augmentation, Recipe

# Where everybody starts.
CLASSIC = Recipe(
    name="classic",
    height=96,  # what it is meant for; the arrays decide
    width=96,
    network="unet",
    filters=32,
    depth=4,
    dropout=0.0,
    # The network starts by calling 1.8 % of the pixels nerve; in the challenge 1.2 % are.
    # From one half, Dice first pushes every pixel down: on phantoms, four trainings of
    # four at rates of 3e-4 and 1e-3 stayed at "all empty".
    # Source: https://arxiv.org/abs/1708.02002, section 4.1.
    initial_logit=-4.0,
    loss="dice_coef_loss",
    missed_share=None,
    empty_smooth=None,
    learning_rate=1e-5,
    schedule="constant",
    warm_up=None,
    final_rate=None,
    average=None,
    balance=False,
    augmentation=None,
    batch_size=32,
    epochs=60,
    weight_decay=None,
)
# What was measured to find the nerve better in subjects never seen, in less time.
MODERN = Recipe(
    name="modern",
    height=128,
    width=176,
    network="fast_unet",
    filters=16,
    depth=4,
    dropout=0.2,
    initial_logit=-4.0,
    loss="tversky_crossentropy_loss",
    # One half is Dice. With 0.7 the outlines come out too large on the challenge.
    missed_share=0.5,
    # A third of a nerve. With one pixel, the first false ones of an empty frame cost as
    # much as a missed nerve; where half of the frames are empty, networks then give up
    # looking for any.
    empty_smooth=0.01,
    learning_rate=2e-3,
    schedule="cosine",
    warm_up=0.1,
    final_rate=0.01,
    average=0.1,
    balance=True,
    # Machines that training never saw have other greys, depths, borders and textures.
    augmentation=Augmentation(
        flips=0.5,
        rotation=20.0,
        scale=(0.65, 1.6),
        shear=0.15,
        shift=0.1,
        black_borders=0.5,
        filtered=0.3,
        blur=1.2,
        sharpen=1.0,
        speckle=0.1,
        black_level=0.2,
        white_level=0.3,
        gamma=0.4,
        slope=0.2,
        depth_gain=0.12,
        gain=0.3,
        fans=0.1,
        letters=0.05,
        halved=0.5,
        crops=0.2,
    ),
    batch_size=8,
    epochs=12,
    weight_decay=0.05,
)
RECIPES = {recipe.name: recipe for recipe in (CLASSIC, MODERN)}
