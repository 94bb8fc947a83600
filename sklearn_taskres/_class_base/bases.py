"""What the parameter `base` stands for: class names as text, an array, or means of the images.

Each kind is one class that embeds the labels of a fit and new names later, knows its logit scale,
and describes itself in errors. `as_class_base` is the only place that tells them apart.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils._param_validation import HasMethods, StrOptions

from .._typing import Base, ClassNames
from .means import class_means
from .names import array_rows, class_names_of

#: OpenAI CLIP's logit scale 1/τ, for a base that does not say which model it comes from.
_CLIP_LOGIT_SCALE = 100.0
#: What a `base` parameter may be, as scikit-learn checks it.
BASE_CONSTRAINT = [
    None,
    StrOptions({"class_means"}),
    HasMethods(["transform", "class_features", "logit_scale", "describe_model"]),
    "array-like",
]


def as_class_base(base: Base) -> "ClassBase":
    """Return the object that the value of a `base` parameter stands for.

    Parameters
    ----------
    base : None, CLIPTextFeaturizer, array-like of shape (n_rows, d), or "class_means"
        None is ``CLIPTextFeaturizer()``.
    """
    if base is None:
        from .._clip.text import CLIPTextFeaturizer

        return TextBase(CLIPTextFeaturizer(), is_default=True)
    if isinstance(base, str):
        return ClassMeansBase()
    return TextBase(base) if hasattr(base, "class_features") else ArrayBase(base)


class ClassBase:
    """What all kinds share.

    Attributes
    ----------
    text : CLIPTextFeaturizer or None
        What embeds class names, if anything does.
    is_from_images : bool
        Whether the embeddings are made of training images, and so must not see images held out.
    is_default : bool
        Whether it is what no base at all stands for.
    has_prompt_tower : bool
        Whether `text` can give its text tower for prompts that are learned.
    may_have_lost_norms : bool
        Whether a user may have passed unit rows in place of raw ones.
    """

    text: Any = None
    is_from_images = False
    is_default = False
    has_prompt_tower = False
    may_have_lost_norms = False

    def embed(
        self,
        labels: NDArray[Any],
        class_names: ClassNames,
        X: NDArray[Any] | None,
        y: NDArray[Any] | None,
        sample_weight: NDArray[Any] | None,
    ) -> NDArray[Any]:
        """Return raw class embeddings (n_classes, d) of the sorted labels of a fit.

        Parameters
        ----------
        labels : ndarray of shape (n_classes,)
            Sorted, distinct labels.
        class_names : None, mapping of label to name, or sequence of names
            As in every classifier.
        X : ndarray of shape (n_samples, d) or None
            Training images, if there are any.
        y : ndarray of shape (n_samples,) or None
            Position in `labels` of each image's class.
        sample_weight : ndarray of shape (n_samples,) or None
        """
        raise NotImplementedError

    def embed_names(self, names: list[str]) -> NDArray[Any]:
        """Return raw class embeddings (n, d) of names that were not in the fit."""
        raise ValueError(
            "base is not text, so a name alone cannot become a class. Pass {label: raw text "
            "embedding}, or fit with base=CLIPTextFeaturizer()."
        )

    def logit_scale(self) -> float:
        """Return the scale 1/τ of the model that the embeddings come from."""
        return _CLIP_LOGIT_SCALE

    def describe(self) -> str:
        """Return what errors call it."""
        raise NotImplementedError

    def kind(self) -> str:
        """Return what errors call the kind of value that the user passed."""
        raise NotImplementedError


class TextBase(ClassBase):
    """Class names, embedded by the text tower of a CLIP."""

    def __init__(self, text: Any, *, is_default: bool = False) -> None:
        self.text, self.is_default = text, is_default
        self.has_prompt_tower = hasattr(text, "prompt_tower")

    def embed(
        self,
        labels: NDArray[Any],
        class_names: ClassNames,
        X: NDArray[Any] | None,
        y: NDArray[Any] | None,
        sample_weight: NDArray[Any] | None,
    ) -> NDArray[Any]:
        """Embed the names of the labels."""
        return self.embed_names(class_names_of(labels, class_names))

    def embed_names(self, names: list[str]) -> NDArray[Any]:
        """Embed names by the same templates."""
        return self.text.transform(names)

    def logit_scale(self) -> float:
        """Return the scale that the CLIP learned."""
        return self.text.logit_scale()

    def describe(self) -> str:
        """Name the CLIP."""
        return self.text.describe_model()

    def kind(self) -> str:
        """Name the type of the featurizer."""
        return type(self.text).__name__


class ArrayBase(ClassBase):
    """Class embeddings that the user has already."""

    may_have_lost_norms = True

    def __init__(self, rows: ArrayLike) -> None:
        self.rows = rows

    def embed(
        self,
        labels: NDArray[Any],
        class_names: ClassNames,
        X: NDArray[Any] | None,
        y: NDArray[Any] | None,
        sample_weight: NDArray[Any] | None,
    ) -> NDArray[Any]:
        """Pick the row of each label."""
        rows = check_array(self.rows, dtype=[np.float32, np.float64], input_name="base")
        return array_rows(rows, labels, class_names)

    def describe(self) -> str:
        """Say that there is no model to name."""
        return "an array"

    def kind(self) -> str:
        """Name the type of the rows."""
        return type(self.rows).__name__


class ClassMeansBase(ClassBase):
    """Means of the images of each class, for encoders without a text side."""

    is_from_images = True

    def embed(
        self,
        labels: NDArray[Any],
        class_names: ClassNames,
        X: NDArray[Any] | None,
        y: NDArray[Any] | None,
        sample_weight: NDArray[Any] | None,
    ) -> NDArray[Any]:
        """Take the means of the classes' unit rows."""
        if X is None or y is None:
            raise ValueError("base='class_means' needs images. Pass X, or a text or array base.")
        return class_means(X, y, sample_weight)

    def describe(self) -> str:
        """Say that there is no model to name."""
        return "class means"

    def kind(self) -> str:
        """Quote the value."""
        return repr("class_means")


def check_nested_params(estimator: object, params: dict[str, Any]) -> None:
    """Refuse to set ``base__<name>`` while the `base` of an estimator has no parameters.

    Parameters
    ----------
    estimator : estimator
        Whose `set_params` was called.
    params : dict of str to object
        What it was called with.
    """
    nested = [name for name in params if name.startswith("base__")]
    base = params.get("base", getattr(estimator, "base", None))
    if nested and not hasattr(base, "get_params"):
        raise ValueError(
            f"{nested[0]!r} sets a parameter of base, but base is {base!r:.60}. Pass "
            f"base=CLIPTextFeaturizer() to the classifier to search over its parameters."
        )
