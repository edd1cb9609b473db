"""Cases for both forms of `remo-secret`: refusals, versions, the four commands, and how a peer may
disconnect."""

from __future__ import annotations

import json

from tests.process.static_client.cases import COMMANDS, HTTPS, Case, answered
from tests.support.scripted_peer import (
    HOLD,
    NEXT,
    PONG,
    Slowly,
    allowlist,
    binary,
    failure,
    line,
    ready,
    value,
)

# --- refusals --------------------------------------------------------------------------------------------------------

STATUSES = {
    "denied": 3,
    "peer_unexpected": 3,
    "not_found": 4,
    "rate_limited": 6,
    "protocol_error": 1,
    "internal_error": 1,
    "backend_error": 1,
    "backend_unreachable": 1,
    "manifest_invalid": 1,
    "project_unknown": 1,
    "payload_too_large": 1,
    "a_code_of_next_year": 1,
    "": 1,
    "Denied": 1,
}
# `wait` continues if a later attempt may succeed, and in the end reports that the broker could not
# be reached.
WAITED_STATUSES = STATUSES | {"rate_limited": 5}

TEXTS = {
    "plain": "not in the manifest of 'myrepo'",
    "empty": "",
    "newline": "one\ntwo",
    "tab-and-return": "a\tb\rc",
    "escape-sequence": "\x1b]0;owned\x07",
    "c1-control": "\x9b31m",
    "bidirectional": "\u202egnp.exe",
    "zero-width": "a\u200bb\ufeffc",
    "line-separator": "a\u2028b\u2029c",
    "no-break-space": "a\xa0b\xadc",
    "private-use": "\ue000\uf8ff",
    "noncharacter": "\ufffe\uffff",
    "unassigned-plane": "\U000e0041\U0010fffd",
    "delete": "\x7f",
    "nul": "a\0b",
    "half": "a\ud800b",
    "letters-of-any-script": "na\u00efve \u043f\u0440\u0438\u0432\u0435\u0442 \u6f22\u5b57 \U0001f511",
    "backslash": "C:\\temp",
    "percent": "100% %s %n",
    "long": "x" * 5000,
    "long-and-escaped": "\x1b" * 3000,
}

REFUSALS = [
    *(
        Case(
            f"{command}-{code or 'empty'}-is-refused",
            ["wait", "--timeout=0"] if command == "wait" and code == "rate_limited" else arguments,
            answered(failure(code)),
            status=(WAITED_STATUSES if command == "wait" else STATUSES)[code],
            stdout=b"",
            stdin=stdin,
        )
        for command, (arguments, stdin) in COMMANDS.items()
        for code in STATUSES
    ),
    *(
        Case(f"message-{name}", ["get", "T"], answered(failure("denied", text)), status=3, stdout=b"")
        for name, text in TEXTS.items()
    ),
    *(
        Case(f"waited-message-{name}", ["wait", "--timeout=0"], answered(failure("rate_limited", text)), status=5)
        for name, text in TEXTS.items()
        if len(text) < 100
    ),
    Case("refused-greeting", ["get", "T"], [NEXT, failure("peer_unexpected", "not for uid 0")], status=3, stdout=b""),
    Case("refused-greeting-and-more", ["get", "T"], [NEXT, failure("denied"), value("x")], status=3, stdout=b""),
    Case("unknown-op", ["get", "T"], answered(failure("protocol_error", reason="unknown_op")), status=1),
    Case("unknown-op-of-the-greeting", ["list"], [NEXT, failure("protocol_error", reason="unknown_op")], status=1),
    Case("with-retry", ["get", "T"], answered(failure("rate_limited", retry_after_seconds=3)), status=6),
    Case("with-no-retry", ["get", "T"], answered(failure("denied", retry_after_seconds=None, reason=None)), status=3),
    Case("with-unknown-fields", ["get", "T"], answered(failure("denied", hint=["x", {"y": None}])), status=3),
    Case("refused-but-with-a-value", ["get", "T"], answered(failure("denied", value="zqSecretzq")), status=3, stdout=b""),
    Case("names-with-escapes", ["get", "T"], answered(b'{"\\u006fk":true,"val\\u0075e":"x","ttl_seconds":1,"generation":1}\n'), stdout=b"x"),
    Case("two-values-the-last-counts", ["get", "T"], answered(b'{"ok":false,"ok":true,"value":"a","value":"b","ttl_seconds":1,"generation":1}\n'), stdout=b"b"),
    Case("spaced", ["get", "T"], answered(b' \t{ "ok" : true , "value" : "x" , "ttl_seconds" : 1 , "generation" : -0 } \r\n'), stdout=b"x"),
    Case("unknown-fields", ["get", "T"], answered(line(ok=True, a=[1, -2.5e9, {"b": [[], {}, None, False]}], value="x", ttl_seconds=1, generation=1)), stdout=b"x"),
    Case("python-numbers", ["get", "T"], answered(b'{"ok":true,"a":[NaN,Infinity,-Infinity],"value":"x","ttl_seconds":1,"generation":1}\n'), stdout=b"x"),
    Case("hundreds-of-levels", ["get", "T"], answered(b'{"ok":true,"a":' + b"[" * 400 + b"]" * 400 + b',"value":"x","ttl_seconds":1,"generation":1}\n'), stdout=b"x"),
    Case("many-levels", ["get", "T"], answered(b'{"ok":true,"a":' + b"[" * 20000 + b"]" * 20000 + b"}\n"), status=1, stdout=b""),
]  # fmt: skip


OTHER_VERSIONS: tuple[object, ...] = (0, 1, 3, 10, 22, -1, -2, 10**30, "2", 2.0, True, None, [2], {})
VERSIONS = [
    *(
        Case(f"version-{version!r}", ["get", "T"], [NEXT, line(ok=True, protocol_version=version), value("x")], status=1, stdout=b"")
        for version in OTHER_VERSIONS
    ),
    Case("version-missing", ["get", "T"], [NEXT, line(ok=True), value("x")], status=1, stdout=b""),
    Case("version-minus-nothing", ["get", "T"], [NEXT, b'{"ok":true,"protocol_version":-0}\n', value("x")], status=1),
    Case("version-as-a-fraction", ["get", "T"], [NEXT, b'{"ok":true,"protocol_version":2e0}\n', value("x")], status=1),
    Case("version-alone-is-enough", ["get", "T"], [NEXT, b'{"ok":true,"protocol_version":2}\n', value("x")], stdout=b"x"),
]  # fmt: skip

# --- how a peer may end, or not --------------------------------------------------------------------------------------

FULL = b'{"ok":true,"ttl_seconds":1,"generation":1,"value":"'
LARGEST = FULL + b"x" * (65536 - len(FULL) - 3) + b'"}\n'
ENDS = [
    Case("closed-at-once", ["get", "T"], [], status=5, stdout=b""),
    Case("closed-after-the-request", ["get", "T"], [NEXT], status=5, stdout=b""),
    Case("closed-after-the-greeting", ["get", "T"], [NEXT, PONG], status=5, stdout=b""),
    Case("closed-in-the-reply", ["get", "T"], answered(value("x")[:-1]), status=5, stdout=b""),
    Case("closed-in-the-greeting", ["get", "T"], [NEXT, PONG[:-1]], status=5, stdout=b""),
    Case("closed-list", ["list"], [NEXT, PONG], status=5, stdout=b""),
    Case("closed-git", ["git-credential", "get"], [NEXT, PONG], status=5, stdout=b"", stdin=HTTPS),
    Case("closed-wait", ["wait", "--timeout=0"], [NEXT], status=5, stdout=b""),
    Case("byte-by-byte", ["get", "T"], [NEXT, Slowly(PONG + value("s3cret"))], stdout=b"s3cret"),
    Case("byte-by-byte-refused", ["get", "T"], [NEXT, Slowly(PONG + failure("denied"))], status=3, stdout=b""),
    Case("in-halves", ["get", "T"], [NEXT, Slowly(PONG + value("\u20ac" * 3000), size=7001)], stdout="\u20ac".encode() * 3000),
    Case("before-the-request", ["get", "T"], [PONG, value("x"), NEXT], stdout=b"x"),
    Case("more-behind-the-reply", ["get", "T"], answered(value("x"), b"garbage" * 20000), stdout=b"x"),
    Case("largest", ["get", "T"], answered(LARGEST), stdout=b"x" * (65536 - len(FULL) - 3)),
    Case("one-byte-more", ["get", "T"], answered(LARGEST.replace(b'x"}', b'xx"}')), status=1, stdout=b""),
    Case("largest-without-its-end", ["get", "T"], [*answered(LARGEST[:-1], b" "), HOLD], status=1, stdout=b""),
    Case("largest-in-pieces", ["get", "T"], [NEXT, Slowly(PONG + LARGEST, size=1000)], stdout=b"x" * (65536 - len(FULL) - 3)),
    Case("one-byte-more-in-pieces", ["get", "T"], [NEXT, Slowly(PONG + LARGEST.replace(b'x"}', b'xx"}'), size=1000)], status=1),
    Case("never-replies-to-wait", ["wait", "--timeout=0"], [HOLD], status=5, stdout=b""),
    Case("never-replies-after-the-greeting", ["wait", "--timeout=1"], [NEXT, PONG, HOLD], status=5, stdout=b""),
]  # fmt: skip

# --- list, wait ------------------------------------------------------------------------------------------------------

LISTS = [
    Case("list-none", ["list"], answered(allowlist()), stdout=b""),
    Case("list-one", ["list"], answered(allowlist("A")), stdout=b"A\n"),
    Case("list-in-order", ["list"], answered(allowlist("b", "A", "_", "0")), stdout=b"b\nA\n_\n0\n"),
    Case("list-longest", ["list"], answered(allowlist("x" * 128)), stdout=b"x" * 128 + b"\n"),
    Case("list-many", ["list"], answered(allowlist(*(f"NAME_{n}" for n in range(4000)))), stdout=b"".join(b"NAME_%d\n" % n for n in range(4000))),
    Case("list-escaped-name", ["list"], answered(b'{"ok":true,"project":"myrep\\u006f","allowlist":["\\u0041"],"schema_version":1}\n'), stdout=b"A\n"),
    *(
        Case(f"list-refuses-{name}", ["list"], answered(allowlist(*names)), status=1, stdout=b"")
        for name, names in {
            "too-long": ["x" * 129],
            "empty": ["A", ""],
            "blank": ["A B"],
            "newline": ["A\n"],
            "escape-sequence": ["\x1b[2J"],
            "beyond-ascii": ["\u00c4"],
            "half": ["\ud800"],
        }.items()
    ),
    *(
        Case(f"list-of-project-{name}", ["list"], answered(line(ok=True, project=project, allowlist=["A"], schema_version=1)), status=status)
        for name, project, status in [
            ("legal", "a-b_0", 0),
            ("longest", "a" * 64, 0),
            ("too-long", "a" * 65, 1),
            ("empty", "", 1),
            ("capital", "A", 1),
            ("dash-first", "-a", 1),
            ("path", "../x", 1),
        ]
    ),
    *(
        Case(f"list-with-{name}", ["list"], answered(line(**(json.loads(allowlist("A")) | more))), status=status)
        for name, more, status in [
            ("manifest", {"manifest_path": "/x", "manifest_sha256": "0"}, 0),
            ("no-manifest", {"manifest_path": None, "manifest_sha256": None, "hosts": None}, 0),
            ("manifest-path-a-number", {"manifest_path": 1}, 1),
            ("manifest-sum-a-number", {"manifest_sha256": 1}, 1),
            ("hosts", {"hosts": {"example.org": "A"}}, 0),
            ("no-hosts", {"hosts": {}}, 0),
            ("hosts-a-list", {"hosts": []}, 1),
            ("hosts-of-numbers", {"hosts": {"example.org": 1}}, 1),
            ("hosts-of-odd-names", {"hosts": {"example.org": "no name"}}, 1),
        ]
    ),
]  # fmt: skip

WAITS = [
    Case("wait-ready", ["wait"], answered(ready())),
    Case("wait-ready-at-once", ["wait", "--timeout=0"], answered(ready())),
    Case("wait-not-ready", ["wait", "--timeout=0"], answered(ready(False)), status=4),
    Case("wait-ready-later", ["wait", "--timeout=5"], answered(ready(False)), answered(ready(False)), answered(ready())),
    Case("wait-over-losses", ["wait", "--timeout=5"], [], [NEXT], [NEXT, PONG], answered(ready())),
    Case("wait-over-rate-limit", ["wait", "--timeout=5"], answered(failure("rate_limited")), answered(ready())),
    Case("wait-until-denied", ["wait", "--timeout=5"], answered(ready(False)), answered(failure("denied")), status=3),
    Case("wait-over-a-rate-limit-of-an-unknown-op", ["wait", "--timeout=0"], answered(failure("rate_limited", reason="unknown_op")), status=5),
    Case("wait-for-a-slow-reply", ["wait", "--timeout=3"], [NEXT, Slowly(PONG + ready(), pause=0.1)], status=5, stdout=b""),
    Case("get-wait", ["get", "--wait", "T"], answered(ready(False)), answered(ready()), answered(value("x")), stdout=b"x"),
    Case("get-wait-seconds", ["get", "--wait=2", "T"], answered(ready()), answered(value("x")), stdout=b"x"),
    Case("get-wait-nothing", ["get", "--wait=0", "T"], answered(failure("not_found", reason="no_snapshot")), status=4),
    Case("get-wait-twice-the-last-counts", ["get", "--wait=9", "--wait=0", "T"], answered(value("x")), stdout=b"x"),
]  # fmt: skip

# --- command lines ---------------------------------------------------------------------------------------------------

LINES = [
    Case("option-behind", ["get", "T", "-f", "a"], answered(value('{"a":"1"}')), stdout=b"1"),
    Case("option-joined", ["get", "-fa", "T"], answered(value('{"a":"1"}')), stdout=b"1"),
    Case("option-with-equals-in-it", ["get", "-f=a", "T"], answered(value('{"a":"1"}')), status=4),
    Case("option-twice", ["get", "-fb", "-f", "a", "T"], answered(value('{"a":"1"}')), stdout=b"1"),
    Case("ends-of-options", ["get", "--", "T"], answered(value("x")), stdout=b"x"),
    Case("command-behind-the-end", ["--", "get", "T"], answered(value("x")), stdout=b"x"),
    Case("name-like-an-option", ["get", "--", "-f"], answered(failure("denied")), status=3),
    Case("dash-is-an-operand", ["get", "-"], answered(failure("denied")), status=3),
    Case("value-like-an-option", ["get", "-f", "-x", "T"], answered(value('{"a":"1"}')), status=4),
    *(
        Case(f"sends-name-{number}", ["get", name], answered(failure("denied")), status=3, stdout=b"")
        for number, name in enumerate(
            ["no name", 'a"b', "a\\b", "a\nb\tc\rd", "\x01\x1f\x7f", "\b\f", "n\u00e4me", "\U0001f511", "x" * 128, "x" * 1024, "\x02" * 1024]
        )
    ),
]  # fmt: skip

# --- git -------------------------------------------------------------------------------------------------------------


def asks(host: str = "github.com", *more: str, protocol: str = "https") -> bytes:
    return "".join(f"{one}\n" for one in [f"protocol={protocol}", f"host={host}", *more]).encode() + b"\n"


def git(
    name: str,
    stdin: bytes,
    *replies: bytes,
    arguments: tuple[str, ...] = (),
    status: int = 0,
    stdout: bytes | None = None,
    operation: str = "get",
) -> Case:
    script = [NEXT, PONG, replies[0], *(step for one in replies[1:] for step in (NEXT, one))] if replies else []
    return Case(
        f"git-{name}", ["git-credential", *arguments, operation], script, status=status, stdout=stdout, stdin=stdin
    )


TOKEN, NAMES = value("ghp_x"), allowlist("GITHUB_TOKEN", "GH_TOKEN", "GITLAB_TOKEN", "BITBUCKET_TOKEN", "OTHER")
OWN = ("--host=example.org", "--secret=OTHER")
BUNDLE = value('{"username":"me","password":"p w"}')


def says(user: str, password: str = "ghp_x") -> bytes:
    return f"username={user}\npassword={password}\n".encode()


EPHEMERAL = b"capability[]=authtype\n" + says("x-access-token") + b"ephemeral=1\n"
GIT = [
    git("github", asks(), NAMES, TOKEN, stdout=says("x-access-token")),
    git("gist", asks("gist.github.com"), NAMES, TOKEN, stdout=says("x-access-token")),
    git("gitlab", asks("gitlab.com"), NAMES, TOKEN, stdout=says("oauth2")),
    git("bitbucket", asks("bitbucket.org"), NAMES, TOKEN, stdout=says("x-token-auth")),
    git("second-name", asks(), allowlist("GH_TOKEN"), TOKEN, stdout=says("x-access-token")),
    git("capitals", asks("GitHub.COM"), NAMES, TOKEN, stdout=says("x-access-token")),
    git("no-name-of-the-table", asks(), allowlist("OTHER"), stdout=b""),
    git("not-in-the-table", asks("example.org"), NAMES, stdout=b""),
    git("with-a-port", asks("github.com:443"), NAMES, stdout=b""),
    git("lookalike", asks("github.com.attacker.example"), NAMES, stdout=b""),
    git("kelvin-sign-is-no-k", asks("bitbuc\u212aet.org"), NAMES, stdout=b""),
    git("host-not-utf-8", b"protocol=https\nhost=\xff\n\n", NAMES, stdout=b""),
    git("http", asks(protocol="http"), stdout=b""),
    git("protocol-in-capitals", asks(protocol="HTTPS"), stdout=b""),
    git("nothing-asked", b"", stdout=b""),
    git("only-an-empty-line", b"\n" + asks(), stdout=b""),
    git("no-host", b"protocol=https\n\n", stdout=b""),
    git("empty-host", asks(""), stdout=b""),
    git("store", asks(), operation="store", stdout=b""),
    git("erase", asks(), operation="erase", stdout=b""),
    git("unknown-operation", asks(), operation="capability", stdout=b""),
    git("empty-operation", asks(), operation="", stdout=b""),
    git("crlf", asks().replace(b"\n", b"\r\n"), NAMES, TOKEN, stdout=says("x-access-token")),
    git("without-the-empty-line", asks()[:-1], NAMES, TOKEN, stdout=says("x-access-token")),
    git("cut-in-the-last-line", asks()[:-2], NAMES, TOKEN, stdout=says("x-access-token")),
    git("more-behind-the-empty-line", asks() + b"host=attacker.example\n", NAMES, TOKEN, stdout=says("x-access-token")),
    git("line-without-equals", b"nonsense\n" + asks(), NAMES, TOKEN, stdout=says("x-access-token")),
    git("equals-in-the-value", asks("github.com", "path=a=b"), NAMES, TOKEN, stdout=says("x-access-token")),
    git("host-twice", asks("github.com", "host=example.org"), status=1, stdout=b""),
    git("other-key-twice", asks("github.com", "p\x1bth=a", "p\x1bth=b"), status=1, stdout=b""),
    git("key-of-half-twice", b"\xed\xa0\x80=a\n\xed\xa0\x80=b\n" + asks(), status=1, stdout=b""),
    git("empty-key-twice", b"=a\n=b\n" + asks(), status=1, stdout=b""),
    git("list-twice", asks("github.com", "wwwauth[]=a", "wwwauth[]=b"), NAMES, TOKEN, stdout=says("x-access-token")),
    git("longest-request", asks("github.com", "path=" + "x" * 70000)[:-1], NAMES, TOKEN, stdout=says("x-access-token")),
    git("authtype", asks("github.com", "capability[]=authtype"), NAMES, TOKEN, stdout=EPHEMERAL),
    git("authtype-and-state", asks("github.com", "capability[]=state", "capability[]=authtype"), NAMES, TOKEN, stdout=EPHEMERAL),
    git("authtype-in-a-list", asks("github.com", "capability[]=authtype state"), NAMES, TOKEN, stdout=EPHEMERAL),
    git("authtype-reset", asks("github.com", "capability[]=authtype", "capability[]="), NAMES, TOKEN, stdout=says("x-access-token")),
    *(
        git(f"authtype-behind-{ord(odd):x}", asks("github.com", f"capability[]=state{odd}authtype"), NAMES, TOKEN, stdout=says("x-access-token"))
        for odd in "\t\v\x85\xa0\u2003"
    ),
    git("authtype-alike", asks("github.com", "capability[]=authtypes"), NAMES, TOKEN, stdout=says("x-access-token")),
    git("asks-for-a-user", asks("github.com", "username=me"), NAMES, TOKEN, stdout=says("me")),
    git("asks-for-no-user", asks("github.com", "username="), NAMES, TOKEN, stdout=says("x-access-token")),
    git("asks-for-a-user-not-utf-8", asks()[:-1] + b"username=\xff\n\n", NAMES, TOKEN, stdout=b"username=\xff\npassword=ghp_x\n"),
    git("own-user", asks(), NAMES, TOKEN, arguments=("--username=me",), stdout=says("me")),
    git("own-host", asks("example.org"), TOKEN, arguments=OWN, stdout=says("x-access-token")),
    git("own-host-in-capitals", asks("EXAMPLE.org"), TOKEN, arguments=("--host=Example.ORG", "--secret=T"), stdout=says("x-access-token")),
    git("own-host-only", asks(), arguments=OWN, stdout=b""),
    git("own-host-with-another-port", asks("example.org:8443"), arguments=OWN, stdout=b""),
    git("own-host-without-its-port", asks("example.org"), arguments=("--host=example.org:8443", "--secret=T"), stdout=b""),
    git("own-hosts", asks("b.org"), TOKEN, arguments=("--host=a.org", "--secret=A", "--host=b.org", "--secret=B"), stdout=says("x-access-token")),
    git("own-host-of-the-table", asks("gitlab.com"), TOKEN, arguments=("--host=gitlab.com", "--secret=T"), stdout=says("oauth2")),
    git("own-host-twice-the-same", asks("a.org"), TOKEN, arguments=("--host=a.org", "--secret=A") * 2, stdout=says("x-access-token")),
    git("bundle", asks("example.org"), BUNDLE, arguments=OWN, stdout=says("me", "p w")),
    git("bundle-for-its-user", asks("example.org", "username=me"), BUNDLE, arguments=OWN, stdout=says("me", "p w")),
    git("bundle-for-another-user", asks("example.org", "username=you"), BUNDLE, arguments=OWN, stdout=b""),
    git("bundle-without-user", asks("example.org"), value('{"password":"p"}'), arguments=OWN, stdout=says("x-access-token", "p")),
    git("bundle-with-empty-user", asks("example.org"), value('{"username":"","password":"p"}'), arguments=(*OWN, "--username=u"), stdout=says("u", "p")),
    git("bundle-without-password", asks("example.org"), value('{"user":"me"}'), arguments=OWN, status=1, stdout=b""),
    git("bundle-with-escapes", asks("example.org"), value('{"password":"\\u20ac\\"","username":"\\u0041"}'), arguments=OWN, stdout=says("A", '\u20ac"')),
    git("binary", asks("example.org"), binary("AAEC"), arguments=OWN, status=1, stdout=b""),
    *(
        git(f"refuses-{name}", asks("example.org"), value(text), arguments=OWN, status=1, stdout=b"")
        for name, text in {"newline": "a\nb", "return": "a\rb", "nul": "a\0b", "newline-in-a-field": json.dumps({"password": "a\nb"})}.items()
    ),
    git("empty-token", asks("example.org"), value(""), arguments=OWN, stdout=says("x-access-token", "")),
    git("denied", asks("example.org"), failure("denied", "not in the manifest"), arguments=OWN, status=3, stdout=b""),
    git("not-in-snapshot", asks(), NAMES, failure("not_found", "gone", reason="not_in_snapshot"), status=4, stdout=b""),
    git("nothing-yet", asks("example.org"), failure("not_found", reason="no_snapshot"), arguments=(*OWN, "--wait=0"), status=4),
    git("unknown-op", asks(), NAMES, failure("protocol_error", reason="unknown_op"), status=1, stdout=b""),
    git("hosts", asks("h.org"), line(**(json.loads(NAMES) | {"hosts": {"h.org": "OTHER"}})), TOKEN, stdout=says("x-access-token")),
    git("hosts-first", asks(), line(**(json.loads(NAMES) | {"hosts": {"github.com": "OTHER"}})), TOKEN, stdout=says("x-access-token")),
    git("hosts-twice-the-last-counts", asks("h.org"), NAMES[:-2] + b',"hosts":{"h.org":1,"\\u0068.org":"OTHER"}}\n', TOKEN, stdout=says("x-access-token")),
    git("hosts-twice-the-last-is-wrong", asks("h.org"), NAMES[:-2] + b',"hosts":{"h.org":"OTHER","h.org":1}}\n', status=1, stdout=b""),
    *(
        git(f"with-{field}-a-number", asks(), line(**(json.loads(NAMES) | {field: 1})), status=1, stdout=b"")
        for field in ("manifest_path", "manifest_sha256")
    ),
    git("hosts-escaped", asks("h.org"), b'{"ok":true,"project":"x","allowlist":[],"schema_version":1,"hosts":{"h.\\u006frg":"\\u0041"}}\n', TOKEN, stdout=says("x-access-token")),
    Case("git-waits-for-the-first-push", ["git-credential", *OWN, "get"], answered(failure("not_found", reason="no_snapshot")), answered(ready(False)), answered(ready()), answered(TOKEN), stdin=asks("example.org"), stdout=says("x-access-token")),
    Case("git-waits-whatever-the-code", ["git-credential", *OWN, "get"], answered(failure("denied", reason="no_snapshot")), answered(ready()), answered(TOKEN), stdin=asks("example.org"), stdout=says("x-access-token")),
    Case("git-wait", ["git-credential", *OWN, "--wait=5", "get"], [], answered(ready()), answered(TOKEN), stdin=asks("example.org"), stdout=says("x-access-token")),
    Case("git-asks-again-where-the-connection-was-lost", ["git-credential", "get"], [NEXT, PONG, NAMES], [NEXT, PONG, TOKEN], stdin=asks(), stdout=says("x-access-token")),
    Case("git-does-not-ask-a-third-time", ["git-credential", "get"], [NEXT, PONG, NAMES], [NEXT, PONG], stdin=asks(), status=5, stdout=b""),
]  # fmt: skip

COMMANDS_OF_ALL_KINDS = [*REFUSALS, *VERSIONS, *ENDS, *LISTS, *WAITS, *LINES, *GIT]
