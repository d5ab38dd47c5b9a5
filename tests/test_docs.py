"""The documentation runs: every Python block, and every `arena` command composes."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import torch
from test_conf import CONF, composed

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
    choices = []
    for override in words:
        if "=" in override and not override.startswith(("-", "hydra.")):
            key, _, values = override.partition("=")
            options = values.split(",") if "-m" in words and "[" not in values else [values]
            choices.append([f"{key}={value}" for value in options])
    for chosen in corners(choices):
        schema.check(composed(chosen))


def corners(choices):
    """A sweep's runs in which all combinations of groups appear, and all values of an option.

    A group's choice decides which options there are; an option's value decides no more than itself.
    """
    groups = [options for options in choices if (CONF / options[0].partition("=")[0]).is_dir()]
    single = [options for options in choices if options not in groups]
    combined = list(itertools.product(*groups))
    for number in range(max(map(len, [combined, *single]))):
        yield [
            *combined[number % len(combined)],
            *(options[number % len(options)] for options in single),
        ]


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
