"""What the pages say is so: their code runs, their commands are taken, their links and headings are there."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from fusegen.cli import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PROJECT = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks/results/README.md"]
PAGES = [*PROJECT, *sorted(DOCS.rglob("*.md"))]
# Pages whose code another test runs, with what it should give; slow ones are marked so there.
ELSEWHERE = {
    "docs/inspect.md": "tests/inspection/test_guide.py",
    "docs/onnx.md": "tests/onnx/test_export.py",
    "docs/quantize.md": "tests/nn/test_quantize.py",
    "docs/rl.md": "tests/test_rl.py",
    "docs/stream.md": "tests/nn/test_stream.py",
    "README.md": "tests/test_readme.py",
}
NEEDED = {"docs/gan.md": "ctgan", "docs/guides/deploy.md": "onnxscript"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text_of(page), re.S | re.M)


def local_links(page: Path) -> list[tuple[Path, str]]:
    """(file, heading) of each link to this repository; code is left out."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text_of(page), flags=re.S | re.M)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    split = [link.partition("#") for link in links if "://" not in link and not link.startswith("mailto:")]
    return [(((page.parent / path) if path else page).resolve(), heading) for path, _, heading in split]


def headings(page: Path) -> set[str]:
    """As GitHub and MkDocs make anchors of them."""
    lines = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.S | re.M), re.M)
    return {
        re.sub(r"[^\w\s-]", "", line.replace("`", "")).strip().lower().replace(" ", "-") for line in lines
    }


# ---- links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page):
    links = local_links(page)
    assert [str(path) for path, _ in links if not path.is_file()] == []
    wrong = [f"{path.name}#{h}" for path, h in links if h and h not in headings(path)]
    assert wrong == []


@pytest.mark.parametrize("start", [README, DOCS / "index.md"], ids=named)
def test_every_page_is_reached_by_links(start):
    seen, waiting = {start}, [start]
    while waiting:
        for path, _ in local_links(waiting.pop()):
            if path.suffix == ".md" and path not in seen:
                seen.add(path)
                waiting.append(path)
    assert [named(page) for page in DOCS.rglob("*.md") if page not in seen] == []


def test_every_page_has_its_place_in_the_sites_menu():
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]

    def entries(part):
        if isinstance(part, str):
            return [part]
        return [
            found for each in (part.values() if isinstance(part, dict) else part) for found in entries(each)
        ]

    listed = entries(menu)
    assert len(listed) == len(set(listed))
    own = {path for path in listed if not path.startswith("project/")}
    assert own == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_every_path_of_adding_exists():
    paths = re.findall(r"`([\w.]+(?:/[\w.-]+)+)`", text_of(DOCS / "adding.md"))
    assert len(paths) > 50 and [path for path in paths if not (ROOT / path).exists()] == []


def test_pictures_lie_in_one_place():
    pictures = {path.parent for path in DOCS.rglob("*.png")}
    assert pictures == {DOCS / "pictures"}


# ---- code -----------------------------------------------------------------------------------------------


def a_gan() -> dict:
    """What the examples of docs/gan.md begin with: networks, samples, an optimiser, a group of one
    process."""
    import ctgan
    import pandas
    from fusegen.gan import DiscriminatorStep, discriminator_step, generator_step

    D = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 32), torch.nn.LeakyReLU(0.2), torch.nn.Linear(32, 1)
    )
    names = {"fusegen": __import__("fusegen"), "torch": torch, "ctgan": ctgan, "D": D}
    steps = (discriminator_step, generator_step, DiscriminatorStep, torch.nn.parallel.DistributedDataParallel)
    names |= {function.__name__: function for function in steps}
    names |= {"real": torch.rand(20, 3, 8, 8), "fake": torch.rand(20, 3, 8, 8, requires_grad=True)}
    names |= {"optimizer_d": torch.optim.Adam(D.parameters()), "columns": 192}
    table = {"a": range(200), "b": ["x", "y"] * 100}
    return names | {"table": pandas.DataFrame(table), "discrete_columns": ["b"]}


def group_of_one(folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)


WITH_CODE = [page for page in PAGES if examples(page) and named(page) not in ELSEWHERE]


@pytest.mark.parametrize("page", WITH_CODE, ids=named)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    if module := NEEDED.get(named(page)):
        pytest.importorskip(module, reason=f"{module} is not installed")
    monkeypatch.chdir(tmp_path)
    names = a_gan() if page.name == "gan.md" else {}
    try:
        if page.name == "gan.md":
            group_of_one(tmp_path)
        for code in examples(page):
            if "ctgan.synthesizers" in code:  # its own samples: flat, ten to a logit
                names |= {"real": torch.rand(20, 192), "fake": torch.rand(20, 192, requires_grad=True)}
            # a few epochs show as much
            exec(compile(code.replace("epochs=300", "epochs=1"), named(page), "exec"), names)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    said = capsys.readouterr().out
    promised = re.findall(r"^print\(.*\)  # ([\w.<>' ]+)$", "\n".join(examples(page)), re.M)
    assert [line for line in promised if line not in said] == []


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_code_that_another_test_runs(page, test):
    assert Path(page).name in (ROOT / test).read_text() and "exec(compile(" in (ROOT / test).read_text()


# ---- commands -------------------------------------------------------------------------------------------


def commands(page: Path) -> list[str]:
    """The `fusegen train` commands of a page, in fences, tables and lines; of several lines joined."""
    joined = text_of(page).replace("\\\n", " ")
    blocks = [
        code for language, code in re.findall(r"^```(\w*)\n(.*?)^```", joined, re.S | re.M) if not language
    ]
    fenced = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
    quoted = re.findall(
        r"`((?:fusegen|torchrun)[^`\n]*)`", re.sub(r"^```.*?^```", "", joined, flags=re.S | re.M)
    )
    found = (re.search(r"(?:fusegen|fusegen\.cli) (train \w+ --.*)", line) for line in [*fenced, *quoted])
    return [
        " ".join(match[1].split())
        for match in found
        if match and not {"--help", "TASK"} & set(match[1].split())
    ]


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_is_taken(command, tmp_path, monkeypatch, capsys):
    """Its options are there and their values allowed; neither the data nor the run has to be."""
    monkeypatch.chdir(ROOT)  # recipes/
    saved = tmp_path / "saved.json"
    assert main([*shlex.split(command), "--save-config", str(saved)]) == 0, capsys.readouterr().err
    assert saved.exists()


def test_there_are_commands():
    assert len(COMMANDS) > 25
