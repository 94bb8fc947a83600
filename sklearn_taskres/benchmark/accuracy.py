"""Accuracy of methods by shots and seeds, from embeddings: a JSON line a cell, and a report."""

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from .. import sample_few_shot
from .._version import __version__
from . import report
from .features import Features, read_features
from .machine import describe_machine
from .methods import METHODS, chosen_values, own_parameters
from .results import append_line, read_lines

#: What tells one cell from another; the other fields of a line are what came out.
IDENTITY = ("data", "digest", "base_norm", "method", "parameters", "shots", "seed", "version")


def add_arguments(parser):
    """Add this subcommand's options to an argparse parser."""
    parser.add_argument(
        "--features", nargs="+", type=Path, default=[], metavar="FILE.npz", help="a data set each"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(METHODS),
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}; all by default",
    )
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--base-norm", type=float, default=10.0, help="given to class embeddings of unit norm"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of results.jsonl; a rerun continues it"
    )
    parser.add_argument(
        "--report", action="store_true", help="write report.md and report.png of all cells there"
    )


def run(options):
    """Run the cells that are not there yet, and write the report where it is asked for."""
    if not (options.features or options.report):
        sys.exit("Nothing to do. Pass --features FILE.npz ..., or --report for what is there.")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.jsonl"
    if options.features:
        _run_cells(_pending(options, read_lines(path)), path)
    if options.report:
        report.write(read_lines(path), options.output)


class Cell(NamedTuple):
    """One fit to come: its data, and what identifies it."""

    features: Features
    identity: dict[str, Any]

    def estimator(self):
        """Return the method's estimator, not fitted."""
        make = METHODS[self.identity["method"]]
        return make(self.features.base, self.features.class_names, self.identity["seed"])


def _pending(options, lines):
    """List the cells that are asked for and not among the lines.

    A line counts if all of IDENTITY agrees. So another version of the package, other parameters of
    a method or another content of the file make a new cell, and the report takes the later one.
    """
    done = {_key(line) for line in lines}
    cells = [
        _cell(features, options.base_norm, method, shots, seed)
        for features in _data_sets(options)
        for method in options.methods
        for shots in options.shots
        for seed in options.seeds
    ]
    return [cell for cell in cells if _key(cell.identity) not in done]


def _data_sets(options):
    names = [path.stem for path in options.features]
    if len(set(names)) < len(names):
        sys.exit(f"Two files have one name, which is the data set's: {sorted(names)}. Rename one.")
    return [read_features(path, options.base_norm) for path in options.features]


def _cell(features, base_norm, method, shots, seed):
    params = own_parameters(METHODS[method](features.base, features.class_names, seed))
    values = features.name, features.digest, base_norm, method, params, shots, seed, __version__
    return Cell(features, dict(zip(IDENTITY, values, strict=True)))


def _key(line):
    return json.dumps([line.get(name) for name in IDENTITY], sort_keys=True)


def _run_cells(cells, path):
    from .._device import resolve_device

    machine = describe_machine(resolve_device(None))
    warm: set[str] = set()
    for cell in tqdm(cells, desc="accuracy", unit="cell"):
        method = cell.identity["method"]
        if method not in warm:
            _warm_up(cell)
            warm.add(method)
        append_line(path, {**cell.identity, **_measure(cell), "machine": machine})


def _warm_up(cell):
    """Fit two classes, so that no cell's time holds the import of torch or a device's start."""
    y = cell.features.y
    rows = np.concatenate([np.flatnonzero(y == label)[:2] for label in (0, 1)])
    cell.estimator().fit(cell.features.X[rows], y[rows])


def _measure(cell):
    """Fit on the cell's shots and predict the test rows: once, when all is chosen."""
    data = cell.features
    rows = sample_few_shot(data.y, cell.identity["shots"], random_state=cell.identity["seed"])
    clf = cell.estimator()
    start = time.perf_counter()
    clf.fit(data.X[rows], data.y[rows])
    seconds = time.perf_counter() - start
    return {
        "accuracy": float(np.mean(clf.predict(data.X_test) == data.y_test)),
        "fit_seconds": round(seconds, 4),
        "n_train": len(rows),
        "n_test": len(data.y_test),
        "n_parameters": int(clf.n_parameters_),
        "chosen": chosen_values(clf),
    }
