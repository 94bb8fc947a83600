"""What the siblings share that the engine trains: parameters of training, and the call."""

from numbers import Integral, Real
from typing import Any, Literal

from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, StrOptions

from .._formulas import scaled_classifier, unit
from .._held_out import images_per_class
from .._typing import Callbacks, Device, Precision
from .base import BaseCLIPClassifier

#: Steps of the longest published recipe: ImageNet, 16 shots, 200 epochs of 62.
_MOST_STEPS = 12_400


class TrainedClassifier(BaseCLIPClassifier):
    """Base of the siblings that the engine trains.

    `_train` keeps ``history_``, ``n_iter_`` and ``n_parameters_`` and returns what was learned.
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **BaseCLIPClassifier._parameter_constraints,
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [None, dict, StrOptions({"balanced"})],
        "callbacks": [None, list, tuple],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    max_epochs: int | Literal["auto"]
    batch_size: int
    callbacks: Callbacks
    device: Device
    precision: Precision
    verbose: int

    def _prepare(self, X, y, sample_weight):
        check_callbacks(self.callbacks)
        return super()._prepare(X, y, sample_weight)

    def _zero_shot_logits(self, X):
        return torch_product(unit(X), scaled_classifier(self.base_, self.logit_scale_).T)

    def _train(self, formula, rows, y, sample_weight, **how):
        """Learn the arrays of a formula; see :func:`~sklearn_taskres._training.train`.

        Returns
        -------
        dict of str to ndarray
            Learned arrays.
        """
        how["callbacks"] = self.callbacks
        return self._keep(self._run_engine(formula, rows, y, sample_weight, **how))

    def _keep(self, trained):
        """Keep how training went; return the learned arrays."""
        self.history_, self.n_iter_ = trained.history, len(trained.history)
        self.n_parameters_ = sum(array.size for array in trained.parameters.values())
        return trained.parameters

    def _epochs(self, y, batch_size, **automatic):
        """Return `max_epochs`, or what :func:`auto_max_epochs` says of "auto"."""
        if self.max_epochs != "auto":
            return self.max_epochs
        return auto_max_epochs(y, batch_size, **automatic)

    def _run_engine(self, formula, rows, y, sample_weight, **how):
        from .._training import train

        names = ("lr", "max_epochs", "batch_size", "device", "precision", "verbose")
        ours = {name: getattr(self, name) for name in names}
        return train(formula, rows, y, sample_weight, **{**ours, **how})


def torch_product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Multiply two matrices of one dtype on the CPU by torch, in fits in which torch trains.

    After a product NumPy's threads stay awake for up to a tenth of a second, and take the cores
    from torch.
    """
    import torch

    from .._device import resolve_device

    resolve_device("cpu")  # keeps a child that forks later from waiting forever
    return (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()


def check_callbacks(callbacks: Callbacks) -> None:
    """Refuse what skorch could not notify, and a monitor of a loss that no fit has."""
    recorded = set()
    for item in callbacks or ():
        named = isinstance(item, tuple) and len(item) == 2
        callback = item[1] if named else item
        if not hasattr(callback, "on_train_begin"):
            raise ValueError(
                f"callbacks must hold callbacks of skorch, such as EarlyStopping(), or pairs "
                f"of a name and one. Got {item!r:.60}."
            )
        if isinstance(callback, type):  # skorch makes one of it
            callback = callback()
        if getattr(callback, "f_pickle", None) is not None:
            raise ValueError(
                f"{type(callback).__name__} has f_pickle={callback.f_pickle!r}, but the net of a "
                f"fit is private and can't be pickled. Leave f_pickle out, and save the fitted "
                f"classifier with joblib.dump."
            )
        monitor = str(getattr(callback, "monitor", None))
        name = monitor.removesuffix("_best")
        if name.startswith("valid_") and name not in recorded:
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, and training has no validation "
                f"set. Monitor {monitor.replace(name, 'train_loss')!r}, or put before it an "
                f"EpochScoring(function, name={name!r}, on_train=True, use_caching=False) whose "
                f"function(net, X, y) scores rows of your own."
            )
        if getattr(callback, "on_train", True):
            recorded.add(getattr(callback, "name", None))


def auto_max_epochs(y: NDArray[Any], batch_size: int | None, *, many: int, one: int = 100) -> int:
    """Epochs: `one` for one image per class (median), 100 up to 4, else `many`.

    Never more than 12 400 steps in all, if `batch_size` is given.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    batch_size : int or None
        Rows per step.
    many : int
        Epochs if there are more than 4 images per class.
    one : int, default=100
        Epochs if there is one.
    """
    n_images = images_per_class(y)
    wanted = one if n_images <= 1 else 100 if n_images <= 4 else many
    if batch_size is None:
        return wanted
    return min(wanted, max(1, _MOST_STEPS // max(1, len(y) // batch_size)))


def auto_lr(n_classes: int) -> float:
    """Learning rate of the published recipe: 2e-3, for 1000 classes (ImageNet) and more 2e-4."""
    return 2e-3 if n_classes < 1000 else 2e-4
