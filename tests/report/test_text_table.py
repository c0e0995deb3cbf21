"""Text tables: aligned, within the width of a terminal, and without losing a word."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairkd_jax import cli
from fairkd_jax.report import tables
from fairkd_jax.report.text_table import WIDE, Style, align_rows, measure_width
from tests.test_tables import summary

ROWS = [
    ["", "teacher", "student"],
    ["method", "CE", "CE + RKD-D + adversary(1)"],
    ["a title across"],
    ["  one of two", "0.5", "0.25 to 0.75"],
]


def test_a_wide_table_is_aligned_as_files_have_it():
    assert align_rows(ROWS).splitlines() == [
        "              teacher                    student",
        "------------------------------------------------",
        "method             CE  CE + RKD-D + adversary(1)",
        "a title across",
        "  one of two      0.5               0.25 to 0.75",
    ]
    assert measure_width(ROWS) == 48


def test_cells_break_where_the_terminal_is_narrow():
    assert align_rows(ROWS, Style(36)).splitlines() == [
        "              teacher       student",
        "-----------------------------------",
        "method             CE  CE + RKD-D +",
        "                       adversary(1)",
        "a title across",
        "  one of two      0.5  0.25 to 0.75",
    ]


def test_rows_are_lists_where_nothing_else_fits():
    assert align_rows(ROWS, Style(12)).splitlines() == [
        "method",
        "  teacher: CE",
        "  student: CE + RKD-D + adversary(1)",
        "a title across",
        "one of two",
        "  teacher: 0.5",
        "  student: 0.25 to 0.75",
    ]


words = st.lists(st.text("ab_1.", min_size=1, max_size=8), min_size=1, max_size=4).map(" ".join)


@given(
    st.integers(2, 4).flatmap(
        lambda n: st.lists(st.lists(words, min_size=n, max_size=n), min_size=2, max_size=5)
    ),
    st.integers(10, 90),
)
def test_no_line_is_wider_than_the_terminal_and_no_letter_is_lost(rows, width):
    lines = align_rows(rows, Style(width)).splitlines()
    is_table = len(lines) > 1 and re.fullmatch("-+", lines[1] or " ")
    if is_table or measure_width(rows) <= width:
        assert max(map(len, lines)) <= width

    def letters(text):
        return sorted(re.sub(r"[\s:-]", "", text))

    own = letters("".join(cell for row in (rows if is_table else rows[1:]) for cell in row))
    shown = letters("".join(lines))
    if is_table:
        assert shown == own
    else:
        assert len(shown) >= len(own)


def test_the_better_number_is_bold_on_a_terminal_alone():
    models = {"student": summary(0.2), "baseline": summary(0.5), "teacher": summary(0.1)}
    plain = tables.format_comparison(models)
    shown = tables.format_comparison(models, Style(200, is_bold=True))
    bare = re.sub("\033\\[[01]m", "", shown)
    assert [line.rstrip() for line in plain.splitlines()] == bare.splitlines()
    bold = {}
    for line in filter(lambda line: "\033" in line, shown.splitlines()):
        title, _, rest = line.strip().partition("  ")
        bold[title] = re.findall("\033\\[1m(.*?)\033\\[0m", rest)
    # The student's numbers are the smaller ones here.
    assert bold["top-1 accuracy"] == ["0.5000"]
    assert bold["mean absolute disparity"] == [f"{models['student']['mean_abs_disparity']:.4f}"]
    assert not {"by chance alone, if unbiased", "p value of no bias at all", "parameters"} & bold.keys()


@pytest.mark.parametrize(
    ("is_terminal", "variables", "expected"),
    [
        (False, {}, WIDE),
        (True, {}, Style(70, is_bold=True)),
        (True, {"NO_COLOR": "1"}, Style(70)),
        (True, {"TERM": "dumb"}, Style(70)),
    ],
)
def test_the_style_is_that_of_the_terminal(monkeypatch, is_terminal, variables, expected):
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm", "COLUMNS": "70"} | variables).items():
        monkeypatch.setenv(name, value)
    assert cli.get_style() == expected


def test_groups_have_rows_of_their_own_where_a_row_for_each_class_is_too_wide():
    evaluation = {
        "student": {
            "recall_by_group": [[0.5, 0.25], [1.0, 0.75], [0.0, 0.125]],
            "disparity": [1.0, 0.625],
            "counts_by_group": [[4, 8], [2, 4], [3, 8]],
        },
        "group_names": ["one", "two", "three"],
        "class_names": ["cat", "dog"],
        "split": "test",
        "num_examples": {"test": 29},
    }
    wide = tables.format_recall_by_group(evaluation, Path()).splitlines()
    assert len(wide) == 4
    narrow = tables.format_recall_by_group(evaluation, Path(), Style(40)).splitlines()
    assert [line.split() for line in narrow[2:6]] == [
        ["cat", "one", "4", "0.500"],
        ["two", "2", "1.000"],
        ["three", "3", "0.000"],
        ["range", "1.000"],
    ]
    assert max(map(len, narrow)) <= 40
