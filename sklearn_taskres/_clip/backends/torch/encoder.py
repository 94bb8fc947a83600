"""The frozen CLIP at work: loaded once per process, made to answer in NumPy arrays.

Estimators import this file inside the functions that need a model, since it imports torch.
"""

import copy
import functools
import os
import threading

import numpy as np
import torch

from ...._device import PRECISIONS, fastest_precision, product_precision, resolve_device
from ...._messages import warn_user
from ...identity import model_stamps, names_its_weights
from ...resizing import make_resize
from .blocks import replace_blocks
from .pretrained import build_model, build_tokenizer, find_model

__all__ = ["Encoder", "build_model", "build_tokenizer", "load_encoder"]

#: Encoders kept at once: one for a pipeline, one for the model it is compared with.
_KEPT_ENCODERS = 2
_loading = threading.Lock()


def load_encoder(model_name, pretrained, *, device=None, precision="auto"):
    """Return the encoder of a pretrained CLIP, loading it unless this process holds it already.

    Parameters
    ----------
    model_name : str
        See `find_model`.
    pretrained : str, path-like or None
        See `find_model`.
    device : None, str or torch.device
        See `resolve_device`.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision in which the towers compute. See `image_precision` and `text_precision`.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If the model, tag, file, device or precision is unknown, or the weights do not fit.
    ModelUnavailableError
        If something would have to be downloaded and cannot be.
    ImportError
        If the text tower needs the package transformers, and it is not installed.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"The 'precision' parameter of load_encoder must be one of {', '.join(PRECISIONS)}. "
            f"Got {precision!r} instead."
        )
    if names_its_weights(model_name) or pretrained is None:
        pretrained = None
    else:
        pretrained = os.fspath(pretrained)
    stamp, device = model_stamps(model_name, pretrained), resolve_device(device)
    precisions = image_precision(precision, device), text_precision(precision)
    with _loading:  # whoever comes second waits, and finds the encoder loaded
        return _cached_encoder(model_name, pretrained, stamp, device, *precisions)


def _forget_lock():
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):  # a child must not wait for threads that it does not have
    os.register_at_fork(after_in_child=_forget_lock)


def image_precision(precision, device):
    """Return the precision of the image tower: for "auto" whatever is fastest on the device."""
    return fastest_precision(device) if precision == "auto" else precision


def text_precision(precision):
    """Return the precision of the text tower: for "auto" float32, as there are few prompts."""
    return "float32" if precision == "auto" else precision


@functools.lru_cache(maxsize=_KEPT_ENCODERS)
def _cached_encoder(model_name, pretrained, stamp, device, *precisions):
    return Encoder(find_model(model_name, pretrained), device, *precisions)


class Encoder:
    """A frozen CLIP on a device. Its methods take batches and may be called from any thread.

    Attributes
    ----------
    source : ModelSource
        What was loaded.
    model : torch.nn.Module
        open_clip's model: eval mode, no gradients, shared by everyone in the process. A plain
        vision transformer has other blocks, see `replace_blocks`.
    device : torch.device
        Where it computes.
    image_precision : {"float32", "bfloat16"}
        What the image tower holds and computes in; results are float32.
    text_precision : {"float32", "bfloat16"}
        What the text tower multiplies in; results are float32.
    embedding_size : int
        Elements of an embedding, d.
    image_size : int or pair of int
        Height and width of the images it takes.
    logit_scale : float
        Learned scale of cosines, 1/τ.
    """

    def __init__(self, source, device, image_precision, text_precision):
        self.source = source
        self.device = device
        self.image_precision = image_precision
        self.text_precision = text_precision
        model, self._token_ids = source.model()
        self.logit_scale = float(model.logit_scale.exp())
        replace_blocks(model.visual)
        self.model = model.to(device)
        self._dtype = getattr(torch, image_precision)
        is_convolutional = _is_convolutional(model.visual)  # then channels last is faster
        self._memory_format = torch.channels_last if is_convolutional else torch.contiguous_format
        model.visual.to(dtype=self._dtype, memory_format=self._memory_format)
        self.embedding_size = source.embedding_size
        self.image_size = source.preprocessing["size"]
        self._resize, self._tokenizer = make_resize(**source.preprocessing), None
        moments = [source.preprocessing[name] for name in ("mean", "std")]
        self._mean, self._std = torch.tensor(moments, device=device)[:, :, None, None]

    @property
    def tokenizer(self):
        """The tokenizer: a list of prompts to token ids, int64 (n, context)."""
        if self._tokenizer is None:  # a cached_property of Python 3.11 has a lock, also in a fork
            self._tokenizer = self.source.tokenizer()
        return self._tokenizer

    def preprocess(self, image):
        """Return the pixels, uint8 (height, width, 3), that the tower sees of a PIL image."""
        return np.asarray(self._resize(image).convert("RGB"))

    def encode_images(self, pixels):
        """Return raw embeddings, float32 (b, d), of b preprocessed images."""
        with torch.inference_mode():
            batch = self._normalised(torch.from_numpy(np.stack(pixels)))
            return _to_numpy(self.model.encode_image(batch, normalize=False))

    def _normalised(self, pixels):
        """Return what the tower takes, (b, 3, height, width), of uint8 (b, height, width, 3)."""
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # copied while the host goes on
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        # In the tower's layout first: with the strides of an image each pass takes longer.
        pixels = pixels.to(torch.float32, memory_format=self._memory_format)
        return pixels.div_(255).sub_(self._mean).div_(self._std).to(self._dtype)

    def encode_texts(self, prompts):
        """Return raw embeddings, float32 (n, d), of a list of prompts."""
        return self._encode_tokens(self.model, prompts)

    def text_features(self, prompts):
        """Return what the text projection is applied to, float32 (n, W), for a list of prompts."""
        return self._encode_tokens(self._without_projection, prompts)

    def text_projection(self):
        """Return the text projection: weight (W, d) and bias (d,) or None, both float32.

        ``encode_texts(p) == text_features(p) @ weight + bias`` to float precision.
        """
        projection = getattr(*self._projection)
        if isinstance(projection, torch.nn.Linear):
            bias = None if projection.bias is None else _to_numpy(projection.bias).copy()
            return _to_numpy(projection.weight).T.copy(), bias
        return _to_numpy(projection).copy(), None  # the model's own memory stays its own

    @property
    def text_tower(self):
        """Module that holds the text transformer: the model itself, or a part of it."""
        return getattr(self.model, "text", self.model)

    def with_text_tower(self, tower):
        """Return a model that has a changed copy of the text tower, and shares all weights."""
        if self.text_tower is self.model:
            return tower
        model = copy_sharing_tensors(self.model)
        model.text = tower
        return model

    def tokenize(self, prompts):
        """Return token ids, int64 (n, context), and warn if a prompt loses something."""
        tokens = self.tokenizer(prompts)
        _warn_about(
            prompts,
            self._is_cut(prompts, tokens),
            f"is longer than {tokens.shape[1]} tokens and was cut",
            "Shorten the name of the class, or the template.",
        )
        _warn_about(
            prompts,
            self._is_foreign(tokens),
            f"holds words that {self.source.name!r} never saw",
            "Use other words, or another model.",
        )
        return tokens

    def reads_whole(self, prompts):
        """Return whether nothing of each prompt is lost, bool (n,)."""
        tokens = self.tokenizer(prompts)
        return ~(self._is_cut(prompts, tokens) | self._is_foreign(tokens)).numpy()

    def _is_cut(self, prompts, tokens):
        """Whether prompts have more tokens when the context is longer, (n,)."""
        pad = getattr(getattr(self.tokenizer, "tokenizer", None), "pad_token_id", 0)
        longer = self.tokenizer(prompts, context_length=2 * tokens.shape[1])
        return (longer != pad).sum(dim=1) > (tokens != pad).sum(dim=1)

    def _is_foreign(self, tokens):
        """Whether prompts hold tokens that a cut vocabulary does not have, (n,)."""
        if self._token_ids is None:
            return torch.zeros(len(tokens), dtype=torch.bool)
        return ~(torch.isin(tokens, self._token_ids) | (tokens == 0)).all(dim=1)  # 0 pads

    def _encode_tokens(self, model, prompts):
        tokens = self.tokenize(list(prompts)).to(self.device)
        with torch.inference_mode(), product_precision(self.device, self.text_precision):
            return _to_numpy(model.encode_text(tokens, normalize=False))

    @functools.cached_property
    def _projection(self):
        """Module that holds the text projection, and the attribute that is it."""
        tower = self.text_tower
        name = "proj" if hasattr(tower, "proj") else "text_projection"  # Hugging Face, open_clip
        if not isinstance(getattr(tower, name, None), torch.nn.Parameter | torch.nn.Linear):
            raise ValueError(
                f"The text tower of {self.source.name!r} does not end in a linear projection, so "
                f"there are no features before it. Use a model such as 'ViT-B-32', or the "
                f"embeddings after it."
            )
        return tower, name

    @functools.cached_property
    def _without_projection(self):
        """Model whose `encode_text` stops before the projection; it shares all weights.

        A copy, since other threads may be encoding texts with the model itself.
        """
        tower, name = self._projection
        bare = copy_sharing_tensors(tower)
        setattr(bare, name, torch.nn.Identity() if name == "proj" else None)
        return self.with_text_tower(bare)


def _is_convolutional(tower):
    """Whether an image tower is more than a transformer behind one convolution."""
    return sum(isinstance(module, torch.nn.Conv2d) for module in tower.modules()) > 1


def copy_sharing_tensors(module):
    """Copy of a module and its children that shares all tensors; theirs can be replaced."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _to_numpy(tensor):
    return tensor.detach().float().cpu().numpy()


def _warn_about(prompts, bad, what, remedy, shown=3):
    """Warn about the prompts marked in `bad`, (n,) of bool, naming the first few."""
    named = [repr(p[:80]) for p, is_bad in zip(prompts, bad.tolist(), strict=True) if is_bad]
    if named:
        more = f" and {len(named) - shown} more" if len(named) > shown else ""
        warn_user(f"A prompt {what}: {', '.join(named[:shown])}{more}. {remedy}")
