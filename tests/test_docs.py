"""The pages: complete, and without a snippet that nobody runs."""

import importlib
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sklearn_taskres
from sklearn_taskres import distributed, export, inspection
from sklearn_taskres.benchmark.__main__ import make_parser

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.rst"))
    if not {"generated", "auto_examples", "_build", "_templates"} & set(path.parts)
]
#: What a code block may be that is not a doctest: lines for a shell, and pictures of folders.
NOT_PYTHON = {"bash", "text"}


#: Breaks each rule of the script once; "~" keeps the script from finding them here.
PHRASES = ["Images a~ class.", "It is so whe~re t is text.", "Fast be~side it.", "All bu~t for it."]
PHRASES += ["That is n~o error."]


@pytest.mark.parametrize(("place", "phrase"), list(enumerate(PHRASES)))
def test_the_script_finds_what_has_plainer_words(tmp_path, place, phrase):
    """Each rule is seen to be broken; a plain text passes."""
    script = [sys.executable, DOCS / "check_words.py", tmp_path]
    for text, count in ((phrase.replace("~", ""), 1), ("One row per image.", 0)):
        (tmp_path / "README.md").write_text(f"{text}\n", encoding="utf-8")
        found = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
        assert found.returncode == count
        assert found.stdout.splitlines()[place].startswith(f"   {count}  ")


def test_every_public_name_has_a_page():
    """The API reference lists each public name once, and nothing else."""
    listed = re.findall(r"^   (\w+)$", (DOCS / "api.rst").read_text("utf-8"), re.MULTILINE)
    rooms = (sklearn_taskres, inspection, export, distributed)
    public = {name for room in rooms for name in room.__all__} - {"__version__"}
    assert sorted(listed) == sorted(public)


def undocumented(function):
    """Parameters of a class or function that its docstring does not describe, and the reverse."""
    described = re.split(r"\n\w[\w ]+\n-+\n", inspect.getdoc(function))
    title = re.findall(r"\n(\w[\w ]+)\n-+\n", inspect.getdoc(function))
    text = dict(zip(title, described[1:], strict=True)).get("Parameters", "")
    names = {
        name.lstrip("*")
        for line in re.findall(r"^(\*{0,2}\w.*?)(?: :.*)?$", text, re.MULTILINE)
        for name in line.split(", ")
    }
    return names ^ set(inspect.signature(function).parameters)


def test_every_parameter_is_documented():
    """Each public class and function describes its parameters, and no others."""
    rooms = (sklearn_taskres, inspection, export, distributed)
    public = [getattr(room, name) for room in rooms for name in room.__all__]
    not_called = (Exception, tuple, inspection.NoneOfThese)  # a function of the package makes them
    checked = [f for f in public if callable(f) and not issubclass_of(f, not_called)]
    assert len(checked) > 30
    wrong = {f.__name__: undocumented(f) for f in checked}
    assert {name: found for name, found in wrong.items() if found} == {}


def issubclass_of(function, classes):
    """Whether it is a class, and one of these."""
    return isinstance(function, type) and issubclass(function, classes)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_python_is_written_as_doctests(page):
    """No page holds Python that pytest does not run: other code blocks are for a shell.

    A file in a block of its own has a name, by which a test finds it and runs it.
    """
    text = page.read_text("utf-8")
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    blocks = re.findall(
        r"^ *\.\. (?:code-block|code|sourcecode|highlight)::(.*)(?:\n +:name: (.+))?$", text, re.M
    )
    assert {kind.strip() for kind, name in blocks if not name or name not in tests} <= NOT_PYTHON
    literal = re.findall(r"^(?!\.\.|>>>|\.\.\. )[^\n]*::\n\n +(.*)$", text, re.M)
    assert all(line.startswith("python -m ") for line in literal)
    assert "+SKIP" not in text


def benchmark_commands():
    """Arguments of each benchmark command on the pages, in a block or in a sentence."""
    text = "\n\n".join(page.read_text("utf-8") for page in PAGES)
    name = r"python -m sklearn_taskres\.benchmark "
    found = re.findall(rf"^ +{name}((?:.*\\\n)*.*)$", text, re.M)
    found += re.findall(rf"``{name}([^`]+)``", text)
    return sorted({" ".join(command.replace("\\", " ").split()) for command in found})


@pytest.mark.parametrize("command", benchmark_commands())
def test_benchmark_commands_parse(command):
    """Every benchmark command that a page names has a subcommand and options that there are."""
    options = make_parser().parse_args(shlex.split(command))
    name = command.partition(" ")[0]
    assert options.run is importlib.import_module(f"sklearn_taskres.benchmark.{name}").run


def test_the_gallery_knows_every_example():
    """The gallery's order names the examples that there are."""
    order = runpy.run_path(str(DOCS / "gallery.py"))["_ORDER"]
    assert sorted(order) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_broken_links_are_found(tmp_path):
    """The check of built pages sees a missing file and a missing anchor, and nothing else."""
    broken_links = runpy.run_path(str(DOCS / "check_links.py"))["broken_links"]
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here"/><a href="b.html#there"/><a href="https://x.org/y"/>'
        '<a href="c.html"/><a href="b.html#gone"/><img src="no.png"/>'
    )
    (tmp_path / "b.html").write_text('<p id="there"><a href="a.html?x=1"/>')
    found = broken_links(tmp_path)
    assert found == [("a.html", "c.html"), ("a.html", "b.html#gone"), ("a.html", "no.png")]
