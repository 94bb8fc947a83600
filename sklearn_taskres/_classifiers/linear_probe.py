"""Linear probe: logistic regression on image embeddings, without text."""

import warnings
from numbers import Integral, Real
from typing import Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from .._held_out import held_out_score, shot_folds
from .._typing import ClassWeight, RandomState
from .base import BaseCLIPClassifier

#: C if no image can be held out.
_DEFAULT_C = 10.0
#: Bounds of log10(C), the first step between candidates and the last: 8 candidates a decade.
_LOWEST, _HIGHEST, _FIRST_STEP, _LAST_STEP = -6, 6, 2, 1 / 8


def coarse_to_fine(score):
    """Return the C of the best score among 97 from 1e-6 to 1e6, of which it tries about 15.

    CLIP's search: every second decade first, then the step around the best one is halved until it
    is an eighth of a decade. Of equal candidates the first one tried stays, and among the first
    ones that is the smallest.

    Parameters
    ----------
    score : callable
        Takes C, returns something that is larger for a better C.
    """
    scores = {float(e): score(10.0**e) for e in range(_LOWEST, _HIGHEST + 1, _FIRST_STEP)}
    step = _FIRST_STEP / 2
    while step >= _LAST_STEP:
        best = max(scores, key=scores.__getitem__)
        for exponent in (best - step, best + step):
            if _LOWEST <= exponent <= _HIGHEST:
                scores[exponent] = score(10.0**exponent)
        step /= 2
    return 10.0 ** max(scores, key=scores.__getitem__)


def one_row_a_class(coef, intercept):
    """Weights (K, D) and intercepts (K,) whose softmax gives scikit-learn's probabilities.

    For two classes scikit-learn keeps one row, the logit of the second; each gets half of it.
    """
    if len(coef) > 1:
        return coef, intercept
    signed_half = np.array([[-0.5], [0.5]], dtype=coef.dtype)
    return signed_half * coef, signed_half[:, 0] * intercept


class LinearProbeClassifier(BaseCLIPClassifier):
    """Linear probe: logistic regression on CLIP's image embeddings, blind to the class names.

    The protocol of the CLIP paper [1]_: scikit-learn's
    :class:`~sklearn.linear_model.LogisticRegression` under L-BFGS, its C searched over 96 steps
    from 1e-6 to 1e6. Here each training image is held out once for that search, so nothing else is
    looked at. It needs no text: labels may be anything, and every encoder will do. Take it to see
    what the images alone can say; with few images per class the methods that start from text win.

    Parameters
    ----------
    C : float or "auto", default="auto"
        Inverse strength of the L2 penalty. "auto" searches it: every second decade first, then
        around the best one in ever smaller steps, down to an eighth of a decade; the best is the
        one with the highest held-out accuracy, and among equal ones the highest likelihood. If
        a class has one image nothing can be held out, and it is 10. Give a number to save the
        search, which is up to 75 of 76 fits.
    normalize : bool, default=True
        Divide each embedding by its norm, before training and before prediction. False takes them
        as they are, which the CLIP paper does; then C depends on their size.
    max_iter : int, default=1000
        Most iterations of L-BFGS. Raise it if scikit-learn warns that they did not suffice.
    class_weight : dict of label to float, "balanced" or None, default=None
        Weights of the classes in the loss. "balanced" evens out classes of unequal size.
    random_state : int, RandomState instance or None, default=None
        Which images are held out together. A number given as C leaves nothing to chance.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    C_ : float
        Inverse strength of the penalty, given or searched.
    coef_ : ndarray of shape (n_classes, n_features)
        Weights. Two classes have two rows, opposite to each other.
    intercept_ : ndarray of shape (n_classes,)
        Intercepts.
    n_iter_ : int
        Iterations of L-BFGS in the last fit.
    n_parameters_ : int
        Number of values that training tuned: n_classes * (n_features + 1).
    n_features_in_ : int
        Width of the embeddings.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, if X had string names.

    See Also
    --------
    TaskResClassifier : Starts from the class names.
    GDAClassifier : Adds a closed-form linear map to the class names.

    Notes
    -----
    The embeddings are those behind CLIP's projection, which the other methods take as well; the
    CLIP paper takes the features before it. If X has views it trains on the clean rows only, as
    the paper does. `add_classes` is refused: a class without images has no weights.

    A search costs up to five fits on four fifths of the rows for each of about 15 values of C. A
    value whose fit runs out of iterations is judged as it stands; a warning is given for the last
    fit only.

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
       ICML 2021. arXiv:2103.00020

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_taskres import LinearProbeClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([3, 5, 8], 4)
    >>> X = np.repeat(rng.normal(size=(3, 16)), 4, axis=0) + 0.3 * rng.normal(size=(12, 16))
    >>> clf = LinearProbeClassifier(random_state=0).fit(X, y)
    >>> clf.score(X, y)
    1.0
    >>> clf.n_parameters_
    51
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        "C": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "normalize": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [None, dict, StrOptions({"balanced"})],
        "random_state": ["random_state"],
    }
    _class_arrays = ("classes_", "coef_", "intercept_")
    _cannot_add_classes = "a linear probe learns the weights of a class from its images alone."

    def __init__(
        self,
        C: float | Literal["auto"] = "auto",
        *,
        normalize: bool = True,
        max_iter: int = 1000,
        class_weight: ClassWeight = None,
        random_state: RandomState = None,
    ) -> None:
        self.C = C
        self.normalize = normalize
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.random_state = random_state

    def _set_base(self, X, y, sample_weight):
        """Do nothing: there are no class embeddings."""

    def _warn_about(self, data):
        """Do nothing: there is no base that could be the wrong one."""

    def _fit(self, X, y, sample_weight, views):
        rows = self._rows(X)
        self.C_ = self._search(rows, y, sample_weight) if self.C == "auto" else float(self.C)
        self.coef_, self.intercept_, self.n_iter_ = self._regress(rows, y, sample_weight, self.C_)
        self.n_parameters_ = self.coef_.size + self.intercept_.size

    def _rows(self, X):
        return super()._rows(X) if self.normalize else X

    def _regress(self, rows, y, sample_weight, C):
        """Weights (K, D), intercepts (K,) and iterations of one logistic regression."""
        model = LogisticRegression(C=C, max_iter=self.max_iter)
        with warnings.catch_warnings():  # one image per class is not a regression problem
            warnings.filterwarnings("ignore", "The number of unique classes")
            model.fit(rows.astype(np.float64), y, sample_weight)  # blind to the rows' order
        coef, intercept = one_row_a_class(model.coef_, model.intercept_)
        dtype = rows.dtype
        return coef.astype(dtype), intercept.astype(dtype), int(model.n_iter_.max())

    def _search(self, rows, y, sample_weight):
        """Return the C that labels held-out rows best."""
        folds = shot_folds(y, check_random_state(self.random_state))
        if not folds:
            return _DEFAULT_C
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return coarse_to_fine(
                lambda C: held_out_score(self._held_out(rows, y, sample_weight, folds, C), y)
            )

    def _held_out(self, rows, y, sample_weight, folds, C):
        """Logits (n, K) of each row from a fit that did not see it."""
        logits = np.empty((len(y), len(self.classes_)), dtype=rows.dtype)
        for kept, held in folds:
            weight = None if sample_weight is None else sample_weight[kept]
            coef, intercept, _ = self._regress(rows[kept], y[kept], weight, C)
            logits[held] = rows[held] @ coef.T + intercept
        return logits

    def _logits(self, rows):
        return super()._logits(rows) + self.intercept_
