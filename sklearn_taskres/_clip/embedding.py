"""Images to embeddings: looked up in the cache, decoded ahead in threads, encoded and kept."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from .claims import inside_a_pass
from .digests import digest_of_read, embedding_keys
from .images import UnreadableImagesError, describe_image, open_image
from .progress import EncodingProgress
from .stores import batched
from .views import augment_image, view_generator

#: Seconds of work claimed at a time: what others wait for, and what a kill may lose.
_BLOCK_SECONDS = 1.0


class View(NamedTuple):
    """What is encoded of an image: number 0 is the image as it is, others are augmented."""

    number: int
    augment: Any = None
    random_state: int | None = None

    @property
    def key(self):
        """What tells this view's embedding from others', or None if nothing can: a callable."""
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


def embed_images(images, views, plan, cache, *, verbose, **work):
    """Embed views of images, encoding each distinct one that is not in the cache once.

    Parameters
    ----------
    images : sequence of length n
        What `read_image` takes.
    views : list of View
        Slots of the result.
    plan : Plan
        Who encodes; nothing is loaded for images that are all in the cache.
    cache : EmbeddingCache
        Where embeddings are looked up and kept, also when reading others fails or is interrupted.
    verbose : int
        Whether a bar and a summary are shown.
    **work
        `batch_size` and `num_workers` as in CLIPFeaturizer.

    Returns
    -------
    ndarray of shape (n, n_views, d), float32

    Raises
    ------
    UnreadableImagesError
        If images can't be read; all the others are encoded first.
    """
    digests, fingerprint = cache.digests(images), plan.identity.fingerprint(plan.precision)
    keys = [_keys(digests, fingerprint, view) for view in views]
    rows, found = cache.get(list(itertools.chain(*keys)), plan.identity.embedding_size)
    rows = rows.reshape(len(views), len(images), -1)
    missing = ~found.reshape(len(views), len(images))
    cache.note_lookups(found)
    jobs, n_missing = _jobs(digests, missing), int(missing.any(axis=0).sum())
    n_left = sum(len(job.slots) for job in jobs)
    load_encoder = functools.partial(plan.load_encoder, n_left)
    with EncodingProgress(len(images), n_missing, len(jobs), verbose) as progress:
        if jobs:
            encoding = _Encoding(images, views, digests, keys, rows, cache, load_encoder)
            encoding.run(jobs, plan.on_cpu, progress, **work)
    return rows.transpose(1, 0, 2)


def _keys(digests, fingerprint, view):
    if view.key is None:
        return [None] * len(digests)
    return embedding_keys(digests, fingerprint, view.key)


class _Job(NamedTuple):
    """A distinct image to decode: the places in `images` that hold it, and the missing slots."""

    places: list[int]
    slots: list[int]


def _next_size(size, n_done, seconds, batch_size):
    """Jobs of the next block: whole batches of about a second, at most four times as many."""
    wanted = min(4 * size, n_done * _BLOCK_SECONDS / max(seconds, 1e-6))
    return max(1, int(wanted / batch_size)) * batch_size


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


@dataclasses.dataclass
class _Encoding:
    """A pass over images of which some are not in the cache; see `embed_images`.

    `digests` (n) and `keys` (n_views, n) are lists, `rows` (n_views, n, d) is filled.
    """

    images: Any
    views: list
    digests: list
    keys: list
    rows: np.ndarray
    cache: Any
    load_encoder: Callable
    failures: list = dataclasses.field(default_factory=list)

    def run(self, jobs, on_cpu, progress, batch_size, num_workers):
        """Do jobs, leaving to others what they are encoding for the same cache."""
        ahead = functools.partial(_by_turns, n_at_once=batch_size)
        if not on_cpu:
            ahead = functools.partial(_ahead, n_ahead=2 * batch_size)
        with (
            _mapper(num_workers, ahead) as decoded,
            self.cache.claims() as claims,
        ):
            encode = functools.partial(
                self._encode, decoded=decoded, batch_size=batch_size, progress=progress
            )
            size = batch_size
            while jobs:
                n_before = len(jobs)
                jobs, size = self._go_through(jobs, claims, encode, size, batch_size)
                jobs = self._left_of(jobs)
                claims.note_progress() if len(jobs) < n_before else claims.pause()
        if self.failures:
            raise UnreadableImagesError(sorted(self.failures))

    def _go_through(self, jobs, claims, encode, size, batch_size):
        """Claim and encode jobs block by block; return those that others hold, and the block size.

        A block is encoded and kept before the next is claimed, so a pass that waits holds nothing.
        """
        held, start = [], 0
        while start < len(jobs):
            begun = time.monotonic()
            ours, theirs = self._claimed(jobs[start : start + size], claims)
            start += size
            held += theirs
            if ours:
                with self.cache.collect_puts() as put:
                    encode(self._left_of(ours), put=put)
                size = _next_size(size, len(ours), time.monotonic() - begun, batch_size)
            claims.release()
        return held, size

    def _claimed(self, jobs, claims):
        """Return what is ours of jobs, and what others are encoding."""
        ours = claims.take({key for job in jobs for key in self._job_keys(job)} - {None})
        parts: dict = {True: [], False: []}
        for job in jobs:
            is_ours = [key is None or key in ours for key in self._job_keys(job)]
            for part, some in parts.items():
                slots = [s for s, mine in zip(job.slots, is_ours, strict=True) if mine is part]
                if slots:
                    some.append(_Job(job.places, slots))
        return parts[True], parts[False]

    def _job_keys(self, job):
        return [self.keys[slot][job.places[0]] for slot in job.slots]

    def _left_of(self, jobs):
        """Fill the rows that someone else has encoded meanwhile; return what is left of jobs."""
        wanted = [(slot, job) for job in jobs for slot in job.slots]
        keys = [self.keys[slot][job.places[0]] for slot, job in wanted]
        rows, found = self.cache.get(keys, self.rows.shape[2])
        left: dict = {}
        for (slot, job), row, is_found in zip(wanted, rows, found, strict=True):
            if is_found:
                self.rows[slot, job.places] = row
            else:
                left.setdefault(job.places[0], _Job(job.places, [])).slots.append(slot)
        return list(left.values())

    def _encode(self, jobs, decoded, batch_size, put, progress):
        """Encode jobs in full batches, noting failures."""
        if not jobs:
            return
        encoder = self.load_encoder()
        progress.start()
        waiting: list = []
        results = decoded(functools.partial(self._decode, encoder), jobs)
        for job, result in zip(jobs, results, strict=True):
            progress.update(is_read=not isinstance(result, ValueError))
            if isinstance(result, ValueError):
                why = str(result)
                self.failures += [(i, describe_image(self.images[i]), why) for i in job.places]
                continue
            pixels, is_same = result
            waiting += [(job, slot, p, is_same) for slot, p in zip(job.slots, pixels, strict=True)]
            while len(waiting) >= batch_size:
                self._encode_batch(waiting[:batch_size], encoder, put)
                del waiting[:batch_size]
        if waiting:
            self._encode_batch(waiting, encoder, put)

    def _encode_batch(self, batch, encoder, put):
        embeddings = encoder.encode_images([pixels for _, _, pixels, _ in batch])
        keys = []
        for (job, slot, _, is_same), embedding in zip(batch, embeddings, strict=True):
            self.rows[slot, job.places] = embedding
            keys.append(self.keys[slot][job.places[0]] if is_same else None)
        put(keys, embeddings)

    def _decode(self, encoder, job):
        """Return the pixels of each slot, and whether they are of the image that was digested."""
        image, digest = self.images[job.places[0]], self.digests[job.places[0]]
        try:
            with open_image(image) as (upright, content), inside_a_pass():
                is_same = content is image or digest_of_read(content, upright) == digest
                seen = (
                    self.views[s].of(upright, digest or b"", encoder.image_size) for s in job.slots
                )
                return [encoder.preprocess(view) for view in seen], is_same
        except ValueError as error:
            return error


# threads --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mapper(num_workers, ahead):
    """Give a map(function, items) in threads, ordered by `ahead`; in the caller's for 0 workers."""
    n_threads = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
    if n_threads == 0:
        yield map
        return
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="clip-decode")
    try:
        yield functools.partial(ahead, pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(pool, function, items, n_ahead):
    """Yield function(item) in order, others being computed or waiting while the caller works."""
    running: collections.deque = collections.deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) > n_ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _by_turns(pool, function, items, n_at_once):
    """Yield function(item): threads that decode would slow down those that encode on one CPU."""
    for some in batched(items, n_at_once):
        yield from list(pool.map(function, some))
