"""The pure parts of tools/vm: what needs neither QEMU nor the network."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from vmlab import apt, arch, base, cli, compress, deb, elf, guest, kernels, machine, modules, prepare, vmlinuz  # noqa: E402
from vmlab import project as vm_project  # noqa: E402
from vmlab.cache import Cache, digest  # noqa: E402
from vmlab.cpio import Archive  # noqa: E402
from vmlab.errors import VMError  # noqa: E402
from vmlab.pythondeps import requirements  # noqa: E402
from vmlab.vmlinuz import unpack  # noqa: E402

# --- archives ------------------------------------------------------------------------------------------------


def entries(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Every entry of concatenated newc archives, as the kernel reads them: name -> (mode, content)."""
    found: dict[str, tuple[int, bytes]] = {}
    offset = 0
    while offset < len(data):
        if data[offset] == 0:  # padding between archives
            offset += 1
            continue
        assert data[offset : offset + 6] == b"070701"
        assert offset % 4 == 0
        fields = [int(data[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = os.fsdecode(data[offset + 110 : offset + 110 + name_size - 1])
        start = (offset + 110 + name_size + 3) & ~3
        if name != "TRAILER!!!":
            found[name] = (fields[1], data[start : start + size])
        offset = (start + size + 3) & ~3
    return found


def test_archive_holds_what_was_added() -> None:
    out = io.BytesIO()
    archive = Archive(out)
    archive.file("/a/b/script", b"#!/bin/sh\n", 0o755)
    archive.file("a/odd", b"12345")
    archive.symlink("a/link", "b/script")
    archive.node("dev/console", 0o600, 5, 1)
    archive.directory("a")
    archive.close()
    found = entries(out.getvalue())
    assert list(found) == ["a", "a/b", "a/b/script", "a/odd", "a/link", "dev", "dev/console"]
    assert found["a/b/script"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["a/odd"] == (stat.S_IFREG | 0o644, b"12345")
    assert found["a/link"] == (stat.S_IFLNK | 0o777, b"b/script")
    assert found["a"][0] == stat.S_IFDIR | 0o755
    assert found["dev/console"][0] == stat.S_IFCHR | 0o600


def test_archives_can_be_concatenated() -> None:
    out = io.BytesIO()
    for text in (b"first", b"second!"):
        archive = Archive(out)
        archive.file("same", text)
        archive.close()
    assert entries(out.getvalue())["same"][1] == b"second!"


def test_archive_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/tool").write_bytes(b"x")
    (tmp_path / "usr/bin/tool").chmod(0o755)
    (tmp_path / "bin").symlink_to("usr/bin")
    out = io.BytesIO()
    Archive(out).tree(str(tmp_path))
    found = entries(out.getvalue())
    assert set(found) == {"usr", "usr/bin", "usr/bin/tool", "bin"}
    assert found["usr/bin/tool"][0] == stat.S_IFREG | 0o755
    assert found["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")


# --- ELF and kernel images -----------------------------------------------------------------------------------


def make_elf(**content: bytes) -> bytes:
    """An ELF64 file with these sections ("modinfo" -> ".modinfo") and nothing else."""
    names = [".shstrtab", *(f".{name}" for name in content)]
    table = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    bodies = [table, *content.values()]
    data = b""
    headers = bytes(64)
    for name, body in zip(names, bodies, strict=True):
        where = (table.index(name.encode() + b"\0"), 64 + len(data), len(body))
        headers += struct.pack("<IIQQQQIIQQ", where[0], 1, 0, 0, where[1], where[2], 0, 0, 1, 0)
        data += body
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    count = len(names) + 1
    return struct.pack("<16sHHIQQQIHHHHHH", ident, 1, 62, 1, 0, 0, 64 + len(data), 0, 64, 0, 0, 64, count, 1) + (data + headers)


def test_elf_sections_and_needed() -> None:
    strings = b"\0libc.so.6\0libm.so.6\0"
    dynamic = struct.pack("<qQqQqQ", 1, 1, 1, 11, 0, 0)
    data = make_elf(dynstr=strings, dynamic=dynamic, BTF=b"\x9f\xeb")
    assert elf.sections(data)[".BTF"] == b"\x9f\xeb"
    assert elf.needed(data) == ["libc.so.6", "libm.so.6"]
    assert elf.needed(make_elf()) == []
    with pytest.raises(VMError):
        elf.sections(b"#!/bin/sh\n")


def lz4_literals(plain: bytes) -> bytes:
    """lz4's legacy format with everything as literals: magic, block size, block."""
    length = len(plain)
    head = bytes([0xF0]) + b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])
    block = head + plain
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


def zstd_raw(plain: bytes) -> bytes:
    """A zstd frame with one raw block; the frame tells its size in two bytes."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0x60]) + struct.pack("<H", len(plain) - 256)
    return header + struct.pack("<I", len(plain) << 3 | 1)[:3] + plain


def bzimage(payload: bytes) -> bytes:
    """A boot sector and two setup sectors, then the payload at offset 20 of the protected-mode code."""
    image = bytearray(3 * 512 + 20)
    image[0x1F1] = 2
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 20, len(payload))
    return bytes(image) + payload + b"what follows the payload"


VMLINUX = make_elf(BTF=bytes(range(256)) * 4)
SIZE = struct.pack("<I", len(VMLINUX))


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(VMLINUX),
        lzma.compress(VMLINUX) + SIZE,
        lz4_literals(VMLINUX) + SIZE,
        zstd_raw(VMLINUX) + SIZE,
    ],
    ids=["gzip", "xz", "lz4", "zstd"],
)
def test_kernel_image_is_unpacked(payload: bytes) -> None:
    assert unpack(bzimage(payload)) == VMLINUX


def test_kernel_image_of_unknown_kind() -> None:
    assert unpack(VMLINUX) == VMLINUX
    with pytest.raises(VMError, match="compression is unknown"):
        unpack(bzimage(b"ABCDEFGHIJ"))
    with pytest.raises(VMError, match="neither an x86 bzImage nor an arm64 Image"):
        unpack(bytes(4096))


def test_arm64_image_is_plain_and_holds_its_btf_somewhere() -> None:
    btf = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 5) + bytes(17)
    image = (bytes(0x38) + b"ARM\x64").ljust(4096, b"\x9f") + btf[:20] + btf + bytes(100)
    assert unpack(image) == image
    assert vmlinuz.btf(image) == btf
    assert vmlinuz.btf(image[:-101]) == b""
    assert vmlinuz.btf(make_elf(BTF=btf)) == btf


def test_decompress_by_name() -> None:
    assert compress.decompress_by_name("a.ko.xz", lzma.compress(b"x")) == ("a.ko", b"x")
    assert compress.decompress_by_name("a.ko.zst", zstd_raw(b"y" * 300)) == ("a.ko", b"y" * 300)
    assert compress.decompress_by_name("a.ko", b"z") == ("a.ko", b"z")


def test_damaged_data_is_told() -> None:
    with pytest.raises(VMError, match="damaged"):
        compress.unzstd(zstd_raw(b"y" * 300)[:-1])
    with pytest.raises(VMError, match="damaged"):
        compress.unlz4(b"\x02\x21\x4c\x18" + struct.pack("<I", 4) + b"\xf0\xff\xff\xff")


# --- modules -------------------------------------------------------------------------------------------------


def make_module(path: str, *pairs: str) -> modules.Module:
    return modules.parse(path, make_elf(modinfo=b"".join(pair.encode() + b"\0" for pair in pairs)))


def test_modules_come_after_what_they_need() -> None:
    there = {
        "virtio_pci": make_module("kernel/virtio_pci.ko", "depends=virtio,virtio-ring"),
        "virtio_ring": make_module("kernel/virtio_ring.ko", "depends="),
        "virtio": make_module("kernel/virtio.ko", "depends=virtio_ring", "alias=virtio-*"),
        "nft": make_module("kernel/nft.ko", "depends=", "softdep=pre: virtio post: gone"),
    }
    chosen = modules.closure(["nft", "not_there", "virtio_pci"], there.get)
    assert list(chosen) == ["virtio_ring", "virtio", "nft", "virtio_pci"]
    lines = modules.modules_dep(chosen).splitlines()
    assert lines[0] == "kernel/virtio_ring.ko:"
    assert lines[3] == "kernel/virtio_pci.ko: kernel/virtio.ko kernel/virtio_ring.ko"
    assert modules.modules_alias(chosen) == "alias virtio-* virtio\n"


def test_modules_in_a_circle_end() -> None:
    there = {"a": make_module("a.ko", "depends=b"), "b": make_module("b.ko", "depends=a")}
    assert list(modules.closure(["a"], there.get)) == ["b", "a"]


def test_module_name() -> None:
    assert modules.module_name("kernel/net/nf-tables.ko.xz") == "nf_tables"
    assert modules.module_name("veth.ko") == "veth"


# --- apt -----------------------------------------------------------------------------------------------------

DEB822 = """\
Types: deb deb-src
# a comment in between
URIs: http://mirror.example/debian/
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: sid

Types: deb-src
URIs: http://source.example/debian
Suites: sid

Types: deb
URIs: https://other.example/apt
Suites: ./
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_deb822_sources() -> None:
    found = list(apt.parse_deb822(DEB822))
    key = "/usr/share/keyrings/debian-archive-keyring.pgp"
    assert found == [
        apt.Entry("http://mirror.example/debian", ("trixie", "trixie-updates"), key),
        apt.Entry("http://mirror.example/debian-security", ("trixie-security",), None),
        apt.Entry("https://other.example/apt", ("./",), None),
    ]
    assert apt.mirrors(found) == ("http://mirror.example/debian", "http://mirror.example/debian-security")


def test_oneline_sources() -> None:
    text = (
        "# deb http://comment.example/debian sid main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://ftp.example/debian/ bookworm main contrib\n"
        "deb-src http://ftp.example/debian bookworm main\n"
        "deb http://security.debian.org/ bookworm-security main\n"
    )
    found = list(apt.parse_oneline(text))
    assert found == [
        apt.Entry("http://ftp.example/debian", ("bookworm",), "/k.gpg"),
        apt.Entry("http://security.debian.org", ("bookworm-security",), None),
    ]
    assert apt.mirrors(found) == ("http://ftp.example/debian", "http://security.debian.org")


def test_mirrors_of_a_system_without_debian() -> None:
    assert apt.mirrors([apt.Entry("http://archive.ubuntu.com/ubuntu", ("noble",), None)]) == (
        "http://deb.debian.org/debian",
        "http://deb.debian.org/debian-security",
    )


def test_system_sources_of_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/debian bookworm main\n")
    (tmp_path / "sources.list.d/x.sources").write_text("Types: deb\nURIs: http://two.example/x\nSuites: sid\n")
    (tmp_path / "sources.list.d/x.save").write_text("deb http://three.example/debian bookworm main\n")
    uris = [entry.uri for entry in apt.system_entries(str(tmp_path))]
    assert uris == ["http://one.example/debian", "http://two.example/x"]


def test_source_list() -> None:
    assert apt.source_list("sid", "M", "S", "K") == "deb [signed-by=K] M sid main\n"
    assert apt.source_list("bullseye", "M", "S", "K").splitlines() == [
        "deb [signed-by=K] M bullseye main",
        "deb [signed-by=K] S bullseye-security main",
    ]


def test_package_stanza() -> None:
    text = (
        "Package: linux-image-x\nVersion: 7.2-1\nPre-Depends: aa (>= 1)\n"
        "Depends: linux-binary-7.2+x (= 7.2-1), kmod | module-init-tools, libc6:any\nDescription: d\n more\n"
        "\nPackage: other\n"
    )
    stanza = apt.parse_stanza(text)
    assert stanza["Package"] == "linux-image-x"
    assert apt.depends(stanza) == ["aa", "linux-binary-7.2+x", "kmod", "libc6"]


# --- packages, the base, the project -------------------------------------------------------------------------


def test_merged_usr() -> None:
    assert deb.merged("./lib/modules/6.1/x.ko") == "usr/lib/modules/6.1/x.ko"
    assert deb.merged("./usr/bin/ip") == "usr/bin/ip"
    assert deb.merged("./boot/vmlinuz-6.1") == "boot/vmlinuz-6.1"
    assert deb.merged("./library") == "library"


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("usr/bin/python3.11", True),
        ("usr/bin/python3", True),
        ("usr/bin/pydoc3", False),
        ("usr/bin/setpriv", True),
        ("usr/bin/lscpu", False),
        ("usr/bin/busybox", True),
        ("usr/lib/python3.11/os.py", True),
        ("usr/lib/python3.11/unittest/mock.py", True),
        ("usr/lib/python3.11/test/support.py", False),
        ("usr/lib/python3.11/lib-dynload/_testcapi.cpython-311-x86_64-linux-gnu.so", False),
        ("usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so", True),
        ("usr/share/man/man1/python3.1.gz", False),
    ],
)
def test_what_of_the_packages_is_kept(path: str, kept: bool) -> None:
    assert base._keep(path, os.path.basename(path)) is kept


def test_requirements_of_the_guest() -> None:
    text = """
        [project]
        dependencies = ["construct>=2.10"]
        [project.optional-dependencies]
        fuzz = ["hypothesis>=6"]
        dev = ["hypothesis>=6", "mypy>=1.10", "Ruff", "pytest"]
    """
    assert requirements(text) == ["construct>=2.10", "hypothesis>=6", "pytest"]


class FakePython:
    """Stands for the guest's Python: "compiles" by copying the name the source has in the guest."""

    version = "3.11"

    def __init__(self) -> None:
        self.compiled: list[str] = []

    def run(self, *_arguments: str, path: str = "", stdin: bytes = b"") -> None:
        assert not path
        for _source, name, out in json.loads(stdin):
            self.compiled.append(name)
            Path(out).write_text(name)


def test_project_is_packed_and_compiled_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "rawkm/__pycache__").mkdir(parents=True)
    (tree / "rawkm/__init__.py").write_text("one")
    (tree / "rawkm/__pycache__/__init__.cpython-311.pyc").write_text("stale")
    (tree / "tools").mkdir()
    (tree / "tools/vm").write_text("#!")
    (tree / "tools/vm").chmod(0o755)
    (tree / "secret").write_text("not part of it")
    cache, python = Cache(str(tmp_path / "cache")), FakePython()

    def pack() -> dict[str, tuple[int, bytes]]:
        fake: Any = python
        return entries(vm_project.pack(cache, fake, str(tree)))

    found = pack()
    assert found["rawkm/rawkm/__init__.py"][1] == b"one"
    assert found["rawkm/rawkm/__pycache__/__init__.cpython-311.pyc"][1] == b"/rawkm/rawkm/__init__.py"
    assert found["rawkm/tools/vm"][0] == stat.S_IFREG | 0o755
    assert found["usr/local/lib/python3.11/dist-packages/rawkm"][1] == b"/rawkm/rawkm"
    assert found["usr/local/bin/rawkm"][0] == stat.S_IFREG | 0o755
    assert not any("secret" in name for name in found)
    pack()
    assert python.compiled == ["/rawkm/rawkm/__init__.py"]
    (tree / "rawkm/__init__.py").write_text("two")
    assert pack()["rawkm/rawkm/__init__.py"][1] == b"two"
    assert len(python.compiled) == 2


# --- the cache -----------------------------------------------------------------------------------------------


def test_artefact_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"))
    assert cache.meta("kernel/x", "r1") is None
    with cache.build("kernel/x", "r1") as (directory, meta):
        Path(directory, "file").write_text("good")
        meta["version"] = "1"
        assert cache.meta("kernel/x", "r1") is None
    assert cache.meta("kernel/x", "r1") == {"recipe": "r1", "version": "1"}
    assert cache.meta("kernel/x", "r2") is None
    with pytest.raises(RuntimeError), cache.build("kernel/x", "r2") as (directory, _meta):
        Path(directory, "file").write_text("bad")
        raise RuntimeError
    assert Path(cache.path("kernel/x/file")).read_text() == "good"
    with cache.build("kernel/x", "r2") as (directory, _meta):
        Path(directory, "file").write_text("better")
    assert Path(cache.path("kernel/x/file")).read_text() == "better"
    assert os.listdir(cache.root) == ["kernel"]


def test_what_a_killed_build_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "building-left").mkdir()
    (tmp_path / "building-left/file").write_text("x")
    with Cache(str(tmp_path)).lock():
        assert sorted(os.listdir(tmp_path)) == ["lock"]


def test_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAWKM_VM_CACHE", "/a")
    assert Cache().root == "/a"
    monkeypatch.delenv("RAWKM_VM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert Cache().root == "/b/rawkm-vm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert Cache().root == "/c/.cache/rawkm-vm"


def test_digest_tells_recipes_apart() -> None:
    assert digest("a", ("b",)) == digest("a", ("b",))
    assert digest("a", ("b",)) != digest("a", ("b", "c"))


# --- running -------------------------------------------------------------------------------------------------

AWKWARD = ["", " ", "a'b", '"', "$HOME `id`", "\\n", "*", "a\nb\n", "--", "-n", "#", "\x01\x7f\t\r", "\udcff\udc81"]


def test_command_reaches_the_shell_unharmed() -> None:
    command = ["printf", "%s\\0", *AWKWARD]
    script = entries(guest.run_archive(command, guest.Options()))["vm/command"][1]
    done = subprocess.run(["sh"], input=script, stdout=subprocess.PIPE, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in AWKWARD]


def test_settings_of_a_run() -> None:
    found = entries(guest.run_archive(["true"], guest.Options(minimal=True)))
    assert found["vm/settings"][1] == b"minimal=1 stdin=0\n"
    assert found["init"][0] == stat.S_IFREG | 0o755


def test_qemu_arguments_follow_the_reliability_rules() -> None:
    ends = {"console": 5, "control": 6, "stdout": 7, "stderr": 8, "status": 9}
    arguments = guest.qemu_arguments(arch.AMD64, guest.Options(smp=2, memory=512), "/k", 4, ends)
    text = " ".join(arguments)
    assert "-cpu max,-la57,-cx16" in text
    assert "-accel tcg,thread=single -smp 2 -m 512" in text
    assert "-kernel /k -initrd /proc/self/fd/4" in text
    assert "panic=-1" in text
    assert "-no-reboot" in text
    assert "socket,id=control,fd=6" in text
    assert "virtserialport,nr=5,chardev=status" in text
    assert "stdin" not in text
    with_stdin = guest.qemu_arguments(arch.AMD64, guest.Options(tcg="multi"), "/k", 4, {**ends, "stdin": 10})
    assert "virtserialport,nr=1,chardev=stdin,name=stdin" in with_stdin
    assert "tcg,thread=multi" in with_stdin
    assert "-M virt" in " ".join(guest.qemu_arguments(arch.ARM64, guest.Options(), "/k", 4, ends))


@pytest.mark.parametrize(
    ("arguments", "own", "command"),
    [
        (["--", "true"], [], ["true"]),
        (["-k", "6.1", "rawkm", "count", "--", "sleep"], ["-k", "6.1"], ["rawkm", "count", "--", "sleep"]),
        (["--minimal", "--smp", "2", "--", "-x"], ["--minimal", "--smp", "2"], ["-x"]),
        (["--timeout=5", "sh", "-c", "x"], ["--timeout=5"], ["sh", "-c", "x"]),
        (["-k"], ["-k"], []),
        ([], [], []),
    ],
)
def test_own_options_end_where_the_command_begins(arguments: list[str], own: list[str], command: list[str]) -> None:
    assert cli.split_command(arguments) == (own, command)


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "--"], ["run", "-k", "2.4", "true"], ["run", "--memory", "64", "true"], ["path", "initrd"], []],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage:" in capsys.readouterr().err


PANIC = """\
[    1.0] BUG: unable to handle page fault for address: 0
[    1.1] Oops: 0000 [#1]
[    1.1] Oops: 0000 [#1]
[    1.2] Kernel panic - not syncing: Fatal exception
"""


def test_how_a_guest_ended() -> None:
    assert machine.diagnosis(PANIC, ready=True) == "the guest's kernel panicked: Fatal exception"
    assert "oops" in machine.diagnosis("[    1.1] Oops: 0000 [#1]\n", ready=True)
    assert "did not boot" in machine.diagnosis("", ready=False)
    assert "without giving" in machine.diagnosis("", ready=True)


def test_lines_of_trouble() -> None:
    assert len(machine.trouble(PANIC)) == 3
    assert machine.trouble("WARNING: CPU: 0 PID: 1\n") == ["WARNING: CPU: 0 PID: 1"]
    assert machine.trouble("debug: all is well\nLoops\n") == []


def test_last_words_reach_back_to_the_first_trouble() -> None:
    before = [f"[    0.{n:02}] all is well" for n in range(60)]
    trace = [f"[    1.3]  ? function_{n}+0x1/0x2" for n in range(40)]
    assert machine.last_words("\n".join(before)) == before[-25:]
    assert machine.last_words("\n".join([*before, *PANIC.splitlines(), *trace])) == [*before[-2:], *PANIC.splitlines(), *trace]
    # Trouble close to the end: as much of what came before as ever.
    assert len(machine.last_words("\n".join([*before, *PANIC.splitlines()]))) == 25
    assert len(machine.last_words("\n".join(PANIC.splitlines() + before * 20))) == 25
    assert machine.last_words("") == []


# --- the matrix ----------------------------------------------------------------------------------------------


def test_a_kernel_comes_from_the_hosts_own_suite_where_it_can() -> None:
    default = kernels.BY_NAME[kernels.DEFAULT]
    assert default.source_for("bookworm").package == "linux-image-6.12-cloud-amd64"
    assert default.source_for("trixie").suite == "trixie"
    assert default.source_for("") == default.sources[0]
    assert kernels.BY_NAME["6.1"].source_for("trixie").suite == "bookworm"


def test_kernels_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RAWKM_VM_CACHE", str(tmp_path / "nothing"))
    assert cli.main(["kernels"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[1:]] == ["6.12", "7.2", "6.1", "5.10", "7.2-arm64"]
    assert [row[-1] for row in rows[1:]] == ["yes", "yes", "no", "no", "yes"]
    assert {row[-2] for row in rows[1:]} == {"no"}
    assert not (tmp_path / "nothing").exists()


def test_suite_of_the_host(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('NAME="Debian GNU/Linux"\nVERSION_CODENAME=trixie\nID=debian\n')
    assert prepare.host_suite(str(release)) == "trixie"
    release.write_text("ID=ubuntu\nVERSION_CODENAME=noble\n")
    assert prepare.host_suite(str(release)) == ""
    assert prepare.host_suite(str(tmp_path / "none")) == ""
