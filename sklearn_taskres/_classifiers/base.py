"""What every classifier on CLIP embeddings shares: labels, base, prediction, choice of classes."""

import os
from collections.abc import Mapping, Set
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import normalize
from sklearn.utils import check_array, compute_sample_weight
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .._class_base import (
    BASE_CONSTRAINT,
    OpenClassesMixin,
    as_class_base,
    check_nested_params,
    norm_factor,
)
from .._class_base.names import names_by_label
from .._fitting import all_or_nothing
from .._formulas import check_norms, row_norms, scaled_classifier, unit
from .._messages import warn_user
from .._persistence import VersionStamp
from .._rows import check_finite, chunks, is_missing, is_streamed, working_dtype
from .._typing import fit_context

#: Dtypes of computation; anything else, float16 and integers among it, is read into the first.
_DTYPES = [np.float32, np.float64]
#: Training rows that are labelled zero-shot, to see whether base and rows fit together.
_MOST_COMPARED = 512


def _clean_and_views(X):
    """Part X into clean rows (n, d) and views (n, v, d) or None; only an array can hold views."""
    if isinstance(X, Set | Mapping) and not hasattr(X, "shape"):
        raise ValueError(
            f"X is a {type(X).__name__}, whose rows have no order that y could follow. Pass an "
            f"array of shape (n_samples, n_features)."
        )
    if getattr(X, "ndim", 2) != 3 or X.shape[1] == 0:
        return X, None
    _refuse_grey_images(X)
    return X[:, 0], X[:, 1:] if X.shape[1] > 1 else None


def _refuse_grey_images(X):
    """Say it when an array (n, height, width) of grey images would be read as rows with views.

    Embeddings are not integers; and as many encodings of each image as an embedding has elements,
    none of them negative, are pixels of a square.
    """
    is_square = X.shape[1] == X.shape[2]
    is_integer = np.asarray(X[:1]).dtype.kind in "iub"
    if is_integer or (is_square and len(X) > 0 and (X >= 0).all()):
        raise ValueError(
            f"X of shape {tuple(X.shape)} looks like grey images, and would be read as embeddings "
            f"with views, (n_samples, 1 + n_views, n_features). Put a CLIPFeaturizer before the "
            f"classifier, as make_taskres_pipeline() does."
        )


def _refuse_missing_labels(y):
    """Say which labels are missing, and what to do with images that have none."""
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind != "O":
        return
    missing = [i for i, label in enumerate(labels.tolist()) if is_missing(label)]
    if missing:
        raise ValueError(
            f"y has no label in {len(missing)} of {len(labels)} rows, the first at {missing[0]}. "
            f"Leave these rows out, or mark them by a label of the same kind, such as '?' or -1, "
            f"and pass that as TaskResGDAClassifier(unlabeled=...), which learns from them too."
        )


class BaseCLIPClassifier(OpenClassesMixin, ClassifierMixin, VersionStamp):
    """Base of the classifiers on CLIP embeddings.

    `fit` validates, encodes the labels and finds the class embeddings ``base_`` (n_classes, d) and
    ``logit_scale_``; a sibling writes ``_fit(X, y, sample_weight, views)``, which sets ``coef_``
    and what else its method learns. ``X`` (n, d) are the clean rows, ``views`` (n, v, d) augmented
    ones or None. Prediction multiplies what ``_rows(X)`` returns, as ``_logits(rows)`` does it: a
    method with other rows, or another product, writes its own. ``_class_arrays`` names the arrays
    that have a row per class, so that `select_classes` and `add_classes` know them;
    ``_cannot_add_classes`` is the reason if a method can't, and ``_is_not_linear`` what it does to
    an image that no linear map of its unit row does. ``n_parameters_`` is the number of values that
    training tuned. A sibling that reads rows through :mod:`.._rows` and the engine alone says so in
    ``_streams_rows``: float16 and memory maps then reach its ``_fit`` as they are.

    Think twice before adding anything: what only one method needs belongs to that method.
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        "base": BASE_CONSTRAINT,
        "class_names": [None, Mapping, "array-like"],
        "base_norm": [None, Interval(Real, 0, None, closed="neither")],
        "logit_scale": [None, Interval(Real, 0, None, closed="neither")],
    }
    _class_arrays: tuple[str, ...] = ("classes_", "base_", "coef_")
    _streams_rows = False
    _is_not_linear: str | None = None
    #: How many times as strongly a method's learning rate acts on a base of unit rows, in words;
    #: empty for one that sees cosines alone.
    _unit_rows_act = ""

    @all_or_nothing
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from image embeddings and labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or (n_samples, 1 + n_views, n_features)
            Raw image embeddings, as CLIPFeaturizer gives them; with views, the clean one is slot 0,
            and training draws one of the others per image and epoch. float32 and float64 decide the
            dtype of the fit; anything else is read into float32. TaskRes reads float16 and
            memory maps batch by batch, and never copies them whole.
        y : array-like of shape (n_samples,)
            Labels: the names of the classes, or anything that `class_names` gives names to.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples, not negative. A weight of 0 is the same as leaving the row out.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If there is one class only, a label has no name, a parameter is out of range, or the
            width of X is not that of the class embeddings.
        """
        data = self._prepare(X, y, sample_weight)
        self._warn_about(data)
        return self._learn(data)

    def _prepare(self, X, y, sample_weight):
        """Validate, encode the labels and find their embeddings; return what `_fit` takes."""
        X, views = _clean_and_views(X)
        _refuse_missing_labels(y)
        X, y = self._validated(X, y, streams=self._streams_rows)
        if views is not None:
            views = self._validated_views(views, X.dtype)
        # Repeated, since scikit-learn takes one image per class for a regression problem and warns.
        check_classification_targets(np.repeat(y, 3))
        kept, weight = self._weights(X, y, sample_weight)
        X, y, weight, views = (None if a is None else a[kept] for a in (X, y, weight, views))
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} can't train on one class: y holds only "
                f"{self.classes_.tolist()[0]!r}. Add images of at least one other class."
            )
        self._set_base(X, codes, weight)
        return X, codes, weight, views

    def _learn(self, data):
        """Run the method on what `_prepare` gave, and refuse a result that is of no use."""
        self._fit(*data)
        for name in ("coef_", "intercept_"):
            if not np.isfinite(getattr(self, name, 0)).all():
                raise ValueError(
                    f"{name} is not finite after the fit: a parameter, such as alpha, lr or a "
                    f"weight, is too large for {self.coef_.dtype}. Use a smaller one."
                )
        return self

    def _validated(self, X, y="no_validation", *, streams=True, **params):
        """Validate as scikit-learn does; rows that are streamed are not copied, if that will do."""
        if not (streams and is_streamed(X)):
            try:
                return validate_data(self, X, y, dtype=_DTYPES, **params)
            except (TypeError, ValueError) as error:
                self._refuse_images(X, error)
                raise
        dtypes = [*_DTYPES, np.float16]
        checked = validate_data(self, X, y, dtype=dtypes, ensure_all_finite=False, **params)
        check_finite(checked[0] if isinstance(checked, tuple) else checked)
        return checked

    def _refuse_images(self, X, error):
        """Say it if invalid rows are images, or if they lie."""
        first = X.to_numpy() if hasattr(X, "to_numpy") else X
        for _ in range(2):  # a row, and what stands first in it
            if isinstance(first, list | tuple | np.ndarray) and getattr(first, "ndim", 1) > 0:
                first = next(iter(first), None)
        is_picture = hasattr(first, "getbands")  # of PIL, which need not be there
        if is_picture or isinstance(first, str | bytes | os.PathLike):
            raise ValueError(
                f"{type(self).__name__} takes image embeddings, and X holds {first!r:.60}. Put "
                f"a CLIPFeaturizer before it, as make_taskres_pipeline() does."
            ) from error

    def _validated_views(self, views, dtype):
        if not (self._streams_rows and is_streamed(views)):
            return check_array(views, dtype=dtype, allow_nd=True, input_name="X")
        check_finite(views)
        return views

    def _weights(self, X, y, sample_weight):
        """Rows to keep, those of weight 0 being left out, and sample times class weights."""
        class_weight = getattr(self, "class_weight", None)
        if sample_weight is None and class_weight is None:
            return slice(None), None
        weight = _check_sample_weight(
            sample_weight, X, dtype=working_dtype(X), ensure_non_negative=True, copy=True
        )
        kept = weight > 0
        with np.errstate(over="ignore", invalid="ignore"):
            weight[kept] *= compute_sample_weight(class_weight, y[kept])
            total = weight.sum()
        if not np.isfinite(total):
            raise ValueError(
                f"Sample weights times class weights must be finite, and their sum too. Got "
                f"class_weight={class_weight!r:.80} and a sum of {total:g}."
            )
        if weight.min() < 0 or weight.max() == 0:
            raise ValueError(
                f"Sample weights times class weights must not be negative, nor all zero. Got "
                f"{weight.min():g} to {weight.max():g}."
            )
        kept = weight > 0
        return slice(None) if kept.all() else kept, weight

    # class embeddings -----------------------------------------------------------------------

    @property
    def _class_base(self):
        """What `base` stands for."""
        return as_class_base(self.base)

    def _set_base(self, X, y, sample_weight):
        """Set `base_`, raw class embeddings (n_classes, d), and `logit_scale_`."""
        self._name_of = names_by_label(self.classes_, self.class_names)
        class_base = self._class_base
        try:
            base = class_base.embed(self.classes_, self.class_names, X, y, sample_weight)
        except OSError as error:
            if class_base.is_default:
                error.add_note(
                    f"{type(self).__name__} asked for this CLIP, since base=None is "
                    f"CLIPTextFeaturizer(). If the images were embedded by another one, pass "
                    f"base=CLIPTextFeaturizer(model_name, pretrained) with the model of X, or "
                    f"base='class_means' if that encoder has no texts."
                )
            raise
        self.logit_scale_ = float(self.logit_scale or class_base.logit_scale())
        if X is not None:
            self._check_width(X, base, class_base)
            with np.errstate(over="ignore"):
                base = base.astype(working_dtype(X))
        self._install_base(base)

    def _install_base(self, base):
        """Set `base_` to class embeddings brought to the mean row norm that the user wants."""
        self._base_factor = 1.0 if self.base_norm is None else norm_factor(base, self.base_norm)
        self.base_ = base * base.dtype.type(self._base_factor)
        check_norms(self.base_, "base")

    @staticmethod
    def _check_width(X, base, class_base):
        if X.shape[1] != base.shape[1]:
            raise ValueError(
                f"X has {X.shape[1]} features, but the class embeddings of base "
                f"({class_base.describe()}) have {base.shape[1]}: images and classes must be "
                f"embedded by one CLIP model. Pass base=CLIPTextFeaturizer(model_name, pretrained) "
                f"with the model that made X, or base='class_means' for an encoder without texts. "
                f"If X holds other columns next to embeddings, take a classifier of scikit-learn."
            )

    def _warn_about(self, data):
        """Warn about what is legal and hardly meant."""
        X, y, *_ = data
        class_base = self._class_base
        if not class_base.is_from_images:
            self._warn_if_at_chance(X, y, class_base)
        if self._unit_rows_act and class_base.may_have_lost_norms and self.base_norm is None:
            self._warn_about_unit_rows()

    def _warn_about_unit_rows(self):
        if np.allclose(row_norms(self.base_), 1, atol=1e-2):
            warn_user(
                f"The rows of base have unit norm. {type(self).__name__} trains on raw text "
                f"embeddings (norm about 10 for OpenAI's CLIP); on unit rows the same learning "
                f"rate acts about {self._unit_rows_act} times as strongly. Pass the raw "
                f"embeddings, or base_norm=10."
            )

    def _warn_if_at_chance(self, X, y, class_base):
        """Warn if the base alone ranks the training rows no better than chance would.

        "No better" allows one standard error, so that a true mismatch seldom hides behind luck;
        fewer than 8 rows would say little either way, and a few hundred say enough.
        """
        if len(y) < 8:
            return
        if len(y) > _MOST_COMPARED:
            some = np.sort(np.random.RandomState(0).permutation(len(y))[:_MOST_COMPARED])
            X, y = X[some], y[some]
        X = X.astype(self.base_.dtype, copy=False)
        logits = self._zero_shot_logits(X)
        n_right, n_rows, chance = np.sum(logits.argmax(axis=1) == y), len(y), 1 / len(self.classes_)
        if n_right <= n_rows * chance + (n_rows * chance * (1 - chance)) ** 0.5:
            warn_user(
                f"Zero-shot, the class embeddings of base ({class_base.describe()}) label "
                f"{n_right} of {n_rows} training rows correctly, no better than chance. Do base "
                f"and X come from the same CLIP model, and do the class names say what is seen?"
            )

    def _zero_shot_logits(self, X):
        return unit(X) @ scaled_classifier(self.base_, self.logit_scale_).T

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of a text base by ``base__<name>`` among them.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The classifier.

        Raises
        ------
        ValueError
            If there is no such parameter, or ``base__<name>`` is set while `base` has none.
        """
        check_nested_params(self, params)
        return super().set_params(**params)

    # prediction -------------------------------------------------------------------------------

    def _rows(self, X):
        """Return what `_logits` multiplies: unit rows, to the bit those of a Normalizer.

        As there, a row whose norm is rounding, below 1e-6 in float32, stays as it is.
        """
        check_norms(X, "X")
        return normalize(X)

    def _logits(self, rows):
        """Logits (n_samples, n_classes) of rows from `_rows`, brought to float64."""
        # Cast before it is transposed: NumPy itself would cast the transpose, which is slow.
        return rows @ self.coef_.astype(rows.dtype, copy=False).T

    def _predicted(self, X, of_logits):
        """Apply a function to the logits of some rows of X at a time, and join what it returns.

        Logits are multiplied in float64, whatever X is: sums in float32 depend on their order, and
        if logits are large, as those of GDA, that shows in the probabilities.
        """
        check_is_fitted(self)
        X, _ = _clean_and_views(X)
        X = self._validated(X, reset=False)
        rows = (self._rows(part).astype(np.float64, copy=False) for _, part in chunks(X))
        return np.concatenate([of_logits(self._logits(part)) for part in rows])

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Logits of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Scaled cosines, in the dtype of `coef_`; for two classes the second's minus the first's.
        """
        logits = self._predicted(X, lambda logits: logits.astype(self.coef_.dtype))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Label of the class with the highest logit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        winners = self._predicted(X, lambda logits: logits.argmax(axis=1))
        return self.classes_[winners]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class: the softmax of the logits, in float64.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Columns in the order of `classes_`.
        """
        return self._predicted(X, lambda logits: softmax(logits, axis=1))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithm of the probability of each class, exact if the probability underflows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Raw image embeddings.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Columns in the order of `classes_`.
        """
        return self._predicted(X, lambda logits: log_softmax(logits, axis=1))
