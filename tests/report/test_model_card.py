"""The model card: the metadata that the hub reads, and names that are text."""

import pytest
import yaml

from fairkd_jax.programs import card
from tests.report.conftest import HOSTILE


def read_card(text):
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_card_has_the_results_and_the_sections_that_the_hub_expects(make_report_run, capsys):
    folder, images, predictions = make_report_run()
    assert card.main([str(folder), "--name", "my: [model]"]) == 0
    path = folder / "MODEL_CARD.md"
    assert capsys.readouterr().out.strip() == str(path)
    metadata, body = read_card(path.read_text(encoding="utf-8"))
    (index,) = metadata["model-index"]
    assert index["name"] == "my: [model]"
    (result,) = index["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["type"] == "animals"
    metrics = {metric["name"]: metric["value"] for metric in result["metrics"]}
    right = (predictions["student"] == images["label"]).mean()
    assert metrics["Top-1 accuracy"] == pytest.approx(right, abs=1e-6)
    assert all(isinstance(value, float) for value in metrics.values())
    for title in ("Uses", "Bias, risks and limitations", "Training", "Evaluation"):
        assert f"\n## {title}\n" in body
    # A table keeps its columns, and no name is markup.
    assert "<script>" not in body.replace("\\<", "")
    for line in body.splitlines():
        if line.startswith("| ") and HOSTILE[1][:6] in line:
            assert line.replace("\\|", "").count("|") == 6


def test_a_folder_without_an_evaluation_is_one_line(tmp_path, capsys):
    assert card.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
