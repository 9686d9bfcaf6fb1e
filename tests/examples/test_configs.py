"""Every configuration is understood by the script it is for, and a slip in one is named."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import auto_cli

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"
CONFIGS = sorted((SCRIPT.parent / "configs").glob("*.yaml"))


def parse(example, config, capsys):
    """The whole configuration that a run would have."""
    with pytest.raises(SystemExit) as stop:
        auto_cli(
            example.main,
            args=["--config", str(config), "--train", "a", "--output", "b", "--print_config"],
            as_positional=False,
        )
    printed = capsys.readouterr()
    assert stop.value.code in (0, None), printed.err
    return yaml.safe_load(printed.out)


def leaves(options, place=()):
    for name, value in options.items():
        if isinstance(value, dict) and name not in ("model_kwargs", "trainer"):
            yield from leaves(value, (*place, name))
        else:
            yield (*place, name), value


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_each_is_understood(example, config, capsys):
    whole = parse(example, config, capsys)
    for place, value in leaves(yaml.safe_load(config.read_text())):
        found = whole
        for name in place:
            found = found[name]
        assert found == value or float(found) == float(value), place  # YAML reads 1e-3 as text


def test_the_names_are_these():
    assert [path.stem for path in CONFIGS] == ["fights", "kinetics400", "rendered", "small", "ssv2"]


@pytest.mark.parametrize(
    "slip", ["epoch: 3", "model: {bottlneck_dim: 3}", "optimization: {ema: 0.9}"]
)
def test_an_unknown_key_is_named(example, tmp_path, slip, capsys):
    (tmp_path / "slip.yaml").write_text(slip)
    with pytest.raises(SystemExit) as stop:
        auto_cli(
            example.main,
            args=["--config", str(tmp_path / "slip.yaml"), "--train", "a", "--output", "b"],
            as_positional=False,
        )
    assert stop.value.code == 2
    assert slip.rstrip("}").split("{")[-1].split(":")[0] in capsys.readouterr().err
