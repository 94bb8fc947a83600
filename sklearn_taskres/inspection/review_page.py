"""A page to look at: how good a model is, which labels look wrong, and what to label next."""

import base64
import io
import json
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import softmax
from sklearn.utils import check_consistent_length, column_or_1d

from .._clip.images import open_image
from .._formulas import unit
from .._persistence import written_whole
from ._estimators import classifier_and_rows
from ._figures import confusions, share_of
from ._held_out import best_of, held_out_log_proba, labeled
from .label_review import next_to_label, rank_labels

#: Pixels per side of a thumbnail at the most, and its quality as JPEG.
_THUMBNAIL, _QUALITY = 192, 80
#: Training images that are shown next to a suspect.
_NEIGHBOURS = 3
#: Most probable classes that are offered for an image without a label.
_OFFERED = 3
#: What stands in the page for its data.
_MARK = "/*DATA*/null"


def review(
    estimator: Any,
    paths: Any,
    y: Any,
    *,
    pool: Any = None,
    out: str | PathLike[str] = "review.html",
    n_suspects: int = 24,
    n_next: int = 24,
    cv: int = 5,
    random_state: Any = 0,
) -> Path:
    """Write a page on which to review labels of photos: one HTML file that needs no server.

    The page shows accuracy on images held out with its 95 % interval, the confusion matrix, the
    labels that look wrong with the training images that are nearest, and the unlabelled images
    whose labels would help most. Clicks correct labels, and a button saves the corrections as a CSV
    file that :func:`~sklearn_taskres.load_image_folder` reads (``corrections=``).

    Parameters
    ----------
    estimator : estimator
        A fitted pipeline from paths to labels, or a fitted search over one.
    paths : array-like of shape (n_samples,), str
        Files of the labelled images, as `load_image_folder` lists them.
    y : array-like of shape (n_samples,)
        Their labels.
    pool : array-like of shape (n_pool,), str, optional
        Files of images without labels. None shows no suggestions for labelling.
    out : path-like, default="review.html"
        The file to write. It holds thumbnails, some 8 kB each, and no link to anywhere.
    n_suspects, n_next : int, default=24
        Doubtful labels, and images to label next, to show at the most.
    cv : int, default=5
        Folds in which each image is judged by a model that has not seen it, a fit for each.
    random_state : int, RandomState instance or None, default=0
        Which images share a fold.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    ValueError
        If the images are not given as paths, no class has two images, or there is one class only.
    UnreadableImagesError
        If images cannot be read.

    See Also
    --------
    label_suspects : The ranking of labels alone.
    next_to_label : The choice of images to label alone.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_taskres import make_taskres_pipeline
    >>> from sklearn_taskres.inspection import review
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [f"{folder}/{i}.png" for i in range(40)]
    ...     for path, pixels in zip(paths, load_digits().images):
    ...         Image.fromarray((15 * pixels).astype("uint8")).save(path)
    ...     y = load_digits().target[:40].astype(str)
    ...     model = make_taskres_pipeline("glyph-clip").fit(paths, y)
    ...     page = review(model, paths, y, out=Path(folder) / "review.html")
    ...     page.read_text("utf-8")[:15]
    '<!doctype html>'
    """
    paths, y, pool = _as_paths(paths, "paths"), column_or_1d(y), _as_paths(pool, "pool")
    check_consistent_length(paths, y)
    estimator = best_of(estimator)
    paths, y, _ = labeled(estimator, paths, y)
    log_proba, classes = held_out_log_proba(estimator, paths, y, cv=cv, random_state=random_state)
    classifier, rows = classifier_and_rows(estimator, paths)
    page = _Page(np.union1d(classes, classifier.classes_))
    codes = page.codes(y)
    judged = np.isfinite(log_proba).all(axis=1)
    predicted = page.codes(classes[log_proba[judged].argmax(axis=1)])
    accuracy = share_of(predicted == codes[judged])
    suspects = rank_labels(log_proba, np.searchsorted(classes, y), classes)
    nearest = _nearest(unit(np.asarray(rows)), suspects.indices[:n_suspects])
    doubtful = zip(*(part[:n_suspects] for part in suspects), nearest, strict=True)
    content = {
        "accuracy": list(accuracy),
        "judged": int(judged.sum()),
        "confusion": confusions(codes[judged], predicted, len(page.classes)).tolist(),
        "suspects": [
            {
                "image": page.add(paths[index]),
                "label": int(codes[index]),
                "probability": float(p),
                "suggested": int(page.codes(label)),
                "suggested_probability": float(q),
                "nearest": [[page.add(paths[i]), int(codes[i])] for i in near],
            }
            for index, p, label, q, near in doubtful
        ],
        "next": _to_label(estimator, classifier, rows, pool, n_next, page),
    }
    out = Path(out)
    with written_whole(out) as part:
        text = page.html({**content, "n": len(paths), "n_pool": len(pool)})
        part.write_text(text, encoding="utf-8")
    return out


def _as_paths(values, name):
    """Return a list of paths; of None an empty one."""
    found = [] if values is None else list(values)
    wrong = next((value for value in found if not isinstance(value, str | PathLike)), None)
    if wrong is not None:
        raise ValueError(
            f"{name} must be paths of image files, since corrections name them. Got "
            f"{type(wrong).__name__}."
        )
    return [str(value) for value in found]


def _nearest(z, indices):
    """Places of the images that are nearest to some, themselves left out, (n, _NEIGHBOURS)."""
    cosines = z[indices] @ z.T
    cosines[np.arange(len(indices)), indices] = -np.inf
    n = min(_NEIGHBOURS, len(z) - 1)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :n]


def _to_label(estimator, classifier, rows, pool, n, page):
    """Describe the images of a pool that are to be labelled next."""
    if not pool or n == 0:
        return []
    _, pool_rows = classifier_and_rows(estimator, pool)
    chosen = next_to_label(classifier, pool_rows, n, X_labeled=rows)
    proba = softmax(classifier.predict_log_proba(np.asarray(pool_rows)[chosen]), axis=1)
    best = np.argsort(-proba, axis=1, kind="stable")[:, :_OFFERED]
    labels = page.codes(classifier.classes_[best])
    return [
        {
            "image": page.add(pool[index]),
            "best": [[int(c), float(p[b])] for c, b in zip(codes, order, strict=True)],
        }
        for index, codes, p, order in zip(chosen, labels, proba, best, strict=True)
    ]


class _Page:
    """Collects the thumbnails of a page, each once, and fills the page with data."""

    def __init__(self, classes):
        self.classes = classes
        self._places: dict[str, int] = {}
        self._images: list[dict[str, str]] = []

    def codes(self, labels):
        """Return the places of labels among those of the page."""
        return np.searchsorted(self.classes, labels)

    def add(self, path):
        """Return the place of an image among those of the page."""
        if path not in self._places:
            self._places[path] = len(self._images)
            self._images.append({"path": path, "thumbnail": _thumbnail(path)})
        return self._places[path]

    def html(self, content):
        """Return the page. The data are JSON in which no tag can begin or end."""
        names = [str(label) for label in self.classes.tolist()]
        data = json.dumps({**content, "classes": names, "images": self._images})
        data = (
            data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        )
        page = files(__package__).joinpath("review_page.html").read_text(encoding="utf-8")
        return page.replace(_MARK, data)


def _thumbnail(path):
    """Return a small JPEG of an image as a data URI."""
    content = io.BytesIO()
    with open_image(path) as (image, _):
        small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    small.save(content, "jpeg", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
