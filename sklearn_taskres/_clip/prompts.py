"""Prompt templates of the data sets that few-shot papers compare on, as data."""

_PHOTO = "a photo of a {}."

#: Data set to its templates, each with one {} for the class name.
TEMPLATES = {
    "caltech101": (_PHOTO,),
    "dtd": ("{} texture.",),
    "eurosat": ("a centered satellite photo of {}.",),
    "fgvc_aircraft": ("a photo of a {}, a type of aircraft.",),
    "food101": ("a photo of {}, a type of food.",),
    "imagenet": (
        _PHOTO,
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "imagenet_a": (_PHOTO,),
    "imagenet_r": (_PHOTO,),
    "imagenet_sketch": (_PHOTO,),
    "imagenetv2": (_PHOTO,),
    "oxford_flowers": ("a photo of a {}, a type of flower.",),
    "oxford_pets": ("a photo of a {}, a type of pet.",),
    "stanford_cars": (_PHOTO,),
    "sun397": (_PHOTO,),
    "ucf101": ("a photo of a person doing {}.",),
}
