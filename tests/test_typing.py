"""The types of the public names: all are annotated, and a type checker sees them."""

import ast
import functools
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sklearn_taskres
from sklearn_taskres import distributed, export, inspection

PUBLIC = [
    *((sklearn_taskres, name) for name in sklearn_taskres.__all__ if name != "__version__"),
    *((inspection, name) for name in inspection.__all__),
    *((export, name) for name in export.__all__),
    *((distributed, name) for name in distributed.__all__),
]


def functions_of(public):
    """Yield the functions that a user may call: the public one, or those of a public class."""
    if inspect.isfunction(public):
        yield public
        return
    for name in dir(public):
        member = inspect.getattr_static(public, name)
        if isinstance(member, classmethod | staticmethod):
            member = member.__func__
        if isinstance(member, property):
            member = member.fget
        if isinstance(member, functools.cached_property):
            member = member.func
        is_public = name == "__init__" or not name.startswith("_")
        if is_public and inspect.isfunction(member) and is_ours(member):
            yield member


def is_ours(function):
    """Whether a function, or the one that it decorates, is of the package."""
    return inspect.unwrap(function).__module__.startswith("sklearn_taskres")


def not_annotated(public):
    """List the parameters and returns without a type, as text."""
    missing = []
    for function in functions_of(public):
        signature = inspect.signature(function)
        items = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        missing += [f"{function.__qualname__}({p.name})" for p in items if p.annotation is p.empty]
        if signature.return_annotation is signature.empty:
            missing.append(f"{function.__qualname__} -> ")
    return missing


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=[name for _, name in PUBLIC])
def test_public_names_are_annotated(module, name):
    """Every parameter and return of a public name has a type."""
    assert not_annotated(getattr(module, name)) == []


def test_the_check_of_annotations_sees_what_is_missing():
    """The check names a parameter and a return without a type, decorated or not."""

    class Half:
        def __init__(self, a: int, b) -> None: ...

        @property
        def c(self): ...

        @functools.cache  # noqa: B019
        def _private(self, d): ...

        @classmethod
        def e(cls, f: int): ...

    for function in (Half.__init__, Half.c.fget, Half.e.__func__):
        function.__module__ = "sklearn_taskres.half"
    names = [text.partition("<locals>.")[2] for text in not_annotated(Half)]
    assert names == ["Half.__init__(b)", "Half.c -> ", "Half.e -> "]


def test_type_checkers_see_every_lazy_name():
    """What `__init__` imports for type checkers is exactly what it imports on first use."""
    tree = ast.parse(Path(sklearn_taskres.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.asname: f"{'.' * node.level}{node.module}"
        for node in block.body
        for alias in node.names
    }
    assert seen == sklearn_taskres._HOME


USER = """
import numpy as np
from sklearn_taskres import EmbeddingCache, ZeroShotClassifier
from sklearn_taskres import load_image_folder, make_taskres_pipeline, sample_few_shot
from sklearn_taskres.inspection import relative_transfer_difficulty

paths, y = load_image_folder("images")
train = sample_few_shot(y, 4, random_state=0)
model = make_taskres_pipeline("glyph-clip", cache=EmbeddingCache("cache"), class_names=["a", "b"])
predicted = model.fit(paths[train], y[train]).predict(paths)
clf = ZeroShotClassifier(np.eye(2), class_names={0: "cat", 1: "dog"}).fit(None, [0, 1])
digits: np.ndarray = clf.select_classes([0, 1]).predict([[0.0, 1.0]])
difficulty: float = relative_transfer_difficulty(y, predicted)
"""
#: Wrong lines with a word of what is said about them.
WRONG = {
    "from sklearn_taskres import ZeroShotClassifier, load_image_folder, sample_few_shot": "",
    "load_image_folder(3)": "[arg-type]",
    "sample_few_shot(['a'], '4')": "[call-overload]",
    "ZeroShotClassifier(logit_scale='large')": "[arg-type]",
    "ZeroShotClassifier(scale=1.0)": "[call-arg]",
    "ZeroShotClassifier().fit(None, [0, 1], weight=[1, 1])": "[call-arg]",
    "x: int = ZeroShotClassifier().predict([[0.0]])": "[assignment]",
    "from sklearn_taskres import TaskResClasifier": "[attr-defined]",
}
#: What is imported has no types, or is slow to read and says nothing about our names.
SETTINGS = """
[mypy]
ignore_missing_imports = True
[mypy-torch.*,torchvision.*,open_clip.*,matplotlib.*,transformers.*]
follow_imports = skip
"""


def test_a_type_checker_reads_a_users_script(tmp_path):
    """mypy accepts a script that is right, and reports each wrong line of another."""
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    (tmp_path / "right.py").write_text(USER)
    (tmp_path / "wrong.py").write_text("\n".join(WRONG))
    command = [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--cache-dir=cache"]
    done = subprocess.run(  # noqa: S603 (our own code)
        [*command, "--no-error-summary", "--hide-error-context", "right.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if ": error: " in line]
    expected = [(i, code) for i, code in enumerate(WRONG.values(), start=1) if code]
    assert len(said) == len(expected), done.stdout + done.stderr
    for line, (number, code) in zip(said, expected, strict=True):
        assert line.startswith(f"wrong.py:{number}: ")
        assert line.endswith(code)
