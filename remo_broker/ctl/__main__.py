"""`python3 -m remo_broker.ctl` is `remo-brokerctl`."""

from __future__ import annotations

import sys

try:
    from remo_broker.ctl.main import main

    status = main()
except KeyboardInterrupt:  # interrupted during the imports; exit as a shell reports it
    status = 130
sys.exit(status)
