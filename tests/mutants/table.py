"""All defects. For each new defence, add the row that takes it out, with the cheapest test that
then fails."""

from __future__ import annotations

from tests.mutants.audit_rows import AUDIT
from tests.mutants.broker_rows import BROKER
from tests.mutants.client_rows import CLIENT
from tests.mutants.credential_rows import CREDENTIALS
from tests.mutants.host_rows import HOST
from tests.mutants.manifest_rows import MANIFESTS
from tests.mutants.promise_rows import PROMISES

MUTANTS = (*BROKER, *AUDIT, *CLIENT, *CREDENTIALS, *HOST, *MANIFESTS, *PROMISES)
