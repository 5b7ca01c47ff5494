"""The user's ``user.py``: the same file as on a MicroPython board."""

import importlib.util
import sys
from pathlib import Path
from typing import Any


def load_driver(folder: Path) -> Any:
    """The module ``user.py`` of the board's folder, or None where there is none.

    Raises:
        ImportError: it lacks ``read`` or ``write``. Whatever else it raises on import comes through.
    """
    path = folder / "user.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("user", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))  # so that it finds what lies beside it
    spec.loader.exec_module(module)
    missing = [name for name in ("read", "write") if not callable(getattr(module, name, None))]
    if missing:
        raise ImportError(f"{path} lacks {' and '.join(missing)}: user_example.py beside run.py shows both")
    return module
