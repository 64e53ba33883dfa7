"""What the pages under docs show, runs and prints what they say."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daskmix import estimators

PAGE = Path(__file__).parent.parent / "docs" / "kmeans-and-mixtures.md"
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_block_of_code_has_its_output_beside_it():
    assert len(EXAMPLES) == PAGE.read_text().count("```python") > 1


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_a_block_prints_what_stands_below_it(tmp_path, number):
    code, output = EXAMPLES[number]
    (tmp_path / "block.py").write_text(code)
    ran = subprocess.run([sys.executable, "block.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == output


@pytest.mark.parametrize("name", estimators.__all__)
def test_the_example_in_a_docstring_is_true(name):
    (example,) = [
        found for found in doctest.DocTestFinder(recurse=False).find(getattr(estimators, name)) if found.examples
    ]
    assert doctest.DocTestRunner().run(example).failed == 0
