"""`marquee serve` that cannot start: one line that says what to do, and exit status 2."""

import resource
import shutil
import socket

import pytest
import typer
from typer.testing import CliRunner

from app import commands, local
from tests.bundles import tiny_bundle


@pytest.fixture
def serve(tmp_path):
    """Run the command on a store; the one line that it says."""
    app = typer.Typer()
    commands.register(app)

    def run(store, *options):
        state = ("--state-dir", str(tmp_path / "state"))
        done = CliRunner().invoke(app, ["serve", "--store", str(store), *state, *options])
        assert done.exit_code == 2
        assert not (tmp_path / "state").exists()  # nothing was started
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """To be copied."""
    return tiny_bundle(tmp_path_factory.mktemp("serve") / "1", n_items=12, n_users=3)


@pytest.fixture
def store(bundle, tmp_path):
    """One version, promoted."""
    store = tmp_path / "store"
    shutil.copytree(bundle, store / "bundles" / "1")
    (store / "production.json").write_text(
        '{"version": "1", "previous": [], "changed_at": "2026-01-01"}'
    )
    return store


def test_a_port_in_use_is_named(serve, store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = serve(store, "--port", port)
    assert port in line and "choose another with --port" in line


@pytest.mark.parametrize("damage", ["half-written", "wrong format", "no index"])
def test_a_damaged_bundle_is_named(serve, store, free_tcp_port, damage):
    bundle = store / "bundles" / "1"
    manifest = bundle / "manifest.json"
    if damage == "half-written":
        manifest.unlink()
    elif damage == "wrong format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99', 1))
    else:
        next(p for p in (bundle / "index").rglob("*") if p.is_file()).unlink()
    assert "bundles/1" in serve(store, "--port", str(free_tcp_port))


def test_an_empty_store_says_how_to_fill_it(serve, tmp_path, free_tcp_port):
    assert "marquee publish" in serve(tmp_path, "--port", str(free_tcp_port))


def test_a_setting_that_is_none_is_named(serve, store):
    assert "topology" in serve(store, "--topology", "ring")


@pytest.mark.parametrize("most", [256, 1024, 20_000, resource.RLIM_INFINITY])
def test_haproxy_is_asked_for_no_more_than_there_are_file_descriptors_for(monkeypatch, most):
    monkeypatch.setattr(local.resource, "getrlimit", lambda what: (most, most))
    connections = local.haproxy_connections()
    assert 0 < connections <= 4096
    assert most == resource.RLIM_INFINITY or connections * 2.5 + 50 < most
