"""Class names to class embeddings: prompts, CLIP's text tower, and the mean over templates."""

from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions

from .._typing import Device, Names, Precision, fit_context
from .base import CLIPTransformer
from .cache import CacheLike, EmbeddingCache, as_cache, embedding_keys, text_digest
from .prompts import TEMPLATES

if TYPE_CHECKING:
    from .prompt_tower import PromptTower


class ClassFeatures(NamedTuple):
    """Class embeddings taken apart: ``hidden @ projection + bias`` are the class embeddings."""

    #: Mean over templates of the text features before the projection, float32 (K, W).
    hidden: NDArray[np.float32]
    #: CLIP's text projection, float32 (W, d).
    projection: NDArray[np.float32]
    #: Bias of the projection, float32 (d,), or None if the model has none.
    bias: NDArray[np.float32] | None


class CLIPTextFeaturizer(CLIPTransformer):
    """Embed class names with the text tower of a frozen CLIP.

    Each name is put into every template, each prompt is embedded, and the **raw** embeddings are
    averaged over the templates. They are not normalised, neither before nor after the mean: Task
    Residual Tuning adds its residual to the raw classifier, and unit rows would act like a tenfold
    learning rate.

    Nothing is learned, so `transform` works without `fit`.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        The CLIP, spelled as by open_clip ("ViT-L-14", "RN50", "local-dir:<folder>",
        "hf-hub:<owner>/<repository>"), or "glyph-clip", a small model of digits and letters that
        comes with the package. Always the model that embeds the images.
    pretrained : str or path-like, default="openai"
        open_clip tag of the weights, or a file of them (safetensors, or torch.save of a state
        dict; a file that would execute code is refused). Ignored if `model_name` already says
        which weights. For a file trained with QuickGELU, as OpenAI's are, name the architecture
        that ends in "-quickgelu": a file cannot say.
    templates : str or list of str, default="a photo of a {}."
        What surrounds a class name. A string with ``{}`` is a template; one without is the name of
        a data set whose published templates are taken: "caltech101", "dtd", "eurosat",
        "fgvc_aircraft", "food101", "imagenet", "imagenet_a", "imagenet_r", "imagenet_sketch",
        "imagenetv2", "oxford_flowers", "oxford_pets", "stanford_cars", "sun397" or "ucf101". Change
        it when you can say what the classes are ("a photo of a {}, a type of flower."): it is the
        cheapest gain in accuracy there is. Several templates are averaged, at their cost each.
    replace_underscores : bool, default=True
        Whether "great_white_shark" is read as "great white shark". Switch it off to repeat the
        published TaskRes figures, whose code leaves underscores in.
    batch_size : int, default=256
        Prompts encoded at once. Lower it when memory runs out; results depend on
        it by rounding only.
    device : None, str or torch.device, default=None
        Where the model computes. None takes CUDA if there is one, else MPS, else the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the matrix products. "auto" is float32: there are few prompts, and what they
        embed to is the classifier.
    cache : "memory", str, path-like, EmbeddingCache or None, default="memory"
        Where embeddings of prompts are kept, as in `CLIPFeaturizer`.

    See Also
    --------
    CLIPFeaturizer : Embeds images with the same CLIP.

    Notes
    -----
    The model is loaded when a prompt has to be encoded, and kept for the process, never on the
    estimator, which is pickled and cloned without weights. A prompt that is too long, or holds
    words that the model never saw, draws a warning each time and is not kept in the cache.

    open_clip downloads weights on their first use. Without a network this fails after about a
    minute, and at once with the environment variable HF_HUB_OFFLINE=1.

    References
    ----------
    T. Yu, Z. Lu, X. Jin, Z. Chen, X. Wang, "Task Residual for Tuning Vision-Language Models",
    CVPR 2023, https://arxiv.org/abs/2211.10277

    Examples
    --------
    >>> from sklearn_taskres import CLIPTextFeaturizer
    >>> text = CLIPTextFeaturizer("glyph-clip", templates="a drawing of the digit {}.")
    >>> class_embeddings = text.transform(["zero", "one", "two"])
    >>> class_embeddings.shape[0], class_embeddings.dtype
    (3, dtype('float32'))
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        "model_name": [str],
        "pretrained": [str, PathLike, None],
        "templates": [str, "array-like"],
        "replace_underscores": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",  # torch knows its devices, and is not imported for them
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "cache": [None, str, PathLike, EmbeddingCache],
    }

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | PathLike[str] | None = "openai",
        *,
        templates: str | Names = "a photo of a {}.",
        replace_underscores: bool = True,
        batch_size: int = 256,
        device: Device = None,
        precision: Precision = "auto",
        cache: CacheLike = "memory",
    ) -> None:
        self.model_name = model_name
        self.pretrained = pretrained
        self.templates = templates
        self.replace_underscores = replace_underscores
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.cache = cache

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: object = None, y: object = None) -> Self:
        """Check the parameters and learn nothing.

        Parameters
        ----------
        X : None or array-like of shape (n_classes,)
            Ignored.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The featurizer itself.
        """
        self._templates()
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Embed class names.

        Parameters
        ----------
        X : array-like of shape (n_classes,)
            Class names, each a non-empty str.

        Returns
        -------
        ndarray of shape (n_classes, d), float32
            Mean over templates of the raw text embeddings.

        Raises
        ------
        ValueError
            If a name is not a non-empty str, a template has no ``{}``, or the model, its weights
            or the device is unknown.
        OSError
            If weights would have to be downloaded and cannot be (`ModelUnavailableError`).
        """
        self._validate_params()
        return self._mean_over_templates(X, "encode_texts", self._source().embedding_size)

    def class_features(self, class_names: ArrayLike) -> ClassFeatures:
        """Return class embeddings taken apart at CLIP's text projection.

        An enhanced base tunes the projection, and needs what it is applied to.

        Parameters
        ----------
        class_names : array-like of shape (n_classes,)
            Class names, each a non-empty str.

        Returns
        -------
        ClassFeatures
            ``hidden`` (n_classes, W), ``projection`` (W, d) and ``bias`` (d,) or None, float32.

        Raises
        ------
        ValueError
            As in `transform`, or if the model has no linear text projection.
        """
        self._validate_params()
        projection, bias = self._encoder().text_projection()
        hidden = self._mean_over_templates(class_names, "text_features", len(projection))
        return ClassFeatures(hidden, projection, bias)

    def prompt_tower(
        self,
        class_names: ArrayLike,
        context: int | str,
        position: Literal["end", "middle"] = "end",
        *,
        device: Device = None,
        dtype: DTypeLike = "float32",
    ) -> "PromptTower":
        """Return CLIP's frozen text tower as a function of what stands around the class names.

        Context vectors take the place of a template, as CoOp learns them; `templates` are not used.

        Parameters
        ----------
        class_names : array-like of shape (n_classes,)
            Class names, each a non-empty str.
        context : int or str
            Number of context vectors, or words, a vector for each of their tokens.
        position : {"end", "middle"}, default="end"
            Whether the name stands behind the context or between its halves. A full stop ends both.
        device : None, str or torch.device, default=None
            Where it computes. None takes the featurizer's own `device`.
        dtype : str or numpy.dtype, default="float32"
            Of the context vectors; it counts when the device is chosen, as MPS lacks float64.

        Returns
        -------
        PromptTower
            Called with a tensor (n_context, W), or (n_classes, n_context, W), it returns the raw
            class embeddings (n_classes, d), with a gradient; its ``embed`` does so with arrays.

        Raises
        ------
        ValueError
            As in `transform`, or if the context does not fit into the tokens that the model reads,
            or its text tower is not open_clip's plain text transformer.
        """
        from .._device import resolve_device
        from .prompt_tower import PromptTower

        self._validate_params()
        encoder = self._encoder(resolve_device(self.device if device is None else device, dtype))
        return PromptTower(encoder, self._names(class_names), context, position)

    def logit_scale(self) -> float:
        """Return the scale of cosines that the CLIP learned, 1/τ, about 100 for OpenAI's."""
        self._validate_params()
        scale = self._source().logit_scale()
        return self._encoder().logit_scale if scale is None else scale

    def _mean_over_templates(self, class_names, output, width):
        """Mean over templates of an output of the encoder for each prompt, (n_classes, width)."""
        names, templates = self._names(class_names), self._templates()
        prompts = [template.replace("{}", name) for name in names for template in templates]
        rows = self._cached(prompts, output, width)
        return rows.reshape(len(names), len(templates), width).mean(axis=1)

    def _names(self, class_names):
        """Class names as they are read, a list of str."""
        names = _checked_names(class_names)
        return [name.replace("_", " ") for name in names] if self.replace_underscores else names

    def _cached(self, texts, output, width):
        """Rows (n_texts, width) of what the encoder's `output` is for texts, kept in the cache."""
        from .._device import resolve_device
        from .backends.torch.encoder import text_precision

        resolve_device(self.device)  # refuses a wrong one, also if all is known
        cache = as_cache(self.cache)
        fingerprint = self._source().fingerprint(text_precision(self.precision))
        keys = embedding_keys(map(text_digest, texts), fingerprint, output)
        rows, found = cache.get(keys, width)
        cache.note_lookups(found)
        missing = np.flatnonzero(~found)
        for start in range(0, len(missing), self.batch_size):
            some = missing[start : start + self.batch_size]
            encoder, some_texts = self._encoder(), [texts[i] for i in some]
            rows[some] = getattr(encoder, output)(some_texts)
            is_whole = encoder.reads_whole(some_texts)
            kept = some[is_whole]  # what draws a warning is not kept, and so warns again
            cache.put([keys[i] for i in kept], rows[kept])
        return rows

    def _templates(self):
        """Return the templates, a list with at least one."""
        templates = self.templates
        if isinstance(templates, str):
            templates = [templates] if "{}" in templates else TEMPLATES.get(templates, ())
        if len(templates) and all(isinstance(t, str) and "{}" in t for t in templates):
            return list(templates)
        raise ValueError(
            f"The 'templates' parameter of {type(self).__name__} must be a template with {{}} for "
            f"the class name, a list of them, or the name of a data set: {', '.join(TEMPLATES)}. "
            f"Got {self.templates!r} instead."
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags


def _checked_names(class_names):
    """Class names as a list of str."""
    if isinstance(class_names, str) or np.ndim(class_names) > 1:
        raise ValueError(
            f"Class names must be a list or a 1-d array of str. Got {class_names!r:.100} instead."
        )
    names = list(class_names)
    for index, name in enumerate(names):
        if not (isinstance(name, str) and name.strip()):
            raise ValueError(
                f"Class names must be non-empty strings, but item {index} is {name!r}. Name the "
                f"classes in words: CLIP reads their names."
            )
    if not names:
        raise ValueError("Class names are empty: pass the name of at least one class.")
    return [str(name) for name in names]
