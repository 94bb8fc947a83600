"""Which backend encodes a pass over images, and in which precision; decided without torch."""

import os
import platform
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..._cpu import has_bfloat16_units
from ..._messages import warn_once
from ..identity import ModelIdentity
from . import ImageEncoder
from .engines import ENGINES, NotConvertedError, find_engine, is_installed, load_engine, require
from .towers import Towers

#: Values of the parameter `backend`.
BACKENDS = ("torch", *ENGINES, "auto")
#: Images that are left to encode from which on "auto" converts a tower that is not kept: it takes
#: as long as some hundred images.
WORTH_CONVERTING = 500
#: Files that a driver of GPUs makes: NVIDIA's, AMD's, and Windows' for Linux.
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")


class Plan(NamedTuple):
    """How a pass over images is encoded."""

    identity: ModelIdentity
    #: "float32" or "bfloat16"; decides, with the identity, what embeddings are kept under.
    precision: str
    #: Whether the processor encodes, so that decoding meanwhile would slow it down.
    on_cpu: bool
    #: Number of images to encode to the encoder; loads it when it is called.
    load_encoder: Callable[[int], ImageEncoder]


def plan_encoding(
    backend: str,
    model: tuple[str, str | None],
    device: Any,
    precision: str,
    towers: Callable[[], Towers],
    load_torch: Callable[[], ImageEncoder],
) -> Plan:
    """Decide who encodes.

    Parameters
    ----------
    backend : {"torch", "openvino", "onnx", "auto"}
        What the user asks for.
    model : pair of (str, str or None)
        `model_name` and `pretrained`.
    device, precision : object, str
        As in CLIPFeaturizer.
    towers : callable
        Gives the Towers; called for an engine only.
    load_torch : callable
        Gives torch's encoder.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the device, or the precision, is none that the backend has.
    ImportError
        If a backend that is asked for by name is not installed.
    """
    engine = backend
    if backend == "auto":
        engine = fastest_backend(device, precision, filter(is_installed, ENGINES))
    if engine == "torch":
        return _plan_torch(model, device, precision, load_torch)
    if backend != "auto":
        require(find_engine(backend))
        _check_device(backend, device)
    kept = towers()
    identity = _identity(model, kept)
    precision = _precision_of(engine, precision)

    def load_encoder(n_images):
        is_worth_it = n_images >= WORTH_CONVERTING or kept.has(identity, engine)
        if backend == "auto" and not is_worth_it:
            return load_torch()
        try:
            return load_engine(find_engine(engine), model, identity, precision, kept)
        except NotConvertedError as error:
            if backend != "auto":
                raise
            warn_once(("engine", engine, identity.name), f"torch encodes instead. {error}")
            return load_torch()

    return Plan(identity, precision, True, load_encoder)


def _plan_torch(model, device, precision, load_torch):
    from ..._device import resolve_device
    from .torch.encoder import image_precision
    from .torch.pretrained import find_model

    device = resolve_device(device)
    precision = image_precision(precision, device)
    identity = find_model(*model).identity()
    return Plan(identity, precision, device.type == "cpu", lambda n_images: load_torch())


def _identity(model, towers):
    """Who a model is: noted when its tower was converted, or else found by open_clip and noted."""
    identity = towers.identity(*model)
    if identity is None:
        from .torch.pretrained import find_model

        identity = find_model(*model).identity()
        towers.remember(*model, identity)
    return identity


def fastest_backend(device: Any, precision: str, engines: Iterable[str]) -> str:
    """Return the fastest backend that there is for a device: torch on a GPU, or an engine.

    Parameters
    ----------
    device, precision : object, str
        As in CLIPFeaturizer.
    engines : iterable of str
        Names of those that are installed, the fastest first.

    Returns
    -------
    str
    """
    if not _is_cpu(device):
        return "torch"
    can = (name for name in engines if _wanted(precision) in find_engine(name).PRECISIONS)
    return next(can, "torch")


def _wanted(precision):
    """Precision that is best on this processor, if a user leaves it open."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16_units() else "float32"


def _precision_of(engine, precision):
    """Precision in which an engine is to compute; refuse one that it lacks."""
    has = find_engine(engine).PRECISIONS
    if precision == "auto":
        return _wanted(precision) if _wanted(precision) in has else "float32"
    if precision not in has:
        raise ValueError(
            f"backend={engine!r} computes in {' and '.join(has)} only, and precision={precision!r} "
            f"is asked for. Use precision='auto', or another backend."
        )
    return precision


def _check_device(backend, device):
    if device is not None and str(device) != "cpu":
        raise ValueError(
            f"backend={backend!r} computes on the CPU, and device={device!r} is asked for. Use "
            f"backend='torch' on a GPU, or device=None."
        )


def _is_cpu(device):
    """Whether a device, None being the best that there is, is the CPU; torch is asked last."""
    if device is None and "torch" not in sys.modules and not _may_have_gpu():
        return True
    if str(device) == "cpu":
        return True
    from ..._device import resolve_device

    return resolve_device(device).type == "cpu"


def _may_have_gpu():
    return platform.system() != "Linux" or any(map(os.path.exists, _GPU_FILES))
