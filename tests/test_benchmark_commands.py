"""The benchmark's command line: what can't be run costs a sentence and a status, no traceback."""

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys

import filelock
import numpy as np
import pytest
from faults import no_file_larger_than
from tqdm import tqdm

from sklearn_taskres.benchmark import fresh, memory, results
from sklearn_taskres.benchmark.__main__ import main
from sklearn_taskres.benchmark.cells import make_cell
from sklearn_taskres.benchmark.features import read_features
from sklearn_taskres.benchmark.results import Results

SMALL = ["--methods", "zero-shot", "--shots", "1", "--seeds", "0"]
LINE = {
    "data": "tiny", "method": "zero-shot", "shots": 1, "seed": 0, "accuracy": 0.5,
    "fit_seconds": 0.1, "n_parameters": 0, "machine": {"date": "today"},
}  # fmt: skip
posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and permissions")


def arrays():
    """Three classes, four images of each to draw from and to test on."""
    rng, y = np.random.default_rng(0), np.repeat(np.arange(3), 4)
    text = rng.normal(size=(3, 8))
    X = text[y] + 0.3 * rng.normal(size=(12, 8))
    return {"X_train": X, "y_train": y, "X_test": X, "y_test": y, "text": text}


@pytest.fixture
def file(tmp_path):
    """The data set in a file."""
    np.savez(tmp_path / "tiny.npz", **arrays())
    return tmp_path / "tiny.npz"


def accuracy(file, output, *options):
    """Arguments of a small run."""
    return ["accuracy", "--features", str(file), "--output", str(output), *SMALL, *options]


def refused(arguments):
    """Status and words that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code
    return (1, code) if isinstance(code, str) else (code, "")


# arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--seeds", value) for value in ("-1", str(2**40), "1.5", "one")),
        *(("--base-norm", value) for value in ("0", "-1", "nan", "inf", "ten")),
        *(("--shots", value) for value in ("0", "²")),
    ],
)
def test_numbers_out_of_range_are_refused(file, tmp_path, capsys, option, value):
    """argparse names the option and the value; nothing has run."""
    status, _ = refused(accuracy(file, tmp_path / "out", f"{option}={value}"))
    error = capsys.readouterr().err
    assert status == 2
    assert f"argument {option}: " in error
    assert f"'{value}' is not a" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["encode", "--parts", "cold", "--models", "foo"], 1, "no architecture 'foo'"),
        (["encode", "--device", "abacus"], 1, "--device: "),
        (["speed", "--device", "abacus"], 1, "--device: "),
        (["encode", "--n-images", "0"], 2, ""),
        (["encode", "--repeats", "0"], 2, ""),
        (["speed", "--repeats", "0"], 2, ""),
        (["speed", "--shots", "0"], 2, ""),
        (["speed", "--sizes", "0x8"], 2, ""),
        (["speed", "--precision", "half"], 2, ""),
    ],
)
def test_what_can_not_be_measured_is_refused(arguments, status, words):
    """Before anything is measured."""
    found, said = refused(arguments)
    assert found == status
    assert words in said


# files ----------------------------------------------------------------------------------------


def bad_outputs(tmp_path):
    """Folders that can't be one, with what has to be named."""
    (tmp_path / "file").write_text("")
    (tmp_path / "full" / "results.jsonl").mkdir(parents=True)
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "results.jsonl is a folder": tmp_path / "full",
        "no name": tmp_path / ("x" * 300),
    }


@pytest.mark.parametrize("case", ["a file", "below a file", "results.jsonl is a folder", "no name"])
def test_an_output_that_is_none_is_one_sentence(file, tmp_path, case):
    """It names the path, and what to do."""
    output = bad_outputs(tmp_path)[case]
    status, said = refused(accuracy(file, output))
    assert status == 1
    assert str(output) in said
    assert "run the command again" in said
    assert "\n" not in said


@posix_only
def test_a_full_disk_is_one_sentence(file, tmp_path, capsys):
    """The finished cells before it are kept; the system itself lets no file grow beyond them."""
    main(accuracy(file, tmp_path / "out"))
    path = tmp_path / "out" / "results.jsonl"
    before = path.read_bytes()
    with no_file_larger_than(len(before) + 10):
        status, said = refused(accuracy(file, tmp_path / "out", "--seeds", "0", "1"))
    assert status == 1
    assert os.strerror(errno.EFBIG) in said
    assert str(path) in said
    assert path.read_bytes().startswith(before)
    main(accuracy(file, tmp_path / "out", "--seeds", "0", "1"))
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["seed"] for line in lines] == [0, 1]
    assert lines[0] == before


@pytest.mark.parametrize("command", ["speed", "encode"])
def test_figures_that_can_not_be_written_are_refused_at_once(command, tmp_path):
    """Before minutes of measurement, not after them."""
    output = tmp_path / "none" / "figures.json"
    status, said = refused([command, "--device", "cpu", "--output", str(output)])
    assert status == 1
    assert str(output) in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "is not a JSON object") for text in ("[]", "5", "null", "{", "[" * 100_000)),
        ("{}", "lacks data, method, shots, seed"),
        (json.dumps(LINE | {"accuracy": "high"}), "lacks accuracy"),
        (json.dumps(LINE | {"machine": {}}), "lacks machine"),
        (json.dumps(LINE | {"shots": True}), "lacks shots"),
    ],
)
@pytest.mark.parametrize("options", [["--report"], None])
def test_a_line_that_is_no_cell_is_named(file, tmp_path, text, words, options):
    """When running and when reporting: the file, and that the line can be removed."""
    (tmp_path / "results.jsonl").write_text(f"{json.dumps(LINE)}\n{text}\n")
    arguments = ["accuracy", "--output", str(tmp_path), *(options or [])]
    status, said = refused(arguments if options else accuracy(file, tmp_path))
    assert status == 1
    assert words in said
    assert "results.jsonl, line 2 " in said
    assert "Remove it" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train": arrays()["y_train"][:7]}, "12 rows in X_train and 7 labels in y_train"),
        ({"y_test": np.array(1)}, "y_test in .* must have 1 axes"),
        ({"X_train": arrays()["X_train"] + 1j}, "X_train in .* must be real numbers"),
        ({"X_train": arrays()["X_train"].astype(str)}, "X_train in .* must be real numbers"),
        ({"X_test": arrays()["X_test"][:, :5]}, "must have one width"),
        ({"X_test": np.full((12, 8), np.nan)}, "X_test in .* NaN"),
        ({"text": np.zeros((3, 8, 1))}, "text in .* must have 2 axes"),
        ({"text": np.zeros((3, 8))}, "text in .* zeros"),
        ({"X_train": np.zeros((12, 0))}, "X_train in .* not be empty"),
        ({"classnames": np.array(["ant", "bee"])}, r"must have shape \(3,\)"),
        ({"X_train": np.full((12, 8), 1e300)}, "X_train in .* float32"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_arrays_that_do_not_go_together_are_refused(tmp_path, change, words):
    """The sentence names the array; no accuracy is recorded."""
    np.savez(tmp_path / "bad.npz", **arrays() | change)
    with pytest.raises(SystemExit, match=words) as ended:
        main(accuracy(tmp_path / "bad.npz", tmp_path / "out"))
    assert "\n" not in ended.value.code
    assert not (tmp_path / "out" / "results.jsonl").exists()


# interrupts and other processes -----------------------------------------------------------------


class Reader(io.StringIO):
    """Standard error that is read as it is written: at its first `words` it calls `act`, once."""

    def __init__(self, words, act):
        super().__init__()
        self._words, self._act = words, act

    def write(self, text):
        n_written = super().write(text)
        if self._act and self._words in self.getvalue():
            act, self._act = self._act, None
            act()
        return n_written


def test_an_interrupt_is_one_line(file, tmp_path):
    """Ctrl-C while the bar is drawn: status 130, and that the same command goes on."""

    def interrupt():
        raise KeyboardInterrupt

    reader = Reader("0/1", interrupt)
    with contextlib.redirect_stderr(reader):
        status, _ = refused(accuracy(file, tmp_path / "out"))
    assert status == 130
    lines = [line for line in reader.getvalue().splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith("tiny: ")] == [
        "Stopped. Finished cells of `accuracy` are kept: the same command goes on from there."
    ]
    assert not (tmp_path / "out" / "results.jsonl").exists()


HOLD = """
import sys
from pathlib import Path
from sklearn_taskres.benchmark.results import Results
with Results(Path(sys.argv[1])).claimed([sys.argv[2]]) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def stopped(tmp_path, file):
    """Have another process hold the only cell, and stop; give the process."""
    (key,) = make_cell(read_features(file, 10.0), "zero-shot", 1, 0).keys()
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out" / "results.jsonl"), key]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:  # noqa: S603
        assert process.stdout.readline() == "True\n"
        os.kill(process.pid, signal.SIGSTOP)
        yield process
        process.kill()


@posix_only
def test_a_stopped_process_costs_one_patience_and_one_message(file, tmp_path, capsys, stopped):
    """The other cells are run first; then it is said once which process holds what is left."""
    seeds = ["--seeds", "0", "1", "2"]
    status, said = refused(accuracy(file, tmp_path / "out", *seeds, "--patience", "0.5"))
    assert status == 1
    assert f"1 cell left, held by process {stopped.pid} on " in said
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1, 2]
    told = capsys.readouterr().err
    assert told.count("Waiting as long as one is finished every 0.5 s.") == 1
    assert told.count("If it is at work") == 1
    stopped.kill()
    stopped.wait()
    main(accuracy(file, tmp_path / "out", *seeds))
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["seed"] for line in lines) == [0, 1, 2]


@posix_only
def test_a_cell_whose_holder_is_killed_is_run(file, tmp_path, stopped):
    """Within the patience; what a killed process held is free at once."""
    reader = Reader("Waiting", stopped.kill)
    with contextlib.redirect_stderr(reader):
        main(accuracy(file, tmp_path / "out"))
    assert f"held by process {stopped.pid} on " in reader.getvalue()
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test_a_lock_on_the_file_of_results_is_not_waited_for_without_end(tmp_path):
    """A process that was stopped while it wrote costs one patience, then an OSError names it."""
    ours = Results(tmp_path / "results.jsonl", lock_seconds=0.1)
    is_refused = pytest.raises(OSError, match=r"held it for 0.1 s, and may be stopped")
    with filelock.FileLock(tmp_path / "results.lock"), is_refused:
        ours.append([LINE])
    ours.append([LINE])
    assert ours.has([results.line_key(LINE)])


@posix_only
def test_planted_links_are_not_followed(tmp_path):
    """Neither a claim, nor the name of its holder, nor the lock of the file touches a target."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    ours = Results(tmp_path / "results.jsonl")
    claim = ours._claim(["key"])
    claim.parent.mkdir()
    for link in (claim, results._holder(claim), tmp_path / "results.lock"):
        link.symlink_to(precious)
    with ours.claimed(["key"]) as is_ours:
        assert is_ours
        ours.append([LINE])
    assert precious.read_text() == "keep me"


# processes of its own ---------------------------------------------------------------------------


def show_progress(name):
    """Draw a bar: tqdm keeps a named semaphore as long as the process lives."""
    list(tqdm(range(3), file=io.StringIO()))
    return name


@pytest.mark.slow
def test_a_fresh_process_leaves_no_semaphore():
    """It ends by itself, not by a signal, so that nothing is left for the resource tracker."""
    script = (
        "import test_benchmark_commands as tests; from sklearn_taskres.benchmark import fresh\n"
        "if __name__ == '__main__': print(fresh.call(tests.show_progress, 'done'))\n"
    )
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert found.stdout == "done\n"
    assert found.stderr == ""


def test_figures_are_printed_with_their_units(monkeypatch, capsys):
    """A number without a unit says nothing."""
    monkeypatch.setattr(memory, "measure", lambda: {"peak after 2": 123.0, "embeddings": 1.0})
    main(["encode", "--parts", "memory", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "123 MB" in printed
    assert fresh.call(abs, -3) == 3
