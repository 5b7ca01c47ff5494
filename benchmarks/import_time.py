"""How long `import puffer_edge` takes in a fresh interpreter, beside numpy (its only dependency on import) and the bare interpreter.

python benchmarks/import_time.py [--runs 20]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

from record import save, show

STATEMENTS = {"interpreter alone": "pass", "import numpy": "import numpy", "import puffer_edge": "import puffer_edge"}


def seconds(statement: str) -> float:
    """Wall time of one fresh interpreter that runs a statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure the statements in turn, so that a busy moment falls on all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs

    for statement in STATEMENTS.values():
        seconds(statement)  # fills the disk cache and writes .pyc files
    taken = [{name: seconds(statement) for name, statement in STATEMENTS.items()} for _ in range(runs)]
    rows = []
    for name in STATEMENTS:
        times = [one[name] for one in taken]
        rows.append({"statement": name, "median_s": round(median(times), 4), "min_s": round(min(times), 4), "max_s": round(max(times), 4)})
    bare = rows[0]["median_s"]
    for row in rows:
        row["beyond_interpreter_s"] = round(row["median_s"] - bare, 4)
    show("import time, fresh interpreter", rows)
    save("import_time", settings={"runs": runs}, rows=rows)


if __name__ == "__main__":
    main()
