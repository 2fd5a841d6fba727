"""da6401 serve: answers of predict over HTTP, in batches; limits; a thousand hostile uploads; no request lost."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from da6401.cli import main
from da6401.commands.serving.limits import Place
from da6401.commands.serving.serve_run import listen
from da6401.runs.run_folder import ENSEMBLE, read_json
from da6401.runs.trial_folders import MODEL
from da6401.training.run import run
from tests import forked
from tests.pngs import chunk
from tests.run.test_export import make_pictures, photograph
from tests.run.test_plugins import train
from tests.sweep.sweeps import FOLDER, SWEEP
from tests.tiny_runs import SMALL, compose, typed

pytestmark = pytest.mark.integration

BOUNDARY = "a5c1e0"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
LIMITS = ("--megabytes", "2", "--files", "4", "--megapixels", "3", "--seconds", "3")
File = tuple[str, bytes]  # name, content


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    port: int
    command: forked.Command

    def ask(
        self, method: str, path: str, body: bytes | Iterator[bytes] = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer; a text where it is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(content) if is_json else content.decode()

    def predict(self, *files: File, path: str = "/predict") -> tuple[int, Any]:
        return self.ask("POST", path, form(*files), FORM)

    def counted(self, name: str) -> float:
        """A value of /metrics."""
        lines = str(self.ask("GET", "/metrics")[1]).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def form(*files: File) -> bytes:
    body = io.BytesIO()
    for name, content in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body.write(head.encode() + content + b"\r\n")
    body.write(f"--{BOUNDARY}--\r\n".encode())
    return body.getvalue()


def png(width: int = 20, height: int = 30, *, seed: int = 0) -> bytes:
    content = io.BytesIO()
    photograph(width, height, seed=seed).save(content, "PNG")
    return content.getvalue()


@contextmanager
def serving(run: Path | str, *words: str, cwd: Path | None = None) -> Iterator[Served]:
    with forked.begun(["serve", str(run), "--port", "0", *words], cwd=cwd or Path(run).parent) as command:
        deadline = time.monotonic() + 60
        while "http://" not in (said := command.out.read_text()):
            assert command.process.is_alive(), command.err.read_text()
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.05)
        yield Served(int(said.partition("127.0.0.1:")[2].partition("/")[0]), command)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "run"
    run(compose(*SMALL, "trainer.epochs=3"), folder)
    return folder


@pytest.fixture(scope="module")
def served(finished: Path) -> Iterator[Served]:
    with serving(finished, *LIMITS) as running:
        yield running


def by_predict(folder: Path, *words: str | Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["predict", str(folder), *map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_answers_are_those_of_predict(
    served: Served, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = make_pictures(tmp_path)
    Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50).save(tmp_path / "grey.tif")
    pictures.append(tmp_path / "grey.tif")
    expected = by_predict(finished, *pictures, capsys=capsys)
    for path, line in zip(pictures, expected, strict=True):
        status, said = served.predict((path.name, path.read_bytes()))
        assert (status, said) == (200, {"predictions": [{**line, "image": path.name}]}), path.name  # to the bit
    for first in range(0, len(pictures), 4):  # several at once go through the model together: the last bits differ
        some = pictures[first : first + 4]
        status, said = served.predict(*((path.name, path.read_bytes()) for path in some))
        assert status == 200
        for line, answer in zip(expected[first:], said["predictions"], strict=False):
            assert (Path(line["image"]).name, line["class"]) == (answer["image"], answer["class"])
            assert answer["probabilities"] == pytest.approx(line["probabilities"], abs=1e-6)


def test_one_file_may_be_the_body_and_top_is_that_of_predict(
    served: Served, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    (line,) = by_predict(finished, path, "--top", "2", capsys=capsys)
    status, said = served.ask("POST", "/predict?top=2", path.read_bytes(), {"Content-Type": "image/png"})
    assert (status, said["predictions"]) == (200, [{**line, "image": "upload"}])
    assert len(line["probabilities"]) == 2


def test_tta_and_calibrated_are_those_of_predict(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    (line,) = by_predict(finished, path, "--tta", "--calibrated", capsys=capsys)
    with serving(finished, "--tta", "--calibrated") as running:
        assert running.predict(("a", path.read_bytes()))[1]["predictions"] == [{**line, "image": "a"}]
    assert by_predict(finished, path, capsys=capsys)[0]["probabilities"] != line["probabilities"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a sweep of two trials was run; beside them `model`, as `tune` hands one over."""
    place = tmp_path_factory.mktemp("searched")
    code, _, err = typed(*SWEEP, "optimizer.lr=choice(0.0001,0.02)", "hydra.sweeper.n_trials=2", cwd=place)
    assert code == 0, err
    tuned = place / "outputs/sweeps/tuned"
    shutil.copytree(place / FOLDER, tuned)
    (tuned / MODEL).mkdir()
    for file in ("config.yaml", "receipt.json", "result.json"):
        shutil.copy(tuned / "trial-0" / file, tuned / MODEL)
    (tuned / MODEL / ENSEMBLE).write_text('{"runs": ["trial-0", "trial-1"], "flips": true}')
    os.utime(place / FOLDER / "sweep.json")
    return place


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("s", "sweep s: its best trial, "),
        (str(FOLDER), "sweep s: its best trial, "),
        ("latest", "latest: sweep s: its best trial, "),
        ("tuned", "sweep tuned: the model that it hands over, outputs/sweeps/tuned/model"),
        ("outputs/sweeps/tuned/model", ""),
    ],
)
def test_what_is_served_is_what_predict_takes_and_is_said(
    word: str, says: str, searched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(searched)
    best = str(FOLDER / Path(read_json(FOLDER / "sweep.json")["winner"]).name)
    chosen = best if "best trial" in says else "outputs/sweeps/tuned/model"
    Path("a.png").write_bytes(png())
    (line,) = by_predict(Path(chosen), "a.png", capsys=capsys)
    with serving(word, cwd=searched) as running:
        assert running.predict(("a.png", png()))[1]["predictions"] == [line]
        told = running.command.err.read_text()
    assert told == (f"da6401: {says.removesuffix(chosen)}{chosen}\n" if says else "")


def test_a_run_with_a_plugin_is_served_with_it_and_says_what_it_needs_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = typed("serve", "run", "--port", "0", cwd=tmp_path)
    assert code == 2
    assert "run: was trained with the plugin own_model.py (sha256 " in err
    assert "remedy: add --plugin own_model.py" in err
    Path("a.png").write_bytes(png())
    (line,) = by_predict(run, "a.png", "--plugin", "own_model.py", capsys=capsys)
    with serving("run", "--plugin", "own_model.py", cwd=tmp_path) as running:
        assert running.predict(("a.png", png()))[1]["predictions"] == [line]


def test_concurrent_requests_share_batches_and_get_their_own_answers(finished: Path) -> None:
    with serving(finished, "--wait-ms", "200", "--batch", "8") as running:
        files = [(f"{seed}.png", png(seed=seed)) for seed in range(24)]
        alone = [running.predict(each)[1]["predictions"][0] for each in files]
        before = running.counted("da6401_batch_images_count")
        with ThreadPoolExecutor(len(files)) as threads:
            together = list(threads.map(running.predict, files))
        batches = running.counted("da6401_batch_images_count") - before
        assert batches < len(files) / 2
        assert running.counted("da6401_batch_images_sum") == 2 * len(files)
        assert running.counted('da6401_images_total{outcome="answered"}') == 2 * len(files)
    assert len({each["probability"] for each in alone}) == len(files), "answers that are alike would prove nothing"
    for one, (status, said) in zip(alone, together, strict=True):
        assert status == 200
        assert said["predictions"][0]["image"] == one["image"]
        assert said["predictions"][0]["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6)


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that promises these pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(min(width * height, 10**6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = io.BytesIO()
    photograph(90, 90).save(content, "JPEG", progressive=True)
    jpeg = content.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + b"\xff\xd9"


def slowly(seconds: float) -> Iterator[bytes]:
    yield form(("a.png", png()))[:100]
    time.sleep(seconds)


def much(count: int) -> Iterator[bytes]:
    yield form(("a.png", b""))[:90]
    for _ in range(count):
        yield bytes(10**5)


@pytest.mark.parametrize(
    ("request_of", "status", "says"),
    [
        (lambda: ("POST", "/predict", form(("a", bytes(2_100_000))), FORM), 413, "larger than 2 MB"),
        (lambda: ("POST", "/predict", much(21), FORM), 413, "larger than 2 MB"),  # without Content-Length
        (lambda: ("POST", "/predict", form(*[("a.png", png())] * 5), FORM), 413, "Maximum number of files is 4"),
        (lambda: ("POST", "/predict", form(("a.png", bomb(2000, 1501))), FORM), 413, "2000 x 1501 px: more than 3"),
        (lambda: ("POST", "/predict", form(("a.png", bomb(60000, 60000))), FORM), 422, "decompression bomb"),
        (lambda: ("POST", "/predict", form(("a.jpg", scans(250))), FORM), 413, "200 scans"),
        (lambda: ("POST", "/predict", slowly(3.5), FORM), 408, "within 3 s"),
        (lambda: ("POST", "/predict", b"{}", {"Content-Type": "application/json"}), 415, "multipart/form-data"),
        (lambda: ("POST", "/predict", form(), FORM), 400, "no file in the request"),
        (lambda: ("POST", "/predict", b"nothing of it", FORM), 400, "the form cannot be read"),
        (lambda: ("POST", "/predict", b"", {"Content-Type": "multipart/form-data"}), 400, "boundary"),
        (lambda: ("POST", "/predict", form(("a", b"")), FORM), 422, "empty file"),
        (lambda: ("POST", "/predict", form(("a", png()[:200])), FORM), 422, "truncated"),
        (lambda: ("POST", "/predict?top=9", form(("a", png())), FORM), 422, "3 classes"),
        (lambda: ("POST", "/predict?top=x", form(("a", png())), FORM), 422, "top"),
        (lambda: ("GET", "/predict", b"", {}), 405, "Method Not Allowed"),
        (lambda: ("GET", "/../etc/passwd", b"", {}), 404, "Not Found"),
        (lambda: ("GET", "/health", b"", {"Host": "evil.example"}), 403, "another name"),
        (lambda: ("POST", "/predict", form(("a", png())), {**FORM, "Origin": "http://a.b"}), 403, "another site"),
        (lambda: ("GET", "/health", b"", {"X": "x" * 500_000}), 400, "headers are too large"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_why_as_json(
    served: Served, request_of: Callable[[], tuple[str, str, bytes, dict[str, str]]], status: int, says: str
) -> None:
    got, said = served.ask(*request_of())
    assert got == status
    assert says in json.dumps(said)
    assert said["error"]


def test_the_good_files_of_a_request_are_answered(served: Served) -> None:
    status, said = served.predict(("good.png", png()), ("bad.png", b"no picture"), ("good.png", png(seed=1)))
    assert status == 422
    assert said["error"] == "1 of 3 files cannot be read"
    assert [each["image"] for each in said["files"]] == ["bad.png"]
    assert [each["image"] for each in said["predictions"]] == ["good.png", "good.png"]


NAMES = ("", "../../etc/passwd", 'a";b="', "\x00", "a\r\nX: y", "x" * 5000, "\x80", "a.png; filename*=utf-8''b")
KINDS = (
    "multipart/form-data", "multipart/form-data; boundary=", f"{FORM['Content-Type']}; charset=rot13",
    f"{FORM['Content-Type']}; charset=base64", f'{FORM["Content-Type"]}; charset="\x80"',
    "multipart/form-data; boundary=" + "x" * 300, "image/png", "application/octet-stream", "text/plain", "",
)  # fmt: skip


def hostile(number: int) -> tuple[bytes, dict[str, str]]:
    """A body and headers: pictures that are cut, flipped or promise too much, forms that are none, and plain noise."""
    rng = random.Random(number)
    picture = bytearray(PICTURES[number % len(PICTURES)])
    name, headers = "a.png", dict(FORM)
    kind = number // len(PICTURES) % 10
    if kind == 0:
        picture = picture[: rng.randrange(len(picture))]
    elif kind in (1, 2):
        for _ in range(rng.randrange(1, 40)):
            picture[rng.randrange(len(picture) if kind == 1 else 60)] = rng.randrange(256)
    elif kind == 3:
        picture = bytearray(rng.randbytes(rng.randrange(2000)))
    elif kind == 4:
        picture = bytearray(bomb(rng.randrange(2**31), rng.randrange(2**31)))
    elif kind == 5:
        name = rng.choice(
            [
                "",
                "../../etc/passwd",
                'a";b="',
                "\x00",
                "a\r\nX: y",
                "x" * 5000,
                "\udc80".encode("utf-8", "surrogateescape").decode("latin-1"),
            ]
        )
    elif kind == 6:
        headers["Content-Type"] = rng.choice(KINDS)
    body = form((name, bytes(picture)))
    if kind == 7:
        cut = rng.randrange(len(body))
        body = body[:cut] + rng.randbytes(20) + body[cut + 20 :]
    elif kind == 8:
        body = body[: rng.randrange(len(body))]
    elif kind == 9:
        body = body.replace(b"Content-Disposition", b"X" * rng.randrange(9000), 1)
    return body, headers


def _pictures() -> Sequence[bytes]:
    made = []
    for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
        content = io.BytesIO()
        photograph(24, 18).save(content, name)
        made.append(content.getvalue())
    return made


PICTURES = _pictures()


def test_a_thousand_hostile_uploads_are_no_failure(served: Served) -> None:
    expected = served.predict(("a.png", png()))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: served.ask("POST", "/predict", *hostile(number)), range(1000)))
    statuses = [status for status, _ in found]
    assert set(statuses) <= {200, 400, 413, 415, 422}, sorted(set(statuses))
    assert min(statuses.count(each) for each in (200, 400, 415, 422)) >= 10, "each kind has come"
    assert all("error" in said for status, said in found if status != 200)
    assert served.predict(("a.png", png())) == expected
    assert served.counted('da6401_requests_total{path="/predict",status="500"}') == 0
    assert served.command.err.read_text() == ""


def test_broken_connections_do_not_stop_it(served: Served) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    for start in (b"", b"\x16\x03\x01", b"GET / HTTP/x\r\n\r\n", head, head + b"Content-Length: -1\r\n\r\n",
                  head + b"Content-Length: 99\r\nContent-Type: image/png\r\n\r\nabc",
                  head + b"Transfer-Encoding: chunked\r\nContent-Type: image/png\r\n\r\nzz\r\n"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(start)
            if b"\r\n\r\n" in start and b"99" not in start:
                assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    assert served.predict(("a.png", png()))[0] == 200
    assert served.command.err.read_text() == ""


def test_it_is_found_at_loopback_alone(served: Served) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", served.port), timeout=5)
    status, said = served.ask("GET", "/health")
    assert (status, said["status"], said["classes"]) == (200, "ok", ["0000-disc", "0001-square", "0002-diamond"])
    assert said["limits"] == {"megabytes": 2, "files": 4, "megapixels": 3, "seconds": 3}
    assert served.ask("GET", "/openapi.json")[1]["paths"].keys() >= {"/predict", "/health", "/metrics"}


def test_no_request_is_lost_when_it_is_told_to_stop(finished: Path) -> None:
    """Clients that ask again and again, on a new connection where the old one was closed, until they are refused."""
    lost: list[str] = []
    answered: list[int] = []
    stopping: list[int] = []

    def client(port: int, body: bytes) -> None:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.connect()
            except ConnectionRefusedError:  # it has ended
                return
            closes = False
            try:
                while not closes:
                    connection.request("POST", "/predict", body, FORM)
                    response = connection.getresponse()
                    response.read()
                    answered.append(response.status)
                    closes = response.headers.get("Connection") == "close"
            except OSError as error:
                lost.append(repr(error))
            except http.client.HTTPException as error:
                lost.append(repr(error))
            finally:
                connection.close()

    with serving(finished, "--drain", "1") as running:
        threads = [threading.Thread(target=client, args=(running.port, form(("a", png(seed=n))))) for n in range(8)]
        for thread in threads:
            thread.start()
        while len(answered) < 50:
            time.sleep(0.01)
        before = len(answered)
        running.command.send(signal.SIGTERM)
        time.sleep(0.3)
        stopping.append(running.ask("GET", "/health")[0])
        code, out, err = running.command.end()
        for thread in threads:
            thread.join()
    assert (code, err, lost) == (0, "", [])
    assert stopping == [503]
    assert set(answered) == {200}
    assert len(answered) > before, "requests were answered while it stopped"
    assert f"ended, {len(answered) + 1} requests answered" in out


def test_a_request_under_way_is_answered_after_ctrl_c(finished: Path) -> None:
    with serving(finished) as running:
        body = form(("a", png()))
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=30)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:50])
        while running.counted("da6401_open_requests") < 2:  # this one, and the one that asks
            time.sleep(0.02)
        running.command.send(signal.SIGINT)
        time.sleep(0.5)
        connection.sendall(body[50:])
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200
        assert json.loads(response.read())["predictions"]
        connection.close()
        assert running.command.end()[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "70000"], "--port 70000: must be from 0 to 65535"),
        (["--seconds", "nan", "--files", "0"], "--files 0: must be from 1 to 1000; --seconds nan: must be from"),
        (["--host", "no.such.host.invalid"], "cannot be used"),
        (["--plugin", "nowhere.py"], "plugin"),
    ],
)
def test_wrong_options_are_messages(finished: Path, words: list[str], says: str) -> None:
    code, _, err = typed("serve", str(finished), *words, cwd=finished.parent)
    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_the_socket_names_its_protocol() -> None:
    """asyncio sets TCP_NODELAY on the connections of such a socket alone; without it each answer takes 40 ms more."""
    with listen(Place(port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_a_message(finished: Path, served: Served) -> None:
    code, _, err = typed("serve", str(finished), "--port", str(served.port), cwd=finished.parent)
    assert code == 2
    assert "choose another, or --port 0" in err


def test_without_the_extra_it_says_what_to_install(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "python_multipart" else object())
    code, out, err = typed("serve", str(finished), cwd=finished.parent)
    assert (code, out) == (2, "")
    assert err == "da6401: serve needs python-multipart, not installed here: pip install 'da6401[serve]'\n"
