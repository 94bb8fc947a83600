"""Seconds of the command on 30 photos of digits: fit, predict, evaluate, review.

Run ``python tests/measure_command.py [-n RUNS] [--imports]`` (two minutes). The bundled model
learns three digits from 30 JPEG files in folders: first in this process, with the packages
imported, then in a process each, as a shell does. A round that is not counted brings the packages'
files into memory; ``--imports`` adds how long Python takes to import what each loads.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from test_cli import write_photos

from sklearn_taskres.cli import main as run_here

#: What the subcommands import, apart from this package.
PACKAGES = ("open_clip", "skops.io", "skorch", "sklearn.pipeline")


def commands(folder):
    """Arguments of each subcommand, one line each for whoever types them."""
    photos, unseen = write_photos(folder / "photos", 0, 10), write_photos(folder / "new", 20, 8)
    model, page = folder / "model.skops", folder / "review.html"
    return {
        "fit": ["fit", photos, "-o", model, "--model", "glyph-clip"],
        "predict": ["predict", model, unseen / "two" / "0.jpg", "--top", "3"],
        "evaluate": ["evaluate", model, unseen],
        "review": ["review", model, photos, "--pool", unseen, "-o", page],
    }


def run(arguments, *options):
    """Seconds of a process, its stdout, and its stderr; CalledProcessError if it fails."""
    command = [sys.executable, *options, "-m", "sklearn_taskres", *map(str, arguments)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=offline)  # noqa: S603
    return time.perf_counter() - started, done.stdout, done.stderr


def run_imported(lines):
    """Print the seconds of each subcommand in this process, packages imported, nothing computed."""
    for package in PACKAGES:
        importlib.import_module(package)
    whole = 0.0
    for name, arguments in lines.items():
        started = time.perf_counter()
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            status = run_here([str(argument) for argument in arguments])
        if status:
            raise SystemExit(said.getvalue())
        seconds = time.perf_counter() - started
        whole += seconds
        print(f"{name:9} {seconds:5.2f} s in a process that has the packages", flush=True)
    print(f"{'all':9} {whole:5.2f} s", flush=True)


def import_seconds(arguments):
    """Seconds within imports by ``-X importtime``, which slows them a little."""
    _, _, report = run(arguments, "-X", "importtime")
    own = re.findall(r"^import time: +(\d+) \|", report, re.MULTILINE)
    return sum(map(int, own)) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--runs", type=int, default=5, help="rounds that are counted")
    parser.add_argument("--imports", action="store_true", help="measure imports, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = commands(Path(folder))
        run_imported(lines)
        for arguments in lines.values():
            print(f"$ sklearn-taskres {' '.join(map(str, arguments))}".replace(f"{folder}/", ""))
            print(run(arguments)[1].replace(f"{folder}/", ""))
        seconds = np.array([[run(line)[0] for line in lines.values()] for _ in range(options.runs)])
        for name, column in zip(lines, seconds.T, strict=True):
            imports = f", imports {import_seconds(lines[name]):.2f} s" if options.imports else ""
            spread = f"{column.min():.2f} to {column.max():.2f}"
            print(f"{name:9} {np.median(column):5.2f} s, {spread}{imports}", flush=True)
        whole = seconds.sum(axis=1)
        print(f"{'all':9} {np.median(whole):5.2f} s, {whole.min():.2f} to {whole.max():.2f}")


if __name__ == "__main__":
    main()
