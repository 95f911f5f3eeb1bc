"""The documents say what is there: commands and options, files, exit codes, columns, settings."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from copydet import errors
from copydet.cli.main import COMMANDS
from copydet.process import MALLOC, OPENMP
from copydet.reports.tables import COLUMNS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), *ROOT.glob("indexes/*.md")])


def command(name: str) -> click.Command:
    loaded: click.Command = import_module(COMMANDS[name]).command
    return loaded


def table(heading: str, document: str = README) -> list[list[str]]:
    """The rows below the head of the first table after `heading`, without backticks."""
    section = document.split(heading, 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines, f"no table after {heading}"
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return rows[2:]


def command_lines(document: str) -> list[list[str]]:
    """Every line of a code block that calls copydet, as words."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", document, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.strip().startswith("copydet ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_a_row_in_the_readme(name: str) -> None:
    text = command(name).help or ""
    assert text.strip()
    assert "Example" in text
    assert f"copydet {name}" in text
    assert f"copydet {name}" in [row[0] for row in table("## Your own collection")]


def test_the_readme_lists_no_command_that_does_not_exist() -> None:
    assert [row[0] for row in table("## Your own collection")] == [f"copydet {name}" for name in COMMANDS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_in_a_document_uses_a_command_and_options_that_exist(document: Path) -> None:
    for name, *words in command_lines(document.read_text(encoding="utf-8")):
        assert name in COMMANDS, name
        known = {option for parameter in command(name).params for option in parameter.opts + parameter.secondary_opts}
        used = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}
        assert used <= known, f"copydet {name}: {used - known}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = {target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target}
    missing = {link for link in links if not (document.parent / link).exists()}
    rooms = "copydet|docs|indexes|scripts|tests"
    named = set(re.findall(rf"(?<![\w/.-])((?:{rooms})/[\w/.-]*\w/?)", text))
    missing |= {name for name in named if not (ROOT / name).exists()}
    assert not missing


def test_the_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    listed = {int(row[0]) for row in table("## Exit codes")}
    raised = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.CopydetError)
    }
    assert listed == raised | {0, 3, 130}  # done, skipped under --strict, interrupted: not errors


def test_the_columns_in_the_readme_are_those_of_a_match_in_their_order() -> None:
    assert [row[0] for row in table("## What the columns mean")] == list(COLUMNS)


@pytest.mark.parametrize("variable", [*OPENMP, *MALLOC])
def test_every_setting_made_at_the_start_is_named_in_the_readme(variable: str) -> None:
    assert f"`{variable}" in README


def test_every_extra_is_explained_in_the_readme() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {row[0] for row in table("## Install")} == set(project["optional-dependencies"])
