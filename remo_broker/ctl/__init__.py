"""`remo-brokerctl`: the admin socket as a command, and the review of the audit."""
