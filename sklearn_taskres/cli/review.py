"""Write a page with the labels that look wrong and the photos to label next.

The page is one HTML file. Open it in a browser, correct labels by clicks, and save the corrections;
`fit --corrections` learns with them, without moving a file.
"""

import argparse
from pathlib import Path

from .._arguments import check_writable
from .models import add_model_argument, load_model
from .output import counted, plural, say

EXAMPLES = """\
  sklearn-taskres review model.skops photos
  sklearn-taskres review model.skops photos --pool unsorted -o review.html\
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_argument(parser)
    parser.add_argument("photos", metavar="PHOTOS", help="folder: PHOTOS/<class name>/<image>")
    parser.add_argument("--pool", metavar="FOLDER", help="photos without labels, to choose from")
    parser.add_argument(
        "-o", "--output", default="review.html", metavar="FILE", help="review.html by default"
    )


def run(options: argparse.Namespace) -> int:
    """Judge and write."""
    from ..datasets import images_below, load_image_folder, why_unreadable
    from ..inspection import review

    output = Path(options.output)
    check_writable(output)
    paths, y = load_image_folder(options.photos, on_error="warn")
    pool = []
    if options.pool is not None:
        if not Path(options.pool).is_dir():
            raise ValueError(f"{options.pool} is not a folder. Name one that holds photos.")
        found = [str(path) for path in images_below(Path(options.pool))]
        pool = [path for path, why in zip(found, why_unreadable(found), strict=True) if not why]
    model = load_model(options)
    say(counted(y))
    if pool:
        say(f"{plural(len(pool), 'image')} without a label")
    review(model, paths, y, pool=pool or None, out=output)
    say(f"saved  {output} ({output.stat().st_size / 1024:.0f} kB): open it in a browser")
    return 0
