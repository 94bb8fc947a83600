"""Encode and predict batch by batch on someone else's engine: Ray Data, datasets, Spark.

The callables of this module take a batch, a dict of columns, and return a dict of columns. They
import no engine, are pickled without weights, and load their model when the first batch comes. The
shards and the reading back need pyarrow, ``pip install 'sklearn-taskres[parquet]'``.
"""

import contextlib
import importlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ._clip.images import UnreadableImagesError
from ._persistence import written_whole

__all__ = [
    "BatchEncoder",
    "BatchPredictor",
    "CostEstimate",
    "ShardSummary",
    "encode_shards",
    "read_embeddings",
]

OnError = Literal["raise", "null"]
Batch = Mapping[str, Sequence[Any]]
Columns = dict[str, Any]

#: Name of our entry in the metadata of a file of parquet.
_METADATA = b"sklearn_taskres"


class Transformer(Protocol):
    """What BatchEncoder needs of a featurizer."""

    def transform(self, X: Any, /) -> Any:
        """Embed images."""


class Classifier(Protocol):
    """What BatchPredictor needs of a fitted pipeline."""

    def predict_proba(self, X: Any, /) -> Any:
        """Return the probabilities of the classes."""


class BatchEncoder:
    """Embed the images of a batch; a callable for an engine that maps batches.

    Parameters
    ----------
    featurizer : CLIPFeaturizer
        What embeds, or anything with ``transform``. Give it ``num_workers`` for the cores that one
        worker of the engine has, and a folder for a cache if a job that was killed shall go on
        where it was.
    column : str, default="image"
        The column of images: paths, bytes, arrays, PIL images, or dicts with "bytes" and "path", as
        Hugging Face's datasets keep images that are not decoded. Paths and bytes travel best.
    output : str, default="embedding"
        The column of embeddings that is added.
    on_error : {"raise", "null"}, default="raise"
        What an unreadable image does. "raise" ends the batch with the error that lists all of them.
        "null" gives it None for an embedding and the reason in the column "error", which is None
        for the other rows: one corrupt file among a million does not end a job.
    dtype : {"float16", "float32"}, default="float16"
        Of the embeddings. float16 takes half of the space and keeps a cosine of 0.999999; raw
        embeddings of CLIP fit into it.

    See Also
    --------
    BatchPredictor : Labels instead of embeddings.
    encode_shards : A loop over files of parquet, for one machine or a few.

    Notes
    -----
    Called with a batch, it returns its columns and the new ones. The column of images is left out
    unless it holds paths: bytes and pixels would fill the memory of an engine.

    With ``on_error="null"`` and a featurizer without a cache, the good images of a batch that has a
    bad one are embedded twice.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres import CLIPFeaturizer
    >>> from sklearn_taskres.distributed import BatchEncoder
    >>> encode = BatchEncoder(CLIPFeaturizer("glyph-clip"), on_error="null")
    >>> batch = {"id": [1, 2], "image": [load_digits().images[0] / 16, b"no image"]}
    >>> columns = encode(batch)
    >>> list(columns), columns["id"]
    (['id', 'embedding', 'error'], [1, 2])
    >>> len(columns["embedding"][0]), columns["embedding"][1] is None
    (128, True)
    """

    def __init__(
        self,
        featurizer: Transformer,
        column: str = "image",
        output: str = "embedding",
        *,
        on_error: OnError = "raise",
        dtype: Literal["float16", "float32"] = "float16",
    ) -> None:
        _check_choice("on_error", on_error, ("raise", "null"))
        _check_choice("dtype", dtype, ("float16", "float32"))
        self.featurizer = featurizer
        self.column = column
        self.output = output
        self.on_error = on_error
        self.dtype = dtype

    def __call__(self, batch: Batch) -> Columns:
        """Embed one batch.

        Parameters
        ----------
        batch : dict of str to sequence
            Columns of the same length.

        Returns
        -------
        dict of str to sequence
            The columns of the batch, except images that are not paths, and `output`: an array
            (n, d), or, with ``on_error="null"``, an array (n,) of lists of d numbers and None.

        Raises
        ------
        KeyError
            If the batch has no such column.
        UnreadableImagesError
            If images cannot be read and `on_error` is "raise".
        """

        def embed(images):
            return np.asarray(self.featurizer.transform(images)).astype(self.dtype)

        columns, images = _parted(batch, self.column)
        if self.on_error == "raise":
            return {**columns, self.output: embed(images)}
        rows, good, reasons = _readable(embed, images)
        return {**columns, self.output: _spread(rows, good, len(images)), "error": reasons}


class BatchPredictor:
    """Label the images of a batch; a callable for an engine that maps batches.

    Parameters
    ----------
    pipeline : Pipeline
        A fitted one of a CLIPFeaturizer and a classifier, or anything with ``predict_proba`` and
        ``classes_``.
    column : str, default="image"
        The column of images, as in `BatchEncoder`; or of embeddings, if the pipeline takes those.
    top : int, default=1
        With more than 1, the columns "labels" and "probabilities" hold so many, the best first.
    proba : bool, default=False
        Whether the column "proba" holds the probabilities of all classes, in their order.
    on_error : {"raise", "null"}, default="raise"
        As in `BatchEncoder`; with "null", the row of an unreadable image has None in each new
        column.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres import make_taskres_pipeline
    >>> from sklearn_taskres.distributed import BatchPredictor
    >>> X, y = load_digits().images[:100] / 16, load_digits().target[:100]
    >>> model = make_taskres_pipeline("glyph-clip", class_names=list("0123456789")).fit(X, y)
    >>> columns = BatchPredictor(model, top=2)({"image": X[:3]})
    >>> list(columns), columns["label"].tolist()
    (['label', 'probability', 'labels', 'probabilities'], [0, 1, 2])
    """

    def __init__(
        self,
        pipeline: Classifier,
        column: str = "image",
        *,
        top: int = 1,
        proba: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        _check_choice("on_error", on_error, ("raise", "null"))
        if top < 1:
            raise ValueError(f"top must be an integer of at least 1. Got {top!r} instead.")
        self.pipeline = pipeline
        self.column = column
        self.top = top
        self.proba = proba
        self.on_error = on_error

    def __call__(self, batch: Batch) -> Columns:
        """Label one batch.

        Parameters
        ----------
        batch : dict of str to sequence
            Columns of the same length.

        Returns
        -------
        dict of str to sequence
            The columns of the batch, except images that are not paths, and "label" (n,),
            "probability" (n,) and what `top` and `proba` ask for.

        Raises
        ------
        KeyError
            If the batch has no such column.
        UnreadableImagesError
            If images cannot be read and `on_error` is "raise".
        """
        columns, images = _parted(batch, self.column)
        if self.on_error == "raise":
            return {**columns, **self._predicted(np.asarray(self.pipeline.predict_proba(images)))}
        found, good, reasons = _readable(self.pipeline.predict_proba, images)
        new = self._predicted(np.asarray(found)) if good else dict.fromkeys(self._names(), ())
        spread = {name: _spread(values, good, len(images)) for name, values in new.items()}
        return {**columns, **spread, "error": reasons}

    def _names(self):
        several = ["labels", "probabilities"] if self.top > 1 else []
        return ["label", "probability", *several, *(["proba"] if self.proba else [])]

    def _predicted(self, probabilities):
        """Return the new columns, given probabilities (n, K)."""
        classes = np.asarray(self.pipeline.classes_)  # type: ignore[attr-defined]
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top]
        best = np.take_along_axis(probabilities, order, axis=1)
        several = classes[order], best
        values = [classes[order[:, 0]], best[:, 0], *(several if self.top > 1 else ())]
        values += [probabilities] if self.proba else []
        return dict(zip(self._names(), values, strict=True))


def _check_choice(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} must be one of {list(allowed)}. Got {value!r} instead.")


def _parted(batch, column):
    """Return the columns to keep, and the images as a featurizer takes them."""
    if column not in batch:
        raise KeyError(f"The batch has no column {column!r}. It has {sorted(batch)}.")
    images = batch[column]
    if getattr(images, "ndim", 1) == 1:  # no stack of pixels
        images = images.tolist() if isinstance(images, np.ndarray) else list(images)
    are_paths = all(isinstance(image, str | None) for image in images)
    kept = {name: values for name, values in batch.items() if name != column or are_paths}
    if isinstance(images, list):
        images = [_undecoded(image) if isinstance(image, dict) else image for image in images]
    return kept, images


def _undecoded(image):
    """Bytes or path of an image that Hugging Face's datasets did not decode."""
    return image["path"] if image.get("bytes") is None else image["bytes"]


def _readable(function, images):
    """Return what a function gives for readable images, their places, and reasons (n,)."""
    reasons = np.full(len(images), None)
    try:
        return function(images), list(range(len(images))), reasons
    except UnreadableImagesError as error:
        for index, _, reason in error.failures:
            reasons[index] = reason
    good = [i for i in range(len(images)) if reasons[i] is None]
    return function([images[i] for i in good]) if good else (), good, reasons


def _spread(values, places, n):
    """Put values to their places among n, with None between.

    Rows become lists, which Arrow turns into a column whether or not there are nulls.
    """
    spread = np.full(n, None)
    for place, value in zip(places, values, strict=True):
        spread[place] = list(value) if np.ndim(value) else value
    return spread


# files of parquet ---------------------------------------------------------------------------------


class ShardSummary(NamedTuple):
    """What :func:`encode_shards` did."""

    #: Shards encoded now, and found done.
    done: int
    skipped: int
    #: Rows encoded now, unreadable ones among them.
    rows: int
    unreadable: int


def encode_shards(
    encoder: BatchEncoder,
    shards: Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 1024,
    verbose: int = 1,
) -> ShardSummary:
    """Encode files of parquet into a folder, one file for each, and go on if a run was killed.

    A file is written under another name and renamed when it is whole, and a file that is there is
    skipped. So the same call goes on after a crash, and several machines share the work if each
    takes a part of the shards (``shards[i::n_machines]``) and writes to the same folder.

    Parameters
    ----------
    encoder : BatchEncoder
        With ``on_error="null"`` an unreadable image is a null; with "raise" it ends the call, and
        the shards that are done stay.
    shards : iterable of path-like
        Files of parquet with the encoder's column of images. A shard of some 10 000 images is
        minutes of work, which is what a crash may cost.
    folder : path-like
        Where the files of embeddings are written, each under the name of its shard.
    batch_size : int, default=1024
        Rows that are read and encoded at once.
    verbose : int, default=1
        1 shows a progress bar of the shards on stderr.

    Returns
    -------
    ShardSummary
        ``done``, ``skipped``, ``rows``, ``unreadable``.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    KeyError
        If a shard has no such column.
    ValueError
        If two shards have the same name, or a file in the folder was made by another encoder.
    """
    parquet = _pyarrow("pyarrow.parquet")
    paths, folder = [Path(shard) for shard in shards], Path(folder)
    names = [path.name for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two shards are named {twice[0]!r}, and would be written to the same file of "
            f"{str(folder)!r}. Rename one, or write them to two folders."
        )
    folder.mkdir(parents=True, exist_ok=True)
    maker = _maker(encoder)
    done = skipped = n_rows = unreadable = 0
    for path in tqdm(paths, desc="encoding shards", unit="shard", disable=not verbose):
        target = folder / path.name
        if target.exists():
            _check_maker(parquet, target, maker)
            skipped += 1
            continue
        with written_whole(target) as part:
            rows, nulls = _encode_shard(parquet, encoder, path, part, batch_size, maker)
        done, n_rows, unreadable = done + 1, n_rows + rows, unreadable + nulls
    return ShardSummary(done, skipped, n_rows, unreadable)


def _encode_shard(parquet, encoder, path, part, batch_size, maker):
    """Write the embeddings of a shard; return the number of rows, and of nulls among them."""
    arrow = _pyarrow("pyarrow")
    n_rows = nulls = 0
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(parquet.ParquetFile(path))
        kept = _kept_columns(arrow, source.schema_arrow, encoder, path)
        writer = None
        for some in source.iter_batches(batch_size):
            made = encoder({encoder.column: some.column(encoder.column).to_pylist()})
            rows = made[encoder.output]
            columns = {name: some.column(name) for name in kept}
            columns[encoder.output] = _as_arrow(arrow, rows, encoder.dtype)
            if encoder.on_error == "null":
                columns["error"] = arrow.array(made["error"], arrow.string())
            table = arrow.table(columns).replace_schema_metadata({_METADATA: maker})
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(part, table.schema))
            writer.write_table(table)
            n_rows, nulls = n_rows + len(rows), nulls + sum(row is None for row in rows)
        if writer is None:
            raise ValueError(f"The shard {str(path)!r} has no rows. Leave it out.")
    return n_rows, nulls


def _kept_columns(arrow, schema, encoder, path):
    """Names of the columns of a shard that go with the embeddings: pixels and bytes do not."""
    if encoder.column not in schema.names:
        raise KeyError(
            f"The shard {str(path)!r} has no column {encoder.column!r}. It has {schema.names}."
        )
    kind = schema.field(encoder.column).type
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    are_paths = arrow.types.is_string(kind) or arrow.types.is_large_string(kind)
    return [name for name in schema.names if name != encoder.column or are_paths]


def _as_arrow(arrow, rows, dtype):
    """Return rows (n, d), or rows (d,) and None, as lists of a fixed size."""
    good = [row for row in rows if row is not None]
    kind = arrow.float16() if dtype == "float16" else arrow.float32()
    if not good:
        return arrow.nulls(len(rows), arrow.list_(kind))
    d = len(good[0])
    places = np.cumsum([row is not None for row in rows]) - 1
    taken = arrow.array(
        [int(p) if row is not None else None for p, row in zip(places, rows, strict=True)],
        arrow.int64(),
    )
    flat = arrow.array(np.concatenate(good), kind)
    return arrow.FixedSizeListArray.from_arrays(flat, d).cast(arrow.list_(kind)).take(taken)


def _maker(encoder):
    """Describe what makes embeddings, as a file keeps it."""
    clip = encoder.featurizer
    params = clip.get_params() if hasattr(clip, "get_params") else {}
    names = ("model_name", "pretrained", "normalize", "precision", "backend")
    described = {name: str(params[name]) for name in names if name in params}
    described |= {"featurizer": type(clip).__name__, "dtype": encoder.dtype}
    return json.dumps(described, sort_keys=True).encode()


def _check_maker(parquet, path, maker):
    found = (parquet.read_schema(path).metadata or {}).get(_METADATA)
    if found != maker:
        raise ValueError(
            f"{str(path)!r} is there and was made by another encoder ({found!r}) than this one "
            f"({maker!r}). Write to another folder, or delete it."
        )


def read_embeddings(
    files: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    column: str = "embedding",
    batch_size: int = 8192,
) -> NDArray[Any]:
    """Copy a column of embeddings from files of parquet to a memory map that `fit` takes.

    Classifiers read a memory map, and float16, batch by batch: a million rows need no copy in
    memory.

    Parameters
    ----------
    files : iterable of path-like
        Files of parquet, as :func:`encode_shards` writes them. Their rows follow each other.
    out : path-like
        The ``.npy`` file to write; as many bytes as the embeddings have.
    column : str, default="embedding"
        Which column.
    batch_size : int, default=8192
        Rows that are read at once.

    Returns
    -------
    memmap of shape (n_rows, d)
        Read-only, with the dtype of the column.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        If there are no rows, or one is null: drop those with ``error`` first, and their labels. If
        a file has no such column, or its rows are not as many numbers of the same kind as the
        first.
    """
    parquet = _pyarrow("pyarrow.parquet")
    files, out = [Path(file) for file in files], Path(out)
    n_rows = sum(parquet.read_metadata(file).num_rows for file in files)
    if not n_rows:
        raise ValueError("The files hold no rows.")
    rows: Any = None
    start = 0
    with written_whole(out) as part:
        for file in files:
            with parquet.ParquetFile(file) as source:
                if column not in source.schema_arrow.names:
                    raise ValueError(
                        f"{str(file)!r} has no column {column!r}. It has "
                        f"{source.schema_arrow.names}."
                    )
                for some in source.iter_batches(batch_size, columns=[column]):
                    values = _plain_rows(some.column(0), file)
                    if rows is not None and (values.dtype, values.shape[1]) != (
                        rows.dtype,
                        rows.shape[1],
                    ):
                        raise ValueError(
                            f"{str(file)!r} has embeddings of {values.shape[1]} numbers "
                            f"({values.dtype}), and the first file of {rows.shape[1]} "
                            f"({rows.dtype}). Read files of one encoder."
                        )
                    if rows is None:
                        shape = (n_rows, values.shape[1])
                        rows = np.lib.format.open_memmap(part, "w+", values.dtype, shape)
                    rows[start : start + len(values)] = values
                    start += len(values)
        rows.flush()
    return np.load(out, mmap_mode="r")


def _plain_rows(values, file):
    """Rows (n, d) of a column of lists, without a copy."""
    if values.null_count:
        raise ValueError(
            f"{str(file)!r} has {values.null_count} rows without an embedding. Write files without "
            f"them first, and leave out their labels."
        )
    if not hasattr(values, "flatten"):
        raise ValueError(f"{str(file)!r} holds {values.type} there, and not lists of numbers.")
    flat = values.flatten()
    widths = np.diff(values.offsets.to_numpy()) if hasattr(values, "offsets") else np.zeros(1)
    if flat.null_count or widths.min() != widths.max():
        raise ValueError(
            f"{str(file)!r} has rows of different length, or with missing numbers: these are not "
            f"embeddings of one model."
        )
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), -1)


def _pyarrow(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(
            "Files of parquet need the package pyarrow. Install it with: pip install "
            "'sklearn-taskres[parquet]'"
        ) from None


# what it will cost --------------------------------------------------------------------------------


class CostEstimate(NamedTuple):
    """Hours and bytes of a job, from images per second measured on this machine."""

    n_images: int
    images_per_second: float
    n_workers: int
    bytes_per_image: int

    @property
    def hours(self) -> float:
        """Hours of all workers together, side by side."""
        return self.n_images / self.images_per_second / self.n_workers / 3600

    @property
    def gigabytes(self) -> float:
        """Size of the embeddings."""
        return self.n_images * self.bytes_per_image / 1e9

    def __str__(self) -> str:
        return (
            f"{self.n_images:,} images at {self.images_per_second:,.0f} per second and worker, "
            f"{self.n_workers} workers: {self.hours:,.1f} hours, {self.gigabytes:,.1f} GB of "
            f"embeddings"
        )

    @classmethod
    def measure(
        cls,
        encode: Callable[[Batch], Columns],
        sample: Batch,
        n_images: int,
        n_workers: int = 1,
    ) -> Self:
        """Time a sample on this machine, and scale it up.

        Parameters
        ----------
        encode : BatchEncoder
            What the job will call; give its featurizer ``cache=None``, or a sample that no cache
            knows.
        sample : dict of str to sequence
            A few hundred images as they come in the job.
        n_images : int
            Images of the job.
        n_workers : int, default=1
            Workers like this machine that share them.

        Returns
        -------
        CostEstimate
        """
        first = next(iter(sample.values()))
        encode({name: values[:1] for name, values in sample.items()})  # loads the model
        begun = time.perf_counter()
        columns = encode(sample)
        seconds = time.perf_counter() - begun
        rows = columns[getattr(encode, "output", "embedding")]
        row = np.asarray(next(row for row in rows if row is not None))
        return cls(n_images, len(first) / seconds, n_workers, row.nbytes)
