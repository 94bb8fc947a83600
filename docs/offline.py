"""What Sphinx would fetch from the network: formulas as MathML, links to scikit-learn by rule."""

import pydoc

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx import addnodes

import sklearn_taskres
from sklearn_taskres import inspection

_PUBLIC = {name: f"sklearn_taskres.{name}" for name in sklearn_taskres.__all__}
_PUBLIC |= {name: f"sklearn_taskres.inspection.{name}" for name in inspection.__all__}
_SKLEARN_PAGE = "https://scikit-learn.org/stable/modules/generated/{}.html"


def name_role(role, rawtext, text, lineno, inliner, options=None, content=()):
    """Read `text` as code; a public name of the package becomes a link to its page."""
    literal = nodes.literal(rawtext, text, classes=["docutils", "literal"])
    if text not in _PUBLIC:
        return [literal], []
    target = {"refdomain": "py", "reftype": "obj", "reftarget": _PUBLIC[text]}
    return [addnodes.pending_xref(rawtext, literal, **target)], []


def link_sklearn(app, env, node, contnode):
    """Resolve a reference to a class or function of scikit-learn, whose page has its name."""
    target = node.get("reftarget", "")
    is_python = node.get("refdomain") == "py" and target.startswith("sklearn.")
    if not is_python or pydoc.locate(target) is None:
        return None
    link = nodes.reference("", "", refuri=_SKLEARN_PAGE.format(target), internal=False)
    link += contnode
    return link


def write_formula(self, node):
    """Write a formula as MathML, which browsers lay out without a script."""
    is_block = isinstance(node, nodes.math_block)
    math = latex2mathml.tex2mathml(node.astext(), as_block=is_block)
    self.body.append(f'<div class="formula">{math}</div>\n' if is_block else math)
    raise nodes.SkipNode


def setup(app):
    """Connect the above to Sphinx."""
    app.add_role("name", name_role)
    app.connect("missing-reference", link_sklearn)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
