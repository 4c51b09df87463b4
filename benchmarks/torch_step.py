"""One PyTorch contender of training_step.py, alone in its process.

    python benchmarks/torch_step.py unet --precision bfloat16 --layout channels_last

Prints the seconds of a training step and the GFLOP of its convolutions, as one line of
JSON. It needs only PyTorch (and MONAI for `monai`), so that any interpreter can run it.
"""

import argparse
import functools
import json

import measure
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

CLASSIC = {"height": 96, "width": 96, "filters": 32, "batch_size": 32}  # the recipe's
DEPTH = 4
EMPTY_LOGIT = -4.0  # the recipe's
SMOOTH = 1.0  # losses.py's
PRODUCTS, WARM_UP = 5, 2  # timed, and before


def double_convolution(channels, filters):
    """Return two 3 x 3 convolutions with ReLU."""
    layers = []
    for before in (channels, filters):
        layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """The network of model.build_unet, up to the logit."""

    def __init__(self, filters):
        super().__init__()
        channels = [filters * 2**level for level in range(DEPTH + 1)]
        self.down = nn.ModuleList(map(double_convolution, [1, *channels], channels))
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(DEPTH)):
            below, here = channels[level + 1], channels[level]
            self.grow.append(nn.ConvTranspose2d(below, here, 2, stride=2))
            self.up.append(double_convolution(below, here))
        self.logit = nn.Conv2d(filters, 1, 1)
        nn.init.constant_(self.logit.bias, EMPTY_LOGIT)

    def forward(self, x):
        """Return logits of frames, `(batch, 1, height, width)` both."""
        skips = []
        for convolution in self.down:
            x = convolution(nn.functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        skips.pop()
        for grow, convolution in zip(self.grow, self.up, strict=True):
            x = convolution(torch.cat([grow(x), skips.pop()], 1))
        return self.logit(x)


def build_monai(filters):
    """Return MONAI's BasicUNet of like size: 7.78 M parameters at 32 filters."""
    from monai.networks.nets import BasicUNet

    features = (*(filters * 2**level for level in range(DEPTH + 1)), filters)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=features)


def dice_loss(y_true, logits):
    """Return the negative soft Dice of a batch, as losses.dice_coef_loss."""
    y_pred = logits.float().sigmoid()
    overlap, total = (y_true * y_pred).sum(), y_true.sum() + y_pred.sum()
    return -(2 * overlap + SMOOTH) / (total + SMOOTH)


def train_step(model, optimizer, x, y, precision):
    """Train on one batch and return its loss as a float."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(x)
    loss = dice_loss(y, logits)
    loss.backward()
    optimizer.step()
    return loss.item()


def measure_step(network, sizes, steps, precision, layout, compiled):
    """Train two epochs; return seconds a step of the second, and GFLOP of a step."""
    batch_size = sizes["batch_size"]
    torch.manual_seed(0)
    build = build_monai if network == "monai" else UNet
    model = build(sizes["filters"])
    frames = measure.draw_frames(batch_size * steps, sizes["height"], sizes["width"])
    # of one channel, both layouts are the same bytes
    x, y = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in frames)
    memory_format = getattr(torch, f"{layout}_format", None) or getattr(torch, layout)
    model = model.to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=True)
    counter = FlopCounterMode(display=False)
    with counter:
        train_step(model, optimizer, x[:batch_size], y[:batch_size], precision)
    if compiled:
        model = torch.compile(model)

    def train_epoch():
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            batch = x[rows].contiguous(memory_format=memory_format)
            train_step(model, optimizer, batch, y[rows], precision)

    train_epoch()
    return {
        "seconds": measure.seconds_of(train_epoch) / steps,
        "frames": batch_size,
        "gflop": counter.get_total_flops() / 1e9,
        "precision": precision,
    }


def measure_product(size, precision):
    """Return the seconds and GFLOP of a product of two square matrices."""
    a = torch.randn(size, size, dtype=getattr(torch, precision))
    multiply = functools.partial(torch.matmul, a, a)
    measure.seconds_of(multiply, WARM_UP)
    seconds = measure.seconds_of(multiply, PRODUCTS)
    return {"seconds": seconds, "gflop": 2 * size**3 / 1e9, "precision": precision}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("what", choices=("unet", "monai", "product"), help="what to measure")
    add("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of it")
    add("--layout", choices=("contiguous", "channels_last"), default="contiguous")
    add("--compile", action="store_true", help="by torch.compile; needs g++")
    add("--size", type=int, default=3072, help="rows of the product's matrices")
    measure.add_step_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.what == "product":
        result = measure_product(args.size, args.precision)
    else:
        sizes = {name: getattr(args, name) or CLASSIC[name] for name in CLASSIC}
        result = measure_step(
            args.what, sizes, args.steps, args.precision, args.layout, args.compile
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
