"""remo-secret-tools(7): a test runs each recipe; those without a tool of their own run here."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.support.machine import REPOSITORY

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup

# The file with the test of each section's recipe.
TESTS = {
    "git": "test_git",
    "AWS CLI and SDKs": "test_aws",
    "docker, podman, buildah, skopeo": "test_docker",
    "pip": "test_indexes",
    "uv": "test_indexes",
    "twine": "test_twine",
    "npm": "test_npm",
    "pnpm": "test_npm",
    "cargo": "test_cargo",
    "kubectl": "test_kubernetes",
    "psql and libpq": "test_psql",
    "direnv and compose": "test_env",
    "Claude Code and other programs with a key helper": "test_recipes",
}


def test_each_recipe_has_its_test(place: ToolSetup) -> None:
    page = (REPOSITORY / "man/remo-secret-tools.7").read_text()
    assert re.findall(r"^\.Ss (.*)$", page, re.MULTILINE) == list(TESTS)
    for section in TESTS:
        assert place.page(section), section


def test_a_key_helper(place: ToolSetup) -> None:
    """The program runs the setting with a shell, and uses its output."""
    [recipe] = place.page("Claude Code and other programs with a key helper")
    command = json.loads(f"{{{recipe}}}")["apiKeyHelper"].replace("ANTHROPIC_API_KEY", "KUBE_TOKEN")
    done = place.run("sh", "-c", command)
    assert (done.returncode, done.stdout) == (0, "zqkube"), done.stderr
