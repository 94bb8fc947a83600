"""``python -m sklearn_taskres.benchmark``: one subcommand a measurement."""

import argparse

from . import accuracy, encode, speed

_COMMANDS = {"accuracy": accuracy, "encode": encode, "speed": speed}


def main(argv=None):
    """Run the subcommand that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m sklearn_taskres.benchmark")
    commands = parser.add_subparsers(required=True, metavar="{" + ",".join(_COMMANDS) + "}")
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(argv)
    options.run(options)


if __name__ == "__main__":
    main()
