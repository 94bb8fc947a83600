"""Inference engines: the embeddings are torch's, and a tower is kept whole or not at all."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from types import SimpleNamespace

import numpy as np
import openvino as openvino_library
import platformdirs
import pytest
import torch
from children import run_in_child
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone

from sklearn_taskres import CLIPFeaturizer, EmbeddingCache, make_taskres_pipeline
from sklearn_taskres import _cpu as cpu_module
from sklearn_taskres._clip.backends import engines, onnx, openvino, plan, towers
from sklearn_taskres._clip.backends.torch import conversion
from sklearn_taskres._clip.backends.torch.encoder import load_encoder
from sklearn_taskres._clip.backends.torch.pretrained import find_model
from sklearn_taskres._formulas import unit

ENGINES = {"openvino": openvino, "onnx": onnx}
FAMILIES = ("vit", "resnet", "custom_text", "siglip", "coca")


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def set_home(folder, monkeypatch):
    """Let the user's cache directory be a folder, if the system has a variable for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    if platformdirs.user_cache_path() != folder:
        pytest.skip("XDG_CACHE_HOME says nothing on this system")


@pytest.fixture(autouse=True)
def home(shared_home, monkeypatch):
    """The user's cache directory: one for all tests, in which a tower is converted once."""
    set_home(shared_home, monkeypatch)


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """A cache directory of this test alone, with no tower in it."""
    set_home(tmp_path / "home", monkeypatch)
    return tmp_path / "home" / towers.FOLDER


@pytest.fixture
def computed_by_torch():
    """List of the modules that torch computes while the test runs."""
    modules = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: modules.append(module)
    )
    yield modules
    handle.remove()


@pytest.fixture
def not_exportable():
    """Torch can't export a model: a hook that somebody has set does not allow to be traced."""

    def hook(*_):
        if torch.compiler.is_compiling():
            raise RuntimeError("no operator for that\nand a long story")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield
    handle.remove()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (7, 40, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def many_images():
    """As many images as are worth a conversion, small and all different."""
    rng = np.random.default_rng(1)
    return list(rng.integers(0, 256, (plan.WORTH_CONVERTING, 8, 8, 3), dtype=np.uint8))


def featurizer(name, backend="torch", **params):
    return CLIPFeaturizer(
        name, None, **{"cache": None, "precision": "float32", "device": "cpu", **params}
    ).set_params(backend=backend)


def changed(backend, **functions):
    """Return an engine that does some things in another way."""
    return SimpleNamespace(**{**vars(ENGINES[backend]), **functions})


def load(engine, name):
    """Return an engine's encoder of a model, kept in the user's cache directory."""
    identity, kept = find_model(name, None).identity(), EmbeddingCache(None).towers()
    return engines.load_engine(engine, (name, None), identity, "float32", kept)


def rows_of(encoder, images):
    return encoder.encode_images([encoder.preprocess(Image.fromarray(image)) for image in images])


def forget_encoders():
    """Remember as little as the next process does."""
    engines._LOADED.clear()


def lowest_cosine(a, b):
    return (unit(a) * unit(b)).sum(axis=1).min()


def tower_folders(root):
    if not root.exists():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name != "names")


def conversion_of(root):
    """Return what tells the conversion that made the only tower in a folder from the one before."""
    (folder,) = tower_folders(root)
    return (root / folder).stat().st_ino  # the new folder is there before the old one goes


# what engines compute -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("family", [*FAMILIES, "bundled"])
def test_engines_embed_as_torch(family, backend, make_clip, images):
    """Rows of each family are torch's to float rounding, raw, whatever the size of a batch."""
    name = "glyph-clip" if family == "bundled" else make_clip(family)
    expected = featurizer(name).transform(images)
    actual = featurizer(name, backend).transform(images)
    assert actual.dtype == np.float32
    assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)
    assert lowest_cosine(actual, expected) > 0.99999
    one_by_one = featurizer(name, backend, batch_size=1).transform(images)
    assert_allclose(one_by_one, actual, rtol=1e-4, atol=1e-5)


def test_bfloat16_in_openvino(images):
    """In bfloat16 rows stay near float32's; if the processor lacks it they are float32's."""
    expected = featurizer("glyph-clip").transform(images)
    actual = featurizer("glyph-clip", "openvino", precision="bfloat16").transform(images)
    assert lowest_cosine(actual, expected) > 0.9995


def test_bfloat16_in_openvino_keeps_norms_precise(tmp_path):
    """A kept tower errs by less than what OpenVINO errs by itself; its norms stay in float32."""
    if "BF16" not in openvino_library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO computes in float32 on this processor")
    encoder = conversion.float32_encoder(find_model("glyph-clip", None))
    size = engines._pair(encoder.image_size)
    module = conversion.PixelTower(encoder).eval()
    content = conversion.as_onnx(module, size, "embeddings").SerializeToString()
    pixels = np.random.default_rng(0).integers(0, 256, (100, *size, 3), dtype=np.uint8)
    exact = unit(encoder.encode_images(pixels).astype(np.float64))
    openvino.write(openvino.from_onnx(content), tmp_path)
    errors = []
    for tower in (openvino.read(tmp_path), openvino_library.Core().read_model(content)):
        rows = openvino.compiled(tower, "bfloat16", None)(pixels)
        errors.append((1 - (unit(rows.astype(np.float64)) * exact).sum(axis=1)).mean())
    assert 0 < errors[0] < errors[1] / 1.5


@pytest.mark.parametrize("backend", ENGINES)
def test_views_come_from_engines_too(backend, tiny_clip, images):
    """Augmented views are drawn alike and embedded alike."""
    views = {"n_views": 2, "random_state": 3}
    expected = featurizer(tiny_clip, **views).fit_transform(images)
    actual = featurizer(tiny_clip, backend, **views).fit_transform(images)
    assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ENGINES)
def test_pixels_are_those_of_torch(backend, tiny_clip, images):
    """An engine sees the very pixels that torch's encoder sees."""
    image = Image.fromarray(images[0])
    seen = load_encoder(tiny_clip, None, device="cpu").preprocess(image)
    assert_array_equal(load(ENGINES[backend], tiny_clip).preprocess(image), seen)


@pytest.mark.parametrize("backend", ENGINES)
def test_threads_that_encode_at_once(backend, tiny_clip, images):
    """Calls from several threads give what one call gives."""
    from concurrent.futures import ThreadPoolExecutor

    model = featurizer(tiny_clip, backend)
    expected = model.transform(images)
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: clone(model).transform(images), range(12)):
            assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("backend", ENGINES)
def test_a_forked_child_encodes(backend, tiny_clip, images):
    """A child of a process that has encoded does so, too, and does not wait for lost threads."""
    model = featurizer(tiny_clip, backend)
    model.transform(images)
    assert run_in_child(lambda: model.transform(images)) == 0


def test_threads_are_what_the_user_says(monkeypatch):
    """OMP_NUM_THREADS decides, then what torch was told."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert engines.n_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert engines.n_threads() == torch.get_num_threads()


# which one is taken ---------------------------------------------------------------------------


def test_auto_converts_for_many_images_only(own_home, tiny_clip, many_images, computed_by_torch):
    """A few images are torch's work; many are worth a conversion, and then an engine has all."""
    model = featurizer(tiny_clip, "auto")
    expected = featurizer(tiny_clip).transform(many_images)
    computed_by_torch.clear()
    assert_allclose(model.transform(many_images[:-1]), expected[:-1], rtol=1e-5, atol=1e-6)
    assert computed_by_torch != []
    assert tower_folders(own_home) == []
    assert_allclose(model.transform(many_images), expected, rtol=1e-3, atol=1e-4)
    (folder,) = tower_folders(own_home)
    assert folder.endswith("-openvino")
    computed_by_torch.clear()
    model.transform(many_images)
    assert computed_by_torch == []


def test_auto_takes_a_tower_that_is_at_hand(own_home, tiny_clip, images, computed_by_torch):
    """With a converted tower one image is enough."""
    expected = featurizer(tiny_clip, "openvino").transform(images[:1])
    towers_at_hand = tower_folders(own_home)
    computed_by_torch.clear()
    assert_array_equal(featurizer(tiny_clip, "auto").transform(images[:1]), expected)
    assert computed_by_torch == []
    assert tower_folders(own_home) == towers_at_hand  # so that it was OpenVINO's


@pytest.mark.parametrize(
    ("installed", "precision", "expected"),
    [
        (["openvino", "onnx"], "float32", "openvino"),
        (["openvino", "onnx"], "bfloat16", "openvino"),
        (["onnx"], "float32", "onnx"),
        (["onnx"], "bfloat16", "torch"),  # which has it, and is faster then
        ([], "float32", "torch"),
    ],
)
def test_auto_is_the_fastest_that_is_installed(installed, precision, expected):
    """OpenVINO, then ONNX Runtime in what it can, then torch."""
    assert plan.fastest_backend("cpu", precision, installed) == expected


def test_auto_leaves_a_gpu_to_torch(monkeypatch):
    """If torch would take a GPU, an engine on the CPU is not a choice."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert plan.fastest_backend(None, "float32", ["openvino", "onnx"]) == "torch"


@pytest.mark.usefixtures("own_home", "not_exportable")
def test_auto_falls_back_to_torch_and_says_so_once(tiny_clip, many_images):
    """A tower that can't be converted is torch's work, with one warning."""
    model = featurizer(tiny_clip, "auto")
    with pytest.warns(UserWarning, match="torch encodes instead.*no operator for that") as caught:
        rows = model.transform(many_images)
    assert len(caught) == 1
    model.transform(many_images)  # without a warning, which would be an error
    assert_array_equal(rows, featurizer(tiny_clip).transform(many_images))


@pytest.mark.usefixtures("own_home", "not_exportable")
@pytest.mark.parametrize("backend", ENGINES)
def test_an_engine_by_name_does_not_fall_back(backend, tiny_clip, images):
    """Whoever names an engine learns that it can't."""
    expected = "can't be converted for backend='.*': no operator for that. Use backend='torch'"
    with pytest.raises(engines.NotConvertedError, match=expected):
        featurizer(tiny_clip, backend).transform(images)


@pytest.mark.parametrize("backend", ENGINES)
def test_an_engine_that_disagrees_is_refused(backend, own_home, tiny_clip):
    """Other numbers than torch's are never used and never kept."""

    def wrong(*args):
        run = ENGINES[backend].compiled(*args)
        return lambda pixels: run(pixels) + np.float32(0.1)

    with pytest.raises(
        engines.NotConvertedError, match=r"disagrees with torch .* 0\.99999 is asked"
    ):
        load(changed(backend, compiled=wrong), tiny_clip)
    assert tower_folders(own_home) == []


def test_packages_that_are_not_installed_are_named():
    """All of them, with the extra that has them."""
    engine = changed("openvino", PACKAGES=("no_such_engine", "numpy", "no_such_folders"))
    message = r"needs the packages no_such_engine, no_such_folders\..*sklearn-taskres\[openvino\]"
    with pytest.raises(ImportError, match=message):
        load(engine, "glyph-clip")


NOT_INSTALLED = """
import sys
import numpy as np
from sklearn_taskres import CLIPFeaturizer
clip = CLIPFeaturizer("glyph-clip", None, cache=None, precision="float32", device="cpu")
images = np.zeros((1, 8, 8))
try:
    clip.set_params(backend="openvino").transform(images)
except ImportError as error:
    print(error)
assert not {"onnxruntime", "torch"} & set(sys.modules)
clip.set_params(backend="auto").transform(images)
print({"onnxruntime", "torch"} & set(sys.modules))
"""


def test_an_engine_that_is_not_installed(python_without, images):
    """Who asks for it by name reads which extra to install; "auto" is the next one that is."""
    featurizer("glyph-clip", "onnx").transform(images)
    command, environment = python_without("openvino")
    said, computed = run(NOT_INSTALLED, command, **environment).splitlines()
    assert re.search(r"needs the package openvino\..*sklearn-taskres\[openvino\]", said)
    assert computed == "{'onnxruntime'}"


@pytest.mark.parametrize(
    ("params", "match"),
    [
        (
            {"backend": "tensorrt"},
            "'backend' parameter of CLIPFeaturizer must be .* Got 'tensorrt'",
        ),
        ({"backend": "openvino", "device": "cuda"}, "computes on the CPU, and device='cuda'"),
        ({"backend": "onnx", "precision": "bfloat16"}, "computes in float32 only"),
    ],
)
def test_what_an_engine_lacks_is_refused(params, match, tiny_clip, images):
    """One sentence for each."""
    with pytest.raises(ValueError, match=match):
        featurizer(tiny_clip).set_params(**params).transform(images)


def test_the_processor_is_known_without_torch(monkeypatch):
    """Linux says of the instructions what torch says."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is None or sys.platform != "linux" or os.environ.get("SKLEARN_TASKRES_TEST_CPU"):
        pytest.skip("torch does not say, or this is not Linux")
    has = ask()
    mine = cpu_module._from_linux()
    for name in ("amx_bf16", "avx512_bf16"):
        assert mine[name] == bool(has.get(name, False))
    assert ("AMD" in mine["cpu_name"]) == ("AMD" in has.get("cpu_name", ""))


# the cache of embeddings ----------------------------------------------------------------------


def test_engines_share_the_cache(tiny_clip, images, tmp_path, computed_by_torch):
    """What torch has encoded in float32 no engine encodes again; bfloat16 is kept by itself."""
    cache = EmbeddingCache(tmp_path / "cache")
    rows = featurizer(tiny_clip, cache=cache).transform(images)

    computed_by_torch.clear()
    for backend in ENGINES:
        assert_array_equal(featurizer(tiny_clip, backend, cache=cache).transform(images), rows)
    assert computed_by_torch == []
    assert tower_folders(tmp_path / "cache" / towers.FOLDER) == []  # no engine was loaded
    assert cache.entries == len(images)
    lower = {"cache": cache, "precision": "bfloat16"}
    kept = featurizer(tiny_clip, "openvino", **lower).transform(images)
    assert cache.entries == 2 * len(images)
    assert_array_equal(featurizer(tiny_clip, **lower).transform(images), kept)


# without torch --------------------------------------------------------------------------------

FORBID_TORCH = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "open_clip", "skorch"}:
            raise ImportError(f"{name} is forbidden here")
sys.meta_path.insert(0, Forbid())
"""


def run(code, command=(sys.executable,), **environment):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run(  # noqa: S603 (our own code)
        [*command, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("backend", ENGINES)
def test_a_pipeline_answers_without_torch(backend, tmp_path):
    """Loaded in a process where torch can't be imported, it labels images as it did before."""
    import joblib
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, y = digits.images[:40] / 16, digits.target[:40]
    model = make_taskres_pipeline(
        "glyph-clip",
        class_names=list("0123456789"),
        cache=str(tmp_path / "cache"),
        backend=backend,
        max_epochs=5,
    )
    # The processor that a test run feigns is not the one of the child, so "auto" could differ.
    model.set_params(clip__precision="float32").fit(images, y)
    expected = model.predict_proba(images[:3])
    joblib.dump(model.set_params(clip__cache=str(tmp_path / "cache")), tmp_path / "model.joblib")
    EmbeddingCache(tmp_path / "cache").clear()  # nothing is left but the tower
    code = f"""
        import joblib, sys
        from sklearn.datasets import load_digits
        model = joblib.load({str(tmp_path / "model.joblib")!r})
        print(model.predict_proba(load_digits().images[:3] / 16).tolist())
        assert not {{"torch", "open_clip", "torchvision"}} & set(sys.modules)
    """
    answer = run(FORBID_TORCH + textwrap.dedent(code))
    assert_allclose(json.loads(answer), expected, atol=1e-3)


def test_a_changed_model_is_not_taken_for_the_one_that_was_noted(tmp_path, clip_writer, images):
    """Other weights under the same name are found anew, and converted by themselves."""
    write, configs = clip_writer
    name = write(tmp_path / "model", configs["vit"])
    before = featurizer(name, "openvino").transform(images)
    kept, identity = EmbeddingCache(None).towers(), find_model(name, None).identity()
    kept.remember(name, None, identity, racy_seconds=0)  # although its files are new
    assert kept.identity(name, None).as_json() == identity.as_json()
    write(tmp_path / "model", configs["vit"], seed=1)
    after = featurizer(name, "openvino").transform(images)
    assert np.abs(before - after).max() > 1e-3
    assert_allclose(after, featurizer(name).transform(images), rtol=1e-3, atol=1e-4)


def test_a_fresh_file_is_not_noted(tmp_path, clip_writer, images, own_home):
    """A file that may be rewritten within a tick of the clock is digested again each time."""
    write, configs = clip_writer
    name = write(tmp_path / "model", configs["vit"])
    soon = time.time() + 10_000
    os.utime(tmp_path / "model" / "open_clip_model.safetensors", (soon, soon))
    featurizer(name, "onnx").transform(images)
    assert not (own_home / "names").exists()


def test_a_file_that_was_just_put_there_is_not_noted(tiny_clip, tmp_path, own_home):
    """The system's own time of the change counts, whatever the file says of its age."""
    shutil.copytree(tiny_clip.partition(":")[2], tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        os.utime(path, (1e9, 1e9))
    name, kept = f"local-dir:{tmp_path / 'model'}", EmbeddingCache(None).towers()
    kept.remember(name, None, find_model(name, None).identity(), racy_seconds=10_000)
    assert not (own_home / "names").exists()


@pytest.mark.usefixtures("own_home")
def test_another_open_clip_is_asked_again(images, tmp_path, monkeypatch):
    """Its configurations may differ, so that notes of another version count for nothing."""
    featurizer("glyph-clip", "onnx").transform(images)
    kept = EmbeddingCache(None).towers()
    assert kept.identity("glyph-clip", None) is not None
    other = tmp_path / "open_clip_torch-0.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: open_clip_torch\nVersion: 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert kept.identity("glyph-clip", None) is None


@pytest.mark.parametrize("damage", [b"", b"no JSON", b'{"identity": {}}', b"[]"])
def test_a_damaged_note_is_not_read(damage, images, own_home):
    """Whatever stands in it, the model is found by open_clip then."""
    expected = featurizer("glyph-clip", "onnx").transform(images)
    notes = list((own_home / "names").iterdir())
    assert notes != []
    for path in notes:
        path.write_bytes(damage)
    assert EmbeddingCache(None).towers().identity("glyph-clip", None) is None
    assert_allclose(featurizer("glyph-clip", "onnx").transform(images), expected, atol=1e-5)


# what is kept, and when it can't be -----------------------------------------------------------


def test_towers_lie_in_the_cache_folder(tmp_path, tiny_clip, images, own_home):
    """A cache folder holds them, next to the embeddings; each is removed by a call of its own."""
    cache = EmbeddingCache(tmp_path / "cache")
    featurizer(tiny_clip, "onnx", cache=cache).transform(images)
    root = tmp_path / "cache" / towers.FOLDER
    assert len(tower_folders(root)) == 1
    assert not own_home.exists()
    cache.clear()
    assert len(tower_folders(root)) == 1
    cache.clear_towers()
    assert not root.exists()
    cache.clear_towers()  # twice is not an error


@pytest.mark.parametrize("backend", ENGINES)
def test_a_tower_is_converted_once(backend, own_home, tiny_clip, images, computed_by_torch):
    """The second process, which remembers nothing, finds it."""
    featurizer(tiny_clip, backend).transform(images)
    first = conversion_of(own_home)
    forget_encoders()
    computed_by_torch.clear()
    featurizer(tiny_clip, backend).transform(images)
    assert conversion_of(own_home) == first
    assert computed_by_torch == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("damage", ["changed", "cut", "manifest", "missing"])
def test_a_damaged_tower_is_converted_again(damage, backend, own_home, tiny_clip, images):
    """One changed byte is enough; the embeddings are right, and the next process has no trouble."""
    expected = featurizer(tiny_clip, backend).transform(images)
    (folder,) = tower_folders(own_home)
    largest = max((own_home / folder).iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "manifest":
        (own_home / folder / "manifest.json").write_text("[]")
    elif damage == "missing":
        largest.unlink()
    else:
        largest.write_bytes(content if damage == "changed" else content[:-10])
    forget_encoders()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = featurizer(tiny_clip, backend).transform(images)
    assert len(caught) == 1
    assert_array_equal(rows, expected)
    forget_encoders()
    assert_array_equal(featurizer(tiny_clip, backend).transform(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.filterwarnings("ignore:The converted image tower .* is damaged")
def test_a_digest_of_several_parts(backend, own_home, tmp_path, clip_writer, images):
    """Files that are larger than one part are checked in all of them, and are open to readers."""
    write, configs = clip_writer
    vision = {**configs["vit"]["vision_cfg"], "width": 640, "head_width": 64}
    name = write(tmp_path / "wide", {**configs["vit"], "vision_cfg": vision})
    expected = featurizer(name, backend).transform(images)
    (folder,) = tower_folders(own_home)
    weights = own_home / folder / "tower.bin"
    (own_home / "plain").touch()
    if backend == "onnx":
        assert weights.stat().st_mode == (own_home / "plain").stat().st_mode
    content = bytearray(weights.read_bytes())
    assert len(content) > 2 * towers.PART_BYTES
    for place in (0, len(content) // 2, len(content) - 1):
        before = conversion_of(own_home)
        damaged = content.copy()
        damaged[place] ^= 1
        weights.write_bytes(damaged)
        forget_encoders()
        assert_array_equal(featurizer(name, backend).transform(images), expected)
        assert conversion_of(own_home) != before


def cut_on_the_disk(backend):
    """Writing seems to work, and the disk has lost half of it."""

    def short(tower, folder):
        ENGINES[backend].write(tower, folder)
        largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)

    return changed(backend, write=short)


def full(backend):
    """Writing raises what a full disk raises."""

    def fails(tower, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return changed(backend, write=fails)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("trouble", [cut_on_the_disk, full])
def test_a_disk_that_fails_costs_one_warning(trouble, backend, own_home, tiny_clip, images):
    """The tower is used from memory, and nothing of it stays on the disk."""
    engine = trouble(backend)
    with pytest.warns(UserWarning, match="can't be kept in .* each process converts it") as caught:
        rows = rows_of(load(engine, tiny_clip), images)
    assert len(caught) == 1
    rows_of(load(engine, tiny_clip), images)  # an error if it warned
    assert_allclose(rows, featurizer(tiny_clip).transform(images), rtol=1e-3, atol=1e-4)
    assert tower_folders(own_home) == []


@pytest.mark.parametrize("backend", ENGINES)
def test_no_cache_directory_costs_one_warning(backend, tmp_path, tiny_clip, images, monkeypatch):
    """If nothing can be made below that directory, the tower is used from memory."""
    (tmp_path / "file").touch()
    set_home(tmp_path / "file", monkeypatch)
    with pytest.warns(UserWarning, match="can't be kept in .* each process converts it") as caught:
        rows = featurizer(tiny_clip, backend).transform(images)
    assert len(caught) == 1
    featurizer(tiny_clip, backend, batch_size=2).transform(images)  # an error if it warned
    assert_allclose(rows, featurizer(tiny_clip).transform(images), rtol=1e-3, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


LIMITED = """
import resource, sys, warnings
import numpy as np
from sklearn_taskres import CLIPFeaturizer
images = list(np.random.default_rng(0).integers(0, 256, (7, 40, 50, 3), dtype=np.uint8))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = CLIPFeaturizer({name!r}, cache=None, precision="float32", backend={backend!r})
    rows = model.transform(images)
np.save(sys.stdout.buffer, rows)
assert len(caught) == 1, [str(w.message) for w in caught]
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits on the size of a file")
@pytest.mark.parametrize("backend", ENGINES)
def test_files_that_can_not_grow(backend, own_home, tiny_clip, images):
    """The system itself refuses to write: one warning, and the rows are right."""
    import io

    code = LIMITED.format(name=tiny_clip, backend=backend)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr.decode()
    rows = np.load(io.BytesIO(done.stdout))
    assert_allclose(rows, featurizer(tiny_clip).transform(images), rtol=1e-3, atol=1e-4)
    assert tower_folders(own_home) == []


KILLED = """
import os, signal
from types import SimpleNamespace
from sklearn_taskres import EmbeddingCache
from sklearn_taskres._clip.backends import {backend} as engine
from sklearn_taskres._clip.backends.engines import load_engine
from sklearn_taskres._clip.backends.torch.pretrained import find_model
def killed(tower, folder):
    if {moment!r} == "after":
        engine.write(tower, folder)
    print("killed", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
one = SimpleNamespace(**{{**vars(engine), "write": killed}})
identity = find_model({name!r}, None).identity()
load_engine(one, ({name!r}, None), identity, "float32", EmbeddingCache(None).towers())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_during_conversion(moment, backend, own_home, tiny_clip, images):
    """A process that is killed while it writes leaves no tower; the next converts and tidies."""
    code = KILLED.format(name=tiny_clip, backend=backend, moment=moment)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)  # noqa: S603
    assert done.returncode != 0
    assert done.stdout.split() == [b"killed"], done.stderr.decode()
    (left,) = tower_folders(own_home)
    rows = featurizer(tiny_clip, backend).transform(images)
    assert_allclose(rows, featurizer(tiny_clip).transform(images), rtol=1e-3, atol=1e-4)
    (kept,) = tower_folders(own_home)
    assert left.startswith(f"{kept}.")


AT_ONCE = """
import numpy as np
import torch
from sklearn_taskres import CLIPFeaturizer
def note(module, inputs):
    if type(module).__name__ == "PixelTower":
        print("converted")
torch.nn.modules.module.register_module_forward_pre_hook(note)
images = list(np.random.default_rng(0).integers(0, 256, (7, 40, 50, 3), dtype=np.uint8))
model = CLIPFeaturizer({name!r}, cache=None, precision="float32", backend={backend!r})
print(repr(float(model.transform(images).sum())))
"""


@pytest.mark.parametrize("backend", ENGINES)
def test_each_cache_folder_gets_its_tower(backend, tiny_clip, images, tmp_path):
    """A tower that this process has loaded from one folder is also kept in the next one."""
    for name in ("one", "two"):
        clip = featurizer(tiny_clip, backend, cache=str(tmp_path / name))
        clip.transform(images)
        assert list((tmp_path / name).rglob("manifest.json")) != []


@pytest.mark.slow
@pytest.mark.parametrize("backend", ENGINES)
def test_two_processes_convert_once(backend, own_home, tiny_clip, images):
    """The second waits for the first, and both give the same rows."""
    code = AT_ONCE.format(name=tiny_clip, backend=backend)
    command = [sys.executable, "-W", "error", "-c", code]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=300)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(map(len, printed)) == [1, 2]
    assert printed[0][-1] == printed[1][-1]
    assert len(tower_folders(own_home)) == 1
