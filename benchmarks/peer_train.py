"""One public network trained in PyTorch as a row of quality.py, alone in its process.

    python benchmarks/peer_train.py monai --data FOLDER --out peer.npz --recipe JSON

Batches, augmentation, rate, schedule, averaged weights, precision and loss (Dice of each
frame plus cross-entropy: MONAI's DiceCELoss) are those of the recipe; the network is
MONAI's BasicUNet at its own defaults, or segmentation_models_pytorch's Unet with a resnet34
that is not pretrained. Writes the validation frames' probabilities, of the last epoch.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nerve.records import Recipe, build, read_split  # noqa: E402
from nerve.training import batches  # noqa: E402

NETWORKS = ("monai", "smp")


def build_network(name, recipe):
    """Return a network of grey frames to logits, `(batch, 1, height, width)` both."""
    if name == "monai":
        from monai.networks.nets import BasicUNet

        model = BasicUNet(spatial_dims=2, in_channels=1, out_channels=1)
        torch.nn.init.constant_(model.final_conv.bias, recipe.initial_logit)
        return model
    import segmentation_models_pytorch

    return segmentation_models_pytorch.Unet(
        "resnet34", encoder_weights=None, in_channels=1, classes=1
    )


def rate(step, steps, recipe):
    """Return the learning rate of a step, as Keras's CosineDecay with warm-up."""
    warm_up, final = round(recipe.warm_up * steps), recipe.final_rate
    if step < warm_up:
        return recipe.learning_rate * step / warm_up
    done = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    share = final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
    return recipe.learning_rate * share


def padded(x):
    """Return frames as `(batch, 1, height, width)`, mirrored to multiples of 32."""
    x = torch.from_numpy(np.ascontiguousarray(x[..., 0]))[:, None]
    rows, columns = (-size % 32 for size in x.shape[2:])
    return torch.nn.functional.pad(x, (0, columns, 0, rows), mode="reflect")


def train(model, data, recipe, seed):
    """Train on the folder's training frames; leave the averaged weights in the model."""
    from monai.losses import DiceCELoss

    x, y = (np.load(data / f"{n}_train.npy", mmap_mode="r") for n in "xy")
    subjects = np.array(read_split(data).train.subject)
    size, epochs = recipe.batch_size, recipe.epochs
    steps, step = epochs * -(-len(x) // size), 0
    optimizer = torch.optim.Adam(model.parameters(), fused=True, eps=1e-7)  # Keras's
    momentum = 1 - 1 / (recipe.average * steps)
    average = torch.optim.swa_utils.AveragedModel(
        model,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(momentum),
        use_buffers=True,
    )
    loss_of = DiceCELoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
    for epoch in range(epochs):
        order, total = batches.draw_balanced(subjects, seed, epoch), 0.0
        model.train()
        changes = recipe.augmentation, seed, epoch
        for frames, masks in batches.batches(x, y, order, size, changes):
            optimizer.param_groups[0]["lr"] = rate(step, steps, recipe)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(padded(frames))
            logits = logits.float()[..., : frames.shape[1], : frames.shape[2]]
            loss = loss_of(logits, torch.from_numpy(masks[..., 0])[:, None])
            loss.backward()
            optimizer.step()
            average.update_parameters(model)
            total, step = total + loss.item() * len(frames), step + 1
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(order):.4f}", flush=True)
    return average.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    recipe = build(Recipe, args.recipe)
    model = build_network(args.network, recipe).to(memory_format=torch.channels_last)
    model = train(model, args.data, recipe, args.seed)
    x, found = np.load(args.data / "x_val.npy", mmap_mode="r"), []
    for start in range(0, len(x), 32):
        frames = x[start : start + 32]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(padded(frames)).float()
        logits = logits[:, 0, : x.shape[1], : x.shape[2]]
        found.append(logits.sigmoid().numpy().astype(np.float16))
    np.savez_compressed(args.out, probabilities=np.concatenate(found))


if __name__ == "__main__":
    main()
