"""Seconds of fits and searches next to what a user would run instead, as ratios from one run."""

import argparse
import json
import re
import sys
from pathlib import Path

from .._arguments import check_writable, checked_device, positive
from . import fits, growth, searches, streamed
from .machine import describe_machine

_PARTS = {"fit": fits, "search": searches, "growth": growth, "map": streamed}
#: Those of TaskResClassifier, which are not imported for `--help`.
_PRECISIONS = ("auto", "float32", "bfloat16")
#: Classes by width, from ten classes to ImageNet.
_SIZES = ("10x512", "47x512", "100x512", "397x512", "1000x1024")


def add_arguments(parser):
    """Add this subcommand's options to an argparse parser."""
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=["fit", "search"])
    parser.add_argument(
        "--sizes", nargs="+", type=_size, default=[_size(s) for s in _SIZES], metavar="KxD"
    )
    parser.add_argument("--search-size", type=_size, default=(47, 512), metavar="KxD")
    parser.add_argument("--search-epochs", type=positive, default=200)
    parser.add_argument("--shots", type=positive, default=16, help="training images per class")
    parser.add_argument("--full", action="store_true", help="all epochs, whatever the size")
    parser.add_argument(
        "--baselines", nargs="*", choices=fits.BASELINES, default=list(fits.BASELINES)
    )
    parser.add_argument("--device", help="as in TaskResClassifier")
    parser.add_argument(
        "--precision", choices=_PRECISIONS, default="auto", help="as in TaskResClassifier"
    )
    parser.add_argument(
        "--repeats", type=positive, default=5, help="runs per figure; medians count"
    )
    parser.add_argument("--output", type=Path, help="write the figures as JSON there")
    parser.add_argument("--figure", type=Path, help="draw the part growth there")


def run(options):
    """Measure the parts that `options` names, print them, and write them as JSON."""
    device = checked_device(options.device)
    for path in (options.output, options.figure):
        check_writable(path)
    results = {"machine": describe_machine(device)}
    _say(" · ".join(f"{name} {value}" for name, value in results["machine"].items()))
    for part in options.parts:
        results[part] = _PARTS[part].measure(options, device, _say)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _size(text):
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or int(match[1]) < 2 or int(match[2]) < 2:
        raise argparse.ArgumentTypeError(
            f"a size is classes x width, each at least 2, such as 47x512, not {text}"
        )
    return int(match[1]), int(match[2])


def _say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
