"""Classifiers that leave the package predict the same: as plain scikit-learn, ONNX, and data."""

import copy
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pytest
import skl2onnx
from local_hub import running_hub
from measure_dtd import DTD
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import sklearn_taskres
from sklearn_taskres import (
    CLAPClassifier,
    CLIPAdapterClassifier,
    CLIPFeaturizer,
    GDAClassifier,
    LinearProbeClassifier,
    ModelUnavailableError,
    ProLIPClassifier,
    TaskResClassifier,
    TaskResClassifierCV,
    TaskResGDAClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
    make_taskres_pipeline,
)
from sklearn_taskres.export import export_onnx, from_hub, push_to_hub, to_sklearn
from sklearn_taskres.export._data import _CLASSES

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def data(n_classes=4, dtype=np.float32):
    rng = np.random.default_rng(0)
    base = rng.normal(scale=0.44, size=(n_classes, 12))
    y = np.arange(8 * n_classes) % n_classes
    X = base[y] + rng.normal(scale=0.5, size=(len(y), 12))
    return base.astype(dtype), X.astype(dtype), y


def classifiers(base):
    short = {"max_epochs": 3, "random_state": 0}
    return {
        "taskres": TaskResClassifier(base, **short),
        "taskres and gaussian": TaskResGDAClassifier(base, **short),
        "search": TaskResClassifierCV(base, alphas=(0, 0.5), **short),
        "zero-shot": ZeroShotClassifier(base),
        "probe": LinearProbeClassifier(),
        "raw probe": LinearProbeClassifier(normalize=False),
        "text adapter": CLIPAdapterClassifier(base, branch="text", **short),
        "gda": GDAClassifier(base, random_state=0),
        "clap": CLAPClassifier(base, **short),
    }


LINEAR = list(classifiers(None))


# plain scikit-learn ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", LINEAR)
def test_plain_scikit_learn_predicts_the_same(kind, dtype, n_classes):
    """Labels and probabilities are the classifier's, and no step is of this package."""
    base, X, y = data(n_classes, dtype)
    clf = classifiers(base)[kind].fit(X, np.array(sorted(NAMES))[y])
    plain = to_sklearn(clf)
    assert_allclose(plain.predict_proba(X), clf.predict_proba(X), atol=1e-6)
    assert_array_equal(plain.predict(X), clf.predict(X))
    assert all(type(step).__module__.startswith("sklearn.") for step in plain)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-6), (np.float64, 1e-10)])
@pytest.mark.parametrize("method", [TaskResClassifier, GDAClassifier, TaskResGDAClassifier])
def test_plain_scikit_learn_predicts_the_same_on_real_embeddings(method, dtype, bound, test_data):
    """The large weights of a Gaussian classifier, and rows of float32, among them."""
    dtd = DTD(test_data)
    clf = method(dtd.base.astype(dtype), random_state=0).fit(dtd.X.astype(dtype), dtd.y)
    X, plain = dtd.X_test.astype(dtype), to_sklearn(clf)
    assert_allclose(plain.predict_proba(X), clf.predict_proba(X), rtol=0, atol=bound)
    assert_array_equal(plain.predict(X), clf.predict(X))


@pytest.mark.parametrize("kind", ["taskres", "gda"])
def test_skl2onnx_takes_it(kind):
    """What comes out of it is what other tools know."""
    base, X, y = data()
    clf = classifiers(base)[kind].fit(X, y)
    converted = skl2onnx.to_onnx(to_sklearn(clf), X[:1], options={"zipmap": False})
    session = onnxruntime.InferenceSession(converted.SerializeToString())
    labels, probabilities = session.run(None, {"X": X})
    assert_array_equal(labels, clf.predict(X))
    assert_allclose(probabilities, clf.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    ("clf", "match"),
    [
        (ProLIPClassifier, "ProLIPClassifier scales image rows to unit norm after its map"),
        (TipAdapterClassifier, "TipAdapterClassifier compares each image with the training images"),
        (CLIPAdapterClassifier, "CLIPAdapterClassifier with branch='image' passes image rows"),
        (
            lambda base: TaskResClassifier(base, residual="image", max_epochs=3),
            "TaskResClassifier with residual='image' moves the image rows",
        ),
        (lambda base: StandardScaler(), "Only classifiers of sklearn_taskres.* Got StandardScaler"),
    ],
)
def test_what_is_not_linear_is_refused_by_name(clf, match):
    """Nothing approximate leaves."""
    base, X, y = data()
    with pytest.raises(TypeError, match=match):
        to_sklearn(clf(base).fit(X, y))


def test_what_is_not_fitted_is_refused(tmp_path):
    """By each way out."""
    clf = TaskResClassifier()
    with pytest.raises(NotFittedError):
        to_sklearn(clf)
    with pytest.raises(NotFittedError):
        push_to_hub(clf, tmp_path)
    with pytest.raises(NotFittedError):
        export_onnx(make_pipeline(CLIPFeaturizer("glyph-clip"), clf), tmp_path / "x.onnx")


# ONNX -----------------------------------------------------------------------------------------

SNIPPET = Path(__file__).parent.parent / "docs" / "guide" / "saving.rst"


@pytest.fixture(scope="module")
def digits():
    digits = load_digits()
    images = np.rint(digits.images[:140] / 16 * 255).astype(np.uint8)
    return images, np.array(NAMES)[digits.target[:140]]


@pytest.fixture(scope="module")
def pipeline(digits):
    images, y = digits
    model = make_taskres_pipeline("glyph-clip", max_epochs=20, random_state=0, cache="memory")
    return model.fit(images[:40], y[:40])


def run(code, *arguments):
    """Run code in a fresh interpreter where neither torch nor this package can be imported."""
    forbid = """
    import sys
    class Forbid:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {"torch", "open_clip", "sklearn_taskres"}:
                raise ImportError(f"{name} is forbidden here")
    sys.meta_path.insert(0, Forbid())
    """
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-W", "error", "-c", textwrap.dedent(forbid) + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(arguments[0]).parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def documented_lines():
    """The lines of the user guide that make pixels and ask the graph."""
    text = SNIPPET.read_text(encoding="utf-8")
    block = re.search(r"\.\. code-block:: python\n   :name: onnx-client\n\n(.*?)\n\S", text, re.S)
    return textwrap.dedent(block[1])


@pytest.mark.model
@pytest.mark.parametrize("shape", [(8, 8), (40, 90), (300, 200)])
def test_the_documented_lines_predict_as_the_pipeline(shape, pipeline, digits, tmp_path):
    """100 files through NumPy, Pillow and ONNX Runtime: the pipeline's probabilities to 1e-4."""
    from PIL import Image

    export_onnx(pipeline, tmp_path / "model.onnx")
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(digits[0][40:140]):
        Image.fromarray(image).resize(shape[::-1]).convert("RGB").save(folder / f"{i:03}.jpg")
    code = documented_lines() + textwrap.dedent("""
        import glob, json
        paths = sorted(glob.glob(sys.argv[2] + "/*.jpg"))
        print(json.dumps([classes, predict_proba(paths).tolist()]))
    """)
    classes, probabilities = json.loads(run(code, str(tmp_path / "model.onnx"), str(folder)))
    paths = sorted(map(str, folder.iterdir()))
    expected = pipeline.set_params(clip__precision="float32").predict_proba(paths)
    assert classes == pipeline.classes_.tolist()
    assert_allclose(probabilities, expected, atol=1e-4)


@pytest.mark.model
def test_what_all_classes_have_in_common_costs_no_digits(pipeline, tmp_path):
    """Ten thousand more in every weight change no probability; float32 sums would lose them."""
    from PIL import Image

    model = copy.deepcopy(pipeline).set_params(clip__precision="float32")
    model[-1].coef_ = model[-1].coef_ + np.float32(1e4)
    export_onnx(model, tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, size=(20, 32, 32, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    probabilities = session.run(None, {"pixels": pixels})[0]
    expected = model.predict_proba([Image.fromarray(image) for image in pixels])
    assert_allclose(probabilities, expected, rtol=0, atol=1e-4)


@pytest.mark.model
def test_metadata_says_what_it_is(pipeline, tmp_path):
    """Classes, preprocessing, version and opset stand in the file; the batch has any size."""
    export_onnx(pipeline, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == sorted(NAMES)
    assert json.loads(about["preprocessing"])["size"] == 32
    assert {"sklearn_taskres", "opset", "model"} <= set(about)
    (pixels,) = session.get_inputs()
    assert (pixels.name, pixels.shape, pixels.type) == (
        "pixels",
        ["n_images", 32, 32, 3],
        "tensor(uint8)",
    )
    for n in (1, 7):
        (rows,) = session.run(None, {"pixels": np.zeros((n, 32, 32, 3), dtype=np.uint8)})
        assert rows.shape == (n, 10)


@pytest.mark.filterwarnings("ignore:Zero-shot")  # weights are random
@pytest.mark.model
def test_an_image_residual_and_unit_rows_are_in_the_graph(digits, tmp_path, tiny_clip):
    """What moves or scales the rows is exported with the rest."""
    images, y = digits
    for params in ({"residual": "both"}, {"clip__normalize": True}):
        model = make_taskres_pipeline(tiny_clip, None, max_epochs=5, random_state=0).set_params(
            taskres__logit_scale=5, clip__precision="float32"
        )
        prefixed = {k if "__" in k else f"taskres__{k}": v for k, v in params.items()}
        model.set_params(**prefixed).fit(list(images[:40]), y[:40])
        export_onnx(model, tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        encoder = model["clip"]._encoder()
        from PIL import Image

        pixels = [encoder.preprocess(Image.fromarray(i).convert("RGB")) for i in images[:20]]
        (rows,) = session.run(None, {"pixels": np.stack(pixels)})
        assert_allclose(rows, model.predict_proba(list(images[:20])), atol=1e-4)


def test_a_custom_transformer_is_refused(tmp_path):
    """It would be left out of the graph."""
    base, X, y = data()
    clf = TaskResClassifier(base, max_epochs=3).fit(X, y)
    for steps in ([CLIPFeaturizer("glyph-clip"), FunctionTransformer()], [FunctionTransformer()]):
        with pytest.raises(TypeError, match="The pipeline has a FunctionTransformer, which can't"):
            export_onnx(make_pipeline(*steps, clf), tmp_path / "x.onnx")
    with pytest.raises(TypeError, match="takes a pipeline of CLIPFeaturizer and a classifier"):
        export_onnx(clf, tmp_path / "x.onnx")


# the hub --------------------------------------------------------------------------------------


def test_every_estimator_can_be_written():
    """A new one is not forgotten; a search is written as what it found."""
    public = {getattr(sklearn_taskres, name) for name in sklearn_taskres.__all__ if name[0] != "_"}
    estimators = {kind for kind in public if hasattr(kind, "get_params")}
    searches = {sklearn_taskres.TaskResClassifierCV}
    assert {kind.__name__ for kind in estimators - searches} == _CLASSES


def test_a_class_of_a_users_own_is_refused(tmp_path):
    """A namesake of ours would be read as ours, and predict something else."""
    base, X, y = data()
    namesake = type("TaskResClassifier", (TaskResClassifier,), {})
    with pytest.raises(TypeError, match="Only estimators of sklearn_taskres can be written"):
        push_to_hub(namesake(base, max_epochs=3).fit(X, y), tmp_path)


@pytest.mark.parametrize("kind", [*LINEAR, "tip", "image adapter", "prolip"])
def test_the_hub_gives_back_the_same_predictions(kind, tmp_path):
    """Every method comes back to the bit, from a local folder."""
    base, X, y = data()
    others = {
        "tip": TipAdapterClassifier(base),
        "image adapter": CLIPAdapterClassifier(base),
        "prolip": ProLIPClassifier(base, max_epochs=3),
    }
    clf = {**classifiers(base), **others}[kind].fit(X, np.array(sorted(NAMES))[y])
    push_to_hub(clf, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "README.md",
        "head.safetensors",
        "sklearn_taskres.json",
    }
    loaded = from_hub(tmp_path)
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert_array_equal(loaded.predict(X), clf.predict(X))
    assert loaded.classes_.dtype == clf.classes_.dtype
    if hasattr(clf, "select_classes") and kind != "search":
        some = clf.classes_[:2]
        expected = clf.select_classes(some).predict_proba(X)
        assert_array_equal(loaded.select_classes(some).predict_proba(X), expected)
    if kind.startswith("taskres"):
        more = {"ten": np.ones(12)}
        expected = clf.add_classes(more).predict_proba(X)
        assert_array_equal(loaded.add_classes(more).predict_proba(X), expected)


def test_a_repository_that_is_not_there():
    """One sentence, with the reason, in place of the hub's traceback."""
    with pytest.raises(
        ModelUnavailableError, match=r"'no/thing' is not in the cache .* HF_HUB_OFF"
    ):
        from_hub("no/thing")


@pytest.mark.model
def test_a_pipeline_comes_back_without_the_machine(pipeline, digits, tmp_path):
    """The model is named, the cache and the device of the machine that wrote it are not."""
    cache = str(tmp_path / "secret place")
    written = pipeline.set_params(clip__cache=cache)
    push_to_hub(written, str(tmp_path / "out"), accuracy=0.87, images_per_class=4)
    loaded = from_hub(str(tmp_path / "out"))
    images = list(digits[0][:20])
    assert_array_equal(loaded.predict_proba(images), pipeline.predict_proba(images))
    assert loaded["clip"].cache == "memory"
    text = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"secret place" not in text
    card = (tmp_path / "out" / "README.md").read_text()
    for known in ("'glyph-clip'", "10: eight, five", "| images per class | 4 |", "87.0%"):
        assert known in card
    pipeline.set_params(clip__cache="memory")


@pytest.mark.parametrize("file", ["head.safetensors", "sklearn_taskres.json"])
def test_a_tampered_file_is_refused(file, tmp_path):
    """One changed byte of either."""
    base, X, y = data()
    push_to_hub(TaskResClassifier(base, max_epochs=3).fit(X, y), tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    at = content.index(b'"alpha"') + 9 if file.endswith("json") else len(content) - 3
    content[at] = ord("3") if content[at] != ord("3") else ord("4")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is not what was written|is not an export"):
        from_hub(tmp_path)


def test_a_model_does_not_choose_cache_and_device(tmp_path):
    """A file may name them; they stay what they are by default."""
    base, X, y = data()
    push_to_hub(TaskResClassifier(base, max_epochs=3).fit(X, y), tmp_path)
    evil = {"device": "cuda:7", "verbose": 3}
    rewritten(tmp_path, lambda content: content["classifier"]["params"].update(evil))
    clf = from_hub(tmp_path)
    assert clf.device is None
    assert clf.verbose == 0


def rewritten(folder, change):
    """Change the JSON and sign it anew, as someone with intent would."""
    from sklearn_taskres.export._hub import _digest

    path = folder / "sklearn_taskres.json"
    content = json.loads(path.read_bytes())
    change(content)
    content["digest"] = _digest(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["classifier"].update({"class": "os.system"}),
        lambda c: c["classifier"].update({"class": "Pipeline"}),
        lambda c: c["classifier"]["fitted"].update({"__class__": 3}),
        lambda c: c["classifier"]["fitted"].update({"predict": 3}),
        lambda c: c["classifier"]["params"].update({"no_such": 3}),
        lambda c: c["classifier"]["fitted"].update({"coef_": {"array": "nowhere"}}),
        lambda c: c["classifier"]["fitted"].update({"coef_": {"pickle": "gASV"}}),
        lambda c: c["classifier"]["fitted"].update({"coef_": {"record": {}, "class": "object"}}),
        lambda c: c["classifier"]["fitted"].update({"coef_": {}}),
        lambda c: c.update({"classifier": []}),
        lambda c: c.update({"clip": c["classifier"]}),
        lambda c: c.update({"format": 99}),
    ],
)
def test_a_hostile_file_builds_nothing_else(change, tmp_path):
    """Only estimators of ours, with parameters and what a fit sets."""
    base, X, y = data()
    push_to_hub(TaskResClassifier(base, max_epochs=3).fit(X, y), tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(ValueError, match=r"does not hold a model|is not an export"):
        from_hub(tmp_path)


def test_a_folder_that_is_no_export(tmp_path):
    """It says which files it should have."""
    with pytest.raises(ValueError, match=r"not an export of sklearn_taskres, which has the files"):
        from_hub(tmp_path)
    (tmp_path / "sklearn_taskres.json").write_text("[]")
    (tmp_path / "head.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not an export that sklearn_taskres .* reads"):
        from_hub(tmp_path)


def test_what_is_not_data_is_refused(tmp_path):
    """Callbacks are code; the sentence names the parameter."""
    from skorch.callbacks import EpochTimer

    base, X, y = data()
    clf = TaskResClassifier(base, max_epochs=3, callbacks=[EpochTimer()]).fit(X, y)
    with pytest.raises(TypeError, match=r"TaskResClassifier.callbacks\[0\] is a EpochTimer, which"):
        push_to_hub(clf, tmp_path)


def test_a_repository_is_made_filled_and_read(tmp_path):
    """On the hub the same files go up, and what comes down predicts the same."""
    base, X, y = data()
    clf = TaskResClassifier(base, max_epochs=3).fit(X, y)
    joblib.dump((clf, X), tmp_path / "clf.joblib")
    code = (
        "import sys, joblib\n"
        "from sklearn_taskres.export import from_hub, push_to_hub\n"
        "clf, X = joblib.load(sys.argv[1])\n"
        "print(push_to_hub(clf, 'someone/thing'))\n"
        "print(from_hub('someone/thing').predict_proba(X).tolist())"
    )
    with running_hub() as hub:
        done = hub.run(code, str(tmp_path / "clf.joblib"), cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    address, probabilities = done.stdout.splitlines()
    assert address == f"{hub.address}/someone/thing"
    assert json.loads(probabilities) == clf.predict_proba(X).tolist()
    folder = tmp_path / "out"
    push_to_hub(clf, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.repositories == {"someone/thing": files}
    assert set(files) == {"README.md", "head.safetensors", "sklearn_taskres.json"}


def test_reading_needs_no_torch(tmp_path):
    """from_hub and prediction from embeddings work if torch can't be imported."""
    base, X, y = data()
    clf = TaskResClassifier(base, max_epochs=3).fit(X, y)
    push_to_hub(clf, tmp_path / "out")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, numpy as np\n"
        "from sklearn_taskres.export import from_hub\n"
        f"print(from_hub({str(tmp_path / 'out')!r}).predict(np.load({str(tmp_path / 'X.npy')!r}))"
        ".tolist())\n"
        "assert not {'torch', 'open_clip', 'skorch'} & set(sys.modules)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert json.loads(done.stdout) == clf.predict(X).tolist()
