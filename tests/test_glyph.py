"""The bundled model: its files, the pictures and captions it is trained on, and its training."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch.testing import assert_close

from sklearn_taskres._clip.backends.torch.encoder import load_encoder
from sklearn_taskres._clip.backends.torch.pretrained import build_model, build_tokenizer
from sklearn_taskres._clip.glyph import render, train
from sklearn_taskres._clip.glyph.captions import PROMPT, WORDS, Captions
from sklearn_taskres._clip.glyph.strokes import DIGITS, GLYPHS, STROKES

WEIGHTS = train.CONFIG.with_suffix(".safetensors")
WRITINGS = [writing for ways in STROKES.values() for writing in ways]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("glyph-clip", None, device="cpu")


@pytest.fixture(scope="module")
def pictures():
    return [
        Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8))
        for image in load_digits().images
    ]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# the files


def test_weights_are_small_and_half_precision():
    """A wheel carries the file, so it holds float16 and the known rows of the vocabulary only."""
    state = load_file(WEIGHTS)
    token_ids = state.pop("token_ids")
    assert WEIGHTS.stat().st_size < 3.5e6
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert token_ids.dtype == torch.int32
    assert len(token_ids) == len(state["token_embedding.weight"])
    assert (token_ids.diff() > 0).all()


def test_weights_fit_the_config():
    """Names and shapes are those of the model that the config builds, except the vocabulary."""
    with torch.random.fork_rng(devices=[]):
        expected = {k: v.shape for k, v in build_model(train.CONFIG).state_dict().items()}
    shapes = {k: v.shape for k, v in load_file(WEIGHTS).items() if k != "token_ids"}
    assert shapes.pop("token_embedding.weight")[1] == expected.pop("token_embedding.weight")[1]
    assert shapes == expected


@pytest.mark.filterwarnings("error")
def test_knows_every_caption(encoder):
    """No caption that it was trained on draws a warning about unknown words."""
    encoder.tokenize(Captions().texts)


def test_text_embeddings_have_the_norm_of_openai_clip(encoder):
    """TaskRes adds its residual to raw text embeddings, so their size matters."""
    raw = encoder.encode_texts([PROMPT.format(name) for name in (*WORDS, *GLYPHS)])
    assert 0.40 < np.sqrt(np.mean(raw**2)) < 0.48


@pytest.mark.parametrize(
    ("names", "floor"), [(WORDS, 0.93), (DIGITS, 0.90)], ids=["words", "characters"]
)
def test_recognises_handwritten_digits(encoder, pictures, names, floor):
    """Zero-shot, on digits of a data set that it was not trained on."""
    pixels = [encoder.preprocess(picture.convert("RGB")) for picture in pictures]
    texts = encoder.encode_texts([PROMPT.format(name) for name in names])
    predicted = (unit(encoder.encode_images(pixels)) @ unit(texts).T).argmax(axis=1)
    assert np.mean(predicted == load_digits().target) > floor


# the wheel

PROJECT = Path(__file__).parents[1]


def wheel_files():
    """Paths in a wheel of what hatch takes from the package, by its options in pyproject.toml.

    Hatch reads patterns as gitignore does. Those that start with / and whose * stay in one folder
    mean the same to `Path.glob`; others are refused.
    """
    with open(PROJECT / "pyproject.toml", "rb") as file:
        options = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert options.keys() == {"packages", "exclude"}
    assert all(
        re.fullmatch(r"/[\w/*.-]+", name) and "**" not in name for name in options["exclude"]
    )
    found = {path for name in options["exclude"] for path in PROJECT.glob(name[1:])}
    files = (path for name in options["packages"] for path in (PROJECT / name).rglob("*"))
    kept = [path for path in files if path.is_file() and not found & {path, *path.parents}]
    return {path.relative_to(PROJECT) for path in kept if path.suffix != ".pyc"}


def test_the_wheel_holds_the_model_and_not_its_training():
    """What trained it stays in the repository, and nothing that is shipped imports it."""
    files = wheel_files()
    folder = Path("sklearn_taskres/_clip/glyph")
    shipped = {path.name for path in files if folder in path.parents}
    assert shipped == {"README.md", "glyph-clip.json", "glyph-clip.safetensors"}
    assert {Path("sklearn_taskres/_clip/text.py"), Path("sklearn_taskres/py.typed")} <= files
    code = "\n".join((PROJECT / path).read_text("utf-8") for path in files if path.suffix == ".py")
    assert not re.search(r"^\s*(from|import)\b.*\bglyph\b", code, re.MULTILINE)


@pytest.mark.slow
def test_the_wheel_is_enough_for_the_model(tmp_path):
    """In a fresh interpreter, with the shipped files alone, it embeds images and names."""
    for path in wheel_files():
        (tmp_path / path.parent).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / path, tmp_path / path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import numpy as np, sklearn_taskres as s\n"
        "X = s.CLIPFeaturizer('glyph-clip').transform(np.zeros((2, 8, 8)))\n"
        "print(s.__file__, X.shape, s.CLIPTextFeaturizer('glyph-clip').transform(['one']).shape)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1)[0].startswith(str(tmp_path))
    assert done.stdout.strip().endswith("(2, 128) (1, 128)")


# the pictures


def test_pictures_come_from_the_seed_alone():
    """The same seed gives the same pictures, another others, and torch's own stream is left."""
    before = torch.get_rng_state()
    first, again, other = (render.draw(40, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert_close(first, again)
    assert not torch.equal(first[0], other[0])
    assert torch.equal(before, torch.get_rng_state())


def test_pictures_are_what_they_are_said_to_be():
    """Pens write digits only; every picture has ink; coarse ones fill the height."""
    images, labels, by_pen, is_coarse = render.draw(400, torch.Generator().manual_seed(0))
    assert (labels[by_pen] < len(DIGITS)).all()
    assert set(labels.tolist()) > set(range(len(DIGITS)))
    assert (images.flatten(1).amax(1) > 100).all()
    written = images[is_coarse & by_pen].float().mean(2)  # (n, 32)
    assert (written[:, :8].amax(1) > 20).all()
    assert (written[:, -8:].amax(1) > 20).all()


def test_enlarging_is_the_preprocessing(encoder, pictures):
    """Training sees the pixels that the preprocessing would give, to one grey level."""
    small = torch.tensor(np.stack(pictures[:20]))[:, None]
    ours = render.enlarge(small)[:, 0, :, :, None].expand(-1, -1, -1, 3)
    theirs = np.stack([encoder.preprocess(picture.convert("RGB")) for picture in pictures[:20]])
    assert_allclose(theirs, ours, rtol=0, atol=1)


def test_coarse_pictures_count_ink():
    """A block of the bitmap that is half ink becomes half grey."""
    ink = torch.zeros(1, 32, 32, dtype=torch.bool)
    ink[..., ::2] = True
    assert torch.equal(render.through_coarse(ink), torch.full((1, 32, 32), 128, dtype=torch.uint8))


@pytest.mark.parametrize("writing", WRITINGS)
def test_curves_stay_by_their_knots(writing):
    """A path starts at its first knot, passes near all, and moves with them."""
    knots, basis = render._parse(writing, 200)
    path = basis @ knots  # (200, 2)
    assert_close(path[0], knots[0])
    assert torch.cdist(knots, path).amin(1).max() < 0.02
    assert_close(basis.sum(1), torch.ones(200))


def test_colours_spare_coarse_pictures():
    """A coarse picture stays white on black; some of the others take on colours."""
    images, _, _, is_coarse = render.draw(64, torch.Generator().manual_seed(0))
    pixels = render.paint(images, is_coarse, torch.Generator().manual_seed(0))
    grey = images[:, None] / 255
    changed = (pixels - grey).abs().amax((1, 2, 3)) > 0
    assert not changed[is_coarse].any()
    assert changed[~is_coarse].any()
    assert pixels.min() >= 0
    assert pixels.max() <= 1


# the captions


def test_captions_fit_their_pictures():
    """A drawn caption describes the picture's glyph, and names how it was made only if so."""
    images = render.draw(300, torch.Generator().manual_seed(0))[1:]
    captions = Captions()
    rows = captions.draw(*images, np.random.default_rng(0))
    for row, label, by_pen, is_coarse in zip(rows, *images, strict=True):
        text = captions.texts[row]
        assert captions.describes[row, label]
        assert by_pen or "handwritten" not in text
        assert is_coarse or "blurry" not in text


def test_an_ambiguous_caption_describes_both_cases():
    """The tokenizer lowers the case, so a letter's bare name stands for both its forms."""
    captions = Captions()
    described = captions.describes[captions.texts.index(PROMPT.format("b"))]
    assert [GLYPHS[i] for i in described.nonzero()[:, 0]] == ["B", "b"]


# the training


def test_loss_is_cross_entropy_where_each_picture_has_one_caption():
    """With one match per row the soft targets are the usual hard ones."""
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(5))
    assert_close(train._soft_cross_entropy(logits, torch.eye(5, dtype=torch.bool)), expected)


def test_loss_shares_the_target_among_matches():
    """Two captions that both fit get half each: the best loss is log 2, at equal logits."""
    logits = torch.tensor([[50.0, 50.0, 0.0]])
    loss = train._soft_cross_entropy(logits, torch.tensor([[True, True, False]]))
    assert_allclose(loss, np.log(2), rtol=1e-6)


@pytest.mark.slow
def test_training_comes_from_the_seed_alone(tmp_path):
    """Two short trainings write the same bytes, and torch's own stream is left as it was."""
    before = torch.get_rng_state()
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        train.save(*train.train_clip(seed=3, steps=2, pool=train.BATCH), tmp_path / name)
    files = [tmp_path / name / "glyph-clip.safetensors" for name in ("first", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].with_suffix(".json").read_bytes() == train.CONFIG.read_bytes()
    assert torch.equal(before, torch.get_rng_state())


def test_every_step_gets_a_full_batch():
    """Passes over the pool are shuffled and joined; no step repeats a picture."""
    batches = list(train._batches(600, 5, torch.Generator().manual_seed(0)))
    assert len(batches) == 5
    assert all(len(set(rows.tolist())) == train.BATCH for rows in batches)
    assert len({*batches[0].tolist(), *batches[1].tolist()}) == 2 * train.BATCH


def test_context_holds_every_caption():
    """No caption is cut."""
    tokens = build_tokenizer(train.CONFIG)(Captions().texts)
    assert (tokens[:, -1] == 0).all()
