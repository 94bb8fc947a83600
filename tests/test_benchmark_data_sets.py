"""The table of data sets: one row is all that the code needs, and the pages know each row."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import sklearn_taskres
from sklearn_taskres import CLIPTextFeaturizer
from sklearn_taskres._data_sets import DATA_SETS, TRAINED, VARIANTS
from sklearn_taskres.benchmark import layouts, machine, methods

PACKAGE = Path(sklearn_taskres.__file__).parent
DOCS = PACKAGE.parent / "docs"
ROW = """
    "my_digits": DataSetInfo(
        templates=("a photo of the number {}.",),
        layout="split",
        folder="my-digits",
        split="split.json",
        recipes={"TaskResClassifier": {"alpha": 0.25}},
        gains={("taskres", 1): 1.5},
    ),
}
"""
CODE = """
import sys; sys.path.insert(0, sys.argv[1])
from sklearn_taskres import CLIPTextFeaturizer
from sklearn_taskres.benchmark import published
from sklearn_taskres.benchmark.__main__ import main
text = CLIPTextFeaturizer("glyph-clip")
same = text.set_params(templates="my_digits").transform(["one"]) == text.set_params(
    templates="a photo of the number {}."
).transform(["one"])
assert same.all()
assert published.Gain("taskres", "my_digits", 1, 1.5) in published.GAINS
assert "my_digits" not in published.AVERAGED and len(published.AVERAGED) == 11
main(["accuracy", "--data", sys.argv[2], "--output", sys.argv[2], "--report", "--data-sets",
      "my_digits", "--methods", "zero-shot", "taskres", "--shots", "1", "--seeds", "1",
      "--backbones", "glyph-clip", "--views", "0"])
"""


def write_digits(folder):
    """Write digits with a split file, as the layout "split" has it."""
    digits, names = load_digits(), ["zero", "one", "two"]
    split = {"train": [], "val": [], "test": []}
    (folder / "images").mkdir(parents=True)
    for row in range(60):
        label = int(digits.target[row])
        if label < len(names):
            pixels = (digits.images[row] * 15.9).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{row}.png")
            part = "train" if row < 30 else "test"
            split[part].append([f"{row}.png", label, names[label]])
    (folder / "split.json").write_text(json.dumps(split))


@pytest.mark.slow
@pytest.mark.model
def test_a_new_data_set_is_one_row(tmp_path):
    """Prompts, command line, reading, recipe, published gain and report know it by that alone."""
    copy, data = tmp_path / "code" / "sklearn_taskres", tmp_path / "data"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "_data_sets.py").read_text("utf-8")
    (copy / "_data_sets.py").write_text(text.replace("\n}\n", ROW, 1))
    write_digits(data / "my-digits")
    command = [sys.executable, "-c", CODE, str(copy.parent), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (data / "results.jsonl").read_text().splitlines()]
    assert [(line["test"], line["method"]) for line in lines] == [
        ("my_digits", "zero-shot"),
        ("my_digits", "taskres"),
    ]
    assert lines[1]["parameters"]["alpha"] == 0.25
    assert lines[1]["code"] == machine.code_digest()  # a new row makes no cell anew
    assert "| taskres |" in (data / "report.md").read_text("utf-8")


def test_rows_name_what_there_is():
    """Layouts that are read, classes that the benchmark makes, methods that it knows."""
    classes = {method.class_name for method in methods.METHODS.values()}
    for name, info in DATA_SETS.items():
        readers = layouts._LABELS if info.variant else layouts._READERS
        assert info.layout in readers, name
        assert (info.layout == "split") == bool(info.split), name
        assert info.recipes.keys() <= classes, name
        assert {method for method, _ in info.gains} <= methods.METHODS.keys(), name
        assert not (info.variant and info.is_averaged), name
    assert (*TRAINED, *VARIANTS) == tuple(DATA_SETS)
    assert len(TRAINED) == 11


@pytest.mark.skipif(not DOCS.is_dir(), reason="needs a checkout")
def test_pages_know_every_data_set():
    """The benchmark's page says where it lies, the page on prompts and the docstring its name."""
    rows = re.split(r"^   \* - ", (DOCS / "benchmark.rst").read_text("utf-8"), flags=re.MULTILINE)
    prompts = (DOCS / "guide" / "prompts.rst").read_text("utf-8")
    for name, info in DATA_SETS.items():
        (row,) = (row for row in rows if row.startswith(f"{name}\n"))
        assert f"``{info.folder}``" in row
        assert info.images in row
        assert info.split in row
        assert f'``"{name}"``' in prompts
        assert f'"{name}"' in CLIPTextFeaturizer.__doc__


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("_formulas.py", True),
        ("_clip/text.py", True),
        ("_data_sets.py", False),
        ("_clip/glyph/train.py", False),
        ("benchmark/cells.py", True),
        ("benchmark/report.py", False),
        ("inspection/_figures.py", True),
        ("inspection/alpha.py", False),
    ],
)
def test_the_digest_is_of_code_that_decides_accuracies(tmp_path, file, counts):
    """A cell says by itself what it took of the table; an installed package lacks the training."""
    for name in ("same", "changed"):
        ignored = shutil.ignore_patterns("*.safetensors", "*.pyc")
        shutil.copytree(PACKAGE, tmp_path / name, ignore=ignored)
    assert all((tmp_path / "same" / name).is_file() for name in machine._MATTER)
    with open(tmp_path / "changed" / file, "a", encoding="utf-8") as code:
        code.write("\nx = 1\n")
    assert machine.code_digest(tmp_path / "same") == machine.code_digest()
    assert (machine.code_digest(tmp_path / "changed") != machine.code_digest()) == counts
