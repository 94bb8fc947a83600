"""The published recipes: what a method trains with, by shots, backbone and data set.

What differs on a data set stands in its row of `_data_sets`, next to its prompts. A method's own
defaults hold for all else.
"""

from typing import Any

from .._data_sets import DATA_SETS

#: Class of a method to what its recipe sets everywhere.
ALWAYS: dict[str, dict[str, Any]] = {
    "TaskResClassifier": {"alpha": 0.5, "lr": 2e-3, "batch_size": 256, "weight_decay": 5e-4},
    "CoOpClassifier": {"n_context": 16, "lr": 2e-3, "batch_size": 32, "weight_decay": 5e-4},
}
#: Class of a method to epochs by shots.
EPOCHS: dict[str, dict[int, int]] = {
    "TaskResClassifier": {1: 100, 2: 100, 4: 100, 8: 200, 16: 200},
    "CoOpClassifier": {1: 50, 2: 100, 4: 100, 8: 200, 16: 200},
}
#: Class of a method and backbone to what differs there: the bundled CLIP reads 16 tokens in all.
BY_BACKBONE: dict[tuple[str, str], dict[str, Any]] = {
    ("CoOpClassifier", "glyph-clip"): {"n_context": 4}
}


def published_parameters(class_name, data, backbone, shots):
    """Return the parameters that a method is published with.

    Parameters
    ----------
    class_name : str
        Of the method's estimator.
    data, backbone : str
        Names of the data set and of the CLIP.
    shots : int
        Images per class.
    """
    epochs = EPOCHS.get(class_name, {})
    return {
        **ALWAYS.get(class_name, {}),
        **({"max_epochs": epochs[shots]} if shots in epochs else {}),
        **DATA_SETS[data].recipes.get(class_name, {}),
        **BY_BACKBONE.get((class_name, backbone), {}),
    }
