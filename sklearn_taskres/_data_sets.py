"""The data sets that few-shot papers compare on: one row each, and a new one is a new row.

Data only. It lies below the rest of the package and imports none of it, since two rooms read it:
`_clip` takes the templates of ``CLIPTextFeaturizer(templates="dtd")``, and `benchmark` all of it.
"""

from dataclasses import dataclass, field
from typing import Any

_PHOTO = ("a photo of a {}.",)
_IMAGENET = (
    *_PHOTO,
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


@dataclass(frozen=True)
class DataSetInfo:
    """What is published about a data set, and how it lies on the disk of CoOp's users."""

    #: Each with one {} for the class name.
    templates: tuple[str, ...]
    #: How its files lie, as `benchmark.layouts` names it.
    layout: str
    #: Its folder, and the folder of its images in there.
    folder: str
    images: str = "images"
    #: Split file in its folder, of the layout "split".
    split: str = ""
    #: Class of a method to the parameters in which its published recipe differs here.
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Method and shots to the published gain over zero-shot, in points.
    gains: dict[tuple[str, int], float] = field(default_factory=dict)
    #: Number of classes, and zero-shot accuracy of CLIP RN50 in %, as Zhou et al. (CoOp, IJCV 2022)
    #: measured it; the figures are those in the code of Wang et al. (ICLR 2024, GDA).
    zero_shot: tuple[int, float] | None = None
    #: Whether the published averages run over it.
    is_averaged: bool = False
    #: For what is a test set of ImageNet's classes alone: the head of its column in the report.
    variant: str = ""


#: In the order of the papers' tables.
DATA_SETS = {
    "imagenet": DataSetInfo(
        templates=_IMAGENET,
        layout="imagenet",
        folder="imagenet",
        recipes={"TaskResClassifier": {"lr": 2e-4}, "CoOpClassifier": {"max_epochs": 50}},
        gains={("coop", 1): -1.03, ("coop", 2): -0.37},
        zero_shot=(1000, 58.18),
        is_averaged=True,
    ),
    "caltech101": DataSetInfo(
        templates=_PHOTO,
        layout="split",
        folder="caltech-101",
        images="101_ObjectCategories",
        split="split_zhou_Caltech101.json",
        zero_shot=(100, 86.29),
        is_averaged=True,
    ),
    "oxford_pets": DataSetInfo(
        templates=("a photo of a {}, a type of pet.",),
        layout="split",
        folder="oxford_pets",
        split="split_zhou_OxfordPets.json",
        zero_shot=(37, 85.77),
        is_averaged=True,
    ),
    "stanford_cars": DataSetInfo(
        templates=_PHOTO,
        layout="split",
        folder="stanford_cars",
        images="",
        split="split_zhou_StanfordCars.json",
        zero_shot=(196, 55.61),
        is_averaged=True,
    ),
    "oxford_flowers": DataSetInfo(
        templates=("a photo of a {}, a type of flower.",),
        layout="split",
        folder="oxford_flowers",
        images="jpg",
        split="split_zhou_OxfordFlowers.json",
        recipes={"TaskResClassifier": {"alpha": 1.0}},
        zero_shot=(102, 66.14),
        is_averaged=True,
    ),
    "food101": DataSetInfo(
        templates=("a photo of {}, a type of food.",),
        layout="split",
        folder="food-101",
        split="split_zhou_Food101.json",
        zero_shot=(101, 77.31),
        is_averaged=True,
    ),
    "fgvc_aircraft": DataSetInfo(
        templates=("a photo of a {}, a type of aircraft.",),
        layout="aircraft",
        folder="fgvc_aircraft",
        zero_shot=(100, 17.28),
        is_averaged=True,
    ),
    "sun397": DataSetInfo(
        templates=_PHOTO,
        layout="split",
        folder="sun397",
        images="SUN397",
        split="split_zhou_SUN397.json",
        zero_shot=(397, 58.52),
        is_averaged=True,
    ),
    "dtd": DataSetInfo(
        templates=("{} texture.",),
        layout="split",
        folder="dtd",
        split="split_zhou_DescribableTextures.json",
        gains={("taskres", 1): 7.85},
        zero_shot=(47, 42.32),
        is_averaged=True,
    ),
    "eurosat": DataSetInfo(
        templates=("a centered satellite photo of {}.",),
        layout="split",
        folder="eurosat",
        images="2750",
        split="split_zhou_EuroSAT.json",
        gains={("taskres", 1): 23.71},
        zero_shot=(10, 37.56),
        is_averaged=True,
    ),
    "ucf101": DataSetInfo(
        templates=("a photo of a person doing {}.",),
        layout="split",
        folder="ucf101",
        images="UCF-101-midframes",
        split="split_zhou_UCF101.json",
        zero_shot=(101, 61.46),
        is_averaged=True,
    ),
    "imagenetv2": DataSetInfo(
        templates=_PHOTO,
        layout="numbered_folders",
        folder="imagenetv2",
        images="imagenetv2-matched-frequency-format-val",
        variant="V2",
    ),
    "imagenet_sketch": DataSetInfo(
        templates=_PHOTO, layout="folders", folder="imagenet-sketch", variant="Sketch"
    ),
    "imagenet_a": DataSetInfo(
        templates=_PHOTO,
        layout="folders",
        folder="imagenet-adversarial",
        images="imagenet-a",
        variant="A",
    ),
    "imagenet_r": DataSetInfo(
        templates=_PHOTO,
        layout="folders",
        folder="imagenet-rendition",
        images="imagenet-r",
        variant="R",
    ),
}
#: Those with images to train on, and those that test what was trained on ImageNet.
TRAINED = tuple(name for name, info in DATA_SETS.items() if not info.variant)
VARIANTS = tuple(name for name, info in DATA_SETS.items() if info.variant)
