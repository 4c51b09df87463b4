"""Train the U-Net.

    python train.py --data data --out weights/unet.h5
    python train.py --data data own --out weights/unet.h5

Reads   data/x_train.npy, data/y_train.npy, data/x_val.npy, data/y_val.npy,
        data/preprocess.json
Writes  weights/unet.h5, weights/unet.json, weights/unet.csv, weights/unet.png (the
        learning curve), weights/unet.progress.png (some validation frames every few
        epochs); while it runs also weights/unet.state.npz, which --resume continues from
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from nerve import command
from nerve.files import atomic
from nerve.files.h5_look import look
from nerve.precision import PRECISIONS, choose_precision
from nerve.records import Recipe
from nerve.training.plan import plan, read_data
from recipes import RECIPES


def is_finished(out: Path, resume: bool) -> bool:
    """Return whether `out` is a finished run to be left alone; refuse one in the way."""
    record, state = out.with_suffix(".json"), out.with_suffix(".state.npz")
    known = [path for path in (record, state) if path.exists()]
    if out.exists() and not known:
        raise ValueError(
            f"{out} is there, weights that are never overwritten; choose another --out"
        )
    if known and not resume:
        what = "an interrupted run" if state in known else "a result"
        raise ValueError(
            f"{known[-1]} is there: {what}, which is never overwritten; add --resume, or "
            "choose another --out"
        )
    if resume and not known:
        print(f"nothing to resume at {out}: starting from the beginning")
    if record in known and not out.exists():
        rest = " and ".join(map(str, known))
        raise ValueError(
            f"{record} is there, but not {out}; bring that back, or remove {rest}"
        )
    return known == [record]


def parse_args(
    argv: list[str] | None = None, recipes: Mapping[str, Recipe] = RECIPES
) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, whole = parser.add_argument, command.whole
    text = "folders of preprocess.py's arrays, each a source of frames"
    add("--data", type=Path, nargs="+", default=[Path("data")], help=text)
    add("--out", type=Path, default="weights/unet.h5", help="file to write, an .h5")
    add("--recipe", choices=recipes, default="classic", help="how to train")
    add("--seed", type=whole(0), default=0, help="seed of weights and order")
    for flag, kind, text in (
        ("--epochs", whole(1, 10**6), ""),
        ("--learning-rate", command.number(0, 1, above=True), ""),
        ("--batch-size", whole(1, 10**5), "frames, "),
        ("--filters", whole(1, 256), "channels of the first level, "),
        ("--depth", whole(1, 6), "times the frame is halved, "),
    ):
        add(flag, type=kind, help=f"{text}instead of the recipe's")
    text = "to compute in; weights are always kept and saved in float32"
    add("--precision", choices=PRECISIONS, default="auto", help=text)
    text = "to share each batch among, on JAX; without it one, or of several machines all"
    add("--devices", type=whole(1, 10**5), help=text)
    add("--init", type=Path, help="pretrained .h5 to start from (transfer learning)")
    text = "epoch kept: best by val_dice_coef; last, where that is going to be reported"
    add("--keep", choices=("best", "last"), default="best", help=text)
    add("--resume", action="store_true", help="continue an interrupted run")
    add("--tensorboard", type=Path, help="folder to write TensorBoard's files in, too")
    text = "print data, network, and memory and time needed, and stop"
    add("--dry-run", action="store_true", help=text)
    args = parser.parse_args(argv)
    if args.out.suffix != ".h5":
        parser.error(f"--out {args.out}; expected a name that ends in .h5")
    return args


def main(argv: list[str] | None = None, recipes: Mapping[str, Recipe] = RECIPES) -> None:
    args = parse_args(argv, recipes)
    if args.init:
        look(args.init)
    # here: TensorFlow takes seconds to import
    from losses import build_loss, dice_coef, smooth_dice
    from model import build_network
    from nerve.training import devices, loop
    from nerve.training.progress import open_board
    from nerve.training.rehearsal import rehearse

    with (
        devices.connect() as (process, num_processes),
        atomic.lock(args.out.parent, args.out.stem)
        if process == 0 and not args.dry_run
        else contextlib.nullcontext(),
    ):
        if not args.dry_run and is_finished(args.out, args.resume):
            print(
                f"{args.out} is finished; nothing to do (to train on from it: --init "
                f"{args.out} and another --out)"
            )
            return
        splits, arrays, subjects = read_data(args.data)
        fields = {field.name for field in dataclasses.fields(Recipe)}
        changes = {n: v for n, v in vars(args).items() if n in fields and v is not None}
        precision, why = choose_precision(args.precision)
        print(f"precision {precision}: {why}")
        how = args.seed, args.keep, precision, args.init
        run = plan(recipes[args.recipe], changes, *how, splits)
        among = process, num_processes, args.devices, run.recipe.batch_size
        loss, worker = build_loss(run.recipe), devices.find_worker(*among)
        design = loop.Design(build_network, loss, dice_coef, smooth_dice)
        job = loop.Job(design, run, arrays, subjects, args.init, worker)
        if args.dry_run:
            rehearse(job)
            return
        writes = args.tensorboard and process == 0
        board = open_board(args.tensorboard) if writes else None
        try:
            history = loop.train(args.out, job, board)
        except KeyboardInterrupt as error:
            again = "stopped; the same command with --resume goes on from the last epoch"
            raise KeyboardInterrupt(again) from error
        if process == 0:
            loop.finish(args.out, history, run.keep)


if __name__ == "__main__":
    sys.exit(command.run(main))
