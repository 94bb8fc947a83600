"""The accuracy benchmark: cells, how a rerun goes on, the report."""

import json
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import sklearn_taskres
from sklearn_taskres import TaskResClassifier, sample_few_shot
from sklearn_taskres.benchmark import report
from sklearn_taskres.benchmark.__main__ import main
from sklearn_taskres.benchmark.cells import Runner, make_cell
from sklearn_taskres.benchmark.features import read_features
from sklearn_taskres.benchmark.machine import code_digest
from sklearn_taskres.benchmark.methods import METHODS, chosen_values, own_parameters
from sklearn_taskres.benchmark.results import Results, line_key, read_lines


def arrays(seed=0):
    """A data set of 4 classes in the layout of the .npz files."""
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(4, 8))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    y_val, y_test = np.repeat(np.arange(4), 6), np.repeat(np.arange(4), 10)
    X_val, X_test = (text[y] + 0.3 * rng.normal(size=(len(y), 8)) for y in (y_val, y_test))
    return {
        "X_val": X_val.astype(np.float16),
        "y_val": y_val,
        "X_test": X_test.astype(np.float16),
        "y_test": y_test,
        "text": text.astype(np.float16),
        "classnames": np.array(["ant", "bee", "cow", "dog"]),
    }


@pytest.fixture
def file(tmp_path):
    """The data set in a file."""
    np.savez(tmp_path / "tiny.npz", **arrays())
    return tmp_path / "tiny.npz"


def run(file, folder, *options):
    """Run two methods on 1 and 2 shots and 2 seeds, or what `options` say; return the lines."""
    small = ["--methods", "zero-shot", "taskres", "--shots", "1", "2", "--seeds", "0", "1"]
    main(["accuracy", "--features", str(file), "--output", str(folder), *small, *options])
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_cell_is_the_estimators_own_score(file, tmp_path):
    """Each line holds what a fit by hand on the same draw gives, and what it was made with."""
    lines = run(file, tmp_path / "out")
    data = arrays()
    for line in lines:
        assert set(line) > {"digest", "fit_seconds", "version", "n_train", "base_norm"}
        assert {"numpy", "torch", "scikit-learn", "processor"} <= set(line["machine"])
        assert line["n_parameters"] == (32 if line["method"] == "taskres" else 0)
        if line["method"] == "taskres":
            assert line["parameters"]["alpha"] == 0.5
            rows = sample_few_shot(data["y_val"], line["shots"], random_state=line["seed"])
            base = 10 * data["text"].astype(np.float32)
            clf = TaskResClassifier(base, random_state=line["seed"])
            clf.fit(data["X_val"][rows], data["y_val"][rows])
            assert line["accuracy"] == clf.score(data["X_test"], data["y_test"])
        assert (line["test"], line["backbone"], line["views"]) == ("tiny", None, 0)
    cells = [(c["data"], c["shots"], c["seed"], c["method"]) for c in lines]
    methods, shots = ("zero-shot", "taskres"), (1, 2)
    assert cells == [("tiny", k, s, m) for k in shots for s in (0, 1) for m in methods]


@pytest.mark.slow
def test_processes_share_the_cells(file, tmp_path):
    """Two of joblib's workers give the lines of one, each once."""
    alone = run(file, tmp_path / "one")
    shared = run(file, tmp_path / "two", "--n-jobs", "2")
    told = [{(line_key(line), line["accuracy"]) for line in lines} for lines in (alone, shared)]
    assert told[0] == told[1]
    assert len(shared) == len(alone)


def impossible_to_fit(features):
    """A data set that passes for another one, while no fit on it succeeds."""
    return features._replace(X=features.X * np.float32(1e30))


def test_a_rerun_adds_only_what_is_missing(file, tmp_path):
    """The same call leaves the file as it is and fits nothing; another shot adds its cells."""
    folder = tmp_path / "out"
    run(file, folder)
    before = (folder / "results.jsonl").read_bytes()
    run(file, folder)
    runner = Runner(Results(folder / "results.jsonl"), patience=1)
    data = impossible_to_fit(read_features(file, 10.0))
    runner.run([make_cell(data, "taskres", k, seed) for k in (1, 2) for seed in (0, 1)])
    assert runner.problems == []
    assert (folder / "results.jsonl").read_bytes() == before
    run(file, folder, "--shots", "2", "4")
    after = (folder / "results.jsonl").read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["shots"] for line in after[len(before) :].splitlines()] == [4] * 4


@pytest.mark.parametrize("n_bytes", [1, 40, 500])
def test_a_cut_last_line_is_redone(file, tmp_path, n_bytes):
    """After a kill in the middle of a write, the rerun redoes that cell and no other."""
    folder = tmp_path / "out"
    whole = run(file, folder)
    path = folder / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-n_bytes])
    again = run(file, folder)
    assert again[:-1] == whole[:-1]
    timed = {"fit_seconds", "machine"}
    assert all(again[-1][name] == whole[-1][name] for name in whole[-1].keys() - timed)


@pytest.mark.parametrize("change", ["version", "code", "parameters", "file", "base norm"])
def test_another_identity_is_another_cell(file, tmp_path, change):
    """Cells are redone if the version, the code, a method's parameters or the data differ."""
    folder, options = tmp_path / "out", ["--methods", "zero-shot"]
    lines = run(file, folder, *options)
    own = {"version": sklearn_taskres.__version__, "code": code_digest()}
    own["parameters"] = own_parameters(METHODS["zero-shot"](None, None, 0))
    assert [line | own for line in lines] == lines
    assert len(lines) == 4
    if change in own:
        other = {"version": "0.0.1", "code": "other", "parameters": {"alpha": 0.5}}
        theirs = [json.dumps(line | {change: other[change]}) + "\n" for line in lines]
        (folder / "results.jsonl").write_text("".join(theirs))
    elif change == "file":
        np.savez(file, **arrays(seed=1))
    else:
        options += ["--base-norm", "5"]
    assert len(run(file, folder, *options)) == 8


def test_a_method_that_fails_does_not_stop_the_others(file, tmp_path):
    """Its error is given at the end, and a rerun tries it again."""
    path, methods = tmp_path / "out" / "results.jsonl", ["taskres", "zero-shot"]
    mended = read_features(file, 10.0)
    np.savez(file, **arrays() | {"X_val": impossible_to_fit(mended).X})
    broken = read_features(file, 10.0)
    problem = "taskres on tiny, 1 image per class: X overflows"
    for _ in range(2):
        with pytest.raises(SystemExit, match=problem):
            run(file, path.parent, "--methods", *methods, "--shots", "1", "--seeds", "0")
    assert [line["method"] for line in read_lines(path)] == ["zero-shot"]
    runner = Runner(Results(path), patience=1)
    runner.run([make_cell(broken._replace(X=mended.X), method, 1, 0) for method in methods])
    assert runner.problems == []
    assert [line["method"] for line in read_lines(path)] == ["zero-shot", "taskres"]


def test_the_report_has_means_and_deviations(file, tmp_path):
    """Markdown tables of methods by shots, and a figure, also from an earlier run's lines alone."""
    folder = tmp_path / "out"
    lines = run(file, folder)
    main(["accuracy", "--output", str(folder), "--report"])
    text = (folder / "report.md").read_text()
    values = [100 * c["accuracy"] for c in lines if c["method"] == "taskres" and c["shots"] == 2]
    row = next(line for line in text.splitlines() if line.startswith("| taskres |"))
    assert row.split(" | ")[2] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} |"
    assert "| method | 1 | 2 |" in text
    assert "| taskres | 32 | 32 |" in text
    assert "seeds per entry: 2." in text
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_takes_the_last_line_of_a_cell_and_averages_data_sets(tmp_path):
    """A redone cell counts once; the average is over data sets that all have the cell."""

    def cell(data, method, shots, accuracy):
        return {"data": data, "method": method, "shots": shots, "seed": 0, "accuracy": accuracy} | {
            "digest": "d", "base_norm": 10.0, "fit_seconds": 0.5, "n_parameters": 1234,
            "machine": {"date": "today", "numpy": "2"},
        }  # fmt: skip

    lines = [cell("a", "gda", 1, 0.1), cell("a", "gda", 1, 0.5), cell("b", "gda", 1, 0.7)]
    report.write_report([*lines, cell("a", "retired", 2, 0.9)], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| gda | 50.0 |  |" in text
    assert "| retired |  | 90.0 |" in text
    average = text.partition("Average of the 2 data sets")[2]
    assert "| gda | 60.0 |" in average
    assert "retired" not in average


def test_the_report_without_matplotlib_names_the_extra(file, tmp_path, monkeypatch):
    """The table is written, and the error says what to install for the figure."""
    run(file, tmp_path / "out", "--methods", "zero-shot")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r"sklearn-taskres\[plots\]"):
        main(["accuracy", "--output", str(tmp_path / "out"), "--report"])
    assert "zero-shot" in (tmp_path / "out" / "report.md").read_text()


def test_an_unknown_method_is_refused_with_the_names(file, tmp_path, capsys):
    """The error lists what there is."""
    with pytest.raises(SystemExit):
        run(file, tmp_path, "--methods", "magic")
    error = capsys.readouterr().err
    assert "invalid choice: 'magic'" in error
    assert all(name in error for name in METHODS)


def test_raw_text_and_training_keys_are_taken_as_they_are(tmp_path):
    """X_train goes before X_val; base_norm is for unit rows, raw ones keep their norms."""
    data = arrays()
    data |= {"X_train": data["X_val"] + 1, "y_train": data["y_val"], "text": data["text"] * 7}
    np.savez(tmp_path / "raw.npz", **data)
    features = read_features(tmp_path / "raw.npz", 10)
    assert_array_equal(features.X, data["X_train"].astype(np.float32))
    assert_array_equal(features.base, data["text"].astype(np.float32))
    assert features.class_names == ["ant", "bee", "cow", "dog"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": np.full(40, 9)}, "must be row numbers of its text, 0 to 3"),
        ({"y_val": np.repeat([0, 1, 2, 2], 6)}, "each of them among the training rows"),
        ({"text": None}, r"has no arrays \['text'\]"),
        (None, "can't be read as an .npz file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, change, message):
    """The error says what is wrong with the file."""
    if change is None:
        (tmp_path / "bad.npz").write_bytes(b"no zip")
    else:
        data = arrays() | change
        np.savez(tmp_path / "bad.npz", **{k: v for k, v in data.items() if v is not None})
    with pytest.raises(SystemExit, match=message):
        run(tmp_path / "bad.npz", tmp_path / "out")


def test_lines_of_older_versions_count(file, tmp_path):
    """Lines that know neither test set nor backbone nor views are not redone."""
    whole = run(file, tmp_path)
    older = [{k: v for k, v in c.items() if k not in {"test", "backbone", "views"}} for c in whole]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in older))
    assert run(file, tmp_path) == older


def test_methods_that_need_text_are_skipped(file, tmp_path, capsys):
    """With one sentence if all methods are run, with an error where one is asked for."""
    options = ["accuracy", "--features", str(file), "--output", str(tmp_path)]
    main([*options, "--shots", "1", "--seeds", "0"])
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    need_encoder = {"coop", "taskres-enhanced", "taskres-enhanced-only"}
    assert {line["method"] for line in lines} == METHODS.keys() - need_encoder
    said = [s for s in capsys.readouterr().err.splitlines() if "text tower takes part" in s]
    assert len(said) == 1
    assert all(name in said[0] for name in need_encoder)
    with pytest.raises(SystemExit, match=r"coop: the text tower .* Run them with --data"):
        run(file, tmp_path, "--methods", "taskres", "coop")


def test_options_for_images_are_refused_with_features(file, tmp_path):
    """A file says its own views and has no backbone; two sources at once are none."""
    with pytest.raises(SystemExit, match="--backbones, --views can't be used with --features"):
        run(file, tmp_path, "--backbones", "RN50", "--views", "2")
    with pytest.raises(SystemExit):
        run(file, tmp_path, "--data", str(tmp_path))


def test_views_of_a_file_are_counted(tmp_path):
    """X_train with views trains on them, and the line says how many."""
    data = arrays()
    views = np.repeat(data["X_val"][:, None], 3, axis=1)
    np.savez(tmp_path / "views.npz", **data, X_train=views, y_train=data["y_val"])
    lines = run(tmp_path / "views.npz", tmp_path, "--seeds", "0")
    assert {line["views"] for line in lines} == {2}


def test_nothing_to_do_is_an_error(tmp_path):
    """Without files and without --report, and with --report of an empty folder."""
    with pytest.raises(SystemExit, match="Pass --data ROOT, --features"):
        main(["accuracy", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="no finished cell yet"):
        main(["accuracy", "--output", str(tmp_path), "--report"])


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].needs_text])
def test_every_registered_method_runs(name, file):
    """A factory takes base, names and seed, and its estimator counts its parameters."""
    features = read_features(file, 10)
    clf = METHODS[name](features.base, features.class_names, 0).fit(features.X, features.y)
    assert np.isfinite(clf.decision_function(features.X_test)).all()
    if name != "text-adapter":  # two hidden units in place of the base
        assert clf.score(features.X_test, features.y_test) > 0.5
    assert isinstance(clf.n_parameters_, int)
    json.dumps(chosen_values(clf))


def test_lines_and_report_have_losses_and_paired_differences(file, tmp_path):
    """Each cell's log loss and calibration error, and means of both in the report."""
    lines = run(file, tmp_path / "out", "--methods", "taskres", "taskres-gda", "--report")
    for line in lines:
        assert line["log_loss"] > 0
        assert 0 <= line["calibration_error"] <= 1
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Difference from taskres-gda in points on the same draws" in text
    mean = np.mean([e["log_loss"] for e in lines if e["method"] == "taskres" and e["shots"] == 1])
    assert f"| taskres | {mean:.2f} |" in text
