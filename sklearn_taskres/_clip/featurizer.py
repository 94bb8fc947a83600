"""Images to CLIP embeddings, as a scikit-learn transformer."""

from collections.abc import Callable
from numbers import Integral
from os import PathLike
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config

from .._typing import Backend, Device, Images, Precision
from .backends.plan import BACKENDS, Plan, plan_encoding
from .base import CLIPTransformer
from .cache import CacheLike, EmbeddingCache
from .embedding import View
from .image_transformer import ImageTransformer
from .views import AUGMENTATIONS

#: How views are made: a name, or a function of an image and a generator to an image.
Augment: TypeAlias = (
    Literal["taskres", "taskres-no-flip", "tip", "tip-no-flip"]
    | Callable[[Image.Image, np.random.Generator], Image.Image]
)


class CLIPFeaturizer(ImageTransformer, CLIPTransformer):
    """Embed images with the image tower of a frozen CLIP.

    Nothing is learned, so `transform` works without `fit`. Embeddings are **raw** by default: the
    classifiers of this package normalise by themselves, and some of them need the norm.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        The CLIP, spelled as by open_clip ("ViT-L-14", "RN50", "local-dir:<folder>",
        "hf-hub:<owner>/<repository>"), or "glyph-clip", a small model of digits and letters that
        comes with the package. A larger one is more accurate and slower; "ViT-B-32" is the fastest
        of the common ones.
    pretrained : str or path-like, default="openai"
        open_clip tag of the weights, or a file of them (safetensors, or torch.save of a state
        dict; a file that would execute code is refused). Ignored if `model_name` already says
        which weights. A file gets the preprocessing that is the architecture's default; if the
        weights want another, put both into a folder and use "local-dir:<folder>". For a file
        trained with QuickGELU, as OpenAI's are, name the architecture that ends in "-quickgelu":
        a file cannot say.
    normalize : bool, default=False
        Whether rows are scaled to unit norm. Switch it on for uses outside this package, such as
        nearest neighbours or clustering.
    n_views : int, default=0
        Augmented views per image that `fit_transform` adds to the clean one. Classifiers that train
        then see another crop of an image in each epoch, as the papers train; 10 is usual. Costs as
        many encodings of the training images, once: views are cached like images.
    augment : {"taskres", "taskres-no-flip", "tip", "tip-no-flip"} or callable, default="taskres"
        How views are made: random crops of 8 to 100 % of the area (of 50 to 100 % for "tip"),
        resized, and flipped half of the time. Take one without flip if a mirrored image is
        another class, as with digits and signs. A callable takes a PIL image and a NumPy generator
        and returns a PIL image of mode RGB; its views can't be cached.
    batch_size : int, default=64
        Images encoded at once. Raise it on a GPU, lower it when memory runs out. It changes
        results by rounding only: in float32 in the last digits, in bfloat16 by up to about 0.03 per
        element, at a cosine of at least 0.9999.
    num_workers : int or None, default=None
        Threads that decode images while others are encoded. None is one per core, at most 8; 0
        decodes in the calling thread.
    backend : {"torch", "openvino", "onnx", "auto"}, default="torch"
        What computes the image tower. "openvino" and "onnx" convert it once, need the extra of
        that name, and are faster than torch on a CPU. "auto" is torch on a GPU. On a CPU it is the
        fastest engine that is installed, if its tower is at hand or there are 500 images or more to
        encode, and torch, with a warning, for a model that no engine can compute. Change it if
        encoding on a CPU takes long, or to answer without importing torch.
    device : None, str or torch.device, default=None
        Where the model computes. None takes CUDA if there is one, else MPS, else the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision in which the image tower computes. "auto" is bfloat16 on hardware with units for
        it (CUDA from compute capability 8.0 on, Intel's AMX, AVX512-BF16 of AMD) and float32
        elsewhere, as what is fastest. In bfloat16 embeddings keep a cosine of 0.9999 with
        float32's. Take "float32" if they must be equal on different machines.
    cache : "memory", str, path-like, EmbeddingCache or None, default="memory"
        Where embeddings are kept, so that no search and no second call encodes an image twice:
        the memory of this process, a folder that other processes and runs share, or nowhere. Name a
        folder with ``n_jobs`` or when another run will see the same images.
    random_state : int or None, default=None
        Seed of the views, which depend on it and on the image alone; None is 0.
    verbose : int, default=0
        1 shows a progress bar while images are encoded, how long it will take if that is more than
        a minute, and at the end how many were encoded, found in the cache, or unreadable, on
        stderr.

    See Also
    --------
    CLIPTextFeaturizer : Embeds class names with the same CLIP.
    FunctionFeaturizer : Embeds images with an encoder of your own.

    Notes
    -----
    Transparent images are laid on white, 16-bit grey is scaled to 8 bits, EXIF orientation is
    applied, and all of this happens before resizing. Of an animation the first frame is taken.

    With ``n_views=v``, `fit_transform` and `transform` give different shapes, as TargetEncoder's
    give different values: (n, 1 + v, d) to train on, slot 0 being the clean image, and (n, d) to
    predict from. The classifiers of this package take both.

    The model is loaded when an image has to be encoded, and kept for the process, never on the
    estimator, which is pickled and cloned without weights. Images that occur twice are encoded
    once.

    open_clip downloads weights on their first use. Without a network this fails after about a
    minute, and at once with the environment variable HF_HUB_OFFLINE=1.

    References
    ----------
    A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres import CLIPFeaturizer
    >>> images = load_digits().images[:5] / 16  # (n, height, width), floats in [0, 1]
    >>> embeddings = CLIPFeaturizer("glyph-clip").fit_transform(images)
    >>> embeddings.shape[0], embeddings.dtype
    (5, dtype('float32'))
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        "model_name": [str],
        "pretrained": [str, PathLike, None],
        "normalize": ["boolean"],
        "n_views": [Interval(Integral, 0, None, closed="left")],
        "augment": [StrOptions(set(AUGMENTATIONS)), callable],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "num_workers": [None, Interval(Integral, 0, None, closed="left")],
        "backend": [StrOptions(set(BACKENDS))],
        "device": "no_validation",  # torch knows its devices, and is not imported for them
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "cache": [None, str, PathLike, EmbeddingCache],
        "random_state": [None, Interval(Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | PathLike[str] | None = "openai",
        *,
        normalize: bool = False,
        n_views: int = 0,
        augment: Augment = "taskres",
        batch_size: int = 64,
        num_workers: int | None = None,
        backend: Backend = "torch",
        device: Device = None,
        precision: Precision = "auto",
        cache: CacheLike = "memory",
        random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.model_name = model_name
        self.pretrained = pretrained
        self.normalize = normalize
        self.n_views = n_views
        self.augment = augment
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.backend = backend
        self.device = device
        self.precision = precision
        self.cache = cache
        self.random_state = random_state
        self.verbose = verbose

    def fit_transform(self, X: Images, y: object = None) -> NDArray[np.float32]:
        """Embed training images, with `n_views` augmented views each.

        Parameters
        ----------
        X : sequence of images
            As in `transform`.
        y : None or array-like
            Ignored.

        Returns
        -------
        ndarray of shape (n_samples, d), or (n_samples, 1 + n_views, d) with views, float32
            Image embeddings; with views, slot 0 is the clean image's.

        Raises
        ------
        ValueError
            As in `transform`; or if `set_output` asks for a data frame, which can't hold views.
        """
        self.fit(X, y)
        if self.n_views == 0:
            return self.transform(X)
        if _get_output_config("transform", self)["dense"] != "default":
            raise ValueError(
                f"n_views={self.n_views} gives an array of three axes, which no data frame holds. "
                f"Use set_output(transform='default'), or n_views=0."
            )
        numbers = range(1, self.n_views + 1)
        views = [View(number, self.augment, self.random_state) for number in numbers]
        return self._embed(X, [View(0), *views])

    def transform(self, X: Images) -> NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        X : sequence of images or array of shape (n_samples, height, width[, 3])
            List, tuple, Series, 1-d array, or data frame of one column whose items are paths,
            bytes, PIL images, or arrays or torch tensors of shape (H, W), (H, W, 3) or (3, H, W);
            or arrays stacked to (n, H, W), (n, H, W, 3) or (n, 3, H, W). Arrays are uint8, or float
            in [0, 1].

        Returns
        -------
        ndarray of shape (n_samples, d), float32
            Image embeddings, a row per image.

        Raises
        ------
        UnreadableImagesError
            If images cannot be read. All of them are tried first; the error's ``failures`` lists
            (index, path or kind, reason) of each. A ValueError.
        ValueError
            If X is not a sequence of images, or the model, its weights or the device is unknown.
        OSError
            If weights would have to be downloaded and cannot be (`ModelUnavailableError`).
        """
        return self._embed(X, [View(0)])[:, 0]

    def _plan(self, cache: EmbeddingCache) -> Plan:
        return plan_encoding(
            self.backend, self._model(), self.device, self.precision, cache.towers, self._encoder
        )
