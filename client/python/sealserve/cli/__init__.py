"""The `sealserve` program: one file a command.

Importing a command is cheap: it imports what it needs when it runs.
"""
