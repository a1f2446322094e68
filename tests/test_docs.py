"""The documentation against the project: paths exist, commands parse, links lead somewhere, bytes are as drawn."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ingest.log.names import parse_partition_name
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import encode_request, encode_response
from ingest.wire.messages import ApiKey, ProducedPartition, ProducePartition, ProduceRequest, ProduceResponse
from ops.cli.main import cli
from ops.config.settings import load_settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE_FOLDERS = ("ingest/", "brokerd/", "replicas/", "edge/", "ops/", "tests/", "docs/", "scripts/")

_FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PLACEHOLDER = re.compile(r"[<{…*]|DIR|NAME|TOPIC-ID|OFFSET")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def spans(text: str) -> Iterator[str]:
    """Yield what stands in backticks outside of fenced blocks."""
    for found in _SPAN.finditer(_FENCE.sub("", text)):
        yield found[1]


def paths(text: str) -> Iterator[Path]:
    """Yield the files and folders that a page names; a bare name follows the folder named before it in the line."""
    for line in _FENCE.sub("", text).splitlines():
        folder: Path | None = None
        for span in (found[1] for found in _SPAN.finditer(line)):
            if span.startswith(CODE_FOLDERS) and not _PLACEHOLDER.search(span) and " " not in span:
                path = ROOT / span
                folder = path if span.endswith("/") else path.parent
                yield path
            elif folder is not None and re.fullmatch(r"[a-z_]+\.py", span):
                yield folder / span


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each `forebay …` in a shell block, a unit file or backticks; `a|b` stands for both."""
    lines = [
        line.removeprefix("$ ")
        for kind, block in _FENCE.findall(text)
        if kind in ("sh", "console", "ini")
        for line in block.splitlines()
        if kind != "console" or line.startswith("$ ")
    ]
    lines += [span for span in spans(text) if span.startswith("forebay ")]
    for line in lines:
        words = [] if "…" in line.partition("#")[0] else shlex.split(line, comments=True)
        for at, word in enumerate(words):
            if word.rpartition("/")[2] == "forebay" and (at == 0 or words[at - 1] == "|"):
                arguments = itertools.takewhile(lambda word: word not in ("|", "<", ">"), words[at + 1 :])
                yield from map(list, itertools.product(*(word.split("|") for word in arguments)))


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it, or looking at values.

    Raises:
        click.ClickException: there is no such command or option.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="forebay")
    words = list(arguments)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, context = found, click.Context(found, info_name=name, parent=context)
    _, rest, _ = command.make_parser(context).parse_args(words)
    if rest:
        raise click.UsageError(f"too much: {' '.join(rest)}")


@every_page
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    missing = sorted({name_of(path) for path in paths(page.read_text()) if not path.exists()})
    assert not missing


@every_page
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (heading and heading not in headings(there.read_text())):
            broken.append(target)
    assert not broken


def headings(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_every_command_line_parses(page: Path) -> None:
    problems = []
    for arguments in commands(page.read_text()):
        try:
            parse(arguments)
        except click.ClickException as error:
            problems.append(f"forebay {' '.join(arguments)}: {error.format_message()}")
    assert not problems


def test_the_commands_of_the_docs_are_found() -> None:
    """The tests above check something."""
    found = {tuple(arguments[:2]) for page in PAGES for arguments in commands(page.read_text())}
    assert {
        ("topic", "create"),
        ("topic", "consume"),
        ("up", "--detach"),
        ("log", "dump"),
        ("gateway", "passwd"),
    } <= found
    assert sum(len(list(paths(page.read_text()))) for page in PAGES) > 100


@every_page
def test_every_python_block_compiles_and_imports_what_there_is(page: Path) -> None:
    import forebay

    for kind, block in _FENCE.findall(page.read_text()):
        if kind == "python":
            compile(block, name_of(page), "exec")
            for names in re.findall(r"^from forebay import (.+)$", block, re.MULTILINE):
                assert set(names.split(", ")) <= set(forebay.__all__)


@every_page
def test_every_settings_block_is_right(page: Path, tmp_path: Path) -> None:
    """Files it names need not exist."""
    for kind, block in _FENCE.findall(page.read_text()):
        if kind == "toml":
            file = tmp_path / "forebay.toml"
            file.write_text(block)
            load_settings(file)


def drawn(title: str) -> bytes:
    """Return the bytes of the block of wire.md that follows these words' array."""
    for _, block in _FENCE.findall((ROOT / "docs/format/wire.md").read_text()):
        if block.startswith(title):
            column = [re.match(r" *((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)", line) for line in block.splitlines()]
            return bytes.fromhex("".join(found[1] for found in column if found))
    raise AssertionError(title)


def test_the_frames_drawn_in_wire_md_are_those_of_the_code() -> None:
    item = ProducePartition(bytes(range(16)), 2, 1)
    assert drawn("96") == encode_request(ProduceRequest(-1, [item]), 7, 30_000, "c")
    answer = ProduceResponse([ProducedPartition(0, 41, 1795490242080, 0)])
    assert drawn("94") == encode_response(7, answer)


def test_every_request_stands_in_wire_md_under_its_number() -> None:
    text = (ROOT / "docs/format/wire.md").read_text()
    for api in ApiKey:
        assert f"| {int(api)} {''.join(word.title() for word in api.name.split('_'))} |" in text


@every_page
def test_error_codes_carry_their_own_numbers(page: Path) -> None:
    for name, number in re.findall(r"\b([A-Z]{4,}(?:_[A-Z]+)*) \((-?\d+)\)", page.read_text()):
        assert ErrorCode[name] == int(number)


def test_the_partition_directory_in_log_md_is_named_as_the_code_names_it() -> None:
    found = re.search(r"brokers/3/(\S+)", (ROOT / "docs/concepts/log.md").read_text())
    assert found is not None
    assert parse_partition_name(found[1]) is not None


def first_five_minutes() -> str:
    """Return the section's blocks as one shell script, for an appliance on free ports."""
    text = (ROOT / "README.md").read_text()
    _, _, section = text.partition("## Five minutes to a first message")
    script = ["set -eu", 'mosquitto_pub() { command mosquitto_pub -p "$(port)" "$@"; }', f"port() {{ {PORT}; }}"]
    for kind, block in _FENCE.findall(section.partition("\n## ")[0]):
        if kind == "python":
            script.append(f"python - <<'END'\n{block}END")
        elif "mosquitto_pub" not in block or shutil.which("mosquitto_pub"):
            script.append(block.replace(". .venv/bin/activate\n", ""))
    return "\n".join(script)


PORT = """forebay status --format json | python -c 'import json, sys; print(json.load(sys.stdin)["ports"]["mqtt"])'"""


def test_the_first_five_minutes_go_as_readme_says(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FOREBAY_MQTT_PORT": "0",
        "FOREBAY_HTTP_PORT": "0",
    }
    try:
        done = subprocess.run(
            ["sh", "-c", first_five_minutes()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        for line in ("sensors[2]@0 dev-17 21.5", "offset=1", "1 b'dev-17' b'21.7'", "Forebay has stopped."):
            assert line in done.stdout
    finally:
        down = ["forebay", "down", "--now", "--data-dir", str(tmp_path / "data")]
        subprocess.run(down, env=environment, capture_output=True, timeout=100)
