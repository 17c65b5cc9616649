import io
import os
import stat
import sys
import threading

import pytest

from pgsvc_codec.errors import ConfigError, OutputError
from pgsvc_codec.media.output import AtomicFile


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_under_the_name_before_commit(tmp_path):
    target = tmp_path / "out.bin"
    file = AtomicFile(str(target))
    file.write(b"abc")
    assert names_in(tmp_path) == [f"out.bin.tmp-{os.getpid()}"]
    file.commit()
    assert names_in(tmp_path) == ["out.bin"]
    assert target.read_bytes() == b"abc"
    file.commit()
    file.abort()
    assert target.read_bytes() == b"abc"


def test_an_exception_leaves_no_trace_and_the_old_file(tmp_path):
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")

    def interrupted():
        with AtomicFile(str(target), overwrite=True) as file:
            file.write(b"new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert names_in(tmp_path) == ["out.bin"]
    assert target.read_bytes() == b"old"


def test_overwrite_replaces(tmp_path):
    target = tmp_path / "out.bin"
    target.write_bytes(b"old and long")
    with AtomicFile(str(target), overwrite=True) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"


def test_what_replaces_a_file_has_its_permissions(tmp_path):
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with AtomicFile(str(target), overwrite=True) as file:
        file.write(b"new")
    assert target.stat().st_mode & 0o777 == 0o640


def test_an_existing_file_is_refused(tmp_path):
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    with pytest.raises(ConfigError, match=r"out\.bin exists; use -y"):
        AtomicFile(str(target))
    assert names_in(tmp_path) == ["out.bin"]


def test_a_file_that_appears_meanwhile_is_not_harmed(tmp_path):
    target = tmp_path / "out.bin"
    file = AtomicFile(str(target))
    file.write(b"ours")
    target.write_bytes(b"theirs")
    with pytest.raises(OutputError, match=r"out\.bin: has appeared meanwhile; the result is .*out\.bin\.tmp-"):
        file.commit()
    assert target.read_bytes() == b"theirs"
    assert (tmp_path / f"out.bin.tmp-{os.getpid()}").read_bytes() == b"ours"


def test_a_directory_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(OutputError, match="is a directory, allowed a file"):
        AtomicFile(str(tmp_path), overwrite=True)
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        AtomicFile(str(tmp_path / "no" / "out.bin"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        AtomicFile(str(tmp_path / "file" / "out.bin"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_place_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written: Permission denied"):
        AtomicFile(str(tmp_path / "out.bin"))


def test_a_link_keeps_linking(tmp_path):
    target = tmp_path / "real.bin"
    target.write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    with AtomicFile(str(link), overwrite=True) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_seek_and_tell(tmp_path):
    target = tmp_path / "out.bin"
    with AtomicFile(str(target)) as file:
        assert file.seekable()
        file.write(b"....rest")
        assert file.tell() == 8
        file.seek(0)
        file.write(b"head")
    assert target.read_bytes() == b"headrest"


def test_standard_output_stays_open(monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer))
    with AtomicFile("-") as file:
        assert not file.seekable()
        file.write(b"abc")
    assert buffer.getvalue() == b"abc"
    assert not buffer.closed


def test_devices_and_pipes_are_written_directly(tmp_path):
    with AtomicFile("/dev/null") as file:
        assert not file.seekable()
        file.write(b"abc")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    with AtomicFile(str(fifo)) as file:
        file.write(b"through")
    reader.join()
    assert received == [b"through"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_an_output_error():
    message = "/dev/full: cannot be written: No space left on device"
    with pytest.raises(OutputError, match=message), AtomicFile("/dev/full") as file:
        file.write(bytes(1 << 20))


def test_a_reader_that_went_away_stays_a_broken_pipe(monkeypatch):
    class Gone(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise BrokenPipeError

    class Stdout:
        buffer = Gone()

    monkeypatch.setattr(sys, "stdout", Stdout())
    with pytest.raises(BrokenPipeError):
        AtomicFile("-").write(b"abc")
