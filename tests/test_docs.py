"""The documentation runs: every Python block, and every `arena` command composes."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from test_conf import composed

from arena import schema

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [code for kind, code in FENCE.findall(page.read_text()) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    with torch.random.fork_rng():  # a reader's own modules draw their weights where they like
        for code in blocks(page, "python"):
            exec(compile(code, str(page), "exec"), names)


def commands():
    found = []
    for page in PAGES:
        for code in blocks(page, "sh"):
            for line in code.replace("\\\n", " ").splitlines():
                if line.startswith("arena "):
                    found.append(line.split("#")[0].strip())
    return found


def test_there_are_commands():
    assert len(commands()) >= 5


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_commands_compose(command):
    words = shlex.split(command)[1:]
    if "--config-dir" in words:
        pytest.skip("a folder of the reader's own")
    overrides = [word for word in words if "=" in word and not word.startswith(("-", "hydra."))]
    choices = [[]]
    for override in overrides:
        key, _, values = override.partition("=")
        options = values.split(",") if "-m" in words and "[" not in values else [values]
        choices = [[*chosen, f"{key}={value}"] for chosen in choices for value in options]
    for chosen in choices:
        schema.check(composed(chosen))


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
