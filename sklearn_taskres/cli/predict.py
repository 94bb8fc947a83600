"""Label photos with a model that `fit` saved.

Files may be photos or folders of them. Prints the most probable classes of each; photos that can't
be read are listed, and make the exit status 1.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .._arguments import check_writable, positive
from .._persistence import written_whole
from .models import add_model_argument, load_model
from .output import complain, plural, say

EXAMPLES = """\
  sklearn-taskres predict model.skops new.jpg
  sklearn-taskres predict model.skops holiday/ --top 3 --csv labels.csv
  sklearn-taskres predict model.skops *.jpg --json > labels.json\
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_argument(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", help="photos, or folders of photos")
    parser.add_argument(
        "--top", type=positive, default=1, metavar="K", help="classes per photo; 1 by default"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", metavar="FILE", help='write a table; "-" is stdout')
    form.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Predict and print."""
    is_file = options.csv not in (None, "-")
    if is_file:
        check_writable(Path(options.csv))
    paths = _photos(options.files)
    model = load_model(options)
    X, read, failures = embedded(model, paths)
    names = [paths[i] for i in read]
    k = min(options.top, len(model.classes_))
    rows = list(zip(names, top(model[-1], X, k), strict=True)) if read else []
    if options.csv == "-":
        _write_csv(sys.stdout, rows, k)
    elif is_file:
        with (
            written_whole(options.csv) as part,  # names of files may be any bytes
            part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            _write_csv(file, rows, k)
        complain(f"saved  {options.csv} ({plural(len(rows), 'photo')})")
    elif options.json:
        found = [{"path": path, "predictions": [c._asdict() for c in best]} for path, best in rows]
        json.dump(found, sys.stdout, indent=1)
        say()
    else:
        for path, best in rows:
            say(path, *(f"{c.label} {c.probability:.3f}" for c in best))
    for _, path, why in failures:
        complain(f"can't read {path}: {why}")
    return 1 if failures else 0


def embedded(model: Any, paths: list[str]) -> tuple[Any, list[int], list[tuple[int, str, str]]]:
    """Embed what can be read: embeddings, their places in `paths`, and the failures."""
    from .. import UnreadableImagesError

    try:
        return model[:-1].transform(paths), list(range(len(paths))), []
    except UnreadableImagesError as error:
        bad = set(error.indices)
        read = [i for i in range(len(paths)) if i not in bad]
        X = model[:-1].transform([paths[i] for i in read]) if read else None
        return X, read, error.failures


def top(classifier: Any, X: np.ndarray, k: int) -> list[list[Any]]:
    """Return the k most probable classes of each row, with probabilities, the best first."""
    from ..inspection import predict_top

    return predict_top(classifier, X, k)


def _photos(files: list[str]) -> list[str]:
    """Paths of photos, those of folders listed."""
    from ..datasets import images_below

    paths = []
    for file in files:
        if Path(file).is_dir():
            found = [str(path) for path in images_below(Path(file))]
            if not found:
                raise ValueError(f"The folder {file} holds no photos.")
            paths += found
        else:
            paths.append(file)
    return paths


def _write_csv(file: TextIO, rows: list[Any], k: int) -> None:
    writer = csv.writer(file, lineterminator="\n")
    numbers = ["", *(f"_{i}" for i in range(2, k + 1))]
    header = [column for n in numbers for column in (f"label{n}", f"probability{n}")]
    writer.writerow(["path", *header])
    for path, best in rows:
        writer.writerow([path, *(cell for c in best for cell in (c.label, f"{c.probability:.6f}"))])
