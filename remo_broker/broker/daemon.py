"""The broker process: builds the parts, starts, serves, stops. See remo-broker(8)."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module, without enums
import os
import sys
from functools import partial

from remo_broker import __version__
from remo_broker.broker import registrations, start_failure, systemd
from remo_broker.broker.audit.journal import JournalTransport, StderrTransport
from remo_broker.broker.audit.read_back import ReadBack
from remo_broker.broker.audit.starts import StartFile, previous_fields
from remo_broker.broker.audit.trail import AuditTrail
from remo_broker.broker.audit.trail_timers import TrailTimers
from remo_broker.broker.decisions import Decisions
from remo_broker.broker.loop import READ, Loop
from remo_broker.broker.manifest_child import ManifestReader
from remo_broker.broker.operations import Operations
from remo_broker.broker.privileges import drop_capabilities
from remo_broker.broker.projects import within_limits
from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets import memory
from remo_broker.broker.secrets.store import Store
from remo_broker.broker.sighup import Reloads
from remo_broker.broker.sockets.admin import AdminServer
from remo_broker.broker.sockets.connection import PEER_SECONDS, Sweeper
from remo_broker.broker.sockets.credentials import CredentialServer
from remo_broker.broker.sockets.host_listeners import ControlListeners
from remo_broker.broker.sockets.project import ProjectServer
from remo_broker.broker.sockets.project_listeners import ProjectListeners
from remo_broker.broker.sockets.status import StatusServer
from remo_broker.broker.startup import raise_descriptor_limit, transport
from remo_broker.broker.status import StatusReport
from remo_broker.broker.systemd import ADMIN, CREDENTIAL, CREDENTIALS, PROJECT_KINDS, STATUS
from remo_broker.protocol import audit_records, paths
from remo_broker.protocol.clock import monotonic, now_usec
from remo_broker.protocol.config import DENY, Config, ConfigError, configure, read_flags
from remo_broker.protocol.hardening import execute_again, forbid_dumps
from remo_broker.protocol.names import counted, is_project_name, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.broker.audit.trail import Transport

# How long records still queued for journald may delay the exit, and so the next start. A restart of
# journald takes less.
AUDIT_DRAIN_SECONDS = 1.0
# Exit status of an idle exit. The unit does not restart the broker after this one.
IDLE_STATUS = 75
# Status changes within STATUS_SECONDS go to systemd as one, at most one per STATUS_PAUSE_SECONDS:
# while systemd is busy, its notification queue holds 10 datagrams in a container, and sd_notify(3)
# blocks when it is full.
STATUS_SECONDS = 0.1
STATUS_PAUSE_SECONDS = 1.0
# Journal priorities of the broker's messages about internal and environment faults.
PRIORITY_ERROR, PRIORITY_WARNING = 3, 4


class Daemon:
    """One broker. `run` returns the exit status."""

    def __init__(
        self, config: Config, transport: Transport, manager: systemd.Manager, reread: Callable[[], Config]
    ) -> None:
        """`reread` reads the configuration again, for the part that a reload changes."""
        self.config = config
        self._reread = reread
        self.manager = manager
        self.loop = Loop(self._bug)
        manager.later = self.loop.after
        self.sweeper = Sweeper(self.loop)
        self.trail = AuditTrail(transport, clock_usec=now_usec, strict=config.audit_failure == DENY)
        self.arena = memory.Arena()
        self.broker = Decisions(config, Store(self.arena, config.cache_default_ttl_seconds))
        self.project_server = ProjectServer(
            self.loop, self.sweeper, self.broker, self.trail, deny=config.audit_failure == DENY
        )
        self.project_listeners = ProjectListeners(
            self.project_server, manager, raise_descriptor_limit(), partial(self._log, PRIORITY_WARNING)
        )
        self.report = StatusReport(
            self.loop,
            self.broker,
            self.trail,
            self.arena.protection.value,
            self.project_server.watchers.start_usec,
            self.project_listeners.unserved,
        )
        self.status_server = StatusServer(self.loop, self.sweeper, self.report)
        self.writer = registrations.Writer(config.state_dir)
        self.operations = Operations(
            self.loop,
            self.broker,
            self.project_listeners,
            ManifestReader(self.loop, config),
            self.writer,
            self.trail,
            self.report,
            self._changed,
        )
        self.reloads = Reloads(
            self.loop,
            self.broker.projects,
            self.operations.adopt_narrower,
            self._reload_begins,
            lambda: self.manager.ready(self.report.line()),
            partial(self._log, PRIORITY_WARNING),
        )
        self.admin_server = AdminServer(
            self.loop, self.sweeper, self.arena, self.operations.perform, config.max_connections_admin
        )
        self.credential_server = CredentialServer(
            self.loop,
            self.sweeper,
            self.arena,
            self.broker.store,
            self.broker.credentials,
            self.trail,
            manager,
            wait_seconds=config.credentials_wait_seconds,
            deny=config.audit_failure == DENY,
        )
        self._control = ControlListeners(self.loop, config.socket_dir)
        self._status_due = False
        self._status_sent_at = 0.0
        self._stopping = False
        self._status = 0
        TrailTimers(self.loop, self.trail, self._changed)
        self._read_back = ReadBack(
            self.loop,
            self.trail,
            os.path.join(config.socket_dir, paths.INTERNAL_DIR, paths.READ_BACK_SOCKET),
            lambda why: self._log(PRIORITY_WARNING, f"Cannot check whether audit records are stored: {why}."),
        )

    # --- start

    def start(self) -> None:
        """Restore the registrations, take over or bind every socket, report readiness. Raises
        `ConfigError`, `Refused` and OSError."""
        # Before anything is logged: that may have to wait, too.
        place = audit_records.place(self.trail.sink, self.trail.namespace)
        start_file = StartFile(self.config.state_dir, self.trail.start_id, place)
        self.trail.waits = start_file.waits
        try:
            os.makedirs(self.config.socket_dir, mode=0o755, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"socket_dir: {self.config.socket_dir}: {os.strerror(error.errno or 0)}") from None
        for name, descriptor in systemd.handed_over():
            self._take_over(name, descriptor)
        # With socket units, systemd decides which control sockets exist.
        binds_control = not (systemd.under_systemd() and self._control)
        if binds_control:
            # First, because this is where a second broker on the same directory fails.
            self._control.bind(STATUS, paths.STATUS_SOCKET, self.status_server.accepted)
        try:
            os.makedirs(self.config.state_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            self._log(PRIORITY_WARNING, f"state_dir: {self.config.state_dir}: {why}; no project can be registered.")
        if not registrations.claim(self.config.state_dir):
            raise ConfigError(f"state_dir: {self.config.state_dir}: another broker uses it; give each its own")
        try:
            for one in registrations.load(self.config.state_dir):
                self.broker.projects.register(within_limits(one, self.config))
        except registrations.Damaged as damage:
            self.writer.keep_aside = isinstance(damage, registrations.Unread)
            self._log(PRIORITY_ERROR, str(damage))
        # Projects whose registrations could not be read may be back at the next start.
        for name in () if self.writer.keep_aside else self.project_listeners.drop_unregistered():
            self._log(PRIORITY_WARNING, f"The stored socket of {name} was dropped: no such project is registered.")
        for name, project in self.broker.projects.items():
            try:
                self.project_listeners.open_at_start(name, project.registration.project_path)
            except Refused as refusal:
                self._log(PRIORITY_ERROR, f"Project {name} cannot be served: {refusal.message}")
        self.project_listeners.binder.started()
        self._watch_signals()
        if binds_control:
            # Last, so that a client that waits for the admin socket finds all the others.
            self._control.bind(ADMIN, paths.ADMIN_SOCKET, self.admin_server.accepted)
        self.loop.watch(self.writer.wakeup, READ, self.writer.finished)
        for text in memory.shortcomings(self.arena):
            self._log(PRIORITY_WARNING, text)
        self.trail.write_or_keep(
            audit_records.record(
                audit_records.Event.STARTED,
                f"remo-broker {__version__} started with {counted(len(self.broker.projects), 'project')} and an empty store.",
                project_count=len(self.broker.projects),
                memory_protection=self.arena.protection.value,
                dropped=self.trail.dropped,
            )
            + previous_fields(self.config.state_dir, place)
            + audit_records.own_fields()
        )
        start_file.keep()
        if self.trail.sink == JournalTransport.name:
            self._read_back.begin(strict=self.config.audit_failure == DENY)
        self.manager.ready(self.report.line())
        self.manager.feed_watchdog()
        if self.config.idle_exit_seconds:
            self.loop.after(self.config.idle_exit_seconds, self._exit_when_idle)

    def _take_over(self, name: str, descriptor: int) -> None:
        if name.startswith(f"{CREDENTIAL}-"):
            self.credential_server.restored(descriptor, name.removeprefix(f"{CREDENTIAL}-"))
            return
        listening = systemd.listening_socket(descriptor)
        if listening is None:
            self._log(PRIORITY_WARNING, f"Descriptor {printable(name)} is not a listening Unix stream socket; closed.")
            return
        kind, _, project = name.partition("-")
        if name in (ADMIN, STATUS, CREDENTIALS) and name not in self._control:
            accepted = {
                ADMIN: self.admin_server.accepted,
                STATUS: self.status_server.accepted,
                CREDENTIALS: self.credential_server.accepted,
            }
            may_accept = self.credential_server.may_accept if name == CREDENTIALS else None
            self._control.adopt(name, listening, accepted[name], may_accept)
        elif kind in PROJECT_KINDS and is_project_name(project):
            self.project_listeners.adopt(kind, project, listening, handed_over=True)
        else:
            listening.close()
            self._log(PRIORITY_WARNING, f"Descriptor {printable(name)} has an unknown name; closed.")

    def _watch_signals(self) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
            _signal.signal(number, lambda *_: None)

        def arrived() -> None:
            for number in os.read(read_end, 64):
                if number == _signal.SIGHUP:
                    self.reloads.all()
                else:
                    self.stop(idle=False)

        self.loop.watch(read_end, READ, arrived)

    # --- while it runs

    def run(self) -> int:
        self.loop.run()
        return self._status

    def _reload_begins(self) -> None:
        self.manager.reloading()
        self._reload_rules()

    def _reload_rules(self) -> None:
        """Read the credential rules again from the configuration."""
        try:
            self.broker.credentials.rules = self._reread().credentials
        except ConfigError as error:
            self._log(PRIORITY_ERROR, f"The credential rules were not reloaded: {error}")
        except Exception as error:
            self._bug(error)

    def _changed(self) -> None:
        self.status_server.changed()
        self.credential_server.changed()
        if not self._status_due:
            self._status_due = True
            pause = self._status_sent_at + STATUS_PAUSE_SECONDS - self.loop.now
            self.loop.after(max(STATUS_SECONDS, pause), self._send_status)

    def _send_status(self) -> None:
        self._status_due = False
        self._status_sent_at = self.loop.now
        if not self._stopping:
            self.manager.status(self.report.line())

    def _log(self, priority: int, message: str) -> None:
        self.trail.log(priority, message)

    def _bug(self, error: BaseException) -> None:
        """Log where the exception occurred and its type, but not its text, which may hold client
        data."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place else "nowhere"
        self._log(PRIORITY_ERROR, f"Internal error: {type(error).__name__} at {where}; please report it.")

    # --- the end

    def _exit_when_idle(self) -> None:
        last = max(
            self.project_listeners.last_activity, self.admin_server.last_activity, self.credential_server.last_activity
        )
        left = self.config.idle_exit_seconds - (monotonic() - last)
        if not self._may_exit():
            left = self.config.idle_exit_seconds
        if left > 0:
            self.loop.after(left, self._exit_when_idle)
        else:
            self._status = IDLE_STATUS
            self.stop(idle=True)

    def _may_exit(self) -> bool:
        """Whether an exit would lose nothing and the next connect would start the broker again."""
        return (
            self.broker.store.secret_count == 0
            and not self.project_listeners.connections
            and not self.admin_server.connections
            and not self.credential_server.connections
            and not self.writer.busy
            and not self.operations.unsaved
            and not self.reloads.busy
            and self.trail.healthy
            and self.project_listeners.only_held_by_manager
            and self._control.all_held_by_units
        )

    def stop(self, *, idle: bool) -> None:
        """Accept no more connections, let requests in flight finish, then leave the loop."""
        if self._stopping:
            return
        self._stopping = True
        self.manager.stopping()
        self._control.stop()
        self.project_listeners.stop()
        self.project_server.dismiss()
        self.admin_server.dismiss()
        self.credential_server.stop()
        self.status_server.stopping(idle=idle)
        self.operations.unsaved.save_before_exit(partial(self._log, PRIORITY_WARNING))
        # Connections end by themselves within this time; the state file or systemd may take longer.
        self._deadline = monotonic() + PEER_SECONDS
        self._audit_deadline = monotonic() + AUDIT_DRAIN_SECONDS
        self._leave_when_drained()

    def _leave_when_drained(self) -> None:
        drained = (
            not self.project_server.connections
            and not self.admin_server.connections
            and not self.credential_server.connections
            and not self.writer.busy
            and not self.operations.unsaved.busy
            and not self.manager.lacks_listeners
        )
        now = monotonic()
        if (not drained and now < self._deadline) or (not self.trail.retry() and now < self._audit_deadline):
            self.loop.after(0.02, self._leave_when_drained)
            return
        self.broker.store.clear()
        for counts in (
            self.project_server.rate_limited.counts,
            self.project_server.long_names.counts,
            self.project_listeners.refusals,
        ):
            counts.report_all()
        lost = self.trail.dropped + self.trail.queued
        text = f"remo-broker stopped; audit records lost while it ran: {lost}."
        self.trail.write_or_keep(
            audit_records.record(audit_records.Event.STOPPED, text, dropped=lost) + audit_records.own_fields()
        )
        self._control.remove_own()
        self.manager.close()
        self.loop.stop()
        if not self.trail.healthy and self.trail.sink != StderrTransport.name:
            # Not `print`: it would try again at interpreter exit and turn its failure into the exit
            # status.
            try:  # noqa: SIM105
                os.write(2, f"{text}\n".encode())
            except OSError:
                pass  # a stopped journald does not take this either


def main() -> int:
    """Entry point of `remo-broker`."""
    try:
        config, sink = configure(sys.argv[1:])
        execute_again()
        forbid_dumps()
        drop_capabilities()
        daemon = Daemon(config, transport(sink), systemd.Manager(), lambda: configure(sys.argv[1:])[0])
        daemon.start()
    except (ConfigError, systemd.MissingLibrary, Refused, OSError) as error:
        text = str(error)
        if isinstance(error, OSError):
            text = f"{error.filename or 'starting'}: {os.strerror(error.errno or 0)}"
        print(f"remo-broker: {text}", file=sys.stderr)
        # While systemd waits before a restart, `systemctl status` shows no journal lines. It does
        # show this.
        manager = systemd.Manager()
        manager.status(f"Not started: {text}")
        start_failure.answer_all(text, manager, transport(read_flags(sys.argv[1:])[1]))
        return 1
    return daemon.run()
