"""The frozen text tower as a differentiable function of context vectors around class names."""

import torch

from .._device import product_precision
from .backends.torch.encoder import copy_sharing_tensors


class PromptTower:
    """CLIP's text tower, called with the context vectors of its prompts. For one thread.

    A prompt is "[context] name.", or "[half of it] name [the other half]." with the name in the
    middle, between the tokenizer's own start and end. The encoder's model stays as it is: this is a
    copy that shares its weights, and is given the prompts' embeddings in place of making them.

    Parameters
    ----------
    encoder : Encoder
        The frozen CLIP.
    names : list of str
        Class names, K of them.
    context : int or str
        Number of context vectors, M, or words, a vector for each of their tokens.
    position : {"end", "middle"}
        Where the name stands.

    Attributes
    ----------
    device : torch.device
        Where it computes.
    n_context : int
        Context vectors of a prompt, M.
    width : int
        Elements of a context vector, W.
    start : ndarray of shape (M, W), float32, or None
        Token embeddings of the words that the context was given as.

    Raises
    ------
    ValueError
        If the text tower is of another build than open_clip's plain one, or the context does not
        fit into the tokens that it reads.
    """

    def __init__(self, encoder, names, context, position):
        tower = _plain_tower(encoder)
        words = _word_ids(encoder, context) if isinstance(context, str) else None
        self.n_context = context if words is None else len(words)
        tokens, gaps = _prompts_with_gaps(encoder, names, self.n_context, position)
        self.device, self._precision = encoder.device, encoder.text_precision
        self._tokens, self._gaps = tokens.to(self.device), gaps.to(self.device)
        self._rows = torch.arange(len(gaps), device=self.device)[:, None]  # (K, 1)
        with torch.no_grad():
            self._prompts = tower.token_embedding(self._tokens)  # (K, L, W)
            self.start = None
            if words is not None:
                self.start = tower.token_embedding(words.to(self.device)).cpu().numpy()
        self.width = self._prompts.shape[2]
        self._given = _GivenEmbeddings()
        self._model = encoder.with_text_tower(_reading(tower, self._given, tokens.shape[1]))

    def __call__(self, context):
        """Return raw class embeddings (K, d) of a tensor (M, W), or (K, M, W), in its dtype."""
        filling = context.to(self._prompts.dtype).expand(*self._gaps.shape, self.width)
        self._given.embeddings = self._prompts.index_put((self._rows, self._gaps), filling)
        return self._model.encode_text(self._tokens, normalize=False).to(context.dtype)

    def embed(self, context):
        """Return the same of an array, as an array."""
        with torch.no_grad(), product_precision(self.device, self._precision):
            return self(torch.tensor(context, device=self.device)).cpu().numpy()


class _GivenEmbeddings(torch.nn.Module):
    """Stands in for a token embedding, and returns what it was given."""

    embeddings: torch.Tensor

    def forward(self, tokens):
        return self.embeddings


# the tower ------------------------------------------------------------------------------------


def _plain_tower(encoder):
    """Return the module that is open_clip's plain text transformer, or refuse another."""
    tower = encoder.text_tower
    is_own = all(hasattr(tower, name) for name in ("token_embedding", "attn_mask"))
    if is_own and getattr(tower, "cls_emb", None) is None:
        return tower
    raise ValueError(
        f"Context vectors can't be learned with {encoder.source.name!r}: its text tower is not "
        f"open_clip's plain text transformer, but one of Hugging Face's or, as CoCa's, one with a "
        f"class token of its own. Use a model such as 'ViT-B-32'."
    )


def _reads_no_padding(tower):
    """Whether what a text tower returns depends on nothing behind the end of a prompt."""
    pooling = getattr(tower, "pool_type", None) or getattr(tower, "text_pool_type", None)
    return tower.attn_mask is not None and pooling in ("argmax", "eos")


def _reading(tower, embedding, n_tokens):
    """Copy of a text tower that takes embeddings from `embedding`, of prompts of `n_tokens`."""
    copied = copy_sharing_tensors(tower)
    copied.token_embedding = embedding
    if n_tokens < len(tower.positional_embedding):
        positions = tower.positional_embedding[:n_tokens]
        copied.positional_embedding = torch.nn.Parameter(positions, requires_grad=False)
        copied.attn_mask = tower.attn_mask[:n_tokens, :n_tokens]
    return copied


# tokens ---------------------------------------------------------------------------------------


def _lengths(encoder, tokens):
    """Tokens before the words of prompts, 0 or 1, and up to the first one behind them, (n,)."""
    empty, word = encoder.tokenizer(["", "a"])
    n_before = int(empty[0] == word[0])
    return n_before, (tokens == empty[n_before]).int().argmax(dim=1)


def _word_ids(encoder, words):
    """Token ids of words alone, (n_tokens,)."""
    tokens = encoder.tokenize([words])
    n_before, lengths = _lengths(encoder, tokens)
    if lengths[0] == n_before:
        raise ValueError(f"The context {words!r} holds no word. Write some, or give a number.")
    return tokens[0, n_before : lengths[0]]


def _prompts_with_gaps(encoder, names, n_context, position):
    """Token ids of prompts, (K, L), and the places in them for context vectors, (K, M)."""
    prompts = [f"{name}." for name in names]
    tokens = encoder.tokenize(prompts)
    n_before, lengths = _lengths(encoder, tokens)
    longest, n_places = int(lengths.max()) + 1, tokens.shape[1]  # the end is read, too
    if n_context > n_places - longest:
        raise ValueError(
            f"{n_context} context vectors do not fit into the prompts: {encoder.source.name!r} "
            f"reads {n_places} tokens, and {prompts[int(lengths.argmax())]!r:.80} takes {longest} "
            f"of them, which leaves room for at most {n_places - longest}."
        )
    gaps = n_before + torch.arange(n_context).repeat(len(names), 1)
    if position == "middle":
        name_lengths = _lengths(encoder, encoder.tokenizer(names))[1] - n_before
        gaps[:, n_context // 2 :] += name_lengths[:, None]
    is_gap = torch.zeros(tokens.shape, dtype=torch.bool).scatter(1, gaps, True)
    # Whatever stands in a gap is replaced, but must not pass for an end or for padding.
    spread = torch.full_like(tokens, int(encoder.tokenizer(["a"])[0, n_before]))
    spread[~is_gap] = tokens[:, : n_places - n_context].flatten()
    is_cut = _reads_no_padding(encoder.text_tower)
    return spread[:, : n_context + longest] if is_cut else spread, gaps
