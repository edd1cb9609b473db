"""Makes the projects' sockets. Under systemd it runs as a separate root process, because root owns
the directories that hold them. Standard library only."""
