"""The house keeps its shape: imports run down only, and what must be small is small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("variants", "lra_tasks", "results", "reports", "bench")

# What each room may import of the others. Only the command line may use reports, see below.
MAY_IMPORT = {
    "variants": set[str](),
    "lra_tasks": set[str](),
    "results": set[str](),
    "reports": {"results"},
    "bench": {"variants", "lra_tasks", "results"},
}
COMMAND_LINE = ("bench/cli.py", "bench/commands/")
NEVER_TORCH = ("results", "reports")

MOST_LINES = 250
MOST_FUNCTION_LINES = 40


def modules(root: Path) -> list[Path]:
    return sorted(path for room in ROOMS for path in (root / room).rglob("*.py") if "out" not in path.parts)


def imported(path: Path) -> set[str]:
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module).split(".")[0])
    return names


def forbidden(root: Path) -> list[str]:
    """Every import that runs up or sideways, as `file imports room`."""
    found: list[str] = []
    for path in modules(root):
        name = path.relative_to(root).as_posix()
        room = name.split("/")[0]
        allowed = MAY_IMPORT[room] | {room}
        if name.startswith(COMMAND_LINE):
            allowed = set(ROOMS)
        seen = imported(path)
        found += [f"{name} imports {other}" for other in sorted((seen & set(ROOMS)) - allowed)]
        if room in NEVER_TORCH and "torch" in seen:
            found.append(f"{name} imports torch")
    return found


def test_imports_run_down_only():
    assert forbidden(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("variants/a.py", "from results.cell import Cell", "variants/a.py imports results"),
        ("lra_tasks/a.py", "import variants", "lra_tasks/a.py imports variants"),
        ("results/a.py", "import torch", "results/a.py imports torch"),
        ("reports/a.py", "def f():\n    from torch import nn", "reports/a.py imports torch"),
        ("bench/a.py", "from reports import plots", "bench/a.py imports reports"),
    ],
)
def test_the_test_above_can_fail(tmp_path: Path, file: str, line: str, complaint: str):
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(line)
    assert forbidden(tmp_path) == [complaint]


def test_no_module_has_two_nouns():
    long = {str(path): len(path.read_text().splitlines()) for path in modules(ROOT)}
    assert {path: lines for path, lines in long.items() if lines > MOST_LINES} == {}


def test_no_function_is_long():
    found: list[str] = []
    for path in modules(ROOT):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines")
    assert found == []


def test_every_package_file_is_in_a_package():
    for path in modules(ROOT):
        assert (path.parent / "__init__.py").exists(), path


def test_help_needs_no_torch_and_no_reports():
    code = (
        "import sys; from typer.testing import CliRunner; from bench.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "print([name for name in ('torch', 'matplotlib', 'pandas', 'reports') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reports_need_no_torch():
    code = "import reports.site, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
