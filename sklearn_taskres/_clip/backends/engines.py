"""Encoders without torch: an image tower, converted once and checked, computed by an engine."""

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from PIL import Image

from ..identity import ModelIdentity
from . import Engine
from .towers import Towers

#: Name of an engine to the module that knows it, the fastest first.
_MODULES = {"openvino": ".openvino", "onnx": ".onnx"}
#: Names of the engines.
ENGINES = tuple(_MODULES)
#: Lowest cosine with torch's float32 that a converted tower may have, by precision.
_LOWEST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
#: Encoders kept at once, as torch's.
_KEPT_ENCODERS = 2

_LOADED: dict = {}
_PARENTS: list = []
_loading = threading.Lock()


class NotConvertedError(ValueError):
    """An image tower that an engine can't take, or of which it computes something else."""


class EngineEncoder:
    """An image tower in an engine; see `ImageEncoder`.

    Parameters
    ----------
    identity : ModelIdentity
        Whose it is.
    run : callable
        uint8 pixels (b, height, width, 3) to float32 rows (b, d).
    """

    def __init__(self, identity: ModelIdentity, run: Callable[[np.ndarray], np.ndarray]):
        self.image_size = identity.preprocessing["size"]
        self._resize, self._run = identity.preprocess(), run

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return the pixels, uint8 (height, width, 3), that the tower sees of an image of RGB."""
        return np.asarray(self._resize(image).convert("RGB"))

    def encode_images(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Return raw embeddings, float32 (b, d), of b preprocessed images."""
        return self._run(np.stack(pixels))


def find_engine(name: str) -> Engine:
    """Return the module that knows an engine."""
    return cast(Engine, importlib.import_module(_MODULES[name], __package__))


def is_installed(name: str) -> bool:
    """Whether an engine can compute here."""
    return not _missing(find_engine(name).PACKAGES)


def require(engine: Engine, *, converting: bool = False) -> None:
    """Raise an ImportError that names the extra, unless an engine's packages are installed."""
    name = engine.NAME
    missing = _missing(engine.PACKAGES + (engine.CONVERTING if converting else ()))
    if missing:
        what = f"Converting a model for backend={name!r}" if converting else f"backend={name!r}"
        raise ImportError(
            f"{what} needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}. Install "
            f"what belongs to it with: pip install 'sklearn-taskres[{name}]'"
        )


def _missing(packages):
    return [name for name in packages if importlib.util.find_spec(name) is None]


def load_engine(
    engine: Engine,
    model: tuple[str, str | None],
    identity: ModelIdentity,
    precision: str,
    towers: Towers,
) -> EngineEncoder:
    """Return a model's encoder in an engine, converting the tower unless it is kept.

    Parameters
    ----------
    engine : Engine
        What computes. Its encoders are kept for the process under its name.
    model : pair of (str, str or None)
        `model_name` and `pretrained`, as `find_model` takes them.
    identity : ModelIdentity
        Whose tower it is.
    precision : {"float32", "bfloat16"}
        One of those that the engine has.
    towers : Towers
        Where it is kept.

    Returns
    -------
    EngineEncoder

    Raises
    ------
    NotConvertedError
        If torch can't export the tower, the engine can't take it, or the two disagree.
    ImportError
        If the engine is not installed, or what converting needs is not.
    """
    require(engine)
    # Each folder gets its own tower, so that an encoder is of one folder.
    key = engine.NAME, identity.fingerprint(precision), n_threads(), towers.root
    with _loading:  # whoever comes second waits, and finds the encoder loaded
        if key not in _LOADED:
            work = _Conversion(engine, model, identity, precision, towers)
            _LOADED[key] = EngineEncoder(identity, work.run())
            while len(_LOADED) > _KEPT_ENCODERS:
                del _LOADED[next(iter(_LOADED))]
        return _LOADED[key]


def _forget():
    """Start anew in a child: it has none of the threads that compute, nor those that unlock.

    What the parent had loaded is set aside, since taking it down would wait for its threads.
    """
    global _loading, _LOADED
    before = _LOADED
    _loading, _LOADED = threading.Lock(), {}
    _PARENTS.append(before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def n_threads() -> int | None:
    """Return the threads that the user wants computing to take, or None for the engine's choice.

    It is what OMP_NUM_THREADS says, as joblib's workers have it set, or what torch has been told
    where it is loaded.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


class _Conversion:
    """From a model to the function of pixels that an engine makes of its tower."""

    def __init__(self, engine, model, identity, precision, towers):
        self.engine, self.model, self.identity = engine, model, identity
        self.precision, self.towers = precision, towers

    def run(self):
        """Return the function: of the tower that is kept, or of one that is converted now."""
        run = self._of_kept()
        if run is not None:
            return run
        require(self.engine, converting=True)
        with self.towers.alone(self.identity, self.engine.NAME):
            run = self._of_kept()  # by whoever had the lock before
            return self._of_new() if run is None else run

    def _of_kept(self):
        folder = self.towers.find(self.identity, self.engine.NAME)
        if folder is None:
            return None
        try:
            return self._compiled(self.engine.read(folder), self.precision)
        except Exception:  # of another version of the engine, which this one can't read
            return None

    def _of_new(self):
        content, pixels, expected = self._from_torch()
        try:
            tower = self.engine.from_onnx(content)
            self._check(tower, pixels, expected)
        except NotConvertedError:
            raise
        except Exception as error:  # each engine raises its own kinds
            raise self._refused(error) from error

        self.towers.keep(
            self.identity,
            self.engine.NAME,
            lambda folder: self.engine.write(tower, folder),
            lambda folder: self._check(self.engine.read(folder), pixels, expected),
        )
        kept = self._of_kept()  # its weights may stay on the disk
        return self._compiled(tower, self.precision) if kept is None else kept

    def _from_torch(self):
        """ONNX file of the tower, images to compare on, and torch's embeddings of them."""
        from .torch.conversion import PixelTower, as_onnx, check_images, float32_encoder
        from .torch.pretrained import find_model

        encoder = float32_encoder(find_model(*self.model))
        size = _pair(self.identity.preprocessing["size"])
        pixels = check_images(size)
        expected = encoder.encode_images(pixels)
        try:
            model = as_onnx(PixelTower(encoder).eval(), size, "embeddings")
            return model.SerializeToString(), pixels, expected
        except Exception as error:  # torch's exporter raises many kinds
            raise self._refused(error) from error

    def _compiled(self, tower, precision):
        return self.engine.compiled(tower, precision, n_threads())

    def _check(self, tower, pixels, expected):
        """Raise NotConvertedError unless pixels are embedded as expected, in each precision."""
        for precision in dict.fromkeys(["float32", self.precision]):
            self._compare(self._compiled(tower, precision), precision, pixels, expected)

    def _compare(self, run, precision, pixels, expected):
        """Raise NotConvertedError unless batches of two sizes are embedded as by torch."""
        rows = np.concatenate([run(pixels[:1]), run(pixels[1:])])
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
        lowest = ((rows * expected).sum(axis=1) / norms).min()
        if not lowest >= _LOWEST_COSINE[precision]:  # also if it is NaN
            raise NotConvertedError(
                f"backend={self.engine.NAME!r} disagrees with torch about the image tower of "
                f"{self.identity.name!r}: in {precision} the lowest cosine is {lowest:.6f}, and "
                f"{_LOWEST_COSINE[precision]} is asked for. Use backend='torch'."
            )

    def _refused(self, error):
        why = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        return NotConvertedError(
            f"The image tower of {self.identity.name!r} can't be converted for "
            f"backend={self.engine.NAME!r}: {why.rstrip('. ')}. Use backend='torch', or 'auto', "
            f"which takes torch by itself."
        )


def _pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)
