"""What the featurizers of images and of class names share: one CLIP, found, checked and loaded."""

import numpy as np
from sklearn.base import TransformerMixin

from .._persistence import VersionStamp


class CLIPTransformer(TransformerMixin, VersionStamp):
    """Base of the two featurizers: parameters that name a CLIP, and ways to get at it."""

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns, the class's name in lower case and a number.

        Parameters
        ----------
        input_features : None or array-like
            Ignored.

        Returns
        -------
        ndarray of shape (d,), object
        """
        width = self._source().embedding_size
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(width)], dtype=object)

    def _source(self):
        """Find what the model's name stands for; nothing is loaded."""
        from .pretrained import find_model

        return find_model(self.model_name, self.pretrained)

    def _encoder(self):
        from .encoder import load_encoder

        return load_encoder(
            self.model_name, self.pretrained, device=self.device, precision=self.precision
        )
