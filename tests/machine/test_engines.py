"""Containers of real engines: a user in no group fetches the project's secrets, whatever happens on
the host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import engines
from tests.support.devcontainers import DEVCONTAINERS, install_devcontainer
from tests.support.engines import BUSYBOX, MINBASE, SCRATCH, UID, WITH_TOOLS, Podman, RootlessPodman
from tests.support.machine import REPOSITORY, SOURCE, Machine, unavailable
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Container, Engine
    from tests.support.operator import Operator

SECRETS: dict[str, str | dict[str, str]] = {"TOKEN": "zqSecretzq", "GITHUB_TOKEN": "zqGithubzq"}
GIT_PORT = 8443
STATIC = {engines.CLIENT: engines.CLIENT}


@pytest.fixture
def project(operator: Operator) -> str:
    operator.register("app", list(SECRETS))
    operator.push(SECRETS)
    return "app"


def sockets(project: str) -> dict[str, str]:
    return {f"{engines.RUN}/mount/{project}": engines.RUN}


def gets(container: Container) -> str:
    """The secret, or the error."""
    status, printed = container.run("remo-secret get TOKEN")
    assert status == 0, printed
    return printed


@pytest.mark.parametrize("kind", engines.ENGINES, ids=lambda kind: kind.name)
def test_a_container_gets_secrets_whatever_happens_on_the_host(
    machine: Machine, operator: Operator, project: str, kind: type[Engine]
) -> None:
    engine = kind(machine)
    with engine.container(WITH_TOOLS, engines.mounts(project)) as container:
        assert container.run("id -u") == (0, str(UID) + "\n")
        assert gets(container) == "zqSecretzq"
        assert container.run("remo-secret exec -- sh -c 'echo $TOKEN'") == (0, "zqSecretzq\n")
        _, printed = container.run("printf 'protocol=https\\nhost=github.com\\n\\n' | remo-secret git-credential get")
        assert printed == "username=x-access-token\npassword=zqGithubzq\n"
        for event in ("restart", "stop and start", "register again"):
            if event == "register again":
                operator.do("unregister", name=project)
                status, printed = container.run("remo-secret get TOKEN")
                assert status == 5, printed
                assert "\nHint: " in printed
                operator.register(project, list(SECRETS))
            else:
                for verb in event.split(" and "):
                    machine.systemctl(verb, SERVICE)
                status, printed = container.run("remo-secret get TOKEN")
                assert status == 4, printed
                assert "the broker holds no secrets yet" in printed
                operator.push(SECRETS)
            assert gets(container) == "zqSecretzq", event
    assert engine.run(WITH_TOOLS, engines.mounts(project), "remo-secret", "get", "TOKEN").stdout == "zqSecretzq"


def test_a_reboot_leaves_new_containers_served(machine: Machine, operator: Operator) -> None:
    """An upgrade is a restart on the same sockets: see test_older_version."""
    directory = operator.manifest("app", list(SECRETS))
    operator.command("register", directory)
    machine.reboot()
    started = light(machine)
    for engine, image in started:
        done = engine.run(image, engines.mounts("app"), "remo-secret", "get", "TOKEN", check=False)
        assert done.returncode == 4, done.stderr
        assert "the broker holds no secrets yet" in done.stderr
    operator.push(SECRETS)
    for engine, image in started:
        assert engine.run(image, engines.mounts("app"), "remo-secret", "get", "TOKEN").stdout == "zqSecretzq", engine


def light(machine: Machine) -> list[tuple[Engine, str]]:
    """Each engine with an image that is quick to make."""
    return [(kind(machine), BUSYBOX if issubclass(kind, Podman) else WITH_TOOLS) for kind in engines.ENGINES]


@pytest.mark.parametrize("kind", [Podman, RootlessPodman], ids=lambda kind: kind.name)
def test_what_devcontainer_prints_starts_a_container(
    machine: Machine, operator: Operator, project: str, kind: type[Podman]
) -> None:
    """podman takes docker's line too, if root starts it."""
    engine = kind(machine)
    engine.pull(BUSYBOX)
    directory = operator.manifest(project, list(SECRETS))
    for option in ("--podman", "--docker"):
        line = machine.run(["remo-brokerctl", "devcontainer", option, directory]).stdout.strip()
        assert line.endswith("IMAGE")
        inside = f"sh -c 'ls {engines.RUN} /workspaces/{project}/.devcontainer'"
        line = f"{line.removesuffix('IMAGE')} localhost/{BUSYBOX} {inside}".replace("docker run", "podman run")
        done = machine.run([*engine.environment, "sh", "-c", line], user=engine.user, check=False)
        if option == "--podman" or engine.user is None:
            assert done.returncode == 0, done.stderr
            assert "broker.sock" in done.stdout
            assert "remo-broker.toml" in done.stdout


# --- the static client in images of all kinds -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Podman, RootlessPodman], ids=lambda kind: kind.name)
def test_the_static_client_needs_nothing_from_the_image(
    machine: Machine, operator: Operator, project: str, kind: type[Podman]
) -> None:
    engine = kind(machine)
    for image in (SCRATCH, BUSYBOX, MINBASE, WITH_TOOLS):
        program = "/remo-secret" if image == SCRATCH else "remo-secret"
        bound = sockets(project) | ({} if image == SCRATCH else STATIC)
        assert engine.run(image, bound, program, "get", "TOKEN").stdout == "zqSecretzq", image
        assert engine.run(image, bound, program, "wait", "--timeout=0").returncode == 0, image
    handed = engine.run(BUSYBOX, sockets(project) | STATIC, "remo-secret", "exec", "--", "true", check=False)
    assert handed.returncode == 1
    assert "needs the Python program" in handed.stderr
    operator.do("clear-creds")
    waited = engine.run(SCRATCH, sockets(project), "/remo-secret", "wait", "--timeout=0", check=False)
    assert waited.returncode == 4


DEVCONTAINER = f"{SOURCE}/{DEVCONTAINERS.relative_to(REPOSITORY)}/node_modules/.bin/devcontainer"


def test_the_reference_tool_starts_a_dev_container(machine: Machine, operator: Operator) -> None:
    """With rootless podman: the container has the Feature's client, and its entry point has
    waited."""
    install_devcontainer()
    if not machine.path("/usr/bin/node").exists():
        unavailable("the machine has no node to run the tool")
    engine = RootlessPodman(machine)
    engine.pull(WITH_TOOLS)
    directory = operator.manifest("app", list(SECRETS))
    settings = {"image": f"localhost/{WITH_TOOLS}", "remoteUser": "dev"}
    machine.write(f"{directory}/.devcontainer/devcontainer.json", json.dumps(settings))
    operator.command("register", directory)
    operator.push(SECRETS)
    machine.run(["remo-brokerctl", "devcontainer", "--write", "--yes", directory])
    machine.run(["chown", "-R", f"{engine.user}:", directory])

    def tool(verb: str, *command: str) -> str:
        options = [f"--workspace-folder={directory}", "--docker-path=podman"]
        argv = [*engine.environment, "BUILDAH_ISOLATION=chroot", "node", DEVCONTAINER, verb, *options, *command]
        return machine.run(argv, user=engine.user, timeout=engines.COMMAND_SECONDS).stdout

    assert '"outcome":"success"' in tool("up")
    try:
        assert tool("exec", "remo-secret", "get", "TOKEN") == "zqSecretzq"
        assert tool("exec", "remo-secret", "exec", "--", "sh", "-c", "echo $TOKEN; id -un") == "zqSecretzq\ndev\n"
    finally:
        machine.run([*engine.environment, "podman", "rm", "--all", "--force", "--time=0"], user=engine.user)


@pytest.fixture
def git_server(machine: Machine) -> Iterator[str]:
    """The certificate of a git server on the machine, whose password is a secret of the project."""
    directory = "/run/git-server"
    script = f"{SOURCE}/tests/support/git_server.py"
    argv = ["/usr/bin/python3", "-IS", script, directory, str(GIT_PORT), str(SECRETS["TOKEN"])]
    with machine.popen(argv) as server:
        assert server.stdout is not None
        if server.stdout.readline() != "listening\n":
            pytest.fail(server.communicate()[1])
        yield f"{directory}/certificate.pem"
        server.communicate()
    machine.run(["rm", "-r", directory])


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("kind", [Podman, RootlessPodman], ids=lambda kind: kind.name)
def test_git_clones_with_the_credential_helper(
    machine: Machine, project: str, kind: type[Podman], git_server: str
) -> None:
    host = f"localhost:{GIT_PORT}"
    bound = sockets(project) | STATIC | {git_server: "/run/certificate.pem"}
    helper = f"!remo-secret git-credential --host={host} --secret=TOKEN"
    git = ["git", "-c", "http.sslCAInfo=/run/certificate.pem", "-c", "credential.helper="]
    clone = ["clone", "-q", f"https://{host}/repo.git", "/tmp/clone"]
    engine = kind(machine)
    assert engine.run(WITH_TOOLS, bound, *git, *clone, check=False).returncode != 0
    engine.run(WITH_TOOLS, bound, *git, "-c", f"credential.helper={helper}", *clone)


# --- what the README says ---------------------------------------------------------------------------------------------


def readme_lines() -> list[str]:
    """The commands of the first block below "In a container"."""
    section = (REPOSITORY / "README.md").read_text().partition("\n## In a container\n")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    return [line[2:] for line in block.replace("\\\n", " ").splitlines()]


TREE = "/var/lib/machines/debian"


@pytest.fixture
def tree(machine: Machine) -> Iterator[str]:
    """A tree for systemd-nspawn, in which there is a user `dev`."""
    engines.Nspawn(machine)
    layer = f"{engines.STORAGE}/tree"
    machine.run(["mkdir", "-p", TREE, f"{layer}/upper", f"{layer}/work"])
    options = f"lowerdir={engines.root_on_machine(WITH_TOOLS)},upperdir={layer}/upper,workdir={layer}/work"
    machine.run(["mount", "-t", "overlay", "-o", options, "tree", TREE])
    yield TREE
    machine.run(["umount", TREE])


def in_a_unit(command: str) -> list[str]:
    """systemd-nspawn makes control groups, which it can below those of a unit."""
    return ["systemd-run", "--quiet", "--pipe", "--wait", "--property=Delegate=yes", "sh", "-c", command]


def test_what_devcontainer_prints_is_a_file_of_settings_for_nspawn(
    machine: Machine, operator: Operator, project: str, tree: str
) -> None:
    directory = operator.manifest(project, list(SECRETS))
    settings = machine.run(["remo-brokerctl", "devcontainer", "--nspawn", directory]).stdout
    machine.write("/etc/systemd/nspawn/debian.nspawn", settings)
    command = f"systemd-nspawn -q -M debian --pipe ls {engines.RUN} /workspaces/{project}/.devcontainer"
    try:
        printed = machine.run(in_a_unit(command)).stdout.split()
    finally:
        machine.run(["rm", "/etc/systemd/nspawn/debian.nspawn"])
    assert {"broker.sock", "remo-broker.toml"} <= set(printed)


def test_code_in_a_container_leads_its_next_start_to_no_file_of_the_host(
    machine: Machine, operator: Operator, project: str, tree: str
) -> None:
    """It tries to put a link in place of what the engine mounts."""
    directory = operator.manifest(project, list(SECRETS))
    workspace = f"/workspaces/{project}"
    settings = machine.run(["remo-brokerctl", "devcontainer", "--nspawn", directory]).stdout
    machine.write("/etc/systemd/nspawn/debian.nspawn", f"{settings}\nBind={directory}:{workspace}\n")
    machine.run(["install", "-m", "0600", "/dev/stdin", "/etc/of-root"], stdin="zqRootzq")
    machine.run(["touch", f"{tree}/etc/of-root"])
    replace = "mv .devcontainer was; mkdir .devcontainer; ln -sf /etc/of-root .devcontainer/remo-broker.toml"
    read = f"cat /etc/of-root {workspace}/.devcontainer/remo-broker.toml"
    printed = []
    try:
        for script in (f"cd {workspace}; {replace}; true", f"{read}; true"):
            done = machine.run(in_a_unit(f"systemd-nspawn -q -M debian --pipe sh -c '{script}' 2>&1"))
            printed.append(done.stdout)
    finally:
        machine.run(["rm", "-r", "/etc/systemd/nspawn/debian.nspawn", "/etc/of-root", directory])
    assert "zqRootzq" not in printed[1]
    assert "busy" in printed[0]
    assert "schema_version" in printed[1]


@pytest.fixture
def images_of_the_readme(machine: Machine) -> list[Podman]:
    """The image that its lines assume: `debian:12` in podman."""
    podmans = [Podman(machine), RootlessPodman(machine)]
    for podman in podmans:
        podman.pull(MINBASE)
        machine.run(
            [*podman.environment, "podman", "tag", f"localhost/{MINBASE}", "localhost/debian:12"], user=podman.user
        )
    return podmans


@pytest.mark.usefixtures("tree")
def test_the_readmes_lines_work_literally(
    machine: Machine, operator: Operator, images_of_the_readme: list[Podman]
) -> None:
    register, podman, nspawn = readme_lines()
    directory = operator.manifest("myrepo", ["GITHUB_TOKEN"], parent="/home/me/src")
    assert register == f"remo-brokerctl register {directory}"
    machine.run(["sh", "-c", register])
    for event in ("nothing", "restart", "stop and start", "register again"):
        if event == "register again":
            machine.run(["remo-brokerctl", "unregister", "myrepo"])
            machine.run(["sh", "-c", register])
        elif event != "nothing":
            for verb in event.split(" and "):
                machine.systemctl(verb, SERVICE)
        operator.push(SECRETS)
        for engine in images_of_the_readme:
            done = machine.run([*engine.environment, "sh", "-c", podman], user=engine.user)
            assert done.stdout == SECRETS["GITHUB_TOKEN"], (event, engine.name)
            if engine.user is not None and event == "nothing":  # the table's other way
                other = podman.replace("--group-add keep-groups", "--userns keep-id")
                done = machine.run([*engine.environment, "sh", "-c", other], user=engine.user)
                assert done.stdout == SECRETS["GITHUB_TOKEN"]
        # On nspawn's terminal, the client ends the line.
        assert machine.run(in_a_unit(nspawn)).stdout.strip() == SECRETS["GITHUB_TOKEN"], event
