"""What the pages under docs show, runs and prints what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
