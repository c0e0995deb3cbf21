"""The instructions of a compiled program: where each comes from, and the fewest bytes that it can move."""

import math
import re
from typing import NamedTuple

_LINE = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*)")
_ARRAY = re.compile(r"\b(pred|bf16|c64|c128|[sufc]\d+\w*)\[([\d,]*)\]")
_OPCODE = re.compile(
    r"^(?:\(.*?\)|\S+) ([\w\-]+)\("
)  # behind the shape, which is a tuple in brackets or a word
_OPERAND = re.compile(r"%([\w.\-]+)")
_WORKSPACE = ("s8", "u8")  # what a library's kernel takes beside its result


class Instruction(NamedTuple):
    """One instruction of a compiled program.

    Attributes:
      origin: the Python operation that it was compiled from, or "".
      bytes: of its operands, each read once, and of its result, written once.
    """

    origin: str
    bytes: int


def plain_name(name: str) -> str:
    """The name of an instruction as its kernel has it, with another sign in between."""
    return name.replace(".", "_").replace("-", "_")


def read_instructions(text: str) -> dict[str, Instruction]:
    """Reads the text of a compiled program.

    Args:
      text: as of `compiled.as_text()`.

    Returns:
      The instructions by their `plain_name`.
    """
    results: dict[str, int] = {}
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        opcode = match and _OPCODE.match(match[2])
        if not match or not opcode:
            continue
        name, rest = match[1], match[2]
        shape, arguments = rest[: opcode.start(1)], rest[opcode.end() : _closing(rest, opcode.end())]
        results[name] = _bytes(shape, library=opcode[1] == "custom-call")
        origin = re.search(r'op_name="([^"]*)"', rest)
        found[name] = (origin[1] if origin else "", _OPERAND.findall(arguments))
    return {
        plain_name(name): Instruction(origin, results[name] + sum(results.get(o, 0) for o in operands))
        for name, (origin, operands) in found.items()
    }


def _closing(text: str, start: int) -> int:
    """Where the bracket closes that was opened before `start`."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            return position
    return len(text)


def _bytes(shape: str, *, library: bool) -> int:
    """Bytes of an array, or of a tuple of them."""
    arrays = _ARRAY.findall(shape)
    if library and len(arrays) > 1 and arrays[-1][0] in _WORKSPACE:
        arrays = arrays[:-1]
    return sum(_width(kind) * math.prod(int(n) for n in sizes.split(",") if n) for kind, sizes in arrays)


def _width(kind: str) -> int:
    """Bytes of one element."""
    bits = re.search(r"\d+", kind)
    return max(1, int(bits[0]) // 8) if bits else 1
