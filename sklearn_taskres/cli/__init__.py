"""The command ``sklearn-taskres``: from a folder of photos to a model, an answer and a page."""

import argparse
import importlib
import io
import sys
import traceback
import warnings
from collections.abc import Sequence

from .._version import __version__
from .output import complain

#: Subcommands, each the module of this package that has its name.
_COMMANDS = ("fit", "predict", "evaluate", "check", "review", "export")
_BENCHMARK = "measure accuracy and speed, on your data and this machine"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments. None takes those of the process.

    Returns
    -------
    int
        0 if all went well, 1 if the input is bad, which one sentence on stderr explains, 130 after
        Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2 for arguments that make no sense, and 0 after ``--help``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["benchmark"]:
        return _benchmark(argv[1:])
    parser, commands = _parsers()
    options, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse would show the usage of `sklearn-taskres`, which does not help
        commands[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whose encoding may lack letters of a class name
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = _show_warning
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        return options.run(options)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        return 130
    except BrokenPipeError:  # as of `| head`
        sys.stderr.close()
        return 1
    except (ValueError, OSError, ImportError) as error:
        if options.traceback:
            traceback.print_exc()
        else:
            complain(f"sklearn-taskres {options.command}: {_sentence(error)}")
        return 1


def _sentence(error: Exception) -> str:
    """Say what is wrong; of a refusal by the file system, with which file."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error) or f"{type(error).__name__}."


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    complain(f"warning: {message}")


def _benchmark(argv: list[str]) -> int:
    from ..benchmark.__main__ import main as run_benchmark

    run_benchmark(argv)
    return 0


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the command line, and that of each subcommand."""
    parser = argparse.ArgumentParser(
        prog="sklearn-taskres",
        description="Few-shot image classification with CLIP, from folders of photos.",
        epilog="start with:\n  sklearn-taskres fit photos -o model.skops\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sklearn-taskres {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=module.__doc__,
            epilog=f"examples:\n{module.EXAMPLES}\n",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument(
            "--traceback", action="store_true", help="show where in the code an error came up"
        )
        command.set_defaults(run=module.run)
    commands.add_parser("benchmark", help=_BENCHMARK, add_help=False)
    return parser, commands.choices
