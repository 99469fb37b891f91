"""The examples of docs/drafting.md give what stands under them."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[3] / "docs/drafting.md"


def test_the_examples_give_what_stands_under_them() -> None:
    examples = re.findall(r"```python\n(.*?)```\n```\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    assert len(examples) == 8
    for code, given in examples:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(code, str(GUIDE), "exec"), names)
        assert said.getvalue() == given, code
