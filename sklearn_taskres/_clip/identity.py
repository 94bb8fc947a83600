"""Who a pretrained CLIP is: all that decides about its embeddings, in plain data, without torch."""

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .resizing import make_resize

#: Name of the model that ships with the package.
BUNDLED = "glyph-clip"
#: Raised whenever the same images or prompts would give other embeddings than before.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
    """Architecture, preprocessing and weights of a CLIP; it goes through JSON unchanged."""

    name: str
    #: open_clip's model configuration.
    config: dict
    #: open_clip's preprocessing configuration.
    preprocessing: dict
    #: Name that the weights go by for good, or the digest of their file.
    weights: str
    #: Names and digests of other files that decide about embeddings: a tokenizer's.
    others: list = dataclasses.field(default_factory=list)

    @property
    def embedding_size(self) -> int:
        """Elements of an embedding, d."""
        return self.config["embed_dim"]

    def fingerprint(self, precision: str) -> str:
        """Return a text that is equal only if embeddings are, to the rounding of `precision`."""
        parts = [_FORMAT, self.config, self.preprocessing, self.weights, precision, *self.others]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def preprocess(self):
        """Return the transform of a PIL image of mode RGB to another one, of the size it takes.

        It does what open_clip does before the last steps, to a tensor and to zero mean and unit
        variance.
        """
        return make_resize(**self.preprocessing)

    def as_json(self) -> dict[str, Any]:
        """Return what `ModelIdentity(**...)` takes, as JSON holds it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def names_its_weights(model_name: str) -> bool:
    """Whether a model's name says which weights it has, so that `pretrained` is ignored."""
    return model_name == BUNDLED or model_name.startswith(("local-dir:", "hf-hub:"))


def model_folder(model_name: str) -> Path:
    """Return the folder of a name "local-dir:<folder>"."""
    return Path(os.path.expanduser(model_name.partition(":")[2]))


def model_stamps(model_name: str, pretrained: str | os.PathLike | None) -> tuple:
    """State of the files on disk behind a model, so that a replaced file is not served stale."""
    if model_name.startswith("local-dir:"):
        files = sorted(model_folder(model_name).glob("*"))
    else:
        files = [Path(os.path.expanduser(pretrained))] if pretrained else []
    return tuple(file_stamp(file) for file in files if file.is_file())


def file_stamp(path: str | os.PathLike) -> tuple:
    """State of a file: another one as soon as the file is changed or replaced."""
    state = os.stat(path)
    times = state.st_mtime_ns, state.st_ctime_ns
    return os.path.realpath(path), state.st_dev, state.st_ino, state.st_size, *times


def file_digest(path: str | os.PathLike) -> str:
    """Digest of a file's bytes, which are read again when its stamp says so."""
    return _digest(os.fspath(path), *file_stamp(path))


@functools.lru_cache(maxsize=16)
def _digest(path, *state):
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
