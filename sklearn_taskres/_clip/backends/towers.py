"""Converted image towers on the disk: data in folders that are there whole, or not at all."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..._messages import warn_once
from ..._persistence import written_whole
from ..identity import ModelIdentity, model_stamps

#: The folder of ours in a cache folder, and in the user's cache directory. Another number stands
#: for another way to convert.
FOLDER = "sklearn-taskres-towers-v4"
_MANIFEST = "manifest.json"
#: Seconds to wait for whoever converts the same tower.
_LOCK_SECONDS = 600
#: A file younger than this may be rewritten without a trace in its times.
RACY_SECONDS = 2
#: Bytes of a file that one thread reads at once.
PART_BYTES = 1 << 23


class Towers:
    """The converted towers in a folder, shared by processes and runs.

    A tower's folder is named by the model's fingerprint and the engine. It is written under another
    name and then renamed, so that a process that is killed leaves nothing that looks like a tower;
    one process at a time converts, and the others wait and find it. A manifest has the digest of
    each file, which is compared before an engine reads it. What goes wrong with the disk is one
    warning, and never an error.

    Parameters
    ----------
    root : path-like
        Where to; made when there is something to keep.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)

    # which model a name stands for ----------------------------------------------------------------

    def identity(self, model_name: str, pretrained: str | None) -> ModelIdentity | None:
        """Return who a model is, if its tower was converted and its files have not changed."""
        try:
            content = (self.root / self._record(model_name, pretrained)).read_bytes()
            record = json.loads(content)
            if record["digest"] == _digest_of(record["identity"]):
                return ModelIdentity(**record["identity"])
        except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
            return None
        return None

    def remember(
        self,
        model_name: str,
        pretrained: str | None,
        identity: ModelIdentity,
        *,
        racy_seconds: float = RACY_SECONDS,
    ) -> None:
        """Note who a model is, for processes that are to find its tower without open_clip.

        Parameters
        ----------
        model_name : str
            As `find_model` takes it.
        pretrained : str or None
            As `find_model` takes it.
        identity : ModelIdentity
            What it found.
        racy_seconds : float, default=2
            Age from which on files are trusted to show in their times that they were rewritten.
            Of a model with a younger file nothing is noted.
        """
        changed = [max(stamp[-2:]) for stamp in model_stamps(model_name, pretrained)]
        if any(time.time_ns() - at < racy_seconds * 1e9 for at in changed):
            return
        about = identity.as_json()
        content = json.dumps({"identity": about, "digest": _digest_of(about)})
        with contextlib.suppress(OSError):  # whoever comes next imports open_clip
            for version in (_open_clip_version(), None):
                path = self.root / self._record(model_name, pretrained, version)
                path.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(path) as part:
                    part.write_text(content, encoding="utf-8")

    def _record(self, model_name, pretrained, version=""):
        """Name of the file that says who a model is; a changed weights file has another one."""
        version = _open_clip_version() if version == "" else version
        files = model_stamps(model_name, pretrained)
        return Path("names", _digest_of([model_name, pretrained, files, version]) + ".json")

    # towers ---------------------------------------------------------------------------------------

    def has(self, identity: ModelIdentity, engine: str) -> bool:
        """Whether there is a tower of a model for an engine, whatever state it is in."""
        return (self._folder(identity, engine) / _MANIFEST).is_file()

    def find(self, identity: ModelIdentity, engine: str) -> Path | None:
        """Return the folder of a tower whose files are those that were written, or None."""
        folder, digests = self._folder(identity, engine), {}
        if not self.has(identity, engine):
            return None
        try:
            digests = json.loads((folder / _MANIFEST).read_bytes())["files"]
            is_whole = all(_file_digest(folder / name) == digests[name] for name in digests)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            is_whole = False
        if is_whole and digests:
            return folder
        warn_once(
            ("tower", folder),
            f"The converted image tower in {folder} is damaged. It is converted again.",
        )
        return None

    @contextlib.contextmanager
    def alone(self, identity: ModelIdentity, engine: str) -> Iterator[None]:
        """Let one process at a time convert a tower; if the disk has no locks, all of them."""
        import filelock

        path = self._folder(identity, engine).with_suffix(".lock")
        lock = filelock.FileLock(path, timeout=_LOCK_SECONDS)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError):  # Timeout is an OSError
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def keep(
        self,
        identity: ModelIdentity,
        engine: str,
        write: Callable[[Path], None],
        check: Callable[[Path], None],
    ) -> None:
        """Keep a tower, replacing a damaged one; only in a block of `alone`.

        Parameters
        ----------
        identity : ModelIdentity
            Of the model.
        engine : str
            Name of the engine.
        write : callable
            Writes the tower's files into a folder.
        check : callable
            Reads them again, and raises if they are not what was to be written.
        """
        folder = self._folder(identity, engine)
        part = folder.with_suffix(f".{secrets.token_hex(8)}")
        try:
            for left in self.root.glob(f"{folder.name}.*"):  # by processes that were killed
                if left.suffix != ".lock":
                    shutil.rmtree(left, ignore_errors=True)
            part.mkdir(parents=True)
            write(part)
            check(part)
            digests = {path.name: _file_digest(path) for path in sorted(part.iterdir())}
            (part / _MANIFEST).write_text(json.dumps({"files": digests}), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        except Exception as error:  # engines raise their own kinds on a full disk
            shutil.rmtree(part, ignore_errors=True)
            warn_once(
                "towers",
                f"The converted image tower can't be kept in {self.root}: {_first_line(error)}. "
                f"It is used, and each process converts it again, which takes seconds. Name a "
                f"folder that can be written to, as in cache='embeddings', or free some space.",
            )

    def clear(self) -> None:
        """Remove all towers; raise OSError if that can't be done."""
        if self.root.is_dir():
            shutil.rmtree(self.root)

    def _folder(self, identity, engine):
        return self.root / f"{identity.fingerprint('float32')}-{engine}"


def _open_clip_version():
    """Version of open_clip, whose configurations decide who a model is; None where it is not."""
    try:
        return importlib.metadata.version("open_clip_torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _digest_of(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def _file_digest(path):
    """Digest of the digests of a file's parts, which threads compute."""

    def digest_at(start):
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.sha256(file.read(PART_BYTES)).digest()

    with ThreadPoolExecutor() as pool:
        parts = pool.map(digest_at, range(0, path.stat().st_size, PART_BYTES))
        return hashlib.sha256(b"".join(parts)).hexdigest()


def _first_line(error):
    return str(error).strip().partition("\n")[0].rstrip(". ") or type(error).__name__
