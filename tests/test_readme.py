"""What the README prints is true: its Python runs, its definitions are the package's, its commands exist."""

import re
from pathlib import Path

import click
import pytest
import torch
from torch import Tensor

from hstl_fast import functional
from tests.helpers.networks import narrow_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_snippets_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["embeddings"].shape == (2, 73, 128)
    assert names["out"].logits.shape == (3, 73, 74)
    assert names["distances"].diagonal().abs().max() == 0
    assert names["z"].shape == (2, 64, 2)


def test_the_onnx_snippet_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra [onnx]")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python onnx")
    exec(compile(block, "README.md", "exec"), {"model": narrow_model("casia-b")})
    assert (tmp_path / "hstl.onnx").stat().st_size > 0


def test_definitions_are_what_the_package_computes() -> None:
    (block,) = blocks("python definitions")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    torch.manual_seed(0)
    x, split = torch.randn(2, 6, 7, 9, 5, dtype=torch.float64), [5, 1, 3]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    p = 6.5 + normal(3) / 10
    for name, arguments in {
        "arme": (x, normal(3, 4, 6, 3, 3, 3), split),
        "astp": (x, normal(8, 6), p, split),
        "strip_pool": (x, p[:1], 3),
        "fta": (x, normal(3, 2, 6, 6), normal(3, 2, 6), split),
    }.items():
        expected = getattr(functional, name)(*arguments)
        assert torch.allclose(names[name](*arguments), expected, rtol=1e-9, atol=1e-12), name


def test_commands_and_their_options_exist() -> None:
    from hstl_fast.cli.app import program

    commands = re.findall(r"^(?:.*&& )?hstl-fast ([^#\n]*)", "\n".join(blocks("sh")), re.MULTILINE)
    calls = [call.split() for line in commands for call in re.sub(r".*?hstl-fast ", "", line).split("&& hstl-fast ")]
    assert {call[0] for call in calls} >= {"demo", "silhouettes", "embed", "identify"}
    for command, *arguments in calls:
        options = {name for option in program.commands[command].params for name in option.opts}
        assert {argument for argument in arguments if argument.startswith("-")} <= options
        assert isinstance(program.commands[command], click.Command)
