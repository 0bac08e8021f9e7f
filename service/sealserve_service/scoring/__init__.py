"""Items on their way through the service: admission, scoring, streams."""
