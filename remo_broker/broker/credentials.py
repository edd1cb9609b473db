"""Which unit gets which secret as a systemd credential. No sockets: a unit and a credential in, a
verdict out.

The operator sets the rules in `[credentials."UNIT"]` of the configuration. A credential without a
rule is denied, whether or not the broker holds such a secret.
"""

from __future__ import annotations

from remo_broker.broker.secrets.plain import write_binary, write_field, write_string
from remo_broker.protocol.audit_records import Decision, Outcome
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.replies import UnitCredential, UnitCredentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.secrets.memory import Region
    from remo_broker.broker.secrets.store import Store
    from remo_broker.protocol.credential_rules import CredentialRule

IN_CONFIGURATION = "in_configuration"


class CredentialVerdict:
    """The outcome of a request for one credential. `rule` is the rule that allows it, if any."""

    __slots__ = ("decision", "outcome", "reason", "rule")

    def __init__(self, decision: Decision, outcome: Outcome, reason: str, rule: CredentialRule | None = None) -> None:
        self.decision = decision
        self.outcome = outcome
        self.reason = reason
        self.rule = rule

    @property
    def may_wait(self) -> bool:
        """Whether a push may change the verdict: nothing has been pushed yet."""
        return self.reason == Reason.NO_SNAPSHOT.value


class Credentials:
    """The rules in force, and counts since the broker started."""

    def __init__(self, rules: list[CredentialRule], store: Store) -> None:
        self.rules = rules
        self.served = 0
        self.refused = 0
        self._store = store

    def of_unit(self, unit: str) -> list[CredentialRule]:
        """The rules that apply to a unit; for each credential, only the one in force."""
        found: dict[str, CredentialRule] = {}
        for rule in self.rules:
            if rule.credential not in found and rule.applies_to(unit):
                found[rule.credential] = rule
        return list(found.values())

    def verdict(self, unit: str, credential: str) -> CredentialVerdict:
        """Whether the unit gets the credential now. Does not check that a bundle has the field:
        that needs reading it."""
        rule = next((one for one in self.of_unit(unit) if one.credential == credential), None)
        if rule is None:
            return CredentialVerdict(Decision.DENY, Outcome.DENIED, Reason.NOT_IN_CONFIGURATION.value)
        snapshot = self._store.snapshot
        if snapshot is None:
            return CredentialVerdict(Decision.ALLOW, Outcome.NOT_FOUND, Reason.NO_SNAPSHOT.value, rule)
        expiry = snapshot.expiries.get(rule.secret)
        if rule.secret in snapshot.expired or (expiry is not None and self._store.clocks.usec_left(expiry) <= 0):
            return CredentialVerdict(Decision.ALLOW, Outcome.NOT_FOUND, Reason.EXPIRED.value, rule)
        if rule.secret not in snapshot.secrets:
            return CredentialVerdict(Decision.ALLOW, Outcome.NOT_FOUND, Reason.NOT_IN_SNAPSHOT.value, rule)
        return CredentialVerdict(Decision.ALLOW, Outcome.OK, IN_CONFIGURATION, rule)

    def write(self, region: Region, rule: CredentialRule) -> tuple[int, int] | None:
        """Write the plain value of the rule's secret, which the store holds, into `region`. Returns
        its start and end there, or None if the secret has no such field."""
        snapshot = self._store.snapshot
        assert snapshot is not None
        index, start, end, binary = snapshot.secrets[rule.secret]
        data = snapshot.views[index]
        if rule.field is not None:
            return None if binary else write_field(region, data, start, end, rule.field)
        if binary:
            return 0, write_binary(region, data, start, end)
        return 0, write_string(region, 0, data, start, end)

    def _has_field(self, rule: CredentialRule) -> bool:
        region = self._store.arena.take()
        try:
            return self.write(region, rule) is not None
        finally:
            self._store.arena.give_back(region)

    def explain(self, unit: str, *, withheld: bool) -> UnitCredentials:
        """What a request for each credential of the unit would return now. `withheld`: no secret is
        released, because its record would be lost. Serves nothing. Raises `Refused` if there is no
        memory to look for the field of a bundle."""
        found = []
        for rule in self.of_unit(unit):
            verdict = self.verdict(unit, rule.credential)
            if verdict.outcome is Outcome.OK and rule.field is not None and not self._has_field(rule):
                verdict = CredentialVerdict(Decision.ALLOW, Outcome.NOT_FOUND, Reason.NO_SUCH_FIELD.value, rule)
            if verdict.outcome is Outcome.OK and withheld:
                verdict = CredentialVerdict(Decision.DENY, Outcome.DENIED, Reason.AUDIT_UNAVAILABLE.value, rule)
            found.append(
                UnitCredential(
                    credential=rule.credential,
                    secret=rule.source,
                    pattern=rule.pattern,
                    decision=str(verdict.decision),
                    outcome=str(verdict.outcome),
                    reason=verdict.reason,
                )
            )
        return UnitCredentials(unit=unit, credentials=found, rules=len(self.rules))
