"""`remo-brokerctl check --credentials` and `explain --unit`: a unit's credentials."""

from __future__ import annotations

from remo_broker.cli.options import Arguments
from remo_broker.cli.text import escaped
from remo_broker.ctl.commands import CREDENTIALS, UNIT
from remo_broker.ctl.session import open_client, open_output
from remo_broker.protocol.audit_records import Outcome
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.credential_rules import MAX_NAMES
from remo_broker.protocol.names import counted
from remo_broker.protocol.replies import UnitCredential, UnitCredentials

# Not a reason of the broker's: systemd cannot even ask for such a credential.
NAMES_TOO_LONG = "names_too_long"
# What to do about each reason that keeps a unit from starting.
ADVICE = {
    NAMES_TOO_LONG: (
        f"shorten the unit's or the credential's name: systemd cannot ask if both have more than {MAX_NAMES} bytes"
    ),
    Reason.NOT_IN_CONFIGURATION.value: (
        "add a rule to /etc/remo-broker/config.toml, then run: systemctl try-reload-or-restart remo-broker.service"
    ),
    Reason.NO_SNAPSHOT.value: "push secrets: remo-brokerctl push FILE; until then the unit waits",
    Reason.EXPIRED.value: "have the sidecar push a secret that has not expired",
    Reason.NOT_IN_SNAPSHOT.value: "add the secret to what the sidecar pushes",
    Reason.AUDIT_UNAVAILABLE.value: "have journald accept and store records; until then the unit waits",
    Reason.NO_SUCH_FIELD.value: "push the secret as a bundle that has the field, or correct the rule",
}


def check(arguments: Arguments) -> int:
    """Show what a unit would load. Return 0 if it would get everything."""
    output = open_output(arguments)
    unit = arguments.value(CREDENTIALS) or ""
    found = ask(arguments, unit)
    served = bool(found.credentials) and all(is_served(one) for one in found.credentials)
    if output.json != "off":
        fields = found.to_json()
        del fields["ok"]
        output.show_json(fields | {"served": served})
    elif not found.credentials:
        output.line(f"No rule gives {escaped(unit)} a credential ({counted(found.rules, 'rule')} in all).")
        output.line(f"Next step: {ADVICE[Reason.NOT_IN_CONFIGURATION.value]}.")
    else:
        rows = [
            [
                escaped(text)
                for text in (one.credential, one.secret, one.pattern, "yes" if is_served(one) else one.reason)
            ]
            for one in found.credentials
        ]
        output.table(["CREDENTIAL", "SECRET", "RULE", "GIVEN"], rows, f"{counted(len(rows), 'credential')} listed.")
    return 0 if served else 1


def explain(arguments: Arguments) -> int:
    """Explain why a unit would or would not get one credential."""
    output = open_output(arguments)
    unit, credential = arguments.value(UNIT) or "", arguments.operands[0]
    found = ask(arguments, unit)
    one = next((one for one in found.credentials if one.credential == credential), None)
    reason = one.reason if one is not None else Reason.NOT_IN_CONFIGURATION.value
    served = one is not None and is_served(one)
    if output.json != "off":
        answer = {"unit": unit, "credential": credential, "served": served, "reason": reason}
        if one is not None:
            answer |= {"secret": one.secret, "pattern": one.pattern}
        output.show_json(answer if served else answer | {"advice": ADVICE.get(reason, "")})
        return 0 if served else 1
    if one is None:
        output.line(f"{escaped(unit)} would not start with {escaped(credential)}: no rule gives it ({reason})")
    else:
        word = "would load" if served else "would not start with"
        output.line(f"{escaped(unit)} {word} {escaped(credential)}, which is {escaped(one.secret)} ({escaped(reason)})")
        output.line(f"  by the rule for {escaped(one.pattern)}")
    if not served:
        output.line(f"Next step: {ADVICE.get(reason, 'see remo-broker-protocol(7) for this reason')}.")
    return 0 if served else 1


def ask(arguments: Arguments, unit: str) -> UnitCredentials:
    with open_client(arguments) as client:
        found = client.explain_unit(unit)
    credentials = [_that_systemd_can_ask_for(unit, one) for one in found.credentials]
    return UnitCredentials(unit=found.unit, credentials=credentials, rules=found.rules)


def _that_systemd_can_ask_for(unit: str, one: UnitCredential) -> UnitCredential:
    if len(unit) + len(one.credential) <= MAX_NAMES:
        return one
    refused = {"outcome": Outcome.DENIED.value, "reason": NAMES_TOO_LONG}
    return UnitCredential(**(one.to_json() | refused))


def is_served(one: UnitCredential) -> bool:
    return one.outcome == "ok"
