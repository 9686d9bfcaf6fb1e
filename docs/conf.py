"""Sphinx configuration: ``sphinx-build -W -b html docs docs/_build/html``."""

import importlib
import os
import pkgutil

from docutils import nodes
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

import gasmcast

project = "gasmcast"
author = "The gasmcast developers"
copyright = author
version = release = gasmcast.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "study_results.md"]  # the latter is included in a page
html_theme = "furo"
html_title = f"gasmcast {release}"
pygments_style = "tango"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes"]
napoleon_use_ivar = True

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

# Links into the documentation of other packages need a network, and a build must not: on request.
if os.environ.get("DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "torch_geometric": ("https://pytorch-geometric.readthedocs.io/en/latest", None),
    }


def skip_fields_of_named_tuples(app, what, name, obj, skip, options):
    # Described under Attributes; autodoc would add "Alias for field number 0".
    return True if type(obj).__name__ == "_tuplegetter" else None


def link_by_last_name(app, env, node, contnode):
    """Resolves references to names of gasmcast, many of which can be imported from two places."""
    if node.get("refdomain") != "py":
        return None
    wanted = node["reftarget"]
    if "." in wanted and not wanted.startswith("gasmcast."):
        return None
    last = wanted.rpartition(".")[2]
    found = [
        (name, entry)
        for name, entry in env.get_domain("py").objects.items()
        if name.rpartition(".")[2] == last and entry.objtype not in ("method", "property")
    ]
    if len(found) != 1:
        return None
    _, entry = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode)


def check_reference(app, env):
    """Warns of public names that the reference leaves out."""
    documented = {name.rpartition(".")[2] for name in env.get_domain("py").objects}
    for info in pkgutil.iter_modules(gasmcast.__path__, "gasmcast."):
        public = getattr(importlib.import_module(info.name), "__all__", ())
        for name in sorted(set(public) - documented):
            logging.getLogger(__name__).warning("%s.%s is not in the reference", info.name, name)


def strip_code_blocks(app, doctree):
    # Doctest needs a blank line before the closing fence; a reader does not.
    for block in doctree.findall(nodes.literal_block):
        block.rawsource = block.astext().rstrip()
        block.children = [nodes.Text(block.rawsource)]


def setup(app):
    app.connect("doctree-read", strip_code_blocks)
    app.connect("autodoc-skip-member", skip_fields_of_named_tuples)
    app.connect("env-check-consistency", check_reference)
    app.connect("missing-reference", link_by_last_name)
