"""Encoders that are functions: rows, what is kept and under which name, errors, pipelines."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sklearn_taskres import (
    EmbeddingCache,
    FunctionFeaturizer,
    TaskResClassifier,
    TaskResGDAClassifier,
    UnreadableImagesError,
)

#: Sizes of the batches that `small` was called with: the tripwire.
BATCHES = []


def small(images):
    """Rows of 4 x 4 grey values."""
    BATCHES.append(len(images))
    return np.stack([np.ravel(image.convert("L").resize((4, 4))) / 255 for image in images])


def to_tensor(image):
    """What timm's transforms give."""
    return torch.from_numpy(np.asarray(image.resize((4, 4))).copy()).float()


def first_channel(tensors):
    """Rows of the red values, from tensors."""
    return torch.stack(tensors)[..., 0].reshape(len(tensors), -1)


def refuses_wide(image):
    """A preprocessing that does not take every image."""
    if image.width > 50:
        raise ValueError("wider than 50 pixels")
    return image


@pytest.fixture
def paths(tmp_path):
    """Seven different pictures in a folder."""
    rng = np.random.default_rng(0)
    for i in range(7):
        pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.glob("*.png"))


@pytest.fixture
def featurizer(tmp_path):
    BATCHES.clear()
    return FunctionFeaturizer(small, "small", 16, batch_size=3, cache=tmp_path / "cache")


@pytest.mark.parametrize("num_workers", [None, 0, 2])
def test_rows_are_those_of_the_function(featurizer, paths, num_workers):
    """One float32 row per image, in order, of batches that are full, without and with threads."""
    rows = featurizer.set_params(num_workers=num_workers).fit_transform(paths)
    assert BATCHES == [3, 3, 1]
    assert rows.dtype == np.float32
    assert_allclose(rows, small([Image.open(path) for path in paths]), rtol=1e-6)


def test_each_image_is_encoded_once(featurizer, paths):
    """A second pass, a clone, a copy of the file and a search call the function no more."""
    featurizer.transform(paths)
    BATCHES.clear()
    paths[0].with_name("copy.png").write_bytes(paths[0].read_bytes())
    clone(featurizer).transform([*paths, paths[0].with_name("copy.png")])
    model = make_pipeline(featurizer, LogisticRegression())
    GridSearchCV(model, {"logisticregression__C": [1, 10]}, cv=2).fit(paths, [0, 1] * 3 + [0])
    assert BATCHES == []
    assert EmbeddingCache(featurizer.cache).entries == 7


@pytest.mark.parametrize("other", [{"model_name": "small, v2"}, {"func": None}])
def test_what_is_kept_goes_by_the_name_of_the_model(featurizer, paths, other):
    """Another name is another encoder; another function under one name is not seen, as said."""
    rows = featurizer.transform(paths)

    def twice(images):
        return 2 * small(images)

    twofold = clone(featurizer).set_params(**{**other, "func": twice}).transform(paths)
    assert_allclose(twofold, rows * (2 if "model_name" in other else 1), rtol=1e-6)


def test_another_size_under_one_name_is_another_encoder(featurizer, paths):
    """Rows of another width are not mistaken for those that are kept."""
    featurizer.transform(paths)
    half = FunctionFeaturizer(lambda images: small(images)[:, :8], "small", 8)
    assert half.set_params(cache=featurizer.cache).transform(paths).shape == (7, 8)


def test_preprocess_makes_what_the_function_takes(paths):
    """Tensors go in and a tensor comes out, as with timm."""
    featurizer = FunctionFeaturizer(first_channel, "red", 16, preprocess=to_tensor, cache=None)
    rows = featurizer.transform(paths)
    expected = first_channel([to_tensor(Image.open(path)) for path in paths])
    assert_allclose(rows, expected.numpy(), rtol=1e-6)
    assert rows.dtype == np.float32


def test_tensors_of_half_precision_and_with_gradients_are_read():
    """What a model gives outside inference mode, or in bfloat16, becomes float32."""

    def half(images):
        return torch.ones(len(images), 2, dtype=torch.bfloat16, requires_grad=True)

    rows = FunctionFeaturizer(half, "half", 2, cache=None).transform(np.zeros((3, 8, 8)))
    assert_array_equal(rows, np.ones((3, 2), dtype=np.float32))


def test_a_function_may_draw_into_its_images():
    """Images of the user stay as they are, and stay open."""

    def paints(images):
        for image in images:
            image.paste("white", (0, 0, 4, 4))
        return small(images)

    image = Image.new("RGB", (8, 8))
    featurizer = FunctionFeaturizer(paints, "paints", 16, cache=None)
    assert featurizer.transform([image]).max() > 0
    assert image.getextrema() == ((0, 0),) * 3


def test_unreadable_images_are_listed(featurizer, paths):
    """Files that are no images, and what the preprocessing refuses, stop no others."""
    Image.new("RGB", (60, 20)).save(paths[0].with_name("wide.png"))
    bad = [*paths, "missing.jpg", paths[0].with_name("wide.png")]
    with pytest.raises(UnreadableImagesError) as caught:
        featurizer.set_params(preprocess=refuses_wide).transform(bad)
    assert caught.value.indices == [7, 8]
    assert caught.value.failures[1][2] == "wider than 50 pixels"
    assert EmbeddingCache(featurizer.cache).entries == 7


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda images: small(images)[:, :3],
            r"embedding_size=16 .* \(2, 16\) .* Got shape \(2, 3",
        ),
        (lambda images: small(images)[:1], r"shape \(2, 16\) for 2 images. Got shape \(1, 16\)"),
        (lambda images: None, r"Got shape \(\)"),
        (lambda images: small(images) * [[1], [np.nan]], "NaN or infinite values for image 1 of"),
    ],
)
def test_what_the_function_returns_is_checked(featurizer, paths, returned, message):
    """Rows of a wrong shape and without values are refused in a sentence, and not kept."""
    with pytest.raises(ValueError, match=message):
        featurizer.set_params(func=returned).transform(paths[:2])
    assert EmbeddingCache(featurizer.cache).entries == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"func": "resnet18"}, "'func' parameter of FunctionFeaturizer must be a callable"),
        ({"model_name": None}, "'model_name' parameter of .* Got None instead"),
        ({"embedding_size": 0}, "'embedding_size' parameter of .* Got 0 instead"),
        ({"preprocess": 224}, "'preprocess' parameter of .* Got 224 instead"),
    ],
)
def test_parameters_are_validated(featurizer, paths, params, message):
    """A bad parameter is refused in scikit-learn's words."""
    with pytest.raises(ValueError, match=message):
        featurizer.set_params(**params).transform(paths)


def test_it_is_a_transformer_without_state(featurizer, paths):
    """No fit is needed, a pickle holds a name for the function, columns have names."""
    rows = featurizer.transform(paths)
    check_is_fitted(featurizer)
    assert not get_tags(featurizer).requires_fit
    assert len(pickle.dumps(featurizer)) < 1000
    assert_array_equal(pickle.loads(pickle.dumps(featurizer)).transform(paths), rows)  # noqa: S301
    names = featurizer.get_feature_names_out()
    assert list(names[[0, 15]]) == ["functionfeaturizer0", "functionfeaturizer15"]
    unit = clone(featurizer).set_params(normalize=True).transform(paths)
    assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("classifier", [TaskResClassifier, TaskResGDAClassifier])
def test_class_means_classify_without_a_text_side(classifier):
    """Images and labels in, labels out, through a pipeline; no class needs a name."""
    digits = load_digits()
    model = make_pipeline(
        FunctionFeaturizer(small, "small", 16, cache=None),
        classifier("class_means", random_state=0),
    )
    model.fit(digits.images[:300] / 16, digits.target[:300])
    assert model.score(digits.images[300:600] / 16, digits.target[300:600]) > 0.8
