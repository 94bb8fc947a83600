"""The encoding benchmark runs, and measures what it says."""

import json
import sys

import numpy as np
import open_clip
import pytest

from sklearn_taskres._clip.backends.engines import find_engine, is_installed
from sklearn_taskres._clip.backends.torch.pretrained import find_model
from sklearn_taskres.benchmark import cold, memory, warm
from sklearn_taskres.benchmark.__main__ import main


@pytest.fixture(scope="module")
def tiny_architecture(clip_writer, tmp_path_factory):
    """Name of an architecture that open_clip knows from now on."""
    path = tmp_path_factory.mktemp("architecture") / "ViT-Tiny-Benchmark.json"
    path.write_text(json.dumps(clip_writer[1]["vit"]))
    open_clip.add_model_config(path)
    return path.stem


def test_cold_part(tiny_architecture, tmp_path, capsys):
    """Rates of bare loops and of every backend, their ratios, and how far other rows are off."""
    output = tmp_path / "figures.json"
    options = f"--models {tiny_architecture} --n-images 70 --repeats 1 --device cpu".split()
    main(["encode", "--parts", "cold", *options, "--output", str(output)])
    figures = json.loads(output.read_text())
    assert figures["machine"]["cores"] >= 1
    tiny = figures["cold"][tiny_architecture]
    assert tiny["n"] == 70
    rates, ratios = tiny["rate"], tiny[f"ratio to {cold.BASELINE}"]
    engines = {
        f"{name} {precision}"
        for name in ("openvino", "onnx")
        if is_installed(name)
        for precision in find_engine(name).PRECISIONS
    }
    ours = {f"transform, {name}" for name in engines | {"torch float32", "torch bfloat16"}}
    loops = {cold.BASELINE, "bare loop, channels last", "bare loop, bfloat16", cold.FROM_FILES}
    assert rates.keys() == ratios.keys() == ours | loops
    for way, rate in rates.items():
        assert ratios[way] == pytest.approx(rate / rates[cold.BASELINE])
        from_files = tiny[f"ratio to {cold.FROM_FILES}"][way]
        assert from_files == pytest.approx(rate / rates[cold.FROM_FILES])
    agreement = tiny[f"agreement with {cold.EXACT}"]
    assert agreement.keys() == ours - {cold.EXACT}
    for way, found in agreement.items():
        lowest = 0.99 if way.endswith("bfloat16") else 0.99999
        assert lowest < found["lowest_cosine"] < 1.0001
    assert "images/s" in capsys.readouterr().out


@pytest.mark.slow
def test_start_part(tiny_architecture, tmp_path):
    """An engine's process answers without torch."""
    output = tmp_path / "figures.json"
    options = ["--models", tiny_architecture, "--n-images", "3", "--repeats", "1"]
    main(["encode", "--parts", "start", *options, "--output", str(output)])
    tiny = json.loads(output.read_text())["start"][tiny_architecture]
    assert tiny.keys() == {"torch", "openvino", "onnx"}
    assert "torch" in tiny["torch"]["imported"]
    for engine in ("openvino", "onnx"):
        assert tiny[engine]["imported"] == []
    for figures in tiny.values():
        assert figures["seconds"] > 0
        if figures["resident MB"] is not None:
            assert figures["resident MB"] > 0
            assert figures["peak MB"] > 0


def test_an_empty_folder_is_said_so(tmp_path):
    """A folder without images ends in a sentence."""
    with pytest.raises(SystemExit, match="holds no image"):
        main(["encode", "--parts", "cold", "--images", str(tmp_path)])


def test_an_unreadable_image_is_named(tmp_path):
    """Before anything is measured."""
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"bad.jpg can't be read: not an image .* out of the fold"):
        main(["encode", "--parts", "cold", "--images", str(tmp_path)])


@pytest.mark.parametrize("name", warm.STORES)
def test_stores_give_back_what_they_got(name, tmp_path):
    """Each store that is compared really stores."""
    keys, rows = warm.example_keys()[:50], warm.example_rows()[:50]
    warm.STORES[name](tmp_path).put(keys, rows)
    got, found = warm.STORES[name](tmp_path).get(keys[::-1])
    assert found.all()
    np.testing.assert_array_equal(got, rows[::-1])


@pytest.mark.slow
def test_memory_part():
    """Peaks of a child process after ever more images, in megabytes; they only grow."""
    resource = pytest.importorskip("resource")
    figures = memory.measure(n=8, side=32)
    weights = find_model("glyph-clip", None).find_weights().stat().st_size  # half as large as held
    unit = 1e6 if sys.platform == "darwin" else 1e3
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    assert figures["embeddings"] == pytest.approx(8 * 128 * 4 / 1e6)
    peaks = [figures[f"peak after {n}"] for n in (2, 4, 8)]
    assert weights / 1e6 < peaks[0] <= peaks[1] <= peaks[2] <= largest_child
