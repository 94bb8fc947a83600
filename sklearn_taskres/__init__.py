"""Few-shot image classification with CLIP and Task Residual Tuning, for scikit-learn."""

import importlib

from ._version import __version__

_HOME = {
    "CLAPClassifier": "._classifiers.clap",
    "CLIPAdapterClassifier": "._classifiers.clip_adapter",
    "CLIPFeaturizer": "._clip.featurizer",
    "CLIPTextFeaturizer": "._clip.text",
    "CoOpClassifier": "._classifiers.coop",
    "EmbeddingCache": "._clip.cache",
    "GDAClassifier": "._classifiers.gda",
    "LinearProbeClassifier": "._classifiers.linear_probe",
    "ModelUnavailableError": "._clip.downloads",
    "TaskResClassifier": "._classifiers.taskres",
    "TaskResClassifierCV": "._search.taskres_cv",
    "TipAdapterClassifier": "._classifiers.tip_adapter",
    "UnreadableImagesError": "._clip.images",
    "ZeroShotClassifier": "._classifiers.zero_shot",
    "load_image_folder": ".datasets",
    "make_taskres_pipeline": ".pipeline",
    "sample_few_shot": ".datasets",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name):
    """Import a public name when it is first used (PEP 562), and with it what it needs."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__():
    return sorted([*globals(), *_HOME])
