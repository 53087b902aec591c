"""Where the data comes from: each source, and each way in which a source can be bad."""

import functools
import hashlib
import http.server
import io
import socket
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils import __main__ as command
from utils.data import archives, hand_images, image_files, sources
from utils.models import shipped


def jpeg(seed: int, size: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_pictures(1, size, seed)[0, 0]).save(buffer, "JPEG")
    return buffer.getvalue()


def make_tar(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "a project"
    for name in hand_images.FOLDERS:
        (root / name).mkdir(parents=True)
    return root


@pytest.fixture
def mednist(tmp_path):
    """A small archive of MedNIST's layout, with a class that is not wanted."""
    files = {f"MedNIST/Hand/{i:06d}.jpeg": jpeg(i, 64) for i in (0, 1, 7999, 8000, 9999)}
    return make_tar(tmp_path / "MedNIST.tar.gz", files | {"MedNIST/CXR/000000.jpeg": jpeg(1, 64)})


def test_from_an_archive_and_again_does_nothing(root, tmp_path):
    files = {f"real_hands/{i:06d}.jpeg": jpeg(i) for i in range(5)} | {"notes.txt": b"x", "real_hands/x.exe": b"x"}
    source = make_tar(tmp_path / "hands.tar.gz", files)
    messages = []
    assert "5 of the course's images" in sources.obtain(root, source, report=messages.append)
    assert "{'real_hands': 5}" in messages[0]
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*.jpeg")}
    assert len(stamps) == 5
    sources.obtain(root, network=False)
    assert stamps == {p: p.stat().st_mtime_ns for p in root.rglob("*.jpeg")}


def test_from_a_folder_of_folders(root, tmp_path):
    for name in ("real_hands", "test_hands"):
        (tmp_path / "given" / name).mkdir(parents=True)
        (tmp_path / "given" / name / "a.jpeg").write_bytes(jpeg(1))
    assert sources.from_path(tmp_path / "given", root) == {"real_hands": 1, "test_hands": 1}


def test_from_a_zip(root, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("cw/real_hands/000000.jpeg", jpeg(0))
    assert sources.from_path(tmp_path / "x.zip", root) == {"real_hands": 1}


def test_useless_sources_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sources.obtain(root, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="none of the course's images"):
        sources.obtain(root, make_tar(tmp_path / "x.tar.gz", {"a.jpeg": jpeg(0)}))
    (tmp_path / "broken.tar.gz").write_bytes(make_tar(tmp_path / "y.tar.gz", {"a": bytes(9999)}).read_bytes()[:50])
    with pytest.raises(ValueError, match="not a complete"):
        sources.obtain(root, tmp_path / "broken.tar.gz")


@pytest.mark.parametrize(
    "name", ["../../x/real_hands/1.jpeg", "/real_hands/1.jpeg", "..\\real_hands\\1.jpeg", "C:/real_hands/1.jpeg"]
)
def test_paths_that_leave_the_folder_are_refused_before_anything_is_written(root, tmp_path, name):
    source = make_tar(tmp_path / "x.tar.gz", {"real_hands/0.jpeg": jpeg(0), name: jpeg(1)})
    with pytest.raises(archives.UnsafeArchive, match="points outside"):
        sources.from_path(source, root)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("real_hands/0.jpeg", jpeg(0))
        archive.writestr(name, jpeg(1))
    with pytest.raises(archives.UnsafeArchive, match="points outside"):
        sources.from_path(tmp_path / "x.zip", root)
    assert not list(tmp_path.rglob("*.jpeg"))


def test_links_and_giants_are_refused(root, tmp_path):
    source = make_tar(tmp_path / "x.tar.gz", {}, {"real_hands/0.jpeg": "/etc/passwd"})
    with pytest.raises(archives.UnsafeArchive, match="link or a device"):
        sources.from_path(source, root)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("real_hands/0.jpeg", bytes(archives.LARGEST_FILE + 1))
    with pytest.raises(archives.UnsafeArchive, match="50 MB"):
        sources.from_path(tmp_path / "bomb.zip", root)


def test_mednist_is_rebuilt_as_the_course_did(root, mednist):
    assert sources.from_mednist(mednist, root) == 5
    assert sorted(p.name for p in (root / "real_hands").glob("*.jpeg")) == ["000000.jpeg", "000001.jpeg", "007999.jpeg"]
    assert sorted(p.name for p in (root / hand_images.HELD_OUT).iterdir()) == ["008000.jpeg", "009999.jpeg"]
    with tarfile.open(mednist) as archive:
        original = Image.open(archive.extractfile("MedNIST/Hand/007999.jpeg"))
        buffer = io.BytesIO()
        original.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
    assert (root / "real_hands" / "007999.jpeg").read_bytes() == buffer.getvalue()


def test_hands_of_their_own_size_are_trained_on_by_one_number(root, mednist, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "of_size", functools.partial(sources.of_size, root=root))
    monkeypatch.setattr("sys.argv", ["utils", "data", "--size", "64", "--from", str(mednist)])
    command.main()
    assert "5 hands in hands_64/" in capsys.readouterr().out
    with tarfile.open(mednist) as archive:
        original = archive.extractfile("MedNIST/Hand/007999.jpeg").read()
    assert (root / "hands_64" / "007999.jpeg").read_bytes() == original
    sources.of_size(64, archive=tmp_path / "not needed again")
    with Image.open(sources.of_size(48, archive=mednist) / "000000.jpeg") as image:
        assert image.size == (48, 48)

    arguments = ["VAE", "--images", str(root / "hands_64"), "--size", "64", "--seen", "64", "--samples", "3"]
    monkeypatch.setattr("sys.argv", ["utils", "train", *arguments, "--out", str(tmp_path / "run")])
    command.main()
    with Image.open(tmp_path / "run" / "samples.png") as picture:
        assert picture.height == 64 and np.ptp(np.asarray(picture)) > 0


def test_hands_of_another_size_come_whole_or_not_at_all(root, mednist, tmp_path):
    (root / ".hands_64.part").mkdir()
    (root / ".hands_64.part" / "123456.jpeg").write_bytes(b"left by a kill")
    with pytest.raises(ValueError, match="holds no Hand"):
        sources.of_size(64, root, make_tar(tmp_path / "x.tar.gz", {"CXR/000000.jpeg": jpeg(0)}))
    assert not (root / "hands_64").exists()
    assert len(list(sources.of_size(64, root, mednist).iterdir())) == 5


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves `content`; can break off in the middle, and understands ranges."""

    content = b""
    break_after: int | None = None
    requests: list = []

    def do_GET(self):
        asked = self.headers.get("Range")
        type(self).requests.append(asked)
        start = int(asked.split("=")[1].rstrip("-")) if asked else 0
        body = self.content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.break_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    class Handler(Server):
        content, requests = np.random.default_rng(0).bytes(300_000), []

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield Handler, f"http://127.0.0.1:{httpd.server_port}/MedNIST.tar.gz"
    httpd.shutdown()


def test_download_goes_on_where_it_broke_off(server, tmp_path):
    handler, url = server
    md5 = hashlib.md5(handler.content).hexdigest()
    handler.break_after = 200_000
    with pytest.raises(archives.DownloadFailed, match="broke off"):
        archives.download(url, tmp_path / "x.tar.gz", md5)
    assert not (tmp_path / "x.tar.gz").exists()
    have = (tmp_path / "x.tar.gz.part").stat().st_size
    assert have > 100_000
    handler.break_after = None
    path = archives.download(url, tmp_path / "x.tar.gz", md5)
    assert path.read_bytes() == handler.content
    assert handler.requests == [None, f"bytes={have}-"]
    archives.download(url, tmp_path / "x.tar.gz", md5)
    assert len(handler.requests) == 2  # it is there


def test_wrong_check_sum_is_deleted(server, tmp_path):
    with pytest.raises(archives.DownloadFailed, match="MD5"):
        archives.download(server[1], tmp_path / "x.tar.gz", "0" * 32)
    assert not list(tmp_path.glob("x.tar.gz*"))


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setattr(archives, "PATIENCE", 1)


def test_silent_and_absent_networks_cost_seconds(tmp_path, short_patience):
    with socket.socket() as silent:  # accepts and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(archives.DownloadFailed, match="no MedNIST archive|no answer"):
            archives.download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "x", "")
        assert time.monotonic() - start < 5
    with pytest.raises(archives.DownloadFailed, match="ConnectionError"):
        archives.download("http://127.0.0.1:9/x", tmp_path / "x", "")


def test_no_network_gives_a_labelled_stand_in_that_real_images_replace(root, monkeypatch, short_patience, tmp_path):
    monkeypatch.setattr(sources, "MEDNIST", "http://127.0.0.1:9/x")
    monkeypatch.setattr(sources, "STAND_IN_COUNT", 40)
    monkeypatch.setattr(sources, "PLACES", (".",))
    messages = []
    origin = sources.obtain(root, stand_in=shipped.hands, report=messages.append)
    assert "STAND-IN DATA, NOT A RESULT" in origin and "NOT A RESULT" in messages[-1]
    made = sorted((root / "real_hands").glob("*.jpeg"))
    assert len(made) == 40 and b"stand-in" in Image.open(made[0]).info["comment"]
    assert "not a real X-ray" in (root / "real_hands" / "STAND_IN.txt").read_text(encoding="utf-8")
    hands = hand_images.load_hands(root=root)
    assert len(hands.train) + len(hands.held_out) == 40 and "NOT A RESULT" in hands.origin
    assert hands.train.std() > 30  # hands, not a grey nothing

    source = make_tar(tmp_path / "hands.tar.gz", {"real_hands/000000.jpeg": jpeg(0)})
    assert sources.obtain(root, source).startswith("1 of the course's")
    assert [p.name for p in (root / "real_hands").iterdir()] == ["000000.jpeg"]


def test_the_split_keeps_copies_on_one_side(root):
    pictures = draw_pictures(30)
    image_files.write_jpegs(np.concatenate([pictures, pictures]), root / "real_hands", "x", 60)
    hands = hand_images.load_hands(held_out=10, root=root)
    both = np.concatenate([hands.train, hands.held_out])
    assert len(np.unique(both, axis=0)) == len(both)
    assert len(hands.skipped) == 60 - len(both)
    again = hand_images.load_hands(held_out=10, root=root)
    assert np.array_equal(again.held_out, hands.held_out)
