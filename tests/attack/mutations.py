"""Damage: a valid file becomes one that a stranger, a broken disk or a cut connection might leave."""

from __future__ import annotations

import io
import json
import zipfile
from random import Random
from typing import Any

__all__ = ["damaged"]

#: Values of JSON that someone might write in place of another.
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 10**6, 2**63, 10**19, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), "",
    "x", "=cmd|'/c calc'!A1", "../../etc/passwd", "\ud800", "\x00", "a" * 1000, [], [[]], [1, 2], ["x"], {},
    {"name": {}}, {"x": 1}, {"name": "vp"}, {"name": "ddpm", "steps": 10**9}, {"tensor": "x0"}, {"list": 3},
    {"mapping": []},
)  # fmt: skip
#: The same as text, where a JSON library would not write it.
_TEXTS = (
    "1" + "0" * 400, "1e999", "-1e999", "[" * 5000 + "]" * 5000, '{"a":' * 500 + "1" + "}" * 500, "[1,]",
    "nul",
)  # fmt: skip
#: Lines, or values, that someone might write in YAML.
_LINES = (
    "*a", "&a [1]", "a: &a [*a]", "<<: *a", "? [1]", "!!python/object:os.system x", "1: 2", "~: 1", "yes: no",
    "[" * 400, "- - - -", "key: 1\nkey: 2", "!!binary x", "2001-99-99", "0x" + "f" * 300, "\t", "- {a: [}",
)  # fmt: skip
#: Types and shapes in the headers of numpy's files.
_TYPES = (
    "|u1", "<f8", "<f4", ">f8", "<f2", "<f16", "<c16", "|O", "<U9", "|S3", "<M8[s]", "|V8", "<i8", "|b1", "x",
)  # fmt: skip
_SHAPES = (
    "()", "(2,)", "(1000000000000,)", "(-1,)", "(0,)", "(3, 8)", "(2, 2)", "'x'", "(3, 8, 8, 3)", "(1.5,)",
)  # fmt: skip
#: Names of members of zip files.
_MEMBERS = ("x", "../../x.png", "train/\x01.png", "/x.npy")
_MARK = "\u0001 a value \u0001"


def damaged(content: bytes, random: Random) -> bytes:
    """Return a damaged copy, by one to three changes of bytes or of what they mean."""
    for _ in range(random.randint(1, 3)):
        change = random.choice((_bytes, _meaning, _meaning))
        content = change(content, random)
    return content


def _bytes(content: bytes, random: Random) -> bytes:
    data = bytearray(content)
    if not data:
        return bytes(random.randrange(256) for _ in range(random.randint(0, 40)))
    at = random.choice((random.randrange(len(data)), random.randrange(min(len(data), 64))))
    size = random.choice((1, 1, 2, 4, 8, 64))
    match random.randint(0, 6):
        case 0 | 1:
            data[at] ^= 1 << random.randrange(8)
        case 2:
            data[at : at + size] = bytes(random.randrange(256) for _ in range(size))
        case 3:
            data[at : at + size] = bytes([random.choice((0, 255))]) * size
        case 4:
            del data[at:]
        case 5:
            del data[at : at + size]
        case _:
            data[at:at] = data[random.randrange(len(data)) :][:size]
    return bytes(data)


def _meaning(content: bytes, random: Random) -> bytes:
    """Change JSON, the metadata of safetensors, the text of YAML, or a member of a zip file; else bytes."""
    try:
        if content[:2] == b"PK":
            return _zip(content, random)
        if content[8:9] == b"{":
            return _safetensors(content, random)
        return _text(content.decode(), random).encode(errors="surrogatepass")
    except Exception:  # it is so damaged already that it means nothing
        return _bytes(content, random)


def _text(text: str, random: Random) -> str:
    if text[:1] not in ("{", "["):
        return _words(text, random)
    lines = text.split("\n")
    if len(lines) > 1 and lines[-1] == "" and all(line.startswith("{") for line in lines[:-1]):
        k = random.randrange(len(lines) - 1)
        lines[k] = _json(lines[k], random)
        return "\n".join(lines)
    return _json(text, random)


def _words(text: str, random: Random) -> str:
    """Change text of lines, such as YAML."""
    lines = text.split("\n")
    k = random.randrange(len(lines))
    word = random.choice(_LINES)
    match random.randint(0, 3):
        case 0:
            lines.insert(k, word)
        case 1:
            lines[k] = lines[k].partition(":")[0] + ": " + word
        case 2:
            lines[k] = word + lines[k].lstrip("abcdefghijklmnopqrstuvwxyz")
        case _:
            lines.insert(k, lines[random.randrange(len(lines))])
    return "\n".join(lines)


def _json(text: str, random: Random) -> str:
    found = json.loads(text)
    holder: Any = {"": found}
    key: Any = ""
    for _ in range(random.randint(0, 6)):
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        holder, key = inner, random.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    raw = None
    match random.randint(0, 7):
        case 0 | 1 | 2 | 3:
            holder[key] = random.choice(_VALUES)
        case 4:
            raw = random.choice(_TEXTS)
            holder[key] = _MARK
        case 5 if holder != {"": found} and isinstance(holder, dict):
            del holder[key]
        case 6 if isinstance(holder, list):
            holder[key:key] = [holder[key]] * random.choice((1, 2, 50))
        case _:
            if isinstance(holder, dict):
                raw = f"{json.dumps(_MARK)}: 1, {json.dumps(_MARK)}: 2"
                holder[random.choice(("x", "name", "nfe", "theta", "a.b"))] = random.choice(_VALUES)
    out = json.dumps(found if key != "" or "" not in holder else holder[""])
    return out if raw is None else out.replace(json.dumps(_MARK), raw, 1)


def _safetensors(content: bytes, random: Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    keys = [key for key, value in metadata.items() if value[:1] == "{"]
    if keys and random.random() < 0.7:
        key = random.choice(keys)
        metadata[key] = _json(metadata[key], random)
        text = json.dumps(header)
    else:
        text = _json(json.dumps(header), random)
    new = text.encode(errors="surrogatepass")
    return len(new).to_bytes(8, "little") + new + content[8 + length :]


def _zip(content: bytes, random: Random) -> bytes:
    """Change what a member holds, so that its checksum is right again; the start of npy files most often."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        members = old.infolist()
        chosen = random.randrange(len(members))
        for k, member in enumerate(members):
            data = old.read(member)
            name = member.filename
            if k == chosen:
                match random.randint(0, 5):
                    case 0:
                        name = random.choice((*_MEMBERS, members[0].filename))
                    case 1:
                        continue
                    case 2 | 3 if data[:6] == b"\x93NUMPY":
                        data = _npy(data, random)
                    case _:
                        data = _bytes(data, random)
            if name in new.namelist():
                name += "2"
            new.writestr(name, data, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return out.getvalue()


def _npy(data: bytes, random: Random) -> bytes:
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length].decode("latin1")
    if random.random() < 0.5:
        start = header.index("'descr': ") + 9
        header = header[:start] + repr(random.choice(_TYPES)) + header[header.index(", 'fortran") :]
    else:
        start = header.index("'shape': ") + 9
        header = header[:start] + random.choice(_SHAPES) + ", }"
    header = header.rstrip().ljust(length - 1) + "\n"
    return data[:8] + len(header).to_bytes(2, "little") + header.encode("latin1") + data[10 + length :]
