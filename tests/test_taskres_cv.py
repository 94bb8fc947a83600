"""TaskResClassifierCV against GridSearchCV over TaskResClassifier: the same figures, sooner."""

import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.metrics import accuracy_score, get_scorer, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback
from torch.nn.modules.module import register_module_buffer_registration_hook

from sklearn_taskres import (
    CLIPTextFeaturizer,
    TaskResClassifier,
    TaskResClassifierCV,
    ZeroShotClassifier,
)
from sklearn_taskres._search import table
from sklearn_taskres._search.jobs import Fold, MemoryLimit

#: Scores that tell candidates apart if accuracies would tie.
FINE = "neg_log_loss"
EXACT = {"rtol": 0, "atol": 1e-9}
GRID = {"alpha": [0, 0.5, 2], "weight_decay": [5e-4, 0.1]}
OURS = {
    "alpha": "alphas",
    "weight_decay": "weight_decays",
    "enhanced_base": "enhanced_bases",
}


def problem(n_rows=60, n_classes=4, d=12, dtype=np.float64, noise=0.9):
    """Raw class embeddings and images that overlap, classes in turn."""
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(n_classes, d))
    y = np.arange(n_rows) % n_classes
    X = t[y] + rng.normal(scale=noise, size=(n_rows, d))
    return X.astype(dtype), y, t.astype(dtype)


def both(X, y, grid=GRID, *, base, cv=3, scoring=None, fit=None, **params):
    """Our search and GridSearchCV, fitted on the same data with the same settings."""
    fit, params = fit or {}, {"max_epochs": 15, "lr": 0.02, "random_state": 3, **params}
    lists = {OURS[name]: values for name, values in grid.items()}
    ours = TaskResClassifierCV(base, cv=cv, scoring=scoring, **lists, **params)
    theirs = GridSearchCV(TaskResClassifier(base, **params), grid, cv=cv, scoring=scoring)
    return ours.fit(X, y, **fit), theirs.fit(X, y, **fit)


def assert_equal_searches(ours, theirs, X):
    """Every score of every candidate, the best one, and what the refit predicts."""
    for name, column in theirs.cv_results_.items():
        if "_test_score" in name:
            assert_allclose(ours.cv_results_[name], column, **EXACT, err_msg=name)
    searched = theirs.best_params_.keys()
    assert {name: ours.best_params_[name] for name in searched} == theirs.best_params_
    assert ours.n_splits_ == theirs.n_splits_
    assert_allclose(ours.best_score_, theirs.best_score_, **EXACT)
    assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    assert_array_equal(ours.residual_, theirs.best_estimator_.residual_)


def with_views(X, n_views=3):
    """Clean rows in slot 0, noisy ones after it."""
    noise = np.random.default_rng(2).normal(scale=0.3, size=(len(X), 1 + n_views, X.shape[1]))
    noise[:, 0] = 0
    return X[:, None] + noise


WEIGHTS = np.random.default_rng(1).uniform(0.5, 3, 60)
#: Name to the rows of X and y, and the settings.
CASES = {
    "equal folds": {},
    "unequal folds": {"cv": 7},
    "mini-batches": {"batch_size": 16},
    "mini-batches, unequal folds": {"batch_size": 16, "cv": 7},
    "weights": {"fit": {"sample_weight": WEIGHTS}},
    "weights of zero": {"fit": {"sample_weight": WEIGHTS * (np.arange(60) % 7 > 0)}},
    "balanced": {"class_weight": "balanced", "cv": KFold(4)},
    "class weights": {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5, 3: 1.0}},
    "learned alpha": {"learn_alpha": True, "grid": {"alpha": [0.3, 1], "weight_decay": [0, 0.3]}},
    "class means": {"base": "class_means", "cv": 7},
    "scaled base": {"base": "class_means", "base_norm": 5.0},
    "shuffled folds": {"cv": StratifiedKFold(3, shuffle=True, random_state=0)},
    "random folds": {"cv": ShuffleSplit(3, test_size=0.4, random_state=0)},
    "image residual": {"residual": "image", "grid": {"alpha": [0, 0.5]}},
    "random state": {"random_state": np.random.RandomState(5), "batch_size": 16},
}


@pytest.mark.parametrize("scoring", [None, FINE])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_grid_search(case, scoring):
    """Scores, choice and predictions are GridSearchCV's."""
    X, y, t = problem()
    y = np.where(np.arange(60) > 54, 0, y)  # class 0 is larger
    ours, theirs = both(X, y, **{"base": t, "scoring": scoring, **case})
    assert_equal_searches(ours, theirs, X)


@pytest.mark.parametrize("batch_size", [256, 16])
def test_equals_grid_search_with_views(batch_size):
    """Views are drawn as a single fit draws them, and folds are scored on clean rows."""
    X, y, t = problem()
    rows = with_views(X)
    ours, theirs = both(rows, y, base=t, scoring=FINE, batch_size=batch_size)
    assert_equal_searches(ours, theirs, rows)
    plain, _ = both(X, y, base=t, scoring=FINE, batch_size=batch_size)
    trained = ours.cv_results_["param_alpha"] > 0
    difference = plain.cv_results_["mean_test_score"] - ours.cv_results_["mean_test_score"]
    assert_array_equal(difference != 0, trained)


@pytest.mark.parametrize("case", [{}, {"cv": 7}, {"batch_size": 16}], ids=str)
def test_accuracies_in_float32(case):
    """In float32 accuracies are the same, and probabilities to its precision."""
    X, y, t = problem(dtype=np.float32)
    ours, theirs = both(X, y, base=t, **case)
    for name in ("mean_test_score", "rank_test_score"):
        assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], atol=1e-12)
    assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
    assert ours.coef_.dtype == np.float32
    assert_allclose(*(s.best_score_ for s in both(X, y, base=t, scoring=FINE)), rtol=1e-4)


@pytest.mark.model
@pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")
@pytest.mark.parametrize("views", [False, True])
def test_equals_grid_search_with_an_enhanced_base(views):
    """The tuned base draws from the generator first; candidates of a fold share it."""
    names = ["zero", "one", "two", "three"]
    text = CLIPTextFeaturizer("glyph-clip")
    t = text.transform(names).astype(np.float64)
    X, y, _ = problem(n_rows=40, d=t.shape[1])
    X = with_views(t[y] + 0.5 * X) if views else t[y] + 0.5 * X
    ours, theirs = both(
        X,
        y,
        {**GRID, "enhanced_base": [False, True]},
        base=text,
        class_names=names,
        scoring=FINE,
        batch_size=8,
        max_epochs=3,
        enhanced_epochs=3,
        enhanced_lr=1e-3,
    )
    assert_equal_searches(ours, theirs, X)
    with_tuning, without = (
        ours.cv_results_["mean_test_score"][ours.cv_results_["param_enhanced_base"] == tuned]
        for tuned in (True, False)
    )
    assert (with_tuning != without).all()
    refit = TaskResClassifierCV(text, class_names=names, enhanced_bases=[True], max_epochs=3)
    assert refit.fit(X, y).add_classes({4: "four"}).text_projection_.ndim == 2


def test_folds_that_lack_a_class():
    """A class outside the training rows, or outside the held-out ones, does not stop the search."""
    X, y, _ = problem()
    order = np.argsort(y)  # each fold of KFold(4) is one class, which its training rows lack
    ours, theirs = both(X[order], y[order], base="class_means", cv=KFold(4))
    assert_equal_searches(ours, theirs, X)
    splits = [(np.arange(60) % 15 > 0, y == 2), (y != 1, np.arange(60) % 2 == 0)]
    splits = [tuple(np.flatnonzero(rows) for rows in pair) for pair in splits]
    assert_equal_searches(*both(X, y, base="class_means", cv=splits), X)


def test_a_score_that_fails_is_nan():
    """As in GridSearchCV: the log loss of a class that a fold has not seen is NaN, with a word."""
    X, y, t = problem()
    splits = [(np.flatnonzero(y != 1), np.arange(60)), (np.arange(60), np.arange(40))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = both(X, y, base=t, cv=splits, scoring=FINE)
    for name in ("split0_test_score", "split1_test_score", "mean_test_score", "rank_test_score"):
        assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], **EXACT)
    with pytest.warns(UserWarning, match="6 of 12 pairs of candidate and fold have no.*ValueError"):
        clone(ours).fit(X, y)


def test_a_candidate_without_scores_comes_last():
    """A candidate that can't be scored is never the best."""
    X, y, t = problem()

    def picky(clf, X, y):
        if clf.alpha == 0.5:
            raise ValueError("not this one")
        return clf.score(X, y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_equal_searches(*both(X, y, base=t, scoring=picky), X)
        with pytest.raises(ValueError, match="not this one"):
            TaskResClassifierCV(t, alphas=[0.5], max_epochs=2, scoring=picky).fit(X, y)


def test_two_images_a_class_are_enough():
    """Folds with one held-out image per class draw no warning about it."""
    X, y, t = problem(n_rows=80, n_classes=40, noise=0.1)
    search = TaskResClassifierCV(t, max_epochs=2).fit(X, y)
    assert search.n_splits_ == 2
    assert search.best_score_ > 0.5


def test_results_have_grid_search_s_format():
    """The same keys, candidates, orders and types."""
    X, y, t = problem()
    grid = {**GRID, "enhanced_base": [False]}
    ours, theirs = both(X, y, grid, base=t)
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    for name, column in theirs.cv_results_.items():
        assert type(ours.cv_results_[name]) is type(column), name
        if name.startswith("param_"):
            assert_array_equal(ours.cv_results_[name], column)
            assert ours.cv_results_[name].dtype == column.dtype
    assert (ours.cv_results_["mean_fit_time"] > 0).all()
    assert (ours.cv_results_["mean_score_time"] > 0).all()
    assert ours.cv_results_["params"][ours.best_index_] == ours.best_params_


@pytest.mark.parametrize("learn_alpha", [False, True])
def test_a_scorer_sees_how_each_candidate_was_trained(learn_alpha):
    """A candidate's losses are those of a fit of its own; alpha = 0 learns nothing."""
    X, y, t = problem()
    seen = {}

    def scorer(clf, X, y):
        seen.setdefault(clf.get_params()["alpha"], clf)
        return clf.score(X, y)

    (seen_rows, held_out), *_ = StratifiedKFold(2).split(X, y)
    alphas = (0.3, 1, 2) if learn_alpha else (0, 0.3, 1, 2)
    params = {"learn_alpha": learn_alpha, "batch_size": 8, "max_epochs": 5, "random_state": 0}
    search = TaskResClassifierCV(
        t, alphas=alphas, cv=[(seen_rows, held_out)], scoring=scorer, refit=False, **params
    )
    search.fit(X, y)
    for alpha in alphas:
        alone = TaskResClassifier(t, alpha=alpha, **params).fit(X[seen_rows], y[seen_rows])
        assert seen[alpha].n_parameters_ == alone.n_parameters_
        assert_allclose(seen[alpha].alpha_, alone.alpha_, **EXACT)
        assert seen[alpha].n_iter_ == len(seen[alpha].history_) == (5 if alpha else 0)
        for epoch, expected in zip(seen[alpha].history_, alone.history_, strict=alpha > 0):
            assert epoch.keys() == expected.keys()
            for name, value in expected.items():
                assert_allclose(epoch[name], value, err_msg=name, **EXACT)


@pytest.mark.parametrize("n_fit", [1, 2, 4])
def test_chunks_give_the_same(n_fit):
    """Candidates trained in turn draw the same batches and views as those trained together."""
    X, y, t = problem()
    rows = with_views(X)
    params = {"batch_size": 16, "max_epochs": 10, "random_state": 0}
    search = TaskResClassifierCV(t, weight_decays=(5e-4, 0.1), cv=3, scoring=FINE, **params)
    whole = search.fit(rows, y).cv_results_
    candidates = whole["params"]
    for k, (train, test) in enumerate(StratifiedKFold(3).split(X, y)):
        fold = Fold(TaskResClassifier(t, **params), rows[train], y[train], None)
        n_bytes = n_fit * 8 * 4 * (6 * 12 + 3 * 16)
        jobs = list(fold.jobs(list(enumerate(candidates)), 1, 1, most_bytes=n_bytes))
        sizes = [len(pairs) for _, pairs in jobs if pairs[0][0] > 0]  # alpha = 0 is not trained
        assert sizes == [min(n_fit, 5 - i) for i in range(0, 5, n_fit)] * 2
        scores = np.full(len(candidates), np.nan)
        for places, pairs in jobs:
            fitted = fold.fitted([candidates[i] for i in places], fold.learn(pairs, MemoryLimit()))
            scores[places] = [get_scorer(FINE)(clf, X[test], y[test]) for clf in fitted]
        assert_allclose(scores, whole[f"split{k}_test_score"], **EXACT)


@pytest.fixture
def torch_threads():
    """Set the number of torch's threads, which a search shares out; it is set back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def on_training():
    """Take a function, and call it when a training begins: in its thread, with all its alphas."""
    handles = []

    def register(function):
        def hook(module, name, buffer):
            if name == "alpha":
                function(buffer.flatten().tolist())

        handles.append(register_module_buffer_registration_hook(hook))

    yield register
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_threads_give_the_same(torch_threads, on_training, n_threads):
    """Programs in threads of their own change no score, and leave torch's threads as they were."""
    X, y, t = problem()
    params = {"cv": 4, "scoring": FINE, "max_epochs": 9, "random_state": 0, "device": "cpu"}
    search = TaskResClassifierCV(t, alphas=(0, 0.3, 1, 2), weight_decays=(0, 0.1), **params)
    torch_threads(1)
    alone = clone(search).fit(X, y)
    torch_threads(n_threads)
    seen = []
    on_training(lambda _: seen.append((threading.current_thread(), torch.get_num_threads())))
    shared = clone(search).fit(X, y)
    *searched, refit = seen
    assert refit == (threading.main_thread(), n_threads)
    assert threading.main_thread() not in [thread for thread, _ in searched]
    assert {n for _, n in searched} == {1}
    assert len(searched) == 2 * (4 if n_threads == 2 else 3 + 3 if n_threads == 3 else 4 * 3)
    for name, column in alone.cv_results_.items():
        if "_test_score" in name:
            assert_allclose(shared.cv_results_[name], column, **EXACT)
    assert_array_equal(shared.residual_, alone.residual_)
    clone(search).set_params(refit=False).fit(X, y)  # a refit sets torch's threads back, too
    assert torch.get_num_threads() == n_threads
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == n_threads


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
@pytest.mark.parametrize("params", [{}, {"residual": "image"}], ids=["together", "one by one"])
@pytest.mark.parametrize("cv", [4, 3])
def test_folds_are_tasks_of_joblib(cv, backend, params):
    """A backend that joblib is told of gets a task for each fold; nothing else changes.

    The third fold of three is shared out between two workers.
    """
    X, y, t = problem()
    search = TaskResClassifierCV(
        t, alphas=(0, 0.5, 2), cv=cv, scoring=FINE, max_epochs=9, random_state=0, **params
    )
    alone = clone(search).fit(X, y)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        shared = clone(search).fit(X, y)
    for name, column in alone.cv_results_.items():
        if "_test_score" in name:
            assert_allclose(shared.cv_results_[name], column, **EXACT)
    assert_array_equal(shared.residual_, alone.residual_)
    broken = clone(search).set_params(cv=[(np.arange(0), np.arange(3))] * 2)
    with (
        joblib.parallel_config(backend=backend, n_jobs=2),
        pytest.raises(ValueError, match="0 sample"),
    ):
        broken.fit(X, y)


@pytest.mark.parametrize(
    ("n_folds", "n_workers", "n_parts"),
    [
        (4, 2, [1, 1, 1, 1]),
        (5, 2, [1] * 4 + [2]),
        (5, 4, [1] * 4 + [4]),
        (2, 4, [2] * 2),
        (5, 8, [1] * 5),
        (5, 16, [3] * 5),
        (0, 2, []),
    ],
)
def test_idle_workers_take_a_part(n_folds, n_workers, n_parts):
    """Each candidate of each fold is in one part, and no worker gets one more than before."""
    parts = list(table.shares(8, n_folds, n_workers))
    assert [sum(fold == k for _, fold in parts) for k in range(n_folds)] == n_parts
    pairs = [(i, fold) for places, fold in parts for i in places]
    assert pairs == [(i, fold) for fold in range(n_folds) for i in range(8)]
    n_rounds = -(-n_folds // n_workers)
    assert len(parts) <= n_rounds * n_workers


def test_few_candidates_are_few_parts():
    """No worker gets a part without candidates."""
    assert list(table.shares(2, 1, 4)) == [([0], 0), ([1], 0)]


def test_what_fails_in_a_thread_is_told(torch_threads, on_training):
    """An error of one program is a missing score of its candidates, and of all is raised."""
    X, y, t = problem()

    too_large = 2

    def short_tempered(alphas):
        if max(alphas) >= too_large:
            raise ArithmeticError("too large")

    torch_threads(4)  # one for each pair of candidate and fold
    on_training(short_tempered)
    params = {"max_epochs": 2, "random_state": 0, "device": "cpu"}
    search = TaskResClassifierCV(t, alphas=(0.5, 2), cv=2, **params)
    with pytest.warns(UserWarning, match=r"2 of 4 pairs .* ArithmeticError\('too large'\)"):
        scores = clone(search).fit(X, y).cv_results_["mean_test_score"]
    assert np.isnan(scores).tolist() == [False, True]
    too_large = 0
    with pytest.raises(ArithmeticError, match="too large"):
        search.fit(X, y)


def test_candidates_that_diverge_leave_the_one_that_can_not():
    """The search goes on with alpha = 0, and one warning tells of the others."""
    X, y, t = problem()
    params = {"lr": 1e300, "max_epochs": 3, "cv": 2, "random_state": 0}
    search = TaskResClassifierCV(t, alphas=(0, 0.5, 2), **params)
    with pytest.warns(UserWarning, match=r"4 of 6 pairs .*Training diverged") as caught:
        search.fit(X, y)
    assert len(caught) == 1
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True, True]
    assert search.best_params_["alpha"] == 0
    assert_array_equal(search.predict(X), ZeroShotClassifier(t).fit(X, y).predict(X))


def test_an_interrupted_refit_leaves_the_former_search(on_training):
    """Ctrl-C when all candidates are scored, and the best one begins to be trained."""
    X, y, t = problem()
    params = {"alphas": (0.5,), "max_epochs": 2, "cv": 2, "random_state": 0, "device": "cpu"}
    search = TaskResClassifierCV(t, **params).fit(X, y)
    former, best, n_trained = search.cv_results_, search.best_estimator_, []

    def interrupt(_):
        n_trained.append(1)
        if len(n_trained) == 3:  # two folds were first
            raise KeyboardInterrupt

    on_training(interrupt)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X[::-1], y[::-1])
    assert search.cv_results_ is former
    assert search.best_estimator_ is best


def test_out_of_memory_falls_back_to_smaller_chunks(torch_threads, on_training):
    """Chunks are halved, with one warning, until they fit; one candidate that does not is it."""
    X, y, t = problem()
    search = TaskResClassifierCV(t, max_epochs=5, cv=2, scoring=FINE, random_state=0)
    torch_threads(1)
    whole, room = clone(search).fit(X, y), 1

    def short_of_memory(alphas):
        if len(alphas) > room:
            raise torch.OutOfMemoryError

    on_training(short_of_memory)
    with pytest.warns(UserWarning, match="no memory for 5 candidates at a time") as caught:
        parts = clone(search).fit(X, y)
    assert len(caught) == 1
    assert_allclose(
        parts.cv_results_["mean_test_score"], whole.cv_results_["mean_test_score"], **EXACT
    )
    assert_array_equal(parts.residual_, whole.residual_)
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        clone(search).set_params(alphas=[1]).fit(X, y)


def test_folds_by_default():
    """As many stratified folds as the smallest class has images, at most 5."""
    X, y, t = problem()
    for n_rows, n_folds in [(60, 5), (12, 3), (23, 5), (9, 2)]:
        search = TaskResClassifierCV(t, alphas=[0.5], max_epochs=2)
        assert search.fit(X[:n_rows], y[:n_rows]).n_splits_ == n_folds
    default, five = (TaskResClassifierCV(t, cv=cv, scoring=FINE, max_epochs=2) for cv in (None, 5))
    for name in ("split0_test_score", "split4_test_score"):
        first, second = (search.fit(X, y).cv_results_[name] for search in (default, five))
        assert_array_equal(first, second)
    weight = (np.arange(60) < 12) * 1.0  # the others are as good as left out
    weighted = TaskResClassifierCV(t, max_epochs=5, lr=0.1).fit(X, y, sample_weight=weight)
    part = TaskResClassifierCV(t, max_epochs=5, lr=0.1).fit(X[:12], y[:12])
    assert_allclose(
        weighted.cv_results_["mean_test_score"], part.cv_results_["mean_test_score"], **EXACT
    )


@pytest.mark.parametrize(("alphas", "alpha"), [([0, 0.5, 1], 0.5), ([2, 1], 1)])
def test_one_image_leaves_nothing_to_search_on(alphas, alpha):
    """If a class has one image the paper's alpha is taken, else the first, and it is said."""
    X, y, t = problem(noise=0.1)
    search = TaskResClassifierCV(t, alphas=sorted(alphas), max_epochs=5)
    with pytest.warns(UserWarning, match="Some class has one image") as caught:
        search.fit(X[:7], y[:7])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert search.alpha_ == search.best_params_["alpha"] == alpha
    assert search.n_splits_ == 0
    assert np.isnan(search.best_score_)


def test_auto_is_resolved_on_all_rows():
    """Folds of a 5-shot task have 4 images per class and still get its 200 epochs."""
    X, y, t = problem(n_rows=20)
    auto = TaskResClassifierCV(t, alphas=[0.5], scoring=FINE).fit(X, y)
    assert auto.n_iter_ == 200
    given = TaskResClassifierCV(t, alphas=[0.5], scoring=FINE, max_epochs=200, lr=2e-3).fit(X, y)
    assert auto.best_score_ == given.best_score_


def test_groups_reach_the_splitter():
    """Groups are an argument of fit, and routed if a meta-estimator is asked to."""
    X, y, t = problem()
    groups, cv = np.arange(60) // 6, GroupKFold(3)
    ours, theirs = both(X, y, base=t, cv=cv, scoring=FINE, fit={"groups": groups})
    assert_equal_searches(ours, theirs, X)
    with sklearn.config_context(enable_metadata_routing=True):
        search = clone(ours).set_fit_request(groups=True)
        pipe = Pipeline([("same", FunctionTransformer()), ("taskres", search)])
        assert pipe.fit(X, y, groups=groups)["taskres"].best_score_ == ours.best_score_


@pytest.mark.parametrize("scoring", [None, "scorer"])
def test_weights_go_into_the_scores_where_they_are_routed(scoring):
    """With routing a score is weighted if scorer or classifier ask for it."""
    X, y, t = problem()
    params = {"max_epochs": 15, "lr": 0.02, "random_state": 0}
    with sklearn.config_context(enable_metadata_routing=True):
        if scoring == "scorer":
            scoring = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        clf = TaskResClassifier(t, **params).set_fit_request(sample_weight=True)
        clf.set_score_request(sample_weight=True)
        theirs = GridSearchCV(clf, GRID, cv=3, scoring=scoring).fit(X, y, sample_weight=WEIGHTS)
        lists = {OURS[name]: values for name, values in GRID.items()}
        ours = TaskResClassifierCV(t, cv=3, scoring=scoring, **lists, **params)
        ours.set_score_request(sample_weight=True).fit(X, y, sample_weight=WEIGHTS)
        unweighted = TaskResClassifierCV(t, cv=3, **lists, **params)
        unweighted.fit(X, y, sample_weight=WEIGHTS)
    assert_equal_searches(ours, theirs, X)
    assert unweighted.best_score_ != ours.best_score_


def test_labels_reach_the_scorer():
    """Scorers see the labels of y and a classifier with predict and decision_function."""
    X, y, t = problem(n_classes=2, n_rows=20)
    labels = np.array(["cat", "dog"])[y]

    def recall_of_dogs(clf, X, y):
        assert clf.decision_function(X).ndim == 1
        return np.mean(clf.predict(X)[y == "dog"] == "dog")

    for scoring in (recall_of_dogs, "roc_auc"):
        ours, theirs = both(X, labels, base=t, scoring=scoring)
        assert_equal_searches(ours, theirs, X)


def test_it_is_a_fitted_taskres():
    """Classes can be selected and added, copies and pickles predict the same."""
    X, y, t = problem()
    search = TaskResClassifierCV(t, max_epochs=15, lr=0.02, random_state=0).fit(X, y)
    assert isinstance(search.best_estimator_, TaskResClassifier)
    assert search.history_ is search.best_estimator_.history_
    assert search.alpha_ == search.best_params_["alpha"]
    assert search.rename_classes({0: 9}).classes_.tolist()[-1] == 9
    assert search.remove_classes([1]).classes_.tolist() == [*search.classes_.tolist()[:1], 2, 3]
    part = search.select_classes([0, 2, 3])
    assert_array_equal(part.decision_function(X), search.decision_function(X)[:, [0, 2, 3]])
    assert search.add_classes({9: t[0]}).classes_.tolist() == [0, 1, 2, 3, 9]
    restored = pickle.loads(pickle.dumps(search))  # noqa: S301
    assert_array_equal(restored.predict_proba(X), search.predict_proba(X))
    assert b"torch" not in pickle.dumps(search)
    assert repr(clone(search)) == repr(search)


def test_data_frames_are_sliced():
    """Rows of a DataFrame with names become the folds', and the names are kept."""
    import pandas as pd

    X, y, t = problem()
    frame = pd.DataFrame(X, columns=[f"e{i}" for i in range(12)], index=np.arange(60)[::-1])
    params = {"cv": 3, "max_epochs": 5, "scoring": FINE}
    named = TaskResClassifierCV(t, **params).fit(frame, pd.Series(y, index=frame.index))
    assert named.best_score_ == TaskResClassifierCV(t, **params).fit(X, y).best_score_
    assert named.feature_names_in_.tolist() == frame.columns.tolist()


def test_inside_other_estimators():
    """A search is a step of a pipeline, is cross-validated, and is itself searched."""
    X, y, t = problem()
    search = TaskResClassifierCV(t, cv=2, max_epochs=5, lr=0.02)
    pipe = Pipeline([("same", FunctionTransformer()), ("taskres", search)])
    scores = cross_val_score(pipe, X, y, cv=3)
    nested = GridSearchCV(
        TaskResClassifier(t, max_epochs=5, lr=0.02), {"alpha": search.alphas}, cv=2
    )
    assert_array_equal(scores, cross_val_score(nested, X, y, cv=3))
    outer = GridSearchCV(search, {"base_norm": [1.0, 3.0]}, cv=2).fit(X, y)
    assert outer.best_estimator_.alpha_ in search.alphas


def test_without_refit():
    """refit=False searches, and says that it can't predict."""
    X, y, t = problem()
    search = TaskResClassifierCV(t, cv=2, max_epochs=5)
    best = search.fit(X, y).best_params_
    search.set_params(refit=False).fit(X, y)
    assert search.best_params_ == best
    with pytest.raises(sklearn.exceptions.NotFittedError, match="searched with refit=False"):
        search.predict(X)
    with pytest.raises(sklearn.exceptions.NotFittedError, match="not fitted yet"):
        sklearn.base.clone(search).predict(X)


class Counter(Callback):
    """Counts the fits that it watches, on the class since fit clones it."""

    fits = 0

    def on_train_begin(self, net, **kwargs):
        type(self).fits += 1


def test_callbacks_watch_each_fit():
    """With callbacks candidates are trained one by one, with the same result."""
    X, y, t = problem()
    Counter.fits = 0
    params = {"alphas": [0, 1], "cv": 3, "max_epochs": 3, "scoring": FINE}
    watched = TaskResClassifierCV(t, callbacks=[Counter()], **params).fit(X, y)
    assert Counter.fits == 2 * 3 + 1
    assert_allclose(
        watched.cv_results_["mean_test_score"],
        TaskResClassifierCV(t, **params).fit(X, y).cv_results_["mean_test_score"],
        **EXACT,
    )


def test_no_seed_gives_candidates_the_same_batches():
    """random_state=None draws one seed a fit, so that candidates differ in their settings alone."""
    X, y, t = problem()
    params = {"alphas": [0.5] * 3, "cv": 2, "batch_size": 8, "max_epochs": 5, "refit": False}
    first, second = (
        TaskResClassifierCV(t, scoring=FINE, **params).fit(X, y).cv_results_["mean_test_score"]
        for _ in range(2)
    )
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]


def test_zero_shot_is_a_candidate():
    """If training can only harm, alpha = 0 wins, and the classifier is zero-shot's."""
    X, y, t = problem()
    shuffled = np.random.default_rng(0).permutation(y)
    cv = [(np.arange(30), np.arange(30, 60))]
    mixed = np.where(np.arange(60) < 30, shuffled, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zero-shot is at chance on these labels
        search = TaskResClassifierCV(t, cv=cv, lr=0.5, max_epochs=30).fit(X, mixed)
    assert search.alpha_ == 0
    zero_shot = ZeroShotClassifier(t).fit(X, y)
    assert_array_equal(search.decision_function(X), zero_shot.decision_function(X))


def test_progress_and_epochs_are_shown_on_request(capsys):
    """verbose=1 shows a bar over the folds and the epochs of the refit, verbose=0 nothing."""
    X, y, t = problem()
    TaskResClassifierCV(t, cv=2, max_epochs=2).fit(X, y)
    assert capsys.readouterr() == ("", "")
    TaskResClassifierCV(t, cv=2, max_epochs=2, verbose=1).fit(X, y)
    out, err = capsys.readouterr()
    assert "searching: 100%" in err
    assert out.count("train_loss") == 1


def test_the_whole_warns_once():
    """What is wrong with all rows is said once, not for each fold and candidate."""
    X, y, t = problem()
    unit_rows = t / np.linalg.norm(t, axis=1, keepdims=True)
    with pytest.warns(UserWarning, match="rows of base have unit norm") as caught:
        TaskResClassifierCV(unit_rows, cv=3, max_epochs=2).fit(X, y)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alphas": []}, "alphas is empty"),
        ({"alphas": [-1.0]}, "'alpha' parameter of TaskResClassifier must be"),
        ({"weight_decays": ["x"]}, "'weight_decay' parameter of TaskResClassifier must be"),
        ({"alphas": 0.5}, "'alphas' parameter of TaskResClassifierCV must be"),
        ({"learn_alpha": True}, "Leave 0 out of alphas"),
        ({"enhanced_bases": [True]}, "enhanced_base=True tunes a CLIP's text projection"),
        ({"scoring": "nope"}, "'scoring' parameter of TaskResClassifierCV must be"),
    ],
)
def test_bad_searches_are_refused(params, message):
    """What can't be searched is named before anything is trained."""
    X, y, t = problem()
    with pytest.raises(ValueError, match=message):
        TaskResClassifierCV(t, **{"cv": 2, "max_epochs": 2, **params}).fit(X, y)


def test_every_device_searches_the_same(device):
    """A search on any device gives the CPU's scores to float precision."""
    X, y, t = problem(dtype=np.float32)
    params = {"cv": 3, "batch_size": 16, "max_epochs": 10, "random_state": 0, "scoring": FINE}
    here, cpu = (
        TaskResClassifierCV(t, device=name, **params).fit(X, y) for name in (device, "cpu")
    )
    assert_allclose(
        here.cv_results_["mean_test_score"], cpu.cv_results_["mean_test_score"], rtol=1e-3
    )
