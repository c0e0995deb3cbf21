"""What each measure means stands beside it, in sentences that a reader in a hurry takes in."""

import re

import pytest

from fairkd_jax.report.blocks import Table
from fairkd_jax.report.findings import collect_findings
from fairkd_jax.report.meanings import MEANINGS
from fairkd_jax.report.run_sections import make_run_sections
from fairkd_jax.report.tables import ROWS

LONGEST = 25  # words


def test_every_row_of_the_measures_has_its_line():
    assert list(MEANINGS) == list(ROWS.values())
    texts = [text for texts in MEANINGS.values() for text in texts]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("key", MEANINGS)
def test_sentences_are_short(key):
    for text in MEANINGS[key]:
        assert text.endswith(".")
        for sentence in re.split(r"(?<=\.) ", text):
            assert 3 <= len(sentence.split()) <= LONGEST, sentence


def test_the_lines_stand_in_a_folded_table_of_the_report(make_report_run):
    folder, _, _ = make_report_run(baseline=False)
    sections = make_run_sections(collect_findings(folder) | {"versions": {}})
    (measures,) = [section for section in sections if section.anchor == "measures"]
    shown, means = [block for block in measures.blocks if isinstance(block, Table)]
    assert means.is_folded
    described = {row[0] for row in shown.rows} - {"method", "model", "parameters"}
    assert [row[0] for row in means.rows] == [row[0] for row in shown.rows if row[0] in described]
    assert all(len(row) == len(means.head) and all(row) for row in means.rows)
