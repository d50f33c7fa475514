import io
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.data.fetch import fetch
from training.errors import UserError


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing: a test's stderr is for failures."""


class _CutShort(_Quiet):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"PK")


@pytest.fixture
def serve():
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def mirror(tmp_path, serve):
    (tmp_path / "mirror").mkdir()
    return serve(partial(_Quiet, directory=tmp_path / "mirror"))


def _archive(tmp_path, members):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    (tmp_path / "mirror" / "ml-1m.zip").write_bytes(raw.getvalue())


def test_the_archive_is_unpacked_without_its_folder(tmp_path, mirror):
    _archive(tmp_path, {"ml-1m/": "", "ml-1m/ratings.dat": "1::2::3::4\n", "ml-1m/README": "hi"})
    seen = []
    fetch("ml-1m", tmp_path / "raw", mirror=mirror, progress=lambda *step: seen.append(step))
    assert (tmp_path / "raw" / "ratings.dat").read_text() == "1::2::3::4\n"
    assert (tmp_path / "raw" / "README").exists()
    assert seen[-1][0] == seen[-1][1] == (tmp_path / "mirror" / "ml-1m.zip").stat().st_size


def test_a_second_fetch_replaces_the_first(tmp_path, mirror):
    for text in ("old", "new"):
        _archive(tmp_path, {"ml-1m/ratings.dat": text})
        fetch("ml-1m", tmp_path / "raw", mirror=mirror)
    assert (tmp_path / "raw" / "ratings.dat").read_text() == "new"


def test_no_path_of_the_archive_leads_out_of_the_directory(tmp_path, mirror):
    _archive(tmp_path, {"../evil": "x", "ml-1m/../../evil": "x", "/etc/evil": "x", "ml-1m/a": "y"})
    fetch("ml-1m", tmp_path / "raw", mirror=mirror)
    assert not (tmp_path / "evil").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mirror", "raw"}
    assert (tmp_path / "raw" / "a").read_text() == "y"


def _refused(tmp_path, mirror, message, name="ml-1m"):
    with pytest.raises(UserError, match=message) as error:
        fetch(name, tmp_path / "raw", mirror=mirror)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"mirror"}


def test_no_network_names_the_synthetic_data_set(tmp_path):
    _refused(tmp_path, "http://127.0.0.1:1", r"refused.*marquee data synth .*raw")
    _refused(tmp_path, "http://no-such-host.invalid", "marquee data synth")


def test_a_missing_archive_says_so(tmp_path, mirror):
    _refused(tmp_path, mirror, "HTTP 404")


def test_a_download_cut_short_is_refused(tmp_path, serve):
    _refused(tmp_path, serve(_CutShort), "ended after 2 of 1000 bytes")


def test_an_archive_that_is_none_is_refused(tmp_path, mirror):
    (tmp_path / "mirror" / "ml-1m.zip").write_bytes(b"<html>not here</html>")
    _refused(tmp_path, mirror, "not a whole zip archive")


def test_an_unknown_name_lists_those_known(tmp_path):
    _refused(tmp_path, "http://127.0.0.1:1", "ml-latest-small, ", name="movielens")
