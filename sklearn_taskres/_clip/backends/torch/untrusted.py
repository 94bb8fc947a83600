"""What others wrote and we read: configurations and tokenizers of models, as data and never code.

A configuration of transformers may name Python code that comes with it. Nothing of it is run: what
asks for it is refused by name, and transformers is told not to, whatever a configuration says.
"""

import json
from pathlib import Path

import open_clip
from open_clip.tokenizer import HFTokenizer

#: Keys, at any depth, by which a configuration asks that its own code be run.
_CODE_KEYS = frozenset({"trust_remote_code", "auto_map", "code_revision", "custom_code"})
#: All that a configuration may set of a tokenizer; others name files, servers or code.
_TOKENIZER_KEYS = frozenset(
    {"additional_special_tokens", "clean", "language", "reduction_mask", "strip_sep_token"}
)
#: Endings of files that a tokenizer or the text tower of a folder is read from.
_TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".tiktoken")


class RefusedError(ValueError):
    """A model asks for more than to be read."""


def read_json(path):
    """Return what a JSON file of a model holds, which is refused if it asks to run code."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"The configuration {path} is not a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"The configuration {path} must be a JSON object.")
    refuse_code(content, path)
    return content


def refuse_code(content, source):
    """Raise RefusedError if a configuration, from `source`, asks that its own code be run."""
    key = next((key for key in _keys(content) if key in _CODE_KEYS), None)
    if key is not None:
        raise RefusedError(
            f"The configuration {source} has the key {key!r}, which asks to run Python code that "
            f"comes with the model. It is refused. Choose a model that needs no code of its own."
        )


def _keys(content):
    """Yield the keys of nested dicts and lists."""
    stack = [content]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield from item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def own_tokenizer(text_cfg, folder=None):
    """Return the tokenizer that a configuration describes.

    Parameters
    ----------
    text_cfg : dict
        open_clip's configuration of a text tower.
    folder : path-like or None, default=None
        Where the files of a tokenizer of transformers lie; None takes those that it names.

    Returns
    -------
    callable
        List of prompts to token ids, (n, context).
    """
    options = text_cfg.get("tokenizer_kwargs", {})
    others = sorted(set(options) - _TOKENIZER_KEYS)
    if others:
        raise RefusedError(
            f"The configuration of a model sets {', '.join(map(repr, others))} in "
            f"'tokenizer_kwargs', which is refused: it may set "
            f"{', '.join(sorted(_TOKENIZER_KEYS))} and no more."
        )
    if "context_length" in text_cfg:
        options = {**options, "context_length": text_cfg["context_length"]}
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        return open_clip.SimpleTokenizer(**options)
    mode = text_cfg.get("tokenizer_mode")
    where = str(folder or name)
    return HFTokenizer(where, tokenizer_mode=mode, trust_remote_code=False, **options)


def known_tokenizer(architecture, config):
    """Return the tokenizer of an architecture that open_clip knows."""
    is_foreign = config["text_cfg"].get("hf_tokenizer_name")
    options = {"trust_remote_code": False} if is_foreign else {}
    return open_clip.get_tokenizer(architecture, **options)


def refuse_code_of_text_tower(name):
    """Raise RefusedError if the configuration of a text tower of transformers asks to run code.

    open_clip reads it with transformers' own default, which is to ask at the terminal.
    """
    from transformers import PretrainedConfig

    refuse_code(PretrainedConfig.get_config_dict(name)[0], name)


def wants_code(error):
    """Whether transformers failed since it was not allowed to run a model's code."""
    return "trust_remote_code" in str(error)


def tokenizer_files(folder):
    """List the files of a folder that may be a tokenizer's or those of a text tower."""
    return sorted(p for p in Path(folder).iterdir() if p.suffix in _TOKENIZER_SUFFIXES)
