"""Output for people contains nothing that a terminal would interpret."""

from __future__ import annotations

import pytest

from remo_broker.cli.program import Problem, complain, run
from remo_broker.cli.terminal import Output
from remo_broker.ctl.commands import PROGRAM

HOSTILE = "a\x1b[2J\u202eb\nc"
HARMLESS = r"a\x1b[2J\u202eb\nc"


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json_mode="off", legend=True, pager=False)
    output.table(["NAME", "X"], [[HOSTILE, "1"], ["b", "22"]], "2 things listed.")
    width = len(HARMLESS)
    assert capsys.readouterr().out == (f"{'NAME':{width}}  X \n{HARMLESS}  1\n{'b':{width}}  22\n\n2 things listed.\n")
    Output(json_mode="off", legend=False, pager=False).table(["NAME"], [], "0 things listed.")
    assert capsys.readouterr().out == ""


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """Any error's text may come from a broker, a file's name or the command line."""
    complain(PROGRAM, HOSTILE)
    assert capsys.readouterr().err == f"remo-brokerctl: {HARMLESS}\n"
    assert run(PROGRAM, [HOSTILE], lambda _: None) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("short", "pretty"):
        Output(json_mode=mode, legend=True, pager=False).show_json({"name": HOSTILE})
        assert capsys.readouterr().out.replace("\n", "").replace("\t", "").isprintable()


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from remo_broker.ctl import session

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "socket_path", interrupt)
    assert run(PROGRAM, ["list"], lambda _: None) == 130
    assert capsys.readouterr() == ("", "")


def test_a_problem_prints_its_hint_and_sets_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from remo_broker.ctl import session

    def fail(_: object) -> None:
        raise Problem("it failed: why", hint="do that", status=9)

    monkeypatch.setattr(session, "socket_path", fail)
    assert run(PROGRAM, ["list"], lambda _: None) == 9
    assert capsys.readouterr().err == "remo-brokerctl: it failed: why\nHint: do that\n"
