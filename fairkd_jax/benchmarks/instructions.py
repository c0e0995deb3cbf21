"""The instructions of a compiled program: the origin of each, and a lower bound on the bytes moved."""

import math
import re
from typing import NamedTuple

_LINE = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*)")
_ARRAY = re.compile(r"\b(pred|bf16|c64|c128|[sufc]\d+\w*)\[([\d,]*)\]")
# The opcode follows the shape, which is a tuple in parentheses or a single word.
_OPCODE = re.compile(r"^(?:\(.*?\)|\S+) ([\w\-]+)\(")
_OPERAND = re.compile(r"%([\w.\-]+)")
_WORKSPACE = ("s8", "u8")  # element types of the workspace that a library's kernel needs besides its result


class Instruction(NamedTuple):
    """One instruction of a compiled program.

    Attributes:
      origin: Python operation that was compiled to this instruction, or "".
      bytes: Bytes of the operands, each read once, plus the bytes of the result, written once.
    """

    origin: str
    bytes: int


def normalize_name(name: str) -> str:
    """Converts an instruction's name to the name of its kernel: "." and "-" become "_"."""
    return name.replace(".", "_").replace("-", "_")


def read_instructions(text: str) -> dict[str, Instruction]:
    """Reads the text of a compiled program.

    Args:
      text: Text from `compiled.as_text()`.

    Returns:
      The instructions by their normalized names; see `normalize_name`.
    """
    results: dict[str, int] = {}
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        opcode = match and _OPCODE.match(match[2])
        if not match or not opcode:
            continue
        name, rest = match[1], match[2]
        shape, arguments = rest[: opcode.start(1)], rest[opcode.end() : _find_closing(rest, opcode.end())]
        results[name] = _count_bytes(shape, library=opcode[1] == "custom-call")
        origin = re.search(r'op_name="([^"]*)"', rest)
        found[name] = (origin[1] if origin else "", _OPERAND.findall(arguments))
    return {
        normalize_name(name): Instruction(origin, results[name] + sum(results.get(o, 0) for o in operands))
        for name, (origin, operands) in found.items()
    }


def _find_closing(text: str, start: int) -> int:
    """Returns the position of the parenthesis that closes the parenthesis before `start`."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            return position
    return len(text)


def _count_bytes(shape: str, *, library: bool) -> int:
    """Counts the bytes of an array or of a tuple of arrays, without a library's workspace."""
    arrays = _ARRAY.findall(shape)
    if library and len(arrays) > 1 and arrays[-1][0] in _WORKSPACE:
        arrays = arrays[:-1]
    return sum(
        _count_element_bytes(kind) * math.prod(int(n) for n in sizes.split(",") if n)
        for kind, sizes in arrays
    )


def _count_element_bytes(kind: str) -> int:
    """Counts the bytes of one element, such as 4 for "f32"."""
    bits = re.search(r"\d+", kind)
    return max(1, int(bits[0]) // 8) if bits else 1
