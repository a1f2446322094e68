"""`forebay config` and `forebay doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ops.cli.main import cli


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ops.config.paths.SYSTEM_CONFIG", tmp_path / "none.toml")
    monkeypatch.delenv("FOREBAY_CONFIG", raising=False)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), env=environment, prog_name="forebay")


def test_dump_tells_values_and_where_they_come_from(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text('[broker]\n"log.retention.ms" = 1000\n"num.partitions" = 3\n')
    result = run("config", "dump", "--sources", "--config", str(file), FOREBAY_NUM_PARTITIONS="7")
    lines = {line.split(" = ")[0]: line for line in result.stdout.splitlines()}
    assert lines['"log.retention.ms"'].endswith(f"# file {file}:2")
    assert lines['"num.partitions"'].split()[2] == "7"
    assert lines['"num.partitions"'].endswith("# environment FOREBAY_NUM_PARTITIONS")
    assert lines['# "message.max.bytes"'].endswith("# default")


def test_dump_can_be_read_again(tmp_path: Path) -> None:
    environment = {
        "FOREBAY_LOG_RETENTION_MS": "5000",
        "FOREBAY_BROKER_RACK": "a b",
        "FOREBAY_MQTT_PORT": "0",
        "FOREBAY_MQTT_RULES": '[{"filter": "plant/+/#", "topic": "plant.{1}", "key": "${clientid}"}]',
    }
    first = run("config", "dump", **environment).stdout
    file = tmp_path / "dumped.toml"
    file.write_text(first)
    assert run("config", "dump", "--config", str(file)).stdout == first
    assert "is right: 4 settings" in run("config", "check", str(file)).stdout


def test_dump_shows_no_value_where_there_is_none() -> None:
    lines = run("config", "dump").stdout.splitlines()
    assert '# "brokers" = (not set)' in lines
    assert '# "enable" = (not set)' in lines
    assert not [line for line in lines if line.endswith('= ""')]


def test_dump_as_json_names_the_variable(tmp_path: Path) -> None:
    entries = json.loads(run("config", "dump", "--format", "json").stdout)
    entry = next(entry for entry in entries if entry["key"] == "log.retention.ms")
    assert entry["environment"] == "FOREBAY_LOG_RETENTION_MS"
    assert (entry["section"], entry["value"], entry["source"]) == ("broker", "604800000", "default")


def test_check_lists_every_problem_with_its_line_and_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[broker]\n"log.retenton.ms" = 1\n\n[mqtt]\nport = "high"\n')
    result = run("config", "check", str(file))
    assert result.exit_code == 2
    assert f"{file}:2: unknown key log.retenton.ms in [broker]; did you mean log.retention.ms?" in result.output
    assert f"{file}:5: mqtt.port=high" in result.output


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[mqtt]\npassword_file = '{0}/none'", "can't read the password file {0}/none: No such file or directory"),
        ("[mqtt]\npassword_file = '{0}/open'", "{0}/open: others can read it; chmod 600 {0}/open"),
        ("[mqtt]\ntls_port = 0\ntls_cert_file = '{0}/none'\ntls_key_file = '{0}/none'", "mqtt: tls_key_file={0}/none"),
        ("[bridge]\nuser = 'me'\npassword_file = '{0}/none'", "can't read the password file {0}/none"),
        ("[bridge]\ntls_ca_file = '{0}/open'", "bridge: tls_ca_file={0}/open"),
    ],
)
def test_check_reads_the_files_a_file_names(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "open").write_text("secret\n")
    (tmp_path / "open").chmod(0o644)
    file = tmp_path / "forebay.toml"
    file.write_text(text.format(tmp_path))
    result = run("config", "check", str(file))
    assert result.exit_code == 2
    assert problem.format(tmp_path) in result.output


def test_up_refuses_a_bad_file_before_it_touches_anything(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[broker\n")
    result = run("up", "--config", str(file), "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert f"{file}:1:" in result.output
    assert not (tmp_path / "data").exists()


def test_doctor_says_what_why_and_next(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "something").write_bytes(b"")
    data_dir.chmod(0o777)
    result = run("doctor", "--data-dir", str(data_dir), "--format", "json")
    assert result.exit_code == 1
    checks = json.loads(result.stdout)["checks"]
    problems = {check["name"]: check for check in checks if check["state"] == "problem"}
    assert problems["permissions"]["next"] == f"chmod go-w {data_dir}"
    assert "something" in problems["directory"]["what"]
    assert {check["name"] for check in checks} >= {"python", "disk", "file system", "tmpfs", "ulimit", "clock", "ports"}


def test_doctor_creates_nothing(tmp_path: Path) -> None:
    run("doctor", "--data-dir", str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []
