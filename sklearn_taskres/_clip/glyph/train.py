"""Train glyph-clip from nothing: ``python -m sklearn_taskres._clip.glyph.train --output X``."""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..backends.torch.pretrained import build_model, build_tokenizer
from . import render
from .captions import PROMPT, WORDS, Captions
from .strokes import DIGITS, LETTERS

CONFIG = Path(__file__).with_name("glyph-clip.json")
#: Root mean square of a raw text embedding's elements, as in OpenAI's CLIP.
TEXT_RMS = 0.44
#: Rows of load_digits that were looked at while the training was developed; the others were not.
N_DEVELOPMENT = 898
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # open_clip's default preprocessing
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

POOL = 60_000  # pictures, drawn once
STEPS = 700
BATCH = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARMUP = 200  # steps
AVERAGING = 0.998  # weight of the past in the moving average of the weights, a step
FIRST_SCALE = 30.0  # of the cosines, before it is learned
LARGEST_SCALE = 100.0


def main(argv=None):
    """Train, save and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--pool", type=int, default=POOL, help="number of pictures drawn")
    options = parser.parse_args(argv)
    started = time.monotonic()
    model, token_ids = train_clip(options.seed, options.steps, options.pool)
    options.output.mkdir(parents=True, exist_ok=True)
    save(model, token_ids, options.output)
    _log(f"trained in {(time.monotonic() - started) / 60:.1f} minutes")
    for part, accuracy in evaluate(model, token_ids).items():
        sys.stdout.write(f"zero-shot on load_digits, {part}: {accuracy:.1%}\n")
    sys.stdout.write(f"logit scale: {model.logit_scale.exp():.1f}\n")


def train_clip(seed, steps=STEPS, pool=POOL, report=None):
    """Train a model.

    Parameters
    ----------
    seed : int
        Decides the pictures, the captions, the first weights and the order.
    steps : int
        Number of steps.
    pool : int
        Number of pictures.
    report : callable, optional
        Called with the averaged model and the token ids every 100 steps.

    Returns
    -------
    model : torch.nn.Module
        In eval mode, its weights rounded to float16. Its token embedding has a row for each of
        `token_ids`, not for the whole vocabulary.
    token_ids : torch.Tensor
        Sorted ids of the tokens that captions use.
    """
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    captions = Captions()
    tokens = build_tokenizer(CONFIG)(captions.texts)
    token_ids, tokens = tokens.unique(return_inverse=True)
    _log(f"drawing {pool} pictures")
    pictures = render.draw(pool, generator)
    model = _new_model(seed, token_ids)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    optimizer, schedule = _optimizer(model)
    for step, rows in enumerate(_batches(pool, steps, generator), start=1):
        images, labels, by_pen, is_coarse = (part[rows] for part in pictures)
        chosen = captions.draw(labels, by_pen, is_coarse, rng)
        matches = captions.describes[chosen][:, labels].T  # (pictures, captions)
        pixels = normalise(render.paint(images, is_coarse, generator))
        loss = _contrastive_loss(model, pixels, tokens[chosen], matches)
        _update(model, loss, optimizer, schedule)
        averaged.update_parameters(model)
        if step % 100 == 0:
            _log(f"step {step}: loss {loss.item():.3f}, scale {model.logit_scale.exp():.1f}")
        if report and step % 100 == 0:
            report(averaged.module, token_ids)
    return _finish(averaged.module.eval(), token_ids), token_ids


def normalise(pixels):
    """Shift and scale pixels (n, 3, h, w) in [0, 1] as the preprocessing does."""
    mean, std = torch.tensor([PIXEL_MEAN, PIXEL_STD])[:, :, None, None]
    return (pixels - mean) / std


def save(model, token_ids, folder):
    """Write a model's configuration and float16 weights, the tensor `token_ids` among them."""
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    state["token_ids"] = token_ids.int()
    (folder / "glyph-clip.safetensors").write_bytes(safetensors.torch.save(state))
    if folder.resolve() != CONFIG.parent:
        (folder / CONFIG.name).write_bytes(CONFIG.read_bytes())


def evaluate(model, token_ids):
    """Zero-shot accuracy on scikit-learn's handwritten digits: development half, the rest, all."""
    digits = load_digits()
    small = (
        torch.tensor(digits.images / 16 * 255).round().to(torch.uint8)[:, None]
    )  # (1797, 1, 8, 8)
    pixels = render.enlarge(small).expand(-1, 3, -1, -1) / 255
    with torch.inference_mode():
        images = model.encode_image(normalise(pixels), normalize=True)
        texts = torch.nn.functional.normalize(_embed_names(model, token_ids, WORDS), dim=1)
    correct = (images @ texts.T).argmax(1).numpy() == digits.target
    parts = {
        "development half": correct[:N_DEVELOPMENT],
        "held-out half": correct[N_DEVELOPMENT:],
        "all": correct,
    }
    return {part: float(right.mean()) for part, right in parts.items()}


def _embed_names(model, token_ids, names):
    """Raw embeddings (n, d) of names in the default prompt."""
    tokens = build_tokenizer(CONFIG)([PROMPT.format(name) for name in names])
    return model.encode_text(torch.searchsorted(token_ids, tokens))


def _new_model(seed, token_ids):
    """Model with random weights, and a token embedding of the given ids only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = build_model(CONFIG)
    rows = model.token_embedding.weight.detach()[token_ids]
    model.token_embedding = torch.nn.Embedding.from_pretrained(rows, freeze=False)
    torch.nn.init.constant_(model.logit_scale, math.log(FIRST_SCALE))
    return model


def _optimizer(model):
    """AdamW without decay of biases and norms; a linear warm-up, then a constant rate.

    The moving average of the weights does what a falling rate would, and fits the pictures less.
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARMUP)
    )


def _batches(n, steps, generator):
    """Yield the rows of each step: shuffled passes over n rows, without their incomplete ends."""
    for _ in range(0, steps, n // BATCH):
        order = torch.randperm(n, generator=generator)[: n // BATCH * BATCH].split(BATCH)
        yield from order[:steps]
        steps -= len(order)


def _contrastive_loss(model, pixels, tokens, matches):
    """Cross-entropy from pictures to captions and back; all captions that fit share the target."""
    images, texts, scale = model(pixels, tokens)
    logits = scale * images @ texts.T
    return (_soft_cross_entropy(logits, matches) + _soft_cross_entropy(logits.T, matches.T)) / 2


def _soft_cross_entropy(logits, matches):
    targets = matches / matches.sum(1, keepdim=True)
    return cross_entropy(logits, targets)


def _update(model, loss, optimizer, schedule):
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(LARGEST_SCALE))


@torch.no_grad()
def _finish(model, token_ids):
    """Scale the text projection to the wanted root mean square, and round all weights."""
    raw = _embed_names(model, token_ids, [*WORDS, *DIGITS, *LETTERS])
    model.text_projection.mul_(TEXT_RMS / raw.square().mean().sqrt())
    for parameter in model.parameters():
        parameter.copy_(parameter.half())
    return model


def _log(message):
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
