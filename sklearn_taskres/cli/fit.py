"""Learn from a folder of photos that has one folder per class, and save the model.

Prints how well the class names alone do (zero-shot), how well the model does on images held out in
cross-validation, with 95 % intervals, and which classes gained or lost.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .._arguments import seed
from .check import why_one_class
from .models import add_machine_arguments, check_model_path, save_model
from .output import counted, plural, say, say_some

EXAMPLES = """\
  sklearn-taskres fit photos -o model.skops
  sklearn-taskres fit photos -o model.skops --search --cache embeddings
  sklearn-taskres fit flowers -o flowers.skops --model ViT-L-14 \\
      --templates "a photo of a {}, a type of flower."\
"""
#: Folds of the cross-validation.
_FOLDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("photos", metavar="PHOTOS", help="folder: PHOTOS/<class name>/<image>")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="model.skops")
    parser.add_argument(
        "--model",
        default="ViT-B-32",
        help='the CLIP, "ViT-B-32" by default; "glyph-clip" needs no download',
    )
    parser.add_argument("--pretrained", default="openai", help='its weights, "openai" by default')
    parser.add_argument(
        "--templates",
        nargs="+",
        default=["a photo of a {}."],
        metavar="TEXT",
        help="prompts with {} for the class name, or the name of a data set that has some",
    )
    parser.add_argument(
        "--method",
        choices=("taskres-gda", "taskres"),
        default="taskres-gda",
        help="TaskRes joined with Gaussian classes (default), or TaskRes alone",
    )
    parser.add_argument(
        "--search", action="store_true", help="TaskRes alone, with alpha chosen by cross-validation"
    )
    parser.add_argument(
        "--corrections", metavar="FILE", help="labels that the page of `review` saved"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of every random draw; 0 by default")
    add_machine_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Fit, report and save."""
    from ..datasets import load_image_folder
    from ..inspection._held_out import deal

    output = Path(options.output)
    paths, y = load_image_folder(options.photos, on_error="warn", corrections=options.corrections)
    check_model_path(output)
    why = why_one_class(options.photos, y)
    if why:
        raise ValueError(why)
    say(counted(y))
    model = _pipeline(options)
    X = model["clip"].fit_transform(paths)
    classes, codes = np.unique(y, return_inverse=True)
    before = _zero_shot(model, classes, X)
    say(f"zero-shot        {_accuracy(before, y)}")
    folds = deal(codes, _FOLDS, np.random.RandomState(options.seed))
    _report_held_out(model[-1], X, y, before, folds)
    fitted = model[-1].fit(X, y)
    if options.search:
        chosen = ", ".join(f"{k} {v}" for k, v in _chosen(fitted).items())
        say(f"chosen           {chosen}")
        fitted = fitted.best_estimator_
    save_model(Pipeline([("clip", model["clip"]), ("taskres", fitted)]), output)
    say(f"saved            {output} ({output.stat().st_size / 1024:.0f} kB)")
    say(f"next             sklearn-taskres predict {output} new.jpg")
    return 0


def _pipeline(options: argparse.Namespace) -> Pipeline:
    from .. import (
        TaskResClassifier,
        TaskResClassifierCV,
        TaskResGDAClassifier,
        make_taskres_pipeline,
    )

    one = len(options.templates) == 1
    model = make_taskres_pipeline(
        options.model,
        options.pretrained,
        templates=options.templates[0] if one else options.templates,
        cache=options.cache,
        device=options.device,
        random_state=options.seed,
        verbose=int(not options.quiet),
        classifier=TaskResClassifier if options.method == "taskres" else TaskResGDAClassifier,
    )
    if options.search:
        base = model["taskres"].base
        search = TaskResClassifierCV(base, device=options.device, random_state=options.seed)
        model.steps[-1] = ("taskres", search)
    return model


def _zero_shot(model: Pipeline, classes: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Labels by the class names alone."""
    from .. import ZeroShotClassifier

    return ZeroShotClassifier(model[-1].base).fit(None, classes).predict(X)


def _accuracy(predicted: np.ndarray, y: np.ndarray) -> str:
    from ..inspection._figures import share_of

    return str(share_of(predicted == y))


def _report_held_out(
    classifier: Any, X: np.ndarray, y: np.ndarray, before: np.ndarray, folds: np.ndarray
) -> None:
    """Print the accuracy on images held out, and what each class gained against zero-shot."""
    from ..inspection._held_out import held_out_predictions

    judged = folds >= 0
    if not judged.any():
        say("cross-validated  not possible: every class has one image")
        return
    after = held_out_predictions(classifier, X, y, folds)
    left_out = int(np.sum(~judged))
    note = f"; {plural(left_out, 'image')} that nothing else is like left out" if left_out else ""
    n_folds = len(np.unique(folds[judged]))
    say(f"cross-validated  {_accuracy(after[judged], y[judged])}, {n_folds} folds{note}")
    changes = []
    for label in np.unique(y[judged]):
        rows = judged & (y == label)
        was, is_now = np.mean(before[rows] == label), np.mean(after[rows] == label)
        changes.append((label, 100 * was, 100 * is_now))
    for title, sign in (("gained", 1), ("lost", -1)):
        found = sorted((c for c in changes if sign * (c[2] - c[1]) > 0), key=_by_change(sign))
        if found:
            rows = [(name, f"{was:.0f} %", "to", f"{now:.0f} %") for name, was, now in found]
            say_some(rows, f"{title} against zero-shot, on images held out", 5)


def _by_change(sign: int) -> Any:
    return lambda change: -sign * (change[2] - change[1])


def _chosen(search: Any) -> dict[str, Any]:
    """Parameters that a search tried more than one value of, as chosen."""
    table = search.cv_results_
    tried = {name: set(map(str, table[f"param_{name}"])) for name in search.best_params_}
    return {name: v for name, v in search.best_params_.items() if len(tried[name]) > 1}
