"""The encoding benchmark runs, and measures what it says."""

import json

import numpy as np
import pytest

from sklearn_taskres._clip.backends.torch import pretrained
from sklearn_taskres.benchmark import memory, warm
from sklearn_taskres.benchmark.__main__ import main


def test_cold_part(clip_writer, monkeypatch, tmp_path, capsys):
    """Rates of both precisions, their ratio to a bare loop, and how far bfloat16 is off."""
    config = clip_writer[1]["vit"]
    monkeypatch.setattr(pretrained, "architecture_config", lambda _: config)
    output = tmp_path / "figures.json"
    options = ["--models", "tiny", "--n-images", "70", "--repeats", "1", "--device", "cpu"]
    main(["encode", "--parts", "cold", *options, "--output", str(output)])
    figures = json.loads(output.read_text())
    assert figures["machine"]["cores"] >= 1
    tiny = figures["cold"]["tiny"]
    assert tiny["n"] == 70
    for precision in ("float32", "bfloat16"):
        rates = tiny[precision]
        expected = rates["transform"] / rates["bare_loop"]
        assert rates["transform / bare_loop"] == pytest.approx(expected)
    assert 0.99 < tiny["agreement"]["lowest_cosine"] < 1.0001
    assert "transform / bare_loop" in capsys.readouterr().out


def test_an_empty_folder_is_said_so(tmp_path):
    """A folder without images ends in a sentence."""
    with pytest.raises(SystemExit, match="holds no image"):
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
    """Peaks of a child process after ever more images, in megabytes."""
    figures = memory.measure(n=8, side=32)
    assert figures["embeddings"] == pytest.approx(8 * 128 * 4 / 1e6)
    assert 50 < figures["peak after 2"] <= figures["peak after 8"] < 10_000
