"""The methods that ``benchmark accuracy`` compares, by name. A new one is a new row."""

import importlib


def _method(class_name, **params):
    """Return the factory of a public classifier; the class is imported when it is first made."""

    def make(base, class_names, random_state):
        """Make the estimator, given what its class takes of the three, the rest being default."""
        estimator = getattr(importlib.import_module("..", __package__), class_name)
        given = {"base": base, "class_names": class_names, "random_state": random_state}
        taken = estimator().get_params(deep=False)
        return estimator(**{name: v for name, v in given.items() if name in taken}, **params)

    return make


#: Name to a factory ``make(base, class_names, random_state)`` of an estimator.
METHODS = {
    "zero-shot": _method("ZeroShotClassifier"),
    "linear-probe": _method("LinearProbeClassifier"),
    "clip-adapter": _method("CLIPAdapterClassifier"),
    "tip-adapter": _method("TipAdapterClassifier", fine_tune=False),
    "tip-adapter-f": _method("TipAdapterClassifier", fine_tune=True),
    "gda": _method("GDAClassifier"),
    "clap": _method("CLAPClassifier"),
    "taskres": _method("TaskResClassifier"),
    "taskres-learned-alpha": _method("TaskResClassifier", learn_alpha=True),
    "taskres-gaussian": _method("TaskResClassifier", alpha=1.0, gaussian_weight="auto"),
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
