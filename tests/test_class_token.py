"""The block of the class token alone against open_clip's whole block, in float64."""

import pytest
import torch
from numpy.testing import assert_allclose
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch.utils.flop_counter import FlopCounterMode

from sklearn_taskres._clip.backends.torch.class_token import (
    ClassTokenBlock,
    compute_class_token_only,
)

N_LAYERS, WIDTH = 3, 24


def make_tower(**options):
    """A tower in eval mode and float64; every parameter is drawn, also those that start at 0."""
    sizes = {"image_size": 16, "patch_size": 4, "width": WIDTH, "layers": N_LAYERS, "heads": 4}
    tower = VisionTransformer(**sizes, mlp_ratio=2, output_dim=8, **options).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return tower.eval().requires_grad_(False)


def make_images(n=5):
    return torch.randn((n, 3, 16, 16), generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ls_init_value": 0.1},
        {"final_ln_after_pool": True},
        {"no_ln_pre": True},
        {"patch_dropout": 0.5},
    ],
    ids=str,
)
def test_equals_the_whole_block(options):
    """The class token of the last block is what open_clip computes, for these options of it."""
    tower = make_tower(**options)
    expected = tower(make_images())
    compute_class_token_only(tower)
    assert isinstance(tower.transformer.resblocks[-1], ClassTokenBlock)
    assert_allclose(tower(make_images()), expected, rtol=1e-10, atol=1e-12)
    assert expected.std(dim=0).min() > 1e-3  # so that images are told apart


def test_last_block_costs_next_to_nothing():
    """The last block takes less than a quarter of the multiplications of its layers alone."""
    whole, without = make_tower(), make_tower()
    without.transformer.resblocks = without.transformer.resblocks[:-1]
    before, others = n_operations(whole), n_operations(without)
    compute_class_token_only(whole)
    # torch does not count the attention of open_clip's own blocks
    assert others < n_operations(whole) < others + (before - others) / 4


def n_operations(tower):
    with FlopCounterMode(display=False) as counter:
        tower(make_images())
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "options",
    [
        {"pool_type": "avg"},
        {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
        {"output_tokens": True},
        {"qk_norm": True},
    ],
    ids=str,
)
def test_towers_that_read_more_are_left_alone(options):
    """A tower that reads its patches, or has blocks of another build, stays as it is."""
    tower = make_tower(**options)
    before = list(tower.modules())
    compute_class_token_only(tower)
    assert list(tower.modules()) == before


def test_resnets_are_left_alone():
    """A convolutional tower has no class token."""
    tower = ModifiedResNet(layers=(1, 1, 1, 1), output_dim=8, heads=2, image_size=32, width=8)
    before = list(tower.modules())
    compute_class_token_only(tower)
    assert list(tower.modules()) == before


def test_masks_are_refused():
    """A mask would be ignored, so open_clip giving one is an error and no wrong embedding."""
    block = ClassTokenBlock(make_tower().transformer.resblocks[-1])
    tokens = torch.ones((2, 5, WIDTH), dtype=torch.float64)
    assert block(tokens).shape == (2, 1, WIDTH)
    with pytest.raises(NotImplementedError, match="attention mask"):
        block(tokens, attn_mask=torch.zeros(5, 5))
