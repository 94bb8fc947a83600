"""The methods that ``benchmark accuracy`` compares, by name. A new one is a new row."""

import importlib
from typing import Any, NamedTuple


class Method(NamedTuple):
    """A public classifier and what makes it this method; called, it makes the estimator."""

    class_name: str
    params: dict[str, Any]
    #: Whether the text tower takes part, so that embeddings of class names are not enough.
    needs_text: bool = False

    def __call__(self, base, class_names, random_state, **published):
        """Make the estimator, given what its class takes of the three, the rest being default.

        Parameters
        ----------
        base : CLIPTextFeaturizer or ndarray of shape (n_classes, d)
            Where class embeddings come from.
        class_names : list of str
            In the order of the labels.
        random_state : int
            Seed of the fit.
        **published
            Parameters of the class; those that the method itself sets win.
        """
        estimator = getattr(importlib.import_module("..", __package__), self.class_name)
        given = {"base": base, "class_names": class_names, "random_state": random_state}
        taken = estimator().get_params(deep=False)
        known = {name: value for name, value in given.items() if name in taken}
        return estimator(**{**known, **published, **self.params})


def _method(class_name, *, needs_text=False, **params):
    return Method(class_name, params, needs_text)


#: Name to a factory ``make(base, class_names, random_state, **published)`` of an estimator.
METHODS = {
    "zero-shot": _method("ZeroShotClassifier"),
    "linear-probe": _method("LinearProbeClassifier"),
    "coop": _method("CoOpClassifier", needs_text=True),
    "clip-adapter": _method("CLIPAdapterClassifier"),
    "tip-adapter": _method("TipAdapterClassifier", fine_tune=False),
    "tip-adapter-f": _method("TipAdapterClassifier", fine_tune=True),
    "gda": _method("GDAClassifier"),
    "gda-text-prior": _method("GDAClassifier", prior="text"),
    "clap": _method("CLAPClassifier"),
    "prolip": _method("ProLIPClassifier"),
    "taskres": _method("TaskResClassifier"),
    "taskres-gda": _method("TaskResGDAClassifier"),
    "taskres-enhanced": _method("TaskResClassifier", needs_text=True, enhanced_base=True),
    "taskres-enhanced-only": _method(
        "TaskResClassifier", needs_text=True, enhanced_base=True, alpha=0.0
    ),
    "taskres-image": _method("TaskResClassifier", residual="image"),
    "taskres-both": _method("TaskResClassifier", residual="both"),
    "taskres-alpha-0.1": _method("TaskResClassifier", alpha=0.1),
    "taskres-alpha-0.3": _method("TaskResClassifier", alpha=0.3),
    "taskres-alpha-0.7": _method("TaskResClassifier", alpha=0.7),
    "taskres-alpha-1": _method("TaskResClassifier", alpha=1.0),
    "taskres-learned-alpha": _method("TaskResClassifier", learn_alpha=True),
    "text-adapter": _method("CLIPAdapterClassifier", branch="text-direct"),
    "text-adapter-residual": _method("CLIPAdapterClassifier", branch="text-additive", ratio=0.5),
}


def own_parameters(estimator):
    """Return the parameters that make the method what it is, without what a run gives to all.

    Parameters
    ----------
    estimator : estimator
        As a factory made it.
    """
    params = estimator.get_params(deep=False)
    return {n: v for n, v in params.items() if n not in {"base", "class_names", "random_state"}}


def chosen_values(estimator):
    """Return the numbers that `fit` chose or learned in place of a parameter, such as ``alpha_``.

    Parameters
    ----------
    estimator : estimator
        A fitted one.
    """
    chosen = {}
    for name, given in own_parameters(estimator).items():
        value = getattr(estimator, f"{name}_", None)
        if name != "logit_scale" and isinstance(value, int | float) and value != given:
            chosen[f"{name}_"] = value
    return chosen
