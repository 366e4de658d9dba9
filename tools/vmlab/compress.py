"""Decompression of what Debian ships: kernels and modules in gzip, xz, zstd or lz4.

zstd and lz4, which Python does not have (zstd from 3.14 on), come from the shared libraries that apt itself is
linked with, so they are there wherever apt is.
"""

from __future__ import annotations

import ctypes
import lzma
import struct
import zlib

from .errors import VMError

_LZ4_BLOCK = 8 << 20  # plain size of a block in lz4's legacy format
_ZSTD_UNKNOWN = 1 << 63  # and above: ZSTD_CONTENTSIZE_UNKNOWN, ZSTD_CONTENTSIZE_ERROR


def unxz(data: bytes) -> bytes:
    """The first xz stream in *data*; what follows it is ignored."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)


def ungzip(data: bytes) -> bytes:
    """The first gzip member in *data*; what follows it is ignored."""
    return zlib.decompressobj(wbits=31).decompress(data)


def unzstd(data: bytes, size: int | None = None) -> bytes:
    """The zstd frame *data*. *size* is the plain size, for a frame that does not tell it."""
    library = _library("libzstd.so.1", "libzstd1")
    if size is None:
        library.ZSTD_getFrameContentSize.restype = ctypes.c_uint64
        size = int(library.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data))))
        if size >= _ZSTD_UNKNOWN:
            raise VMError("A zstd frame of the kernel package does not tell its size.")
    plain = ctypes.create_string_buffer(size)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    if library.ZSTD_decompress(plain, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data))) != size:
        raise VMError("A zstd frame of the kernel package is damaged.")
    return plain.raw


def unlz4(data: bytes) -> bytes:
    """*data* in lz4's legacy format, which the kernel's build uses: a magic, then blocks with their sizes."""
    library = _library("liblz4.so.1", "liblz4-1")
    block = ctypes.create_string_buffer(_LZ4_BLOCK)
    plain = bytearray()
    offset = 4
    while offset < len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4
        got = library.LZ4_decompress_safe(data[offset : offset + length], block, length, _LZ4_BLOCK)
        if got < 0:
            raise VMError("A lz4 block of the kernel package is damaged.")
        plain += memoryview(block)[:got]
        offset += length
    return bytes(plain)


def decompress_by_name(name: str, data: bytes) -> tuple[str, bytes]:
    """A file's name without its compression suffix, and its plain content."""
    for suffix, decompress in ((".xz", unxz), (".zst", unzstd), (".gz", ungzip)):
        if name.endswith(suffix):
            return name.removesuffix(suffix), decompress(data)
    return name, data


def _library(name: str, package: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise VMError(f"The shared library {name} is missing; install the package {package}.") from error
