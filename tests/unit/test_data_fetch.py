"""Fetching iNaturalist-12K: resumed, verified and unpacked with care; against a server on this machine."""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.server
import io
import re
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from da6401.commands.data import add_verbs
from da6401.config.schema import FolderConfig
from da6401.data.fetch import inaturalist as fetch
from da6401.data.fetch.download import download
from da6401.data.fetch.inaturalist import Fetched, fetch_inaturalist
from da6401.data.fetch.unzip import unpack
from da6401.data.sources import load_test_data, load_training_data
from da6401.errors import DataError


class Server(http.server.ThreadingHTTPServer):
    """One file, with Range and If-Range as a storage server has them, and faults on request."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.etag = '"one"'
        self.md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        self.ranges = True
        self.cut_after: list[int] = []  # bytes after which each of the next answers breaks off
        self.status: list[int] = []  # of the next answers; then 200 or 206
        self.requests: list[str] = []  # their Range headers
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range", "")
        server.requests.append(wanted)
        if server.status:
            self.send_error(server.status.pop(0))
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") in (None, server.etag):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(server.content):
                self.send_error(416)
                return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_header("x-goog-hash", "crc32c=AAAAAA==")
            self.send_header("x-goog-hash", f"md5={server.md5}")
        self.end_headers()
        self.wfile.write(body[: server.cut_after.pop(0)] if server.cut_after else body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    content = np.random.default_rng(0).bytes(50_000)
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: Server, folder: Path, expected_bytes: int | None = None) -> bytes:
    download(f"{server.url}/file.zip", folder / "file.zip", expected_bytes=expected_bytes, pause_s=0)
    assert [path.name for path in folder.iterdir()] == ["file.zip"]
    return (folder / "file.zip").read_bytes()


# ---- the download -----------------------------------------------------------------------------------------------


def test_a_file_arrives_whole(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, expected_bytes=50_000) == server.content
    assert server.requests == [""]


def test_dropped_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.cut_after = [10_000, 15_000, 5_000]
    assert get(server, tmp_path) == server.content
    assert server.requests == ["", "bytes=10000-", "bytes=25000-", "bytes=30000-"]


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.cut_after = [20_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"20,000 bytes are kept in .*file\.zip\.part: the same command") as caught:
        get(server, tmp_path)
    assert "By hand: download" in str(caught.value)
    server.requests.clear()
    assert get(server, tmp_path) == server.content
    assert server.requests == ["bytes=20000-"]


@pytest.mark.parametrize("change", ["etag", "no ranges", "shorter"])
def test_what_cannot_be_continued_starts_again(server: Server, tmp_path: Path, change: str) -> None:
    server.cut_after = [20_000, 0, 0, 0]
    with pytest.raises(DataError):
        get(server, tmp_path)
    if change == "no ranges":
        server.ranges = False
    else:
        server.content = np.random.default_rng(1).bytes(60_000 if change == "etag" else 10_000)
        server.md5 = base64.b64encode(hashlib.md5(server.content).digest()).decode()
        server.etag = '"two"' if change == "etag" else server.etag
    assert get(server, tmp_path) == server.content


def test_a_server_error_is_tried_again_and_a_refusal_is_not(server: Server, tmp_path: Path) -> None:
    server.status = [503, 500]
    assert get(server, tmp_path) == server.content
    (tmp_path / "file.zip").unlink()
    server.status = [404]
    server.requests.clear()
    with pytest.raises(DataError, match="answers 404"):
        get(server, tmp_path)
    assert server.requests == [""]


def test_a_wrong_checksum_or_length_is_no_download(server: Server, tmp_path: Path) -> None:
    server.md5 = base64.b64encode(bytes(16)).decode()
    with pytest.raises(DataError, match="MD5"):
        get(server, tmp_path)
    with pytest.raises(DataError, match="50,000 bytes, not the 49,999"):
        get(server, tmp_path, expected_bytes=49_999)
    assert list(tmp_path.iterdir()) == []


def test_no_network_names_the_url_and_the_way_by_hand(tmp_path: Path) -> None:
    with Server(b"") as server:
        url = f"{server.url}/nature_100.zip"
    with pytest.raises(DataError) as caught:
        download(url, tmp_path / "nature_100.zip", expected_bytes=None, pause_s=0)
    assert url in str(caught.value)
    assert f"put it at {tmp_path / 'nature_100.zip'}" in str(caught.value)


def test_too_little_room_is_said_before_anything_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 60_000))
    with pytest.raises(DataError, match="GB free"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- the archive ------------------------------------------------------------------------------------------------


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def inaturalist(top: str = "inaturalist_12K/") -> bytes:
    """A small zip of the real one's shape."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{top}.DS_Store", b"junk")
        archive.writestr(f"{top}train/.DS_Store", b"junk")
        archive.writestr(f"__MACOSX/{top}._.DS_Store", b"junk")
        archive.writestr(f"__MACOSX/{top}train/Fungi/._0.jpg", b"junk")
        for number, name in enumerate(("Amphibia", "Fungi", "Plantae")):
            archive.writestr(f"{top}train/{name}/", b"")
            for index in range(5):
                archive.writestr(f"{top}train/{name}/{index}.jpg", jpeg(10 * number + index))
            archive.writestr(f"{top}val/{name}/0.jpg", jpeg(100 + number))
    return buffer.getvalue()


def archive_with(tmp_path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/train/a/0.jpg", jpeg(0))
        for name, content in entries:
            archive.writestr(name, content)
    return path


def refused(tmp_path: Path, archive: Path, message: str) -> None:
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DataError, match=message):
        unpack(archive, into)
    assert list(into.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip", "into"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.txt", "outside the folder"),
        ("data/../../evil.txt", "outside the folder"),
        ("/tmp/evil.txt", "outside the folder"),
        ("C:/evil.txt", "drive letter"),
        ("data\\..\\evil.txt", "backslash"),
        ("data/train/a/./0.jpg", "stands twice"),
    ],
)
def test_an_entry_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str, message: str) -> None:
    refused(
        tmp_path, archive_with(tmp_path, (name, b"")), f"{message}.* unpack it with another program, zip the folder"
    )


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("data/train/a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(tmp_path, archive_with(tmp_path, (link, b"/etc/passwd")), "is a link")


def test_bombs_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, archive_with(tmp_path, ("data/zeros", bytes(4 * 2**20))), "would grow .* times")
    shutil.rmtree(tmp_path / "into")
    pieces = [(f"data/{number}", bytes(2**20)) for number in range(4)]
    refused(tmp_path, archive_with(tmp_path, *pieces), "bytes would become")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    content = bytearray(inaturalist())
    content[content.index(jpeg(2)) + 300] ^= 0xFF
    for damaged, message in ((bytes(content), "CRC"), (inaturalist()[:-100], "no sound zip"), (b"<html>", "no sound")):
        (tmp_path / "bad.zip").write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            unpack(tmp_path / "bad.zip", tmp_path / "into")


def test_too_little_room_for_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 10))
    refused(tmp_path, archive_with(tmp_path), "GB free")


# ---- the whole --------------------------------------------------------------------------------------------------


def run(command: list[str]) -> int:
    parser = argparse.ArgumentParser()
    add_verbs(parser)
    args = parser.parse_args(command)
    code: int = args.handler(args)
    return code


def test_fetch_from_server_to_training_data(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PAUSE_S", 0)
    server.content = inaturalist()
    server.md5 = base64.b64encode(hashlib.md5(server.content).digest()).decode()
    server.cut_after = [3000]
    command = ["fetch", "inaturalist12k", "--to", str(tmp_path / "data"), "--url-base", server.url]
    assert run(command) == 0
    out = capsys.readouterr().out
    root = tmp_path / "data" / "inaturalist_12K"
    assert f"data=inaturalist12k data.root={root}\n" in out
    assert "    Fungi: 5\n" in out
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["inaturalist_12K", "nature_12K.zip"]
    assert not list(root.rglob(".*"))

    cfg = FolderConfig(root=str(root), image_size=8)
    data = load_training_data(cfg)
    assert data.class_names == ("Amphibia", "Fungi", "Plantae")
    assert (len(data.train.names), len(data.validation.names)) == (12, 3)
    assert load_test_data(cfg, data.class_names).names[0] == "val/Amphibia/0.jpg"

    server.requests.clear()
    assert run(command) == 0
    assert capsys.readouterr().out.startswith("Already there")
    assert server.requests == []


@pytest.mark.parametrize("top", ["", "nature_12K/inaturalist_12K/"])
def test_a_zip_placed_by_hand_is_used(tmp_path: Path, top: str) -> None:
    (tmp_path / "nature_1K.zip").write_bytes(inaturalist(top))
    fetched = fetch_inaturalist(size="1K", to=tmp_path, url_base=fetch.URL_BASE)
    assert fetched == Fetched(tmp_path / "inaturalist_1K", already_there=False, archive=tmp_path / "nature_1K.zip")
    assert len(list(fetched.root.rglob("*.jpg"))) == 18
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inaturalist_1K", "nature_1K.zip"]


def test_an_incomplete_zip_placed_by_hand_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nature_12K.zip").write_bytes(inaturalist())
    with pytest.raises(DataError, match="not complete"):
        fetch_inaturalist(size="12K", to=tmp_path, url_base=fetch.URL_BASE)


def test_a_zip_of_something_else_leaves_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "nature_100.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="no train/"):
        fetch_inaturalist(size="100", to=tmp_path, url_base=fetch.URL_BASE)
    assert [path.name for path in tmp_path.iterdir()] == ["nature_100.zip"]


def test_only_http_is_fetched_and_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must begin with https"):
        fetch_inaturalist(size="100", to=tmp_path, url_base="file:///etc")
    with pytest.raises(DataError, match=r"--url-base http://\[bad: is no address \(Invalid IPv6 URL\)"):
        fetch_inaturalist(size="100", to=tmp_path, url_base="http://[bad")
    (tmp_path / "inaturalist_100").mkdir()
    with pytest.raises(DataError, match="move it away"):
        fetch_inaturalist(size="100", to=tmp_path, url_base=fetch.URL_BASE)
