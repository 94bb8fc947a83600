"""One call for the usual pipeline: images to embeddings to labels, with one CLIP for both wings."""

from os import PathLike
from typing import Any

from sklearn.pipeline import Pipeline

from ._classifiers.base import BaseCLIPClassifier
from ._classifiers.taskres import TaskResClassifier
from ._clip.cache import CacheLike
from ._clip.featurizer import CLIPFeaturizer
from ._clip.text import CLIPTextFeaturizer
from ._typing import Backend, Device, Names


def make_taskres_pipeline(
    model_name: str = "ViT-B-32",
    pretrained: str | PathLike[str] | None = "openai",
    *,
    templates: str | Names = "a photo of a {}.",
    cache: CacheLike = "memory",
    backend: Backend = "torch",
    device: Device = None,
    n_views: int = 0,
    verbose: int = 0,
    classifier: type[BaseCLIPClassifier] = TaskResClassifier,
    **taskres_params: Any,
) -> Pipeline:
    """Build the pipeline of a CLIPFeaturizer and a classifier on the same CLIP.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        The CLIP, as in `CLIPFeaturizer`. "glyph-clip" comes with the package.
    pretrained : str or path-like, default="openai"
        Its weights, as in `CLIPFeaturizer`.
    templates : str or list of str, default="a photo of a {}."
        Prompts, as in `CLIPTextFeaturizer`. Change it when you can say what the classes are.
    cache : "memory", path-like or None, default="memory"
        Where embeddings of images and names are kept. Name a folder for a search with ``n_jobs``,
        or when another run will see the same images.
    backend : {"torch", "openvino", "onnx", "auto"}, default="torch"
        Who computes the image tower, as in `CLIPFeaturizer`. Names are always embedded by torch.
    device : str, torch.device or None, default=None
        Where to embed and train. None takes what there is.
    n_views : int, default=0
        Augmented views per training image, as in `CLIPFeaturizer`.
    verbose : int, default=0
        1 shows a progress bar while images are encoded, and then how many were encoded, found in
        the cache or unreadable. 2 prints the epochs of training as well.
    classifier : class, default=TaskResClassifier
        What learns from the embeddings. `TaskResGDAClassifier` is the most accurate; any classifier
        of this package that has a `base` will do.
    **taskres_params
        Other parameters of the classifier, except `base`.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps "clip" and "taskres". In a search, parameters go by names such as
        ``taskres__alpha``, ``taskres__base__templates`` and ``clip__n_views``.

    Raises
    ------
    ValueError
        If the classifier has no base.

    Examples
    --------
    >>> from sklearn_taskres import load_digit_images, make_taskres_pipeline
    >>> images, y, names = load_digit_images()
    >>> model = make_taskres_pipeline("glyph-clip", class_names=names)
    >>> model.fit(images[:40], y[:40]).score(images[900:], y[900:]) > 0.75
    True
    """
    shared: dict[str, Any] = {"cache": cache, "device": device}
    images: dict[str, Any] = {"backend": backend, "n_views": n_views, "verbose": verbose}
    clip = CLIPFeaturizer(model_name, pretrained, **images, **shared)
    base = CLIPTextFeaturizer(model_name, pretrained, templates=templates, **shared)
    training = {"device": device, "verbose": max(0, verbose - 1)}
    known = classifier().get_params(deep=False)
    if "base" not in known:
        raise ValueError(
            f"classifier must be a class of this package that has a base. {classifier.__name__} "
            f"has none: put it behind a CLIPFeaturizer with scikit-learn's make_pipeline."
        )
    training = {name: value for name, value in training.items() if name in known}
    taskres = classifier(base, **training, **taskres_params)
    return Pipeline([("clip", clip), ("taskres", taskres)])
