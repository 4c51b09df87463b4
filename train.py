"""Train the U-Net.

    python train.py --data data --out weights/unet.h5

Reads   data/x_train.npy, data/y_train.npy, data/x_val.npy, data/y_val.npy,
        data/preprocess.json
Writes  weights/unet.h5, weights/unet.json, weights/unet.csv, weights/unet.png (the
        learning curve), weights/unet.progress.png (some validation frames every few
        epochs); while it runs also weights/unet.state.npz, which --resume continues from
"""

import argparse
import contextlib
import sys
from pathlib import Path

import stage
from h5_look import look
from precision import PRECISIONS
from recipes import RECIPES
from settings import choose_settings, read_data


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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default="data", help="folder of preprocess.py's arrays")
    add("--out", type=Path, default="weights/unet.h5", help="file to write, an .h5")
    add("--recipe", choices=RECIPES, default="classic", help="how to train")
    add("--seed", type=int, default=0, help="seed of weights and order, 0 or more")
    add("--epochs", type=int, help="1 or more; default: the recipe's")
    add("--learning-rate", type=float, help="above 0, up to 1; default: the recipe's")
    add("--batch-size", type=int, help="frames, 1 or more; default: the recipe's")
    add(
        "--filters", type=int, help="channels of the first level; default: the recipe's"
    )
    add("--depth", type=int, help="times the frame is halved; default: the recipe's")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="to compute in; weights are always kept and saved in float32",
    )
    add(
        "--devices",
        type=int,
        help="to share each batch among, on JAX; default: one, or with several machines "
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
    limits = {"epochs": 10**6, "batch_size": 10**5, "filters": 256, "depth": 6}
    limits["devices"] = 10**5
    for name, most in limits.items():
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} {value}; expected 1 to {most}")
    if args.learning_rate is not None and not 0 < args.learning_rate <= 1:
        parser.error(f"--learning-rate {args.learning_rate}; expected above 0, up to 1")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}; expected 0 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.init:
        look(args.init)
    import devices  # here: TensorFlow takes seconds to import
    import training
    from progress import open_board

    with (
        devices.connect() as (process, num_processes),
        stage.lock(args.out.parent, args.out.stem)
        if process == 0 and not args.dry_run
        else contextlib.nullcontext(),
    ):
        if not args.dry_run and is_finished(args.out, args.resume):
            print(
                f"{args.out} is finished; nothing to do (to train on from it: --init "
                f"{args.out} and another --out)"
            )
            return
        record, arrays = read_data(args.data)
        settings = choose_settings(args, record, arrays)
        place = devices.find_place(
            process, num_processes, args.devices, settings["batch_size"]
        )
        inputs = settings, arrays, record["train"], args.init, place
        if args.dry_run:
            training.rehearse(*inputs)
            return
        board = None
        if args.tensorboard and process == 0:
            board = open_board(args.tensorboard)
        try:
            history = training.train(args.out, *inputs, board)
        except KeyboardInterrupt as error:
            again = (
                "stopped; the same command with --resume goes on from the last epoch"
            )
            raise KeyboardInterrupt(again) from error
        if process == 0:
            training.finish(args.out, history, settings["keep"])


if __name__ == "__main__":
    sys.exit(stage.run(main))
