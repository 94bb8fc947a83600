"""What all featurizers of images share: the pass over images, whoever encodes them."""

from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray
from sklearn.utils import Tags

from .._formulas import unit
from .._typing import Images, fit_context
from .base import EmbeddingTransformer
from .cache import CacheLike, EmbeddingCache, as_cache
from .embedding import View, embed_images
from .images import list_images

if TYPE_CHECKING:
    from .backends.plan import Plan


class ImageTransformer(EmbeddingTransformer):
    """Base of the featurizers of images; a subclass writes `_plan`, which says who encodes."""

    normalize: bool
    batch_size: int
    num_workers: int | None
    cache: CacheLike
    verbose: int

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: object = None, y: object = None) -> Self:
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

    def _plan(self, cache: EmbeddingCache) -> "Plan":
        """Return who encodes a pass over images; nothing is loaded."""
        raise NotImplementedError

    def _embed(self, X: Images, views: list[View]) -> NDArray[Any]:
        """Embeddings of the views of images, (n_samples, n_views, d)."""
        self._validate_params()
        cache = as_cache(self.cache)
        plan = self._plan(cache)
        embeddings = embed_images(
            list_images(X),
            views,
            plan,
            cache,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            verbose=self.verbose,
        )
        return unit(embeddings) if self.normalize else embeddings

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags
