"""Bytes in JSON: small ones in place, large ones stored once."""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import blake2b

from rawkm.errors import RecordingError
from rawkm.recording.call import Pointee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Json = dict[str, Any]

#: What is longer is stored as a blob.
INLINE = 256
#: Blobs that are longer are refused: a line of a hostile recording can ask for any size.
MOST = 1 << 28
_REDACTED = "redacted"


def is_text(data: bytes) -> bool:
    """Whether JSON shows these bytes as they are."""
    return data.isascii() and all(byte >= 32 or byte in (9, 10) for byte in data)


def pack_bytes(data: bytes) -> Json:
    """{"text"} or {"hex"}."""
    return {"text": data.decode()} if is_text(data) else {"hex": data.hex()}


def pack_blob(data: bytes) -> tuple[str, Json]:
    """(id, the line that stores it)."""
    name = blake2b(data, digest_size=10).hexdigest()
    line: Json = {"t": "blob", "id": name, "size": len(data)}
    if len(data) <= 4096 and is_text(data):
        line["text"] = data.decode()
    else:
        line["z"] = b64encode(zlib.compress(data, 6)).decode()
    return name, line


def unpack_blob(line: Mapping[str, Any]) -> bytes:
    """The bytes of a line of type "blob". Raises RecordingError."""
    size = line.get("size")
    if type(size) is not int or not 0 <= size <= MOST:
        raise RecordingError(f"a blob's size is {size!r}; at most {MOST} bytes are allowed")
    if type(packed := line.get("z")) is str:
        try:
            inflate = zlib.decompressobj()
            data = inflate.decompress(b64decode(packed, validate=True), size + 1)
        except (zlib.error, Base64Error, ValueError) as err:
            raise RecordingError(f"a blob cannot be unpacked: {err}") from None
    else:
        data = unpack_bytes(line)
    if len(data) != size:
        raise RecordingError(f"a blob of {size} bytes holds {len(data)}")
    return data


def unpack_bytes(value: Mapping[str, Any]) -> bytes:
    """What pack_bytes made of them. Raises RecordingError."""
    if type(text := value.get("text")) is str:
        try:
            return text.encode("ascii")
        except UnicodeEncodeError:
            raise RecordingError("a text holds more than ASCII") from None
    return from_hex(value.get("hex"))


def from_hex(text: object) -> bytes:
    if type(text) is not str:
        raise RecordingError("bytes are missing: there is neither text nor hexadecimal digits")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise RecordingError(f"{text[:40]!r} is not hexadecimal") from None


def pack_pointee(pointee: Pointee, store: Callable[[bytes], Json]) -> Json:
    """CONTENT. ``store``: CONTENT of bytes, which may make a blob of them."""
    if pointee.error == _REDACTED:
        out: Json = {"left_out": pointee.size}
    elif pointee.error:
        out = {"error": pointee.error}
        if pointee.size:
            out["size"] = pointee.size
    elif pointee.items is not None:
        joined = b"\0".join([*pointee.items, b""])
        if len(joined) > INLINE:
            out = {"strings_ref": store(joined)["ref"]}
        else:
            out = {"strings": [item.decode() if is_text(item) else {"hex": item.hex()} for item in pointee.items]}
    else:
        out = store(pointee.data or b"")
        if pointee.size != len(pointee.data or b""):
            out["size"] = pointee.size
    if pointee.address is not None:
        out["at"] = pointee.address
    return out


def unpack_pointee(value: object, fetch: Callable[[object], bytes]) -> Pointee:
    """``fetch``: the blob with this id. Raises RecordingError."""
    if type(value) is not dict:
        raise RecordingError("memory is no object")
    at, size = value.get("at"), value.get("size")
    for number in (at, size):
        if number is not None and (type(number) is not int or number < 0):
            raise RecordingError(f"{number!r} is neither an address nor a size")
    if "left_out" in value:
        left = value["left_out"]
        if type(left) is not int or left < 0:
            raise RecordingError(f"{left!r} is no size")
        return Pointee(address=at, size=left, error=_REDACTED)
    if "error" in value:
        if type(value["error"]) is not str or not value["error"]:
            raise RecordingError("an error without a name")
        return Pointee(address=at, size=size, error=value["error"])
    if "strings_ref" in value:
        joined = fetch(value["strings_ref"])
        if joined and not joined.endswith(b"\0"):
            raise RecordingError("an array of strings does not end in a NUL")
        return Pointee(items=joined.split(b"\0")[:-1], address=at)
    if "strings" in value:
        strings = value["strings"]
        if type(strings) is not list:
            raise RecordingError("'strings' is no list")
        return Pointee(items=[_string(item) for item in strings], address=at)
    return Pointee(unpack_stored(value, fetch), address=at, size=size)


def unpack_stored(value: object, fetch: Callable[[object], bytes]) -> bytes:
    """The bytes of a CONTENT that is no array of strings."""
    if type(value) is not dict:
        raise RecordingError("bytes are no object")
    return fetch(value["ref"]) if "ref" in value else unpack_bytes(value)


def _string(item: object) -> bytes:
    if type(item) is str:
        return unpack_bytes({"text": item})
    if type(item) is dict:
        return unpack_bytes(item)
    raise RecordingError("a string is neither text nor hexadecimal digits")
