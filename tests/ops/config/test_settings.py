"""Settings: where they come from, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.errors import ConfigError
from ops.config.settings import load_settings
from ops.config.table import settings


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "forebay.toml"
    file.write_text(text)
    return file


def problems(tmp_path: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text), environment=environment)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_flag_comes_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = write(tmp_path, "[mqtt]\nport = 1\ntls_port = -1\nreceive_maximum = 11\ntopics_max = 12\n")
    environment = {"FOREBAY_MQTT_PORT": "2", "FOREBAY_MQTT_RECEIVE_MAXIMUM": "22"}
    found = load_settings(file, environment=environment, flags={("mqtt", "port"): ("--mqtt-port", 3)})
    config = found.mqtt("x")
    assert (config.port, config.receive_maximum, config.topics_max) == (3, 22, 12)
    sources = {(setting.section, setting.key): value.source for setting, value in found.items()}
    assert sources["mqtt", "port"] == "flag --mqtt-port"
    assert sources["mqtt", "receive_maximum"] == "environment FOREBAY_MQTT_RECEIVE_MAXIMUM"
    assert sources["mqtt", "topics_max"] == f"file {file}:5"
    assert sources["mqtt", "host"] == "default"


def test_defaults_are_right() -> None:
    found = load_settings()
    assert found.broker_configs == {}
    assert not found.has_bridge


def test_every_setting_has_a_variable_of_its_own() -> None:
    variables = [setting.variable for setting in settings().values()]
    assert len(set(variables)) == len(variables)
    assert settings()["broker", "log.retention.ms"].variable == "FOREBAY_LOG_RETENTION_MS"


def test_bare_and_quoted_keys_mean_the_same(tmp_path: Path) -> None:
    for text in ('"log.retention.ms" = 5', "log.retention.ms = 5", "log.retention.ms = '5'"):
        assert load_settings(write(tmp_path, f"[broker]\n{text}\n")).broker_configs == {"log.retention.ms": "5"}
    for text in ("tls_port = -1", '"tls.port" = -1'):
        assert load_settings(write(tmp_path, f"[mqtt]\n{text}\n")).is_set(("mqtt", "tls_port"))


def test_topic_defaults_reach_the_brokers_under_kafkas_names(tmp_path: Path) -> None:
    file = write(tmp_path, '[topic-defaults]\n"retention.ms" = 7\ndurability = "os"\n')
    assert load_settings(file).broker_configs == {"log.retention.ms": "7", "log.durability": "os"}


def test_rules_are_a_list_of_tables(tmp_path: Path) -> None:
    file = write(tmp_path, '[[mqtt.rules]]\nfilter = "a/#"\ntopic = "a"\nkey = ""\n')
    (rule,) = load_settings(file).mqtt("x").rules
    assert (rule.filter, rule.topic) == ("a/#", "a")


def test_bridge_runs_if_anything_is_said_of_it(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, '[bridge]\nhost = "mosquitto"\n')).has_bridge
    assert not load_settings(write(tmp_path, '[bridge]\nhost = "mosquitto"\nenable = false\n')).has_bridge
    assert load_settings(environment={"FOREBAY_BRIDGE_FILTERS": "a/#, b"}).bridge("x").filters == ("a/#", "b")


def test_gateway_without_a_port_is_none(tmp_path: Path) -> None:
    file = tmp_path / "forebay.toml"
    for text, there in (("port = -1", False), ("enable = false", False), ("port = 0", True)):
        file.write_text(f"[mqtt]\n{text}\n")
        assert load_settings(file).has_gateway == there


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[broker]\n"default.replication.factor" = 33', "expected 0 to 32"),
        ('[broker]\n\n"log.retenton.ms" = 1', "forebay.toml:3: unknown key log.retenton.ms in [broker]; did you mean"),
        ("[brokr]\na = 1", "forebay.toml:2: unknown section [brokr]; did you mean [broker]?"),
        ("port = 1", "forebay.toml:1: port stands outside of a section; move it under [mqtt]"),
        ('[broker]\n"retention.ms" = 1', "retention.ms is no setting of [broker]; it belongs under [topic-defaults]"),
        ('[topic-defaults]\n"value.dtype" = "<f8"', "forebay.toml:2: value.dtype has no default for all topics"),
        ('[broker]\n"num.partitions" = "many"', "forebay.toml:2: num.partitions=many: expected a whole number"),
        ('[broker]\n"log.retention.ms" = -2', "forebay.toml:2: log.retention.ms=-2: expected -1 to"),
        ('[broker]\n"auto.create.topics.enable" = 1', "expected true or false"),
        ('[broker]\n"log.flush.interval.ms" = 5', "log.flush.interval.ms=5 is not supported by this version"),
        ('[broker]\n"zookeeper.connect" = "a:2181"', "zookeeper.connect makes this machine one of several"),
        ('[broker]\n"log.cleanup.policy" = "shrink"', "expected delete or compact"),
        ('[broker]\n"log.cleaner.io.max.bytes.per.second" = 5', "expected 1024 or more"),
        ('[broker]\n"log.retention.ms" = 1\n[topic-defaults]\n"retention.ms" = 2', "are the same setting; keep one"),
        ('[broker]\nlisteners = "tcp://0.0.0.0:9192"', "allow.insecure.listeners=true"),
        ('[broker]\nlisteners = "9192"', "expected tcp://host:port"),
        (
            '[broker]\nlisteners = "tcp://0.0.0.0:9192"\n"allow.insecure.listeners" = true',
            "every address of this machine; set advertised.listeners",
        ),
        (
            '[broker]\nlisteners = "tcp://127.0.0.1:9192"\n"advertised.listeners" = "box"',
            "advertised.listeners=box: expected tcp://host:port",
        ),
        ('[broker]\n"advertised.listeners" = "tcp://box:9192"', "needs listeners"),
        ("[mqtt]\nport = 70000", "mqtt.port=70000: expected 0"),
        ('[mqtt]\nhost = "0.0.0.0"', "allow_insecure=true"),
        ('[http]\nhost = "0.0.0.0"', "allow_insecure=true under [http]"),
        ("[mqtt]\nrules = 3", "forebay.toml:2: mqtt.rules=3: Expected `array`"),
        ("[broker]\nx = ", "forebay.toml:2:"),
        ("[broker]\n\"a\" = 1\n\"a\" = 2", "forebay.toml:3:"),
    ],
)  # fmt: skip
def test_problem_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in problems(tmp_path, text + "\n")


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    said = problems(tmp_path, '[broker]\n"a" = 1\n"b" = 2\n', FOREBAY_MQTT_PORT="x")
    assert len(said.splitlines()) == 3
    assert "FOREBAY_MQTT_PORT: mqtt.port=x" in said
    assert len(problems(tmp_path, '[broker]\nlisteners = "9192"').splitlines()) == 1, "each once"


def test_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file or directory; name another with --config"):
        load_settings(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(tmp_path / "binary.toml")


def test_variable_that_is_nearly_a_setting_is_warned_of() -> None:
    found = load_settings(environment={"FOREBAY_LOG_RETENTION_MSS": "1", "FOREBAY_SERVICE_HOST": "10.0.0.1"})
    assert found.warnings == [
        "environment: FOREBAY_LOG_RETENTION_MSS is no setting; did you mean FOREBAY_LOG_RETENTION_MS?"
    ]


def test_a_kafka_listener_beyond_loopback_has_to_be_allowed() -> None:
    with pytest.raises(ConfigError, match=r"password_file .* TLS only .* or allow_insecure"):
        load_settings(flags={("kafka", "port"): ("--kafka-port", 0), ("kafka", "host"): ("--kafka-host", "0.0.0.0")})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tls_port = 9093", "kafka: tls_port=9093 needs tls_cert_file and tls_key_file"),
        ('tls_port = 9094\ntls_cert_file = "c"\ntls_key_file = "k"', "set an even and an odd one, as 9092 and 9093"),
        ('host = "0.0.0.0"\npassword_file = "users"', "TLS only"),
        ("tls_port = 70000", r"kafka\.tls_port=70000"),
        (
            'tls_cert_file = "c"\ntls_key_file = "k"\ntls_port = 65535',
            r"tls_port=65535: brokers take every other",
        ),
        ("advertised_tls_port = -1", "advertised_tls_port=-1 is no port"),
    ],
)
def test_what_kafka_listeners_need_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "forebay.toml"
    path.write_text(f"[broker]\nbrokers = 2\n\n[kafka]\n{text}\n")
    with pytest.raises(ConfigError, match=said):
        load_settings(path)


@pytest.mark.parametrize("section", ["mqtt", "kafka"])
def test_files_of_gateways_are_looked_at_before_anything_starts(tmp_path: Path, section: str) -> None:
    def check(**fields: object) -> None:
        load_settings(flags={(section, key): (key, value) for key, value in fields.items()}).check_files()

    users, key = tmp_path / "users", tmp_path / "key"
    with pytest.raises(ConfigError, match="can't read the password file"):
        check(password_file=str(users))
    users.write_text("nonsense\n")
    users.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        check(password_file=str(users))
    users.chmod(0o600)
    with pytest.raises(ConfigError, match="users:1: "):
        check(password_file=str(users))
    tls = {"tls_port": 9093, "tls_cert_file": str(tmp_path / "cert"), "tls_key_file": str(key)}
    with pytest.raises(ConfigError, match=f"{section}: tls_key_file="):
        check(**tls)
    key.write_text("nonsense")
    key.chmod(0o600)
    with pytest.raises(ConfigError, match=f"{section}: tls_cert_file="):
        check(**tls)
