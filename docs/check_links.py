"""Check the links within built pages: ``python docs/check_links.py FOLDER``."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Links of a page, and the names in it that links may point to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names = [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("id", "name"):
                self.names.add(value)
            elif name in ("href", "src") and value is not None:
                self.links.append(value)


def broken_links(folder):
    """List the links within a folder of pages that lead nowhere, as (page, link).

    Parameters
    ----------
    folder : Path
        What ``sphinx-build`` wrote.
    """
    folder = folder.resolve()
    found = [path for path in folder.rglob("*.html") if folder / "_static" not in path.parents]
    pages = {path: _Page(path.read_text("utf-8")) for path in found}
    return [
        (path.relative_to(folder).as_posix(), link)
        for path, page in sorted(pages.items())
        for link in page.links
        if _is_broken(path, link, pages)
    ]


def _is_broken(path, link, pages):
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    page = pages.get(target)
    if page is None:
        return not target.is_file()
    return unquote(parts.fragment) not in page.names


if __name__ == "__main__":
    found = broken_links(Path(sys.argv[1]))
    if found:
        sys.exit(
            "Links that lead nowhere:\n" + "\n".join(f"{page}: {link}" for page, link in found)
        )
