"""Train with a recipe given as JSON, where train.py takes one of recipes.py.

    python benchmarks/train_recipe.py RECIPE --data data --out weights/row.h5

RECIPE is what NAME.json says under `recipe`; the flags are train.py's. With the arrays, the
seed and the precision of that record, this ends in the same .h5, byte for byte.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import train
from nerve import command
from nerve.records import Recipe, build


def main(argv=None):
    text, *flags = sys.argv[1:] if argv is None else argv
    recipe = build(Recipe, json.loads(text))
    train.main(["--recipe", recipe.name, *flags], {recipe.name: recipe})


if __name__ == "__main__":
    sys.exit(command.run(main))
