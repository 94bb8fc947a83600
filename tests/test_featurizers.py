"""The two featurizers as scikit-learn transformers: rows, kinds of input, errors, and prompts."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from sklearn_taskres import CLIPFeaturizer, CLIPTextFeaturizer
from sklearn_taskres._clip.backends.torch.encoder import load_encoder
from sklearn_taskres._clip.images import UnreadableImagesError
from sklearn_taskres._clip.prompts import TEMPLATES

BATCH_NOISE = {"rtol": 1e-5, "atol": 1e-5}
NAMES = ["tabby_cat", "great white shark", "stripes", "a dog", "zigzagged"]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture
def featurizer(tiny_clip):
    return CLIPFeaturizer(tiny_clip, batch_size=3, device="cpu")


@pytest.fixture
def text(tiny_clip):
    return CLIPTextFeaturizer(tiny_clip, batch_size=3, device="cpu")


@pytest.fixture(params=["images", "text"])
def wing(request, featurizer, text, images):
    """Each featurizer with something to transform."""
    return (featurizer, images) if request.param == "images" else (text, np.array(NAMES))


# both featurizers -----------------------------------------------------------------------------


def test_rows_are_float32_and_finite(wing):
    """A row of float32 for each item."""
    featurizer, X = wing
    rows = featurizer.fit_transform(X)
    assert rows.shape == (len(X), 16)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


def test_stateless(wing):
    """Transforming needs no fit, and fitting changes nothing."""
    featurizer, X = wing
    rows = featurizer.transform(X)
    check_is_fitted(featurizer)
    before = dict(vars(featurizer))
    assert_array_equal(featurizer.fit(X).transform(X), rows)
    assert vars(featurizer) == before


def test_clone_and_pickle(wing):
    """A clone and a pickled copy embed alike, and a pickle holds no weights."""
    featurizer, X = wing
    rows = featurizer.transform(X)
    pickled = pickle.dumps(featurizer)
    assert len(pickled) < 2000
    for copied in (clone(featurizer), pickle.loads(pickled)):  # noqa: S301 (our own)
        assert copied.get_params() == featurizer.get_params()
        assert_array_equal(copied.transform(X), rows)


@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_rows_do_not_depend_on_company(wing, data):
    """Order, subset, duplicates and batch size change no row beyond rounding."""
    featurizer, X = wing
    rows = featurizer.transform(X)
    index = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=9))
    batch_size = data.draw(st.integers(1, 10))
    some = clone(featurizer).set_params(batch_size=batch_size).transform(X[index])
    assert_allclose(some, rows[index], **BATCH_NOISE)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_relative_path_is_found_from_another_folder(kind, wing, tiny_clip, tmp_path, monkeypatch):
    """A pickle remembers where its files lay; the working folder comes first, parameters stay."""
    featurizer, X = wing
    folder = Path(tiny_clip.partition(":")[2])
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    shutil.copytree(folder, tmp_path / "here" / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Tiny-Test", config)
    names = {"file": ("ViT-Tiny-Test", "model/open_clip_model.safetensors")}
    model_name, pretrained = names.get(kind, ("local-dir:model", None))
    named = clone(featurizer).set_params(model_name=model_name, pretrained=pretrained, cache=None)
    monkeypatch.chdir(tmp_path / "here")
    expected, pickled = named.transform(X), pickle.dumps(named)
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(ValueError, match=r"no file .*there|there is none at .*there"):
        clone(named).transform(X)
    found = pickle.loads(pickle.dumps(pickle.loads(pickled)))  # noqa: S301 (our own)
    assert_array_equal(found.transform(X), expected)
    assert (found.model_name, found.pretrained) == (model_name, pretrained)


def test_a_tag_is_not_taken_for_a_file(tmp_path, monkeypatch):
    """A file called like a tag does not get into the pickle."""
    (tmp_path / "openai").touch()
    monkeypatch.chdir(tmp_path)
    assert b"_places" not in pickle.dumps(CLIPFeaturizer())


def test_the_model_is_described_by_what_decides():
    """`pretrained` is left out next to a name that says which weights."""
    assert CLIPTextFeaturizer("glyph-clip").describe_model() == "'glyph-clip'"
    assert CLIPTextFeaturizer().describe_model() == "'ViT-B-32', 'openai'"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output(wing, library):
    """Data frames have the feature names, and the same numbers."""
    pytest.importorskip(library)
    featurizer, X = wing
    frame = clone(featurizer).set_output(transform=library).fit_transform(X)
    assert type(frame).__module__.startswith(library)
    assert list(frame.columns) == list(featurizer.get_feature_names_out())
    assert_array_equal(frame.to_numpy(), featurizer.transform(X))


def test_feature_names(wing):
    """Features are named after the class, numbered, and known without weights."""
    featurizer, _ = wing
    prefix = type(featurizer).__name__.lower()
    expected = [f"{prefix}{i}" for i in range(16)]
    assert_array_equal(featurizer.get_feature_names_out(), expected)
    full = type(featurizer)()  # OpenAI's ViT-B-32, which is not on this machine
    assert len(full.get_feature_names_out()) == 512


def test_tags(wing):
    """The tags say that it needs no fit and takes no table of numbers."""
    tags = get_tags(wing[0])
    assert not tags.requires_fit
    assert tags.input_tags.one_d_array
    assert not tags.input_tags.two_d_array


@pytest.mark.filterwarnings("ignore:Can't test estimator:sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_check(wing):
    """The one check that scikit-learn has for such input passes."""
    check_estimator(wing[0])


def test_threads_agree(wing):
    """Threads that transform at once get the rows of one."""
    featurizer, X = wing
    rows = featurizer.transform(X)
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(featurizer.transform, [X] * 8):
            assert_allclose(other, rows, **BATCH_NOISE)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model_name": 3}, "'model_name' parameter of .* must be an instance of 'str'. Got 3"),
        ({"pretrained": 3}, "'pretrained' parameter of .* Got 3 instead"),
        ({"batch_size": 0}, "'batch_size' parameter of .* Got 0 instead"),
        ({"precision": "fp16"}, "'precision' parameter of .* Got 'fp16' instead"),
        ({"device": "gpu"}, "'device' parameter must be .* Got 'gpu' instead"),
    ],
)
def test_parameters_are_validated(wing, params, message):
    """A bad parameter is refused in scikit-learn's words, with or without a fit."""
    featurizer, X = wing
    with pytest.raises(ValueError, match=message):
        clone(featurizer).set_params(**params).transform(X)


def test_bad_pretrained_is_never_random(wing):
    """No weights is an error on the estimator too."""
    featurizer, X = wing
    with pytest.raises(ValueError, match=r"must be a tag of .* Got None instead"):
        clone(featurizer).set_params(model_name="ViT-B-32", pretrained=None).transform(X)


def test_imports_are_lazy():
    """Building, cloning and pickling a featurizer imports neither torch nor open_clip."""
    code = (
        "import pickle, sys; from sklearn.base import clone; import sklearn_taskres as t;"
        "[pickle.loads(pickle.dumps(clone(c().fit()))) and repr(c()) for c in"
        " (t.CLIPFeaturizer, t.CLIPTextFeaturizer)];"
        "sys.exit(' '.join({'torch', 'open_clip'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 (our own code)


# images ---------------------------------------------------------------------------------------


def test_every_kind_of_input_embeds_alike(featurizer, images, paths):
    """Paths, contents, PIL images, arrays, floats, tensors, columns: one embedding."""
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    objects = np.empty(len(images), object)
    objects[:] = [Image.fromarray(image) for image in images]
    kinds = {
        "str": [str(path) for path in paths],
        "path": paths,
        "bytes": [path.read_bytes() for path in paths],
        "pil": [Image.fromarray(image) for image in images],
        "list": list(images),
        "channels first": images.transpose(0, 3, 1, 2),
        "float": images / 255,
        "tensor": torch.tensor(images).permute(0, 3, 1, 2) / 255,
        "tensors": list(torch.tensor(images)),
        "objects": objects,
        "numpy str": np.array([str(path) for path in paths]),
        "pandas": pd.Series([str(path) for path in paths], index=range(9, 2, -1)),
        "polars": pl.Series([str(path) for path in paths]),
        "mixed": [paths[0], images[1], paths[2].read_bytes(), *paths[3:]],
    }
    expected = featurizer.transform(images)
    for kind, X in kinds.items():
        assert_array_equal(featurizer.transform(X), expected, err_msg=kind)


def test_grey_stack(featurizer, images):
    """A stack of grey images embeds like the same images in colour."""
    grey = images[..., 0]
    colour = np.stack([grey] * 3, axis=-1)
    assert_array_equal(featurizer.transform(grey), featurizer.transform(colour))


def test_raw_unless_normalized(featurizer, images):
    """Rows are raw; normalize=True gives them unit norm and the same direction."""
    raw = featurizer.transform(images)
    rows = clone(featurizer).set_params(normalize=True).transform(images)
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(norms - 1).min() > 0.1
    assert_allclose(rows, raw / norms, rtol=1e-5)


def test_conversion_comes_before_resizing(featurizer, tiny_clip):
    """A palette image is resized in colour: it embeds like its RGB version."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    palette = rgb.quantize(16)
    assert_array_equal(
        featurizer.transform([palette]), featurizer.transform([palette.convert("RGB")])
    )


def test_unreadable_images_are_listed_once(featurizer, paths, tmp_path):
    """All images are tried; one error then lists the bad ones with index, name and reason."""
    (tmp_path / "cut.png").write_bytes(paths[0].read_bytes()[:-40])
    X = [
        paths[0],
        tmp_path / "cut.png",
        b"junk",
        paths[1],
        np.full((4, 4), 2.0),
        tmp_path / "no.png",
    ]
    with pytest.raises(UnreadableImagesError, match="Can't read 4 of the images") as info:
        featurizer.transform(X)
    assert [index for index, _, _ in info.value.failures] == info.value.indices == [1, 2, 4, 5]
    assert info.value.failures[0][1] == str(tmp_path / "cut.png")
    assert info.value.failures[3][2] == "No such file or directory"
    assert "values from 2 to 2" in str(info.value)
    copied = pickle.loads(pickle.dumps(info.value))  # noqa: S301 (a worker process sends it)
    assert copied.failures == info.value.failures
    assert str(copied) == str(info.value)


def test_readable_images_are_still_encoded(featurizer, paths):
    """A bad image does not keep the others from the encoder."""
    tower = load_encoder(featurizer.model_name, None, device="cpu").model.visual
    seen = []
    handle = tower.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        with pytest.raises(UnreadableImagesError):
            featurizer.transform([*paths[:4], b"junk", *paths[4:]])
    finally:
        handle.remove()
    assert sum(seen) == len(paths)


@pytest.mark.parametrize("column", ["list", "object", "pandas"])
def test_grid_search_over_a_pipeline(column, featurizer, paths, images):
    """It is a first step whose input scikit-learn slices, whatever the column's type."""
    X = {"list": paths, "object": np.array(paths, dtype=object)}.get(column)
    if X is None:
        X = pytest.importorskip("pandas").Series(paths)
    y = [0, 1, 0, 1, 0, 1, 0]
    grid = {"clipfeaturizer__normalize": [False, True]}
    search = GridSearchCV(make_pipeline(featurizer, LogisticRegression()), grid, cv=2)
    assert search.fit(X, y).predict(X).shape == (len(images),)


def test_first_load_is_shared_by_threads(clip_writer, tmp_path, images):
    """Clones that meet an unloaded model in several threads all succeed, and agree."""
    save_clip, configs = clip_writer
    featurizer = CLIPFeaturizer(save_clip(tmp_path, configs["vit"]), device="cpu")
    barrier = threading.Barrier(4)

    def embed(_):
        barrier.wait()
        return clone(featurizer).transform(images)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(embed, range(4))
    for other in others:
        assert_allclose(other, first, **BATCH_NOISE)


def test_real_photos(featurizer):
    """Real JPEGs of many sizes are embedded, by path as by content."""
    root = os.environ.get("SKLEARN_TASKRES_TEST_DATA")
    if root is None:
        pytest.skip("SKLEARN_TASKRES_TEST_DATA is not set")
    photos = sorted((Path(root) / "dtd10_images").rglob("*.jpg"))[::20]
    assert len(photos) == 30, "SKLEARN_TASKRES_TEST_DATA is set, and its photos are missing"
    rows = featurizer.transform(photos)
    assert len(np.unique(rows.round(4), axis=0)) == 30
    assert_array_equal(featurizer.transform([photo.read_bytes() for photo in photos]), rows)


def test_bundled_model_reads_digits():
    """The model that comes with the package tells handwritten digits by their names."""
    digits = load_digits()
    X, y = digits.images[:200] / 16, digits.target[:200]
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    images = CLIPFeaturizer("glyph-clip", normalize=True, device="cpu").transform(X)
    classes = CLIPTextFeaturizer("glyph-clip", device="cpu").transform(names)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    assert ((images @ classes.T).argmax(axis=1) == y).mean() > 0.7


# texts ----------------------------------------------------------------------------------------


def test_mean_of_raw_embeddings(text, tiny_clip):
    """A class embedding is the mean of raw prompt embeddings: nothing is normalised."""
    templates = ["a photo of a {}.", "{} texture.", "art of the {}."]
    encoder = load_encoder(tiny_clip, None, device="cpu")
    prompts = [[t.replace("{}", name.replace("_", " ")) for t in templates] for name in NAMES]
    expected = np.stack([encoder.encode_texts(p).mean(axis=0) for p in prompts])
    actual = text.set_params(templates=templates).transform(NAMES)
    assert_allclose(actual, expected, **BATCH_NOISE)
    assert np.abs(np.linalg.norm(actual, axis=1) - 1).min() > 0.1


@pytest.mark.parametrize("family", ["vit", "siglip", "coca"])
def test_class_features_are_the_embeddings_taken_apart(family, make_clip):
    """hidden @ projection + bias are the class embeddings, averaged over templates alike."""
    text = CLIPTextFeaturizer(make_clip(family), templates="imagenet", device="cpu")
    hidden, projection, bias = text.class_features(NAMES)
    assert hidden.shape == (5, 12)
    assert hidden.dtype == projection.dtype == np.float32
    embeddings = hidden @ projection + (0 if bias is None else bias)
    assert_allclose(embeddings, text.transform(NAMES), rtol=1e-4, atol=1e-5)


def test_logit_scale(text):
    """The logit scale is the model's, as a float."""
    assert text.logit_scale() == pytest.approx(1 / 0.07)


def test_underscores(text):
    """Underscores are read as spaces, unless one asks for them."""
    spaced = text.transform(["great_white_shark"])
    assert_array_equal(spaced, text.transform(["great white shark"]))
    kept = clone(text).set_params(replace_underscores=False).transform(["great_white_shark"])
    assert np.abs(kept - spaced).max() > 1e-3


def test_templates_by_name(text):
    """A data set's name stands for its published templates."""
    named = clone(text).set_params(templates="imagenet").transform(NAMES)
    listed = clone(text).set_params(templates=list(TEMPLATES["imagenet"])).transform(NAMES)
    assert_array_equal(named, listed)


def test_published_templates():
    """Every data set has templates with one place for the name, and the docstring names it."""
    assert len(TEMPLATES["imagenet"]) == 8
    assert TEMPLATES["oxford_pets"] == ("a photo of a {}, a type of pet.",)
    for name, templates in TEMPLATES.items():
        assert f'"{name}"' in CLIPTextFeaturizer.__doc__
        assert all(template.count("{}") == 1 for template in templates)


@pytest.mark.parametrize("templates", ["a photo", "imagenets", [], ["a {}.", "a photo"], [3], "{"])
def test_bad_templates(templates, text):
    """A template without a place for the name is refused, at fit already, naming the data sets."""
    text.set_params(templates=templates)
    for method in (text.fit, text.transform):
        with pytest.raises(ValueError, match=r"'templates' parameter of .* with \{\} .*imagenet"):
            method(NAMES)


def test_braces_in_names(text):
    """A class name is put in as it is, whatever it holds."""
    assert text.transform(["{x}", "100%"]).shape == (2, 16)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat", "must be a list or a 1-d array of str"),
        ([["cat"]], "must be a list or a 1-d array of str"),
        ([], "Class names are empty"),
        (["cat", 3], "item 1 is 3"),
        (["cat", " "], "item 1 is ' '"),
        (["cat", None], "item 1 is None"),
    ],
)
def test_bad_names(names, message, text):
    """What is not a list of names is refused, saying which item."""
    with pytest.raises(ValueError, match=message):
        text.transform(names)


def test_series_of_names(text):
    """Columns of names embed like a list of them."""
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    expected = text.transform(NAMES)
    for X in (pd.Series(NAMES), pl.Series(NAMES), np.array(NAMES), np.array(NAMES, object)):
        assert_array_equal(text.transform(X), expected)


def test_long_names_warn(text):
    """A class name that does not fit into the prompt is named."""
    with pytest.warns(UserWarning, match="was cut: 'a photo of a zebra fish"):
        text.transform(["cat", "zebra fish " * 20])
