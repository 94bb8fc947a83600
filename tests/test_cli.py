"""The command: its answers, its exit codes, and one sentence for each kind of bad input."""

import csv
import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from faults import no_file_larger_than
from local_hub import running_hub
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sklearn_taskres.cli import main
from sklearn_taskres.cli.check import hard_to_read
from sklearn_taskres.cli.models import own_types

DIGITS = {2: "two", 7: "seven", 9: "nine"}


def write_photos(folder, first, count):
    """Digits as JPEG files, one folder per class."""
    digits = load_digits()
    for digit, name in DIGITS.items():
        (folder / name).mkdir(parents=True)
        images = digits.images[digits.target == digit][first : first + count]
        for i, image in enumerate(images):
            picture = Image.fromarray((image * 15.9).astype(np.uint8)).resize((64, 64))
            picture.save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "photos", 0, 10)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("unseen") / "unseen", 20, 8)


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    """A model file that the command wrote."""
    path = tmp_path_factory.mktemp("model") / "model.skops"
    assert main(["fit", str(photos), "-o", str(path), "--model", "glyph-clip", "--quiet"]) == 0
    return path


def run(capsys, *arguments):
    """Exit status, stdout and stderr of the command in this process."""
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


@pytest.mark.model
def test_fit_reports_and_saves(photos, tmp_path, capsys):
    """Accuracies with intervals, and a file without code or places of this machine."""
    path, cache = tmp_path / "model.skops", tmp_path / "cache"
    options = ["--model", "glyph-clip", "--cache", cache, "--search"]
    status, out, err = run(capsys, "fit", photos, "-o", path, *options)
    assert status == 0
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert out.startswith("30 images of 3 classes, 10 each\n")
    assert "%" in lines["zero-shot"]
    assert lines["cross-validated"].endswith("5 folds")
    assert "alpha" in lines["chosen"]
    assert "encoded 30, from cache 0, unreadable 0" in err
    with zipfile.ZipFile(path) as archive:
        schema = archive.read("schema.json").decode()
    assert str(tmp_path) not in schema
    assert set(skops.io.get_untrusted_types(file=path)) <= own_types()


@pytest.mark.model
def test_predict_prints_tables_and_json(model, unseen, tmp_path, capsys):
    """One answer in each form, over files and folders."""
    files = [unseen / "two" / "0.jpg", unseen / "nine"]
    status, out, _ = run(capsys, "predict", model, *files, "--quiet")
    assert status == 0
    first, *others = out.splitlines()
    assert first.split("\t")[0] == str(files[0])
    assert first.split("\t")[1].startswith(("two 0.9", "two 1.0"))
    assert len(others) == 8
    status, out, _ = run(capsys, "predict", model, *files, "--json", "--top", 2, "--quiet")
    found = json.loads(out)
    assert [len(row["predictions"]) for row in found] == [2] * 9
    assert found[0]["predictions"][0]["label"] == "two"
    table = tmp_path / "labels.csv"
    status, _, err = run(capsys, "predict", model, files[0], "--csv", table, "--top", 5)
    assert status == 0
    assert err.endswith(f"saved  {table} (1 photo)\n")
    with table.open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["path"] == str(files[0])
    assert [row["label"], len(row)] == ["two", 7]
    assert float(row["probability"]) > float(row["probability_2"])


@pytest.mark.model
def test_predict_goes_on_behind_unreadable_photos(model, unseen, tmp_path, capsys):
    """What can be read is labelled; the rest is listed, and the status says so."""
    bad = tmp_path / "bad\x1b[2J.jpg"
    bad.write_text("no image")
    status, out, err = run(capsys, "predict", model, bad, unseen / "two" / "0.jpg", "--quiet")
    assert status == 1
    assert len(out.splitlines()) == 1
    assert "can't read" in err
    assert "not an image file" in err
    assert "\x1b" not in err


@pytest.mark.model
def test_evaluate_reports(model, unseen, capsys):
    """Accuracy with its interval, log loss, calibration, confusions."""
    (unseen / "two" / "seven.jpg").write_bytes((unseen / "seven" / "0.jpg").read_bytes())
    try:
        status, out, _ = run(capsys, "evaluate", model, unseen, "--quiet")
    finally:
        (unseen / "two" / "seven.jpg").unlink()
    assert status == 0
    assert re.match(
        r"25 images of 3 classes, 8 to 9 each\naccuracy           9\d\.0 % \(\d\d\.", out
    )
    assert "log loss" in out
    assert "calibration error" in out
    assert "two taken for " in out
    assert re.search(r"two +\d\d % +of 9", out)


def test_check_finds_what_is_wrong(tmp_path, capsys):
    """Unreadable and passed-over files, duplicates across classes, names, counts."""
    folder = write_photos(tmp_path / "photos", 0, 5)
    assert run(capsys, "check", folder)[0] == 0
    Image.open(folder / "two" / "0.jpg").save(folder / "nine" / "again.jpg", quality=60)
    (folder / "seven" / "twin.jpg").write_bytes((folder / "seven" / "0.jpg").read_bytes())
    (folder / "nine" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "nine" / "notes.txt").write_text("no image")
    (folder / "class_01").mkdir()
    (folder / "class_01" / "0.jpg").write_bytes((folder / "two" / "3.jpg").read_bytes())
    status, out, _ = run(capsys, "check", folder)
    assert status == 1
    for part in [
        "passed over 1 of the files",
        "1 photo can't be read:\n  nine/broken.jpg",
        "nine/again.jpg",
        "nearly the same",
        "class_01/0.jpg",
        "1 pair of photos twice in one class",
        "classes with fewer than 4 photos",
        "name 'class_01': says nothing",
    ]:
        assert part in out


def test_the_status_of_check_is_not_that_of_a_name(tmp_path, capsys):
    """A name that is hard to read does not matter; photos of one class do."""
    folder = write_photos(tmp_path / "photos", 0, 5)
    (folder / "two").rename(folder / "zone99")
    status, out, _ = run(capsys, "check", folder)
    assert status == 0
    assert "name 'zone99'" in out
    for name in ("zone99", "seven"):
        (folder / name).rename(tmp_path / name)
    status, out, _ = run(capsys, "check", folder)
    assert status == 1
    assert "photos of one class, 'nine'" in out


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("001", "no letters"),
        ("n02123045", "code"),
        ("misc", "says nothing"),
        ("goldenRetriever", "without spaces"),
        ("a", "one letter"),
        ("Straße", "English"),
    ],
)
def test_names_that_say_little(name, why):
    """Codes, numbers and placeholders are told from words."""
    assert why in hard_to_read(name)


@pytest.mark.parametrize("name", ["golden retriever", "great_white_shark", "Boeing 737", "two"])
def test_names_that_are_words(name):
    """Words pass, also with a number next to them."""
    assert hard_to_read(name) is None


# bad input ------------------------------------------------------------------------------------


def bad_inputs(tmp_path, photos, model):
    """Name to arguments, and what the sentence says."""
    text, empty, loose = tmp_path / "notes.skops", tmp_path / "empty", tmp_path / "loose"
    text.write_text("no model")
    empty.mkdir()
    (loose / "cat").mkdir(parents=True)
    one = tmp_path / "one" / "cat"
    one.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(one / "0.jpg")
    broken = tmp_path / "broken"
    for name in ("cat", "dog"):
        (broken / name).mkdir(parents=True)
        (broken / name / "0.jpg").write_bytes(b"\xff\xd8\xff")
    other = tmp_path / "other.skops"
    skops.io.dump(LogisticRegression().fit([[0], [1]], [0, 1]), other)
    foreign = tmp_path / "foreign.skops"
    skops.io.dump({"f": os.getcwd}, foreign)
    pickled = tmp_path / "model.joblib"
    joblib.dump([], pickled)
    unknown = tmp_path / "unknown-classes"
    for name in ("two", "unknown"):
        (unknown / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(unknown / name / "0.jpg")
    high = tmp_path / "high"
    shutil.copytree(photos, high / "train")
    out = ["-o", tmp_path / "m.skops", "--model", "glyph-clip"]
    return {
        "no folder": (["fit", tmp_path / "nowhere", *out], "is not a folder"),
        "no classes": (["fit", empty, *out], "holds no folders"),
        "an empty class": (["fit", loose, *out], "hold no images"),
        "unreadable only": (["fit", broken, *out], "no image that can be read"),
        "one class": (["fit", tmp_path / "one", *out], "one class"),
        "unknown model": (["fit", photos, "-o", tmp_path / "m.skops", "--model", "x"], "'x'"),
        "bad template": (["fit", photos, *out, "--templates", "a photo"], "'templates'"),
        "bad device": (["fit", photos, *out, "--device", "tpu9"], "device"),
        "bad ending": (["fit", photos, "-o", tmp_path / "m.txt"], "must end in .skops"),
        "no such output": (["fit", photos, "-o", tmp_path / "no" / "m.skops"], "no folder"),
        "no export": (["predict", empty, "x.jpg"], "is not an export"),
        "no model": (["predict", tmp_path / "none.skops", "x.jpg"], "is not a file"),
        "not a model": (["predict", text, "x.jpg"], "is not a model that"),
        "another model": (["predict", other, "x.jpg"], "LogisticRegression"),
        "foreign types": (["predict", foreign, "x.jpg"], "was not loaded"),
        "untrusted": (["predict", pickled, "x.jpg"], "--trust"),
        "trusted and wrong": (["predict", pickled, "x.jpg", "--trust"], "holds a list"),
        "empty folder": (["predict", model, empty], "holds no photos"),
        "missing photo": (["predict", model, tmp_path / "x.jpg", "--quiet"], "No such file"),
        "unwritable table": (
            ["predict", model, photos / "two" / "0.jpg", "--csv", empty, "--quiet"],
            "is a folder",
        ),
        "no folder for a table": (
            ["predict", model, photos / "two" / "0.jpg", "--csv", tmp_path / "no" / "t.csv"],
            "found no folder",
        ),
        "swapped": (["predict", photos / "two" / "0.jpg", model], "The model comes first"),
        "one level too high": (["fit", tmp_path / "high", *out], f"did you mean {high / 'train'}?"),
        "unknown classes": (["evaluate", model, unknown, "--quiet"], "does not know"),
        "no such pool": (["review", model, photos, "--pool", tmp_path / "no"], "is not a folder"),
        "no such page": (["review", model, photos, "-o", tmp_path / "no" / "r.html"], "no folder"),
        "bad export": (["export", model, tmp_path / "m.txt"], "must end in .onnx or .skops"),
        "no corrections": (["fit", photos, *out, "--corrections", tmp_path / "no.csv"], "No such"),
    }


@pytest.mark.model
def test_review_and_learn_from_the_corrections(photos, model, unseen, tmp_path, capsys):
    """A page with the pool's photos; corrections in a file change what `fit` learns from."""
    page = tmp_path / "review.html"
    pool = ["--pool", unseen, "--quiet"]
    status, out, _ = run(capsys, "review", model, photos, *pool, "-o", page)
    assert status == 0
    assert "24 images without a label" in out
    assert "Label next" in page.read_text("utf-8")
    (tmp_path / "corrections.csv").write_text(
        f"image,label\n{photos / 'two' / '0.jpg'},seven\n{photos / 'two' / '1.jpg'},\n"
        f"{unseen / 'nine' / '0.jpg'},nine\n"
    )
    fit = ["fit", photos, "-o", tmp_path / "m.skops", "--model", "glyph-clip", "--quiet"]
    status, out, _ = run(capsys, *fit, "--corrections", tmp_path / "corrections.csv")
    assert status == 0
    assert "30 images of 3 classes, 8 to 11 each" in out


@pytest.mark.model
def test_export_by_the_ending(model, unseen, tmp_path, capsys):
    """ONNX, plain scikit-learn and a folder, each of which answers as the model does."""
    import onnxruntime
    import skops.io

    from sklearn_taskres.export import from_hub

    for name in ("model.onnx", "plain.skops", "folder"):
        status, _, _ = run(capsys, "export", model, tmp_path / name, "--quiet")
        assert status == 0
    assert onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()[0].name == "pixels"
    files = [str(path) for path in sorted(unseen.rglob("*.jpg"))]
    loaded = from_hub(tmp_path / "folder").set_params(clip__precision="float32")
    expected = loaded.predict(files).tolist()
    plain = skops.io.load(tmp_path / "plain.skops")
    assert plain.predict(loaded[0].transform(files)).tolist() == expected
    status, out, _ = run(capsys, "predict", tmp_path / "folder", *files, "--quiet")
    assert status == 0
    assert out == run(capsys, "predict", model, *files, "--quiet")[1]
    assert run(capsys, "evaluate", tmp_path / "folder", unseen, "--quiet")[0] == 0


@pytest.mark.model
def test_a_model_of_the_hub(model, unseen, tmp_path, capsys):
    """`hf-hub:OWNER/NAME` downloads what `export` writes, and what can't be had is one sentence."""
    folder = tmp_path / "folder"
    assert run(capsys, "export", model, folder, "--quiet")[0] == 0
    code = (
        "import sys\n"
        "from sklearn_taskres.cli import main\n"
        "for name in sys.argv[2:]:\n"
        "    print(main(['predict', name, sys.argv[1], '--quiet']))"
    )
    files = [str(unseen / "two" / "0.jpg"), str(model)]
    with running_hub() as hub:
        hub.repositories["someone/digits"] = {p.name: p.read_bytes() for p in folder.iterdir()}
        names = ["hf-hub:someone/digits", "hf-hub:someone/else"]
        done = hub.run(code, *files, *names, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    expected, *statuses = done.stdout.splitlines()
    assert "two" in expected.replace(str(unseen / "two"), "")
    assert statuses == ["0", expected, "0", "1"]
    start = r"sklearn-taskres predict: The model 'someone/else' is not in the cache \(.*\) and "
    last = done.stderr.splitlines()[-1]
    assert re.match(f"{start}could not be downloaded: the hub does not have it", last)
    assert "Traceback" not in done.stderr


def test_check_names_the_folder_that_was_meant(photos, tmp_path, capsys):
    """A folder one level too high has photos of one class only."""
    (tmp_path / "high").mkdir()
    shutil.copytree(photos, tmp_path / "high" / "train")
    status, out, _ = run(capsys, "check", tmp_path / "high")
    assert status == 1
    assert f"did you mean {tmp_path / 'high' / 'train'}?" in out


@pytest.mark.model
def test_bad_input_gets_one_sentence(photos, model, tmp_path, capsys):
    """Exit status 1, one sentence on stderr, no traceback, and nothing left behind."""
    for name, (arguments, sentence) in bad_inputs(tmp_path, photos, model).items():
        status, _, err = run(capsys, *arguments)
        last = err.strip().splitlines()[-1]
        assert status == 1, name
        assert sentence in err, (name, err)
        assert "Traceback" not in err, name
        assert last.startswith(("sklearn-taskres ", "can't read ")), (name, err)
    assert not (tmp_path / "m.skops").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nope"],
        ["fit"],
        ["fit", "photos"],
        ["predict", "model.skops"],
        ["predict", "model.skops", "x.jpg", "--top", "0"],
        ["predict", "model.skops", "x.jpg", "--csv", "a", "--json"],
        ["fit", "photos", "-o", "m.skops", "--seed", "x"],
        ["predict", "model.skops", "x.jpg", "--topp", "3"],
    ],
)
def test_usage_errors_have_status_2(arguments, capsys):
    """What argparse refuses."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    usage = capsys.readouterr().err
    assert usage.startswith(f"usage: sklearn-taskres {arguments[0] if arguments[1:] else ''}")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_not_opened_without_trust(tmp_path, capsys):
    """Neither under its own name, nor as a .skops file."""
    for name in ("model.joblib", "model.pkl", "model.skops"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
        assert run(capsys, "predict", tmp_path / name, "x.jpg")[0] == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.model
def test_a_model_file_does_not_choose_the_cache(model, unseen, tmp_path, capsys):
    """Whoever made the file can't make prediction write to a folder."""
    loaded = skops.io.load(model, trusted=sorted(own_types() & set(untrusted(model))))
    loaded.set_params(clip__cache=str(tmp_path / "theirs"))
    skops.io.dump(loaded, tmp_path / "m.skops")
    assert run(capsys, "predict", tmp_path / "m.skops", unseen / "two", "--quiet")[0] == 0
    assert not (tmp_path / "theirs").exists()


def untrusted(path):
    return skops.io.get_untrusted_types(file=path)


@pytest.mark.parametrize(
    "command", [[], ["fit"], ["predict"], ["evaluate"], ["check"], ["review"], ["export"]]
)
def test_help_shows_an_example(command, capsys):
    """--help of each command ends with one, and is status 0."""
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert f"  sklearn-taskres {(command or ['fit'])[0]} " in capsys.readouterr().out


def test_help_needs_no_torch():
    """The parser comes at once: nothing heavy is imported for it."""
    code = (
        "import sys; from sklearn_taskres.cli import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'open_clip', 'skops'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.splitlines()[-1] == "set()"


def test_module_and_benchmark(capsys):
    """`python -m sklearn_taskres` is the command, and `benchmark` the one that there was."""
    command = [sys.executable, "-m", "sklearn_taskres", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.startswith("sklearn-taskres 0.")
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", "speed", "--help"])
    assert stopped.value.code == 0
    assert "speed" in capsys.readouterr().out


def test_the_process_has_the_exit_status(tmp_path):
    """A shell sees what `main` returns: 1 for bad input, and one sentence."""
    command = [sys.executable, "-m", "sklearn_taskres", "check", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "is not a folder" in done.stderr


def test_traceback_on_request(tmp_path, capsys):
    """For whoever looks for a bug."""
    arguments = ["fit", tmp_path / "nowhere", "-o", tmp_path / "m.skops", "--traceback"]
    status, _, err = run(capsys, *arguments)
    assert status == 1
    assert "Traceback" in err


def test_a_class_name_that_the_terminal_lacks(tmp_path):
    """It is printed as what it is in Python, and nothing fails."""
    folder = write_photos(tmp_path / "photos", 0, 2)
    (folder / "two").rename(folder / "\u4e8c")
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-m", "sklearn_taskres", "check", str(folder)],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "\\u4e8c" in done.stdout
    assert done.returncode == 0, done.stderr


@pytest.mark.model
@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_a_failed_write_leaves_the_model(photos, tmp_path, capsys):
    """What was there before is still there, and no part of a file, if the disk is full."""
    kept = tmp_path / "model.skops"
    kept.write_bytes(b"yesterday's")
    with no_file_larger_than(1000):
        status, _, err = run(capsys, "fit", photos, "-o", kept, "--model", "glyph-clip", "--quiet")
    assert status == 1
    assert os.strerror(errno.EFBIG) in err
    assert kept.read_bytes() == b"yesterday's"
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.model
def test_a_model_is_not_exported_over_itself(model, capsys):
    """The command says so, and the model is as it was."""
    content = model.read_bytes()
    status, _, err = run(capsys, "export", model, model)
    assert status == 1
    assert "OUTPUT is the model itself" in err
    assert model.read_bytes() == content
