"""`remo-brokerctl explain`: every rule that a get must pass, in the broker's order."""

from __future__ import annotations

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.terminal import Output
from remo_broker.cli.text import escaped
from remo_broker.client.errors import ProjectUnknown
from remo_broker.ctl.commands import UID, UNIT
from remo_broker.ctl.session import open_client, open_output, project_operand, uids, user
from remo_broker.ctl.socket_problems import problem as unreachable_because
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.replies import Explanation, ProjectDetail

# The rules in order, each with the reasons for which it denies, and what to do then.
RULES: list[tuple[str, dict[str, str]]] = [
    (
        "the project is registered",
        {Reason.NOT_REGISTERED: "register its directory: remo-brokerctl register PATH"},
    ),
    (
        "the user may connect",
        {
            Reason.UID_NOT_ALLOWED: "register it again with this user: remo-brokerctl register --replace --allow-uid=UID PATH"
        },
    ),
    (
        "the name is one that a secret can have",
        {Reason.INVALID_NAME: "use 1 to 128 letters, digits and _"},
    ),
    (
        "the manifest, as last loaded, lists the name",
        {Reason.NOT_IN_MANIFEST: "add it to the manifest, then: remo-brokerctl reload {project}"},
    ),
    (
        "secrets have been pushed",
        {Reason.NO_SNAPSHOT: "have the sidecar push, or: remo-brokerctl push FILE"},
    ),
    (
        "the last push contained it",
        {Reason.NOT_IN_SNAPSHOT: "add it to what the sidecar pushes"},
    ),
    (
        "it has not expired",
        {Reason.EXPIRED: "have the sidecar push it again, with a later time"},
    ),
]


def explain(arguments: Arguments) -> int:
    if arguments.value(UNIT) is not None:
        if len(arguments.operands) != 1:
            raise Usage("--unit takes one operand: the name of the credential")
        from remo_broker.ctl import credentials

        return credentials.explain(arguments)
    if len(arguments.operands) != 2:
        raise Usage("NAME is missing: the name of the secret to explain")
    output = open_output(arguments)
    project, secret = project_operand(arguments), arguments.operands[1]
    asked = uids(arguments, UID)
    if len(asked) > 1:
        raise Usage("--uid takes one user; ask for each")
    uid = asked[0] if asked else None
    detail: ProjectDetail | None = None
    with open_client(arguments) as client:
        try:
            detail = client.show(project)
            found = client.explain(project, secret, uid)
        except ProjectUnknown:
            found = Explanation(decision="deny", outcome="denied", reason=Reason.NOT_REGISTERED, generation=0)
    served = found.outcome == "ok"
    unserved = None if detail is None else unreachable_because(detail)
    advice = advise(found.reason, project)
    if found.reason == Reason.NOT_IN_MANIFEST and detail is not None and is_on_disk(detail, secret):
        advice = f"the manifest on disk has it by now: remo-brokerctl reload {project}"
    if output.json != "off":
        fields = found.to_json()
        del fields["ok"]
        answer = {"project": project, "secret": secret, "uid": uid, "served": served and unserved is None} | fields
        answer |= {} if served else {"advice": advice}
        output.show_json(answer | ({} if unserved is None else {"unserved_reason": unserved}))
        return 0 if served and unserved is None else 1
    word = "would be given" if served else "would not be given"
    output.line(f"{project} {word} {escaped(secret)}{'' if served else f': {escaped(found.reason)}'}")
    show_rules(output, found, uid, detail)
    if not served:
        output.line(advice[:1].upper() + advice[1:] + ".")
    if unserved is not None:
        output.line(f"But {project} is not served: {escaped(unserved)}.")
    return 0 if served and unserved is None else 1


def show_rules(output: Output, found: Explanation, uid: int | None, detail: ProjectDetail | None) -> None:
    """One line per rule, down to the one that denies; the broker checks none after it."""
    for rule, reasons in RULES:
        refused = found.reason in reasons
        note = ""
        if Reason.UID_NOT_ALLOWED in reasons:
            if uid is not None:
                note = f": {user(uid)}"
            elif detail is not None and detail.allowed_uids:
                note = f": one of {', '.join(map(user, detail.allowed_uids))}"
        output.line(f"  {output.mark(not refused)} {rule}{note}")
        if refused:
            return


def advise(reason: str, project: str) -> str:
    for _, reasons in RULES:
        if reason in reasons:
            return reasons[reason].format(project=project)
    return "see remo-broker-protocol(7) for this reason"


def is_on_disk(detail: ProjectDetail, secret: str) -> bool:
    """Whether the manifest on disk has the name; False too if it cannot be read from here."""
    from remo_broker.ctl.check import allowlist_on_disk

    return secret in allowlist_on_disk(detail.project_path, detail.name)
