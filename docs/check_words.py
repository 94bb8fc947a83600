"""Count phrases that the house style replaces by plainer ones, in all prose of the repository.

Usage: ``python docs/check_words.py [--list] [FOLDER]``. Prose is what people read: docstrings,
comments, texts of errors and warnings, the pages, README and changelog; not code. The exit status
is 1 if a rule is broken.
"""

import argparse
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PLACES = ("README.md", "CHANGELOG.md", "docs", "examples", "sklearn_taskres", "tests", ".ci")
SKIPPED = {"_build", "auto_examples", "generated"}
#: What one may have one of, in place of "per", and words that stand before it.
_THINGS = (
    "batch|candidate|cell|class|column|core|day|device|element|epoch|fold|image|label|line|method|"
    "minute|model|name|photo|pixel|point|process|property|prompt|row|second|seed|shot|step|"
    "subcommand|task|template|test|thread|view|worker"
)


_COUNTED = (
    r"\w{2,}s|batch|column|dict|file|fit|image|item|line|number|one|page|pair|panel|point|row|test|"
    r"value"
)


class Rule(NamedTuple):
    """What is not written, what is written in its place, and what looks like it and is fine."""

    instead: str
    pattern: re.Pattern
    #: Matches of these, with the words around them, are fine.
    exceptions: tuple[str, ...] = ()


RULES = {
    "a": Rule(
        "per",
        re.compile(rf"\b({_COUNTED}) an? ({_THINGS})\b"),
        (
            # verbs, and adverbs before a noun
            r"(adds|asks|becomes|costs|encodes|equals|fills|lacks|surrounds|bounds|breaks|builds|changes|computes|copies|counts|decides|does|"
            r"draws|embeds|ends|fits|gets|gives|has|holds|is|keeps|knows|learns|leaves|loads|looks|"
            r"makes|maps|marks|means|moves|names|needs|opens|passes|perhaps|prints|puts|reads|refuses|replaces|"
            r"returns|runs|saves|says|sees|sends|sets|shows|starts|stops|takes|tells|times|trains|"
            r"tries|turns|was|wants|was|writes|this|thus|as|its|across|towards|always|besides|"
            r"less|plus|minus|unless|versus|yes) an? ",
            r"\b(after|before|by|for|from|if|in|of|on|one|that|to|with) (one|row|file|line) an? ",
        ),
    ),
    "where": Rule(
        "if or when",
        re.compile(r"(?<!\{)\b[Ww]here\b(?![}\[])"),
        (
            # a place: of things, in the code, or to which a question is
            r"(cells?|columns?|director(y|ies)|files?|folders?|lines?|machines?|pages?|places?|"
            r"points?|positions?|rows?|sides?|spots?|steps?) where\b",
            r"(asks?|decides?|finds? out|from|knows?|notes?|of|out|remembers?|sa(y|ys|id)|sees?|"
            r"shows?|tells?|to) where\b",
            r"^where\b.*\?|^\Wwhere\W$",
            r"where to\b",
            # a noun clause that says what a parameter is
            r"(?-i:Where [^,.;]*\.|Where [^,.;]*$|Where and how|Where (a residual is|embeddings|"
            r"tensors|the (engine|enhanced|files|label|residual)))",
            # what a symbol stands for
            r"(αx|Σ⁻¹ μ_c|share|t'), where\b",
            # places that are not called one
            r"(expected|expects?|lies|means) where the (names|text)",
            r"(process|interpreter|marker|memory|raised|stay|network|imported|find|expect) where\b",
            r"where (it (helped|hurt)|the time goes|a person gets|your embeddings|the paper has it|"
            r"0 stands|the words of|embeddings are kept|the text tower|the gradients|TaskRes lost)",
            r"(digits|here|percent|name|refused|head|Zero-shot), where\b",
            r"\bwhere (it|one|they|that|the text|a class|each) (is|lies?|are|was|were|begins?|"
            r"comes?|ends?|stands?)\b",
        ),
    ),
    "beside": Rule("next to, compared with, or than", re.compile(r"\bbeside\b", re.IGNORECASE)),
    "but for": Rule("except", re.compile(r"\bbut (for|what)\b", re.IGNORECASE)),
    "is no": Rule(
        "is not a",
        re.compile(r"\b(are|be|being|is|was|were) no\b(?! (longer|more|less)\b)", re.IGNORECASE),
        (r"\bthere (are|is|was|were) no\b",),
    ),
}


class Broken(NamedTuple):
    """A place at which a rule is broken."""

    path: Path
    line: int
    rule: str
    text: str


def broken_rules(text: str) -> Iterator[tuple[int, str]]:
    """Yield the offset in a text, and the rule, of each phrase that is to be replaced."""
    for name, rule in RULES.items():
        fine = [m.span() for e in rule.exceptions for m in re.finditer(e, text, re.IGNORECASE)]
        for match in rule.pattern.finditer(text):
            if not any(a < match.end() and match.start() < b for a, b in fine):
                yield match.start(), name


def check_file(path: Path) -> list[Broken]:
    """List the broken rules in the prose of a file."""
    prose = _prose_of_code if path.suffix == ".py" else _prose_of_page
    found = []
    for first, text in prose(path.read_text(encoding="utf-8")):
        joined = re.sub(r"\s+", lambda m: " " * len(m[0]), text)  # phrases go over line ends
        squeezed, offsets = _squeezed(joined)
        for start, rule in broken_rules(squeezed):
            line = first + text.count("\n", 0, offsets[start])
            found.append(Broken(path, line, rule, squeezed[max(0, start - 30) : start + 40]))
    return found


def _squeezed(text: str) -> tuple[str, list[int]]:
    """Text with single spaces, and the offset of each of its characters in the text before."""
    kept = [i for i, c in enumerate(text) if not (c == " " and text[i - 1 : i] == " ")]
    return "".join(text[i] for i in kept), kept


def _prose_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of strings and comments; comments one under the other are one text."""
    comment: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if comment and token.start[0] == last + 1:
                comment.append(token.string.lstrip("#: "))
            else:
                yield first, "\n".join(comment)
                first, comment = token.start[0], [token.string.lstrip("#: ")]
            last = token.start[0]
        elif token.type == tokenize.STRING:
            yield token.start[0], _without_examples(token.string)
    yield first, "\n".join(comment)


def _without_examples(text: str) -> str:
    """Blank the lines of code in a docstring."""
    return re.sub(r"^ *(>>>|\.\.\. ).*$", "", text, flags=re.MULTILINE)


def _prose_of_page(source: str) -> Iterator[tuple[int, str]]:
    """Yield the text of a page as one, its blocks of code blanked, with all line ends kept."""
    lines, fence, indent = [], False, None
    for line in source.split("\n"):
        depth = len(line) - len(line.lstrip())
        if line.lstrip().startswith("```"):
            fence = not fence
        if indent is not None and line.strip() and depth <= indent:
            indent = None
        is_code = fence or indent is not None or line.lstrip().startswith((">>>", "... ", "```"))
        lines.append("" if is_code else line)
        if indent is None and re.match(r"\s*\.\. (code-block|code|math|raw)::|.*[^:]?::$", line):
            indent = depth
    yield 1, "\n".join(lines)


def prose_files(root: Path) -> Iterator[Path]:
    """Yield the files that hold prose."""
    for place in PLACES:
        path = root / place
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in found:
            is_built = SKIPPED & set(file.relative_to(root).parts)
            if file.suffix in {".py", ".rst", ".md"} and not is_built:
                yield file


def main() -> int:
    """Print the counts, and where rules are broken if that is asked for or there are few."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--list", action="store_true", help="print every place")
    options = parser.parse_args()
    this = Path(__file__).resolve()
    files = [file for file in prose_files(options.folder) if file.resolve() != this]
    found = [broken for file in files for broken in check_file(file)]
    for name, rule in RULES.items():
        n_found = sum(broken.rule == name for broken in found)
        sys.stdout.write(f"{n_found:4}  {name!r}, which should be {rule.instead!r}\n")
    for broken in found if options.list or len(found) < 20 else ():
        path = broken.path.relative_to(options.folder)
        sys.stdout.write(f"{path}:{broken.line}: {broken.rule}: …{broken.text}…\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
