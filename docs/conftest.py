"""pytest runs the snippets of the pages; Sphinx's own files and what it generates are none."""

collect_ignore_glob = ["*.py", "_build/*", "auto_examples/*", "generated/*"]
