"""What is encoded, and how often: cache, duplicates, views and threads of the featurizers."""

import io
import multiprocessing
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from children import run_in_child
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from stores import CacheOf, Clock
from towers import watched

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    EmbeddingCache,
    TaskResClassifier,
    UnreadableImagesError,
    make_taskres_pipeline,
)
from sklearn_taskres._clip.claims import LEASE, Claims
from sklearn_taskres._clip.stores.memory import MemoryStore
from sklearn_taskres._clip.stores.sqlite import FolderStore, Limits

posix_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.fixture
def encoded():
    """Lists of the sizes of batches that reached the towers, and of parameters made: tripwires."""
    counts = {"images": [], "texts": [], "parameters": []}

    def parameter():
        counts["parameters"].append(1)

    with watched(counts["images"].append, counts["texts"].append, parameter):
        yield counts


@pytest.fixture
def paths(tmp_path):
    """Twelve different pictures in a folder, and labels of two classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir()), np.array(["ant", "bee"] * 6)


def test_a_search_encodes_each_image_once(tiny_clip, paths, encoded):
    """GridSearchCV over 6 alphas and 5 folds, refit included, encodes 12 images and 2 prompts."""
    files, y = paths
    model = make_taskres_pipeline(tiny_clip, None, base_norm=10, max_epochs=2)
    grid = {"taskres__alpha": [0, 0.1, 0.25, 0.5, 1, 2]}
    search = GridSearchCV(model, grid, cv=5)
    with pytest.warns(UserWarning, match="Zero-shot"):  # a random CLIP is at chance
        search.fit(np.array(files, dtype=object), y)
    assert sum(encoded["images"]) == 12
    assert sum(encoded["texts"]) == 2


def test_a_pipeline_keeps_both_wings_in_one_folder(tiny_clip, paths, tmp_path, encoded):
    """`make_taskres_pipeline` gives its cache to images and names: the next one encodes nothing."""
    (files, y), folder = paths, tmp_path / "cache"
    for _ in range(2):
        model = make_taskres_pipeline(tiny_clip, None, cache=folder, base_norm=10, max_epochs=2)
        with pytest.warns(UserWarning, match="Zero-shot"):  # a random CLIP is at chance
            model.fit(np.array(files, dtype=object), y)
    assert sum(encoded["images"]) == 12
    assert sum(encoded["texts"]) == 2
    assert any(file.is_file() for file in folder.rglob("*"))


class PatientCache(EmbeddingCache):
    """A cache in a folder to which a busy machine is not a stopped process."""

    def store(self):
        return FolderStore(Path(self.location), None, Limits(patience=300))

    def claims(self):
        return Claims(self.store(), lease=300)


@posix_only
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA cannot follow a fork")
def test_a_parallel_search_encodes_each_image_once(tiny_clip, paths, tmp_path):
    """GridSearchCV with two processes and a folder: 12 encodings, whoever comes first."""
    files, y = paths
    log, both, met = tmp_path / "encoded", multiprocessing.get_context("fork").Barrier(2), set()

    def note(n):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {n}\n")
        if os.getpid() not in met:
            met.add(os.getpid())
            both.wait(timeout=120)  # for the other process to want images of the same search

    cache = PatientCache(tmp_path / "cache")
    clip = CLIPFeaturizer(tiny_clip, cache=cache, batch_size=2, device="cpu")
    taskres = TaskResClassifier(np.eye(2, 16), max_epochs=2, device="cpu")
    model = Pipeline([("clip", clip), ("taskres", taskres)])
    grid = {"taskres__alpha": [0.1, 0.25, 0.5, 1, 1.5, 2]}
    search = GridSearchCV(model, grid, cv=5, n_jobs=2)
    with joblib.parallel_backend("multiprocessing"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a random CLIP is at chance
        with watched(images=note):  # by the processes that are forked
            search.fit(files, y)
    counts = np.array([line.split() for line in log.read_text().splitlines()], dtype=int)
    assert counts[:, 1].sum() == 12
    assert len(set(counts[:, 0])) == 2


def test_threads_encode_each_image_once(tiny_clip, paths, encoded):
    """Threads that want the same images at the same time share the work, with memory as cache."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip, batch_size=2)
    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(clip.transform, [files] * 3)
    assert sum(encoded["images"]) == 12
    for rows in others:
        assert_array_equal(rows, first)


def test_passes_that_share_no_image_run_side_by_side(tiny_clip, paths, tmp_path):
    """Each of two threads encodes while the other is in the middle of it, for one cache."""
    files, _ = paths
    both = threading.Barrier(2)

    def together(_):
        both.wait(timeout=60)  # breaks if the other has to wait for us

    for location in ("memory", tmp_path / "cache"):
        clip = CLIPFeaturizer(tiny_clip, cache=location).fit(files)
        expected = CLIPFeaturizer(tiny_clip, cache=None).transform(files)
        with watched(images=together), ThreadPoolExecutor(2) as pool:
            first, second = pool.map(clip.transform, [files[:6], files[6:]])
        assert_allclose(np.concatenate([first, second]), expected, atol=1e-5)


@pytest.fixture
def clock():
    """What stores and those who wait for others go by."""
    return Clock()


@pytest.fixture(params=["memory", "folder"])
def store(request, tmp_path, clock):
    """Each kind of store, going by the clock."""
    if request.param == "memory":
        return MemoryStore(clock=clock)
    return FolderStore(tmp_path / "cache", None, Limits(clock=clock))


def held_claim(store, keys):
    """What a process leaves that is stopped or killed while it encodes."""
    return store.claim(keys, b"somebody", LEASE)


def keys_of(model, files):
    from sklearn_taskres._clip.backends.torch.pretrained import find_model
    from sklearn_taskres._clip.digests import content_digest, embedding_keys

    fingerprint = find_model(model, None).fingerprint("float32")
    return embedding_keys([content_digest(file) for file in files], fingerprint)


def test_who_is_stopped_costs_one_lease_and_one_warning(tiny_clip, paths, tmp_path, store, clock):
    """All that a stopped process had claimed is encoded by others, once its claim has run out."""
    files, _ = paths
    cache = CacheOf(tmp_path, store, clock)
    clip = CLIPFeaturizer(tiny_clip, "openai", precision="float32", cache=cache, batch_size=2)
    keys, waits = keys_of(tiny_clip, files), []
    assert held_claim(store, keys[3:9]) == set(keys[3:9])

    def stopped_at_the_third():
        waits.append(clock.now)
        if len(waits) < 3:
            held_claim(store, [])  # renewed

    clock.meanwhile = stopped_at_the_third
    with pytest.warns(UserWarning, match="stopped or killed") as caught:
        rows = clip.transform(files)
    assert len(caught) == 1
    assert clock.now == waits[1] + LEASE
    assert_allclose(rows, clip.set_params(cache=None).transform(files), atol=1e-5)
    assert cache.entries == 12


def test_claims_are_renewed_while_a_batch_takes_long(store, clock):
    """Whoever works longer than a lease keeps what it claimed."""
    renewed, begun, key = threading.Semaphore(0), clock.now, b"k" * 20

    class Slow:
        """The store, for work that takes most of a lease from one renewal to the next."""

        release = store.release

        def claim(self, keys, owner, seconds):
            claimed = store.claim(keys, owner, seconds)
            if not keys:
                clock.now += 0.6 * seconds
                renewed.release()
            return claimed

    with Claims(Slow(), lease=0.03) as claims:
        assert claims.take({key}) == {key}
        for _ in range(3):
            assert renewed.acquire(timeout=60)
        assert clock.now > begun + 0.03
        assert held_claim(store, [key]) == set()
    assert held_claim(store, [key]) == {key}


def test_a_pass_that_fails_gives_its_claims_back(tiny_clip, paths, tmp_path):
    """Nobody waits for a pass that ended in an error."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip, cache=tmp_path / "cache", precision="float32")

    def fails(_):
        raise KeyboardInterrupt

    with watched(images=fails), pytest.raises(KeyboardInterrupt):
        clip.transform(files)
    keys = keys_of(tiny_clip, files)
    assert held_claim(EmbeddingCache(tmp_path / "cache").store(), keys) == set(keys)


@pytest.mark.parametrize("location", ["memory", "folder", None])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_augment_that_embeds_does_not_wait_for_itself(tmp_path, location, num_workers):
    """A crop chosen by CLIP embeds, within the pass, images that the pass has claimed."""
    location = tmp_path / "cache" if location == "folder" else location
    inner = CLIPFeaturizer("glyph-clip", cache=location, num_workers=0)
    images = [Image.fromarray(np.full((24, 24, 3), i, dtype=np.uint8)) for i in (0, 99, 200)]

    def best_crop(image, rng):
        crops = [image.crop((x, 0, x + 16, 16)) for x in (0, 8)]
        first, *others = inner.transform([image, *crops])
        return crops[int(np.argmax(others @ first))]

    outer = CLIPFeaturizer(
        "glyph-clip", cache=location, n_views=1, augment=best_crop, num_workers=num_workers
    )
    pool = ThreadPoolExecutor(1)
    try:
        assert pool.submit(outer.fit_transform, images).result(timeout=120).shape[:2] == (3, 2)
    finally:
        pool.shutdown(wait=False)


def test_a_warm_folder_loads_no_model(tiny_clip, paths, encoded, tmp_path):
    """A second pass over a cache folder builds no encoder, also after the images were moved."""
    files, _ = paths
    cache = tmp_path / "cache"
    first = CLIPFeaturizer(tiny_clip, cache=cache).transform(files)
    text = CLIPTextFeaturizer(tiny_clip, cache=cache)
    prompts, scale = text.transform(["ant", "bee"]), text.logit_scale()
    moved = files[0].parent.rename(tmp_path / "moved")
    assert encoded["images"]
    assert encoded["texts"]
    for counts in encoded.values():
        counts.clear()
    from sklearn_taskres._clip.backends.torch.encoder import _cached_encoder

    _cached_encoder.cache_clear()
    again = CLIPFeaturizer(tiny_clip, cache=str(cache)).transform(sorted(moved.iterdir()))
    assert_array_equal(again, first)
    assert_array_equal(text.transform(["ant", "bee"]), prompts)
    assert text.logit_scale() == scale
    assert encoded == {"images": [], "texts": [], "parameters": []}
    CLIPFeaturizer(tiny_clip, cache=None).transform(sorted(moved.iterdir())[:1])
    assert encoded["parameters"]  # which a load makes


def test_a_prompt_that_loses_something_warns_each_time(tmp_path):
    """A name that the bundled model can't read draws its warning from a warm cache as well."""
    text = CLIPTextFeaturizer("glyph-clip", cache=tmp_path)
    for _ in range(2):
        with pytest.warns(UserWarning, match="never saw"):
            text.transform(["zebra"])
    assert EmbeddingCache(tmp_path).entries == 0


@pytest.mark.parametrize("wing", [CLIPFeaturizer, CLIPTextFeaturizer])
def test_displaying_an_estimator_looks_up_no_model(wing):
    """dir() and the HTML repr work for a model that does not exist."""
    assert "nope" in wing("nope")._repr_html_()
    assert "transform" in dir(wing("nope"))


def test_duplicates_in_one_call_are_encoded_once(tiny_clip, paths, encoded):
    """The same content twice, as path and as bytes, is one encoding, with or without a cache."""
    files, _ = paths
    X = [files[0], files[0].read_bytes(), files[1], files[0]]
    rows = CLIPFeaturizer(tiny_clip, cache=None).transform(X)
    assert sum(encoded["images"]) == 2
    assert_array_equal(rows[[1, 3]], rows[[0, 0]])


def test_batches_are_filled_whatever_the_order(tiny_clip, paths, encoded):
    """Cached images between new ones leave no holes in the batches."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip, batch_size=4)
    clip.transform(files[::3])
    encoded["images"].clear()
    clip.transform(files)
    assert encoded["images"] == [4, 4]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_threads_do_not_change_embeddings(tiny_clip, paths, num_workers):
    """Any number of decoding threads gives the same rows in the same order."""
    files, _ = paths
    expected = CLIPFeaturizer(tiny_clip, num_workers=None, cache=None).transform(files)
    clip = CLIPFeaturizer(tiny_clip, num_workers=num_workers, batch_size=5, cache=None)
    assert_allclose(clip.transform(files), expected, atol=1e-5)


def test_what_was_encoded_survives_an_error(tiny_clip, paths, encoded):
    """When the bad image is dropped, a second call encodes nothing."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip)
    with pytest.raises(ValueError, match="Can't read 1 of the images"):
        clip.transform([*files, b"junk"])
    encoded["images"].clear()
    clip.transform(files)
    assert encoded["images"] == []


def test_an_interrupt_keeps_what_was_encoded(tiny_clip, paths, encoded):
    """Ctrl-C in the third batch: the first two are in the cache."""
    files, _ = paths

    def interrupt(_):
        if len(encoded["images"]) == 3:
            raise KeyboardInterrupt

    clip = CLIPFeaturizer(tiny_clip, batch_size=4)
    with watched(images=interrupt), pytest.raises(KeyboardInterrupt):
        clip.transform(files)
    encoded["images"].clear()
    clip.transform(files)
    assert encoded["images"] == [4]


def test_views_have_their_own_axis_on_training_images_only(tiny_clip, paths):
    """fit_transform gives (n, 1 + v, d) with the clean image in slot 0, transform (n, d)."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip, n_views=3)
    views, clean = clip.fit_transform(files), clip.transform(files)
    assert views.shape == (12, 4, 16)
    assert clean.shape == (12, 16)
    assert_array_equal(views[:, 0], clean)
    for slot in range(1, 4):
        assert np.abs(views[:, slot] - clean).max(axis=1).min() > 1e-3


def test_views_depend_on_image_and_seed_alone(tiny_clip, paths):
    """Order, place and company do not matter; random_state and the image's content do."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip, n_views=2, cache=None)
    views = clip.fit_transform(files)
    assert_allclose(clip.fit_transform(files[::-1])[::-1], views, atol=1e-5)
    assert_allclose(clip.fit_transform([files[3].read_bytes()])[0], views[3], atol=1e-5)
    assert_array_equal(clone(clip).set_params(random_state=0).fit_transform(files), views)
    other = clone(clip).set_params(random_state=1).fit_transform(files)
    assert_array_equal(other[:, 0], views[:, 0])
    assert np.abs(other[:, 1:] - views[:, 1:]).max(axis=(1, 2)).min() > 1e-3


def test_views_are_cached(tiny_clip, paths, encoded):
    """A second fit encodes nothing, and more views encode only the new ones."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip, n_views=2)
    clip.fit_transform(files)
    clip.fit_transform(files)
    assert sum(encoded["images"]) == 36
    clone(clip).set_params(n_views=3).fit_transform(files)
    assert sum(encoded["images"]) == 48


@pytest.mark.parametrize("augment", ["taskres", "taskres-no-flip", "tip", "tip-no-flip"])
def test_crops_keep_their_share_of_the_image(augment):
    """A crop covers the documented share of the area, and only some modes mirror."""
    from sklearn_taskres._clip.views import augment_image

    ramp = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (150, 1))
    image = Image.fromarray(ramp).convert("RGB")
    rng = np.random.default_rng(0)
    views = [np.asarray(augment_image(image, augment, rng, 32), dtype=float) for _ in range(200)]
    slopes = np.array([v[:, -1, 0].mean() - v[:, 0, 0].mean() for v in views])
    widths = np.abs(slopes) / 255
    assert all(view.shape == (32, 32, 3) for view in views)
    assert (slopes.min() < 0) == ("no-flip" not in augment)
    assert widths.min() > (0.14 if augment.startswith("taskres") else 0.45)
    assert widths.max() > 0.95


def test_a_callable_augments_but_is_not_cached(tiny_clip, paths, encoded):
    """A function is the user's: called with image and generator, encoded anew in each fit."""
    files, _ = paths
    clip = CLIPFeaturizer(
        tiny_clip, n_views=1, augment=lambda image, rng: image.rotate(rng.uniform(0, 90))
    )
    first = clip.fit_transform(files)
    encoded["images"].clear()
    assert_allclose(clip.fit_transform(files), first, atol=1e-5)
    assert sum(encoded["images"]) == 12


def test_a_callable_that_fails_is_not_an_unreadable_image(tiny_clip, paths):
    """What it raises is the user's to mend, and so is what is not an image."""
    files, _ = paths

    def fails(image, rng):
        raise ValueError("out of luck")

    with pytest.raises(RuntimeError, match=r"augment fails on an image of .*: out of luck"):
        CLIPFeaturizer(tiny_clip, n_views=1, augment=fails).fit_transform(files)
    for made in (None, np.zeros((4, 4, 3), np.uint8)):
        clip = CLIPFeaturizer(tiny_clip, n_views=1, augment=lambda image, rng, made=made: made)
        with pytest.raises(TypeError, match="augment must return a PIL image"):
            clip.fit_transform(files)


def test_a_callable_may_draw_into_its_image(tiny_clip, paths, tmp_path):
    """It gets a copy: the clean slot, the other views and the cache stay clean."""
    files, _ = paths
    seen = []

    def cutout(image, rng):
        seen.append(image.tobytes())
        image.paste((0, 0, 0), (0, 0, 30, 30))
        return image

    clean = CLIPFeaturizer(tiny_clip, cache=None).transform(files)
    clip = CLIPFeaturizer(tiny_clip, n_views=2, augment=cutout, cache=tmp_path, num_workers=0)
    assert_allclose(clip.fit_transform(files)[:, 0], clean, atol=1e-5)
    assert seen[0] == seen[1]
    assert_allclose(CLIPFeaturizer(tiny_clip, cache=tmp_path).transform(files), clean, atol=1e-5)


def _frames():
    return np.random.default_rng(0).integers(0, 256, (4, 20, 20), dtype=np.uint8)


def _write_array(X):
    X[:] = 255 - X


def _write_each(X):
    for image in X:
        image[:] = 255 - image


def _write_bytes(X):
    for image, other in zip(X, [_bmp(255 - frame) for frame in _frames()], strict=True):
        image[:] = other


def _write_pil(X):
    for image in X:
        image.paste(Image.fromarray(255 - np.asarray(image)))


def _bmp(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "BMP")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "write"),
    [
        (_frames, _write_array),
        (lambda: list(_frames()), _write_each),
        (lambda: torch.from_numpy(_frames()), _write_array),
        (lambda: [bytearray(_bmp(frame)) for frame in _frames()], _write_bytes),
        (lambda: [Image.fromarray(frame) for frame in _frames()], _write_pil),
    ],
    ids=["stack", "list", "tensor", "bytearray", "PIL"],
)
def test_images_that_change_meanwhile_are_not_kept(tiny_clip, make, write):
    """A buffer that is filled anew between digest and encoding leaves nothing wrong behind."""
    expected = CLIPFeaturizer(tiny_clip, cache=None).transform(make())
    changed = make()
    write(changed)
    changed = CLIPFeaturizer(tiny_clip, cache=None).transform(changed)
    assert np.abs(changed - expected).max() > 1e-3
    X = make()

    class DigestsThenWrites(EmbeddingCache):
        def digests(self, images):
            found = super().digests(images)
            write(X)
            return found

    clip = CLIPFeaturizer(tiny_clip, num_workers=0, cache=DigestsThenWrites())
    assert_allclose(clip.transform(X), changed, atol=1e-5)
    clip.set_params(cache=EmbeddingCache())
    assert_allclose(clip.transform(make()), expected, atol=1e-5)


class _Tenth(np.ndarray):
    """Floats that multiply in a way of their own."""

    def __mul__(self, other):
        return np.asarray(self) * other * 0.1


@pytest.mark.parametrize(
    "twin",
    [lambda a: np.ma.masked_array(a, mask=a < 0.5), lambda a: a.view(_Tenth)],
    ids=["masked", "subclass"],
)
def test_kinds_of_arrays_are_one_image(tiny_clip, twin):
    """An array and its twin of a subclass have one digest, and so the same pixels."""
    array = np.random.default_rng(0).random((16, 16))
    expected = CLIPFeaturizer(tiny_clip, cache=None).transform([array])
    assert_allclose(CLIPFeaturizer(tiny_clip, cache=None).transform([twin(array)]), expected)
    clip = CLIPFeaturizer(tiny_clip)
    clip.transform([twin(array)])
    assert_allclose(clip.transform([array]), expected)


def test_lazily_opened_images_that_are_broken_are_listed(tiny_clip, paths):
    """A PIL image that can't be decoded does not stop the others."""
    files, _ = paths
    broken = Image.open(io.BytesIO(files[0].read_bytes()[:-100]))
    with pytest.raises(UnreadableImagesError) as caught:
        CLIPFeaturizer(tiny_clip).transform([broken, files[1], Image.new("RGB", (0, 0))])
    assert caught.value.indices == [0, 2]


def test_a_column_transformer_selects_the_images(tiny_clip, paths):
    """One column of a data frame, or of an array, reaches the featurizer as a table."""
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    files, _ = paths
    expected = CLIPFeaturizer(tiny_clip).transform(files)
    table = {"path": [str(f) for f in files], "size": list(range(12))}
    for frame in (pd.DataFrame(table), pl.DataFrame(table)):
        both = ColumnTransformer(
            [("img", CLIPFeaturizer(tiny_clip), ["path"]), ("rest", "passthrough", ["size"])]
        )
        X = np.asarray(both.fit_transform(frame))
        assert_allclose(X[:, :-1], expected, atol=1e-5)
        assert_array_equal(X[:, -1], range(12))
    column = np.array(files, dtype=object)[:, None]
    assert_allclose(CLIPFeaturizer(tiny_clip).transform(column), expected, atol=1e-5)


def test_arrays_are_embedded_without_a_working_folder(tiny_clip, tmp_path, monkeypatch):
    """The folder that a process stands in may be gone."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert CLIPFeaturizer(tiny_clip).transform(_frames()).shape == (4, 16)


@posix_only
def test_a_child_loads_while_its_parent_was_loading(clip_writer, tmp_path):
    """Fork while another thread loads a model: the child loads its own."""
    write_clip, configs = clip_writer
    name, parent = write_clip(tmp_path, configs["vit"]), os.getpid()
    loading, done = threading.Event(), threading.Event()

    def hold():
        if os.getpid() == parent:
            loading.set()
            done.wait(60)

    clip = CLIPFeaturizer(name, num_workers=0, device="cpu")
    with ThreadPoolExecutor(1) as pool, watched(parameter=hold):
        waiting = pool.submit(clip._encoder)
        assert loading.wait(60)
        try:
            assert run_in_child(clip._encoder) == 0
        finally:
            done.set()
        waiting.result(timeout=60)


def test_views_and_data_frames_do_not_mix(tiny_clip, paths):
    """set_output with views is refused in one sentence, before anything is encoded."""
    files, _ = paths
    clip = CLIPFeaturizer(tiny_clip, n_views=1).set_output(transform="pandas")
    with pytest.raises(ValueError, match="n_views=1 gives an array of three axes"):
        clip.fit_transform(files)


def test_views_train_and_predict_in_a_pipeline(tiny_clip, paths):
    """The pipeline fits on views and predicts from clean images."""
    files, y = paths
    model = make_taskres_pipeline(tiny_clip, None, base_norm=10, max_epochs=3)
    model.set_params(clip__n_views=2)
    with pytest.warns(UserWarning, match="Zero-shot"):
        model.fit(files, y)
    X = CLIPFeaturizer(tiny_clip).transform(files)
    assert_array_equal(model.predict(files), model["taskres"].predict(X))


def test_another_model_or_weights_never_share_embeddings(clip_writer, tmp_path, paths):
    """Replacing the weights under the same name gives new embeddings, not the kept ones."""
    files, _ = paths
    save_clip, configs = clip_writer
    name = save_clip(tmp_path / "model", configs["vit"], seed=0)
    clip = CLIPFeaturizer(name, cache=tmp_path / "cache")
    before = clip.transform(files)
    save_clip(tmp_path / "model", configs["vit"], seed=1)
    after = clip.transform(files)
    assert np.abs(before - after).max() > 1e-3
    assert EmbeddingCache(tmp_path / "cache").entries == 24


def test_progress_is_shown_on_request(tiny_clip, paths, capsys):
    """verbose=1 shows a bar on stderr, verbose=0 nothing."""
    files, _ = paths
    CLIPFeaturizer(tiny_clip, cache=None).transform(files)
    assert capsys.readouterr().err == ""
    CLIPFeaturizer(tiny_clip, cache=None, verbose=1).transform(files)
    assert "encoding images" in capsys.readouterr().err


def test_a_pass_is_summed_up(tiny_clip, paths, capsys):
    """What was encoded, found, repeated and unreadable is one line; the cache counts."""
    files, cache = list(paths[0]), EmbeddingCache("memory")
    clip, before = CLIPFeaturizer(tiny_clip, verbose=1), (cache.hits, cache.misses)
    clip.transform(files[:2])
    capsys.readouterr()
    with pytest.raises(UnreadableImagesError, match=r"its 'failures' list \(index, path, reason\)"):
        clip.transform([*files[:4], files[2], "missing.jpg"])
    err = capsys.readouterr().err
    assert "encoded 2, from cache 2, the same as another 1, unreadable 1; " in err
    assert " images per second" in err
    assert (cache.hits - before[0], cache.misses - before[1]) == (2, 6)
    clip.transform(files[:2])
    assert capsys.readouterr().err == "encoded 0, from cache 2, unreadable 0\n"


def test_hours_of_work_are_announced(capsys, clock):
    """After some seconds the rate is known: a minute is told with verbose=1, hours without."""
    from sklearn_taskres._clip.progress import EncodingProgress

    def work(progress):
        progress.start()
        for _ in range(4):
            clock.now += 4
            progress.update()

    silent = EncodingProgress(30_000, 30_000, 30_000, verbose=0, clock=clock)
    with pytest.warns(UserWarning, match=r"30000 images at 0\.25 per second .* about 33\.3 hours"):
        work(silent)
    assert capsys.readouterr().err == ""
    with EncodingProgress(300, 300, 300, verbose=1, clock=clock) as shown:
        work(shown)
    assert "300 images at 0.25 per second: about 20 minutes" in capsys.readouterr().err


def test_taskres_learns_from_views_of_digits():
    """Views go all the way with the bundled model: crops without flip, one drawn an epoch."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    clip = CLIPFeaturizer("glyph-clip", n_views=3, augment="tip-no-flip")
    X = clip.fit_transform(digits.images[:40] / 16)
    text = CLIPTextFeaturizer("glyph-clip")
    clf = TaskResClassifier(text, class_names=list("0123456789"), max_epochs=20, random_state=0)
    assert clf.fit(X, digits.target[:40]).score(X, digits.target[:40]) > 0.9
