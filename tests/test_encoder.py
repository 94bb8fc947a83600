"""The encoder against open_clip's own calls done right, and each of open_clip's traps."""

import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from safetensors.torch import load_file, save_file

from sklearn_taskres import CLIPTextFeaturizer
from sklearn_taskres._clip.backends.torch import encoder as encoder_module
from sklearn_taskres._clip.backends.torch.blocks import Blocks, ClassTokenBlock
from sklearn_taskres._clip.backends.torch.encoder import load_encoder
from sklearn_taskres._clip.backends.torch.pretrained import (
    build_model,
    build_tokenizer,
    bundled_source,
    find_model,
)
from sklearn_taskres._clip.downloads import ModelUnavailableError, fetched
from sklearn_taskres._clip.prompt_tower import PromptTower, _prompts_with_gaps

FAMILIES = ("vit", "resnet", "custom_text", "siglip", "coca")
PROMPTS = ["a photo of a cat.", "a photo of a great white shark.", "stripes"]


def _hub_error(kind):
    return kind.__new__(kind)  # its __init__ wants the response of a server


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    sizes = [(40, 60), (70, 33), (32, 32)]
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture(params=["cpu", "cuda", "mps"])
def device(request):
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(request.param)
    if backend is not None and not backend.is_available():
        pytest.skip(f"this machine has no {request.param}")
    return request.param


@pytest.fixture
def tiny_architecture(monkeypatch, tmp_path, clip_writer):
    """Architecture that open_clip knows during a test, with a tag and a file of its weights."""
    save_clip, configs = clip_writer
    weights = Path(save_clip(tmp_path / "saved", configs["vit"])[len("local-dir:") :])
    weights = weights / "open_clip_model.safetensors"
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Tiny-Test", configs["vit"])
    tag = {"file": str(weights), "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-Tiny-Test", {"quick": tag})
    return "ViT-Tiny-Test", weights


def reference(name, **kwargs):
    """open_clip's model in eval mode, its transform and its tokenizer."""
    model, _, transform = open_clip.create_model_and_transforms(name, **kwargs)
    return model.eval(), transform, open_clip.get_tokenizer(name)


# what it computes -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_images_as_open_clip(family, make_clip, photos):
    """Image embeddings are open_clip's own: raw, in eval mode, with the model's preprocessing."""
    model, transform, _ = reference(make_clip(family))
    pixels = torch.stack([transform(photo) for photo in photos])
    with torch.inference_mode():
        expected = model.encode_image(pixels, normalize=False).numpy()
    encoder = load_encoder(make_clip(family), None, device="cpu", precision="float32")
    actual = encoder.encode_images([encoder.preprocess(photo) for photo in photos])
    assert actual.dtype == np.float32
    assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_as_open_clip(family, make_clip):
    """Text embeddings are open_clip's own, raw, whatever the family normalises by default."""
    model, _, tokenizer = reference(make_clip(family))
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(PROMPTS), normalize=False).numpy()
    actual = load_encoder(make_clip(family), None, device="cpu").encode_texts(PROMPTS)
    assert actual.dtype == np.float32
    assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_projection_joins_text_features_and_embeddings(family, make_clip):
    """encode_texts is text_features times the projection, plus its bias, in every family."""
    encoder = load_encoder(make_clip(family), None, device="cpu")
    weight, bias = encoder.text_projection()
    features = encoder.text_features(PROMPTS)
    assert features.dtype == weight.dtype == np.float32
    assert (bias is not None) == (family == "siglip")
    projected = features @ weight + (0 if bias is None else bias)
    assert_allclose(projected, encoder.encode_texts(PROMPTS), rtol=1e-4, atol=1e-5)


def test_projection_is_a_copy(make_clip):
    """Writing into the projection that was handed out leaves the shared model alone."""
    encoder = load_encoder(make_clip("siglip"), None, device="cpu")
    before = encoder.encode_texts(PROMPTS)
    for array in encoder.text_projection():
        array[:] = 0
    assert_array_equal(encoder.encode_texts(PROMPTS), before)


def test_text_features_leave_the_model_alone(make_clip):
    """Texts encode the same after features before the projection were asked for."""
    encoder = load_encoder(make_clip("custom_text"), None, device="cpu")
    before = encoder.encode_texts(PROMPTS)
    encoder.text_features(PROMPTS)
    assert_array_equal(encoder.encode_texts(PROMPTS), before)


def test_no_projection_is_an_error(make_clip):
    """A text tower without a projection embeds texts, and says why it has no features before it."""
    encoder = load_encoder(make_clip("no_projection"), None, device="cpu")
    assert encoder.encode_texts(PROMPTS).shape == (3, 12)
    with pytest.raises(ValueError, match="does not end in a linear projection"):
        encoder.text_features(PROMPTS)
    with pytest.raises(ValueError, match="does not end in a linear projection"):
        encoder.text_projection()


def test_model_is_frozen(make_clip):
    """The model is in eval mode and has nothing to train."""
    model = load_encoder(make_clip("custom_text"), None, device="cpu").model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_sizes_and_scale(make_clip):
    """The size of an embedding and the logit scale are the model's."""
    encoder = load_encoder(make_clip("vit"), None, device="cpu")
    assert encoder.embedding_size == 16
    assert encoder.logit_scale == pytest.approx(1 / 0.07)


def test_devices_agree(device, tiny_clip, photos):
    """Every device gives the embeddings of the CPU."""
    cpu = load_encoder(tiny_clip, None, device="cpu", precision="float32")
    other = load_encoder(tiny_clip, None, device=device, precision="float32")
    pixels = [cpu.preprocess(photo) for photo in photos]
    assert_allclose(other.encode_images(pixels), cpu.encode_images(pixels), atol=1e-2)
    assert_allclose(other.encode_texts(PROMPTS), cpu.encode_texts(PROMPTS), atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_close_and_float32(family, make_clip, photos):
    """A lower precision moves embeddings a little, and the result is still float32."""
    exact, lower = (
        load_encoder(make_clip(family), None, device="cpu", precision=precision)
        for precision in ("float32", "bfloat16")
    )
    pixels = [exact.preprocess(photo) for photo in photos]
    for method, inputs in (("encode_images", pixels), ("encode_texts", PROMPTS)):
        expected, actual = getattr(exact, method)(inputs), getattr(lower, method)(inputs)
        assert actual.dtype == np.float32
        assert 0 < np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


def test_auto_is_bfloat16_for_images_where_there_are_units_for_it(tiny_clip, feign_cpu, photos):
    """With AMX or on AMD "auto" means another encoder, which computes texts in float32 still."""
    exact = load_encoder(tiny_clip, None, device="cpu", precision="float32")
    lower = load_encoder(tiny_clip, None, device="cpu", precision="bfloat16")
    feign_cpu(amx_bf16=True)
    auto = load_encoder(tiny_clip, None, device="cpu")
    pixels = [exact.preprocess(photo) for photo in photos]
    assert_array_equal(auto.encode_images(pixels), lower.encode_images(pixels))
    assert_array_equal(auto.encode_texts(PROMPTS), exact.encode_texts(PROMPTS))
    for name, expected in (("AMD EPYC 9654", "bfloat16"), ("Intel Xeon", "float32")):
        feign_cpu(avx512_bf16=True, cpu_name=name)
        assert load_encoder(tiny_clip, None, device="cpu").image_precision == expected


def test_resnets_compute_with_channels_last(make_clip):
    """Convolutions are faster with channels last; a transformer's tower is left as it is."""
    for family, expected in (("resnet", True), ("vit", False)):
        weight = load_encoder(make_clip(family), None, device="cpu").model.visual.conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == expected


@pytest.mark.parametrize(
    ("family", "expected"),
    [("vit", {Blocks, ClassTokenBlock}), ("coca", {Blocks}), ("resnet", set())],
)
def test_vision_transformers_compute_in_our_blocks(make_clip, family, expected):
    """Towers of open_clip's plain blocks take ours; the last is short if only it is read."""
    tower = load_encoder(make_clip(family), None, device="cpu").model.visual
    assert {type(part) for part in tower.modules()} & {Blocks, ClassTokenBlock} == expected


# the traps ------------------------------------------------------------------------------------


def test_quick_gelu_of_a_tag(tiny_architecture, photos):
    """An architecture takes the activation that its tag was trained with, without a warning."""
    name, _ = tiny_architecture
    model, transform, _ = reference(name, pretrained="quick", force_quick_gelu=True)
    pixels = torch.stack([transform(photo) for photo in photos])
    with torch.inference_mode():
        expected = model.encode_image(pixels).numpy()
    encoder = load_encoder(name, "quick", device="cpu", precision="float32")
    actual = encoder.encode_images([encoder.preprocess(photo) for photo in photos])
    assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "ViT-B-32-quickgelu", "ViT-B/32"])
def test_quick_gelu_of_openai(name):
    """OpenAI's weights are run with QuickGELU whatever the architecture's name says."""
    assert find_model(name, "openai").config["quick_gelu"]


def test_no_quick_gelu_where_the_tag_has_none():
    """LAION's weights of the same architecture are run with plain GELU."""
    assert not find_model("ViT-B-32", "laion2b_s34b_b79k").config["quick_gelu"]


@pytest.mark.parametrize("pretrained", [None, "", "opanai", "no/such/file.pt"])
def test_never_random_weights(pretrained):
    """Anything but a tag or an existing file is refused, naming the tags."""
    with pytest.raises(ValueError, match=r"must be a tag of 'ViT-B-32' \(openai, .*Got "):
        load_encoder("ViT-B-32", pretrained)


def test_misspelt_tag_gets_a_suggestion():
    """A tag that is nearly right draws the right one."""
    with pytest.raises(ValueError, match="Did you mean 'openai'"):
        load_encoder("ViT-B-32", "opanai")


@pytest.mark.parametrize(("typo", "meant"), [("ViTB32", "ViT-B-32"), ("glyphclip", "glyph-clip")])
def test_unknown_model_gets_a_suggestion(typo, meant):
    """A name that is nearly right draws the right one."""
    with pytest.raises(ValueError, match=f"Did you mean .*'{meant}'"):
        load_encoder(typo, "openai")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ViT-B-32", ("weights file", "model_name='ViT-B-32-quickgelu'", "clip_224.openai")),
        ("hf-hub:someone/some-clip", ("open_clip_config.json", "someone/some-clip")),
    ],
)
def test_offline(name, parts):
    """The error is ours: why, the model, the place, where to get the file, and no traceback."""
    with pytest.raises(ModelUnavailableError) as info:
        load_encoder(name, "openai")
    assert info.value.__suppress_context__
    always = ("HF_HUB_OFFLINE forbids it", name, "huggingface", "local-dir:", "glyph-clip")
    for part in (*always, *parts):
        assert part in str(info.value)


def test_offline_needs_no_quick_gelu():
    """A tag that was trained with plain GELU keeps its architecture's name."""
    with pytest.raises(ModelUnavailableError, match="pass model_name='ViT-B-32', pretrained=") as e:
        load_encoder("ViT-B-32", "laion2b_s34b_b79k")
    assert "quickgelu" not in str(e.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("no route to host"), "no connection to the hub"),
        (socket.gaierror(-3, "Temporary failure in name resolution"), "could not be resolved"),
        (RuntimeError("[Errno -2] Name or service not known"), "could not be resolved"),
        (_hub_error(RepositoryNotFoundError), "the hub does not have it"),
        (_hub_error(GatedRepoError), "registered users"),
        (RuntimeError("checksum\nand more"), "downloaded: checksum. Get"),
    ],
)
def test_why_a_download_failed(error, reason, monkeypatch):
    """The reason is found behind the errors that wrap it."""

    def fail(*_, **__):
        try:
            raise error
        except Exception as inner:
            raise FileNotFoundError("Failed to download file") from inner

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelUnavailableError, match=reason) as info:
        fetched("The model", "Get it elsewhere.", fail)
    assert str(info.value).startswith("The model is not in the cache (")
    assert str(info.value).endswith(". Get it elsewhere.")


def test_offline_names_the_tag():
    """The error of an architecture names the tag too."""
    with pytest.raises(OSError, match="model_name='ViT-B-32', pretrained='openai'"):
        load_encoder("ViT-B-32", "openai")


def test_unknown_precision():
    """A precision that open_clip would take for float32 is refused."""
    with pytest.raises(ValueError, match=r"'precision' parameter .*Got 'fp16' instead"):
        load_encoder("ViT-B-32", "openai", precision="fp16")


def test_long_prompts_warn(tiny_clip):
    """A prompt that the tokenizer cuts is named; one that just fits is not."""
    encoder = load_encoder(tiny_clip, None, device="cpu")
    encoder.encode_texts(["word " * 22])  # and two special tokens: 24
    with pytest.warns(UserWarning, match="longer than 24 tokens and was cut: 'zebra word"):
        encoder.encode_texts(["a cat", "zebra " + "word " * 22])


def test_unknown_tokenizer(tmp_path, clip_writer):
    """A tokenizer that can't be had is an error, not the default one."""
    pytest.importorskip("transformers")
    save_clip, configs = clip_writer
    text_cfg = {**configs["vit"]["text_cfg"], "hf_tokenizer_name": "someone/no-tokenizer"}
    name = save_clip(tmp_path, {**configs["vit"], "text_cfg": text_cfg})
    encoder = load_encoder(name, None, device="cpu")
    with pytest.raises(ModelUnavailableError, match="tokenizer of"):
        encoder.encode_texts(PROMPTS)


_ENCODE = """
import sys
from sklearn_taskres._clip.backends.torch.encoder import load_encoder
try:
    load_encoder(sys.argv[1], None, device="cpu").encode_texts(["a cat"])
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_missing_transformers(tmp_path, clip_writer, python_without):
    """A model that needs transformers says so where it is not installed."""
    save_clip, configs = clip_writer
    text_cfg = {**configs["vit"]["text_cfg"], "hf_tokenizer_name": "someone/no-tokenizer"}
    name = save_clip(tmp_path / "model", {**configs["vit"], "text_cfg": text_cfg})
    command, environment = python_without("transformers")
    said = subprocess.check_output(  # noqa: S603 (our own code)
        [*command, "-c", _ENCODE, name], env=environment, text=True
    )
    assert "pip install transformers" in said


# weights files and folders --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_file(suffix, tiny_architecture, tmp_path):
    """A file of tensors is loaded, with the architecture's own preprocessing."""
    name, weights = tiny_architecture
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": load_file(weights)}, path)
    else:
        shutil.copy(weights, path)
    model, transform, tokenizer = reference(name, pretrained=str(path))
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(PROMPTS)).numpy()
    encoder = load_encoder(name, path, device="cpu")
    assert_allclose(encoder.encode_texts(PROMPTS), expected, rtol=1e-5, atol=1e-6)
    assert encoder.source.preprocessing["mean"] == transform.transforms[-1].mean
    alone = {".safetensors": encoder.logit_scale, ".pt": None}  # read without the model
    assert find_model(name, path).logit_scale() == alone[suffix]
    assert CLIPTextFeaturizer(name, path, device="cpu").logit_scale() == encoder.logit_scale


class Trap:
    """Object whose unpickling touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))]
)
@pytest.mark.parametrize("allowed", [False, True])
def test_weights_file_runs_no_code(save, allowed, tiny_architecture, tmp_path, monkeypatch):
    """A file that would execute code is refused, whatever torch's environment allows."""
    if allowed:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    save({"state_dict": Trap(tmp_path / "touched")}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="must hold tensors only"):
        load_encoder(tiny_architecture[0], tmp_path / "trap.pt", device="cpu")
    assert not (tmp_path / "touched").exists()


def test_weights_of_another_architecture(tiny_architecture, tmp_path):
    """Weights that do not fit are refused, naming file and model."""
    save_file({"visual.proj": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"other\.safetensors can't be loaded into 'ViT-Tiny-Test'"
    ):
        load_encoder(tiny_architecture[0], tmp_path / "other.safetensors", device="cpu")


def test_folder_has_its_own_preprocessing(tmp_path, clip_writer, photos):
    """A folder's preprocessing is taken, and is open_clip's for it."""
    save_clip, configs = clip_writer
    name = save_clip(tmp_path, configs["vit"], mean=[0, 0, 0], std=[1, 1, 1], resize_mode="squash")
    _, transform, _ = reference(name)
    encoder = load_encoder(name, None, device="cpu", precision="float32")
    for photo in photos:
        pixels = torch.from_numpy(np.stack([encoder.preprocess(photo)]))
        assert torch.equal(encoder._normalised(pixels)[0], transform(photo))


def test_incomplete_folder(tmp_path, clip_writer):
    """A folder that is not there or lacks a file is refused, naming both files and what is in."""
    with pytest.raises(ValueError, match=r"there is none at .*clip__model_name in a pipeline"):
        load_encoder(f"local-dir:{tmp_path / 'no'}", None)
    config, weights = tmp_path / "open_clip_config.json", tmp_path / "open_clip_model.safetensors"
    weights.touch()
    with pytest.raises(ValueError, match=r"lacks open_clip_config\.json.*get_model_config"):
        load_encoder(f"local-dir:{tmp_path}", None)
    weights.unlink()
    config.write_text(json.dumps({"model_cfg": clip_writer[1]["vit"]}))
    with pytest.raises(ValueError, match=r"lacks weights\. .*open_clip_model\.safetensors"):
        load_encoder(f"local-dir:{tmp_path}", None)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": {"embed_dim": 3}}'])
def test_broken_configuration(content, tmp_path):
    """A configuration that is not one is refused by name."""
    (tmp_path / "open_clip_model.safetensors").touch()
    (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"The configuration .*open_clip_config\.json"):
        load_encoder(f"local-dir:{tmp_path}", None)


def test_home_is_expanded(tmp_path, clip_writer, tiny_architecture, monkeypatch):
    """A path may begin with ~, of a weights file as of a folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    clip_writer[0](tmp_path / "model", clip_writer[1]["vit"])
    name, weights = tiny_architecture
    shutil.copy(weights, tmp_path / "weights.safetensors")
    folder = load_encoder("local-dir:~/model", None, device="cpu")
    file = load_encoder(name, "~/weights.safetensors", device="cpu")
    assert folder.encode_texts(PROMPTS).shape == file.encode_texts(PROMPTS).shape == (3, 16)


# models that want more than to be read --------------------------------------------------------


_CODE = "open({!r}, 'w').close()\nfrom transformers import BertConfig as Evil\n"


@pytest.fixture
def hostile(tmp_path, clip_writer, capsys):
    """Changes of text_cfg and of transformers' own files to the name of a model with code."""
    pytest.importorskip("transformers")

    def write(text_cfg, **files):
        (tmp_path / "code.py").write_text(_CODE.format(str(tmp_path / "ran")))
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        save_clip, configs = clip_writer
        name = save_clip(tmp_path, configs["vit"])
        config = {**configs["vit"], "text_cfg": {**configs["vit"]["text_cfg"], **text_cfg}}
        content = json.dumps({"model_cfg": config})
        (tmp_path / "open_clip_config.json").write_text(content)
        return name

    yield write
    assert capsys.readouterr().out == ""  # nobody was asked at the terminal whether to run code
    assert not (tmp_path / "ran").exists()


_AUTO_MAP = {"AutoTokenizer": ["code.Evil", None], "AutoConfig": "code.Evil"}


@pytest.mark.parametrize(
    "text_cfg",
    [
        {"hf_tokenizer_name": "own", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"hf_tokenizer_name": "own", "tokenizer_kwargs": {"deep": [{"code_revision": "main"}]}},
        {"trust_remote_code": True},
    ],
)
def test_a_configuration_that_asks_to_run_code(hostile, text_cfg):
    """The key is refused by name, before anything is loaded."""
    name = hostile(text_cfg, config={"model_type": "bert"})
    with pytest.raises(ValueError, match=r"has the key '(trust_remote|code)_\w+', .* is refused"):
        find_model(name, None)


@pytest.mark.parametrize("model_type", ["bert", "own"])
def test_a_tokenizer_with_code(hostile, model_type):
    """A tokenizer's own code is not run, with or without one of transformers' to take its place."""
    settings = {"tokenizer_class": "Evil", "auto_map": _AUTO_MAP}
    config = {"model_type": model_type}
    name = hostile({"hf_tokenizer_name": "own"}, tokenizer_config=settings, config=config)
    message = {"own": "wants to run Python code"}
    message["bert"] = f"could not be read from its folder|{message['own']}"  # by version
    with pytest.raises((ValueError, OSError), match=message[model_type]) as info:
        find_model(name, None).tokenizer()
    assert "trust_remote_code" not in str(info.value)


def test_a_text_tower_with_code(hostile, tmp_path):
    """A text tower whose configuration is code is refused without a question."""
    name = hostile(
        {"hf_model_name": str(tmp_path), "hf_proj_type": "linear"},
        config={"model_type": "own", "auto_map": _AUTO_MAP},
    )
    with pytest.raises(ValueError, match="key 'auto_map'"):
        load_encoder(name, None, device="cpu")


def test_other_settings_of_a_tokenizer(hostile):
    """A configuration can't choose the place that a tokenizer is read from."""
    name = hostile({"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}})
    with pytest.raises(ValueError, match="sets 'bpe_path' in 'tokenizer_kwargs', which is refused"):
        find_model(name, None).tokenizer()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_a_picture_as_weights(suffix, tiny_architecture, tmp_path):
    """What is not weights is said to be none; nobody is told how to run it."""
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    with pytest.raises(ValueError, match="must hold tensors only") as info:
        load_encoder(tiny_architecture[0], path, device="cpu")
    assert "weights_only" not in str(info.value)
    assert info.value.__suppress_context__


# names that are meant otherwise ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("openai/clip-vit-base-patch32", "model_name='ViT-B-32', pretrained='openai'"),
        ("openai/clip-vit-large-patch14-336", "model_name='ViT-L-14-336', pretrained='openai'"),
        ("someone/a-repository-xyz", "model_name='hf-hub:someone/a-repository-xyz'"),
    ],
)
def test_a_hub_name_as_model(name, hint):
    """The name of a repository draws the spelling that finds it."""
    with pytest.raises(ValueError, match=re.escape(hint)):
        load_encoder(name, "openai")


def test_a_path_as_model(tmp_path):
    """A folder and a file draw the parameter that takes them."""
    file = tmp_path / "weights.pt"
    file.touch()
    with pytest.raises(ValueError, match="model_name='local-dir:/"):
        load_encoder(str(tmp_path), "openai")
    with pytest.raises(ValueError, match="weights file goes into pretrained="):
        load_encoder(str(file), "openai")
    with pytest.raises(ValueError, match=r"is a folder\. Pass the weights file in it"):
        load_encoder("ViT-B-32", tmp_path)


def test_a_weights_file_that_is_not_there():
    """The error says where it was looked for, and how to name another."""
    with pytest.raises(ValueError, match=r"no file .*/no/such/file\.pt\. .*clip__pretrained"):
        load_encoder("ViT-B-32", "no/such/file.pt")


# fingerprints and loading ---------------------------------------------------------------------


def test_fingerprint_tells_what_matters(tmp_path, clip_writer):
    """Weights, preprocessing and precision change the fingerprint; the folder's place does not."""
    save_clip, configs = clip_writer
    config = configs["vit"]
    a = find_model(save_clip(tmp_path / "a", config), None)
    same = find_model(save_clip(tmp_path / "same", config), None)
    other_weights = find_model(save_clip(tmp_path / "seed", config, seed=1), None)
    other_pixels = find_model(save_clip(tmp_path / "mean", config, mean=[0, 0, 0]), None)
    quick_config = {**config, "quick_gelu": True}
    quick = find_model(save_clip(tmp_path / "quick", quick_config), None)
    assert a.fingerprint("float32") == same.fingerprint("float32")
    prints = {s.fingerprint("float32") for s in (a, other_weights, other_pixels, quick)}
    assert len({*prints, a.fingerprint("bfloat16")}) == 5


def test_fingerprint_needs_no_weights():
    """A tag's fingerprint is known before its weights are downloaded, and differs by tag."""
    sources = [find_model("ViT-B-32", tag) for tag in ("openai", "laion2b_e16")]
    for source in sources:
        with pytest.raises(ModelUnavailableError):  # so that a fingerprint must do without
            source.find_weights()
    assert len({source.fingerprint("float32") for source in sources}) == 2


_FORK = """
import multiprocessing, sys, torch
from sklearn_taskres._clip.backends.torch.encoder import load_encoder
torch.set_num_threads(2)
encode = lambda: load_encoder(sys.argv[1], None, device="cpu").encode_texts(["a cat"] * 500)
encode()
child = multiprocessing.get_context("fork").Process(target=encode, daemon=True)
child.start()
child.join(60)
sys.exit(child.exitcode != 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_encodes(tiny_clip):
    """Threads that computed before a fork are not waited for in the child, where they are gone."""
    subprocess.run([sys.executable, "-c", _FORK, tiny_clip], check=True, timeout=120)  # noqa: S603


_IMPORT = """
import os, sys, torch
import sklearn_taskres._device, sklearn_taskres._training.engine
import sklearn_taskres._clip.backends.torch.encoder
torch.set_num_threads(2)
child = os.fork()
if child == 0:
    os._exit(torch.get_num_threads())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_importing_leaves_the_threads_of_children_alone():
    """Who imports the package and computes nothing with it finds its children as they were."""
    subprocess.run([sys.executable, "-c", _IMPORT], check=True, timeout=120)  # noqa: S603


def test_tokenizer_files_are_in_the_fingerprint(tmp_path, clip_writer):
    """A folder whose tokenizer changed is another model; a note next to it changes nothing."""
    save_clip, configs = clip_writer
    text_cfg = {**configs["vit"]["text_cfg"], "hf_tokenizer_name": "own"}
    name = save_clip(tmp_path, {**configs["vit"], "text_cfg": text_cfg})
    prints = []
    for file, content in [("tokenizer.json", "1"), ("tokenizer.json", "2"), ("note.md", "3")]:
        (tmp_path / file).write_text(content)
        prints.append(find_model(name, None).fingerprint("float32"))
    assert prints[0] != prints[1] == prints[2]


def test_replaced_weights_of_equal_time_and_size(tmp_path, clip_writer):
    """The fingerprint and the encoder of replaced weights change together."""
    save_clip, configs = clip_writer
    before = []
    for seed in (0, 1):
        name = save_clip(tmp_path / str(seed), configs["vit"], seed=seed)
        weights = Path(name.partition(":")[2]) / "open_clip_model.safetensors"
        os.utime(weights, (1e9, 1e9))
        (tmp_path / "model").mkdir(exist_ok=True)
        for file in weights.parent.iterdir():
            if file == weights or seed == 0:  # the second time nothing else changes
                file.replace(tmp_path / "model" / file.name)
        encoder = load_encoder(f"local-dir:{tmp_path / 'model'}", None)
        before.append((encoder.source.fingerprint("float32"), encoder.encode_texts(PROMPTS)))
    assert before[0][0] != before[1][0]
    assert np.abs(before[0][1] - before[1][1]).max() > 1e-3


class Meeting:
    """Path of a file that as many threads as a barrier has are told at the same moment."""

    def __init__(self, path, barrier):
        self.path, self.barrier = path, barrier

    def __fspath__(self):
        self.barrier.wait(timeout=60)
        return str(self.path)


@pytest.fixture
def built():
    """List of the CLIPs that are built while the test runs."""
    models = []

    def note(module, name, _):
        if name == "logit_scale":  # a CLIP has one
            models.append(module)

    handle = torch.nn.modules.module.register_module_parameter_registration_hook(note)
    yield models
    handle.remove()


def test_threads_load_once(tiny_architecture, built):
    """Threads that ask for one model at the same time share one loading."""
    name, weights = tiny_architecture
    weights = Meeting(weights, threading.Barrier(8))  # all of them have asked, and go on together
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(load_encoder, name, weights, device="cpu") for _ in range(8)]
        encoders = [job.result() for job in jobs]
    assert len(built) == 1
    assert len(set(map(id, encoders))) == 1


def test_a_copy_of_a_tower_shares_its_tensors_and_not_its_children(tiny_clip):
    """Memory is taken once, and what is replaced in the copy stays in the original."""
    tower = load_encoder(tiny_clip, None, device="cpu").text_tower
    copied = encoder_module.copy_sharing_tensors(tower)
    ours, theirs = ([*m.parameters(), *m.buffers()] for m in (tower, copied))
    assert len(ours) == len(theirs) > 0
    assert all(a is b for a, b in zip(ours, theirs, strict=True))
    copied.token_embedding = torch.nn.Identity()
    assert isinstance(tower.token_embedding, torch.nn.Embedding)


def test_pretrained_is_ignored_where_the_name_says_all(tiny_clip):
    """A folder is one encoder, whatever `pretrained` says."""
    assert load_encoder(tiny_clip, "openai") is load_encoder(tiny_clip, None)


def test_replaced_weights_are_loaded_anew(tmp_path, clip_writer):
    """A folder whose weights changed is not served from the process's memory."""
    save_clip, configs = clip_writer
    before = load_encoder(save_clip(tmp_path, configs["vit"]), None).encode_texts(PROMPTS)
    after = load_encoder(save_clip(tmp_path, configs["vit"], seed=1), None).encode_texts(PROMPTS)
    assert np.abs(after - before).max() > 1e-3


def test_loading_leaves_the_random_stream_alone(tmp_path, clip_writer):
    """Whether a model was in memory does not change what torch draws next."""
    save_clip, configs = clip_writer
    name = save_clip(tmp_path, configs["vit"])
    state = torch.random.get_rng_state()
    load_encoder(name, None)
    assert torch.equal(torch.random.get_rng_state(), state)


# the bundled model's format -------------------------------------------------------------------


@pytest.fixture
def cut(tmp_path, clip_writer):
    """A model like the bundled one: float16, its vocabulary cut to one sentence."""
    config_path = tmp_path / "open_clip_config.json"
    config_path.write_text(json.dumps({"model_cfg": clip_writer[1]["vit"]}))
    model = build_model(config_path)
    token_ids = build_tokenizer(config_path)(["a photo of a cat."]).unique()
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][token_ids].contiguous()
    save_file({**state, "token_ids": token_ids.int()}, tmp_path / "model.safetensors")
    return f"local-dir:{tmp_path}", model.eval(), build_tokenizer(config_path)


def test_cut_vocabulary_embeds_like_the_whole(cut):
    """Prompts of known words embed as before the vocabulary was cut, except for float16."""
    name, model, tokenizer = cut
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(["a photo of a cat."])).numpy()
    encoder = load_encoder(name, "openai", device="cpu")
    assert_allclose(encoder.encode_texts(["a photo of a cat."]), expected, rtol=0.02, atol=0.02)
    assert next(encoder.model.parameters()).dtype == torch.float32


def test_unknown_words_warn(cut):
    """A prompt with a word that training never touched is named, and only that one."""
    encoder = load_encoder(cut[0], None, device="cpu")
    with pytest.warns(UserWarning, match=r"' never saw: 'a photo of a dog\.'\. Use other"):
        encoder.encode_texts(["a photo of a cat.", "a photo of a dog."])


def test_unknown_words_of_the_bundled_model_warn():
    """It knows digits and letters, and no animals."""
    encoder = load_encoder("glyph-clip", None, device="cpu")
    message = r"'glyph-clip' never saw: 'a photo of a dog\.'\. Use other"
    with pytest.warns(UserWarning, match=message):
        encoder.encode_texts(["a photo of a seven.", "a photo of a dog."])


@pytest.mark.parametrize("left", [[], ["glyph-clip.json"], ["glyph-clip.safetensors"]])
def test_bundled_files_missing(left, tmp_path):
    """A damaged installation says what is missing."""
    for name in left:
        (tmp_path / name).touch()
    message = f"are missing from {re.escape(str(tmp_path))}. Install the package again"
    with pytest.raises(ModelUnavailableError, match=message):
        bundled_source(tmp_path)


# text towers of Hugging Face ------------------------------------------------------------------


@pytest.fixture
def hugging_face_clip(tmp_path, clip_writer):
    """Kind of projection to the name of a tiny CLIP with a BERT as text tower."""
    pytest.importorskip("transformers")
    bert = {"model_type": "bert", "vocab_size": 49408, "hidden_size": 12, "num_hidden_layers": 1}
    bert |= {"num_attention_heads": 2, "intermediate_size": 24, "pad_token_id": 0}
    (tmp_path / "config.json").write_text(json.dumps(bert))
    save_clip, configs = clip_writer
    text_cfg = {"context_length": 24, "hf_model_name": str(tmp_path)}
    return lambda kind: save_clip(
        tmp_path / kind, {**configs["vit"], "text_cfg": {**text_cfg, "hf_proj_type": kind}}
    )


def test_hugging_face_linear_projection(hugging_face_clip):
    """A tower of Hugging Face with a linear projection comes apart like any other."""
    encoder = load_encoder(hugging_face_clip("linear"), None, device="cpu")
    weight, bias = encoder.text_projection()
    assert bias is None
    projected = encoder.text_features(PROMPTS) @ weight
    assert_allclose(projected, encoder.encode_texts(PROMPTS), rtol=1e-4, atol=1e-5)


def test_hugging_face_mlp_has_no_linear_projection(hugging_face_clip):
    """A tower that ends in a network embeds texts, but has no features before a projection."""
    encoder = load_encoder(hugging_face_clip("mlp"), None, device="cpu")
    assert encoder.encode_texts(PROMPTS).shape == (3, 16)
    with pytest.raises(ValueError, match="does not end in a linear projection"):
        encoder.text_features(PROMPTS)


def test_hugging_face_tower_offline(tmp_path, clip_writer, tiny_clip):
    """A tower whose configuration is on the hub only is our error without a network."""
    pytest.importorskip("transformers")
    config = clip_writer[1]["vit"]
    shutil.copytree(tiny_clip[len("local-dir:") :], tmp_path, dirs_exist_ok=True)
    config = {**config, "text_cfg": {"context_length": 24, "hf_model_name": "someone/no-bert"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ModelUnavailableError, match="The text tower of model_name="):
        load_encoder(f"local-dir:{tmp_path}", None)


# prompts with a learned context ---------------------------------------------------------------


@pytest.mark.parametrize("family", ["vit", "custom_text", "siglip"])
@pytest.mark.parametrize(("position", "template"), [("end", "a b c {}."), ("middle", "a {} b c.")])
def test_a_context_of_words_embeds_as_their_prompt(family, position, template, make_clip):
    """The tower filled with the embeddings of words is the tower that reads them."""
    encoder = load_encoder(make_clip(family), None, device="cpu")
    names = ["cat", "great white shark", "St. Bernard"]
    tower = PromptTower(encoder, names, "a b c", position)
    expected = encoder.encode_texts([template.replace("{}", name) for name in names])
    for start in (tower.start, np.stack([tower.start] * 3)):
        assert_allclose(tower.embed(start), expected, rtol=1e-5, atol=1e-6)


def test_the_context_has_a_gradient(make_clip):
    """Differences of the output agree with the gradient, and no weight gets one."""
    encoder = load_encoder(make_clip("vit"), None, device="cpu")
    tower = PromptTower(encoder, ["cat", "dog"], 3, "end")
    context = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    step = torch.zeros(3, 12)
    step[1, 5] = 1e-2
    (gradient,) = torch.autograd.grad(tower(context).sum(), context)
    with torch.no_grad():
        slope = (tower(context + step) - tower(context - step)).sum() / 2e-2
    assert slope.item() == pytest.approx(gradient[1, 5].item(), rel=1e-2)
    assert all(p.grad is None for p in encoder.model.parameters())


def test_prompt_towers_in_threads_do_not_meet(make_clip):
    """Each has its own prompts, and the model that they share keeps reading tokens."""
    encoder = load_encoder(make_clip("custom_text"), None, device="cpu")
    towers = [PromptTower(encoder, [name, "dog"], "a photo of a", "end") for name in PROMPTS]
    expected = [tower.embed(tower.start) for tower in towers]
    texts = encoder.encode_texts(PROMPTS)
    with ThreadPoolExecutor(4) as pool:
        again = [pool.submit(t.embed, t.start) for _ in range(20) for t in towers]
        read = [pool.submit(encoder.encode_texts, PROMPTS) for _ in range(20)]
        for i, job in enumerate(again):
            assert_allclose(job.result(), expected[i % 3], rtol=1e-6, atol=1e-7)
        assert all(np.array_equal(job.result(), texts) for job in read)


def test_prompts_without_a_start_token():
    """A tokenizer as SigLIP's has no start, and pads with its end: the context comes first."""
    words = {"": [], "a": [7], "cat.": [20], "polar bear.": [30, 31]} | {"cat": [20]}

    def tokenizer(texts):
        return torch.tensor([(words[text] + [1] * 8)[:8] for text in texts])

    encoder = SimpleNamespace(
        tokenizer=tokenizer, tokenize=tokenizer, text_tower=SimpleNamespace(attn_mask=None)
    )
    tokens, gaps = _prompts_with_gaps(encoder, ["cat", "polar bear"], 2, "end")
    assert gaps.tolist() == [[0, 1], [0, 1]]
    assert tokens.tolist() == [[7, 7, 20, 1, 1, 1, 1, 1], [7, 7, 30, 31, 1, 1, 1, 1]]


def test_no_context_before_a_hugging_face_tower(hugging_face_clip):
    """Context vectors go through open_clip's own transformer only."""
    encoder = load_encoder(hugging_face_clip("linear"), None, device="cpu")
    with pytest.raises(ValueError, match="can't be learned with 'local-dir:"):
        PromptTower(encoder, ["cat", "dog"], 3, "end")
