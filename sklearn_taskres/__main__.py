"""``python -m sklearn_taskres``: the command `sklearn-taskres`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
