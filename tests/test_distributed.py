"""Batches of someone else's engine: encoded, labelled, written and read back."""

import contextlib
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import sklearn_taskres
from sklearn_taskres import (
    CLIPFeaturizer,
    TaskResClassifier,
    UnreadableImagesError,
    make_taskres_pipeline,
)
from sklearn_taskres._formulas import unit
from sklearn_taskres.distributed import (
    BatchEncoder,
    BatchPredictor,
    CostEstimate,
    encode_shards,
    read_embeddings,
)

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Twelve digits as files."""
    folder = tmp_path_factory.mktemp("digits")
    found = [str(folder / f"{i}.png") for i in range(12)]
    for path, pixels in zip(found, load_digits().images, strict=False):
        Image.fromarray((pixels * 15).astype(np.uint8)).resize((64, 64)).save(path)
    return found


@pytest.fixture
def clip():
    return CLIPFeaturizer("glyph-clip", precision="float32", num_workers=0)


@pytest.fixture(scope="module")
def model(paths):
    """A pipeline fitted on them."""
    model = make_taskres_pipeline("glyph-clip", class_names=list("0123456789"), max_epochs=2)
    model.set_params(clip__precision="float32", clip__num_workers=0)
    return model.fit(paths[:10], load_digits().target[:10])


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    "as_images",
    [
        list,
        np.array,
        lambda paths: [read_bytes(path) for path in paths],
        lambda paths: [{"bytes": read_bytes(path), "path": None} for path in paths],
        lambda paths: np.array([{"bytes": None, "path": path} for path in paths], dtype=object),
        lambda paths: [Image.open(path) for path in paths],
        lambda paths: np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]),
    ],
    ids=["paths", "array of paths", "bytes", "dicts", "array of dicts", "PIL", "stack"],
)
def test_rows_are_those_of_transform(clip, paths, as_images):
    """Whatever the images are in; other columns stay, pixels and bytes do not."""
    columns = BatchEncoder(clip, dtype="float32")({"id": [*range(12)], "image": as_images(paths)})
    assert columns["id"] == [*range(12)]
    assert_array_equal(columns["embedding"], clip.transform(paths))
    are_paths = as_images in (list, np.array)
    assert columns.keys() == {"id", "embedding", *(["image"] if are_paths else [])}


def test_float16_is_the_default(clip, paths):
    """Half of the space, within rounding of the exact rows."""
    rows = BatchEncoder(clip)({"image": paths})["embedding"]
    assert rows.dtype == np.float16
    assert_allclose(rows, clip.transform(paths), rtol=1e-3, atol=1e-3)


def test_unreadable_images(clip, model, paths):
    """They end the batch, or are nulls with a reason; the other rows are what they would be."""
    images = [paths[0], b"no image", paths[1], None]
    with pytest.raises(UnreadableImagesError):
        BatchEncoder(clip)({"image": images})
    columns = BatchEncoder(clip, dtype="float32", on_error="null")({"image": images})
    rows = columns["embedding"]
    assert [row is None for row in rows] == [False, True, False, True]
    assert_allclose(np.stack([rows[0], rows[2]]), clip.transform(paths[:2]), rtol=1e-5, atol=1e-5)
    assert [reason is None for reason in columns["error"]] == [True, False, True, False]
    predicted = BatchPredictor(model, top=2, proba=True, on_error="null")({"image": images})
    assert list(predicted) == ["label", "probability", "labels", "probabilities", "proba", "error"]
    expected = model.predict_proba(paths[:2])
    for name in list(predicted)[:-1]:
        assert [value is None for value in predicted[name]] == [False, True, False, True]
    assert_allclose(np.stack([predicted["proba"][i] for i in (0, 2)]), expected, atol=1e-5)
    assert [predicted["label"][i] for i in (0, 2)] == model.classes_[expected.argmax(1)].tolist()


def test_a_batch_of_unreadable_images_only(clip, model):
    """All nulls, and no model is asked."""
    columns = BatchEncoder(clip, on_error="null")({"image": [b"", b"x"]})
    assert columns["embedding"].tolist() == [None, None]
    columns = BatchPredictor(model, on_error="null")({"image": [b"", b"x"]})
    assert columns["label"].tolist() == columns["probability"].tolist() == [None, None]


def test_predictions_are_the_pipelines(model, paths):
    """Labels, and probabilities in the order of the classes or of themselves."""
    columns = BatchPredictor(model, top=3, proba=True)({"image": paths})
    expected = model.predict_proba(paths)
    assert_array_equal(columns["label"], model.predict(paths))
    assert_allclose(columns["proba"], expected, atol=1e-6)
    assert_allclose(columns["probability"], expected.max(axis=1), atol=1e-6)
    assert columns["labels"].shape == columns["probabilities"].shape == (12, 3)
    assert (np.diff(columns["probabilities"]) <= 0).all()


def test_bad_arguments(clip, model, paths):
    """One sentence each."""
    with pytest.raises(ValueError, match=r"on_error must be one of \['raise', 'null'\]"):
        BatchEncoder(clip, on_error="skip")
    with pytest.raises(ValueError, match="dtype must be one of"):
        BatchEncoder(clip, dtype="int8")
    with pytest.raises(ValueError, match="top must be an integer of at least 1"):
        BatchPredictor(model, top=0)
    with pytest.raises(KeyError, match=r"no column 'image'. It has \['photo'\]"):
        BatchEncoder(clip)({"photo": paths})


def test_a_callable_travels_without_weights(clip, model, paths):
    """A pickle holds parameters and the head, and the copy works."""
    encoder = BatchEncoder(clip)
    encoder({"image": paths})
    content = pickle.dumps(encoder)
    assert len(content) < 2_000
    copied = pickle.loads(content)  # noqa: S301 (our own)
    assert_array_equal(
        copied({"image": paths})["embedding"], encoder({"image": paths})["embedding"]
    )
    assert len(pickle.dumps(BatchPredictor(model))) < 100_000


def block(name):
    """Python of a named block on the page "Millions of images"."""
    page = Path(__file__).parents[1] / "docs" / "guide" / "millions.rst"
    found = re.search(rf"^( *):name: {name}\n\n((?:\1.*\n|\n)+)", page.read_text("utf-8"), re.M)
    return textwrap.dedent(found[2])


def test_pandas_as_spark_hands_it_over(clip, paths):
    """The page's function takes frames and gives frames of plain columns, as `mapInPandas` asks."""
    pd = pytest.importorskip("pandas")

    class Table:
        def mapInPandas(self, function, schema):
            frame = pd.DataFrame({"id": range(3), "image": [*paths[:2], "gone.jpg"]})
            (self.result,) = function(iter([frame]))

    table = Table()
    exec(block("spark-frames"), {"clip": clip, "table": table})  # noqa: S102 (our own page)
    frame = table.result
    assert list(frame.columns) == ["id", "image", "embedding", "error"]
    assert frame["embedding"].isna().tolist() == [False, False, True]
    rows = np.stack(frame["embedding"][:2])
    assert_array_equal(rows, clip.transform(paths[:2]).astype(np.float16))


def test_hugging_face_datasets(clip, model, paths):
    """`map(batched=True)` adds the columns."""
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"image": paths})
    rows = data.map(BatchEncoder(clip, dtype="float32"), batched=True, batch_size=5)
    assert_allclose(np.array(rows["embedding"]), clip.transform(paths), rtol=1e-5, atol=1e-5)
    labelled = data.map(BatchPredictor(model), batched=True, batch_size=5)
    assert labelled["label"][:] == model.predict(paths).tolist()


# files of parquet ---------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path, paths):
    """Three files of four paths each, one of them of a file that is not there."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = []
    for i in range(3):
        some = paths[4 * i : 4 * i + 4]
        if i == 1:
            some = [*some[:3], "gone.png"]
        files.append(tmp_path / f"part-{i}.parquet")
        parquet.write_table(arrow.table({"id": range(4), "image": some}), files[-1])
    return files


def test_shards_are_encoded_once(clip, paths, shards, tmp_path):
    """Each to a file of its own; what is there is skipped, and nothing half-written is left."""
    parquet = pytest.importorskip("pyarrow.parquet")
    encoder, out = BatchEncoder(clip, on_error="null"), tmp_path / "out"
    assert encode_shards(encoder, shards[:2], out, verbose=0) == (2, 0, 8, 1)
    assert encode_shards(encoder, shards, out, batch_size=3, verbose=0) == (1, 2, 4, 0)
    assert sorted(path.name for path in out.iterdir()) == [path.name for path in shards]
    table = parquet.read_table(out / "part-1.parquet")
    assert table.column("embedding").null_count == 1
    assert table.column("error")[3].as_py()
    assert table.column("id").to_pylist() == [0, 1, 2, 3]
    rows = np.array(parquet.read_table(out / "part-2.parquet").column("embedding").to_pylist())
    assert_array_equal(rows, clip.transform(paths[8:]).astype(np.float16))


def test_a_killed_run_goes_on(clip, shards, tmp_path):
    """What ended in the middle of a shard leaves the whole ones, and no other file."""
    out = tmp_path / "out"

    class Killed(BatchEncoder):
        n_left = 1

        def __call__(self, batch):
            if not self.n_left:
                raise KeyboardInterrupt
            self.n_left -= 1
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        encode_shards(Killed(clip, on_error="null"), shards, out, verbose=0)
    assert [path.name for path in out.iterdir()] == ["part-0.parquet"]
    encoder = BatchEncoder(clip, on_error="null")
    assert encode_shards(encoder, shards, out, verbose=0) == (2, 1, 8, 1)


def test_shards_of_another_encoder_are_not_taken(clip, shards, tmp_path):
    """A folder holds the embeddings of one model; two shards of one name are refused."""
    encode_shards(BatchEncoder(clip), shards[:1], tmp_path / "out", verbose=0)
    with pytest.raises(ValueError, match="was made by another encoder"):
        encode_shards(BatchEncoder(clip, dtype="float32"), shards[:1], tmp_path / "out", verbose=0)
    with pytest.raises(ValueError, match=r"Two shards are named 'part-0\.parquet'"):
        encode_shards(BatchEncoder(clip), [shards[0], shards[0]], tmp_path / "out", verbose=0)


def test_embeddings_are_read_back_as_a_memory_map(clip, paths, shards, tmp_path):
    """float16 rows of all files in their order; nulls are refused by name."""
    encoder, out = BatchEncoder(clip, on_error="null"), tmp_path / "out"
    encode_shards(encoder, shards, out, verbose=0)
    files = [out / "part-0.parquet", out / "part-2.parquet"]
    X = read_embeddings(files, tmp_path / "X.npy", batch_size=3)
    assert isinstance(X, np.memmap)
    expected = clip.transform(paths[:4] + paths[8:]).astype(np.float16)
    assert_array_equal(X, expected)
    with pytest.raises(ValueError, match=r"part-1\.parquet' has 1 rows without an embedding"):
        read_embeddings([out / "part-1.parquet"], tmp_path / "Y.npy")
    assert not (tmp_path / "Y.npy").exists()


def test_the_cost_of_a_job(clip, paths):
    """Hours and bytes follow from a sample's rate."""
    cost = CostEstimate(
        n_images=7_200_000, images_per_second=100, n_workers=4, bytes_per_image=1024
    )
    assert cost.hours == 5
    assert cost.gigabytes == pytest.approx(7.3728)
    assert "7,200,000 images at 100 per second" in str(cost)
    clip.set_params(cache=None)
    measured = CostEstimate.measure(BatchEncoder(clip), {"image": paths}, 1000, n_workers=2)
    assert measured.images_per_second > 0
    assert measured.bytes_per_image == 2 * 128


# engines ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ray_data(clip, paths, tmp_path):
    """The script of the page on a cluster of this machine: the rows of `transform`, and a null."""
    pytest.importorskip("ray")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = arrow.table({"id": range(13), "image": [*paths, "gone.png"]})
    parquet.write_table(images, tmp_path / "images.parquet")
    (tmp_path / "encode.py").write_text(block("ray-job"), encoding="utf-8")
    source, target, cache = (str(tmp_path / name) for name in ("images.parquet", "out", "cache"))
    subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, tmp_path / "encode.py", "glyph-clip", source, target, cache, "1"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(sklearn_taskres.__file__).parents[1])},
    )
    rows = sorted(parquet.read_table(target).to_pylist(), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == [*range(13)]
    found = np.array([row["embedding"] for row in rows[:-1]])
    cosines = (unit(found) * unit(clip.transform(paths))).sum(axis=1)
    assert (cosines > 0.999).all()  # in whatever precision "auto" is here
    assert rows[-1]["embedding"] is None
    assert "No such file" in rows[-1]["error"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_searches_on_other_backends(backend, clip, tmp_path):
    """GridSearchCV over a whole pipeline gives the scores that it gives without workers."""
    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == k)[:4] for k in range(3)])
    images, y = digits.images[rows] / 16, digits.target[rows]
    clip.set_params(cache=str(tmp_path / "cache"))
    model = make_pipeline(
        clip, TaskResClassifier("class_means", max_epochs=3, device="cpu", random_state=0)
    )
    search = GridSearchCV(model, {"taskresclassifier__alpha": [0.1, 1.0]}, cv=2)
    expected = search.fit(images, y).cv_results_["split0_test_score"]
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            distributed = pytest.importorskip("distributed")
            cluster = distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
            )
            stack.enter_context(cluster)
            stack.enter_context(distributed.Client(cluster))
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=2))
        found = search.fit(images, y).cv_results_
    assert_array_equal(found["split0_test_score"], expected)


def test_shards_keep_the_types_of_their_columns(clip, paths, tmp_path):
    """Missing paths, and columns that begin with nulls or are empty lists, end no job."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "image": [None, *paths[:5]],
        "caption": [None, None, None, None, "a", "b"],
        "tags": [[], [], [], [], ["x"], []],
        "small": arrow.array(range(6), arrow.int8()),
    }
    shard, out = tmp_path / "shard.parquet", tmp_path / "out"
    parquet.write_table(arrow.table(columns), shard)
    encoder = BatchEncoder(clip, on_error="null")
    assert encode_shards(encoder, [shard], out, batch_size=2, verbose=0) == (1, 0, 6, 1)
    before, after = parquet.read_table(shard), parquet.read_table(out / shard.name)
    for name in columns:
        assert after.column(name).type == before.column(name).type
        assert after.column(name).to_pylist() == before.column(name).to_pylist()
    assert after.column("embedding").null_count == 1


def test_rows_of_different_length_are_no_embeddings(tmp_path):
    """They are refused by the name of their file, and no file is left."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = iter(["ragged", "null", "wide", "good", "half", "numbers"])

    def written(rows):
        path = tmp_path / f"{next(names)}.parquet"
        parquet.write_table(arrow.table({"embedding": rows}), path)
        return path

    ragged, null = written([[1.0, 2.0], [1.0], []]), written([[1.0, None]])
    wide, good = written([[1.0, 2.0, 3.0]]), written([[1.0, 2.0]])
    half = written(arrow.array([[1.0, 2.0]], arrow.list_(arrow.float32())))
    for files, said in (
        ([ragged], r"ragged.parquet. has rows of different length"),
        ([null], "null.parquet. has rows of different length, or with missing numbers"),
        ([good, wide], r"wide.parquet. has embeddings of 3 numbers"),
        ([good, half], r"half.parquet. has embeddings of 2 numbers \(float32\)"),
        ([written([1.0, 2.0])], "not lists of numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            read_embeddings(files, tmp_path / "rows.npy")
    with pytest.raises(ValueError, match=r"good.parquet. has no column .other."):
        read_embeddings([good], tmp_path / "rows.npy", column="other")
    assert not list(tmp_path.glob("*.npy*"))
