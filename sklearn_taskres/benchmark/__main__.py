"""``python -m sklearn_taskres.benchmark``: one subcommand per measurement."""

import argparse
import importlib
import sys

_COMMANDS = ("accuracy", "encode", "speed")
_STOPPED = "Stopped. Finished cells of `accuracy` are kept: the same command goes on from there."


def main(argv=None):
    """Run the subcommand that the arguments name.

    Each failure that a user can cause ends the program with one sentence: status 2 for arguments
    that can't be run, 130 for Ctrl-C, and 1 for the rest.
    """
    try:
        options = make_parser().parse_args(argv)
        options.run(options)
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{_STOPPED}\n")
        sys.exit(130)
    except OSError as error:
        sys.exit(_sentence(error))


def make_parser():
    """Return the parser of all subcommands; what it finds has the function to ``run``."""
    parser = argparse.ArgumentParser(prog="python -m sklearn_taskres.benchmark")
    commands = parser.add_subparsers(required=True, metavar="{" + ",".join(_COMMANDS) + "}")
    for name in _COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _sentence(error):
    """Say what a file system or network refused; finished work is on the disk by then."""
    place = "" if error.filename is None else f" with {error.filename}"
    return (
        f"The benchmark can't go on{place}: {error.strerror or error}. Mend that or name another "
        f"path, and run the command again."
    )


if __name__ == "__main__":
    main()
