"""Tiny CLIPs with random weights, one of each family, and the CPU that the tests are to meet.

``SKLEARN_TASKRES_TEST_CPU=bf16`` feigns a CPU with bfloat16 units, ``=plain`` one without, so that
"auto" is another precision; without it the machine speaks for itself. ``-m model`` picks the tests
that this can change, those that load a model.
"""

import functools
import os
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

import sklearn_taskres
from sklearn_taskres import EmbeddingCache
from sklearn_taskres._messages import forget_warnings
from sklearn_taskres.benchmark.random_clip import write_random_clip

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for NumPy in the processes that share the tests
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, as the next one
#: No model of the hub is there, whatever this machine has.
_EMPTY_HUB = tempfile.TemporaryDirectory()
os.environ["HF_HUB_CACHE"] = _EMPTY_HUB.name

#: What `torch.cpu.get_capabilities` says instead of the machine.
_CPUS = {"bf16": {"cpu_name": "AMD EPYC", "avx512_bf16": True}, "plain": {"cpu_name": "plain"}}
#: Test files all of whose tests are marked `model`, and fixtures that lead to a model.
_MODEL_FILES = {
    "test_backends",
    "test_benchmark_images",
    "test_digits",
    "test_embedding",
    "test_encoder",
    "test_featurizers",
    "test_glyph",
}
_MODEL_FIXTURES = {"clip_writer", "make_clip", "tiny_clip"}

#: What tests have called at an event of the interpreter, by its name.
_LISTENERS: dict = {}

_VIT = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 12, "heads": 2, "layers": 1}
_RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
_SIGLIP_TEXT = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
#: open_clip configurations by family, embeddings of 16 elements.
CONFIGS = {
    "vit": {"embed_dim": 16, "vision_cfg": _VIT, "text_cfg": _TEXT},
    "resnet": {"embed_dim": 16, "vision_cfg": {**_RESNET, "head_width": 32}, "text_cfg": _TEXT},
    "custom_text": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {**_VIT, "patch_dropout": 0.5},  # random in train mode
        "text_cfg": _TEXT,
    },
    "siglip": {
        "embed_dim": 16,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": _VIT,
        "text_cfg": {**_TEXT, **_SIGLIP_TEXT},
    },
    "coca": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {**_VIT, "attentional_pool": True, "output_tokens": True}
        | {"attn_pooler_heads": 2},
        "text_cfg": {**_TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**_TEXT, "attn_pooler_heads": 2},
    },
    "no_projection": {
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": _VIT,
        "text_cfg": {**_TEXT, "proj_type": "none"},
    },
}


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes several seconds")
    config.addinivalue_line("markers", "model: loads a CLIP, so that the CPU's precision matters")


def pytest_collection_modifyitems(items):
    for item in items:
        uses = _MODEL_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if uses or item.path.stem in _MODEL_FILES:
            item.add_marker("model")


def _feign(monkeypatch, capabilities):
    """Let torch say of the processor what it says of another one."""
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", capabilities.copy, raising=False)


@pytest.fixture(autouse=True, scope="session")
def cpu():
    """Name of the CPU that is feigned, None for the machine's own; forked processes inherit it."""
    name = os.environ.get("SKLEARN_TASKRES_TEST_CPU")
    with pytest.MonkeyPatch.context() as monkeypatch:
        if name is not None:
            _feign(monkeypatch, _CPUS[name])
        yield name


@pytest.fixture
def feign_cpu(monkeypatch):
    """What torch says of a processor to that processor, until the test ends."""
    return lambda **capabilities: _feign(monkeypatch, capabilities)


@pytest.fixture
def pixel_limit(monkeypatch):
    """Set the pixels that Pillow thinks safe, which users set as well; they are set back."""
    return lambda n_pixels: monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", n_pixels)


@pytest.fixture(autouse=True)
def only_marked_tests_load_a_model(request, monkeypatch):
    """A test that is not marked fails when it loads a model, so that ``-m model`` misses none."""
    from sklearn_taskres._clip.backends.torch import encoder

    def load_encoder(*args, **kwargs):
        pytest.fail("This test loads a model: mark it with @pytest.mark.model.")

    if request.node.get_closest_marker("model") is None:
        monkeypatch.setattr(encoder, "load_encoder", load_encoder)


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory):
    """Family (a key of CONFIGS) to the name of a tiny model of it, saved once a session."""
    return functools.cache(
        lambda family: write_random_clip(tmp_path_factory.mktemp(family), CONFIGS[family])
    )


@pytest.fixture(scope="session")
def tiny_clip(make_clip):
    """Name of a tiny CLIP: embeddings of 16 elements, images of 32 pixels."""
    return make_clip("vit")


@pytest.fixture(scope="session")
def clip_writer():
    """`write_random_clip` and CONFIGS, for tests that vary them."""
    return write_random_clip, CONFIGS


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    """Tensors here are tiny: threads that wait for each other would take most of the time."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # 1 unless one asks for more


@pytest.fixture(autouse=True)
def unwarned():
    """Each test starts as if nothing had been warned about once."""
    forget_warnings()


@pytest.fixture(autouse=True)
def empty_memory_cache():
    """Each test starts with nothing in the memory of the process."""
    EmbeddingCache("memory").clear()


def _tell(event, arguments):
    for listener in _LISTENERS.get(event, ()):
        listener(*arguments)


@functools.cache
def _listen():
    sys.addaudithook(_tell)  # once, as it can't be taken away


@pytest.fixture
def on_event():
    """Take the name of an event of `sys.addaudithook` and what is called just before it happens.

    If that raises, it does not happen.
    """

    def on_event(event, listener):
        _LISTENERS.setdefault(event, []).append(listener)

    _listen()
    yield on_event
    _LISTENERS.clear()


@pytest.fixture
def opened(on_event, tmp_path):
    """Images below `tmp_path` that are opened, in order; the files of a cache are none."""
    paths = []

    def listener(path, *_):
        if isinstance(path, str) and path.startswith(str(tmp_path)) and "sqlite" not in path:
            paths.append(Path(path))

    on_event("open", listener)
    return paths


@pytest.fixture(scope="session")
def test_data():
    """Folder of real embeddings and images, if SKLEARN_TASKRES_TEST_DATA names one."""
    folder = os.environ.get("SKLEARN_TASKRES_TEST_DATA")
    if folder is None:
        pytest.skip("SKLEARN_TASKRES_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture
def python_without(tmp_path):
    """Name of a package to a command and its environment: a Python that has all but this one."""

    def make(package):
        folders = [Path(p) for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
        links = tmp_path / "site-packages"
        links.mkdir()
        ours = Path(sklearn_taskres.__file__).parent
        for path in [ours, *(path for folder in folders for path in folder.glob("*"))]:
            # Of one name the first counts, as in sys.path.
            if path.name.partition("-")[0] != package and not (links / path.name).exists():
                (links / path.name).symlink_to(path)
        # -S: the folders that this Python finds by itself are not searched.
        return [sys.executable, "-S"], {**os.environ, "PYTHONPATH": str(links)}

    return make


@pytest.fixture(params=["cpu", "cuda", "mps"])
def device(request):
    """Each kind of device; what the machine lacks is skipped by name."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(request.param, True):
        pytest.skip(f"this machine has no {request.param}")
    return request.param
