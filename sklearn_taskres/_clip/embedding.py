"""Images to embeddings: looked up in the cache, decoded ahead in threads, encoded and kept."""

import collections
import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from .digests import content_digest, embedding_keys, is_path
from .images import UnreadableImagesError, describe_image, read_file, read_image
from .stores import chunks
from .views import augment_image, view_generator


class View(NamedTuple):
    """What is encoded of an image: number 0 is the image as it is, others are augmented."""

    number: int
    augment: Any = None
    random_state: int | None = None

    @property
    def key(self):
        """What tells this view's embedding from others', or None where nothing can: a callable."""
        if self.number == 0:
            return 0
        seed = self.random_state or 0
        return None if callable(self.augment) else (self.augment, self.number, seed)

    def of(self, image, digest, size):
        """Return this view of a PIL image, drawn from the image's digest alone."""
        if self.number == 0:
            return image
        rng = view_generator(digest, self.number, self.random_state)
        return augment_image(image, self.augment, rng, size)


def embed_images(images, views, source, fingerprint, load_encoder, cache, **work):
    """Embed views of images, encoding each distinct one that is not in the cache once.

    Parameters
    ----------
    images : sequence of length n
        What `read_image` takes.
    views : list of View
        Slots of the result.
    source : ModelSource
        The model; it is not loaded for images that are all in the cache.
    fingerprint : str
        Of the encoder.
    load_encoder : callable
        Returns the encoder.
    cache : EmbeddingCache
        Where embeddings are looked up and kept, also when reading others fails or is interrupted.
    **work
        `batch_size`, `num_workers` and `verbose` as in CLIPFeaturizer.

    Returns
    -------
    ndarray of shape (n, n_views, d), float32

    Raises
    ------
    UnreadableImagesError
        If images can't be read; all the others are encoded first.
    """
    digests = cache.digests(images)
    keys = [_keys(digests, fingerprint, view) for view in views]
    rows, found = cache.get(list(itertools.chain(*keys)), source.embedding_size)
    rows = rows.reshape(len(views), len(images), -1)
    missing = ~found.reshape(len(views), len(images))
    if missing.any():
        jobs = _jobs(digests, missing)
        with cache.collect_puts() as put:
            failures = _encode(
                images, views, digests, jobs, load_encoder(), rows, keys, put, **work
            )
        if failures:
            raise UnreadableImagesError(sorted(failures))
    return rows.transpose(1, 0, 2)


def _keys(digests, fingerprint, view):
    if view.key is None:
        return [None] * len(digests)
    return embedding_keys(digests, fingerprint, view.key)


class _Job(NamedTuple):
    """A distinct image to decode: the places in `images` that hold it, and the missing slots."""

    places: list[int]
    slots: list[int]


def _jobs(digests, missing):
    """List what is to be decoded; images of one content are one job, unreadable ones their own."""
    jobs: dict = {}
    for place in np.flatnonzero(missing.any(axis=0)).tolist():
        content = place if digests[place] is None else digests[place]
        if content in jobs:
            jobs[content].places.append(place)
        else:
            jobs[content] = _Job([place], np.flatnonzero(missing[:, place]).tolist())
    return list(jobs.values())


def _encode(images, views, digests, jobs, encoder, rows, keys, put, *, batch_size, **work):
    """Encode jobs into `rows` (n_views, n, d) in full batches; return the failures."""
    failures: list = []

    def decode(job):
        return _decode(images[job.places[0]], digests[job.places[0]], job.slots, views, encoder)

    waiting = []
    overlaps = encoder.device.type != "cpu"  # else both want the same cores, and take turns
    for job, result in _decoded(decode, jobs, batch_size, overlaps, **work):
        if isinstance(result, ValueError):
            failures += [(i, describe_image(images[i]), str(result)) for i in job.places]
            continue
        pixels, is_same = result
        waiting += [(job, slot, p, is_same) for slot, p in zip(job.slots, pixels, strict=True)]
        while len(waiting) >= batch_size:
            _encode_batch(waiting[:batch_size], encoder, rows, keys, put)
            del waiting[:batch_size]
    if waiting:
        _encode_batch(waiting, encoder, rows, keys, put)
    return failures


def _encode_batch(batch, encoder, rows, keys, put):
    embeddings = encoder.encode_images([pixels for _, _, pixels, _ in batch])
    for (job, slot, _, _), embedding in zip(batch, embeddings, strict=True):
        rows[slot, job.places] = embedding
    put([keys[s][job.places[0]] if is_same else None for job, s, _, is_same in batch], embeddings)


def _decode(image, digest, slots, views, encoder):
    """Return the pixels of each slot, and whether the image is still what was digested."""
    try:
        content = read_file(image) if is_path(image) else image  # read once: digested and decoded
        is_same = content is image or content_digest(content) == digest
        upright = read_image(content)
        size = encoder.image_size
        seen = [views[slot].of(upright, digest or b"", size) for slot in slots]
        return [encoder.preprocess(view) for view in seen], is_same
    except ValueError as error:
        return error


def _decoded(decode, jobs, batch_size, overlaps, num_workers, verbose):
    """Yield (job, decode(job)) in order, decoded in threads.

    Where `overlaps` is true threads work two batches ahead, and else a batch is decoded before its
    first item is yielded, while the caller waits.
    """
    n_threads = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_progress(len(jobs), verbose))
        if n_threads == 0:
            results = map(decode, jobs)
        else:
            pool = ThreadPoolExecutor(n_threads, thread_name_prefix="clip-decode")
            stack.callback(pool.shutdown, cancel_futures=True)
            ahead = _ahead if overlaps else _by_turns
            results = ahead(pool, decode, jobs, batch_size)
        for job, result in zip(jobs, results, strict=True):
            yield job, result
            progress.update()


def _ahead(pool, function, items, batch_size):
    """Yield function(item) in order, up to two batches being computed or waiting meanwhile."""
    running: collections.deque = collections.deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > 2 * batch_size:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _by_turns(pool, function, items, batch_size):
    """Yield function(item) in order; nothing is computed while the caller works on a batch."""
    for some in chunks(items, batch_size):
        yield from list(pool.map(function, some))


def _progress(n_items, verbose):
    from tqdm import tqdm

    return tqdm(total=n_items, desc="encoding images", unit="img", disable=not verbose)
