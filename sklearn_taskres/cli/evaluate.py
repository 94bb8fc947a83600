"""Measure a model on a folder of photos that it has not seen, one folder per class.

Prints accuracy with its 95 % interval, log loss, calibration, the classes that are confused most,
and those with the lowest accuracy.
"""

import argparse
from typing import Any

import numpy as np

from .models import add_model_argument, load_model
from .output import MOST_CLASSES, counted, say, say_some, say_table

EXAMPLES = """\
  sklearn-taskres evaluate model.skops test-photos
  sklearn-taskres evaluate model.skops test-photos --cache embeddings\
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_argument(parser)
    parser.add_argument("photos", metavar="PHOTOS", help="folder: PHOTOS/<class name>/<image>")


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from ..datasets import load_image_folder
    from ..inspection._figures import calibration_error, confusions, log_loss_of, share_of

    paths, y = load_image_folder(options.photos, on_error="warn")
    model = load_model(options)
    labels, codes = _codes(y, model.classes_)
    log_proba = model[-1].predict_log_proba(model[:-1].transform(paths))
    predicted = log_proba.argmax(axis=1)
    say(counted(y))
    say(f"accuracy           {share_of(predicted == codes)}")
    say(f"log loss           {log_loss_of(log_proba, codes):.3f}")
    say(f"calibration error  {100 * calibration_error(np.exp(log_proba), codes):.1f} points")
    _report_classes(confusions(codes, predicted, len(labels)), labels)
    return 0


def _codes(y: np.ndarray, classes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Column of each label; folders are called by the text of a label."""
    labels = [str(label) for label in classes.tolist()]
    unknown = sorted(set(y.tolist()) - set(labels))
    if unknown:
        raise ValueError(
            f"The model does not know the classes {unknown[:5]}. It knows "
            f"{', '.join(labels[:MOST_CLASSES])}{', …' if len(labels) > MOST_CLASSES else ''}."
        )
    column = {label: i for i, label in enumerate(labels)}
    return labels, np.array([column[label] for label in y.tolist()])


def _report_classes(counts: np.ndarray, labels: list[str]) -> None:
    """Print the confusion matrix, or of many classes the pairs, and the worst classes."""
    if len(labels) <= MOST_CLASSES:
        say("confusions, a row per true class:")
        header = ["", *(label[:8] for label in labels)]
        body = [[name, *row] for name, row in zip(labels, counts.tolist(), strict=True)]
        say_table([header, *body])
    wrong = counts - np.diag(np.diag(counts))
    pairs = sorted(zip(*np.nonzero(wrong), strict=True), key=lambda pair: -wrong[pair])
    if pairs:
        rows: list[Any] = [(f"{labels[i]} taken for {labels[j]}", wrong[i, j]) for i, j in pairs]
        say_some(rows, "confused most")
    totals = counts.sum(axis=1)
    seen = np.flatnonzero(totals)
    recall = np.diag(counts)[seen] / totals[seen]
    worst = [
        (labels[i], f"{100 * r:.0f} %", f"of {totals[i]}")
        for i, r in zip(seen, recall, strict=True)
    ]
    order = [
        row for row, r in sorted(zip(worst, recall, strict=True), key=lambda pair: pair[1]) if r < 1
    ]
    if order:
        say_some(order, "lowest accuracy")
