"""What the pages under docs show, runs and prints what they say."""

import doctest
import re
import runpy
from pathlib import Path

import pytest

from daskmix import estimators

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {path.name: page for path in sorted(DOCS.glob("*.md")) if "```python" in (page := path.read_text())}
EXAMPLES = {
    f"{name}-{number}": example
    for name, page in PAGES.items()
    for number, example in enumerate(re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL))
}


def test_every_block_of_code_has_its_output_beside_it():
    assert len(PAGES) == 3
    assert len(EXAMPLES) == sum(page.count("```python") for page in PAGES.values()) == 8


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_block_prints_what_stands_below_it(tmp_path, monkeypatch, capsys, example):
    code, output = example
    (tmp_path / "block.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("block.py", run_name="__main__")
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("name", estimators.__all__)
def test_the_example_in_a_docstring_is_true(name):
    (example,) = [
        found for found in doctest.DocTestFinder(recurse=False).find(getattr(estimators, name)) if found.examples
    ]
    assert doctest.DocTestRunner().run(example).failed == 0
