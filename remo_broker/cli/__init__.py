"""What both commands are made of: their command lines as tables, and how they write to a terminal."""
