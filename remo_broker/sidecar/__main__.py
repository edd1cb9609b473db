"""`python3 -m remo_broker.sidecar` is `remo-sidecar`."""

from __future__ import annotations

import sys

try:
    from remo_broker.sidecar.main import main

    status = main()
except KeyboardInterrupt:  # during the imports
    status = 130
sys.exit(status)
