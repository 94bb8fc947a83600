"""Accuracy of methods by shots and seeds, from images or embeddings: JSON lines, and a report."""

import itertools
import sys
from pathlib import Path

from joblib import Parallel, delayed, effective_n_jobs

from .._arguments import not_negative, positive, positive_number, seed
from .._data_sets import TRAINED, VARIANTS
from . import report
from .cells import Runner, make_cell
from .features import read_features
from .images import EmbeddedDataSet, fingerprint, parse_backbone
from .layouts import MissingDataSetError, read_data_set, read_variant
from .methods import METHODS
from .results import Results, read_lines


def add_arguments(parser):
    """Add this subcommand's options to an argparse parser."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--data", type=Path, metavar="ROOT", help="folder of the data sets' folders, as CoOp has it"
    )
    source.add_argument(
        "--features", nargs="+", type=Path, metavar="FILE.npz", help="embeddings, one data set each"
    )
    _add_choices(parser)
    _add_images(parser)
    parser.add_argument(
        "--base-norm",
        type=positive_number,
        default=10.0,
        help="given to class embeddings of unit norm in --features",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of results.jsonl; a rerun continues it"
    )
    parser.add_argument(
        "--report", action="store_true", help="write the report of all finished cells there"
    )
    parser.add_argument(
        "--n-jobs",
        type=int,
        help="processes that share the cells, and the cores, so that fits take longer; -1 is one "
        "per core, 1 the default",
    )
    parser.add_argument(
        "--patience",
        type=positive_number,
        default=60.0,
        metavar="SECONDS",
        help="wait for cells that another process holds as long as one of them is finished in "
        "these, 60 by default",
    )


def _add_choices(parser):
    """Add what is compared: methods, shots and seeds."""
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}; by default all that the data allow",
    )
    parser.add_argument(
        "--shots", nargs="+", type=positive, default=[1, 2, 4, 8, 16], help="images per class"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=seed,
        help="of the draws; 1 2 3 by default, and 0 to 4 with --features",
    )


def _add_images(parser):
    """Add what counts if images are embedded."""
    parser.add_argument(
        "--data-sets",
        nargs="+",
        choices=TRAINED,
        metavar="NAME",
        help=f"of {', '.join(TRAINED)}; all that are there by default. imagenet is tested on its "
        f"variants too",
    )
    parser.add_argument(
        "--backbones",
        nargs="+",
        type=parse_backbone,
        metavar="MODEL[:WEIGHTS]",
        help="open_clip's name, and its tag or a file; RN50:openai by default",
    )
    parser.add_argument(
        "--views",
        type=not_negative,
        metavar="V",
        help="random crops of a training image, one drawn per epoch; 10 by default",
    )


def run(options):
    """Run the cells that are not there yet, and write the report if it is asked for.

    Ends the program with status 1 if something could not be run; all the rest was.
    """
    if not (options.features or options.data or options.report):
        sys.exit(
            "Nothing to do. Pass --data ROOT, --features FILE.npz ..., or --report for what is "
            "there."
        )
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.jsonl"
    n_workers = effective_n_jobs(options.n_jobs)  # or what joblib.parallel_config says
    if n_workers > 1:  # each runs what no other one has claimed
        workers = Parallel(n_jobs=n_workers)(
            delayed(_run_cells)(options, path) for _ in range(n_workers)
        )
        problems = list(dict.fromkeys(itertools.chain.from_iterable(workers)))
    else:
        problems = _run_cells(options, path)
    if options.report:
        report.write_report(read_lines(path), options.output)
    if problems:
        sys.exit("These could not be run, the others are done:\n- " + "\n- ".join(problems))


def _run_cells(options, path):
    """Run what nobody has run or claimed; return what could not be run."""
    if options.features:
        return _run_features(options, Results(path))
    return _run_data(options, Results(path)) if options.data else []


def _cells(data, methods, options, seeds):
    """List the cells of a data set; methods take turns on one draw of images."""
    wanted = itertools.product(options.shots, options.seeds or seeds, methods)
    return [make_cell(data, method, shots, seed) for shots, seed, method in wanted]


# embeddings -------------------------------------------------------------------------------------


def _run_features(options, results):
    for_images = {"data-sets": options.data_sets, "backbones": options.backbones}
    for_images["views"] = options.views
    given = [f"--{name}" for name, value in for_images.items() if value is not None]
    if given:
        sys.exit(f"{', '.join(given)} can't be used with --features, only with --data ROOT.")
    names = [path.stem for path in options.features]
    if len(set(names)) < len(names):
        sys.exit(f"Two files have one name, which is the data set's: {sorted(names)}. Rename one.")
    methods = _methods_without_text(options.methods)
    runner = Runner(results, options.patience)
    for path in options.features:
        data = read_features(path, options.base_norm)
        runner.run(_cells(data, methods, options, range(5)))
    runner.finish()
    return runner.problems


def _methods_without_text(wanted):
    """Methods that embeddings are enough for; an error if others were asked for."""
    need_text = [name for name in wanted or METHODS if METHODS[name].needs_text]
    if not need_text:
        return wanted or list(METHODS)
    why = f"{', '.join(need_text)}: the text tower takes part, which a file of embeddings lacks."
    if wanted:
        sys.exit(f"{why} Run them with --data ROOT.")
    sys.stderr.write(f"Skipped {why}\n")
    return [name for name in METHODS if name not in need_text]


# images -----------------------------------------------------------------------------------------


def _run_data(options, results):
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not a folder. Pass the one that holds the data sets' folders.")
    backbones = options.backbones or [parse_backbone("RN50:openai")]
    for backbone in backbones:
        _check_backbone(backbone)
    runner = Runner(results, options.patience)
    found = 0
    for name in options.data_sets or TRAINED:
        data_set = _read(name, options.data, runner)
        found += data_set is not None
        for backbone in backbones if data_set else []:
            _run_data_set(data_set, backbone, options, runner)
    runner.finish()
    if not found:
        runner.note(f"{options.data} holds none of the data sets that were asked for.")
    return runner.problems


def _check_backbone(backbone):
    try:
        fingerprint(backbone)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def _run_data_set(data_set, backbone, options, runner):
    views = 10 if options.views is None else options.views
    data = EmbeddedDataSet(data_set, backbone, views, options.output / "embeddings")
    runner.run(_cells(data, options.methods or list(METHODS), options, (1, 2, 3)))


def _read(name, root, runner):
    """Read a data set, with the variants of ImageNet; None if it is missing or broken."""
    data_set = _read_or_note(lambda: read_data_set(name, root), name, runner)
    for variant in VARIANTS if data_set and name == "imagenet" else ():
        rows = _read_or_note(lambda v=variant: read_variant(v, root, data_set), variant, runner)
        if rows:
            data_set.tests[variant] = rows
    return data_set


def _read_or_note(read, name, runner):
    """Call `read`; if its data are missing say so, if they are broken note it."""
    try:
        return read()
    except MissingDataSetError as error:
        sys.stderr.write(f"{error}\n")
    except ValueError as error:
        runner.note(f"{name}: {error}")
    return None
