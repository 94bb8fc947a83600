"""What classifiers refuse or say: sets, rows that overflow, grey images, names without images."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import LearningCurveDisplay, cross_val_score
from sklearn.preprocessing import LabelEncoder
from test_common import TABLE

from sklearn_taskres import (
    CLAPClassifier,
    CLIPAdapterClassifier,
    CLIPTextFeaturizer,
    CoOpClassifier,
    GDAClassifier,
    LinearProbeClassifier,
    TaskResClassifier,
    TaskResClassifierCV,
    TaskResGDAClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
)
from sklearn_taskres._messages import listed

NAMES = ["ant", "bee", "cow", "dog", "emu"]


def problem(n_classes=5, d=12):
    """Rows near class embeddings of norm 10, in float32."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(n_classes, d))
    t = (10 * t / np.linalg.norm(t, axis=1, keepdims=True)).astype(np.float32)
    y = np.repeat(np.arange(n_classes), 6)
    return (t[y] + 0.5 * rng.normal(size=(len(y), d))).astype(np.float32), y, t


X, y, t = problem()
ON_ARRAYS = [
    ZeroShotClassifier(t),
    TaskResClassifier(t, max_epochs=3),
    TaskResClassifierCV(t, max_epochs=3, cv=2, random_state=0),
    CLIPAdapterClassifier(t, max_epochs=3, random_state=0),
    TipAdapterClassifier(t, random_state=0),
    GDAClassifier(t, random_state=0),
    CLAPClassifier(t, max_epochs=3),
]
on_arrays = pytest.mark.parametrize("clf", ON_ARRAYS, ids=lambda clf: type(clf).__name__)
weighted = pytest.mark.parametrize(
    "clf",
    [clf for clf in [*ON_ARRAYS, LinearProbeClassifier(1.0)] if hasattr(clf, "class_weight")],
    ids=lambda clf: type(clf).__name__,
)


# labels that are missing -------------------------------------------------------------------------


@on_arrays
@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, pd.NaT], ids=repr)
def test_missing_labels_are_refused(clf, nothing):
    """The message names the row, and says how to learn from images without labels."""
    labels = np.array(NAMES, object)[y]
    labels[[3, 8]] = nothing
    with pytest.raises(ValueError, match=r"no label in 2 of 30 rows, the first at 3\. Leave"):
        clone(clf).fit(X, labels)


# overflow ---------------------------------------------------------------------------------------


@on_arrays
@pytest.mark.parametrize("scale", [1e19, 1e30])
def test_rows_that_overflow_are_refused(clf, scale):
    """Squares of float32 end at 1e38: such rows would all become class 0, in fit and predict."""
    fitted = clone(clf).fit(X, y)
    with pytest.raises(ValueError, match="X overflows: the norm of a row is too large for float32"):
        clone(clf).fit(X * np.float32(scale), y)
    with pytest.raises(ValueError, match="X overflows"):
        fitted.predict(X * np.float32(scale))
    assert fitted.score(X.astype(np.float64) * scale, y) == fitted.score(X, y)


@on_arrays
@pytest.mark.parametrize("base", [t * np.float32(1e30), t.astype(np.float64) * 1e100])
def test_a_base_that_overflows_is_refused(clf, base):
    """Also one in float64 that comes down to the rows' float32."""
    with pytest.raises(ValueError, match="base overflows: the norm of a row is too large"):
        clone(clf).set_params(base=base).fit(X, y)


def test_an_alpha_that_overflows_is_refused():
    """An infinite norm would turn the class embedding to zero."""
    with pytest.raises(ValueError, match=r"class embedding overflows.* take a smaller alpha"):
        TaskResClassifier(t, alpha=1e30, max_epochs=3).fit(X, y)
    with pytest.raises(ValueError, match="class embedding overflows"):
        TaskResClassifierCV(t, alphas=[1e30], max_epochs=3, random_state=0).fit(X, y)
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="not finite after the fit"):
        TaskResGDAClassifier(t, gaussian_weight=1e300, max_epochs=3).fit(X, y)


@weighted
@pytest.mark.parametrize("weight", [np.nan, np.inf, 1e38])
def test_weights_that_are_not_finite_are_refused(clf, weight):
    """NaN would drop the class, and infinity would be taken for a learning rate too large."""
    with pytest.raises(ValueError, match=r"must be finite.* Got class_weight=\{2: "):
        clone(clf).set_params(class_weight={2: weight}).fit(X, y)


@pytest.mark.parametrize("weight", [np.nan, np.inf])
@pytest.mark.parametrize("clf", TABLE)
def test_sample_weights_that_are_not_finite_are_refused(clf, weight):
    """scikit-learn's own sentence names them."""
    weights = np.where(y == 2, weight, 1.0)
    with pytest.raises(ValueError, match="sample_weight contains"):
        clone(clf).fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("callbacks", [[3], ["early"], [("stop", 3)], [None], ((1, 2, 3),)])
def test_callbacks_are_skorchs(callbacks):
    """What can't be notified is named."""
    for clf in ON_ARRAYS:
        if hasattr(clf, "callbacks"):
            with pytest.raises(ValueError, match="callbacks must hold callbacks of skorch"):
                clone(clf).set_params(callbacks=callbacks).fit(X, y)


# order ------------------------------------------------------------------------------------------


@on_arrays
@pytest.mark.parametrize("names", [set(NAMES), frozenset(NAMES), dict.fromkeys(NAMES).keys()])
def test_a_set_is_not_a_list_of_names(clf, names):
    """Its order changes from process to process, and with it which class is which."""
    with pytest.raises(ValueError, match=r"names need an order\. Pass a list"):
        clone(clf).set_params(class_names=names).fit(X, y)


@on_arrays
def test_a_dict_of_name_to_label_is_recognised(clf):
    """class_to_idx of torchvision's folders maps the other way round."""
    class_to_idx = {name: label for label, name in enumerate(NAMES)}
    with pytest.raises(ValueError, match="maps names to labels, and must map labels to names"):
        clone(clf).set_params(class_names=class_to_idx).fit(X, y)


@pytest.mark.parametrize("clf", TABLE)
@pytest.mark.parametrize("kind", [set, frozenset, dict])
def test_rows_have_an_order(clf, kind):
    """A set or dict of rows is refused, in fit and in predict."""
    rows = dict(enumerate(X.tolist())) if kind is dict else kind(map(tuple, X.tolist()))
    fitted = clone(clf).fit(X, y)
    for refuses in (lambda rows: clone(clf).fit(rows, y), fitted.predict):
        with pytest.raises(ValueError, match=f"X is a {kind.__name__}, whose rows have no order"):
            refuses(rows)


# names and labels -------------------------------------------------------------------------------


def accuracies(y_few, names=NAMES):
    clf = ZeroShotClassifier(t, class_names=names)
    rows = np.isin(y, y_few)
    return clf.fit(X[rows], y[rows])


@pytest.mark.parametrize("kept", [[1, 2, 3], [1, 4], [0, 1], [0, 3], [4, 2]])
def test_integer_labels_index_a_sequence_and_it_is_said(kept):
    """Whichever classes per fold lacks, 0 among them, the others keep their names and rows."""
    with pytest.warns(UserWarning, match=r"taken as positions in class_names") as caught:
        clf = accuracies(kept)
    assert len(caught) == 1
    assert f"({min(kept)} is {NAMES[min(kept)]!r})" in str(caught[0].message)
    assert_array_equal(clf.base_, t[sorted(kept)])


def test_a_learning_curve_over_sorted_labels_has_scores():
    """Its first sizes lack the last classes, and with shuffled rows any."""
    order = np.argsort(-y, kind="stable")  # the first rows lack label 0
    clf = ZeroShotClassifier(t, class_names=NAMES)
    with pytest.warns(UserWarning, match="positions in class_names"):
        display = LearningCurveDisplay.from_estimator(
            clf, X[order], y[order], train_sizes=[8, 16], cv=3
        )
    assert np.isfinite(display.test_scores).all()


def test_labels_beyond_the_names_are_refused():
    """Labels that count from 1 and reach their last are not positions."""
    clf = ZeroShotClassifier(t, class_names=NAMES)
    assert_array_equal(clf.fit(X, y + 1).base_, t)  # as many labels as names
    with pytest.raises(ValueError, match=r"class_names has 5 names for 4 labels \(2 to 5\)"):
        clf.fit(X[y > 0], y[y > 0] + 1)


@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")
def test_labels_that_were_numbered_again_are_not_named_in_silence():
    """An encoder that never saw class 0 calls class 1 by 0: nothing shows it, so it is said."""
    rows = y > 0
    encoded = LabelEncoder().fit_transform(y[rows])
    with pytest.warns(UserWarning, match=r"4 labels, 0 to 3\. They are taken as positions"):
        ZeroShotClassifier(t, class_names=NAMES).fit(X[rows], encoded)


def test_names_without_images_are_said_once():
    """A fold that lacks a class does not repeat what the first has said."""
    names = dict(enumerate(NAMES)) | {7: "yak"}
    base = np.vstack([t, t[:1]])
    clf = ZeroShotClassifier(base, class_names=names)
    with pytest.warns(UserWarning, match=r"class_names names \[7\], labels that y does not") as w:
        cross_val_score(clf, X, y, cv=3)
    assert len(w) == 1
    assert w[0].category is UserWarning


# images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images",
    [
        np.random.default_rng(0).uniform(size=(30, 8, 8)),
        np.random.default_rng(0).integers(0, 256, size=(30, 8, 8)),
        np.random.default_rng(0).integers(0, 256, size=(30, 8, 12)).astype(np.uint8),
        np.random.default_rng(0).uniform(size=(30, 8, 8)) > 0.5,
    ],
    ids=["floats", "integers", "not square", "booleans"],
)
@pytest.mark.parametrize("clf", TABLE)
def test_grey_images_are_not_rows_with_views(clf, images):
    """Integers, or a square without anything negative: the error says what to put before it."""
    with pytest.raises(ValueError, match=r"looks like grey images.* make_taskres_pipeline"):
        clone(clf).fit(images, y)
    fitted = clone(clf).fit(images[:, 0].astype(float), y)
    with pytest.raises(ValueError, match="looks like grey images"):
        fitted.predict(images)


def test_views_are_never_taken_for_images():
    """As many slots as features, or nothing negative: each alone is fine."""
    square = np.stack([X] * X.shape[1], axis=1)
    TaskResClassifier(t, max_epochs=2).fit(square, y)
    positive = np.stack([np.abs(X)] * 3, axis=1)
    TaskResClassifier("class_means", max_epochs=2).fit(positive, y)


# words ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")
def test_lists_that_are_cut_say_so():
    """Five are named and the rest is counted."""
    assert listed([1, 2]) == "[1, 2]"
    assert listed(list(range(12))) == "[0, 1, 2, 3, 4] and 7 more"
    many = np.arange(30) % 15
    rows = np.random.default_rng(0).normal(size=(30, 4))
    clf = ZeroShotClassifier(np.eye(15, 4) + 1, class_names=dict.fromkeys(range(5), "x"))
    with pytest.raises(ValueError, match=r"no name for \[5, 6, 7, 8, 9\] and 5 more"):
        clf.fit(rows, many)
    fitted = ZeroShotClassifier(np.eye(15, 4) + 1).fit(rows, many)
    with pytest.raises(ValueError, match=r"labels \[20, 21, 22, 23, 24\] and 5 more are not"):
        fitted.select_classes(range(20, 30))


@pytest.mark.model
@pytest.mark.parametrize("clf", [ZeroShotClassifier(), CoOpClassifier(n_context=2, max_epochs=1)])
def test_a_list_of_names_adds_classes_if_labels_are_names(clf):
    """It is the dict of each name to itself; if labels are numbers it stays an error."""
    text = CLIPTextFeaturizer("glyph-clip")
    names = ["one", "seven"]
    rows = np.repeat(text.transform(names), 4, axis=0)
    labels = np.repeat(names, 4)
    fitted = clone(clf).set_params(base=text).fit(rows, labels)
    by_dict = fitted.add_classes({"nine": "nine", "two": "two"})
    by_list = fitted.add_classes(["nine", "two"])
    assert by_list.classes_.tolist() == ["nine", "one", "seven", "two"]
    assert_array_equal(by_list.coef_, by_dict.coef_)
    numbered = clone(clf).set_params(base=text, class_names=names).fit(rows, labels == "seven")
    with pytest.raises(ValueError, match="a list of names if the labels are names"):
        numbered.add_classes(["nine"])


@pytest.mark.model
def test_the_bundled_model_has_no_tag():
    """glyph-clip ignores `pretrained`, so messages do not show one."""
    text = CLIPTextFeaturizer("glyph-clip")
    with pytest.raises(ValueError, match=r"class embeddings of base \('glyph-clip'\) have 128"):
        ZeroShotClassifier(text).fit(X, np.array(["one", "two", "six", "four", "nine"])[y])


def test_a_verbose_fit_prints_small_learning_rates(capsys):
    """The first epoch's is 1e-5, and not 0."""
    TaskResClassifier(t, max_epochs=2, verbose=1).fit(X, y)
    assert "1e-05" in capsys.readouterr().out


def test_data_frames_are_rows():
    """A DataFrame is neither set nor dict."""
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
    assert ZeroShotClassifier(t).fit(frame, y).score(frame, y) > 0.9
