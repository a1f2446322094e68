"""The command itself: quick help, errors that say what to do."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from ingest.wire.codes import ErrorCode
from ops.cli.main import COMMANDS, cli
from ops.cli.reached import bootstrap_option, hint_of


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(arguments), prog_name="forebay")
    return result.exit_code, result.output


def test_help_imports_no_command() -> None:
    """Help in under 150 ms rests on what is not imported; a clock in a test would measure the machine's mood."""
    program = (
        "import sys\nfrom ops.cli.main import cli\ncli(['--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'zmq', 'msgspec', 'rich', 'psutil', 'asyncio', 'structlog', 'ingest', 'ops.supervisor'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, (_, line) in COMMANDS.items():
        assert name in done.stdout
        assert line.split(",")[0][:30] in done.stdout


@pytest.mark.parametrize("name", ["up", "down", "status", "doctor", "config", "topic", "group", "log"])
def test_every_command_has_help(name: str) -> None:
    code, text = run(name, "--help")
    assert code == 0
    assert text.startswith(f"Usage: forebay {name}")


def test_unknown_command_names_the_nearest() -> None:
    code, text = run("statsu")
    assert code == 2
    assert "did you mean `forebay status`?" in text


def test_a_benchmark_names_the_client_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.setattr("ops.bench.kafka.bench_kafka", lambda **_: pytest.fail("it began"))
    code, text = run("bench", "kafka")
    assert code == 1
    assert "pip install confluent-kafka" in text


def test_command_of_another_version_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "future", ("ops.cli.future:future", "Later."))
    assert run("future") == (1, "Error: `forebay future` is not part of this version\n")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ops.cli.doctor", None)
    code, text = run("doctor")
    assert code == 1
    assert "part of this version" in text or "not installed" in text


@pytest.mark.parametrize(
    ("given", "hint", "doctor"),
    [
        ([], "topic describe t", "doctor"),
        (["--data-dir", "/a b"], "topic describe t --data-dir '/a b'", "doctor --data-dir '/a b'"),
        (["--bootstrap", "h:1"], "topic describe t --bootstrap h:1", "doctor on its machine"),
    ],
)
def test_hints_name_the_appliance_that_was_named(given: list[str], hint: str, doctor: str) -> None:
    @click.command()
    @bootstrap_option
    def command(**_: object) -> None:
        click.echo(hint_of(ErrorCode.OFFSET_OUT_OF_RANGE, "t"))
        click.echo(hint_of(ErrorCode.KAFKA_STORAGE_ERROR, "t"))

    result = CliRunner().invoke(command, given, env={"FOREBAY_DATA_DIR": "/elsewhere"})
    assert [line.partition("forebay ")[2] for line in result.stdout.splitlines()] == [hint, doctor]
