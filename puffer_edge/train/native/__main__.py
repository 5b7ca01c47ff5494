"""``python -m puffer_edge.train.native``: build the native trainer beside its sources."""

import sys

from puffer_edge.train.native.build import main

try:
    main()
except RuntimeError as error:
    sys.exit(f"error: {error}")
