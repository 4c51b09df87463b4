"""Which mask belongs to which frame of people's own, and whose each frame is."""

import collections
import functools
import re
import unicodedata
from collections.abc import Callable, Collection
from pathlib import Path

from nerve.command import listed
from nerve.files.run_length import read_rows
from nerve.frames import dicom, pictures
from nerve.frames.outlines import Drawing, clean, read_coco, read_cvat, stem_of

MASK = re.compile("(.+?)_mask[-_]?[0-9]*", re.IGNORECASE)  # a name after its frame's
OUTLINES = (".json", ".xml")
READ = (
    "masks are pictures (NAME, NAME_mask, NAME_mask_1), labelme's NAME.json, one .xml of "
    "CVAT for images 1.1, or one .json of COCO; in folders of the same names where frames "
    "lie in folders. DICOM Segmentations are not read"
)


def ends_in(*suffixes: str) -> Callable[[Path], bool]:
    """Return what tells whether a file has one of these suffixes."""
    return lambda path: path.suffix.lower() in suffixes


def list_files(
    folder: Path, wanted: Callable[[Path], bool], deep: bool = False
) -> list[Path]:
    """Return sorted files of a folder, or `deep` of those in it, as of `check_file`.

    Hidden ones are passed over.
    """
    paths = []
    for path in sorted(folder.glob("*/*" if deep else "*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and wanted(path):
            pictures.check_file(path, folder)
            paths.append(path)
    return paths


def by_stem(
    paths: list[Path], folder: Path, frames: Collection[str] = ()
) -> dict[str, list[Path]]:
    """Return `{stem: files}`; NAME_mask is NAME's where `frames` holds none called so.

    A stem is a name below `folder` without its suffix: "7", or "anna/7".

    Raises:
        ValueError: two files differ by their suffix, or the form of their name, alone.
    """
    found, stems = {}, set()
    for path in paths:
        stem = stem_of(path.relative_to(folder), 1)
        if stem in stems:
            raise ValueError(f"{folder} holds several pictures called {stem}")
        stems.add(stem)
        mask = MASK.fullmatch(stem) if frames and stem not in frames else None
        found.setdefault(mask[1] if mask else stem, []).append(path)
    return found


def find_frames(images: Path, masks: Path) -> dict[str, Path]:
    """Return `{stem: frame}` of a folder, which may hold the masks, too.

    Where it holds none, those of the folders in it are meant: one for each subject.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: no picture, or as of `list_files` and `by_stem`.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images} is no folder; expected one of pictures")
    is_frame = functools.partial(dicom.is_of, suffixes=pictures.SUFFIXES)
    paths = list_files(images, is_frame) or list_files(images, is_frame, deep=True)
    if masks.exists() and not images.samefile(masks):
        paths = [path for path in paths if not path.parent.samefile(masks)]
    used = {*paths, *(path.parent for path in paths), masks}
    found = by_stem(paths, images)
    if masks.exists() and images.samefile(masks):
        found = {stem: paths for stem, paths in found.items() if not MASK.fullmatch(stem)}
    others = [p for p in images.iterdir() if p.suffix.lower() not in OUTLINES]
    others = listed(p.name for p in others if p not in used and p.name[0] != ".")
    if not found:
        what = f" but {others}; folders are entered one deep" if others else ""
        kinds = ", ".join(pictures.SUFFIXES)
        raise ValueError(f"{images} holds no picture ({kinds}) and no DICOM file{what}")
    if others:
        print(f"note: of {images} passed over: {others}")
    return {stem: path for stem, (path,) in found.items()}


def find_masks(masks: Path, frames: dict[str, Path]) -> dict[str, list[Path | Drawing]]:
    """Return `{stem: masks}` of what --masks names; `frames` as of `find_frames`.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is of none of the formats that are read.
    """
    if not masks.exists():
        raise FileNotFoundError(f"{masks} is missing; expected masks of the frames")
    whole, deep = [masks], any("/" in stem for stem in frames)
    if masks.is_dir():
        drawn = by_stem(list_files(masks, ends_in(".json"), deep), masks, frames)
        painted = list_files(masks, ends_in(*pictures.SUFFIXES), deep)
        mine = set(frames.values())
        painted = by_stem([p for p in painted if p not in mine], masks, frames)
        whole, found, passed = list_files(masks, ends_in(*OUTLINES)), painted, drawn
        if drawn.keys() & frames.keys():
            found, passed = drawn, painted
        if found.keys() & frames.keys() or not whole:
            if passed:
                print(f"note: of {masks} passed over: other files of {listed(passed)}")
            return found
    if len(whole) > 1 or whole[0].suffix.lower() not in OUTLINES:
        raise ValueError(f"{masks} holds {listed(path.name for path in whole)}; {READ}")
    found, read = {}, read_cvat if whole[0].suffix.lower() == ".xml" else read_coco
    for name, drawing in read(whole[0]):
        stem = stem_of(name, deep)
        if stem in found:
            raise ValueError(f"{whole[0]} holds several pictures called {stem!r:.80}")
        found[stem] = [drawing]
    return found


def find_pairs(
    images: Path, masks: Path, missing_empty: bool = False
) -> list[tuple[Path, list[Path | Drawing]]]:
    """Return `[(frame, its masks)]`, paired by stem; of `missing_empty` these may be none.

    Raises:
        ValueError: frames without a mask, or the other way round; it names them.
    """
    frames = find_frames(images, masks)
    found = find_masks(masks, frames)
    lack = "{} of {} lack a {} of their name in {}: {}".format
    if missing := frames.keys() - found.keys():
        said = lack(len(missing), len(frames), "mask", masks, listed(missing))
        if len(missing) == len(frames):
            raise ValueError(f"{said}; {READ}")
        if not missing_empty:
            raise ValueError(f"{said}; {READ}; do they show no nerve? --missing-empty")
        print(f"note: {said}; they are taken for frames without a nerve")
    if alone := found.keys() - frames.keys():
        said = lack(len(alone), len(found), "frame", images, listed(alone))
        if not isinstance(next(iter(found.values()))[0], Drawing):
            raise ValueError(f"{said}; {READ}")
        print(f"note: {said}")
    if joined := [stem for stem, several in found.items() if len(several) > 1]:
        print(f"note: {len(joined)} frames have several masks, joined: {listed(joined)}")
    return [(frame, found.get(stem, [])) for stem, frame in frames.items()]


def as_person(name: str) -> str:
    """Return a subject's name without what makes two spellings of it.

    That is case, blanks and what stands for them, what does not print, Unicode form, and
    zeros before a number.
    """
    name = unicodedata.normalize("NFKC", name).casefold()
    name = " ".join(re.sub("[-_.,]", " ", name).split())
    name = "".join(filter(str.isprintable, name))
    return re.sub("(?<![0-9])0+(?=[0-9])", "", name)


def read_subjects(table: Path, deep: bool = False) -> dict[str, str]:
    """Return `{stem of a frame: subject}` of a CSV with the columns name and subject.

    Raises:
        ValueError: as of `read_rows`, or a name with two subjects.
    """
    found = {}
    for line, row in read_rows(table, "name", "subject"):
        stem, subject = stem_of(row["name"].strip(), deep), row["subject"]
        if as_person(found.setdefault(stem, subject)) != as_person(subject):
            both = f"{found[stem]!r} and {subject!r}"
            raise ValueError(f"{table} line {line}: {row['name']} has the subjects {both}")
    return found


def name_subjects(
    names: list[str], pattern: str | None, table: Path | None
) -> list[str] | None:
    """Return each frame's subject as text, or None where nothing names them.

    Args:
        names: Of the frames' files, perhaps with the folder of each: then that is the
            subject where neither of the others is given.
        pattern: Regular expression; its first group, or all of it, is the subject.
        table: As of `read_subjects`.
    """
    if pattern:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"--subject-pattern {pattern!r}: {error}") from error
        matches = [expression.search(clean(name)) for name in names]
        found = [match and match[min(1, expression.groups)] for match in matches]
        lacking = f"--subject-pattern {pattern!r} finds none in"
    elif table:
        deep = "/" in names[0]
        rows = read_subjects(table, deep)
        found = [rows.get(stem_of(name, deep)) for name in names]
        lacking = f"{table} names no subject for"
    elif "/" in names[0]:
        found, lacking = [name.split("/")[0] for name in names], "no folder about"
        print(f"note: each folder is taken for a subject: {listed(set(found))}")
    else:
        return None
    for name, subject in zip(names, found, strict=True):
        if not (subject and subject.strip()):
            raise ValueError(f"{lacking} {name}")
    return found


def join_spellings(subjects: list[str]) -> list[str]:
    """Return the subjects, each in the first of its spellings; those joined are said."""
    spellings = collections.defaultdict(set)
    for subject in subjects:
        spellings[as_person(subject)].add(subject)
    if joined := [sorted(names) for names in spellings.values() if len(names) > 1]:
        said = listed(" = ".join(map(repr, names)) for names in joined)
        print(f"note: {len(joined)} subjects are spelt in several ways and joined: {said}")
    return [min(spellings[as_person(subject)]) for subject in subjects]
