"""Types that recur in the signatures of the public names, each written once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import device as _TorchDevice  # noqa: N812
else:
    Axes = _TorchDevice = Any  # heavy, or not installed

_Method = TypeVar("_Method", bound=Callable[..., Any])


class TextEmbedder(Protocol):
    """What embeds class names: a CLIPTextFeaturizer, or what can do the same."""

    def transform(self, X: Any, /) -> Any: ...

    def class_features(self, class_names: Any, /) -> Any: ...

    def logit_scale(self) -> float: ...

    def describe_model(self) -> str: ...


class Images(Protocol):
    """Images in an order: a list, tuple, Series, array or tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


#: Where class embeddings come from.
Base: TypeAlias = TextEmbedder | ArrayLike | Literal["class_means"] | None
#: Strings in an order; a Series is refused, since its order and its index may differ.
Names: TypeAlias = Sequence[str] | NDArray[Any]
#: Names of the labels.
ClassNames: TypeAlias = Mapping[Any, str] | Names | None
#: Classes to add: names or embeddings by label, or names that are the labels.
NewClasses: TypeAlias = Mapping[Any, str | ArrayLike] | Sequence[str]
ClassWeight: TypeAlias = dict[Any, float] | Literal["balanced"] | None
#: Callbacks of skorch, or pairs of a name and one; skorch ships no types.
Callbacks: TypeAlias = list[Any] | tuple[Any, ...] | None
Device: TypeAlias = str | _TorchDevice | None
#: Who computes the image tower.
Backend: TypeAlias = Literal["torch", "openvino", "onnx", "auto"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
RandomState: TypeAlias = int | np.random.RandomState | None


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]:
    """Return scikit-learn's decorator that checks parameters, keeping the types of the method."""
    return _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)
