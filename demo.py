"""See the chain work: a phantom, weights fine-tuned on it, masks, and their scores.

    python demo.py

Reads   weights/unet_nerve.h5
Writes  demo/raw/ (the phantom), demo/data/, demo/weights/unet.h5 with its learning curve,
        demo/predictions/

Takes about a minute on two cores. Fails unless the challenge's score is 0.10 above that of
predicting nothing. The same command goes on where it was stopped.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from nerve import command

STEPS = """
phantom.py --out demo/raw --train 400 --test 100 --subjects 16
extract_data.py --raw demo/raw --data demo/data
preprocess.py --data demo/data --like weights/unet_nerve.h5 --soft-masks
train.py --data demo/data --out demo/weights/unet.h5 --recipe modern
    --init weights/unet_nerve.h5 --epochs 4 --resume
predict.py --data demo/data --weights demo/weights/unet.h5 --out demo/predictions
evaluate.py demo/predictions/submission.csv demo/raw/test_truth.csv --require-gain 0.10
""".replace("\n    ", " ")


def main(argv: list[str] | None = None) -> None:
    command.Parser(__doc__).parse_args(argv)
    for step in STEPS.strip().splitlines():
        print(f"\n$ python {step}", flush=True)
        words = [sys.executable, *shlex.split(step)]
        if status := subprocess.run(words, cwd=Path(__file__).parent).returncode:
            sys.exit(status)  # the script has said why
    print("\nlearning curve: demo/weights/unet.png; overlays: demo/predictions/overlays/")


if __name__ == "__main__":
    sys.exit(command.run(main))
