"""Masks of near-identical frames, written as if each were another rater's of one frame.

    python benchmarks/stand_ins.py --data data --out raters
    python evaluate.py predictions/validation.csv raters/1.csv raters/2.csv raters/3.csv

Nobody at hand has two raters' outlines of the same frames. The challenge's sweeps hold
frames that hardly differ, outlined one by one: a frame's own mask is rater 1's, those of
the frames most like it are the others'. They have moved a little, which real raters' have
not. Frames with too few such others are left out.
"""

from pathlib import Path

import numpy as np
import quality

from nerve import command
from nerve.files import atomic, run_length
from nerve.frames.agreement import find_near_identical
from nerve.records import read_split, read_training_frames


def main(argv=None):
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default="data", help="preprocessed; its validation frames")
    add("--out", type=Path, default="raters", help="folder to write 1.csv, ... into")
    add("--raters", type=command.whole(2, 9), default=3, help="stand-ins of each frame")
    add("--similarity", type=command.number(0, 1), default=quality.SIMILAR, help="of greys")
    args = parser.parse_args(argv)
    rows = read_split(args.data).val.rows
    extract, frames, masks = read_training_frames(args.data)
    subjects = np.array(extract.train.subject)[rows]
    near = find_near_identical(frames[rows], subjects, args.similarity)
    kept = [k for k, others in enumerate(near) if len(others) >= args.raters - 1]
    atomic.make_folder(args.out)
    for rater in range(args.raters):
        path = args.out / f"{rater + 1}.csv"
        with atomic.write_csv(path, ("subject", "img", "pixels")) as writer:
            for k in kept:
                likest = [k, *sorted(near[k], key=near[k].get, reverse=True)]
                pixels = run_length.encode(masks[rows[likest[rater]]])
                writer.writerow([subjects[k], extract.train.image[rows[k]], pixels])
    print(f"{len(kept)} of {len(rows)} frames with {args.raters} stand-ins: {args.out}")


if __name__ == "__main__":
    main()
