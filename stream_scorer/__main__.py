"""``python -m stream_scorer`` is the same as ``stream-scorer``."""

import sys

from stream_scorer.cli import main

sys.exit(main())
