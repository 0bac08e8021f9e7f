"""The `sealserve` program: one file a command. Importing a command is cheap; what it needs is imported when it runs."""
