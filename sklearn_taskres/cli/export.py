"""Write a model for use without this package, or as data for the Hugging Face hub.

What is written follows from the name: model.onnx holds image tower and classifier, from pixels to
probabilities; plain.skops is a scikit-learn pipeline on embeddings; any other name is a folder in
the format of the hub, which `sklearn_taskres.export.from_hub` reads.
"""

import argparse
from pathlib import Path

from ..benchmark.arguments import check_writable
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
    if output.suffix:
        check_writable(output)
    model = load_model(options)
    if output.suffix == ".onnx":
        export_onnx(model, output)
    elif output.suffix == ".skops":
        import skops.io

        skops.io.dump(to_sklearn(model[-1]), output)
    elif output.suffix:
        raise ValueError(f"OUTPUT must end in .onnx or .skops, or be a folder. Got {output}.")
    else:
        output.mkdir(exist_ok=True)
        push_to_hub(model, output)
    say(f"saved  {output}")
    return 0
