"""`python -m remo_broker` runs `remo-broker`."""

from __future__ import annotations

import sys

from remo_broker.broker.daemon import main

sys.exit(main())
