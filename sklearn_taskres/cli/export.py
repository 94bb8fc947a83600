"""Write a model for use without this package, or as data for the Hugging Face hub.

What is written follows from the name: model.onnx holds image tower and classifier, from pixels to
probabilities; plain.skops is a scikit-learn pipeline on embeddings; any other name is a folder in
the format of the hub, which `sklearn_taskres.export.from_hub` reads.
"""

import argparse
import os
from pathlib import Path

from .._arguments import check_writable
from .._persistence import written_whole
from .models import add_model_argument, load_model
from .output import say

EXAMPLES = """\
  sklearn-taskres export model.skops model.onnx
  sklearn-taskres export model.skops plain.skops
  sklearn-taskres export model.skops my-model/\
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_argument(parser)
    parser.add_argument("output", metavar="OUTPUT", help="model.onnx, plain.skops, or a folder")


def run(options: argparse.Namespace) -> int:
    """Load and write."""
    from ..export import export_onnx, push_to_hub, to_sklearn

    output = Path(options.output)
    is_folder = output.is_dir() or not output.suffix or options.output.endswith(("/", os.sep))
    if not (is_folder or output.suffix in (".onnx", ".skops")):
        raise ValueError(
            f"OUTPUT must end in .onnx or .skops, or be a folder, as {output}/ is. Got {output}."
        )
    if not is_folder:
        check_writable(output)
        if output.exists() and output.resolve() == Path(options.model).resolve():
            raise ValueError(f"OUTPUT is the model itself, {output}. Name another file.")
    model = load_model(options)
    try:
        if is_folder:
            output.mkdir(exist_ok=True)
            push_to_hub(model, output)
        elif output.suffix == ".onnx":
            export_onnx(model, output)
        else:
            import skops.io

            plain = to_sklearn(model[-1])
            with written_whole(output) as part:
                skops.io.dump(plain, part)
    except TypeError as error:  # of a model that can't be written so
        raise ValueError(str(error)) from error
    say(f"saved  {output}")
    return 0
