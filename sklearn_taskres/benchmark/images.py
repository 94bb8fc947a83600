"""A data set of images, embedded by one CLIP as far as it is needed."""

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

from .. import CLIPFeaturizer, CLIPTextFeaturizer, sample_few_shot
from .._clip.prompts import TEMPLATES
from . import recipes


class Backbone(NamedTuple):
    """A CLIP, as a command line names it."""

    name: str
    model_name: str
    pretrained: str


def parse_backbone(text):
    """Return the backbone that a text names.

    Parameters
    ----------
    text : str
        ``MODEL``, with OpenAI's weights; ``MODEL:TAG`` or ``MODEL:FILE``; or what open_clip spells
        ``local-dir:FOLDER`` or ``hf-hub:OWNER/REPOSITORY``.
    """
    if text.startswith(("local-dir:", "hf-hub:")):
        kind, _, place = text.partition(":")
        return Backbone(f"{kind}:{Path(place).name}", text, "openai")
    model_name, _, weights = text.partition(":")
    if weights in {"", "openai"}:
        return Backbone(model_name, model_name, "openai")
    return Backbone(f"{model_name}:{Path(weights).name}", model_name, weights)


class EmbeddingError(Exception):
    """Images of a data set could not be embedded."""


class EmbeddedDataSet:
    """What `benchmark accuracy` runs on: rows of a data set, embedded when they are asked for.

    Parameters
    ----------
    data_set : DataSet
        Of images.
    backbone : Backbone
        The CLIP of both wings.
    n_views : int
        Augmented views of each training image.
    cache : path-like
        Folder where embeddings are kept, for the next cell, run and process.

    Raises
    ------
    ValueError
        If there is no such model or weights.
    OSError
        If a weights file can't be read.
    """

    base_norm = None

    def __init__(self, data_set, backbone, n_views, cache):
        clip = {**_clip_params(backbone), "cache": cache}
        self.name, self.class_names = data_set.name, data_set.class_names
        self.backbone, self.views = backbone.name, n_views
        self.base = CLIPTextFeaturizer(**clip, templates=data_set.name)
        self.digests = _digests(data_set, fingerprint(backbone))
        self._data_set = data_set
        self._featurizer = CLIPFeaturizer(**clip, n_views=n_views, verbose=1)
        self._tests: dict = {}

    def published_parameters(self, class_name, shots):
        """Return the parameters that a method's class is published with."""
        return recipes.published_parameters(class_name, self.name, self.backbone, shots)

    def training(self, shots, seed):
        """Draw images of each class, and embed them with their views: rows and labels.

        Raises
        ------
        EmbeddingError
            If images can't be read.
        """
        train = self._data_set.train
        rows = sample_few_shot(train.y, shots, random_state=seed)
        return self._embedded(self._featurizer.fit_transform, train.paths(rows)), train.y[rows]

    def tests(self):
        """Rows and labels of each test set, by its name; embedded once.

        Raises
        ------
        EmbeddingError
            If images can't be read.
        """
        if not self._tests:
            self._tests = {
                name: (self._embedded(self._featurizer.transform, rows.paths()), rows.y)
                for name, rows in self._data_set.tests.items()
            }
        return self._tests

    def _embedded(self, transform, paths):
        from .._clip.backends.torch.pretrained import ModelUnavailableError

        try:
            return transform(paths)
        except ModelUnavailableError as error:
            sys.exit(str(error))  # no other data set would fare better
        except ValueError as error:
            raise EmbeddingError(str(error)) from error


def fingerprint(backbone):
    """Return the text that is equal only if embeddings are, in whatever precision.

    Parameters
    ----------
    backbone : Backbone
        It is found, and not loaded.

    Raises
    ------
    ValueError
        If there is no such model or weights.
    OSError
        If a weights file can't be read.
    """
    from .._clip.backends.torch.pretrained import find_model

    return find_model(**_clip_params(backbone)).fingerprint("any precision")


def _clip_params(backbone):
    return {"model_name": backbone.model_name, "pretrained": backbone.pretrained}


def _digests(data_set, clip):
    """Test set to a digest of all that its accuracy rests on, except the images' pixels."""
    parts = [clip, *TEMPLATES[data_set.name], *data_set.class_names]
    known = hashlib.sha256(
        "\0".join(parts).encode("utf-8", "surrogatepass") + data_set.train.digest()
    )
    digests = {}
    for name, rows in data_set.tests.items():
        digest = known.copy()
        digest.update(rows.digest())
        digests[name] = digest.hexdigest()[:16]
    return digests
