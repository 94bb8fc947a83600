"""Captions for the pictures that glyph-clip is trained on."""

import itertools

import torch

from .strokes import DIGITS, GLYPHS

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPT = "a photo of a {}."

_ANY = (
    PROMPT,
    "{}",
    "a {}",
    "the {}.",
    "an image of a {}.",
    "a picture of a {}",
    "a photo of the {}.",
    "a drawing of a {}.",
)
_DIGIT = (
    "a photo of the number {}.",
    "a photo of the digit {}.",
    "the number {}",
    "the digit {}",
)
_LETTER = ("the letter {}", "a photo of the letter {}.")
_CAPITAL = ("a capital {}", "a photo of a capital {}.")
_SMALL = ("a small {}", "a photo of a small {}.")
_BY_PEN = ("a handwritten {}.", "a handwritten digit {}", "a photo of a handwritten {}.")
_IN_FONT = ("a printed {}.", "a photo of a printed {}.")
_COARSE = ("a blurry photo of a {}.", "a low resolution photo of a {}.")
#: Letters whose capital is only larger; a picture of one does not show its case.
_SAME_SHAPE = "CKOPSUVWXZ"


class Captions:
    """All captions, and which of them fit a picture.

    Attributes
    ----------
    texts : list of str
        Every caption once.
    describes : torch.Tensor of shape (n_texts, n_glyphs)
        True if a caption names a glyph. "a photo of a b." names the capital and the small one.
    """

    def __init__(self):
        kinds = itertools.product(range(len(GLYPHS)), (False, True), (False, True))
        fitting = {kind: _fitting(GLYPHS[kind[0]], *kind[1:]) for kind in kinds}
        self.texts = list(dict.fromkeys(itertools.chain(*fitting.values())))
        rows = {text: row for row, text in enumerate(self.texts)}
        self._rows = {kind: [rows[text] for text in texts] for kind, texts in fitting.items()}
        self.describes = torch.zeros(len(self.texts), len(GLYPHS), dtype=torch.bool)
        for (label, *_), own in self._rows.items():
            self.describes[own, label] = True

    def draw(self, labels, by_pen, is_coarse, rng):
        """Choose one fitting caption a picture.

        Parameters
        ----------
        labels, by_pen, is_coarse : torch.Tensor of shape (n,)
            What `render.draw` says of the pictures.
        rng : numpy.random.Generator
            Source of the choice.

        Returns
        -------
        rows : torch.Tensor of shape (n,)
            Positions in `texts`.
        """
        kinds = zip(labels.tolist(), by_pen.tolist(), is_coarse.tolist(), strict=True)
        options = [self._rows[kind] for kind in kinds]
        chosen = rng.random(len(options))
        return torch.tensor(
            [own[int(u * len(own))] for own, u in zip(options, chosen, strict=True)]
        )


def _fitting(glyph, by_pen, is_coarse):
    """Captions that fit a picture of a glyph."""
    templates = _ANY + (_BY_PEN if by_pen else _IN_FONT) + (_COARSE if is_coarse else ())
    if glyph in DIGITS:
        names = (glyph, WORDS[int(glyph)])
        return [template.format(name) for name in names for template in templates + _DIGIT]
    cased = () if glyph.upper() in _SAME_SHAPE else _CAPITAL if glyph.isupper() else _SMALL
    return [template.format(glyph.lower()) for template in templates + _LETTER + cased]
