"""The sources of the data, and everything that can be wrong with a source."""

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import lzma
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_pictures
from utils import __main__ as command
from utils import config
from utils.data import archives, cache, filling, hand_images, image_files, labelled_hands, sources
from utils.models import shipped, zoo


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
    """A small archive with MedNIST's layout. It has one class that is not needed."""
    files = {f"MedNIST/Hand/{i:06d}.jpeg": jpeg(i, 64) for i in (0, 1, 7999, 8000, 9999)}
    return make_tar(tmp_path / "MedNIST.tar.gz", files | {"MedNIST/CXR/000000.jpeg": jpeg(1, 64)})


def test_an_archive_fills_the_folders_and_a_second_start_changes_nothing(root, tmp_path):
    files = {f"real_hands/{i:06d}.jpeg": jpeg(i) for i in range(5)} | {"notes.txt": b"x", "real_hands/x.exe": b"x"}
    source = make_tar(tmp_path / "hands.tar.gz", files)
    messages = []
    assert "5 of the course's 8000 images" in sources.obtain(root, source, report=messages.append)
    said = ": 5 file(s) for real_hands/, 1 file(s) left out, because they are not JPEG files of the course"
    assert messages[0].endswith(said) and "at least 1280" in messages[2] and "data --from" in messages[2]
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*.jpeg")}
    assert len(stamps) == 5
    sources.obtain(root, network=False)
    assert stamps == {p: p.stat().st_mtime_ns for p in root.rglob("*.jpeg")}


def test_a_folder_of_folders_fills_the_folders(root, tmp_path):
    for name in ("real_hands", "test_hands"):
        (tmp_path / "given" / name).mkdir(parents=True)
        (tmp_path / "given" / name / "a.jpeg").write_bytes(jpeg(1))
    assert sources.from_path(tmp_path / "given", root) == {"real_hands": 1, "test_hands": 1}


def test_a_zip_fills_the_folders(root, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("cw/real_hands/000000.jpeg", jpeg(0))
    assert sources.from_path(tmp_path / "x.zip", root) == {"real_hands": 1}


def test_missing_wrong_and_damaged_sources_are_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sources.obtain(root, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="none of the course's images"):
        sources.obtain(root, make_tar(tmp_path / "x.tar.gz", {"a.jpeg": jpeg(0)}))
    (tmp_path / "broken.tar.gz").write_bytes(make_tar(tmp_path / "y.tar.gz", {"a": bytes(9999)}).read_bytes()[:50])
    with pytest.raises(ValueError, match="not a complete"):
        sources.obtain(root, tmp_path / "broken.tar.gz")
    (tmp_path / "in.txt").write_text("hands", encoding="utf-8")
    with pytest.raises(ValueError, match=r"in.txt' is not a complete .*could not be opened successfully\). Get a new"):
        sources.obtain(root, tmp_path / "in.txt")


@pytest.mark.parametrize(
    "name", ["../../x/real_hands/1.jpeg", "/real_hands/1.jpeg", "..\\real_hands\\1.jpeg", "C:/real_hands/1.jpeg"]
)
def test_paths_outside_the_folder_are_refused_before_writing(root, tmp_path, name):
    source = make_tar(tmp_path / "x.tar.gz", {"real_hands/0.jpeg": jpeg(0), name: jpeg(1)})
    with pytest.raises(archives.UnsafeArchive, match="points outside"):
        sources.from_path(source, root)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("real_hands/0.jpeg", jpeg(0))
        archive.writestr(name, jpeg(1))
    with pytest.raises(archives.UnsafeArchive, match="points outside"):
        sources.from_path(tmp_path / "x.zip", root)
    assert not list(tmp_path.rglob("*.jpeg")) and not list(root.glob(".data*"))


def test_links_and_very_large_files_are_refused(root, tmp_path):
    source = make_tar(tmp_path / "x.tar.gz", {}, {"real_hands/0.jpeg": "/etc/passwd"})
    with pytest.raises(archives.UnsafeArchive, match="link or a device"):
        sources.from_path(source, root)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("real_hands/0.jpeg", bytes(archives.LARGEST_FILE + 1))
    with pytest.raises(archives.UnsafeArchive, match="50 MB"):
        sources.from_path(tmp_path / "bomb.zip", root)


def test_mednist_gives_the_images_of_the_course(root, mednist):
    assert sources.from_mednist(mednist, root) == 5
    assert sorted(p.name for p in (root / "real_hands").glob("*.jpeg")) == ["000000.jpeg", "000001.jpeg", "007999.jpeg"]
    assert sorted(p.name for p in (root / hand_images.HELD_OUT).iterdir()) == ["008000.jpeg", "009999.jpeg"]
    with tarfile.open(mednist) as archive:
        original = Image.open(archive.extractfile("MedNIST/Hand/007999.jpeg"))
        buffer = io.BytesIO()
        original.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
    assert (root / "real_hands" / "007999.jpeg").read_bytes() == buffer.getvalue()


def test_hands_of_another_size_are_made_once(root, mednist, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "of_size", functools.partial(sources.of_size, root=root))
    command.main(["data", "--size", "64", "--from", str(mednist)])
    assert "5 hands in hands_64/" in capsys.readouterr().out
    with tarfile.open(mednist) as archive:
        original = archive.extractfile("MedNIST/Hand/007999.jpeg").read()
    assert (root / "hands_64" / "007999.jpeg").read_bytes() == original
    assert sources.of_size(64) == root / "hands_64"  # made once
    with pytest.raises(ValueError, match="hands_64' is there already"):
        sources.of_size(64, archive=mednist)  # a named archive is not ignored
    with Image.open(sources.of_size(48, archive=mednist) / "000000.jpeg") as image:
        assert image.size == (48, 48)


def test_hands_of_another_size_are_complete_or_absent(root, mednist, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = root / f".hands_64.{gone.pid}.part"  # from a process that was killed
    left.mkdir()
    (left / "123456.jpeg").write_bytes(jpeg(0))
    with pytest.raises(ValueError, match="holds no Hand"):
        sources.of_size(64, root, make_tar(tmp_path / "x.tar.gz", {"CXR/000000.jpeg": jpeg(0)}))
    assert not list(root.glob("*hands_64*"))
    assert len(list(sources.of_size(64, root, mednist).iterdir())) == 5


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves `content`. It can stop in the middle."""

    content = b""
    break_after: int | None = None
    downloads = 0

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        type(self).downloads += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: self.break_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    class Handler(Server):
        content, downloads = np.random.default_rng(0).bytes(300_000), 0

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield Handler, f"http://127.0.0.1:{httpd.server_port}/MedNIST.tar.gz"
    httpd.shutdown()


def test_a_download_is_complete_or_absent_and_is_not_repeated(server, tmp_path):
    handler, url = server
    md5 = hashlib.md5(handler.content).hexdigest()
    handler.break_after = 200_000
    with pytest.raises(archives.DownloadFailed, match="failed"):
        archives.download(url, tmp_path / "x.tar.gz", md5)
    assert not list(tmp_path.iterdir())
    handler.break_after = None
    path = archives.download(url, tmp_path / "x.tar.gz", md5)
    assert path.read_bytes() == handler.content
    archives.download(url, tmp_path / "x.tar.gz", md5)
    assert handler.downloads == 2  # the third call finds the file


def test_a_download_with_a_wrong_hash_is_deleted(server, tmp_path):
    with pytest.raises(archives.DownloadFailed, match="hash"):
        archives.download(server[1], tmp_path / "x.tar.gz", "0" * 32)
    assert not list(tmp_path.iterdir())


def test_the_size_of_the_download_is_printed(root, mednist, server, monkeypatch):
    server[0].content = mednist.read_bytes()
    monkeypatch.setattr(archives, "MEDNIST", server[1])
    monkeypatch.setattr(archives, "MEDNIST_MD5", hashlib.md5(server[0].content).hexdigest())
    monkeypatch.setattr(sources, "PLACES", (".",))
    messages = []
    assert sources.obtain(root, report=messages.append).startswith("3 of the course's")
    assert "59 MB" in messages[0] and "5 images rebuilt" in messages[1]
    archive = root / "runs" / "MedNIST.tar.gz"
    archives.mednist(root, network=True, report=messages.append)
    assert len(messages) == 4  # a complete archive is not downloaded again
    archive.write_bytes(archive.read_bytes()[:100])
    archives.mednist(root, network=True, report=messages.append)
    assert "MedNIST.tar.gz is damaged: downloading MedNIST, 59 MB" in messages[4]


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(archives, "PATIENCE", 0.2)
    monkeypatch.setattr(archives, "MEDNIST", "http://127.0.0.1:9/x")
    monkeypatch.setattr(sources, "PLACES", (".",))
    monkeypatch.setattr(sources, "STAND_IN_COUNT", 4)


def test_a_download_gives_up_if_the_network_does_not_answer(tmp_path, no_network, monkeypatch):
    with socket.socket() as silent:  # accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(archives.DownloadFailed, match="no answer"):
            archives.download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "x", "")
    with pytest.raises(archives.DownloadFailed, match="ConnectionError"):
        archives.download("http://127.0.0.1:9/x", tmp_path / "x", "")
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: done.wait())  # the look-up of the name never ends
    with pytest.raises(archives.DownloadFailed, match="no answer within 0.2 s"):
        archives.download("http://nowhere.invalid/x", tmp_path / "x", "")
    done.set()


def test_without_a_network_stand_ins_are_made_until_real_images_replace_them(root, no_network, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "STAND_IN_COUNT", 40)
    messages = []
    origin = sources.obtain(root, stand_in=shipped.hands, report=messages.append)
    assert "STAND-IN DATA, NOT A RESULT" in origin and "NOT A RESULT" in messages[-1]
    assert "making 40 stand-ins" in messages[-2]
    made = sorted((root / "real_hands").glob("*.jpeg"))
    assert len(made) == 40 and b"stand-in" in Image.open(made[0]).info["comment"]
    assert "not a real X-ray" in (root / "real_hands" / "STAND_IN.txt").read_text(encoding="utf-8")
    found = hand_images.read_real(root)
    assert len(found.images) == 40 and found.images.std() > 30  # hands, not uniform grey
    assert not found.skipped and hand_images.run_name("x", root) == "x_stand_in"

    source = make_tar(tmp_path / "hands.tar.gz", {"real_hands/000000.jpeg": jpeg(0)})
    assert sources.obtain(root, source).startswith("1 of the course's")
    assert [p.name for p in (root / "real_hands").iterdir()] == ["000000.jpeg"]


def hands(count: int) -> dict[str, bytes]:
    return {f"real_hands/{i:06d}.jpeg": jpeg(i) for i in range(count)}


def state(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


FILL = """
import sys
from pathlib import Path
from utils.data import archives, sources

def slowly(archive):
    for count, member in enumerate(members(archive)):
        yield member
        if count == 10:
            print("in the middle", flush=True)
            sys.stdin.read()

members, archives.members = archives.members, slowly
sources.obtain(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_filling_leaves_no_image_and_the_next_one_is_complete(root, tmp_path, no_network):
    source = make_tar(tmp_path / "hands.tar.gz", hands(40))
    process = subprocess.Popen(
        [sys.executable, "-c", FILL, str(root), str(source)], cwd=config.PROJECT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert hand_images.origin(root) == "real_hands/ holds none of the course's images"
    assert sources.obtain(root, stand_in=shipped.hands).startswith("STAND-IN")
    assert len(hand_images.stand_ins(root / "real_hands")) == 4 and not hand_images.course_images(root / "real_hands")
    assert sources.obtain(root, source).startswith("40 of the course's")
    assert len(list((root / "real_hands").iterdir())) == 40 and not list(root.glob(".*"))


def test_the_next_start_finishes_an_interrupted_move(root, tmp_path, no_network, monkeypatch):
    sources.obtain(root, stand_in=shipped.hands)
    source, move, moved = make_tar(tmp_path / "hands.tar.gz", hands(10)), filling.shutil.move, []

    def until_the_fifth(path, target):
        if len(moved) == 5:
            raise KeyboardInterrupt
        moved.append(move(path, target))

    monkeypatch.setattr(filling.shutil, "move", until_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        sources.obtain(root, source)
    monkeypatch.undo()
    for refused in (hand_images.origin, hand_images.run_name, hand_images.load_hands, labelled_hands.load):
        with pytest.raises(ValueError, match="only a part .* python -m utils data"):
            refused("x", root) if refused is hand_images.run_name else refused(root=root)
    assert sources.obtain(root, network=False, stand_in=shipped.hands).startswith("10 of the course's")
    assert sorted(state(root)) == sorted(hands(10))


def test_a_part_of_the_images_is_refused_and_gets_no_stand_ins(root, no_network):
    (root / "real_hands" / "000000.jpeg").write_bytes(jpeg(0))
    (root / "real_hands" / image_files.FILLING).touch()
    before = state(root)
    with pytest.raises(ValueError, match="only a part"):
        sources.obtain(root, stand_in=shipped.hands)
    assert state(root) == before


def test_the_images_of_both_courseworks_are_counted_once(root):
    for name in [f"{i:06d}.jpeg" for i in range(8000)] + [f"real_hand_{i:03d}.jpeg" for i in range(500)]:
        (root / "real_hands" / name).touch()
    assert hand_images.origin(root) == "8000 of the course's 8000 images in real_hands/"


def test_real_images_beside_stand_ins_are_refused_with_advice(root, no_network, tmp_path):
    sources.obtain(root, stand_in=shipped.hands)
    (root / "real_hands" / "a.JPG").write_bytes(jpeg(0))
    before = state(root)
    for refused in (hand_images.origin, hand_images.load_hands, sources.obtain, labelled_hands.load):
        with pytest.raises(ValueError, match="1 of the course's images and 4 stand-ins.*Delete the stand-ins"):
            refused(root=root)
    with pytest.raises(ValueError, match="never written beside"):
        filling.write_stand_ins(draw_pictures(2), root)
    assert state(root) == before
    assert sources.obtain(root, make_tar(tmp_path / "x.tar.gz", hands(3))).startswith("4 of the course's")


def test_stand_ins_and_samples_of_another_copy_do_not_count_as_the_courses(root, tmp_path):
    names = ["real_hands/stand_in_0001.jpeg", "GAN_hands/username_001.jpeg", "GAN_hands/ab123_300.jpeg"]
    names += [f"real_hands/{model}_001.jpeg" for model in config.SHIPPED]
    source = make_tar(tmp_path / "x.tar.gz", dict.fromkeys(names, jpeg(0)) | hands(2))
    counts = sources.from_path(source, root)
    assert counts == {"real_hands": 2, sources.LEFT_OUT: len(names)}


def test_a_damaged_archive_is_an_error_only_if_it_was_named(root, no_network, monkeypatch):
    content = make_tar(root / "hands_cw1.tar.gz", hands(40)).read_bytes()
    (root / "hands_cw1.tar.gz").write_bytes(content[:-100])
    with zipfile.ZipFile(root / "real_hands.zip", "w") as archive:
        archive.writestr("real_hands/000000.jpeg", jpeg(0))
    before = state(root)
    with pytest.raises(ValueError, match="hands_cw1.tar.gz' is not a complete"):
        sources.obtain(root, root / "hands_cw1.tar.gz")
    assert state(root) == before
    messages = []
    assert sources.obtain(root, report=messages.append).startswith("1 of the course's")
    assert "hands_cw1.tar.gz' is not a complete" in messages[0] and "from real_hands.zip" in messages[1]


def test_with_only_the_reals_of_coursework_2_the_next_source_is_used(root, no_network, mednist):
    reals = {f"real_hands/real_hand_{i:03d}.jpeg": jpeg(i) for i in range(3)}
    make_tar(root / "hands_cw1.tar.gz", hands(9)).write_bytes(b"damaged")
    make_tar(root / "hands_cw2.tar.gz", reals | {"test_hands/test_hand_0001.jpeg": jpeg(0)})
    (root / "runs").mkdir()
    mednist.rename(root / "runs" / "MedNIST.tar.gz")
    assert sources.obtain(root, network=False).startswith("6 of the course's")
    assert sources.from_path(root / "hands_cw2.tar.gz", root) == {"test_hands": 1}  # the reals are already there


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def damaged_archives(tmp_path: Path) -> dict[str, bytes]:
    plain = gzip.decompress(make_tar(tmp_path / "whole.tar.gz", hands(30)).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        header = archive.getmembers()[19].offset
    zeroed, wrong = plain[:header] + bytes(512) + plain[header + 512 :], flipped(plain, header + 3)
    packed = {"gz": gzip.compress(plain), "xz": lzma.compress(plain), "bz2": bz2.compress(plain)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in hands(30).items():
            archive.writestr(name, content)
    packed["zip"] = buffer.getvalue()
    middles = {f"a byte of {kind} changed": flipped(content, len(content) // 2) for kind, content in packed.items()}
    cut = {f"{kind} cut": content[:-5] for kind, content in packed.items()}
    return middles | cut | {
        "header zeroed": zeroed, "header changed": wrong, "header zeroed in gz": gzip.compress(zeroed),
        "check sum of gz changed": flipped(packed["gz"], -6 % len(packed["gz"])),
        "check sum of xz changed": flipped(packed["xz"], -20 % len(packed["xz"])),
        "no end": plain[: len(plain.rstrip(b"\0")) // 512 * 512 + 512], "cut": plain[:9000], "empty": b"",
        "text": b"hands" * 999, "something after the end": plain + b"x",
    }  # fmt: skip


def test_every_damage_is_found_before_an_image_is_moved(root, tmp_path):
    for damage, content in damaged_archives(tmp_path).items():
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(ValueError, match="is not a complete"):
            sources.from_path(tmp_path / "x.tar", root)
            pytest.fail(damage)
        assert not state(root) and not list(root.glob(".*")), damage
    assert sources.from_path(tmp_path / "whole.tar.gz", root) == {"real_hands": 30}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_every_compression_of_a_zip_is_read_and_verified(root, tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", compression) as archive:
        for name, content in hands(3).items():
            archive.writestr(name, content)
    assert sources.from_path(tmp_path / "x.zip", root) == {"real_hands": 3}
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(flipped(content, content.index(b"000001.jpeg") + 60))
    with pytest.raises(ValueError, match="is not a complete"):
        sources.from_path(tmp_path / "x.zip", root)


def test_files_of_operating_systems_are_ignored(root, tmp_path):
    extra = ["__MACOSX/real_hands/._000000.jpeg", "real_hands/._000000.jpeg", "real_hands/Thumbs.db",
             "real_hands/.DS_Store", "real_hands/desktop.ini"]  # fmt: skip
    source = make_tar(tmp_path / "x.tar.gz", dict.fromkeys(extra, b"Mac OS X") | hands(2))
    assert sources.from_path(source, root) == {"real_hands": 2}
    for name in ("._000000.jpeg", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (root / "real_hands" / name).write_bytes(b"Mac OS X")
    assert hand_images.origin(root).startswith("2 of")
    found = hand_images.read_real(root)
    assert found.names == ["000000.jpeg", "000001.jpeg"] and found.skipped == []
    (tmp_path / "other").mkdir()
    assert sources.from_path(root, tmp_path / "other") == {"real_hands": 2}


@pytest.mark.parametrize("ending", ["jpeg", "jpg", "JPG", "JPEG", "Jpg"])
def test_endings_in_upper_case_are_read(root, tmp_path, ending):
    source = make_tar(tmp_path / "x.tar.gz", {f"real_hands/{i}.{ending}": jpeg(i) for i in range(3)})
    assert sources.from_path(source, root) == {"real_hands": 3}
    assert len(hand_images.read_real(root).images) == 3 and hand_images.origin(root).startswith("3 of")
    (tmp_path / "other").mkdir()
    assert sources.from_path(root, tmp_path / "other") == {"real_hands": 3}


def test_two_different_files_with_the_same_name_are_refused(root, tmp_path):
    source = make_tar(tmp_path / "x.tar.gz", {"a/real_hands/0.jpeg": jpeg(0), "b/real_hands/0.jpeg": jpeg(1)})
    with pytest.raises(ValueError, match="two different files named real_hands/0.jpeg"):
        sources.from_path(source, root)
    assert not state(root)


@pytest.mark.skipif(os.name == "nt", reason="file names on Windows are Unicode")
def test_names_that_are_not_utf8_are_set_aside_and_printed_escaped(root, tmp_path, capsys, monkeypatch):
    odd = os.fsdecode(b"\xff.jpeg")
    source = make_tar(tmp_path / os.fsdecode(b"h\xe4nde.tar.gz"), {f"real_hands/{odd}": jpeg(9)} | hands(2))
    sources.obtain(root, source)
    assert "h\\udce4nde.tar.gz: 3 file(s) for real_hands/" in capsys.readouterr().out
    found = hand_images.read_real(root)
    assert len(found.images) == 2
    assert found.skipped == [("\\udcff.jpeg", "its name is not valid UTF-8: rename it")]
    with pytest.raises(FileNotFoundError, match=r"h\\udce4nde"):
        sources.obtain(root, tmp_path / os.fsdecode(b"no h\xe4nde"))


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_letters_that_a_console_cannot_print_are_escaped(tmp_path, encoding):
    place = tmp_path / os.fsdecode(b"\xff") / "手"
    done = subprocess.run(
        [sys.executable, "-m", "utils", "data", "--from", str(place)], cwd=config.PROJECT, capture_output=True,
        text=True, encoding="ascii", env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 1 and "\\udcff" in done.stderr and "\\u624b" in done.stderr
    assert "There is no" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written_to_gets_advice(tmp_path):
    source = make_tar(tmp_path / "x.tar.gz", hands(2))
    for fill in (lambda: sources.from_path(source, Path("/sys")), lambda: sources.of_size(64, Path("/sys"), source)):
        with pytest.raises(OSError, match="Copy the project into a folder of your own"):
            fill()


@pytest.mark.parametrize("size", ["0", "-3", "x", "9999"])
def test_impossible_sizes_are_refused_immediately(size, capsys):
    with pytest.raises(SystemExit):
        command.main(["data", "--size", size, "--no-network"])
    assert size in capsys.readouterr().err or size == "9999"
    with pytest.raises(ValueError, match="from 1 to 8192, not 9999"):
        sources.of_size(9999)


def test_of_size_does_not_use_the_network_if_it_is_not_allowed(root):
    with pytest.raises(archives.DownloadFailed, match="--no-network"):
        sources.of_size(64, root, network=False)


def write_hands(folder: Path, count: int) -> None:
    """Write `count` different images."""
    numbers = np.arange(count)
    pictures = np.repeat(np.stack([numbers // 50 * 5, numbers % 50 * 5], 1).astype(np.uint8), 512, axis=1)
    image_files.write_jpegs(pictures.reshape(count, 1, 32, 32), folder, "hand", count)


def test_the_split_keeps_copies_in_the_same_part(root):
    write_hands(root / "real_hands", hand_images.LEAST_HANDS)
    for i in range(3):
        (root / "real_hands" / f"copy_{i}.jpg").write_bytes((root / f"real_hands/hand_000{i + 1}.jpeg").read_bytes())
    hands = hand_images.load_hands(root)
    both = np.concatenate([hands.train, hands.held_out])
    assert len(np.unique(both, axis=0)) == len(both) == hand_images.LEAST_HANDS and len(hands.skipped) == 3
    assert len(hands.held_out) == hand_images.LEAST_HELD_OUT
    assert np.array_equal(hand_images.load_hands(root).held_out, hands.held_out)


@pytest.mark.parametrize("count", [20, 38, 400, hand_images.LEAST_HANDS - 1])
def test_too_few_images_are_refused_with_the_number_needed(root, count):
    write_hands(root / "real_hands", count)
    with pytest.raises(ValueError, match=rf"holds {count} .* at least {hand_images.LEAST_HANDS} are needed"):
        hand_images.load_hands(root)


def test_held_out_images_are_counted_and_never_used_for_training(root):
    write_hands(root / "real_hands", 300)
    write_hands(root / hand_images.HELD_OUT, 620)  # the first 300 are also in real_hands
    hands = hand_images.load_hands(root)
    assert len(hands.train) == 300 and len(hands.held_out) == 320
    (root / hand_images.HELD_OUT / "hand_620.jpeg").unlink()
    with pytest.raises(ValueError, match="held_out_hands' holds 319 .* at least 320"):
        hand_images.load_hands(root)


def test_an_image_is_never_replaced_by_another_picture_of_its_name(root, tmp_path):
    (root / "real_hands").mkdir(exist_ok=True)
    (root / "real_hands" / "000001.jpeg").write_bytes(jpeg(1))
    before = (root / "real_hands" / "000001.jpeg").read_bytes()
    with pytest.raises(ValueError, match="000001.jpeg' is there already, with another picture"):
        sources.from_path(make_tar(tmp_path / "x.tar.gz", {"real_hands/000001.jpeg": jpeg(200)}), root)
    assert (root / "real_hands" / "000001.jpeg").read_bytes() == before
    counts = sources.from_path(make_tar(tmp_path / "y.tar.gz", {"real_hands/000001.jpeg": before}), root)
    assert counts == {"real_hands": 1}  # the same picture


def test_a_part_of_any_data_folder_is_refused_until_it_is_complete(root, tmp_path):
    folder = root / "test_hands"
    folder.mkdir(exist_ok=True)
    (folder / "test_hand_0001.jpeg").write_bytes(jpeg(3))
    (folder / image_files.FILLING).touch()  # filling it was interrupted
    with pytest.raises(ValueError, match="only a part of its images"):
        image_files.read(folder)
    with pytest.raises(ValueError, match="only a part of its images"):
        cache.images(folder, (32, 32), tmp_path / "cached.npy")
    sources.from_path(make_tar(tmp_path / "x.tar.gz", {"test_hands/test_hand_0001.jpeg": jpeg(3)}), root)
    assert len(image_files.read(folder).names) == 1


def test_training_on_a_mixture_with_stand_ins_is_refused(tmp_path):
    for name in ("000001.jpeg", "stand_in_0001.jpeg"):
        (tmp_path / name).write_bytes(jpeg(4))
    with pytest.raises(ValueError, match="1 stand-ins beside other images"):
        zoo.load(str(tmp_path), 32)
