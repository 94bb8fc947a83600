"""The last block of a vision transformer, computed for the one token that is read.

CLIP's vision transformers end in the class token: what their last block makes of the patches is
thrown away. A block for one query token needs neither keys nor values of the others: the key
projection is applied to the query, and the value projection to the weighted mean of the tokens.
That saves about a twelfth of the work of a tower of twelve blocks.
"""

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch.nn.functional import linear

__all__ = ["ClassTokenBlock", "compute_class_token_only"]


class ClassTokenBlock(torch.nn.Module):
    """What a block of open_clip makes of the first token; the others are only looked at.

    Parameters
    ----------
    block : ResidualAttentionBlock
        The block, whose weights it holds.
    """

    def __init__(self, block: ResidualAttentionBlock):
        super().__init__()
        self.block = block
        self.training = block.training

    def forward(self, tokens, attn_mask=None):
        """Return the class token after the block, (b, 1, w), of tokens (b, n, w).

        `attn_mask` is there since open_clip gives one to its blocks: None in image towers.
        """
        if attn_mask is not None:
            raise NotImplementedError("The class token is computed without an attention mask.")
        block = self.block
        class_token = tokens[:, 0] + block.ls_1(self._attention(block.ln_1(tokens)))
        class_token = class_token + block.ls_2(block.mlp(block.ln_2(class_token)))
        return class_token[:, None]

    def _attention(self, tokens):
        """Return what the class token sees, (b, w), of normalised tokens (b, n, w)."""
        attention = self.block.attn
        n_heads, head_width = attention.num_heads, attention.head_dim
        to_query, to_key, to_value = attention.in_proj_weight.chunk(3)  # each (w, w)
        query_bias, _, value_bias = attention.in_proj_bias.chunk(3)  # the key's changes no weight
        to_key, to_value = (
            weight.unflatten(0, (n_heads, head_width)) for weight in (to_key, to_value)
        )
        query = linear(tokens[:, 0], to_query, query_bias).unflatten(1, (n_heads, head_width))
        query = torch.einsum("bhe,hew->bhw", query * head_width**-0.5, to_key)
        weights = (query @ tokens.mT).softmax(dim=-1)  # (b, h, n)
        seen = torch.einsum("bhw,hew->bhe", weights @ tokens, to_value)
        return attention.out_proj(seen.flatten(1) + value_bias)


def compute_class_token_only(tower: torch.nn.Module) -> None:
    """Replace the last block of an image tower that reads its class token; leave others alone."""
    if not (
        type(tower) is VisionTransformer  # what a subclass reads is not known
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
    ):
        return
    blocks = tower.transformer.resblocks
    if len(blocks) and type(blocks[-1]) is ResidualAttentionBlock:
        blocks[-1] = ClassTokenBlock(blocks[-1])
