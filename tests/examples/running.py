"""Runs the scripts in this process: to import torch takes longer than what they do here."""

import io
import os
import runpy
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK_STUDY = (
    "--quick=true",
    "--output=it",
    "--variants=[gasm_cast, late_fusion]",
    "--processes=1",
)


class Done(NamedTuple):
    """What a script printed."""

    stdout: str
    stderr: str


def run(script, *arguments, cwd=".", status=0, **environment):
    """What a script prints as a command with these arguments, in a folder, without the hub."""
    printed, error, code = io.StringIO(), io.StringIO(), 0
    with (
        chdir(cwd),
        mock.patch.object(sys, "argv", [script, *map(str, arguments)]),
        mock.patch.object(sys, "path", [str(EXAMPLES), *sys.path]),  # as for any script
        mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),
        mock.patch.dict(os.environ, environment),
        redirect_stdout(printed),
        redirect_stderr(error),
    ):
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
            if isinstance(code, str):  # what the interpreter does with it
                print(code, file=error)
                code = 1
    done = Done(printed.getvalue(), error.getvalue())
    assert code == status, done.stdout + done.stderr
    return done
