"""The accuracy benchmark on images: folder layouts, recipes, runs that are killed or shared."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

from sklearn_taskres import (
    CLIPFeaturizer,
    CLIPTextFeaturizer,
    EmbeddingCache,
    TaskResClassifier,
    sample_few_shot,
)
from sklearn_taskres._data_sets import DATA_SETS, TRAINED, VARIANTS
from sklearn_taskres.benchmark.__main__ import main
from sklearn_taskres.benchmark.images import parse_backbone
from sklearn_taskres.benchmark.layouts import MissingDataSetError, read_data_set, read_variant
from sklearn_taskres.benchmark.methods import METHODS
from sklearn_taskres.benchmark.recipes import published_parameters
from sklearn_taskres.benchmark.results import Results, line_key

#: Prompts about pets and textures are news to the bundled CLIP, and some digits puzzle it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*never saw"),
    pytest.mark.filterwarnings("ignore:Zero-shot, the class embeddings"),
]
NAMES = ["zero", "one", "two", "three"]
WNIDS = ["n01", "n02", "n03", "n04"]
#: Images per class.
COUNTS = {"train": 3, "val": 1, "test": 2}


class Digits:
    """Writes digits as files, no two alike."""

    def __init__(self):
        digits = load_digits()
        self._images = {k: iter(digits.images[digits.target == k]) for k in range(len(NAMES))}

    def write(self, path, label):
        """Write the next image of a digit."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (next(self._images[label]) * 15.9).astype(np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")


def write_split(root, name, digits, names=NAMES):
    """Write a data set that has a split file."""
    info = DATA_SETS[name]
    folder = root / info.folder
    content = {part: [] for part in COUNTS}
    for part, count in COUNTS.items():
        for label, number in np.ndindex(len(names), count):
            path = f"class {label}/{part}_{number}.png"
            digits.write(folder / info.images / path, label)
            content[part].append([path, label, names[label]])
    (folder / info.split).write_text(json.dumps(content))


def write_aircraft(root, digits):
    """Write FGVCAircraft: text files, images that end in .jpg."""
    folder = root / "fgvc_aircraft"
    for part, count in COUNTS.items():
        lines = []
        for label, number in np.ndindex(len(NAMES), count):
            digits.write(folder / "images" / f"{part}{label}{number}.jpg", label)
            lines.append(f"{part}{label}{number} {NAMES[label]}\n")
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    (folder / "variants.txt").write_text("\n".join(NAMES) + "\n")


def write_imagenet(root, digits):
    """Write ImageNet and its variants; -A and -R lack classes, hidden files and notes are about."""
    folder = root / "imagenet"
    for part, count in (("train", 3), ("val", 2)):
        for label, number in np.ndindex(len(WNIDS), count):
            digits.write(folder / "images" / part / WNIDS[label] / f"{number}.JPEG", label)
    (folder / "images" / "train" / WNIDS[0] / ".DS_Store").write_text("no image")
    pairs = zip(WNIDS, NAMES, strict=True)
    (folder / "classnames.txt").write_text("".join(f"{w} {n}\n" for w, n in pairs))
    labels = {"imagenet_a": [1, 3], "imagenet_r": [0, 2, 3]}
    for name in VARIANTS:
        images = root / DATA_SETS[name].folder / DATA_SETS[name].images
        for label in labels.get(name, range(len(WNIDS))):
            class_folder = str(label) if name == "imagenetv2" else WNIDS[label]
            digits.write(images / class_folder / "a.png", label)
        (images / "README.txt").write_text("no class")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All 15 layouts."""
    folder, digits = tmp_path_factory.mktemp("data"), Digits()
    for name in (name for name, info in DATA_SETS.items() if info.layout == "split"):
        write_split(folder, name, digits)
    write_aircraft(folder, digits)
    write_imagenet(folder, digits)
    return folder


def run(root, folder, *options):
    """Run zero-shot and TaskRes, 1 shot and seed, without views, or what `options` say."""
    small = ["--methods", "zero-shot", "taskres", "--shots", "1", "--seeds", "1", "--views", "0"]
    where = ["--data", str(root), "--output", str(folder), "--backbones", "glyph-clip"]
    main(["accuracy", *where, *small, *options])
    return read(folder)


def read(folder):
    """All lines of the results."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def where(line):
    """What tells lines of one run apart."""
    names = ("data", "test", "backbone", "method", "shots", "seed")
    return tuple(line[name] for name in names)


@pytest.mark.slow
def test_every_layout_runs_from_images_to_the_report(root, tmp_path):
    """15 test sets, each with one line per method, and a report of them; a rerun adds nothing."""
    lines = run(root, tmp_path, "--report")
    tests = [name for name in TRAINED if name != "imagenet"] + ["imagenet", *VARIANTS]
    assert sorted({line["test"] for line in lines}) == sorted(tests)
    assert len(tests) == 15
    assert len(lines) == 2 * 15
    assert all(line["data"] == "imagenet" for line in lines if line["test"] in VARIANTS)
    assert {line["backbone"] for line in lines} == {"glyph-clip"}
    assert np.mean([line["accuracy"] for line in lines]) > 0.7  # chance is about 0.27
    assert [line["n_test"] for line in lines if line["test"] == "imagenet_a"] == [2, 2]
    assert "taskres" in (tmp_path / "report.md").read_text()
    before = (tmp_path / "results.jsonl").read_bytes()
    run(root, tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def fitted_by_hand(data, prompts, shots, views=0, **params):
    """TaskRes on the draw of seed 1, with the epochs of few shots."""
    rows = sample_few_shot(data.train.y, shots, random_state=1)
    base = CLIPTextFeaturizer("glyph-clip", templates=prompts)
    clf = TaskResClassifier(base, class_names=NAMES, max_epochs=100, random_state=1, **params)
    X = CLIPFeaturizer("glyph-clip", n_views=views).fit_transform(data.train.paths(rows))
    return clf.fit(X, data.train.y[rows])


def figures(clf, rows):
    """What a line says of a classifier's predictions: accuracy and log loss."""
    X, codes = CLIPFeaturizer("glyph-clip").transform(rows.paths()), np.arange(len(rows.y))
    log_p = clf.predict_log_proba(X)[codes, np.searchsorted(clf.classes_, rows.y)]
    return {"accuracy": clf.score(X, rows.y), "log_loss": float(-np.mean(log_p))}


def test_a_cell_is_the_recipe_by_hand(root, tmp_path):
    """A line holds what a fit on the same draw gives, with the data set's prompts and alpha."""
    _, line = run(root, tmp_path, "--data-sets", "dtd", "oxford_flowers", "--methods", "taskres",
                  "--views", "2", "--shots", "2")  # fmt: skip
    data = read_data_set("oxford_flowers", root)
    clf = fitted_by_hand(data, "a photo of a {}, a type of flower.", 2, views=2, alpha=1.0)
    assert line == line | figures(clf, data.tests["oxford_flowers"])  # to the last bit
    assert line["views"] == 2
    assert (line["n_train"], line["n_test"]) == (8, 8)
    assert line["parameters"]["alpha"] == 1.0


def test_recipes():
    """Epochs by shots, the learning rate on ImageNet, alpha on flowers; others are silent."""
    taskres = "TaskResClassifier"
    on_dtd = {k: published_parameters(taskres, "dtd", "RN50", k) for k in (1, 2, 4, 8, 16)}
    assert [on_dtd[k]["max_epochs"] for k in on_dtd] == [100, 100, 100, 200, 200]
    assert published_parameters(taskres, "imagenet", "RN50", 1)["lr"] == 2e-4
    assert published_parameters(taskres, "dtd", "RN50", 1)["lr"] == 2e-3
    assert published_parameters(taskres, "dtd", "RN50", 1)["alpha"] == 0.5
    assert "max_epochs" not in published_parameters(taskres, "dtd", "RN50", 3)
    assert published_parameters("CoOpClassifier", "imagenet", "RN50", 16)["max_epochs"] == 50
    assert published_parameters("GDAClassifier", "imagenet", "RN50", 16) == {}
    made = METHODS["taskres-alpha-0.1"](
        None, None, 0, **published_parameters(taskres, "oxford_flowers", "", 1)
    )
    assert made.alpha == 0.1


def test_defaults_are_the_papers(textures, tmp_path):
    """Seeds 1 to 3, shots 1 to 16 and 10 views, unless the options say otherwise."""
    where = ["--data", str(textures), "--output", str(tmp_path), "--backbones", "glyph-clip"]
    main(["accuracy", *where, "--methods", "zero-shot"])
    lines = read(tmp_path)
    drawn = [(line["shots"], line["seed"]) for line in lines]
    assert drawn == [(k, seed) for k in (1, 2, 4, 8, 16) for seed in (1, 2, 3)]
    assert {line["views"] for line in lines} == {10}
    assert [line["n_train"] for line in lines[::3]] == [4, 8, 12, 12, 12]  # 3 images are there


@pytest.mark.slow
def test_every_method_runs_from_images(root, tmp_path):
    """Those that train through the text tower among them."""
    lines = run(root, tmp_path, "--data-sets", "ucf101", "--methods", *METHODS, "--shots", "2")
    assert [line["method"] for line in lines] == list(METHODS)
    assert next(x for x in lines if x["method"] == "coop")["n_parameters"] > 0


def test_only_sampled_and_test_images_are_encoded(textures, tmp_path):
    """Of the training images only the drawn ones are ever read: the others can't be."""
    data = read_data_set("dtd", textures)
    drawn = data.train.paths(sample_few_shot(data.train.y, 1, random_state=1))
    needed = {*map(Path, drawn), *map(Path, data.tests["dtd"].paths())}
    others = set((textures / "dtd").rglob("*.png")) - needed
    assert (len(needed), len(others)) == (4 + 8, 8 + 4)
    for path in others:
        path.write_bytes(b"no image")
    run(textures, tmp_path / "out", "--methods", "zero-shot")
    assert EmbeddingCache(tmp_path / "out" / "embeddings").entries == len(needed)


# killed and shared ----------------------------------------------------------------------------

OPTIONS = ["--data-sets", "imagenet", "dtd", "eurosat", "--shots", "1", "2", "3",
           "--seeds", "1", "2", "3"]  # fmt: skip
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs fork and POSIX signals")
FORK = multiprocessing.get_context("fork") if os.name != "nt" else None
#: What a process is about to do, as Python's audit events name it: event, end of a path, mode.
READ_AN_IMAGE = ("open", ".png", "r")
APPEND = ("open", "results.jsonl", "a+")
CLAIM = ("open", ".holder", "x")
LET_GO = ("os.remove", ".holder", None)


def is_at(moment, event, path, mode):
    return (event, mode) == moment[::2] and path.endswith(moment[1])


def run_and_act(root, folder, n_lines, moment, act):
    """Run the command in a process of its own, and act once at a moment after so many lines."""
    tqdm.set_lock(threading.RLock())  # of a shared one, a killed process never lets go
    appended, acted = [], []

    def look(event, args):
        if event not in {"open", "os.remove"} or acted:
            return
        path, mode = str(args[0]), args[1] if event == "open" else None
        if len(appended) >= n_lines and is_at(moment, event, path, mode):
            acted.append(moment)
            act()
        elif is_at(APPEND, event, path, mode):
            appended.append(path)

    sys.addaudithook(look)
    run(root, folder, *OPTIONS)


def forked(*args):
    """Start the same command in another process, which acts once."""
    process = FORK.Process(target=run_and_act, args=args, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: on purpose
        process.start()
    return process


def kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


def whole_lines(path):
    """Bytes of the lines that have an end."""
    return path.read_bytes().rpartition(b"\n")[0] + b"\n"


@pytest.mark.slow
@posix_only
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA cannot follow a fork")
def test_killed_and_then_shared_by_processes(root, tmp_path):
    """After SIGKILLs no cell is lost or repeated, with three processes at the rest at once."""
    path = tmp_path / "results.jsonl"
    whole = b""
    for n_lines, moment in enumerate([CLAIM, READ_AN_IMAGE, APPEND, LET_GO], start=1):
        killed = forked(root, tmp_path, n_lines, moment, kill_oneself)
        killed.join(120)
        assert killed.exitcode == -signal.SIGKILL
        assert whole_lines(path).startswith(whole)
        assert whole_lines(path).count(b"\n") >= whole.count(b"\n") + n_lines
        whole = whole_lines(path)
    at_work, may_go_on = FORK.Semaphore(0), FORK.Event()

    def meet():
        at_work.release()
        assert may_go_on.wait(60)

    others = [forked(root, tmp_path, 0, CLAIM, meet) for _ in range(2)]
    assert all(at_work.acquire(timeout=60) for _ in others)
    may_go_on.set()
    lines = run(root, tmp_path, *OPTIONS)
    for other in others:
        other.join(120)
    assert [other.exitcode for other in others] == [0, 0]
    assert read(tmp_path) == lines  # all was there when this process ended
    assert path.read_bytes().startswith(whole)
    assert len({where(line) for line in lines}) == len(lines)  # none twice
    assert len(lines) == 2 * 3 * 3 * (2 + 5)


@posix_only
@pytest.mark.parametrize("finishes", [False, True])
def test_a_cell_that_another_process_holds_is_not_run(tmp_path, finishes):
    """It is found when the holder ends; a killed holder holds nothing."""
    context = multiprocessing.get_context("fork")
    held, may_end = context.Event(), context.Event()
    results = Results(tmp_path / "results.jsonl")
    line = {"data": "a", "method": "m", "shots": 1, "seed": 0, "accuracy": 0.5,
            "fit_seconds": 0.1, "n_parameters": 0, "machine": {"date": "today"}}  # fmt: skip

    def hold():
        with results.claimed(["key"]) as is_ours:
            assert is_ours
            held.set()
            may_end.wait(60)
            if not finishes:
                os.kill(os.getpid(), signal.SIGKILL)
            results.append([line])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        holder = context.Process(target=hold)
        holder.start()
    assert held.wait(60)
    with results.claimed(["key"]) as is_ours:
        assert not is_ours
    assert results.holder(["key"]).startswith(f"process {holder.pid} on ")
    may_end.set()
    holder.join(60)
    with results.claimed(["key"]) as is_ours:
        assert is_ours
    assert results.has([line_key(line)]) == finishes


def test_a_cell_is_complete_only_with_all_its_tests(root, tmp_path):
    """If the file was cut between ImageNet's lines, the cell is redone, all lines at once."""
    lines = run(root, tmp_path, "--data-sets", "imagenet", "--methods", "zero-shot")
    path = tmp_path / "results.jsonl"
    assert [line["test"] for line in lines] == ["imagenet", *VARIANTS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    again = run(root, tmp_path, "--data-sets", "imagenet", "--methods", "zero-shot")
    assert [line["test"] for line in again[2:]] == ["imagenet", *VARIANTS]
    assert [line["accuracy"] for line in again[2:]] == [line["accuracy"] for line in lines]


def test_variants_are_judged_among_their_own_classes(root, tmp_path):
    """Figures on ImageNet-A are those of the fitted rows of its classes alone, and so on -R."""
    options = ["--data-sets", "imagenet", "--methods", "taskres", "--shots", "3"]
    lines = run(root, tmp_path, *options)
    assert [line["test"] for line in lines] == ["imagenet", *VARIANTS]
    data = read_data_set("imagenet", root)
    clf = fitted_by_hand(data, "imagenet", 3, lr=2e-4)
    fewer = {"imagenet_a": [1, 3], "imagenet_r": [0, 2, 3]}
    for line in lines:
        test = line["test"]
        rows = data.tests[test] if test in data.tests else read_variant(test, root, data)
        among_all = figures(clf, rows)
        expected = figures(clf.select_classes(fewer[test]), rows) if test in fewer else among_all
        assert np.unique(rows.y).tolist() == fewer.get(test, [0, 1, 2, 3])
        assert line["accuracy"] == expected["accuracy"]
        # Other batches of images, and so other sums of floats, on a GPU.
        assert_allclose(line["log_loss"], expected["log_loss"], rtol=1e-4)
        assert (among_all["log_loss"] > 1.001 * expected["log_loss"]) == (test in fewer)


def test_a_data_set_is_judged_among_all_its_classes(textures, tmp_path):
    """Also if its own test images lack one: only ImageNet's variants choose among fewer."""
    path, split = split_of(textures)
    split["test"] = [item for item in split["test"] if item[1] != 2]
    path.write_text(json.dumps(split))
    (line,) = run(textures, tmp_path / "out", "--methods", "taskres")
    data = read_data_set("dtd", textures)
    clf, rows = fitted_by_hand(data, "dtd", 1), data.tests["dtd"]
    assert line == line | figures(clf, rows)
    assert line["log_loss"] > 1.001 * figures(clf.select_classes([0, 1, 3]), rows)["log_loss"]


# what is missing or broken --------------------------------------------------------------------


@pytest.fixture
def textures(tmp_path):
    """A root with one data set, dtd."""
    write_split(tmp_path / "data", "dtd", Digits())
    return tmp_path / "data"


def split_of(root):
    """Path and content of dtd's split file."""
    path = root / "dtd" / DATA_SETS["dtd"].split
    return path, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["test"][0].__setitem__(0, "gone.png"), "1 files that are not in"),
        (lambda s: s["test"][0].__setitem__(0, "../../dtd/x.png"), "names files outside"),
        (lambda s: s["train"][0].__setitem__(0, "/etc/hostname"), "names files outside"),
        (lambda s: s["val"][0].__setitem__(0, "a\\..\\..\\x.png"), "names files outside"),
        (lambda s: s["train"][0].__setitem__(0, "C:x.png"), "names files outside"),
        (lambda s: s["train"][0].__setitem__(0, "a\0b"), "files that are not in"),
        (lambda s: s["train"][0].__setitem__(1, -1), "calls label|must be 0 to 4"),
        (lambda s: [i.__setitem__(1, i[1] + 1) for i in s["train"]], "must be 0 to 3.* 1 to 4"),
        (lambda s: s["test"][0].__setitem__(1, 9), r"test labels without training images: \[9\]"),
        (lambda s: s["train"][0].__setitem__(1, "0"), "class name. must be"),
        (lambda s: s["train"][0].__setitem__(1, True), "class name. must be"),
        (lambda s: s["train"][0].__setitem__(2, "nought"), "label 0 'nought', and also 'zero'"),
        (lambda s: s["train"][0].__setitem__(2, " "), "gives label 0 no class name"),
        (lambda s: s["test"][0].__setitem__(0, "\ud800.png"), "files that are not in"),
        (lambda s: s.pop("test"), "has no list 'test'"),
        (lambda s: s.__setitem__("train", []), "has no list 'train' with images"),
    ],
)  # fmt: skip
def test_a_broken_split_is_refused(textures, change, message):
    """The error says what is wrong with which file; no path leaves the folder."""
    path, split = split_of(textures)
    change(split)
    path.write_text(json.dumps(split))
    with pytest.raises(ValueError, match=message):
        read_data_set("dtd", textures)


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff", b"[]", None])
def test_a_split_that_is_no_split_is_refused(textures, content):
    """Cut, deeply nested, not text, a list, not there."""
    path, _ = split_of(textures)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not JSON|has no list 'train'|can't be read"):
        read_data_set("dtd", textures)


def test_a_broken_data_set_does_not_stop_the_others(root, textures, tmp_path, capsys):
    """Missing ones are said so and skipped; a broken one ends in an error after the others ran."""
    write_split(textures, "eurosat", Digits())
    (textures / "eurosat" / DATA_SETS["eurosat"].split).write_text("{")
    out = tmp_path / "out"
    with pytest.raises(
        SystemExit, match=r"(?s)could not be run, the others are done.*eurosat: .*not JSON"
    ):
        run(textures, out)
    assert {line["data"] for line in read(out)} == {"dtd"}
    said = capsys.readouterr().err
    assert f"ucf101 is skipped: there is no folder {textures / 'ucf101'}." in said
    assert said.count("is skipped") == 9


def test_images_that_cannot_be_read_end_their_data_set_alone(textures, tmp_path):
    """The error names the data set and the file; another data set's cells are there."""
    write_split(textures, "eurosat", Digits())
    broken = textures / "dtd" / "images" / "class 0" / "test_0.png"
    broken.write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"(?s)dtd glyph-clip: .*test_0.png"):
        run(textures, tmp_path / "out")
    assert {line["data"] for line in read(tmp_path / "out")} == {"eurosat"}


def test_a_broken_variant_does_not_stop_imagenet(tmp_path):
    """Its error is given at the end; a missing one is passed over."""
    write_imagenet(tmp_path, Digits())
    for folder in ("imagenetv2", "imagenet-sketch"):
        (tmp_path / folder).rename(tmp_path / f"away {folder}")
    (tmp_path / "imagenet-rendition" / "imagenet-r" / "n09").mkdir()
    with pytest.raises(SystemExit, match=r"imagenet_r: .*\['n09'\], which are not classes"):
        run(tmp_path, tmp_path / "out", "--methods", "zero-shot")
    assert [line["test"] for line in read(tmp_path / "out")] == ["imagenet", "imagenet_a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "classnames.txt").unlink(), "classnames.txt can't be read"),
        (lambda f: (f / "classnames.txt").write_text("n01 zero\n"), r"no names for \['n02'"),
        (lambda f: (f / "classnames.txt").write_text("n01\n"), r"no names for \['n01'\]"),
        (lambda f: (f / "images" / "val").rename(f / "val"), "val can't be read"),
        (lambda f: (f / "images" / "train" / "n02").rename(f / "n02"), r"folders \['n02'\], which"),
        (lambda f: [p.unlink() for p in (f / "images/train/n02").iterdir()], "without training"),
    ],
)  # fmt: skip
def test_a_broken_imagenet_is_refused(tmp_path, change, message):
    """The error says what is wrong in which file or folder."""
    write_imagenet(tmp_path, Digits())
    change(tmp_path / "imagenet")
    with pytest.raises(ValueError, match=message):
        read_data_set("imagenet", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images_variant_train.txt", "train00 seven\n", r"variants.txt lacks: \['seven'\]"),
        ("images_variant_train.txt", "train00 zero\n", r"without training images: \['one'"),
        ("images_variant_test.txt", "../x zero\n", "names files outside"),
        ("variants.txt", "", "variants.txt is empty"),
    ],
)
def test_a_broken_aircraft_is_refused(tmp_path, name, content, message):
    """The error says what is wrong in which file."""
    write_aircraft(tmp_path, Digits())
    (tmp_path / "fgvc_aircraft" / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_data_set("fgvc_aircraft", tmp_path)


def test_missing_folders_have_their_own_error(root, tmp_path):
    """So that a data set that is not there is told from one that is broken."""
    for name in TRAINED:
        with pytest.raises(MissingDataSetError, match=f"{name} is skipped: there is no folder"):
            read_data_set(name, tmp_path)
    with pytest.raises(SystemExit, match="holds none of the data sets"):
        run(tmp_path, tmp_path / "out")
    with pytest.raises(SystemExit, match="is not a folder"):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_two_classes_of_one_name_stay_two(tmp_path):
    """Labels are numbers, so a class name may occur twice."""
    write_split(tmp_path, "dtd", Digits(), names=["zero", "one", "one", "three"])
    data = read_data_set("dtd", tmp_path)
    assert data.class_names == ["zero", "one", "one", "three"]
    lines = run(tmp_path, tmp_path / "out", "--methods", "taskres", "gda", "--shots", "3")
    assert [line["n_train"] for line in lines] == [12, 12]
    assert lines[0]["n_parameters"] % 4 == 0


def test_labels_follow_the_files_and_not_the_order(textures):
    """Class names belong to labels, wherever their images stand in the split file."""
    path, split = split_of(textures)
    path.write_text(json.dumps({part: items[::-1] for part, items in split.items()}))
    data = read_data_set("dtd", textures)
    assert data.class_names == NAMES
    assert data.train.names[0] == "class 3/train_2.png"
    assert data.train.y[0] == 3


def test_imagenet_v2_counts_the_lines_of_the_class_names(tmp_path):
    """Its folder 0 is the first line's class, whatever the order of the lines."""
    write_imagenet(tmp_path, Digits())
    path = tmp_path / "imagenet" / "classnames.txt"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[::-1]))
    data = read_data_set("imagenet", tmp_path)
    assert data.class_names == NAMES
    assert_array_equal(read_variant("imagenetv2", tmp_path, data).y, [3, 2, 1, 0])


# cells and options ------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["test image", "class name", "views", "backbone"])
def test_other_data_are_other_cells(textures, tmp_path, tiny_clip, change):
    """Cells are redone if the split, the names, the views or the CLIP differ."""
    options = ["--methods", "zero-shot"]
    before = run(textures, tmp_path / "out", *options)
    path, split = split_of(textures)
    if change == "test image":
        split["test"].pop()
    elif change == "class name":
        for item in split["train"]:
            item[2] = item[2].upper()
    path.write_text(json.dumps(split))
    options += {"views": ["--views", "1"], "backbone": ["--backbones", tiny_clip]}.get(change, [])
    assert len(run(textures, tmp_path / "out", *options)) == 2 * len(before)


def test_a_moved_root_keeps_its_cells(textures, tmp_path):
    """Where the data lie does not count."""
    run(textures, tmp_path / "out")
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    textures.rename(tmp_path / "elsewhere")
    run(tmp_path / "elsewhere", tmp_path / "out")
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RN50", ("RN50", "RN50", "openai")),
        ("RN50:openai", ("RN50", "RN50", "openai")),
        ("ViT-B-32:laion2b_s34b_b79k", ("ViT-B-32:laion2b_s34b_b79k", "ViT-B-32",
                                        "laion2b_s34b_b79k")),
        ("RN50:a/b.pt", ("RN50:b.pt", "RN50", "a/b.pt")),
        ("local-dir:a/b", ("local-dir:b", "local-dir:a/b", "openai")),
        ("hf-hub:a/b", ("hf-hub:b", "hf-hub:a/b", "openai")),
    ],
)  # fmt: skip
def test_backbones_are_named(text, expected):
    """A model with a tag or a file, or what open_clip spells."""
    assert tuple(parse_backbone(text)) == expected


def test_wrong_options_are_refused(root, tmp_path, capsys):
    """An unknown backbone before anything runs; shots, views and data sets by argparse."""
    with pytest.raises(SystemExit, match="RN51"):
        run(root, tmp_path, "--backbones", "RN51")
    for option, value in [("--shots", "0"), ("--views", "-1"), ("--data-sets", "mnist")]:
        with pytest.raises(SystemExit):
            run(root, tmp_path, option, value)
        assert value in capsys.readouterr().err
    assert not (tmp_path / "results.jsonl").exists()
