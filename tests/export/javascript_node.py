"""JavaScript modules under node: a script with the modules' names in scope, values in and out as JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest


def node(script: str, modules: Mapping[str, Path], **values: Any) -> Any:
    """What a script returns.

    Args:
        script: body of an async function; ``values`` are its constants.
        modules: files by the name under which the script sees them.
        values: JSON values by name.
    """
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs node")
    imports = [f"import * as {name} from {json.dumps(path.resolve().as_uri())};" for name, path in modules.items()]
    names = ", ".join(values)
    text = "\n".join([*imports, 'import { readFileSync } from "node:fs";', f"const {{ {names} }} = JSON.parse(readFileSync(0));" if names else ""])
    text += f"\nconst result = await (async () => {{\n{script}\n}})();\nconsole.log(JSON.stringify(result ?? null));\n"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.mjs"
        file.write_text(text)
        done = subprocess.run([program, str(file)], input=json.dumps(values), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
