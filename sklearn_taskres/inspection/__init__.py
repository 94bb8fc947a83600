"""Look at a task before training, at what was learned after it, and at what to label next."""

from .alpha import AlphaDisplay
from .class_gain import ClassGainDisplay
from .few_shot_curve import FewShotCurveDisplay
from .magnitude import ResidualMagnitudeDisplay, residual_magnitude
from .nearest_images import NearestImagesDisplay
from .top import predict_top
from .transfer_difficulty import TransferDifficultyDisplay, relative_transfer_difficulty

__all__ = [
    "AlphaDisplay",
    "ClassGainDisplay",
    "FewShotCurveDisplay",
    "NearestImagesDisplay",
    "ResidualMagnitudeDisplay",
    "TransferDifficultyDisplay",
    "predict_top",
    "relative_transfer_difficulty",
    "residual_magnitude",
]
