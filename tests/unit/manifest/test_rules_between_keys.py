"""The rules of remo-broker-manifest(5): what is accepted, what is refused, and with which
message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remo_broker.manifest import EnvBinding, FileBinding, Manifest
from remo_broker.manifest.document import parse
from remo_broker.manifest.result import build
from remo_broker.manifest.rules_between_keys import faults
from remo_broker.protocol.message import encode
from remo_broker.protocol.replies import ProjectInfo
from remo_broker.protocol.shared_limits import MAX_MESSAGE
from tests.unit.manifest.validating import refusal, validated

EXAMPLES = Path(__file__).parents[2] / "contract/fixtures/manifest"

LISTED = 'schema_version = 1\n[project]\nname = "myrepo"\n[allowlist]\nsecrets = ["A", "aws"]\n'
BOUND = 'schema_version = 1\nproject = "myrepo"\n'


def test_the_example_of_the_allowlist_form() -> None:
    assert validated((EXAMPLES / "allowlist-form.toml").read_text()) == Manifest(
        project="myrepo",
        description="at most 256 characters",
        allowlist=("GITHUB_TOKEN", "aws"),
        bindings={
            "GITHUB_TOKEN": [EnvBinding({"GITHUB_TOKEN": None}, explicit=False)],
            "aws": [FileBinding("~/.aws/credentials", 0o600, "aws_access_key_id={{aws_access_key_id}}\n")],
        },
        ttl_seconds=600,
        max_entries=16,
        source="/projects/myrepo/.remo/broker.toml",
    )


def test_the_example_of_the_binding_form() -> None:
    assert validated((EXAMPLES / "binding-form.toml").read_text()) == Manifest(
        project="myrepo",
        description="",
        allowlist=("GITHUB_TOKEN",),
        bindings={"GITHUB_TOKEN": [EnvBinding({"GH_TOKEN": None})]},
        ttl_seconds=900,
        max_entries=50,
        source="/projects/myrepo/.remo/broker.toml",
    )


@pytest.mark.parametrize(
    "text",
    [
        'schema_version = 1\n[project]\nname = "myrepo"\n[allowlist]\nsecrets = []\n',
        BOUND + "[secrets]\n",
        BOUND,
    ],
)
def test_an_empty_list_denies_everything(text: str) -> None:
    manifest = validated(text)
    assert manifest.allowlist == ()
    assert manifest.bindings == {}


def test_the_allowlist_keeps_the_order_of_the_file() -> None:
    assert validated(BOUND + "[secrets.z]\n[secrets.A]\n[secrets.m]\n").allowlist == ("z", "A", "m")


def test_the_default_variable_is_the_name_in_upper_case() -> None:
    manifest = validated(BOUND + '[secrets.npm_token]\n[secrets.9lives]\n[secrets.x]\nenv_var = "Y"\n')
    assert manifest.bindings == {
        "npm_token": [EnvBinding({"NPM_TOKEN": None}, explicit=False)],
        "9lives": [EnvBinding({"9LIVES": None}, explicit=False)],
        "x": [EnvBinding({"Y": None})],
    }


def test_the_brokers_limits_apply_if_the_manifest_has_none() -> None:
    manifest = validated(BOUND, max_ttl_seconds=1234, max_entries=99)
    assert (manifest.ttl_seconds, manifest.max_entries) == (1234, 99)


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("", "schema_version", "missing; it must be the number 1"),
        ("schema_version = 2\nwhatever = 1\n", "schema_version", "version 2 is not supported"),
        (f"schema_version = 0x{'f' * 600}\n", "schema_version", "this version is not supported"),
        ("schema_version = -1\n", "schema_version", "this version is not supported"),
        ("schema_version = true\n", "schema_version", "not an integer"),
        ("schema_version = 1.0\n", "schema_version", "not an integer"),
        ('schema_version = "1"\n', "schema_version", "not an integer"),
        ("schema_version = 1\n", "project", "missing; it must be a table"),
        ("schema_version = 1\nproject = 3\n", "project", "not a string"),
        ("schema_version = 1\nproject = []\n", "project", "not a string"),
        ('schema_version = 1\nproject = "My Repo"\n', "project", "malformed; it must be 1 to 64 of a-z"),
        ('schema_version = 1\nproject = "-repo"\n', "project", "malformed"),
        ('schema_version = 1\nproject = "myrepo\\n"\n', "project", "malformed"),
        ('schema_version = 1\nproject = ""\n', "project", "malformed"),
        (f'schema_version = 1\nproject = "{"a" * 65}"\n', "project", "malformed"),
        ('schema_version = 1\nproject = "other"\n', "project", "not the name it is registered by; it must be myrepo"),
        ("schema_version = 1\n[project]\n", "project.name", "missing"),
        ("schema_version = 1\n[project]\nname = 1\n", "project.name", "not a string"),
        ('schema_version = 1\n[project]\nname = "other"\nallowlist.secrets = []\n', "project.allowlist", "unknown key"),
        (LISTED.replace("myrepo", "other"), "project.name", "not the name it is registered by; it must be myrepo"),
        (LISTED.replace("[allow", f'description = "{"x" * 257}"\n[allow'), "project.description", "too long"),
        (LISTED.replace("[allow", "description = 1\n[allow"), "project.description", "not a string"),
        (LISTED.replace("[allow", 'colour = "red"\n[allow'), "project.colour", "known are name, description"),
        ('schema_version = 1\n[project]\nname = "myrepo"\n', "allowlist", "missing"),
        ('schema_version = 1\nallowlist = []\n[project]\nname = "myrepo"\n', "allowlist", "not a table"),
        ('schema_version = 1\n[allowlist]\n[project]\nname = "myrepo"\n', "allowlist.secrets", "missing"),
        (LISTED.replace('["A", "aws"]', '"A"'), "allowlist.secrets", "not a list"),
        (LISTED.replace('"aws"', "1"), "allowlist.secrets[1]", "not a string; a secret's name is 1 to 128 letters"),
        (LISTED.replace("aws", "a-b"), "allowlist.secrets[1]", "malformed; a secret's name is 1 to 128 letters"),
        (LISTED.replace("aws", ""), "allowlist.secrets[1]", "malformed"),
        (LISTED.replace("aws", "aws\\n"), "allowlist.secrets[1]", "malformed"),
        (LISTED.replace("aws", "\\u00e4"), "allowlist.secrets[1]", "malformed"),
        (LISTED.replace("aws", "a" * 129), "allowlist.secrets[1]", "malformed"),
        (LISTED.replace("aws", "A"), "allowlist.secrets[1]", "duplicate name A; remove one of the two"),
        (LISTED + "[secrets.B]\n", "secrets.B", "not in the allowlist; add it"),
        (LISTED + "[allowlist.more]\n", "allowlist.more", "unknown key"),
        (BOUND + '[allowlist]\nsecrets = ["A"]\n', "allowlist", "unknown key where project is a string"),
        (BOUND + "secret.A = {}\n", "secret", "unknown key"),
        (BOUND + "secrets = []\n", "secrets", "not a table"),
        (BOUND + "secrets.A = 1\n", "secrets.A", "not a table"),
        (BOUND + "secrets.A = [1]\n", "secrets.A[0]", "not a table"),
        (BOUND + "secrets.a-b = {}\n", "secrets.a-b", "one of the keys is not a secret's name"),
        (BOUND + 'secrets."a b" = {}\n', "secrets", "one of the keys is not a secret's name"),
        (BOUND + 'secrets."" = {}\n', "secrets", "one of the keys is not a secret's name"),
        (BOUND + f"secrets.{'a' * 129} = {{}}\n", "secrets", "one of the keys is not a secret's name"),
        (BOUND + 'secrets.A.fetch_as = "stdin"\n', "secrets.A.fetch_as", 'unknown; it must be "env" or "file"'),
        (BOUND + "secrets.A.fetch_as = []\n", "secrets.A.fetch_as", 'it must be "env" or "file"'),
        (BOUND + 'secrets.A.env_var = "9A"\n', "secrets.A.env_var", "malformed"),
        (BOUND + 'secrets.A.env_var = "A=B"\n', "secrets.A.env_var", "malformed"),
        (BOUND + 'secrets.A.env_var = ""\n', "secrets.A.env_var", "malformed"),
        (BOUND + 'secrets.A.file_path = "x"\n', "secrets.A.file_path", 'unknown key where fetch_as is "env"'),
        (BOUND + 'secrets.A.colour = "x"\n', "secrets.A.colour", "known are fetch_as, optional, env_var, env"),
        (BOUND + 'secrets.A.fetch_as = "file"\n', "secrets.A.file_path", "missing"),
        (BOUND + "cache = 1\n", "cache", "not a table"),
        (BOUND + "cache.ttl_seconds = 1\n", "cache.ttl_seconds", "known are default_ttl_seconds, default_max_entries"),
        (BOUND + "cache.default_ttl_seconds = 0\n", "cache.default_ttl_seconds", "out of range"),
        (BOUND + "cache.default_ttl_seconds = 86401\n", "cache.default_ttl_seconds", "out of range"),
        (
            BOUND + "cache.default_ttl_seconds = 901\n",
            "cache.default_ttl_seconds",
            "above the broker's own 900; 1 to 900",
        ),
        (BOUND + "cache.default_ttl_seconds = 60.0\n", "cache.default_ttl_seconds", "not an integer"),
        (BOUND + "cache.default_ttl_seconds = true\n", "cache.default_ttl_seconds", "not an integer"),
        (BOUND + f"cache.default_ttl_seconds = 0x{'f' * 6000}\n", "cache.default_ttl_seconds", "out of range"),
        (BOUND + "cache.default_max_entries = 0\n", "cache.default_max_entries", "out of range"),
        (BOUND + "cache.default_max_entries = 65\n", "cache.default_max_entries", "above the broker's own 64; 1 to 64"),
        (BOUND + "cache.default_max_entries = 1025\n", "cache.default_max_entries", "out of range"),
        (LISTED + "[cache]\nttl_seconds = 901\n", "cache.ttl_seconds", "above the broker's own 900"),
        (LISTED + "[cache]\nmax_entries = 65\n", "cache.max_entries", "above the broker's own 64"),
        (LISTED + "[cache]\ndefault_max_entries = 5\n", "cache.default_max_entries", "where project is a table"),
        (BOUND + "colour = 1\n", "colour", "unknown key"),
        (BOUND + '"\\u001b[31mred" = 1\n', None, "one of the keys is unknown"),
        (BOUND + 'cache."\\u001b[31mred" = 1\n', "cache", "one of the keys is unknown"),
    ],
)
def test_a_fault_is_one_line_that_names_the_key(text: str, key: str | None, says: str) -> None:
    error = refusal(text)
    assert error.key == key
    assert says in error.message


FILE = 'secrets.A = {{fetch_as = "file", file_path = {path}, file_mode = {mode}, template = {template}}}\n'


@pytest.mark.parametrize(
    ("path", "mode", "template", "key"),
    [
        ('""', '"0600"', '""', "file_path"),
        ('"a\\u0000b"', '"0600"', '""', "file_path"),
        ('"a\\u001b"', '"0600"', '""', "file_path"),
        ('"a\\n"', '"0600"', '""', "file_path"),
        ("1", '"0600"', '""', "file_path"),
        ('"x"', '"600"', '""', "file_mode"),
        ('"x"', '"00600"', '""', "file_mode"),
        ('"x"', '"0800"', '""', "file_mode"),
        ('"x"', '"0600\\n"', '""', "file_mode"),
        ('"x"', "0o600", '""', "file_mode"),
        ('"x"', '"0600"', "1", "template"),
    ],
)
def test_a_file_binding_with_a_fault(path: str, mode: str, template: str, key: str) -> None:
    error = refusal(BOUND + FILE.format(path=path, mode=mode, template=template))
    assert error.key == f"secrets.A.{key}"
    assert "a file binding needs file_path, file_mode and template" in error.message


@pytest.mark.parametrize("key", ["file_path", "file_mode", "template"])
def test_a_file_binding_needs_all_three(key: str) -> None:
    text = 'secrets.A = {fetch_as = "file", file_path = "x", file_mode = "0600", template = "x"}\n'
    assert validated(BOUND + text).bindings == {"A": [FileBinding("x", 0o600, "x")]}
    error = refusal(BOUND + re.sub(rf', {key} = "\w+"', "", text))
    assert error.key == f"secrets.A.{key}"
    assert "missing" in error.message


def test_a_file_binding_takes_no_variable() -> None:
    good = FILE.format(path='"x"', mode='"0600"', template='""')
    error = refusal(BOUND + good.replace("}", ', env_var = "A"}'))
    assert error.key == "secrets.A.env_var"
    assert 'where fetch_as is "file"' in error.message


@pytest.mark.parametrize(
    ("name", "directory", "says"),
    [
        ("other", "other", "not the name it is registered by; it must be other"),
        ("myrepo", "elsewhere", "it is registered as myrepo, but its directory has another name"),
        (None, "elsewhere", "not the name of its directory; it must be elsewhere"),
        (None, "Else where\x1b", "not the name of its directory; use that"),
    ],
)
def test_registered_directory_and_manifest_names_must_be_equal(name: str | None, directory: str, says: str) -> None:
    for text, key in ((LISTED, "project.name"), (BOUND, "project")):
        error = refusal(text, name, directory)
        assert error.key == key
        assert says in error.message


def test_the_brokers_limits_bound_the_manifests() -> None:
    text = BOUND + "cache = {default_ttl_seconds = 5000, default_max_entries = 1000}\n"
    manifest = validated(text, max_ttl_seconds=5000, max_entries=1000)
    assert (manifest.ttl_seconds, manifest.max_entries) == (5000, 1000)
    assert refusal(text, max_ttl_seconds=4999, max_entries=1000).key == "cache.default_ttl_seconds"
    assert refusal(text, max_ttl_seconds=5000, max_entries=999).key == "cache.default_max_entries"


def test_faults_are_listed_in_the_order_of_the_keys() -> None:
    text = 'project = "A"\nsecrets = {B = 1, "c d" = {env_var = 1}}\ncache = 1\nx = 1\nschema_version = 1\n'
    found = faults(parse(text.encode()), name="myrepo", directory="myrepo")
    assert [fault.key for fault in found] == ["project", "secrets.B", "secrets", "cache", "x"]


@pytest.mark.parametrize("one_more", [False, True])
def test_all_names_must_fit_the_reply_to_info(one_more: bool) -> None:
    """The file has room for a few bytes more than the reply."""
    room = MAX_MESSAGE - len(encode(ProjectInfo(project="m", allowlist=[], schema_version=1).to_json())) + 1
    # Each name takes its length, two quotes and a comma; the last one fills the rest.
    names = [f"{number:04}" for number in range((room - 100) // 7)]
    names.append("x" * (room - 7 * len(names) - 3 + one_more))
    listed = ",".join(f'"{name}"' for name in names)
    text = f'schema_version=1\nproject.name="m"\nallowlist.secrets=[{listed}]'
    assert len(text) <= 65536
    if one_more:
        error = refusal(text, "m", "m")
        assert error.key == "allowlist.secrets"
        assert "too many names" in error.message
    else:
        manifest = validated(text, "m", "m")
        reply = ProjectInfo(project="m", allowlist=list(manifest.allowlist), schema_version=1)
        assert len(encode(reply.to_json())) == MAX_MESSAGE


ADDITIONS = """
[secrets.aws]
env = { AWS_ACCESS_KEY_ID = "id", AWS_SECRET_ACCESS_KEY = "key" }
optional = true
[[secrets.db]]
env_var = "DB"
[[secrets.db]]
fetch_as = "file"
file_path = ".pgpass"
file_mode = "0600"
template = "h:5432:*:u:{{ value | pgpass }}\\n"
base = "project"
place = "copy"
[hosts]
"registry.example.org:5000" = "db"
"""


def test_the_additions_to_version_1() -> None:
    manifest = validated(BOUND + ADDITIONS)
    assert manifest.hosts == {"registry.example.org:5000": "db"}
    assert manifest.bindings == {
        "aws": [EnvBinding({"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}, optional=True)],
        "db": [
            EnvBinding({"DB": None}),
            FileBinding(".pgpass", 0o600, "h:5432:*:u:{{ value | pgpass }}\n", base="project", place="copy"),
        ],
    }
    handed_out = {"schema_version": 1, "project": manifest.project, "secrets": dict(manifest.tables)}
    assert build(handed_out, "/x").bindings == manifest.bindings, "what the broker hands out says the same"


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("optional = true", "optional = 1", "secrets.aws.optional"),
        ("optional = true", 'env_var = "X"', "secrets.aws.env"),
        ("AWS_ACCESS_KEY_ID", '"A-B"', "secrets.aws.env.A-B"),
        ('env = { AWS_ACCESS_KEY_ID = "id", AWS_SECRET_ACCESS_KEY = "key" }', "env = {}", "secrets.aws.env"),
        ('"key" }', '"no field" }', "secrets.aws.env.AWS_SECRET_ACCESS_KEY"),
        ('"DB"', '"D-B"', "secrets.db[0].env_var"),
        ('"0600"', '"600"', "secrets.db[1].file_mode"),
        ('".pgpass"', '"../x"', "secrets.db[1].file_path"),
        ('".pgpass"', '"/etc/x"', "secrets.db[1].file_path"),
        ('".pgpass"', '"~/x"', "secrets.db[1].file_path"),
        ("| pgpass", "| rot13", "secrets.db[1].template"),
        ('"project"\nplace', '"root"\nplace', "secrets.db[1].base"),
        ('"copy"', '"move"', "secrets.db[1].place"),
        ("registry.example.org:5000", "Registry.example.org", "hosts"),
        ("registry.example.org:5000", "https://registry.example.org/", "hosts"),
        ('5000" = "db"', '5000" = "other"', 'hosts."registry.example.org:5000"'),
    ],
)
def test_an_addition_with_a_fault(before: str, after: str, key: str) -> None:
    assert before in ADDITIONS
    assert refusal(BOUND + ADDITIONS.replace(before, after, 1)).key == key
