"""The lowest releases that pyproject.toml allows, as constraints for pip: `make lowest`."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest(requirement):
    """`NAME==RELEASE` for a requirement that begins with `NAME>=RELEASE`."""
    found = re.match(r"([\w.-]+)>=([\w.]+)", requirement)
    if found is None:
        raise ValueError(f"{requirement} has no lower bound; write it as NAME>=RELEASE")
    return "{}=={}".format(*found.groups())


def constraints():
    """One line per direct dependency, those of the tests included."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    return map(lowest, project["dependencies"] + project["optional-dependencies"]["test"])


if __name__ == "__main__":
    print(*constraints(), sep="\n")
