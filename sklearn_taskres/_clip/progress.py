"""What people see while images are encoded: a bar, how long it will take, and what was done."""

import sys
import time
from typing import Any, Self

from .._messages import warn_once
from .stores import Clock

#: Seconds of encoding after which the rate is known, and minutes left from which on it is told.
_KNOWN_AFTER, _LONG = 5.0, 60.0


class EncodingProgress:
    """Counts of one pass over images, and the bar that shows them.

    A context. Without `verbose` it is silent, unless hours of work lie ahead: then it warns once
    how long it will take.

    Parameters
    ----------
    n_images : int
        Images asked for.
    n_missing : int
        Those that are not in the cache.
    n_jobs : int
        Those that are distinct, and will be read.
    verbose : int
    clock : Clock, default=time
        What tells how long it takes.
    """

    def __init__(
        self, n_images: int, n_missing: int, n_jobs: int, verbose: int, clock: Clock = time
    ) -> None:
        self.n_images, self.n_missing, self.n_jobs = n_images, n_missing, n_jobs
        self.verbose = verbose
        self._clock = clock
        self.n_done = self.n_unreadable = 0
        self._began: float | None = None
        self._has_estimated = False
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self.verbose and self.n_jobs:  # even a disabled bar has a lock that a fork could copy
            from tqdm import tqdm

            self._bar = tqdm(total=self.n_jobs, desc="encoding images", unit="img")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self.verbose:
            sys.stderr.write(f"{self.summary()}\n")

    def start(self) -> None:
        """Begin to measure the rate, the model being loaded."""
        self._began = self._clock.monotonic() if self._began is None else self._began

    def update(self, *, is_read: bool = True) -> None:
        """Count one image that was read, or could not be."""
        self.n_done += 1
        self.n_unreadable += not is_read
        if self._bar is not None:
            self._bar.update()
        if not self._has_estimated and self._seconds() > _KNOWN_AFTER:
            self._has_estimated = True
            self._estimate(self.n_done / self._seconds())

    def _seconds(self) -> float:
        return 0.0 if self._began is None else self._clock.monotonic() - self._began

    def _estimate(self, rate: float) -> None:
        minutes = (self.n_jobs - self.n_done) / rate / 60
        if self.verbose and minutes > 1:
            self._bar.write(f"{self._at(rate)}: about {_duration(minutes)}", file=sys.stderr)
        elif not self.verbose and minutes > _LONG:
            warn_once(
                "hours",
                f"Encoding {self._at(rate)} will take about {_duration(minutes)}. verbose=1 shows "
                f"progress; cache='a folder' keeps what is done if you stop.",
            )

    def _at(self, rate: float) -> str:
        return f"{self.n_jobs} images at {_rounded(rate)} per second"

    def summary(self) -> str:
        """Return what was done, in one line."""
        n_encoded = self.n_done - self.n_unreadable
        parts = [f"encoded {n_encoded}", f"from cache {self.n_images - self.n_missing}"]
        if self.n_missing > self.n_jobs:
            parts.append(f"the same as another {self.n_missing - self.n_jobs}")
        parts.append(f"unreadable {self.n_unreadable}")
        if n_encoded == 0 or self._seconds() == 0:
            return ", ".join(parts)
        return f"{', '.join(parts)}; {_rounded(n_encoded / self._seconds())} images per second"


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


def _duration(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
