"""Images to CLIP embeddings, as a scikit-learn transformer."""

from numbers import Integral
from os import PathLike

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from .._formulas import unit
from .._persistence import VersionStamp
from .images import UnreadableImagesError, describe_image, list_images, read_image


class CLIPFeaturizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, VersionStamp):
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
        dict; a file that would execute code is refused). Ignored where `model_name` already says
        which weights. A file gets the preprocessing that is the architecture's default; where the
        weights want another, put both into a folder and use "local-dir:<folder>". For a file
        trained with QuickGELU, as OpenAI's are, name the architecture that ends in "-quickgelu":
        a file cannot say.
    normalize : bool, default=False
        Whether rows are scaled to unit norm. Switch it on for uses outside this package, such as
        nearest neighbours or clustering.
    batch_size : int, default=64
        Images encoded at once. Raise it on a GPU, lower it when memory runs out; results do not
        depend on it.
    device : None, str or torch.device, default=None
        Where the model computes. None takes CUDA where there is one, else MPS, else the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the matrix products. "auto" is float32. Try "bfloat16" where it is faster;
        embeddings then move by about a percent.

    See Also
    --------
    CLIPTextFeaturizer : Embeds class names with the same CLIP.

    Notes
    -----
    Transparent images are laid on white, 16-bit grey is scaled to 8 bits, EXIF orientation is
    applied, and all of this happens before resizing. Of an animation the first frame is taken.
    Images are not augmented.

    The model is loaded on the first call and kept for the process, never on the estimator, which
    is pickled and cloned without weights. ViT-B/32 embeds some 15 images a second on one CPU core,
    and every call embeds again.

    open_clip downloads weights on their first use. Where there is no network that takes a minute to
    fail, and no time with the environment variable HF_HUB_OFFLINE=1.

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
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": "no_validation",  # torch knows its devices, and is not imported for them
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    }

    def __init__(
        self,
        model_name="ViT-B-32",
        pretrained="openai",
        *,
        normalize=False,
        batch_size=64,
        device=None,
        precision="auto",
    ):
        self.model_name = model_name
        self.pretrained = pretrained
        self.normalize = normalize
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X=None, y=None):
        """Check the parameters and learn nothing.

        Parameters
        ----------
        X : None or sequence of images
            Ignored.
        y : None or array-like
            Ignored.

        Returns
        -------
        self : object
            The featurizer itself.
        """
        return self

    def transform(self, X):
        """Embed images.

        Parameters
        ----------
        X : sequence of images or array of shape (n_samples, height, width[, 3])
            List, tuple, Series or 1-d array whose items are paths, bytes, PIL images, or arrays or
            torch tensors of shape (H, W), (H, W, 3) or (3, H, W); or arrays stacked to (n, H, W),
            (n, H, W, 3) or (n, 3, H, W). Arrays are uint8, or float in [0, 1].

        Returns
        -------
        ndarray of shape (n_samples, d), float32
            Image embeddings, a row an image.

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
        self._validate_params()
        from .encoder import load_encoder

        images = list_images(X)
        encoder = load_encoder(
            self.model_name, self.pretrained, device=self.device, precision=self.precision
        )
        failures: list[tuple[int, str, str]] = []
        embeddings = np.empty((len(images), encoder.embedding_size), dtype=np.float32)
        for indices, pixels in _pixels(images, encoder.preprocess, self.batch_size, failures):
            embeddings[indices] = encoder.encode_images(pixels)
        if failures:
            raise UnreadableImagesError(failures)
        return unit(embeddings) if self.normalize else embeddings

    @property
    def _n_features_out(self):
        from .pretrained import find_model

        return find_model(self.model_name, self.pretrained).embedding_size

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


def _pixels(images, preprocess, batch_size, failures):
    """Yield indices and pixels (b, 3, H, W) of each batch; add unreadable images to `failures`."""
    import torch

    for start in range(0, len(images), batch_size):
        readable = {}
        for index in range(start, min(start + batch_size, len(images))):
            try:
                readable[index] = preprocess(read_image(images[index]))
            except ValueError as error:
                failures.append((index, describe_image(images[index]), str(error)))
        if readable:
            yield list(readable), torch.stack(list(readable.values()))
