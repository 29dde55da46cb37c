"""What README.md shows is what happens."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_it_is_read_in_a_few_minutes():
    assert len(README.read_text().splitlines()) <= 180


@pytest.mark.filterwarnings("error")
def test_the_ten_lines_run(capsys):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(examples) == 2
    for code in examples:
        assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
        exec(compile(code, str(README), "exec"), {})
        assert len(capsys.readouterr().out) >= 20


def test_the_files_it_names_exist():
    named = re.findall(r"\]\(([\w/-]+\.\w+)\)|`(\w+/[\w/-]*\.\w+)`", README.read_text())
    paths = [link or quoted for link, quoted in named]
    assert paths and [path for path in paths if not (README.parent / path).exists()] == []
