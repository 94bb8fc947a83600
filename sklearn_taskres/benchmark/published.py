"""Published accuracies to put next to ours, as data with their sources and their setting."""

from typing import NamedTuple

from .._data_sets import DATA_SETS

#: All published figures here were made with CLIP's ResNet-50.
BACKBONE = "RN50"
#: The data sets that published averages run over.
AVERAGED = tuple(name for name, info in DATA_SETS.items() if info.is_averaged)
#: Method to shots to the average test accuracy over AVERAGED, in %.
AVERAGES = {
    "zero-shot": dict.fromkeys((1, 2, 4, 8, 16), 58.89),
    "tip-adapter": {1: 62.33, 2: 64.62, 4: 66.54, 8: 68.50, 16: 70.32},
    "clip-adapter": {1: 62.67, 2: 65.55, 4: 68.61, 8: 71.40, 16: 74.44},
    "tip-adapter-f": {1: 64.60, 2: 66.65, 4: 69.67, 8: 72.45, 16: 75.83},
    "gda": {1: 62.19, 2: 66.19, 4: 69.77, 8: 73.31, 16: 76.05},
}
AVERAGES_SOURCE = (
    "the logs that the authors of each method published. Tip-Adapter-F's chose its epoch on the "
    "test set; ours is the model of the last epoch, so it should stay below."
)


class Gain(NamedTuple):
    """A published difference to zero-shot, in points; `data` is None for the average."""

    method: str
    data: str | None
    shots: int
    points: float

    @property
    def name(self):
        """What was compared, in words."""
        shots = "1 shot" if self.shots == 1 else f"{self.shots} shots"
        return f"{self.method}, {self.data or f'average of the {len(AVERAGED)} data sets'}, {shots}"


GAINS = (
    Gain("taskres", None, 16, 16.14),
    *(
        Gain(method, name, shots, points)
        for name, info in DATA_SETS.items()
        for (method, shots), points in info.gains.items()
    ),
)
GAINS_SOURCE = "the TaskRes paper (arXiv 2211.10277), which states these differences in its text."

_RUN_OVER = f"published averages run over {len(AVERAGED)} data sets"


def missing_data_sets(data_sets):
    """Return the names of AVERAGED that are not among `data_sets`.

    Parameters
    ----------
    data_sets : iterable of str
        Ours.
    """
    return [name for name in AVERAGED if name not in data_sets]


def why_not_comparable(backbone, data_sets=None):
    """Return why published figures can't stand next to ours, or None if they can.

    Parameters
    ----------
    backbone : str or None
        Ours; None for a file of embeddings.
    data_sets : iterable of str, optional
        What our average runs over. Leave it out for a single data set.
    """
    if backbone != BACKBONE:
        ours = backbone or "embeddings from a file that does not name its backbone"
        return f"published figures were made with {BACKBONE}, these with {ours}"
    if data_sets is None:
        return None
    missing = missing_data_sets(data_sets)
    if missing:
        return f"{_RUN_OVER}, and these lack {', '.join(missing)}"
    if len(set(data_sets)) > len(AVERAGED):
        return f"{_RUN_OVER}, and these over others as well"
    return None
