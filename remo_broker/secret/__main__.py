"""`python3 -m remo_broker.secret`, for containers with the package but not the program."""

from __future__ import annotations

import sys

from remo_broker.secret.main import main

sys.exit(main())
