"""Look at a task before training, at what was learned after it, and at what to label next."""

from .alpha import AlphaDisplay
from .class_gain import ClassGainDisplay
from .few_shot_curve import FewShotCurveDisplay
from .label_review import (
    LabelSuspects,
    NoneOfThese,
    label_suspects,
    next_to_label,
    none_of_these,
)
from .magnitude import ResidualMagnitudeDisplay, residual_magnitude
from .nearest_images import NearestImagesDisplay
from .review_page import review
from .top import predict_top
from .transfer_difficulty import TransferDifficultyDisplay, relative_transfer_difficulty

__all__ = [
    "AlphaDisplay",
    "ClassGainDisplay",
    "FewShotCurveDisplay",
    "LabelSuspects",
    "NearestImagesDisplay",
    "NoneOfThese",
    "ResidualMagnitudeDisplay",
    "TransferDifficultyDisplay",
    "label_suspects",
    "next_to_label",
    "none_of_these",
    "predict_top",
    "relative_transfer_difficulty",
    "residual_magnitude",
    "review",
]
