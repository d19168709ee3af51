"""Figures of the benchmark as tables and pictures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree
from pathlib import Path

import pytest

from benchmarks import report, summary, svg
from benchmarks.figures import Row, Table

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = {"ours": "Ours", "a": "A", "b": "B"}


def table(*figures: float | None) -> Table:
    return Table("Title", COLUMNS, [Row("row", dict(zip(COLUMNS, figures)), max)], "ours")


def test_the_ratio_is_to_the_best_of_the_others() -> None:
    rate = table(30, 10, 15)
    assert rate.ratio(rate.rows[0]) == 2
    wait = Row("row", {"ours": 5, "a": 10, "b": 20}, min)
    assert rate.ratio(wait) == 0.5


@pytest.mark.parametrize("figures", [(None, 1, 2), (1, None, None), (1, 0, 0)])
def test_there_is_no_ratio_without_two_figures(figures: tuple[float | None, ...]) -> None:
    lacking = table(*figures)
    assert lacking.ratio(lacking.rows[0]) is None


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    assert report.markdown_table(table(1234, None, 0.5)) == (
        "|  | Ours | A | B | ratio |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| row | 1,234 | – | 0.500 | **2,468** |\n"
    )


def test_rst_is_aligned() -> None:
    assert summary.simple_table(Table("Title", COLUMNS, table(1, 22, 333).rows)) == (
        "===  ====  ====  ===\n"
        "\\    Ours     A    B\n"
        "===  ====  ====  ===\n"
        "row  1.00  22.0  333\n"
        "===  ====  ====  ===\n"
    )


def test_bars_are_as_long_as_their_values() -> None:
    picture = xml.etree.ElementTree.fromstring(svg.bars("Title", {"page": {"a<b": 200, "c": 50}}))
    widths = [float(bar.get("width", "")) for bar in picture.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == 4 * widths[1]
    assert "a<b" in [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]


def test_lines_with_nothing_measured_are_still_a_picture() -> None:
    for series in ({}, {"a": []}, {"a": [(0.0, 0.0)]}):
        xml.etree.ElementTree.fromstring(svg.lines("Title", "x", "y", series))


@pytest.mark.parametrize("value,end", [(0.4, 1), (9, 12), (97, 120), (290, 400), (1234, 1600)])
def test_an_axis_ends_at_a_round_number_above(value: float, end: float) -> None:
    assert svg.round_up(value) == end


def test_the_readme_quotes_the_run_that_is_kept() -> None:
    kept = ROOT / "benchmarks" / "results"
    results = json.loads((kept / "results.json").read_text())
    readme = (ROOT / "README.rst").read_text()
    assert summary.of(sorted(kept.glob("*.json"))) in readme
    assert results["date"][:10] in readme
    assert f"``{results['command']}``" in readme
    for picture in re.findall(r"benchmarks/results/[\w.]+\.svg", readme):
        assert (ROOT / picture).stat().st_size < 20 << 10
