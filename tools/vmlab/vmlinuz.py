"""Take the ELF kernel out of an x86 bzImage.

The uncompressed kernel boots through its PVH entry note: QEMU loads it as it is and the guest need not
decompress itself, which takes seconds under emulation.
"""

from __future__ import annotations

import struct

from .compress import ungzip, unlz4, unxz, unzstd
from .elf import is_elf
from .errors import VMError

# Linux Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, "HdrS" at 0x202, payload_offset and
# payload_length at 0x248 (protocol 2.08), counted from the end of the setup sectors.
_SETUP_SECTS = 0x1F1
_MAGIC = 0x202
_PAYLOAD = 0x248


def unpack(image: bytes) -> bytes:
    """The vmlinux ELF inside of a bzImage (an ELF comes back as it is)."""
    if is_elf(image):
        return image
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise VMError("The kernel image is no x86 bzImage.")
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
