"""Images to embeddings of any encoder that is a function, as a scikit-learn transformer."""

import dataclasses
from collections.abc import Callable, Sequence
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from sklearn.utils._param_validation import Interval

from .._typing import Images
from .cache import CacheLike, EmbeddingCache
from .embedding import View
from .identity import ModelIdentity
from .image_transformer import ImageTransformer
from .images import from_torch

if TYPE_CHECKING:
    from .backends.plan import Plan

#: A batch, a list of PIL images or of what `preprocess` makes of them, to its rows.
Encode: TypeAlias = Callable[[list[Any]], ArrayLike]


class FunctionFeaturizer(ImageTransformer):
    """Embed images with an encoder of your own, given as a function.

    For encoders that are no CLIP: models of timm, DINO, sentence-transformers, an inference server.
    Images of every kind are read, errors are listed and embeddings are kept as by `CLIPFeaturizer`.
    With a classifier's ``base="class_means"`` no text side is needed.

    Nothing is learned, so `transform` works without `fit`.

    Parameters
    ----------
    func : callable
        Takes a list of 1 to `batch_size` PIL images (mode RGB, upright, of different sizes), or of
        what `preprocess` made of them, and returns one row of `embedding_size` numbers for each:
        an array or a torch tensor of shape (n, d) on any device. It has to be deterministic. Load
        the model on the first call or at the top of a module, not inside the object that you pass:
        ``clone`` copies every callable that is not a plain function, a model's method included.
    model_name : str
        What embeddings are kept under, such as "timm/vit_small_patch14_dinov2, 224 px". Change it
        whenever `func` or `preprocess` would give other rows: other weights, another size, another
        layer. The cache can't see into a function, and would return the old ones.
    embedding_size : int
        Elements of a row, d: ``model.num_features`` of timm. Known beforehand, so that the model is
        not loaded if all images are in the cache.
    preprocess : callable or None, default=None
        Takes a PIL image and returns what `func` takes in its place, such as timm's transform to a
        tensor. It is called in `num_workers` threads. Pass it for photographs: without it a batch
        of images in full size waits for `func`, 36 MB for each of 12 megapixels. If it raises a
        ValueError, the image counts as unreadable.
    normalize : bool, default=False
        Whether rows are scaled to unit norm. Switch it on for uses outside this package, such as
        nearest neighbours or clustering.
    batch_size : int, default=64
        Images per call of `func`, at most. Raise it on a GPU, lower it when memory runs out.
    num_workers : int or None, default=None
        Threads that decode images while `func` encodes others. None is one per core, at most 8; 0
        decodes in the calling thread, between calls of `func`.
    cache : "memory", str, path-like, EmbeddingCache or None, default="memory"
        Where embeddings are kept, as in `CLIPFeaturizer`. Name a folder with ``n_jobs`` or when
        another run will see the same images. None while you are still changing `func`.
    verbose : int, default=0
        1 shows a progress bar and a summary on stderr, as in `CLIPFeaturizer`.

    See Also
    --------
    CLIPFeaturizer : Embeds images with a CLIP, whose text side reads the names of the classes.

    Notes
    -----
    A pickle names `func` and `preprocess` by their module, as pickles do with functions. So define
    them in a module, not in a notebook, if a model is to be loaded elsewhere or ``n_jobs`` is used.

    There are no augmented views.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres import FunctionFeaturizer
    >>> def thumbnails(images):
    ...     return np.stack([np.ravel(image.convert("L").resize((4, 4))) for image in images])
    >>> featurizer = FunctionFeaturizer(thumbnails, "thumbnails, 4 x 4", 16)
    >>> featurizer.fit_transform(load_digits().images[:5] / 16).shape
    (5, 16)
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        "func": [callable],
        "model_name": [str],
        "embedding_size": [Interval(Integral, 1, None, closed="left")],
        "preprocess": [callable, None],
        "normalize": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "num_workers": [None, Interval(Integral, 0, None, closed="left")],
        "cache": [None, str, PathLike, EmbeddingCache],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        func: Encode,
        model_name: str,
        embedding_size: int,
        *,
        preprocess: Callable[[Image.Image], Any] | None = None,
        normalize: bool = False,
        batch_size: int = 64,
        num_workers: int | None = None,
        cache: CacheLike = "memory",
        verbose: int = 0,
    ) -> None:
        self.func = func
        self.model_name = model_name
        self.embedding_size = embedding_size
        self.preprocess = preprocess
        self.normalize = normalize
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache = cache
        self.verbose = verbose

    def transform(self, X: Images) -> NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        X : sequence of images or array of shape (n_samples, height, width[, 3])
            As in `CLIPFeaturizer.transform`.

        Returns
        -------
        ndarray of shape (n_samples, embedding_size), float32
            A row per image.

        Raises
        ------
        UnreadableImagesError
            If images cannot be read. The others are encoded and kept first; the error's
            ``failures`` lists (index, path or kind, reason) of each. A ValueError.
        ValueError
            If X is not a sequence of images, or `func` returns something other than a row of
            `embedding_size` finite numbers for each.
        """
        return self._embed(X, [View(0)])[:, 0]

    def _plan(self, cache: EmbeddingCache) -> "Plan":
        from .backends.plan import Plan

        size = int(self.embedding_size)
        identity = ModelIdentity(self.model_name, {"embed_dim": size}, {}, self.model_name)
        encoder = _FunctionEncoder(self.func, self.preprocess, size)
        return Plan(identity, "float32", False, lambda n_images: encoder)

    def _width(self) -> int:
        return self.embedding_size


@dataclasses.dataclass
class _FunctionEncoder:
    """A user's functions, as the pass over images calls an encoder."""

    func: Encode
    function_of_image: Callable[[Image.Image], Any] | None
    embedding_size: int
    #: What only augmented views ask for.
    image_size: int | tuple[int, int] = 0

    def preprocess(self, image: Image.Image) -> Any:
        """Return what `func` takes of an image, which is closed afterwards: hence the copy."""
        image = image.copy()
        return image if self.function_of_image is None else self.function_of_image(image)

    def encode_images(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Return the rows of a batch, float32 (b, d), checked: what is kept stays."""
        rows = np.asarray(from_torch(self.func(list(batch))))
        if rows.shape != (len(batch), self.embedding_size):
            raise ValueError(
                f"func must return a row of embedding_size={self.embedding_size} numbers for each "
                f"image, so shape {(len(batch), self.embedding_size)} for {len(batch)} images. Got "
                f"shape {rows.shape}: change func, or embedding_size."
            )
        rows = rows.astype(np.float32)
        invalid = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(invalid):
            raise ValueError(
                f"func returned NaN or infinite values for image {invalid[0]} of a batch of "
                f"{len(batch)}. Compute in float32, or leave the image out."
            )
        return rows
