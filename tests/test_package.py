"""The package as a whole: what importing costs, who imports whom, and what a model file needs."""

import ast
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from numpy.testing import assert_array_equal

import sklearn_taskres
from sklearn_taskres import TaskResClassifier, make_taskres_pipeline

ROOT = Path(sklearn_taskres.__file__).parent

#: Package part to the parts it may import, from the ground up.
GROUND = {
    "_arguments",
    "_cpu",
    "_data_sets",
    "_device",
    "_formulas",
    "_messages",
    "_rows",
    "_typing",
    "_version",
}
MAY_IMPORT = {
    **{part: set() for part in GROUND},
    "_arguments": {"_device"},
    "_device": {"_cpu"},
    "_fitting": set(),
    "_held_out": set(),
    "_persistence": {"_messages", "_version"},
    "_training": {*GROUND, "_training"},
    "_clip": {*GROUND, "_clip", "_persistence"},
    "_class_base": {*GROUND, "_class_base", "_clip.text"},
    "_classifiers": {
        *GROUND,
        "_class_base",
        "_classifiers",
        "_fitting",
        "_held_out",
        "_persistence",
        "_training",
    },
    "_search": {
        *GROUND,
        "_class_base",
        "_classifiers.taskres",
        "_fitting",
        "_held_out",
        "_persistence",
        "_search",
    },
    "datasets": {"_clip.files", "_clip.images", "_messages", "_typing"},
    "distributed": {"_clip.images", "_persistence"},
    "pipeline": {"_classifiers", "_clip", "_typing"},
    "inspection": {
        *GROUND,
        "inspection",
        "_classifiers.unlabeled",
        "_classifiers.zero_shot",
        "_clip.images",
        "_persistence",
    },
    "export": {
        "",  # the face, which has every estimator that a file may name
        "export",
        "_classifiers",
        "_clip",
        "_persistence",
        "_version",
    },
    # for type checkers alone; that importing it is light has a test of its own
    "__init__": {"_version", *(home.removeprefix(".") for home in sklearn_taskres._HOME.values())},
    "__main__": {"cli"},
    "cli": {
        "",  # the face, to list what it gives
        *GROUND,
        "_persistence",
        "cli",
        "benchmark.__main__",  # one of its commands
        "datasets",
        "export",
        "inspection",
        "pipeline",
        *sklearn_taskres.__all__,
    },
    "benchmark": {*GROUND, "benchmark", "_clip", "inspection", *sklearn_taskres.__all__},
}
#: What is imported inside functions only, outside its own part: these bring torch along.
LAZY = {"_clip.text", "_device", "_training"}
#: Parts that are imported without torch.
LIGHT = {"_class_base", "_classifiers", "_search"}
#: What a classifier's file may import of its siblings, besides what all of them share.
SHARED = {"base", "gaussian", "text_gaussian", "training"}
FAMILY = {
    "taskres": {"enhanced_base"},
    "taskres_gda": {"held_out_gaussian", "taskres", "unlabeled"},
}
#: The only files that may import a library.
DOORS = {
    "open_clip": {
        "_clip/backends/torch/blocks.py",
        "_clip/backends/torch/pretrained.py",
        "_clip/backends/torch/untrusted.py",
        "benchmark/cold.py",
    },
    "skorch": {"_training/engine.py", "_training/net.py", "benchmark/baselines.py"},
}


def imports(path, nested, root):
    """Yield the absolute dotted name of every module that a file imports."""
    package = ["sklearn_taskres", *path.relative_to(root).parent.parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ([module] if node.module else [f"{module}.{a.name}" for a in node.names])


def breaks_the_family(path, rest):
    """Whether a classifier's file imports a sibling that it does not say it is made of."""
    part, _, sibling = rest.partition("_classifiers.")
    return not part and sibling not in SHARED | FAMILY.get(path.stem, set())


def is_too_early(rest, module, top_level):
    """Whether a module that brings torch is imported where its user is."""
    return rest in LAZY and module in top_level


def violations(root):
    """List imports that break the rules, as (file, module)."""
    broken = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        part = name.partition("/")[0].removesuffix(".py")
        top_level = set(imports(path, nested=False, root=root))
        for module in imports(path, nested=True, root=root):
            top, _, rest = module.partition(".")
            if top == "sklearn_taskres":
                allowed = MAY_IMPORT[part]
                forbidden = not (rest.partition(".")[0] in allowed or rest in allowed)
                forbidden |= part in LIGHT and is_too_early(rest, module, top_level)
                if part == "_classifiers" and rest.startswith("_classifiers."):
                    forbidden |= breaks_the_family(path, rest)
                if forbidden:
                    broken.append((name, module))
            elif name not in DOORS.get(top, {name}):
                broken.append((name, module))
    return broken


def test_imports_point_down():
    """Every import keeps the rules of the architecture."""
    assert violations(ROOT) == []


def test_import_rules_can_be_broken(tmp_path):
    """The check itself sees a classifier that imports what it must not, or at the wrong place."""
    folder = tmp_path / "_classifiers"
    folder.mkdir()
    bad = [
        "from .._clip.featurizer import CLIPFeaturizer",
        "import skorch",
        "from .._training import train",
        "from .zero_shot import ZeroShotClassifier",
        "from .base import BaseCLIPClassifier",  # allowed
    ]
    (folder / "bad.py").write_text("\n".join(bad))
    below = tmp_path / "_class_base"
    below.mkdir()
    upward = ["from .._classifiers.base import BaseCLIPClassifier", "from .._clip.text import T"]
    (below / "bad.py").write_text("\n".join(upward))
    found = [module.removeprefix("sklearn_taskres.") for _, module in violations(tmp_path)]
    of_classifiers = ["_clip.featurizer", "skorch", "_training", "_classifiers.zero_shot"]
    assert found == ["_classifiers.base", "_clip.text", *of_classifiers]


@pytest.mark.parametrize(
    ("room", "line", "module"),
    [
        ("_training", "from .._classifiers.base import BaseCLIPClassifier", "_classifiers.base"),
        ("_clip", "from .._training import train", "_training"),
        ("_search", "from .._training import train", "_training"),
        ("_search", "import open_clip", "open_clip"),
        ("inspection", "from ..benchmark.methods import METHODS", "benchmark.methods"),
        ("export", "from ..benchmark.methods import METHODS", "benchmark.methods"),
        ("cli", "from ..benchmark.methods import METHODS", "benchmark.methods"),
        ("benchmark", "from ..cli import main", "cli"),
    ],
)
def test_each_room_has_its_rules(tmp_path, room, line, module):
    """An import of a room above, or of a library that is not the room's, is seen in any room."""
    (tmp_path / room).mkdir()
    (tmp_path / room / "bad.py").write_text(line)
    found = [found.removeprefix("sklearn_taskres.") for _, found in violations(tmp_path)]
    assert found == [module]


def run(code):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_is_light():
    """`import sklearn_taskres` imports neither torch nor open_clip nor scikit-learn."""
    code = (
        "import sys, sklearn_taskres; "
        "print({'torch', 'open_clip', 'skorch', 'sklearn', 'numpy', 'PIL'} & set(sys.modules))"
    )
    assert run(code) == "set()"


def test_every_public_name_is_there():
    """The face lists what it gives, and gives what it lists."""
    for name in sklearn_taskres.__all__:
        assert getattr(sklearn_taskres, name) is not None
        assert name in dir(sklearn_taskres)
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = sklearn_taskres.nope


@pytest.fixture(scope="module")
def fitted():
    """A small classifier and embeddings to predict from."""
    rng = np.random.default_rng(0)
    t = rng.normal(scale=0.44, size=(4, 12))
    y = np.arange(32) % 4
    X = t[y] + rng.normal(scale=0.3, size=(32, 12))
    return TaskResClassifier(t, max_epochs=3, random_state=0).fit(X, y), X


FORBID_TORCH = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "open_clip", "skorch"}:
            raise ImportError(f"{name} is forbidden here")
sys.meta_path.insert(0, Forbid())
"""


def test_a_model_file_loads_and_predicts_without_torch(fitted, tmp_path):
    """joblib load, predict and class selection work if any import of torch raises."""
    clf, X = fitted
    joblib.dump(clf, tmp_path / "model.joblib")
    np.save(tmp_path / "X.npy", X)
    code = FORBID_TORCH + (
        f"import joblib, numpy as np\n"
        f"clf = joblib.load({str(tmp_path / 'model.joblib')!r})\n"
        f"X = np.load({str(tmp_path / 'X.npy')!r})\n"
        f"clf.select_classes([0, 2]).predict(X); clf.predict_proba(X)\n"
        f"print(clf.predict(X).tolist())"
    )
    assert run(code) == str(clf.predict(X).tolist())


@pytest.mark.model
def test_a_pickled_pipeline_holds_its_arrays_and_little_else():
    """A pipeline fitted with the bundled model is within 20 kB of its arrays: no weights in it."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    model = make_taskres_pipeline("glyph-clip", class_names=list("0123456789"), max_epochs=100)
    model.fit(digits.images[:20] / 16, digits.target[:20])
    arrays = [v.nbytes for v in vars(model["taskres"]).values() if isinstance(v, np.ndarray)]
    assert len(pickle.dumps(model)) - sum(arrays) < 20_000


def test_skops_round_trip(fitted):
    """A skops file gives the same predictions; it holds the package's own types and arrays."""
    clf, X = fitted
    data = skops.io.dumps(clf)
    unknown = skops.io.get_untrusted_types(data=data)
    assert all(name.startswith("sklearn_taskres.") for name in unknown)
    assert_array_equal(skops.io.loads(data, trusted=unknown).predict_proba(X), clf.predict_proba(X))


def test_another_version_warns(fitted):
    """A model of another version is read with a warning that names both; the same one silently."""
    clf, _ = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(clf))  # noqa: S301
    text = pickle.dumps(clf, protocol=0)  # the one in which strings are lines
    own = f"V{sklearn_taskres.__version__}\n".encode()
    assert text.count(own) == 1
    data = text.replace(own, b"V0.0.1\n")
    with pytest.warns(UserWarning, match="saved by sklearn_taskres 0.0.1 and is read by"):
        pickle.loads(data)  # noqa: S301


def test_warnings_point_past_context_managers():
    """What warns when a block of ours ends points at the user's line, and not at contextlib."""
    ours = {"__name__": "sklearn_taskres.example"}
    code = """
import contextlib
from sklearn_taskres._messages import warn_user

@contextlib.contextmanager
def block():
    yield
    warn_user("at the end")

def work():
    with block():
        pass
"""
    exec(code, ours)  # noqa: S102 (written above)
    with pytest.warns(UserWarning, match="at the end") as caught:
        ours["work"]()
    assert caught[0].filename == __file__
