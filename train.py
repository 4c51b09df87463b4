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

CHANGES = ("filters", "depth", "learning_rate", "batch_size", "epochs")  # of a recipe


def is_finished(out: Path, resume: bool) -> bool:
    """Return whether `out` is a finished run to be left alone.

    Raises:
        ValueError: a result is in the way of a new run.
    """
    record, state = out.with_suffix(".json"), out.with_suffix(".state.npz")
    if out.exists() and not record.exists() and not state.exists():
        raise ValueError(
            f"{out} is there, weights that are never overwritten; choose another --out"
        )
    if not resume:
        for path, what in ((state, "an interrupted run"), (record, "a result")):
            if path.exists():
                raise ValueError(
                    f"{path} is there: {what}, which is never overwritten; "
                    "add --resume, or choose another --out"
                )
    elif not state.exists() and not record.exists():
        print(f"nothing to resume at {out}: starting from the beginning")
    if record.exists() and not out.exists():
        rest = f"{record} and {state}" if state.exists() else record
        raise ValueError(
            f"{record} is there, but not {out}; bring that back, or remove {rest}"
        )
    return record.exists() and not state.exists()


def parse_args(
    argv: list[str] | None = None, recipes: Mapping[str, Recipe] = RECIPES
) -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add, whole = parser.add_argument, command.whole
    add(
        "--data",
        type=Path,
        nargs="+",
        default=[Path("data")],
        help="folders of preprocess.py's arrays, each a source of frames",
    )
    add("--out", type=Path, default="weights/unet.h5", help="file to write, an .h5")
    add("--recipe", choices=recipes, default="classic", help="how to train")
    add("--seed", type=whole(0), default=0, help="seed of weights and order")
    add("--epochs", type=whole(1, 10**6), help="instead of the recipe's")
    rate = command.number(0, 1, above=True)
    add("--learning-rate", type=rate, help="instead of the recipe's")
    add("--batch-size", type=whole(1, 10**5), help="frames, instead of the recipe's")
    add(
        "--filters",
        type=whole(1, 256),
        help="channels of the first level, instead of the recipe's",
    )
    add(
        "--depth",
        type=whole(1, 6),
        help="times the frame is halved, instead of the recipe's",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="to compute in; weights are always kept and saved in float32",
    )
    add(
        "--devices",
        type=whole(1, 10**5),
        help="to share each batch among, on JAX; without it one, or with several machines "
        "all of theirs",
    )
    add("--init", type=Path, help="pretrained .h5 to start from (transfer learning)")
    add(
        "--keep",
        choices=("best", "last"),
        default="best",
        help="epoch whose weights are kept: best by val_dice_coef; last, for runs whose "
        "validation frames are going to be reported",
    )
    add("--resume", action="store_true", help="continue an interrupted run")
    add("--tensorboard", type=Path, help="folder to write TensorBoard's files in, too")
    add(
        "--dry-run",
        action="store_true",
        help="print data, network, and memory and time needed, and stop",
    )
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
        changes = {name: getattr(args, name) for name in CHANGES}
        changes = {name: value for name, value in changes.items() if value is not None}
        precision, why = choose_precision(args.precision)
        print(f"precision {precision}: {why}")
        how = args.seed, args.keep, precision, args.init
        run = plan(recipes[args.recipe], changes, *how, splits)
        recipe = run.recipe
        worker = devices.find_worker(
            process, num_processes, args.devices, recipe.batch_size
        )
        design = loop.Design(build_network, build_loss(recipe), dice_coef, smooth_dice)
        inputs = design, run, arrays, subjects, args.init, worker
        if args.dry_run:
            rehearse(*inputs)
            return
        board = None
        if args.tensorboard and process == 0:
            board = open_board(args.tensorboard)
        try:
            history = loop.train(args.out, *inputs, board)
        except KeyboardInterrupt as error:
            again = "stopped; the same command with --resume goes on from the last epoch"
            raise KeyboardInterrupt(again) from error
        if process == 0:
            loop.finish(args.out, history, run.keep)


if __name__ == "__main__":
    sys.exit(command.run(main))
