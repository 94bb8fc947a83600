"""Look through a folder of photos before learning from it; needs no CLIP.

Reports files that can't be read or are passed over, photos that lie in two classes (the same, or
nearly), how many there are per class, and class names that CLIP will hardly understand. The exit
status is 1 if photos can't be read, lie in two classes, or are all of one class.
"""

import argparse
import re
import warnings
from pathlib import Path

import numpy as np

from .output import MOST_CLASSES, counted, plural, printable, say, say_some

EXAMPLES = """\
  sklearn-taskres check photos\
"""
#: Classes with fewer photos get a word.
_FEW = 4
#: A class with so many times the photos of the smallest one makes the folder unbalanced.
_UNBALANCED = 10
#: Words that name a folder and not what is seen.
_PLACEHOLDERS = {"class", "data", "folder", "images", "img", "label", "misc", "new folder", "none"}
_PLACEHOLDERS |= {"other", "others", "photos", "test", "train", "unknown", "unsorted", "untitled"}
#: Longest name in words.
_MOST_WORDS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("photos", metavar="PHOTOS", help="folder: PHOTOS/<class name>/<image>")


def run(options: argparse.Namespace) -> int:
    """Look and print."""
    from ..datasets import load_image_folder, why_unreadable
    from ..inspection._duplicates import duplicates

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paths, y = load_image_folder(options.photos)
    root = Path(options.photos)
    short = [Path(path).relative_to(root).as_posix() for path in paths.tolist()]
    say(counted(y))
    for warning in caught:
        say(str(warning.message))
    reasons = why_unreadable(paths.tolist())
    bad = [(name, why) for name, why in zip(short, reasons, strict=True) if why]
    if bad:
        say_some(bad, f"{plural(len(bad), 'photo')} can't be read")
    good = np.array([why is None for why in reasons])
    pairs = duplicates(paths[good].tolist())
    names, labels = np.array(short)[good], y[good]
    across = [pair for pair in pairs if labels[pair.first] != labels[pair.second]]
    within = [pair for pair in pairs if labels[pair.first] == labels[pair.second]]
    for found, where in ((across, "in two classes"), (within, "twice in one class")):
        if found:
            rows = [(names[p.first], names[p.second], p.kind) for p in found]
            say_some(rows, f"{plural(len(found), 'pair')} of photos {where}")
    only_one_class = why_one_class(options.photos, y)
    if only_one_class:
        say(only_one_class)
    _report_counts(y)
    for name in sorted(set(y.tolist())):
        why = hard_to_read(name)
        if why:
            say(f"name {name!r}: {why}")
    if not (bad or pairs):
        say("every photo can be read, and none is there twice")
    return 1 if bad or across or only_one_class else 0


def why_one_class(photos: str, y: np.ndarray) -> str | None:
    """Say it if all photos are of one class, and name the folder that was probably meant."""
    names = np.unique(y)
    if len(names) > 1:
        return None
    inside = Path(photos, str(names[0]))
    n_inside = sum(entry.is_dir() for entry in inside.iterdir()) if inside.is_dir() else 0
    meant = f" It holds {plural(n_inside, 'folder')}: did you mean {inside}?" if n_inside else ""
    return (
        f"{photos} holds photos of one class, {printable(str(names[0]))!r}, and at least two are "
        f"needed.{meant}"
    )


def _report_counts(y: np.ndarray) -> None:
    names, counts = np.unique(y, return_counts=True)
    few = [(name, n) for name, n in zip(names, counts, strict=True) if n < _FEW]
    if few:
        say_some(few, f"classes with fewer than {_FEW} photos", MOST_CLASSES)
    if counts.max() >= _UNBALANCED * counts.min():
        say(
            f"unbalanced: {names[counts.argmax()]} has {counts.max()} photos and "
            f"{names[counts.argmin()]} has {counts.min()}; consider class_weight='balanced'"
        )


def hard_to_read(name: str) -> str | None:
    """Say why CLIP will hardly understand a class name, or None."""
    words = name.replace("_", " ").replace("-", " ").split()
    plain = " ".join(words).lower()
    if not any(c.isalpha() for c in name):
        return "has no letters; CLIP reads words, so rename the folder to what is seen"
    if plain in _PLACEHOLDERS or re.fullmatch(r"(class|img|label|folder) ?\d+", plain):
        return "says nothing of what is seen"
    if any(re.search(r"[^\W\d]", w) and re.search(r"\d\d", w) for w in words):
        return "looks like a code; CLIP reads words, as in a caption"
    if len(plain) < 2:
        return "is one letter"
    if len(words) == 1 and re.search(r"[a-z][A-Z]", name):
        return "is written without spaces; put a space between its words"
    if not name.isascii():
        return "is not plain English letters, which most CLIPs were trained on"
    if len(words) > _MOST_WORDS:
        return f"is longer than {_MOST_WORDS} words"
    return None
