"""What the tests of the examples share."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch

from examples.running import EXAMPLES, QUICK_STUDY, run

# Where the parts of the study are; last, for scripts have short names.
sys.path.append(str(EXAMPLES))


@pytest.fixture(scope="module", autouse=True)
def small_pieces():
    """What is computed here is too small for two threads, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def example(request: pytest.FixtureRequest) -> ModuleType:
    """The script that the test module names, as a module."""
    script = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str(script.parent), *sys.path]):  # as for any script
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def quick_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study was run in quick mode with two variants; what it wrote is in ``it``.

    Once for all: the clips take longest. It renders and extracts with ``interaction_features.py``.
    """
    folder = tmp_path_factory.mktemp("study")
    run("study.py", *QUICK_STUDY, cwd=folder)
    return folder
