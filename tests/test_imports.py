"""Who may import whom: the data goes one way, and so do the imports."""

import ast
from pathlib import Path

import pytest

import gasmcast

ROOT = Path(gasmcast.__file__).parent

# A part may import from itself and from these parts of gasmcast.
ALLOWED = {
    "positions": set(),
    "processes": set(),
    "seeds": set(),
    "whole_file": set(),
    "video": {"processes", "whole_file"},
    "transforms": set(),
    "graphs": {"positions"},
    "extractors": {"positions"},
    "nn": {"positions", "graphs"},
    "model": {"extractors", "nn", "positions"},
    "datasets": {"processes", "seeds", "video", "whole_file"},
    "explanation": {"graphs", "transforms", "video"},
    "visualization": {"explanation", "graphs", "video", "whole_file"},
    "feature_store": {"seeds", "whole_file"},
    "extraction": {"datasets", "extractors", "feature_store", "transforms", "video"},
    "training": {
        "model",
        "datasets",
        "feature_store",
        "processes",
        "seeds",
        "transforms",
        "video",
        "whole_file",
    },
}


def parts_imported(path: Path) -> set[str]:
    module = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(module)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    package = ["gasmcast", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(module):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [".".join([*base, *([node.module] if node.module else [])])]
            if names == ["gasmcast"]:
                names = [f"gasmcast.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("gasmcast.")}
    return found


SOURCES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        assert parts_imported(path) == set()
        return
    assert parts_imported(path) <= ALLOWED[part] | {part}


def test_public_names_are_there():
    for name in gasmcast.__all__:
        assert getattr(gasmcast, name) is not None
    assert set(gasmcast.__all__) <= set(dir(gasmcast))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        gasmcast.nothing  # noqa: B018
