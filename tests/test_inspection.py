"""Inspection: the numbers against naive references, the displays against scikit-learn's habits."""

import subprocess
import sys
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score
from sklearn.model_selection import GridSearchCV

from sklearn_taskres import (
    CLIPTextFeaturizer,
    GDAClassifier,
    LinearProbeClassifier,
    TaskResClassifier,
    TaskResClassifierCV,
    ZeroShotClassifier,
    make_taskres_pipeline,
)
from sklearn_taskres._data_sets import DATA_SETS, TRAINED
from sklearn_taskres.inspection import (
    AlphaDisplay,
    ClassGainDisplay,
    FewShotCurveDisplay,
    NearestImagesDisplay,
    ResidualMagnitudeDisplay,
    TransferDifficultyDisplay,
    relative_transfer_difficulty,
    residual_magnitude,
)

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ANIMALS = np.array(["bird", "cat", "dog", "eel"])


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def task():
    """A fitted TaskRes on four classes in 12 dimensions, and 80 rows it has not seen."""
    rng = np.random.default_rng(0)
    base = 10 * rng.normal(size=(4, 12))
    truth = base + 12 * rng.normal(size=base.shape)
    y = np.tile(ANIMALS, 26)
    X = truth[np.tile(np.arange(4), 26)] + 14 * rng.normal(size=(104, 12))
    clf = TaskResClassifier(base, alpha=0.7, max_epochs=40, lr=0.1, random_state=0)
    return clf.fit(X[:24], y[:24]), X[24:], y[24:]


@pytest.fixture(scope="module")
def digits():
    """Images of 60 digits, their names, and a pipeline fitted on the first 30."""
    data = load_digits()
    images, y = data.images[:60] / 16, np.array(NAMES)[data.target[:60]]
    model = make_taskres_pipeline("glyph-clip", max_epochs=20, random_state=0)
    return model.fit(images[:30], y[:30]), images, y


def noisy(y_true, share, rng, labels):
    """Predictions that keep a share of the truth."""
    kept = rng.random(len(y_true)) < share
    return np.where(kept, y_true, rng.choice(labels, len(y_true)))


# transfer difficulty -----------------------------------------------------------------------


@pytest.mark.parametrize("average", ["micro", "macro", None])
@pytest.mark.parametrize("labels", [ANIMALS, np.arange(4), ANIMALS.astype(object)])
def test_difficulty_is_chance_over_precision(average, labels):
    """1/K over scikit-learn's precision, for labels of any kind; micro is accuracy."""
    rng = np.random.default_rng(1)
    y_true = rng.choice(labels, 200)
    y_pred = noisy(y_true, 0.5, rng, labels)
    expected = 0.25 / precision_score(y_true, y_pred, average=average)
    assert_allclose(relative_transfer_difficulty(y_true, y_pred, average=average), expected)
    if average == "micro":
        assert_allclose(expected, 0.25 / np.mean(y_true == y_pred))


def test_difficulty_of_eurosat_is_the_papers():
    """Ten classes at an accuracy of 0.37: 1/10 / 0.37."""
    y_true = np.arange(1000) % 10
    y_pred = np.where(np.arange(1000) < 370, y_true, (y_true + 1) % 10)
    assert_allclose(relative_transfer_difficulty(y_true, y_pred), 0.1 / 0.37)


def test_difficulty_takes_labels_and_baseline():
    """Classes that never occur count in K, and the order of `labels` is that of the result."""
    y_true, y_pred = ["cat", "dog"], ["cat", "cat"]
    labels = ["eel", "dog", "cat", "bird"]
    per_class = relative_transfer_difficulty(y_true, y_pred, labels=labels, average=None)
    assert_array_equal(per_class, [np.inf, np.inf, 0.5, np.inf])
    assert relative_transfer_difficulty(y_true, y_pred, labels=labels) == 0.5
    assert relative_transfer_difficulty(y_true, y_pred, baseline=0.3) == 0.6


def test_zero_precision_is_infinitely_hard():
    """Nothing right gives inf, without a warning."""
    assert relative_transfer_difficulty(["cat"], ["dog"]) == np.inf
    display = TransferDifficultyDisplay.from_predictions(["cat", "dog"], ["dog", "cat"])
    display.figure_.draw_without_rendering()
    assert display.difficulty == np.inf


@pytest.mark.parametrize(
    ("args", "params", "message"),
    [
        ((["cat"], ["cat", "dog"]), {}, "inconsistent numbers of samples"),
        (([], []), {}, "y_true is empty"),
        ((["cat"], [1]), {}, "labels of one kind"),
        ((["cat"], ["eel"]), {"labels": ["cat", "dog"]}, "y_pred holds 'eel'"),
        ((["cat"], ["cat"]), {"baseline": 0}, r"baseline must be a precision in \(0, 1\]"),
        ((["cat"], ["cat"]), {"average": "weighted"}, "average must be 'micro', 'macro' or None"),
    ],
)
def test_difficulty_refuses(args, params, message):
    """What is wrong is said in a sentence."""
    with pytest.raises(ValueError, match=message):
        relative_transfer_difficulty(*args, **params)


@pytest.mark.parametrize("name", TRAINED)
def test_the_warning_separates_the_published_sets(name, recwarn):
    """At the published zero-shot accuracies only the two sets that lost draw the warning."""
    n_classes, accuracy = DATA_SETS[name].zero_shot
    y_true = np.arange(20_000) % n_classes
    is_right = np.random.default_rng(0).permutation(20_000) < 200 * accuracy
    y_pred = np.where(is_right, y_true, (y_true + 1) % n_classes)
    display = TransferDifficultyDisplay.from_predictions(y_true, y_pred, n_classes=2)
    assert display.is_at_risk == (name in {"oxford_pets", "food101"}) == bool(len(recwarn))


def test_the_warning_names_both_numbers_and_the_callers_line():
    """One UserWarning with difficulty and precision, raised where the user called."""
    y_true = np.tile(ANIMALS, 5)
    y_pred = np.where(np.arange(20) < 1, "eel", y_true)
    with pytest.warns(UserWarning, match=r"difficulty of 0\.263 .* precision of 0\.95 ") as caught:
        display = TransferDifficultyDisplay.from_predictions(y_true, y_pred)
    assert [w.filename for w in caught] == [__file__]
    assert "Both conditions" in display.ax_.get_title()


@pytest.mark.parametrize("threshold", [{"min_precision": 0.96}, {"min_difficulty": 0.27}])
def test_thresholds_are_parameters(threshold):
    """With either threshold above what is there, nothing is warned of."""
    y_true = np.tile(ANIMALS, 5)
    y_pred = np.where(np.arange(20) < 1, "eel", y_true)
    assert not TransferDifficultyDisplay.from_predictions(y_true, y_pred, **threshold).is_at_risk


def test_difficulty_needs_no_training(task):
    """Fitted or not, or after another method: the class embeddings alone decide."""
    clf, X, y = task
    base = clf.base_
    expected = ZeroShotClassifier(base).fit(None, y).predict(X)
    expected = relative_transfer_difficulty(y, expected, average=None)
    for estimator in (TaskResClassifier(base), clf, ZeroShotClassifier(base).fit(X, y)):
        display = TransferDifficultyDisplay.from_estimator(estimator, X, y, min_precision=1)
        assert_allclose(display.class_difficulties, expected)
        assert_array_equal(display.labels, ANIMALS)


def test_difficulty_of_class_means(task):
    """A base of class means, not fitted yet, is made of the rows that are given."""
    _, X, y = task
    start = ZeroShotClassifier("class_means").fit(X, y)
    with pytest.warns(UserWarning, match="Negative transfer is possible"):
        display = TransferDifficultyDisplay.from_estimator(TaskResClassifier("class_means"), X, y)
    assert_allclose(display.precision, start.score(X, y))


@pytest.mark.model
def test_zero_shot_of_an_enhanced_base_is_the_clips_own(digits):
    """Before training means before the text projection was tuned, too."""
    model, images, y = digits
    X = model[:-1].transform(images)
    text = CLIPTextFeaturizer("glyph-clip")
    clf = TaskResClassifier(text, enhanced_base=True, enhanced_lr=0.05, max_epochs=2)
    clf.fit(X[:30], y[:30])
    start = ZeroShotClassifier(text).fit(None, y)
    assert np.abs(clf.base_ - start.base_).max() > 0.1
    display = ClassGainDisplay.from_estimator(clf, X, y)
    expected = [np.mean(start.predict(X)[y == label] == label) for label in clf.classes_]
    assert_allclose(display.before, expected)


@pytest.mark.model
def test_a_pipeline_and_a_search_are_looked_into(digits):
    """Pipeline, search over it, and classifier alone draw the same."""
    model, images, y = digits
    search = GridSearchCV(model, {"taskres__alpha": [0.5]}, cv=2).fit(images[:30], y[:30])
    X = model[:-1].transform(images)
    expected = ClassGainDisplay.from_estimator(model[-1], X, y)
    for estimator in (model, search):
        display = ClassGainDisplay.from_estimator(estimator, images, y)
        assert_allclose(display.gain_, expected.gain_)


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearProbeClassifier(C=1.0)])
def test_other_classifiers_are_refused(task, estimator):
    """A classifier without class embeddings is named, with what would do."""
    _, X, y = task
    name = type(estimator).__name__
    with pytest.raises(ValueError, match=f"{name} has no class embeddings .* from_predictions"):
        ClassGainDisplay.from_estimator(estimator, X, y)


# magnitude ---------------------------------------------------------------------------------


def test_magnitude_is_the_mean_row_norm(task):
    """Norms, their mean, and α‖x‖/‖t‖ a class are those of loops over the rows."""
    clf, _, _ = task
    magnitude = residual_magnitude(clf)
    norms = [sum(v * v for v in row) ** 0.5 for row in clf.residual_]
    bases = [sum(v * v for v in row) ** 0.5 for row in clf.base_]
    assert_allclose(magnitude.norms, norms)
    assert_allclose(magnitude.mean_norm, sum(norms) / 4)
    assert_allclose(magnitude.relative, [0.7 * x / t for x, t in zip(norms, bases, strict=True)])


def test_training_length_counts_steps(task):
    """Epochs times full batches, and the learning rates of the history, a batch each."""
    clf, _, _ = task
    rates = sum(epoch["lr"] for epoch in clf.history_)
    assert (residual_magnitude(clf).n_steps, residual_magnitude(clf, n_samples=300).n_steps) == (
        40,
        40,
    )
    assert residual_magnitude(clf, n_samples=800).n_steps == 3 * 40
    assert_allclose(residual_magnitude(clf, n_samples=800).steps_x_lr, 3 * rates)


@pytest.mark.parametrize(
    "estimator", [ZeroShotClassifier(), TaskResClassifier(residual="image", max_epochs=1)]
)
def test_no_residual_is_said_so(task, estimator):
    """If no residual on the text was learned, there is no magnitude of zero."""
    clf, X, y = task
    fitted = estimator.set_params(base=clf.base_).fit(X, y)
    with pytest.raises(ValueError, match="holds no residual on the text"):
        residual_magnitude(fitted)


@pytest.fixture(scope="module")
def tasks(task):
    """Three tasks of one kind with 5, 20 and 10 epochs, difficulties falling."""
    clf, X, y = task
    sizes = {"five": 5, "twenty": 20, "ten": 10}
    fitted = {
        name: TaskResClassifier(clf.base_, max_epochs=n, batch_size=8, random_state=0).fit(
            X[:n_rows], y[:n_rows]
        )
        for (name, n), n_rows in zip(sizes.items(), (16, 8, 12), strict=True)
    }
    data = {name: (X[:n], y[:n]) for name, n in zip(sizes, (16, 8, 12), strict=True)}
    return fitted, {"five": 0.3, "twenty": 0.2, "ten": 0.1}, data


def test_rank_correlations_are_pearsons_of_ranks(tasks):
    """Spearman over the tasks, with difficulty and with training length, from ranks by hand."""
    fitted, difficulties, data = tasks
    display = ResidualMagnitudeDisplay.from_estimators(fitted, difficulties, data=data)
    magnitudes = [residual_magnitude(clf).mean_norm for clf in fitted.values()]
    assert_allclose(display.magnitude, magnitudes)

    def ranks(values):
        return [sum(other < value for other in values) for value in values]

    assert_allclose(
        display.correlation_, np.corrcoef(ranks(magnitudes), ranks([0.3, 0.2, 0.1]))[0, 1]
    )
    assert display.n_steps.tolist() == [10, 20, 10]  # 16 rows are two batches of 8
    assert f"{display.correlation_:+.2f}".replace("-", "−") in display.ax_.get_title()


def test_fixed_steps_train_equally_long(tasks):
    """Clones take the steps that were asked for; the given classifiers stay as they are."""
    fitted, difficulties, data = tasks
    before = {name: clf.residual_.copy() for name, clf in fitted.items()}
    display = ResidualMagnitudeDisplay.from_estimators(
        fitted, difficulties, data=data, n_steps=40, kind="relative"
    )
    assert display.n_steps.tolist() == [40, 40, 40]
    assert np.isnan(display.length_correlation_)
    assert "40 steps each" in display.ax_.get_title()
    for name, clf in fitted.items():
        assert_array_equal(clf.residual_, before[name])
    X, y = data["five"]
    again = TaskResClassifier(fitted["five"].base_, max_epochs=20, batch_size=8, random_state=0)
    expected = residual_magnitude(again.fit(X, y)).relative.mean()
    assert_allclose(display.magnitude[0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficulties": {"five": 1.0, "ten": 1.0}}, "The task 'twenty' has no difficulty"),
        ({"difficulties": {"five": 1.0, "ten": 1.0, "twenty": np.inf}}, "'twenty' is inf"),
        ({"data": {}}, "The task 'five' has no data"),
        ({"n_steps": 5}, "n_steps fits each task again and needs data"),
        ({"kind": "mean"}, "kind must be 'norm' or 'relative'"),
        ({"estimators": {}}, "estimators must be a dict"),
    ],
)
def test_magnitudes_refuse(tasks, change, message):
    """What a task lacks is named."""
    fitted, difficulties, _ = tasks
    given = {"estimators": fitted, "difficulties": difficulties, **change}
    with pytest.raises(ValueError, match=message):
        ResidualMagnitudeDisplay.from_estimators(**given)


# gains -------------------------------------------------------------------------------------


def test_gains_are_those_of_a_loop():
    """Accuracy a class before and after, the worse ones by their loss, from loops."""
    rng = np.random.default_rng(2)
    labels = np.array([f"class {i:02}" for i in range(30)])
    y = np.concatenate([labels, rng.choice(labels, 270)])
    before, after = noisy(y, 0.5, rng, labels), noisy(y, 0.6, rng, labels)
    display = ClassGainDisplay.from_predictions(y, before, after)
    rows = [
        (np.mean(after[y == label] == label) - np.mean(before[y == label] == label), label)
        for label in labels
    ]
    assert_allclose(display.gain_, [gain for gain, _ in rows])
    losses = sorted((gain, label) for gain, label in rows if gain < 0)
    assert display.worse_.tolist() == [label for _, label in losses]
    drawn = [text.get_text() for text in display.ax_.get_yticklabels()]
    assert drawn[-1] == losses[0][1]
    assert drawn[0] == max(rows, key=lambda row: row[0])[1]
    assert len(drawn) == 20
    assert all(label in display.ax_.get_title() for _, label in losses[:3])


def test_half_of_the_rows_are_for_losses():
    """Small losses are shown, though there are more and larger gains than rows."""
    labels = [f"class {i:02}" for i in range(40)]
    y = np.repeat(labels, 10)
    before = np.where(np.arange(400) % 10 < 4, y, "class 00")
    after = np.where(np.arange(400) < 300, y, np.where(np.arange(400) % 10 < 3, y, "class 01"))
    display = ClassGainDisplay.from_predictions(y, before, after, n_classes=10)
    drawn = {text.get_text() for text in display.ax_.get_yticklabels()}
    assert len(drawn & set(labels[30:])) == 5
    assert len(drawn) == 10


def test_a_class_without_images_is_left_out():
    """It has no accuracy, is neither better nor worse, and no row."""
    display = ClassGainDisplay.from_predictions(
        ["cat", "dog"], ["cat", "cat"], ["cat", "dog"], labels=["cat", "dog", "eel"]
    )
    assert_array_equal(display.before, [1, 0, np.nan])
    assert display.worse_.tolist() == []
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["dog", "cat"]
    assert "No class got worse" in display.ax_.get_title()


def test_gain_shows_the_residual_norms(task):
    """The right-hand labels are α‖x‖/‖t‖; a method without a residual has none."""
    clf, X, y = task
    display = ClassGainDisplay.from_estimator(clf, X, y)
    assert_allclose(display.magnitudes, residual_magnitude(clf).relative)
    assert_allclose(display.after, [np.mean(clf.predict(X)[y == c] == c) for c in ANIMALS])
    other = GDAClassifier(clf.base_, alpha=0.1).fit(X, y)
    assert ClassGainDisplay.from_estimator(other, X, y).magnitudes is None


def test_display_labels_replace_the_labels():
    """Names are shown for integer labels, and must be one for each."""
    given = [0, 1], [0, 1], [1, 1]
    display = ClassGainDisplay.from_predictions(*given, display_labels=["cat", "dog"])
    assert {t.get_text() for t in display.ax_.get_yticklabels()} == {"cat", "dog"}
    assert display.worse_.tolist() == [0]
    with pytest.raises(ValueError, match="display_labels has 1 names for 2 labels"):
        ClassGainDisplay.from_predictions(*given, display_labels=["cat"])


# curves ------------------------------------------------------------------------------------

CURVES = {
    "zero-shot": {1: [0.4, 0.4], 4: [0.4, 0.4]},
    "taskres": {4: [0.7, 0.6], 1: [0.5, 0.54]},
    "probe": {1: [0.2, 0.3], 4: [0.68, 0.72]},
}


def lines_of(curves, **given):
    return [
        {"data": "dtd", "method": name, "shots": shots, "seed": i, "accuracy": a, **given}
        for name, cells in curves.items()
        for shots, accuracies in cells.items()
        for i, a in enumerate(accuracies)
    ]


def test_curves_are_means_and_deviations():
    """Mean and sample deviation over the draws; zero-shot is one number."""
    display = FewShotCurveDisplay.from_results(CURVES)
    assert display.results["zero-shot"] == pytest.approx(0.4)
    assert display.mean_["taskres"] == {1: pytest.approx(0.52), 4: pytest.approx(0.65)}
    assert display.std_["taskres"][4] == pytest.approx(0.1 / 2**0.5)
    assert "taskres at 1; probe at 4" in display.ax_.get_title()
    ticks = display.ax_.get_xticks()
    assert ticks.tolist() == [1, 4]


def test_lines_of_the_benchmark_give_the_same_curves():
    """Of two lines of one cell the last counts, and others' data sets are not mixed in."""
    first = lines_of({"taskres": {1: [0.9]}})
    other = lines_of({"taskres": {1: [0.1]}}, test="imagenet-v2")
    display = FewShotCurveDisplay.from_results([*first, *other, *lines_of(CURVES)], data="dtd")
    assert display.mean_ == FewShotCurveDisplay.from_results(CURVES).mean_


def test_data_sets_are_averaged_where_all_have_the_cell():
    """A seed's mean over the test sets; a cell that one of them lacks is left out."""
    lines = [
        *lines_of({"taskres": {1: [0.5, 0.6], 2: [0.6]}}, test="a"),
        *lines_of({"taskres": {1: [0.7, 0.9]}}, test="b"),
    ]
    display = FewShotCurveDisplay.from_results(lines)
    assert display.results["taskres"] == {1: pytest.approx([0.6, 0.75])}


@pytest.mark.parametrize(
    ("results", "params", "message"),
    [
        ({}, {}, "results is empty"),
        ({"taskres": {1: [52.0]}}, {}, "Divide percentages by 100"),
        ({"taskres": {}}, {}, "at least one"),
        ({"taskres": [0.5]}, {}, "must be a dict of shots to accuracies, or a number"),
        (CURVES, {"errors": "sticks"}, "errors must be 'bars', 'band' or None"),
        (lines_of(CURVES), {"data": "food101"}, "No line is of data='food101'"),
        (
            [*lines_of(CURVES, backbone="RN50"), *lines_of(CURVES, backbone="ViT-B-16")],
            {},
            r"The lines mix backbones: \['RN50', 'ViT-B-16'\]",
        ),
    ],
)
def test_curves_refuse(results, params, message):
    """What is wrong with results is said in a sentence."""
    with pytest.raises(ValueError, match=message):
        FewShotCurveDisplay.from_results(results, **params)


def test_many_methods_can_be_told_apart():
    """Twenty methods have twenty different pairs of colour and marker."""
    results = {f"method {i}": {1: [0.1 + i / 50], 2: [0.2]} for i in range(20)}
    axes = FewShotCurveDisplay.from_results(results).ax_
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines if line.get_label()}
    assert len({look for look in looks if look[1] not in ("None", None)}) == 20


# alpha -------------------------------------------------------------------------------------


def test_alpha_reads_both_searches(task):
    """GridSearchCV and TaskResClassifierCV on the same folds draw the same, the table's mean."""
    clf, X, y = task
    params = {"base": clf.base_, "max_epochs": 5, "lr": 0.1, "random_state": 0}
    alphas = [1, 0, 0.25]
    ours = TaskResClassifierCV(alphas=alphas, cv=3, **params).fit(X, y)
    grid = GridSearchCV(TaskResClassifier(**params), {"alpha": alphas}, cv=3).fit(X, y)
    first, second = AlphaDisplay.from_estimator(ours), AlphaDisplay.from_estimator(grid)
    assert first.alphas.tolist() == second.alphas.tolist() == [0, 0.25, 1]
    assert_allclose(first.mean, grid.cv_results_["mean_test_score"][[1, 2, 0]])
    assert_allclose(first.mean, second.mean)
    folds = np.array([grid.cv_results_[f"split{i}_test_score"] for i in range(3)])
    assert_allclose(first.error, (folds.std(axis=0, ddof=1) / 3**0.5)[[1, 2, 0]])
    assert [text.get_text() for text in first.ax_.get_xticklabels()] == ["0", "0.25", "1"]


def test_alpha_takes_the_best_of_other_parameters():
    """If more was searched, each alpha stands with its best candidate; a table will do."""
    pandas = pytest.importorskip("pandas")
    table = {
        "param_taskres__alpha": [0, 0, 1, 1],
        "param_taskres__lr": [1, 2, 1, 2],
        "split0_test_score": [0.5, 0.4, 0.6, 0.8],
        "split1_test_score": [0.5, 0.4, 0.6, 0.6],
    }
    display = AlphaDisplay.from_cv_results(pandas.DataFrame(table))
    assert_allclose(display.mean, [0.5, 0.7])
    assert_allclose(display.error, [0, 0.1])
    assert display.best_alpha_ == 1
    assert "+0.200 against zero-shot" in display.ax_.get_title()


def test_zero_as_the_best_alpha_is_said():
    """A search that chose zero-shot says that training did not help."""
    table = {"param_alpha": [0, 1], "split0_test_score": [0.5, 0.4]}
    assert "training did not help" in AlphaDisplay.from_cv_results(table).ax_.get_title()


@pytest.mark.parametrize(
    ("table", "params", "message"),
    [
        ({"param_C": [1], "split0_test_score": [0.5]}, {}, r"its parameters are \['C'\]"),
        (
            {"param_a__alpha": [1], "param_b__alpha": [1], "split0_test_score": [0.5]},
            {},
            "holds 2 columns of alphas",
        ),
        ({"param_alpha": [1], "split0_test_f1": [0.5]}, {}, "no score of a fold"),
    ],
)
def test_alpha_refuses(table, params, message):
    """What the table lacks is said, with what it has."""
    with pytest.raises(ValueError, match=message):
        AlphaDisplay.from_cv_results(table, **params)


def test_alpha_of_a_search_that_is_none(task):
    """A classifier without results is refused by name."""
    with pytest.raises(ValueError, match="TaskResClassifier has no cv_results_"):
        AlphaDisplay.from_estimator(task[0])


# nearest images ----------------------------------------------------------------------------


def test_nearest_are_the_highest_cosines(task):
    """Both rows are those of a sort by cosine, with t and with t + αx; wrong ones are marked."""
    clf, X, y = task
    images = np.random.default_rng(0).random((len(X), 6, 6))
    display = NearestImagesDisplay.from_estimator(clf, X, images, "dog", 4, y=y)
    k = list(ANIMALS).index("dog")
    for row, t in enumerate((clf.base_[k], clf.base_[k] + 0.7 * clf.residual_[k])):
        cosines = [x @ t / np.linalg.norm(x) for x in X]
        assert display.indices[row].tolist() == sorted(range(len(X)), key=lambda i: -cosines[i])[:4]
        assert display.truths[row] == y[display.indices[row]].tolist()
        assert display.n_right_[row] == np.sum(y[display.indices[row]] == "dog")
        for cell, truth in zip(display.axes_[row], display.truths[row], strict=True):
            assert truth in cell.get_title()
            assert cell.get_title().startswith("✗") == (truth != "dog")
    assert display.indices[0].tolist() != display.indices[1].tolist()
    assert min(display.n_right_) < 4


def test_nearest_of_two_classes(task):
    """For two classes both have their nearest: the ends of the difference."""
    clf, X, _ = task
    two = clf.select_classes(["bird", "cat"])
    images = np.zeros((len(X), 6, 6))
    cat = NearestImagesDisplay.from_estimator(two, X, images, "cat", 3)
    bird = NearestImagesDisplay.from_estimator(two, X, images, "bird", 3)
    order = np.argsort(two.decision_function(X))
    assert cat.indices[1].tolist() == order[::-1][:3].tolist()
    assert bird.indices[1].tolist() == order[:3].tolist()


@pytest.mark.model
def test_nearest_takes_a_pipeline_and_its_images(digits):
    """Before a pipeline X and the images are the same."""
    model, images, y = digits
    display = NearestImagesDisplay.from_estimator(model, images, images, "three", 2, y=y)
    assert display.images[0][0].size == (8, 8)
    alone = NearestImagesDisplay.from_estimator(
        model[-1], model[:-1].transform(images), images, "three", 2
    )
    assert_array_equal(display.indices, alone.indices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "cow"}, "'cow' is not among the 4 classes"),
        ({"images": np.zeros((3, 6, 6))}, "X has 80 rows and images 3"),
        ({"y": ["cat"]}, "X has 80 rows and y 1"),
        ({"display_labels": ["cat"]}, "display_labels has 1 names for 4 labels"),
    ],
)
def test_nearest_refuses(task, change, message):
    """What does not fit together is named."""
    clf, X, _ = task
    given = {"label": "cat", "images": np.zeros((80, 6, 6)), **change}
    with pytest.raises(ValueError, match=message):
        NearestImagesDisplay.from_estimator(clf, X, **given)


# convention --------------------------------------------------------------------------------


def long_names(n):
    return np.array([f"a class with a rather long name {i}" for i in range(n)])


def many_classes():
    rng = np.random.default_rng(0)
    y = np.tile(long_names(300), 8)
    return y, noisy(y, 0.5, rng, long_names(300)), noisy(y, 0.6, rng, long_names(300))


@pytest.fixture(
    params=["difficulty", "magnitude", "gain", "gain_estimator", "curves", "alpha", "nearest"]
)
def draw(request, task):
    """A function of ax that draws one of the displays, with many or long labels."""
    clf, X, y = task
    rng = np.random.default_rng(0)
    n = 11
    magnitude = ResidualMagnitudeDisplay(
        list(TRAINED),
        difficulty=[100 / np.prod(DATA_SETS[name].zero_shot) for name in TRAINED],
        magnitude=np.repeat([2.0, 2.1, 2.2, 2.3], 3)[:n],
        steps_x_lr=rng.random(n),
        n_steps=np.arange(n),
    )
    curves = {
        f"a method of long name {i}": {2**k: [0.5 + 0.1 * (i == k), 0.6] for k in range(5)}
        for i in range(10)
    }
    alphas = {"param_alpha": np.arange(30) / 8, "split0_test_score": rng.random(30)}
    y_many, before, after = many_classes()
    return {
        "difficulty": lambda ax: TransferDifficultyDisplay.from_predictions(y_many, before, ax=ax),
        "magnitude": magnitude.plot,
        "gain": lambda ax: ClassGainDisplay.from_predictions(y_many, before, after, ax=ax),
        "gain_estimator": lambda ax: ClassGainDisplay.from_estimator(clf, X, y, ax=ax),
        "curves": lambda ax: FewShotCurveDisplay.from_results(curves, ax=ax),
        "alpha": lambda ax: AlphaDisplay.from_cv_results(alphas, ax=ax),
        "nearest": lambda ax: NearestImagesDisplay.from_estimator(
            clf, X, rng.random((80, 6, 6)), "dog", y=y, display_labels=long_names(4), ax=ax
        ),
    }[request.param]


def test_displays_keep_the_convention(draw):
    """A figure of its own without ax, the given one with it; no setting of matplotlib changes."""
    settings = dict(matplotlib.rcParams)
    display = draw(None)
    assert plt.get_fignums() == [display.figure_.number]
    assert display.plot() is display
    figure, ax = plt.subplots()
    n_figures = len(plt.get_fignums())
    display = draw(ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert len(plt.get_fignums()) == n_figures
    assert dict(matplotlib.rcParams) == settings


def is_drawn(text):
    """Whether a text is seen: matplotlib keeps ticks outside of the limits, too."""
    return text.get_visible() and text.get_text().strip()


def shown_boxes(figure):
    """Boxes in pixels of all texts that are seen, each shrunk by a pixel."""
    figure.canvas.draw()
    hidden = set()
    for ax in figure.findobj(matplotlib.axes.Axes):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
        if not ax.axison:
            hidden |= {*ax.get_xticklabels(), *ax.get_yticklabels()}
    texts = [t for t in figure.findobj(Text) if is_drawn(t) and t not in hidden]
    return [(t.get_text(), t.get_window_extent().padded(-1)) for t in dict.fromkeys(texts)]


def test_no_text_covers_another_or_leaves_the_figure(draw):
    """All labels can be read: none overlaps another, none is cut off."""
    display = draw(None)
    boxes = shown_boxes(display.figure_)
    assert len(boxes) > 8
    frame = display.figure_.bbox
    for i, (text, box) in enumerate(boxes):
        assert frame.x0 <= box.x0, text
        assert box.x1 <= frame.x1, text
        assert frame.y0 <= box.y0, text
        assert box.y1 <= frame.y1, text
        for other, second in boxes[i + 1 :]:
            assert not box.overlaps(second), (text, other)


def test_worse_and_better_differ_by_more_than_colour(task):
    """The colour-blind see another marker where a class got worse."""
    y = np.tile(ANIMALS, 4)
    after = np.where(np.arange(16) == 0, "cat", y)
    display = ClassGainDisplay.from_predictions(y, y, after)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["before", "after, not worse", "after, worse"]
    worse = display.ax_.collections[-1]
    assert to_hex(worse.get_facecolor()[0]).upper() == "#D55E00"


def test_importing_needs_neither_matplotlib_nor_torch():
    """The numbers can be had without the extra."""
    code = (
        "import sys, sklearn_taskres.inspection as i\n"
        "i.relative_transfer_difficulty(['a', 'b'], ['a', 'a'])\n"
        "print([m for m in ('matplotlib', 'torch', 'open_clip') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert ran.stdout.strip() == "[]"


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    """Drawing without matplotlib says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-taskres\[plots\]'"):
        ClassGainDisplay.from_predictions(["cat"], ["cat"], ["cat"])


@pytest.mark.parametrize("named", [False, True], ids=["labels", "names"])
def test_displays_show_names_where_labels_are_numbers(task, named):
    """A classifier's `class_names` are shown; without them the labels are."""
    clf, X, y = task
    numbers = np.searchsorted(ANIMALS, y)
    names = sorted(ANIMALS)
    order = [clf.classes_.tolist().index(name) for name in names]
    params = {"class_names": names if named else None, "max_epochs": 2}
    numbered = TaskResClassifier(clf.base_[order], **params).fit(X[:24], numbers[:24])
    shown = names if named else [0, 1, 2, 3]
    for kind in (ClassGainDisplay, TransferDifficultyDisplay):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Negative transfer")
            display = kind.from_estimator(numbered, X[24:], numbers[24:])
        seen = getattr(display, "display_labels", display.labels)
        assert_array_equal(np.asarray(seen), shown)


def test_candidates_without_an_alpha_are_not_drawn():
    """A search over several grids masks them; what lies below the mask is arbitrary."""
    alphas = np.ma.MaskedArray([0, 0.5, 123.4], mask=[False, False, True])
    table = {"param_alpha": alphas, "split0_test_score": np.array([0.5, 0.6, 0.9])}
    display = AlphaDisplay.from_cv_results(table)
    assert_array_equal(display.alphas, [0, 0.5])
    assert display.best_alpha_ == 0.5
    with pytest.raises(ValueError, match="must be numbers to be drawn"):
        AlphaDisplay.from_cv_results(table | {"param_alpha": np.array(["auto", 1, 2], object)})
    with pytest.raises(ValueError, match="Every candidate has a fold without a score"):
        AlphaDisplay.from_cv_results(table | {"split1_test_score": np.full(3, np.nan)})
