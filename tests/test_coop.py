"""CoOp against a naive loop through open_clip's own tower, and what its parts promise."""

import functools
import pickle
import subprocess
import sys

import joblib
import numpy as np
import open_clip
import pytest
import torch
from coop_stand_in import CoOpOnClassMeans
from naive import naive_batches, naive_lr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    CoOpClassifier,
    ZeroShotClassifier,
    sample_few_shot,
)
from sklearn_taskres._classifiers.training import auto_max_epochs
from sklearn_taskres._clip.backends.torch.encoder import load_encoder

NAMES = ["ant", "great_white_shark", "cat", "zebra fish"]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
MIDDLE = {"class_token_position": "middle"}

pytestmark = pytest.mark.filterwarnings("ignore:Zero-shot:UserWarning")  # random CLIPs, at chance


def task(name, n_rows=24, n_views=None, seed=0):
    """Text base of a CLIP, and images around its class embeddings, in float64."""
    text = CLIPTextFeaturizer(name)
    t = text.transform(NAMES).astype(np.float64)
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % 4
    shape = (n_rows, t.shape[1]) if n_views is None else (n_rows, n_views, t.shape[1])
    rows = t[y] if n_views is None else t[y][:, None]
    return text, rows + rng.normal(scale=np.abs(t).mean(), size=shape), y


def coop(text, **params):
    params = {"n_context": 3, "max_epochs": 3, "lr": 0.1, "random_state": 7} | params
    return CoOpClassifier(text, class_names=NAMES, **params)


@pytest.fixture
def small(tiny_clip):
    """A task of a tiny CLIP of open_clip's first family."""
    return task(tiny_clip)


# reference ------------------------------------------------------------------------------------


def naive_tower(model, tokenizer, names, context, position):
    """Class embeddings of open_clip's tower run by hand on whole prompts with X's replaced."""
    tower = getattr(model, "text", model)
    K, M = len(names), context.shape[-2]
    filler = " ".join(["X"] * M)
    tokens = tokenizer([f"{filler} {name}." for name in names])
    E = tower.token_embedding(tokens)
    rows = []
    for k in range(K):
        v = context if context.ndim == 2 else context[k]
        n = len(tokenizer.encode(names[k]))
        start, name, end = E[k, :1], E[k, 1 + M : 1 + M + n], E[k, 1 + M + n :]
        half = M // 2 if position == "middle" else M
        rows.append(torch.cat([start, v[:half], name, v[half:], end]))
    h = torch.stack(rows) + tower.positional_embedding
    for block in tower.transformer.resblocks:
        h = block(h, attn_mask=tower.attn_mask)
    h = tower.ln_final(h)
    is_last = getattr(tower, "pool_type", "argmax") == "last"
    h = h[:, -1] if is_last else h[torch.arange(K), tokens.argmax(dim=1)]
    P = tower.text_projection
    return P(h) if callable(P) else h if P is None else h @ P


def naive_coop(g, X, y, context, rng, *, lr, n_epochs, batch_size, scale, weight=None):
    """Train the context by plain autograd; return it and the classifier."""
    v = torch.tensor(context, requires_grad=True)
    weight = torch.ones(len(y)) if weight is None else torch.tensor(weight / np.mean(weight))
    sgd = torch.optim.SGD([v], lr=lr, momentum=0.9, weight_decay=5e-4)
    for epoch in range(n_epochs):
        sgd.param_groups[0]["lr"] = naive_lr(epoch, n_epochs, lr)
        Z = X if X.ndim == 2 else X[np.arange(len(y)), rng.randint(X.shape[1], size=len(y))]
        f = torch.nn.functional.normalize(torch.tensor(Z), dim=1)
        for rows in naive_batches(len(y), batch_size, rng):
            logits = scale * f[rows] @ torch.nn.functional.normalize(g(v), dim=1).T
            loss = torch.nn.functional.cross_entropy(
                logits, torch.tensor(y[rows]), reduction="none"
            )
            sgd.zero_grad()
            (weight[rows] * loss).mean().backward()
            sgd.step()
    return v.detach().numpy(), scale * torch.nn.functional.normalize(g(v), dim=1).detach().numpy()


@pytest.fixture(scope="module", params=["vit", "custom_text", "siglip", "no_projection"])
def double_clip(request, clip_writer, tmp_path_factory):
    """A CLIP that this file has for itself, in float64 in this process."""
    write, configs = clip_writer
    name = write(tmp_path_factory.mktemp(request.param), configs[request.param], seed=3)
    load_encoder(name, None).model.double()
    return name


@pytest.mark.parametrize(
    ("class_specific", "position", "extra"),
    [
        (False, "end", "nothing"),
        (True, "middle", "nothing"),
        (True, "end", "views"),
        (False, "middle", "weights"),
    ],
)
def test_equals_the_naive_loop(double_clip, class_specific, position, extra):
    """Context and classifier are the naive loop's, over whole prompts, in float64."""
    text, X, y = task(double_clip, n_views=3 if extra == "views" else None)
    weight = np.linspace(0.5, 2, len(y)) if extra == "weights" else None
    clf = coop(
        text,
        class_specific=class_specific,
        class_token_position=position,
        batch_size=10,
        logit_scale=20,
    ).fit(X, y, sample_weight=weight)
    model = open_clip.create_model(double_clip).eval().requires_grad_(False).double()
    names = [name.replace("_", " ") for name in NAMES]
    tokenizer = open_clip.get_tokenizer(double_clip)
    rng = np.random.RandomState(7)
    start = rng.normal(0, 0.02, size=(4, 3, 12) if class_specific else (3, 12))
    context, coef = naive_coop(
        lambda v: naive_tower(model, tokenizer, names, v, position),
        X[:, 1:] if extra == "views" else X,
        y,
        start,
        rng,
        lr=0.1,
        n_epochs=3,
        batch_size=10,
        scale=20,
        weight=weight,
    )
    assert np.abs(context - start).max() > 1e-3
    assert_allclose(clf.context_, context, rtol=0, atol=1e-9)
    assert_allclose(clf.coef_, coef, rtol=0, atol=1e-8)
    assert clf.n_parameters_ == context.size
    assert len(clf.history_) == clf.n_iter_ == 3


# start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("family", ["vit", "resnet", "custom_text", "siglip", "no_projection"])
def test_no_step_from_words_is_the_zero_shot_of_the_words(make_clip, family, class_specific):
    """max_epochs=0 with "a photo of a" is the template "a photo of a {}.", in every family."""
    text, X, y = task(make_clip(family))
    clf = coop(text, context_init="a photo of a", max_epochs=0, class_specific=class_specific)
    clf.fit(X, y)
    zero_shot = ZeroShotClassifier(text, class_names=NAMES).fit(X, y)
    assert_allclose(clf.coef_, zero_shot.coef_, rtol=0, atol=1e-5)
    assert_allclose(clf.predict_proba(X), zero_shot.predict_proba(X), rtol=0, atol=1e-5)
    assert clf.context_.shape[-2] == 4
    assert clf.history_ == []
    assert clf.n_iter_ == 0


def test_the_middle_is_between_the_halves(small):
    """Around the name, "a photo of a" reads "a photo {} of a."."""
    text, X, y = small
    words = {"context_init": "a photo of a", "max_epochs": 0}
    clf = coop(text, **words, **MIDDLE)
    template = clone(text).set_params(templates="a photo {} of a.")
    zero_shot = ZeroShotClassifier(template, class_names=NAMES).fit(X, y)
    assert_allclose(clf.fit(X, y).coef_, zero_shot.coef_, rtol=0, atol=1e-5)


def test_underscores_are_read_as_the_base_reads_them(small):
    """replace_underscores of the base holds for the prompts, too."""
    text, X, y = small
    plain = clone(text).set_params(replace_underscores=False)
    words = {"context_init": "a photo of a", "max_epochs": 0}
    fits = [coop(base, **words).fit(X, y) for base in (text, plain)]
    # float32 sums of other neighbours in the batch: the scale makes rounding a few 1e-5
    assert_allclose(fits[0].coef_[[0, 2, 3]], fits[1].coef_[[0, 2, 3]], rtol=0, atol=1e-4)
    assert not np.allclose(fits[0].coef_[1], fits[1].coef_[1], atol=1e-3)


@pytest.mark.parametrize(
    ("n_images", "n_epochs"), [(1, 50), (2, 100), (4, 100), (5, 200), (8, 200), (16, 200)]
)
def test_automatic_epochs(n_images, n_epochs):
    """The median number of images per class decides, as published."""
    published = {"batch_size": None, "one": 50, "many": 200}
    assert auto_max_epochs(np.repeat([0, 1, 2], n_images), **published) == n_epochs
    y = np.repeat([0, 1, 2], [n_images, n_images, 99])
    assert auto_max_epochs(y, **published) == n_epochs


# the frozen tower -----------------------------------------------------------------------------


def test_the_shared_model_stays_as_it_is(small):
    """Training leaves weights, mode and gradients of the process's model alone."""
    text, X, y = small
    model = text._encoder().model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embedded = text._encoder().encode_texts(NAMES)
    coop(text).fit(X, y)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert_array_equal(text._encoder().encode_texts(NAMES), embedded)


def test_padding_is_not_computed(small):
    """Prompts end behind the longest one if nothing reads the padding."""
    text, _, _ = small
    tower = text.prompt_tower(["cat", "dog"], 3)
    assert tower._tokens.shape == (2, 7)  # start, 3 vectors, name, full stop, end


@pytest.mark.parametrize("family", ["coca"])
def test_other_towers_are_refused(make_clip, family):
    """A text tower with a class token of its own is refused, by the model's name."""
    text, X, y = task(make_clip(family))
    with pytest.raises(ValueError, match=r"can't be learned with 'local-dir:.*Use a model such as"):
        coop(text).fit(X, y)


@pytest.mark.parametrize(
    ("base", "what"),
    [("class_means", "'class_means'"), (np.eye(4, 16), "ndarray"), (np.eye(4).tolist(), "list")],
)
def test_a_base_without_a_tower_is_refused(small, base, what):
    """Arrays and class means have no text tower."""
    _, X, y = small
    with pytest.raises(ValueError, match=f"base must be a CLIPTextFeaturizer.* not {what}"):
        coop(base).fit(X, y)


def test_a_context_that_does_not_fit(small):
    """The error says how many vectors fit, and that many do."""
    text, X, y = small
    with pytest.raises(ValueError, match=r"reads 24 tokens.*room for at most (\d+)\.") as error:
        coop(text, n_context=30).fit(X, y)
    most = int(str(error.value).rpartition("most ")[2].rstrip("."))
    coop(text, n_context=most, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=f"{most + 1} context vectors do not fit"):
        coop(text, n_context=most + 1).fit(X, y)
    with pytest.raises(ValueError, match="holds no word"):
        coop(text, context_init=" ").fit(X, y)


@pytest.mark.model
def test_the_published_context_is_too_long_for_the_bundled_model():
    """With glyph-clip the default of 16 vectors ends in an error that names the largest number."""
    y = np.repeat(["one", "two"], 2)
    with pytest.raises(ValueError, match=r"'glyph-clip' reads 16 tokens.*room for at most 12"):
        CoOpClassifier(CLIPTextFeaturizer("glyph-clip")).fit(np.eye(4, 128), y)


# scikit-learn ---------------------------------------------------------------------------------


def test_one_seed_one_context(small):
    """The same seed gives the same arrays, another one others; clones are as good."""
    text, X, y = small
    clf = coop(text, batch_size=8).fit(X, y)
    assert_array_equal(clone(clf).fit(X, y).context_, clf.context_)
    assert not np.allclose(coop(text, random_state=8).fit(X, y).context_, clf.context_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_follow_the_images(small, dtype):
    """Context and classifier have the dtype of X, whatever the tower computes in."""
    text, X, y = small
    clf = coop(text).fit(X.astype(dtype), y)
    assert clf.context_.dtype == clf.coef_.dtype == clf.base_.dtype == dtype
    assert clf.predict_proba(X).dtype == np.float64


def test_weights_and_repeated_rows(small):
    """In one batch an integer weight is so many rows; a weight of 0 leaves the row out."""
    text, X, y = small
    weight = np.arange(24) % 3
    clf = coop(text, batch_size=64).fit(X, y, sample_weight=weight)
    repeated = coop(text, batch_size=64).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert_allclose(clf.context_, repeated.context_, rtol=0, atol=1e-6)
    assert not np.allclose(clf.context_, coop(text, batch_size=64).fit(X, y).context_, atol=1e-4)


def test_search_and_cross_validation(small):
    """n_context and a parameter of the base are searched; folds are scored."""
    text, X, y = small
    grid = {"n_context": [2, 5], "base__replace_underscores": [True, False]}
    search = GridSearchCV(coop(text, max_epochs=1), grid, cv=2).fit(X, y)
    assert search.best_estimator_.context_.shape == (search.best_params_["n_context"], 12)
    assert len(cross_val_score(coop(text, max_epochs=1), X, y, cv=3)) == 3


def test_selected_classes_keep_their_columns(small):
    """select_classes keeps logits, and the contexts of its classes if each has one."""
    text, X, y = small
    for class_specific in (False, True):
        clf = coop(text, class_specific=class_specific).fit(X, y)
        part = clf.select_classes([3, 0, 1])
        assert_array_equal(part.decision_function(X), clf.decision_function(X)[:, [0, 1, 3]])
        wanted = clf.context_[[0, 1, 3]] if class_specific else clf.context_
        assert_array_equal(part.context_, wanted)


def test_an_added_name_gets_the_learned_context(small):
    """A class added by the name of a known one gets its weights; an embedding stays what it is."""
    text, X, y = small
    clf = coop(text, **MIDDLE, context_init="a photo of a").fit(X, y)
    t = text.transform(["ox"])[0]
    grown = clf.add_classes({9: "zebra fish", -1: t, 8: "ant", 7: "cat"})
    assert grown.classes_.tolist() == [-1, 0, 1, 2, 3, 7, 8, 9]
    assert_array_equal(grown.coef_[1:5], clf.coef_)
    assert_allclose(grown.coef_[[5, 6, 7]], clf.coef_[[2, 0, 3]], rtol=0, atol=1e-5)
    assert_allclose(grown.coef_[0], clf.logit_scale_ * t / np.linalg.norm(t), rtol=1e-5)
    assert_allclose(grown.base_[[5, 6, 7]], clf.base_[[2, 0, 3]], rtol=1e-5)
    assert not np.allclose(clf.coef_, coop(text, max_epochs=0).fit(X, y).coef_, atol=1e-2)


def test_no_class_is_added_to_contexts_of_their_own(small):
    """If each class has learned its own context, a new one has none."""
    text, X, y = small
    clf = coop(text, class_specific=True).fit(X, y)
    with pytest.raises(ValueError, match="can't add classes without images: with class_specific"):
        clf.add_classes({9: "dog"})
    assert coop(text).fit(X, y).add_classes({9: "dog"}).classes_.tolist() == [0, 1, 2, 3, 9]


def test_a_pickle_predicts_without_torch(small, tmp_path):
    """A fitted classifier holds no tower, and predicts if any import of torch raises."""
    text, X, y = small
    clf = coop(text).fit(X, y)
    payload = pickle.dumps(clf)
    assert b"torch" not in payload
    assert len(payload) < 20_000
    joblib.dump((clf, X), tmp_path / "model.joblib")
    code = (
        "import sys\n"
        "class Forbid:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'torch', 'open_clip', 'skorch'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Forbid())\n"
        f"import joblib\n"
        f"clf, X = joblib.load({str(tmp_path / 'model.joblib')!r})\n"
        f"clf.select_classes([0, 2]).predict(X)\n"
        f"print(clf.predict(X).tolist())"
    )
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(clf.predict(X).tolist()), done.stderr


SMALL = {"base": "class_means", "n_context": 2, "max_epochs": 8, "lr": 0.05, "batch_size": 256}
NO_INTERCEPT = {
    "check_class_weight_classifiers": (
        "a cosine head has no intercept, so weights alone can't make it predict one class only"
    )
}
STAND_INS = [
    (CoOpOnClassMeans(**SMALL, random_state=0), NO_INTERCEPT),
    (CoOpOnClassMeans(**SMALL, class_specific=True, random_state=0), NO_INTERCEPT),
]


def expected_failures(estimator):
    return next(reasons for clf, reasons in STAND_INS if repr(clf) == repr(estimator))


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
@parametrize_with_checks([clf for clf, _ in STAND_INS], expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator, check):
    """With a stand-in for the tower CoOp keeps scikit-learn's contract."""
    check(estimator)


# digits ---------------------------------------------------------------------------------------


@functools.cache
def digits():
    data = load_digits()
    return CLIPFeaturizer("glyph-clip", cache=None).transform(data.images / 16), data.target


@pytest.mark.parametrize("n_shots", [8, 16])
@pytest.mark.model
def test_coop_gains_on_its_zero_shot(n_shots):
    """On real digits a short training is above the template, on all rows that it did not see.

    Five draws of the full training: measure_coop.py.
    """
    X, y = digits()
    text = CLIPTextFeaturizer("glyph-clip")
    train = sample_few_shot(y, n_shots, random_state=0)
    rest = np.setdiff1d(np.arange(len(y)), train)
    words = {"context_init": "a photo of a", "max_epochs": 60}
    clf = CoOpClassifier(text, class_names=DIGITS, random_state=0, **words)
    zero_shot = ZeroShotClassifier(text, class_names=DIGITS)
    ours, theirs = (m.fit(X[train], y[train]).score(X[rest], y[rest]) for m in (clf, zero_shot))
    assert ours > theirs + 0.005
