"""What doctor sees of a gateway: with and without TLS, passwords and clients' certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edge.kafka.codec import APIS
from edge.kafka.gateway import Gateway
from edge.kafka.probe import CertificateWanted, look
from tests.cluster import Cluster
from tests.edge.kafka.running_gateway import running_gateway
from tests.edge.kafka.users import make_users
from tests.edge.security.certificates import certificate

TIMEOUT_S = 10


def test_versions_and_brokers_are_told(gateway: Gateway) -> None:
    seen = look("127.0.0.1", gateway.port, timeout_s=TIMEOUT_S)
    assert seen.versions[3] == (APIS[3].advertised, APIS[3].highest)
    assert seen.brokers is not None
    assert seen.brokers[1] == ("127.0.0.1", gateway.port)
    assert seen.brokers.keys() == {1, 2}


@pytest.mark.needs("openssl")
def test_by_tls_and_before_a_login_there_are_versions_alone(cluster: Cluster, tmp_path: Path) -> None:
    certificate(tmp_path, "server")
    make_users(tmp_path / "users")
    files = {"tls_cert_file": str(tmp_path / "server.pem"), "tls_key_file": str(tmp_path / "server.key")}
    users = {"password_file": str(tmp_path / "users")}
    with running_gateway(cluster.bootstrap, tls_port=0, **files) as opened:
        seen = look("127.0.0.1", opened.tls_port, timeout_s=TIMEOUT_S, tls=True)
        assert seen.brokers is not None
        assert seen.brokers[1] == ("127.0.0.1", opened.tls_port)
        with pytest.raises(ssl.SSLError):
            look("127.0.0.1", opened.port, timeout_s=TIMEOUT_S, tls=True)
    with running_gateway(cluster.bootstrap, tls_port=0, **files, **users) as opened:
        assert look("127.0.0.1", opened.port, timeout_s=TIMEOUT_S).brokers is None
        assert look("127.0.0.1", opened.tls_port, timeout_s=TIMEOUT_S, tls=True).brokers is None
        assert len(look("127.0.0.1", opened.port, timeout_s=TIMEOUT_S).versions) >= len(APIS)
    mutual = {**files, "tls_client_ca_file": files["tls_cert_file"]}
    with (
        running_gateway(cluster.bootstrap, tls_port=0, **mutual) as opened,
        pytest.raises(CertificateWanted),
    ):
        look("127.0.0.1", opened.tls_port, timeout_s=TIMEOUT_S, tls=True)
