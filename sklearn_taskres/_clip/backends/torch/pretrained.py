"""What the name of a pretrained CLIP stands for: its configuration, weights and tokenizer.

A `ModelSource` is found in milliseconds, before weights are
fetched or anything is built, so that unknown names, fingerprints and sizes cost no model.
"""

import copy
import dataclasses
import difflib
import functools
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from ...downloads import ModelUnavailableError, fetched, first_line, hub_address, unavailable
from ...identity import BUNDLED, ModelIdentity, file_digest, model_folder
from .untrusted import (
    RefusedError,
    known_tokenizer,
    own_tokenizer,
    read_json,
    refuse_code_of_text_tower,
    tokenizer_files,
    wants_code,
)

_BUNDLED_FOLDER = Path(__file__).parents[2] / "glyph"
_CONFIG_NAME = "open_clip_config.json"
#: Weights that a folder may hold; the first that exists is taken.
_WEIGHTS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
#: Tags that a message lists; some architectures have two dozen.
_NAMED_TAGS = 8


#: What the hub calls OpenAI's models, which their readers take for the name of an architecture.
_HUB_NAME_OF_OPENAI = re.compile(r"openai/clip-vit-(\w)\w+-patch(\d+)(-336)?")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A pretrained CLIP that can be fingerprinted, fetched and built."""

    name: str
    #: open_clip's model configuration.
    config: dict
    #: open_clip's preprocessing configuration.
    preprocessing: dict
    #: Gives the path of the weights, downloading them if need be.
    find_weights: Callable
    #: Gives the tokenizer.
    find_tokenizer: Callable
    #: Name that the weights go by for good, or None if only the file's bytes tell.
    weights_id: str | None = None
    #: Files besides the weights that decide about embeddings: a tokenizer's.
    other_files: tuple = ()

    @property
    def embedding_size(self) -> int:
        """Elements of an embedding, d."""
        return self.config["embed_dim"]

    def fingerprint(self, precision: str) -> str:
        """Text that is equal only if embeddings are; costs what `identity` does."""
        return self.identity().fingerprint(precision)

    def identity(self) -> ModelIdentity:
        """Return who this is, a ModelIdentity.

        Costs a pass over the weights if they are a file, and nothing else.
        """
        weights = self.weights_id or file_digest(self.find_weights())
        others = [[path.name, file_digest(path)] for path in self.other_files]
        return ModelIdentity(self.name, self.config, self.preprocessing, weights, others)

    def logit_scale(self) -> float | None:
        """Return the learned scale of cosines, 1/τ, or None if only the whole model tells.

        One number of a safetensors file is read. Building the model says what is wrong with a file.
        """
        try:
            with safetensors.safe_open(self.find_weights(), framework="pt") as file:
                return float(file.get_tensor("logit_scale").float().exp())
        except safetensors.SafetensorError:  # no such file, or it has another name there
            return None

    def tokenizer(self) -> Callable[[list[str]], torch.Tensor]:
        """Return the tokenizer: a list of prompts to token ids, int64 (n, context)."""
        self._require_transformers("hf_tokenizer_name")
        try:
            return self.find_tokenizer()
        except Exception as error:  # transformers raises many kinds
            raise self._failed("tokenizer", error) from None

    def model(self) -> tuple[torch.nn.Module, torch.Tensor | None]:
        """Return the model, in eval mode and without gradients, and the token ids it knows.

        Returns
        -------
        model : torch.nn.Module
        token_ids : torch.Tensor or None
            None if the token embedding holds the whole vocabulary.
        """
        self._require_transformers("hf_model_name")
        path = Path(self.find_weights())
        with torch.random.fork_rng(devices=[]):  # the caller's random stream is not ours to advance
            try:
                model = _new_model(self.config)
            except OSError as error:  # the text tower's configuration is fetched from the hub
                raise self._failed("text tower", error) from None
        try:
            token_ids = _load_weights(model, path)
        except Exception as error:  # pickle, zip, safetensors and torch each raise their own
            raise ValueError(
                f"The weights file {path} can't be loaded into {self.name!r}"
                f"{_why_not_loaded(error)}. It must hold tensors only (safetensors, or torch.save "
                f"of a state dict), and those of this very architecture."
            ) from None
        return model.requires_grad_(False).eval(), token_ids

    def _failed(self, part, error):
        """Return the error for a tokenizer or text tower that could not be had."""
        what = f"The {part} of model_name={self.name!r}"
        if wants_code(error):
            return ValueError(
                f"{what} wants to run Python code that comes with it, which is refused. Choose a "
                f"model that needs no code of its own."
            )
        if isinstance(error, RefusedError):
            return error
        if part == "tokenizer" and self.name.startswith("local-dir:"):
            return ModelUnavailableError(
                f"{what} could not be read from its folder: {first_line(error)}. Put all files of "
                f"the tokenizer into it, such as tokenizer.json and tokenizer_config.json."
            )
        return unavailable(what, error, _other_ways())

    def _require_transformers(self, key):
        if self.config["text_cfg"].get(key) and importlib.util.find_spec("transformers") is None:
            raise ImportError(
                f"The text tower of {self.name!r} needs the package transformers. Install it with "
                f"'pip install transformers', or choose a model with open_clip's own text tower."
            )


# finding --------------------------------------------------------------------------------------


def find_model(model_name: str, pretrained: str | os.PathLike[str] | None) -> ModelSource:
    """Return what a model's name and weights stand for.

    Parameters
    ----------
    model_name : str
        Architecture as open_clip spells it ("ViT-B-32"), "glyph-clip" (the bundled model),
        "local-dir:<folder>" or "hf-hub:<owner>/<repository>".
    pretrained : str, path-like or None
        open_clip tag ("openai") or weights file. Ignored unless `model_name` is an architecture.

    Returns
    -------
    ModelSource

    Raises
    ------
    ValueError
        If the model, tag, folder or file is unknown. Never leads to random weights.
    ModelUnavailableError
        If a configuration would have to be downloaded and cannot be.
    """
    if model_name == BUNDLED:
        return bundled_source()
    if model_name.startswith("local-dir:"):
        return _folder_source(model_name, model_folder(model_name))
    if model_name.startswith("hf-hub:"):
        return _hub_source(model_name, model_name.partition(":")[2])
    return _architecture_source(model_name, model_name.replace("/", "-"), pretrained)


def bundled_source(folder: Path = _BUNDLED_FOLDER) -> ModelSource:
    """Return what comes with the package; raise ModelUnavailableError if `folder` lacks it."""
    config_path = folder / f"{BUNDLED}.json"
    weights = folder / f"{BUNDLED}.safetensors"
    if not (config_path.is_file() and weights.is_file()):
        raise ModelUnavailableError(
            f"The files of the bundled model {BUNDLED!r} are missing from {folder}. "
            f"Install the package again."
        )
    config, preprocessing = _read_config(config_path)
    find_tokenizer = functools.partial(own_tokenizer, config["text_cfg"])
    return ModelSource(BUNDLED, config, preprocessing, lambda: weights, find_tokenizer)


def _folder_source(model_name, folder):
    if not folder.is_dir():
        raise ValueError(
            f"model_name={model_name!r} names a folder, and there is none at {folder.absolute()}. "
            f"Name the one that holds the model: set_params(model_name='local-dir:<folder>'), or "
            f"clip__model_name in a pipeline."
        )
    weights = next((folder / n for n in _WEIGHTS_NAMES if (folder / n).is_file()), None)
    if weights is None or not (folder / _CONFIG_NAME).is_file():
        raise ValueError(
            f"The folder {folder} of model_name={model_name!r} must hold two files, and lacks "
            f"{_CONFIG_NAME if weights else 'weights'}. They are {_CONFIG_NAME}, a JSON object "
            f'{{"model_cfg": …, "preprocess_cfg": …}} with what open_clip.get_model_config(<name>) '
            f"returns and how pixels are prepared (may be empty), and weights, one of "
            f"{', '.join(_WEIGHTS_NAMES)}."
        )
    config, preprocessing = _read_config(folder / _CONFIG_NAME)
    text_cfg = config["text_cfg"]
    is_foreign = text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name")
    return ModelSource(
        model_name,
        config,
        preprocessing,
        find_weights=lambda: weights,
        find_tokenizer=functools.partial(own_tokenizer, text_cfg, folder),
        other_files=tuple(tokenizer_files(folder)) if is_foreign else (),
    )


def _hub_source(model_name, repository):
    remedy = _other_ways(
        f"{_CONFIG_NAME} ({hub_address(repository, _CONFIG_NAME)}) and the weights next to it",
        "local-dir:<folder>",
    )
    what = f"model_name={model_name!r}"
    fetch = functools.partial(fetched, what, remedy, download_pretrained_from_hf, repository)
    config_path = fetch(filename=_CONFIG_NAME)
    config, preprocessing = _read_config(config_path)
    return ModelSource(
        model_name,
        config,
        preprocessing,
        find_weights=fetch,
        find_tokenizer=functools.partial(own_tokenizer, config["text_cfg"]),
        weights_id=f"{repository}@{config_path.parent.name}",  # the folder is named by the commit
    )


def architecture_config(name: str) -> dict[str, Any] | None:
    """Return open_clip's configuration of an architecture, a dict; None for an unknown name."""
    return open_clip.get_model_config(name)


def _architecture_source(model_name, architecture, pretrained):
    config = architecture_config(architecture)
    if config is None:
        raise ValueError(
            f"model_name={model_name!r} is not a CLIP that open_clip knows."
            f"{_meant_model(model_name)} open_clip.list_models() names them all."
        )
    find_tokenizer = functools.partial(known_tokenizer, architecture, config)
    tag = open_clip.get_pretrained_cfg(architecture, str(pretrained))
    if not tag:
        weights = _weights_file(model_name, architecture, pretrained)
        preprocessing = _preprocessing(config, {})
        return ModelSource(architecture, config, preprocessing, lambda: weights, find_tokenizer)
    what = f"model_name={model_name!r}, pretrained={pretrained!r}"
    remedy = _other_ways(*_file_of_tag(architecture, tag))
    # A tag knows with which activation it was trained; open_clip only warns if they differ.
    config["quick_gelu"] = bool(config.get("quick_gelu") or tag.get("quick_gelu"))
    return ModelSource(
        architecture,
        config,
        _preprocessing(config, tag),
        functools.partial(fetched, what, remedy, open_clip.download_pretrained, tag),
        find_tokenizer,
        weights_id=f"{architecture}/{pretrained.lower().replace('-', '_')}",
    )


def _file_of_tag(architecture, tag):
    """Return the address of a tag's weights, and the `model_name` that reads that file right."""
    quick = f"{architecture}-quickgelu"
    needs_quick = tag.get("quick_gelu") and quick in open_clip.list_models()
    repository, _, file = tag.get("hf_hub", "").rpartition("/")
    address = hub_address(repository, file or _WEIGHTS_NAMES[0]) if repository else tag.get("url")
    return address, quick if needs_quick else architecture


def _other_ways(address=None, model_name=None):
    """Say what to do without a download: where to get the file, and how to name it."""
    if model_name is None:
        here = "Use files you have (pretrained='<weights file>' or model_name='local-dir:<folder>')"
    elif model_name.startswith("local-dir:"):
        here = f"Get the files elsewhere, {address}, and pass model_name={model_name!r}"
    else:
        here = (
            f"Get the file elsewhere, from {address}, and pass model_name={model_name!r}, "
            f"pretrained='<weights file>' (or a folder, model_name='local-dir:<folder>')"
        )
    return f"{here}, or use model_name={BUNDLED!r}, which comes with the package."


def _meant_model(model_name):
    """Say what an unknown name of a model may have been meant as."""
    path = os.path.expanduser(model_name)
    if os.path.isdir(path):
        return f" A folder is named by model_name='local-dir:{model_name}'."
    if os.path.isfile(path):
        return (
            f" A weights file goes into pretrained={model_name!r}, next to the model_name of its "
            f"architecture."
        )
    openai = _HUB_NAME_OF_OPENAI.fullmatch(model_name)
    if openai:
        size, patch, pixels = openai.groups(default="")
        return f" Pass model_name='ViT-{size.upper()}-{patch}{pixels}', pretrained='openai'."
    close = _close_matches(model_name, [*open_clip.list_models(), BUNDLED])
    if not close and model_name.count("/") == 1:
        return (
            f" A repository of the hub is named by model_name='hf-hub:{model_name}', and must hold "
            f"{_CONFIG_NAME}."
        )
    return close


def _weights_file(model_name, architecture, pretrained):
    path = Path(os.path.expanduser(pretrained)) if pretrained else None
    if path and path.is_file():
        return path
    if path and path.is_dir():
        raise ValueError(
            f"pretrained={str(pretrained)!r} is a folder. Pass the weights file in it, or "
            f"model_name='local-dir:{pretrained}' if the folder holds {_CONFIG_NAME}."
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    some = ", ".join(tags[:_NAMED_TAGS]) + (", …" if len(tags) > _NAMED_TAGS else "")
    missing = ""
    if path and (path.suffix or path.name != str(pretrained)):  # no tag looks like this
        missing = (
            f" There is no file {path.absolute()}. If it has moved, say where it is: "
            f"set_params(pretrained='<weights file>'), or clip__pretrained in a pipeline."
        )
    raise ValueError(
        f"The 'pretrained' parameter must be a tag of {model_name!r} ({some or 'it has none'}) or "
        f"the path of a weights file. Got {pretrained!r} instead.{missing}"
        f"{_close_matches(str(pretrained), tags)}"
    )


def _close_matches(word, words):
    known = {w.lower(): w for w in words}
    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(known[c]) for c in close)}?" if close else ""


def _read_config(path):
    """Read the configurations of a model and of its preprocessing from a JSON file."""
    content = read_json(path)
    config = content.get("model_cfg", content)
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise ValueError(f"The configuration {path} of a model lacks {', '.join(missing)}.")
    return config, _preprocessing(config, content.get("preprocess_cfg", {}))


def _preprocessing(config, changes):
    """open_clip's preprocessing, with what the weights want and the size the tower takes."""
    merged = merge_preprocess_dict(PreprocessCfg(), changes)
    return {**merged, "size": config["vision_cfg"].get("image_size", 224)}


# building -------------------------------------------------------------------------------------


def build_model(config_path: str | os.PathLike[str]) -> torch.nn.Module:
    """Return a CLIP with random weights, in train mode, from a JSON configuration.

    Parameters
    ----------
    config_path : path-like
        open_clip model configuration ("embed_dim", "vision_cfg", "text_cfg", …), or one with the
        keys "model_cfg" and "preprocess_cfg".

    Returns
    -------
    torch.nn.Module
        Drawn from torch's global generator: seed it first.
    """
    return _new_model(_read_config(config_path)[0])


def build_tokenizer(config_path: str | os.PathLike[str]) -> Callable[[list[str]], torch.Tensor]:
    """Return the tokenizer of a configuration: list of prompts to token ids, (n, context)."""
    return own_tokenizer(_read_config(config_path)[0]["text_cfg"])


def _new_model(config):
    """CLIP with random weights; nothing is downloaded for its towers."""
    config = copy.deepcopy(config)
    custom_text = config.pop("custom_text", False)
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if config["text_cfg"].get("hf_model_name"):
        refuse_code_of_text_tower(config["text_cfg"]["hf_model_name"])
        config["text_cfg"]["hf_model_pretrained"] = False
        custom_text = True
    if "multimodal_cfg" in config:
        return open_clip.CoCa(**config)
    return open_clip.CustomTextCLIP(**config) if custom_text else open_clip.CLIP(**config)


def _load_weights(model, path):
    """Load weights, never executing what a file holds; return the token ids of a cut vocabulary."""
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, framework="pt") as file:
            is_cut = "token_ids" in file.keys()  # noqa: SIM118 (not a dict)
        if is_cut:
            return _load_cut_vocabulary(model, path)
    open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    return None


def _load_cut_vocabulary(model, path):
    """Load weights whose token embedding has the rows of `token_ids` only; the others are zero."""
    state = safetensors.torch.load_file(path)
    token_ids = state.pop("token_ids").long()
    name = next(n for n in state if n.endswith("token_embedding.weight"))
    rows = state[name].float()  # (known tokens, width)
    state[name] = rows.new_zeros(model.vocab_size, rows.shape[1]).index_copy(0, token_ids, rows)
    model.load_state_dict(state, strict=True)
    return token_ids


def _why_not_loaded(error):
    """Return the reason why weights were not loaded, or nothing if torch would advise wrongly.

    What it says of files that are not tensors is how to run their code.
    """
    return "" if "weights_only" in str(error) else f": {first_line(error)}"
