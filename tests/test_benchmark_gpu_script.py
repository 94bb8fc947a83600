"""``.ci/gpu``: its parts run on a CPU, and each has its line in the table, come what may."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "gpu"
PARTS = ("tests", "speed", "encode", "fit", "load")
pytestmark = pytest.mark.skipif(
    not SCRIPT.exists() or shutil.which("bash") is None or shutil.which("timeout") is None,
    reason="needs a checkout, bash and coreutils",
)


def run(*options, first_on_path=()):
    """Run the script with this Python, and options; return the finished process."""
    path = [*map(str, first_on_path), os.path.dirname(sys.executable), os.environ["PATH"]]
    return subprocess.run(  # noqa: S603
        [shutil.which("bash"), str(SCRIPT), *options],
        env=os.environ | {"PATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def table(printed):
    """Part to what its line says after its name."""
    lines = [line.partition(" ")[::2] for line in printed.partition("\npart ")[2].splitlines()]
    return {name: rest.strip() for name, rest in lines if name in PARTS}


def executable(path, text):
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path):
    """All are ok, and their figures are in the table."""
    found = run("--device", "cpu", "--quick", "--logs", str(tmp_path))
    assert found.returncode == 0, found.stdout + found.stderr
    lines = table(found.stdout)
    assert tuple(lines) == PARTS
    assert all(line.startswith("ok ") for line in lines.values())
    for words in (
        "fit 4 x 16, ",
        "ViT-S-32-alt, bare loop, bfloat16: ",
        "classifiers loaded without CUDA",
    ):
        assert words in found.stdout
    assert (tmp_path / "speed.json").exists()


def test_a_part_that_fails_or_takes_too_long_has_its_line(tmp_path):
    """The parts after it run all the same, and the status says that not all was well."""
    executable(
        tmp_path / "timeout",
        '#!/bin/sh\ncase "$*" in *" speed "*) exit 124 ;; *" encode "*) echo why; exit 3 ;; esac\n',
    )
    found = run("--device", "cpu", "--quick", first_on_path=[tmp_path])
    assert found.returncode == 1
    lines = table(found.stdout)
    assert tuple(lines) == PARTS
    assert lines["speed"].startswith("stopped after ")
    assert lines["encode"].startswith("failed, status 3")
    assert lines["encode"].endswith("why")
    assert lines["load"].startswith("ok")


def test_the_limits_leave_the_call_its_ten_minutes():
    """Together the parts may take less than 9 minutes."""
    text = SCRIPT.read_text(encoding="utf-8").splitlines()
    limits = [int(line.split()[2]) for line in text if line.startswith("part ")]
    assert len(limits) == len(PARTS)
    assert sum(limits) < 9 * 60


def test_what_is_missing_is_one_sentence(tmp_path):
    """A package without which nothing could be measured, before anything runs."""
    executable(
        tmp_path / "python3",
        f'#!/bin/sh\nexec "{sys.executable}" -c "import importlib.util as u, sys; f = u.find_spec; '
        f"u.find_spec = lambda n: None if n == 'skorch' else f(n); "
        f"sys.argv[1:] = ['cpu']; exec(sys.stdin.read())\"\n",
    )
    found = run("--device", "cpu", "--quick", first_on_path=[tmp_path])
    assert found.returncode == 2
    assert found.stderr.strip().splitlines() == [
        ".ci/gpu: missing: skorch. Put their wheels into a folder, and pass --wheels."
    ]
    assert found.stdout == ""
    assert run("--what").returncode == 2
