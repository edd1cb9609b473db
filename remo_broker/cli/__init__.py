"""Shared by the commands: command lines as tables, and terminal output."""
