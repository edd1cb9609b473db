"""The broker's status on the system bus: counts and times, never a secret's name or value.

See remo-broker-bus(8).
"""
