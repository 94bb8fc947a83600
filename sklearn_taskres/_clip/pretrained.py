"""What the name of a pretrained CLIP stands for: its configuration, weights and tokenizer.

The only file that imports open_clip. A `ModelSource` is found in milliseconds, before weights are
fetched or anything is built, so that unknown names, fingerprints and sizes cost no model.
"""

import copy
import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import open_clip
import safetensors.torch
import torch
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from .resizing import make_resize

#: Name of the model that ships with the package.
BUNDLED = "glyph-clip"
_BUNDLED_FOLDER = Path(__file__).parent / "glyph"
#: Raised whenever the same images or prompts would give other embeddings than before.
_FORMAT = 1
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


class ModelUnavailableError(OSError):
    """The weights, configuration or tokenizer of a model are neither on disk nor downloadable."""


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A pretrained CLIP that can be fingerprinted, fetched and built."""

    name: str
    #: open_clip's model configuration.
    config: dict
    #: open_clip's preprocessing configuration.
    preprocessing: dict
    #: Gives the path of the weights, downloading them where need be.
    find_weights: Callable
    #: Gives the tokenizer.
    find_tokenizer: Callable
    #: Name that the weights go by for good, or None where only the file's bytes tell.
    weights_id: str | None = None

    @property
    def embedding_size(self):
        """Elements of an embedding, d."""
        return self.config["embed_dim"]

    def fingerprint(self, precision):
        """Text that is equal only where embeddings are: architecture, weights, preprocessing.

        Costs a pass over the weights where they are a file, and nothing else.
        """
        weights = self.weights_id or _file_digest(self.find_weights())
        parts = [_FORMAT, self.config, self.preprocessing, weights, precision]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def preprocess(self):
        """Return the transform of a PIL image of mode RGB to another one, of the size it takes.

        It does what open_clip does before the last steps, to a tensor and to zero mean and unit
        variance.
        """
        return make_resize(**self.preprocessing)

    def tokenizer(self):
        """Return the tokenizer: a list of prompts to token ids, int64 (n, context)."""
        self._require_transformers("hf_tokenizer_name")
        try:
            return self.find_tokenizer()
        except Exception as error:  # transformers raises many kinds
            raise _unavailable(self.name, None, "The tokenizer of ") from error

    def model(self):
        """Return the model, in eval mode and without gradients, and the token ids it knows.

        Returns
        -------
        model : torch.nn.Module
        token_ids : torch.Tensor or None
            None where the token embedding holds the whole vocabulary.
        """
        self._require_transformers("hf_model_name")
        path = Path(self.find_weights())
        with torch.random.fork_rng(devices=[]):  # the caller's random stream is not ours to advance
            try:
                model = _new_model(self.config)
            except OSError as error:  # the text tower's configuration is fetched from the hub
                raise _unavailable(self.name, None, "The text tower of ") from error
        try:
            token_ids = _load_weights(model, path)
        except Exception as error:  # pickle, zip, safetensors and torch each raise their own
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"The weights file {path} can't be loaded into {self.name!r}: {reason} It must "
                f"hold tensors only (safetensors, or torch.save of a state dict), and those of "
                f"this very architecture."
            ) from error
        return model.requires_grad_(False).eval(), token_ids

    def _require_transformers(self, key):
        if self.config["text_cfg"].get(key) and importlib.util.find_spec("transformers") is None:
            raise ImportError(
                f"The text tower of {self.name!r} needs the package transformers. Install it with "
                f"'pip install transformers', or choose a model with open_clip's own text tower."
            )


# finding --------------------------------------------------------------------------------------


def find_model(model_name, pretrained):
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
        return _bundled_source()
    if model_name.startswith("local-dir:"):
        return _folder_source(model_name, Path(model_name.partition(":")[2]))
    if model_name.startswith("hf-hub:"):
        return _hub_source(model_name, model_name.partition(":")[2])
    return _architecture_source(model_name, model_name.replace("/", "-"), pretrained)


def names_its_weights(model_name):
    """Whether a model's name says which weights it has, so that `pretrained` is ignored."""
    return model_name == BUNDLED or model_name.startswith(("local-dir:", "hf-hub:"))


def _bundled_source():
    config_path = _BUNDLED_FOLDER / f"{BUNDLED}.json"
    weights = _BUNDLED_FOLDER / f"{BUNDLED}.safetensors"
    if not (config_path.is_file() and weights.is_file()):
        raise ModelUnavailableError(
            f"The files of the bundled model {BUNDLED!r} are missing from {_BUNDLED_FOLDER}. "
            f"Install the package again."
        )
    config, preprocessing = _read_config(config_path)
    find_tokenizer = functools.partial(build_tokenizer, config_path)
    return ModelSource(BUNDLED, config, preprocessing, lambda: weights, find_tokenizer)


def _folder_source(model_name, folder):
    if not (folder / _CONFIG_NAME).is_file():
        raise ValueError(
            f"model_name={model_name!r} needs a folder that holds {_CONFIG_NAME}, and {folder} "
            f"does not. open_clip.push_to_hf_hub.save_for_hf writes such folders."
        )
    config, preprocessing = _read_config(folder / _CONFIG_NAME)
    weights = next((folder / n for n in _WEIGHTS_NAMES if (folder / n).is_file()), None)
    if weights is None:
        raise ValueError(
            f"The folder of model_name={model_name!r} holds no weights. Put one of "
            f"{', '.join(_WEIGHTS_NAMES)} beside {_CONFIG_NAME}."
        )
    find_tokenizer = functools.partial(open_clip.get_tokenizer, model_name)
    return ModelSource(model_name, config, preprocessing, lambda: weights, find_tokenizer)


def _hub_source(model_name, repository):
    fetch = functools.partial(_fetched, model_name, None, download_pretrained_from_hf, repository)
    config_path = fetch(filename=_CONFIG_NAME)
    config, preprocessing = _read_config(config_path)
    return ModelSource(
        model_name,
        config,
        preprocessing,
        find_weights=fetch,
        find_tokenizer=functools.partial(open_clip.get_tokenizer, model_name),
        weights_id=f"{repository}@{config_path.parent.name}",  # the folder is named by the commit
    )


def architecture_config(name):
    """Return open_clip's configuration of an architecture, a dict; None for an unknown name."""
    return open_clip.get_model_config(name)


def _architecture_source(model_name, architecture, pretrained):
    config = architecture_config(architecture)
    if config is None:
        raise ValueError(
            f"model_name={model_name!r} is no CLIP that open_clip knows."
            f"{_close_matches(model_name, [*open_clip.list_models(), BUNDLED])} "
            f"open_clip.list_models() names them all."
        )
    find_tokenizer = functools.partial(open_clip.get_tokenizer, architecture)
    tag = open_clip.get_pretrained_cfg(architecture, str(pretrained))
    if not tag:
        weights = _weights_file(model_name, architecture, pretrained)
        preprocessing = _preprocessing(config, {})
        return ModelSource(architecture, config, preprocessing, lambda: weights, find_tokenizer)
    # A tag knows with which activation it was trained; open_clip only warns where they differ.
    config["quick_gelu"] = bool(config.get("quick_gelu") or tag.get("quick_gelu"))
    return ModelSource(
        architecture,
        config,
        _preprocessing(config, tag),
        functools.partial(_fetched, model_name, pretrained, open_clip.download_pretrained, tag),
        find_tokenizer,
        weights_id=f"{architecture}/{pretrained.lower().replace('-', '_')}",
    )


def _weights_file(model_name, architecture, pretrained):
    if pretrained and Path(pretrained).is_file():
        return Path(pretrained)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    some = ", ".join(tags[:_NAMED_TAGS]) + (", …" if len(tags) > _NAMED_TAGS else "")
    raise ValueError(
        f"The 'pretrained' parameter must be a tag of {model_name!r} ({some or 'it has none'}) or "
        f"the path of a weights file. Got {pretrained!r} instead."
        f"{_close_matches(str(pretrained), tags)}"
    )


def _close_matches(word, words):
    known = {w.lower(): w for w in words}
    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(known[c]) for c in close)}?" if close else ""


def _fetched(model_name, pretrained, fetch, *args, **kwargs):
    """Path of a file from the hub or its cache, with one short error for all that can go wrong."""
    try:
        return Path(fetch(*args, **kwargs))
    except Exception as error:  # whatever the network stack raises
        raise _unavailable(model_name, pretrained) from error


def _unavailable(model_name, pretrained, what=""):
    tag = "" if pretrained is None else f", pretrained={pretrained!r}"
    return ModelUnavailableError(
        f"{what}model_name={model_name!r}{tag} is not in the cache "
        f"({huggingface_hub.constants.HF_HUB_CACHE}) and could not be downloaded. Use "
        f"files you have (pretrained='<weights file>' or model_name='local-dir:<folder>'), or "
        f"model_name={BUNDLED!r}, which comes with the package."
    )


def _read_config(path):
    """Read the configurations of a model and of its preprocessing from a JSON file."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    config = content.get("model_cfg", content)
    return config, _preprocessing(config, content.get("preprocess_cfg", {}))


def _preprocessing(config, changes):
    """open_clip's preprocessing, with what the weights want and the size the tower takes."""
    merged = merge_preprocess_dict(PreprocessCfg(), changes)
    return {**merged, "size": config["vision_cfg"].get("image_size", 224)}


def _file_digest(path):
    """Digest of a file's bytes, which are read again when size, time or inode say so."""
    state = Path(path).stat()
    return _digest(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@functools.lru_cache(maxsize=16)
def _digest(path, *state):
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# building -------------------------------------------------------------------------------------


def build_model(config_path):
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


def build_tokenizer(config_path):
    """Return the tokenizer of a configuration: list of prompts to token ids, (n, context)."""
    text_cfg = _read_config(config_path)[0]["text_cfg"]
    context = {key: text_cfg[key] for key in ("context_length",) if key in text_cfg}
    return open_clip.SimpleTokenizer(**context, **text_cfg.get("tokenizer_kwargs", {}))


def _new_model(config):
    """CLIP with random weights; nothing is downloaded for its towers."""
    config = copy.deepcopy(config)
    custom_text = config.pop("custom_text", False)
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
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
