"""Makes the projects' sockets: where systemd starts the broker, in a process of root's own, because the directories that
they lie in are root's. Standard library only."""
