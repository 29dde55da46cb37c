"""What README.md shows is what happens."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.filterwarnings("error")
def test_the_ten_lines_run(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len([line for line in code.splitlines() if line and not line.startswith("import")]) <= 10
    exec(compile(code, str(README), "exec"), {})
    assert len(capsys.readouterr().out) >= 40


def test_the_files_it_names_exist():
    named = re.findall(r"\]\(([\w/-]+\.\w+)\)|`(\w+/[\w/-]*\.\w+)`", README.read_text())
    paths = [link or quoted for link, quoted in named]
    assert paths and [path for path in paths if not (README.parent / path).exists()] == []
