"""The published recipes as data: what a method trains with, by data set, backbone and shots.

The prompts of a data set are the templates of its name in `CLIPTextFeaturizer`. Where these tables
are silent, a method's own defaults hold.
"""

from typing import Any

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
#: Class of a method and data set to what differs there.
BY_DATA_SET: dict[tuple[str, str], dict[str, Any]] = {
    ("TaskResClassifier", "imagenet"): {"lr": 2e-4},
    ("TaskResClassifier", "oxford_flowers"): {"alpha": 1.0},
    ("CoOpClassifier", "imagenet"): {"max_epochs": 50},
}
#: Class of a method and backbone to what differs there: the bundled CLIP reads 16 tokens in all.
BY_BACKBONE: dict[tuple[str, str], dict[str, Any]] = {
    ("CoOpClassifier", "glyph-clip"): {"n_context": 4}
}


def recipe(class_name, data, backbone, shots):
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
        **BY_DATA_SET.get((class_name, data), {}),
        **BY_BACKBONE.get((class_name, backbone), {}),
    }
