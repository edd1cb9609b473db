"""`python3 -m remo_broker.ctl` is `remo-brokerctl`."""

from __future__ import annotations

import sys

from remo_broker.ctl.main import main

sys.exit(main())
