"""The service's commands; the `sealserve` program finds them by entry point."""
