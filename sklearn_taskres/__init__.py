"""Few-shot image classification with CLIP and Task Residual Tuning, for scikit-learn."""

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

_HOME = {
    "CLAPClassifier": "._classifiers.clap",
    "CLIPAdapterClassifier": "._classifiers.clip_adapter",
    "CLIPFeaturizer": "._clip.featurizer",
    "CLIPTextFeaturizer": "._clip.text",
    "CoOpClassifier": "._classifiers.coop",
    "EmbeddingCache": "._clip.cache",
    "FunctionFeaturizer": "._clip.function_featurizer",
    "GDAClassifier": "._classifiers.gda",
    "LinearProbeClassifier": "._classifiers.linear_probe",
    "ModelUnavailableError": "._clip.downloads",
    "ProLIPClassifier": "._classifiers.prolip",
    "TaskResClassifier": "._classifiers.taskres",
    "TaskResClassifierCV": "._search.taskres_cv",
    "TaskResGDAClassifier": "._classifiers.taskres_gda",
    "TipAdapterClassifier": "._classifiers.tip_adapter",
    "UnreadableImagesError": "._clip.images",
    "ZeroShotClassifier": "._classifiers.zero_shot",
    "load_digit_images": ".datasets",
    "load_image_folder": ".datasets",
    "make_taskres_pipeline": ".pipeline",
    "sample_few_shot": ".datasets",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from ._classifiers.clap import CLAPClassifier as CLAPClassifier
    from ._classifiers.clip_adapter import CLIPAdapterClassifier as CLIPAdapterClassifier
    from ._classifiers.coop import CoOpClassifier as CoOpClassifier
    from ._classifiers.gda import GDAClassifier as GDAClassifier
    from ._classifiers.linear_probe import LinearProbeClassifier as LinearProbeClassifier
    from ._classifiers.prolip import ProLIPClassifier as ProLIPClassifier
    from ._classifiers.taskres import TaskResClassifier as TaskResClassifier
    from ._classifiers.taskres_gda import TaskResGDAClassifier as TaskResGDAClassifier
    from ._classifiers.tip_adapter import TipAdapterClassifier as TipAdapterClassifier
    from ._classifiers.zero_shot import ZeroShotClassifier as ZeroShotClassifier
    from ._clip.cache import EmbeddingCache as EmbeddingCache
    from ._clip.downloads import ModelUnavailableError as ModelUnavailableError
    from ._clip.featurizer import CLIPFeaturizer as CLIPFeaturizer
    from ._clip.function_featurizer import FunctionFeaturizer as FunctionFeaturizer
    from ._clip.images import UnreadableImagesError as UnreadableImagesError
    from ._clip.text import CLIPTextFeaturizer as CLIPTextFeaturizer
    from ._search.taskres_cv import TaskResClassifierCV as TaskResClassifierCV
    from .datasets import load_digit_images as load_digit_images
    from .datasets import load_image_folder as load_image_folder
    from .datasets import sample_few_shot as sample_few_shot
    from .pipeline import make_taskres_pipeline as make_taskres_pipeline
else:  # unknown to type checkers, so that they report names that are not there

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used (PEP 562), and with it what it needs."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
