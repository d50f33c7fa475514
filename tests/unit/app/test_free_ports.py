"""Ports that stay free until they are listened on."""

import socket

import pytest

from app import free_ports
from app.free_ports import free_port


def test_a_port_can_be_listened_on_and_is_none_of_those_of_outgoing_connections():
    first = int(free_ports._RANGE.read_text().split()[0]) if free_ports._RANGE.exists() else 32_768
    with socket.socket() as server:
        server.bind(("127.0.0.1", port := free_port()))
        server.listen()
        assert free_ports._FIRST <= port < first
        assert free_port() != port


@pytest.mark.parametrize("said", ["1024\t65535\n", "nothing", None])
def test_there_are_ports_wherever_those_of_outgoing_connections_begin(monkeypatch, tmp_path, said):
    told = tmp_path / "range"
    if said is not None:
        told.write_text(said)
    monkeypatch.setattr(free_ports, "_RANGE", told)
    assert free_port() >= free_ports._FIRST
