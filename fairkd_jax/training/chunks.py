"""Which members of a population train together in one program."""

from collections.abc import Mapping, Set
from typing import TypeVar

Student = TypeVar("Student")


def forget_half_saved(
    saved: Mapping[Student, frozenset[int]], started: Set[Student]
) -> dict[Student, frozenset[int]]:
    """Makes members begin again together whose program was killed in its first save.

    Some of them are then saved, and others are not. In programs of their own, they would end at other
    weights.

    Args:
      saved: For each member the steps from which it can go on; empty for a new member.
      started: The members whose program has begun.

    Returns:
      The same, without the only step of members that were saved beside others that were not.
    """
    if all(saved[student] for student in started):
        return dict(saved)
    alone = {student for student in started if len(saved[student]) == 1}
    if len({saved[student] for student in alone}) != 1:
        return dict(saved)
    return {student: frozenset() if student in alone else steps for student, steps in saved.items()}


def split_into_chunks(saved: Mapping[Student, frozenset[int]], size: int) -> list[list[Student]]:
    """Splits members into chunks that can go on together, the largest chunk first.

    Args:
      saved: For each member the steps from which it can go on; empty for a new member.
      size: Largest number of members in a chunk; 0 for no limit.

    Returns:
      Chunks whose members have all saved a common step, or none.
    """
    groups = [list(saved)] if saved and frozenset.intersection(*saved.values()) else []
    if not groups:
        by_step: dict[int, list[Student]] = {}
        for student, steps in saved.items():
            by_step.setdefault(max(steps, default=0), []).append(student)
        groups = list(by_step.values())
    chunks = [
        group[start : start + (size or len(group))]
        for group in groups
        for start in range(0, len(group), size or len(group))
    ]
    return sorted(chunks, key=len, reverse=True)
