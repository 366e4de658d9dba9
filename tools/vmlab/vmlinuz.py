"""The kernel that QEMU boots, out of what Debian packages, and its BTF.

x86: the ELF kernel inside of the bzImage. It boots through its PVH entry note: QEMU loads it as it is and the guest need not
decompress itself, which takes seconds under emulation. arm64: Debian's image is the plain one already.
"""

from __future__ import annotations

import struct

from .compress import ungzip, unlz4, unxz, unzstd
from .elf import is_elf, sections
from .errors import VMError

# Linux Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, "HdrS" at 0x202, payload_offset and
# payload_length at 0x248 (protocol 2.08), counted from the end of the setup sectors.
_SETUP_SECTS = 0x1F1
_MAGIC = 0x202
_PAYLOAD = 0x248
# Documentation/arch/arm64/booting.rst: the magic of a plain Image.
_ARM64_MAGIC = (0x38, b"ARM\x64")
# struct btf_header: magic, version 1, no flags; then hdr_len, type_off, type_len, str_off, str_len.
_BTF_START = b"\x9f\xeb\x01\x00"
_BTF_REST = struct.Struct("<IIIII")


def unpack(image: bytes) -> bytes:
    """The vmlinux ELF inside of a bzImage; an ELF and arm64's plain Image come back as they are."""
    if is_elf(image) or _is_arm64(image):
        return image
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise VMError("The kernel image is neither an x86 bzImage nor an arm64 Image.")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTS] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    # But for gzip, the build appends the plain size (four bytes).
    (size,) = struct.unpack("<I", payload[-4:])
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        plain = unzstd(payload[:-4], size)
    elif payload.startswith(b"\x02\x21\x4c\x18"):
        plain = unlz4(payload[:-4])
    elif payload.startswith(b"\xfd7zXZ\0"):
        plain = unxz(payload)
    elif payload.startswith(b"\x1f\x8b"):
        plain = ungzip(payload)
    else:
        raise VMError(f"The kernel's compression is unknown here (its data begins with {payload[:4].hex()}).")
    if not is_elf(plain):
        raise VMError("The kernel image unpacks to something that is no ELF file.")
    return plain


def btf(kernel: bytes) -> bytes:
    """The BTF of a kernel as unpack() gives it, b"" where it has none."""
    if is_elf(kernel):
        return sections(kernel).get(".BTF", b"")
    # A plain Image has no section headers: the BTF is the largest piece that looks like one.
    best = b""
    at = kernel.find(_BTF_START)
    while at >= 0:
        header, types, type_length, strings, string_length = _BTF_REST.unpack_from(kernel.ljust(at + 24, b"\0"), at + 4)
        size = header + strings + string_length
        if header in (24, 32) and types == 0 and type_length == strings and len(best) < size <= len(kernel) - at:
            best = kernel[at : at + size]
        at = kernel.find(_BTF_START, at + 4)
    return best


def _is_arm64(image: bytes) -> bool:
    at, magic = _ARM64_MAGIC
    return image[at : at + len(magic)] == magic
