"""``benchmark speed``: baselines learn what we learn, and figures are what they are called."""

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.utils.flop_counter import FlopCounterMode

from sklearn_taskres import _formulas
from sklearn_taskres.benchmark import baselines, fits, growth, speed, streamed, timing
from sklearn_taskres.benchmark.__main__ import main
from sklearn_taskres.benchmark.tasks import make_task

CPU = torch.device("cpu")


def test_the_baselines_learn_the_same():
    """With one batch per epoch the loop's and skorch's classifier is ours, to float precision."""
    task = make_task(8, 32, 4)
    ours = _formulas.unit(baselines.taskres(task, 20))
    for baseline in (baselines.plain_loop, baselines.default_skorch):
        assert_allclose(baseline(task, 20), ours, rtol=0, atol=2e-5, err_msg=baseline.__name__)
    assert baselines.logistic_regression(task).shape == ours.shape


def test_tasks_are_neither_trivial_nor_hopeless():
    """Zero-shot labels most test rows, and training more of them."""
    task = make_task(47, 512, 16)
    zero_shot, tuned = task.accuracy(task.t), task.accuracy(baselines.taskres(task, 20))
    assert 40 < zero_shot < tuned < 90


def test_operations_are_counted():
    """Two products per step, and as many steps as whole batches."""
    assert fits.operations(make_task(4, 8, 16), 3) == 3 * 4 * 64 * 4 * 8
    assert fits.operations(make_task(40, 8, 16), 3) == 3 * 2 * 4 * 256 * 40 * 8
    assert fits.operations(make_task(40, 8, 16), 3, 300) == 3 * 4 * 256 * 40 * 8


def test_functions_are_run_in_turn():
    """Each round runs each function once, after a first one that is not timed."""
    ran = []
    functions = {name: lambda name=name: ran.append(name) or name for name in "ab"}
    found = timing.interleaved(functions, 3, CPU)
    assert ran == list("ab") * 4
    assert [figures["result"] for figures in found.values()] == ["a", "b"]
    assert all(figures["fastest"] <= figures["seconds"] for figures in found.values())


def test_products_are_run_in_the_same_rounds():
    """The machine's rate is taken between the runs it is compared with, and is not returned."""
    ran = []
    with FlopCounterMode(display=False) as products:
        found, rate = timing.interleaved_with_products(
            {"a": lambda: ran.append(products.get_total_flops())}, 2, CPU
        )
    each = ran[1] - ran[0]
    assert ran == [0, each, 2 * each]
    assert each % (2 * 2048**3) == 0 < each
    assert list(found) == ["a"]
    assert rate > 0


says_memory = pytest.mark.skipif(
    timing.memory_of_process("VmHWM") is None, reason="this system has no /proc/self/status"
)


def fill_pages(n_bytes):
    """Take pages from the system, which no allocator has a part in, and give them back."""
    with mmap.mmap(-1, n_bytes) as pages:
        pages[:: mmap.PAGESIZE] = b"x" * (n_bytes // mmap.PAGESIZE)


@says_memory
def test_the_peak_of_memory_is_seen():
    """What a function took, and gave back, is counted if the system says it."""
    n_bytes = 2**26
    found = timing.interleaved({"pages": lambda: fill_pages(n_bytes)}, 1, CPU)
    assert 0.9 < found["pages"]["megabytes"] * 1e6 / n_bytes < 1.8


#: Variables with which glibc keeps what is freed.
KEEPS = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
REUSED = """
import numpy as np
import torch
from test_benchmark_speed import fill_pages
from sklearn_taskres.benchmark import timing
np.ones(2**24).sum()
functions = {"array": lambda: np.ones(2**23).sum(), "pages": lambda: fill_pages(2**24)}
found = timing.interleaved(functions, 1, torch.device("cpu"))
print(found["array"]["megabytes"] > found["pages"]["megabytes"] > 0)
"""


@says_memory
@pytest.mark.skipif(
    os.name == "nt" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc"
)
def test_freed_memory_that_is_taken_again_counts():
    """What the allocator kept, and a function uses, is more than a quarter of it in new pages."""
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run(  # noqa: S603 (our own code)
        [sys.executable, "-c", REUSED],
        env=os.environ | KEEPS | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.slow
def test_from_the_command_line(tmp_path, capsys):
    """Sizes, ratios, shares and scores land in the table and in the JSON."""
    path = tmp_path / "speed.json"
    sizes = ["--sizes", "4x16", "--search-size", "4x16", "--search-epochs", "2", "--shots", "8"]
    main(["speed", *sizes, "--repeats", "1", "--output", str(path)])
    results, printed = json.loads(path.read_text()), capsys.readouterr().out
    size = results["fit"]["sizes"][0]
    methods = size["methods"]
    assert list(methods) == ["taskres", "loop", "skorch", "logistic"]
    assert methods["taskres"]["ratio"] == 1
    expected = methods["loop"]["seconds"] / methods["taskres"]["seconds"]
    assert_allclose(methods["loop"]["ratio"], expected)
    n_operations = 200 * 4 * 32 * 4 * 16
    share = n_operations / methods["taskres"]["seconds"] / size["product_rate"]
    assert_allclose(methods["taskres"]["share_of_peak"], share)
    assert results["search"]["largest_difference"] < 1e-6
    assert len(results["search"]["methods"]) == 4
    n_operations = 10 * 5 * 2 * 4 * 25 * 4 * 16  # alphas, folds, epochs; 25 rows and more per fold
    ours = results["search"]["methods"]["TaskResClassifierCV"]
    share = n_operations / ours["seconds"] / results["search"]["product_rate"]
    assert_allclose(ours["share_of_peak"], share)
    for word in ("4 x 16", "200/200", "skorch", "GridSearchCV, n_jobs=-1", "Largest difference"):
        assert word in printed


def test_large_fits_run_fewer_epochs_unless_all_are_asked_for():
    """The table says how many of the recipe's epochs were run."""
    task = make_task(4, 16, 16)
    assert fits._epochs(task, full=False) == (200, 200)
    large = task._replace(t=np.empty((200, 1024)), y=np.empty(60_000))  # 234 steps of 0.21 GFLOP
    assert fits._epochs(large, full=False) == (20, 200)
    assert fits._epochs(large, full=True) == (200, 200)


@pytest.mark.slow
def test_growth_is_measured_and_drawn(tmp_path):
    """Each axis has its exponents and its panel."""
    axes = {"rows": [64, 128], "classes": [4, 8], "width": [128, 256], "candidates": [1, 2]}
    options = argparse.Namespace(device=None, repeats=1, figure=tmp_path / "growth.png")
    said = []
    found = growth.measure(options, CPU, said.append, axes)["axes"]
    for axis, values in axes.items():
        seconds = found[axis]["seconds"]
        exponent = np.log(seconds[1] / seconds[0]) / np.log(values[1] / values[0])
        assert_allclose(found[axis]["exponents"], [exponent])
        assert any(f"by {axis}" in line for line in said)
    assert options.figure.stat().st_size > 10_000


def test_memory_of_a_map_is_watched():
    """A fit on rows in a file is timed and its anonymous memory seen."""
    said = []
    options = argparse.Namespace(device=None)
    found = streamed.measure(options, CPU, said.append, n_rows=4000, d=16)
    assert 0 < found["bytes_before"] <= found["bytes_at_most"]
    before, most = (round(found[f"bytes_{when}"] / 1e6) for when in ("before", "at_most"))
    assert f"Anonymous memory: {before} MB before, at most {most} MB" in said[0]
    assert "4,000 x 16 float16 rows" in said[0]


@pytest.mark.parametrize("size", ["47", "47x", "axb"])
def test_a_size_that_is_none_is_named(size, capsys):
    """The error says what a size looks like."""
    with pytest.raises(SystemExit):
        main(["speed", "--sizes", size])
    assert "a size is classes x width, each at least 2, such as 47x512" in capsys.readouterr().err


def test_the_parts_are_offered():
    """Every part has a module that measures it."""
    assert all(callable(part.measure) for part in speed._PARTS.values())
