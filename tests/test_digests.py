"""What a file's stamp trusts, and what is refused before a byte of it is read."""

import os
import signal
import types

import pytest
from PIL import Image

from sklearn_taskres import EmbeddingCache
from sklearn_taskres._clip.digests import content_digest, file_key


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(200 * b"x")
    return path


@pytest.fixture
def state(path, monkeypatch):
    """What `os.stat` says about the file, to be changed: no file has a time or device at will."""
    real, stat = path.stat(), os.stat
    names = ("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")
    state = types.SimpleNamespace(**{name: getattr(real, name) for name in names})
    state.st_mtime_ns = state.st_ctime_ns = 1_700_000_000_123_456_789

    def stat_of(asked, *args, **kwargs):
        return state if asked == path else stat(asked, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat_of)
    return state


def test_a_key_holds_the_device(path, state):
    """Two file systems give one inode, size and time to two files."""
    before = file_key(path, b"")
    assert file_key(path, b"") == before
    state.st_dev += 1
    assert file_key(path, b"") != before


def test_a_time_of_whole_seconds_is_not_trusted(path, state, opened):
    """Images of data sets built with fixed times repeat them: such a file is digested each time."""
    for ctime, times in [(1_700_000_000_000_000_000, 2), (1_700_000_000_123_456_789, 1)]:
        state.st_ctime_ns = ctime
        EmbeddingCache("memory").clear()
        opened.clear()
        for _ in range(2):
            assert EmbeddingCache("memory").digests([path]) == [content_digest(200 * b"x")]
        assert opened == [path] * times


def test_a_file_larger_than_any_image_is_not_digested(path, opened):
    """A hole of a terabyte costs nothing: its size is looked at before it is read."""
    assert len(content_digest(path)) == 32
    opened.clear()
    size = 4 * Image.MAX_IMAGE_PIXELS + 1
    os.truncate(path, size)
    with pytest.raises(ValueError, match=f"a file of {size} bytes, larger than an image"):
        content_digest(path)
    assert EmbeddingCache(None).digests([path]) == [None]
    assert opened == []


def test_an_empty_file_is_not_opened(tmp_path, opened):
    """The files that a kernel makes up have no size, and some are waited for without end."""
    (tmp_path / "empty").touch()
    opened.clear()
    with pytest.raises(ValueError, match="an empty file"):
        content_digest(tmp_path / "empty")
    assert opened == []


def test_an_alarm_is_not_swallowed(path, on_event):
    """A timeout that the user's signal handler raises ends the pass."""

    def ring(*_):
        raise TimeoutError("an alarm")

    def at_our_file(opened, *_):
        if opened == str(path):
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, ring)
    on_event("open", at_our_file)
    try:
        with pytest.raises(TimeoutError, match="an alarm"):
            EmbeddingCache(None).digests([path])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_path_that_raises_has_no_key():
    """A path-like object that does not tell its path is left to the reader of images."""

    class Raises:
        def __fspath__(self):
            raise RuntimeError("boom")

    assert file_key(Raises(), b"") is None
    assert EmbeddingCache("memory").digests([Raises()]) == [None]
