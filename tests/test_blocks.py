"""The blocks of a vision transformer against open_clip's, in float64 and in bfloat16."""

import copy
import functools

import pytest
import torch
from numpy.testing import assert_allclose
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import LayerNorm, VisionTransformer
from torch.utils.flop_counter import FlopCounterMode

from sklearn_taskres._clip.backends.torch.blocks import (
    Block,
    Blocks,
    ClassTokenBlock,
    replace_blocks,
)

N_LAYERS, WIDTH = 3, 24


def make_tower(**options):
    """A tower in eval mode and float64; every parameter is drawn, also those that start at 0."""
    sizes = {"image_size": 16, "patch_size": 4, "width": WIDTH, "layers": N_LAYERS, "heads": 4}
    tower = VisionTransformer(**(sizes | options), mlp_ratio=2, output_dim=8).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return tower.eval().requires_grad_(False)


def make_images(n=5):
    return torch.randn((n, 3, 16, 16), generator=torch.Generator().manual_seed(1)).double()


READ_CLASS_TOKEN = [
    {},
    {"ls_init_value": 0.1},
    {"final_ln_after_pool": True},
    {"no_ln_pre": True},
    {"patch_dropout": 0.5},
    {"layers": 1},
    {"norm_layer": functools.partial(LayerNorm, bias=False)},
    {"norm_layer": functools.partial(LayerNorm, elementwise_affine=False)},
]
READ_MORE = [
    {"pool_type": "avg"},
    {"pool_type": "avg", "no_ln_pre": True},
    {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
]


@pytest.mark.parametrize("options", READ_CLASS_TOKEN + READ_MORE, ids=str)
def test_equal_to_open_clip(options):
    """A tower embeds as before, with the options of open_clip; twice, as nothing is changed."""
    tower, images = make_tower(**options), make_images()
    expected = tower(images)
    replace_blocks(tower)
    kinds = [type(block) for block in tower.transformer.blocks]
    last = ClassTokenBlock if options in READ_CLASS_TOKEN else Block
    assert kinds == [Block] * (len(kinds) - 1) + [last]
    for _ in range(2):
        assert_allclose(tower(images), expected, rtol=1e-10, atol=1e-12)
    tokens = torch.ones((2, 5, WIDTH), dtype=torch.float64)
    tower.transformer(tokens)
    assert (tokens == 1).all()
    assert expected.std(dim=0).min() > 1e-3  # so that images are told apart


def test_tokens_as_well():
    """A tower that returns its patches, too, returns the same ones."""
    tower = make_tower(output_tokens=True)
    expected = tower(make_images())
    replace_blocks(tower)
    for actual, wanted in zip(tower(make_images()), expected, strict=True):
        assert_allclose(actual, wanted, rtol=1e-10, atol=1e-12)


def test_bfloat16_is_more_exact_than_open_clip():
    """Tokens are summed in float32, so that many blocks round less than open_clip's."""
    exact = make_tower(layers=24)
    theirs = copy.deepcopy(exact).to(torch.bfloat16)
    ours = copy.deepcopy(exact)
    replace_blocks(ours)
    ours, images = ours.to(torch.bfloat16), make_images(40)
    expected = exact(images.bfloat16().double())
    errors = []
    for tower in (ours, theirs):
        actual = tower(images.bfloat16())
        assert actual.dtype == torch.bfloat16
        cosines = torch.nn.functional.cosine_similarity(actual.double(), expected)
        errors.append((1 - cosines).mean())
    assert 0 < errors[0] < errors[1] / 1.5


def test_last_block_costs_next_to_nothing():
    """The last block takes less than a quarter of the multiplications of its layers alone."""
    whole, without = make_tower(), make_tower(layers=N_LAYERS - 1)
    before, others = n_operations(whole), n_operations(without)
    replace_blocks(whole)
    without.transformer = Blocks(map(Block, without.transformer.resblocks))
    least = n_operations(without)
    assert least < n_operations(whole) < least + (before - others) / 4


def n_operations(tower):
    with FlopCounterMode(display=False) as counter:
        tower(make_images())
    return counter.get_total_flops()


class Subclass(VisionTransformer):
    """Computes what it likes."""


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(make_tower, qk_norm=True),
        functools.partial(make_tower, layers=0),
        functools.partial(Subclass, 16, 4, WIDTH, 1, 4, 2.0),
        functools.partial(ModifiedResNet, (1, 1, 1, 1), output_dim=8, heads=2, image_size=32),
    ],
    ids=["blocks of another build", "no blocks", "subclass", "resnet"],
)
def test_left_alone(make):
    """Towers of which it is not known what they compute stay as they are."""
    tower = make()
    before = list(tower.modules())
    replace_blocks(tower)
    assert list(tower.modules()) == before


def test_masks_are_refused():
    """A mask would be ignored, so open_clip giving one is an error and no wrong embedding."""
    tower = make_tower()
    replace_blocks(tower)
    tokens = torch.ones((2, 5, WIDTH), dtype=torch.float64)
    assert tower.transformer(tokens).shape == (2, 1, WIDTH)
    with pytest.raises(TypeError, match="attn_mask"):
        tower.transformer(tokens, attn_mask=torch.zeros(5, 5))
