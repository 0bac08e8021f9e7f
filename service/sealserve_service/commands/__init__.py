"""Commands of the service; the `sealserve` program finds them by entry point."""
