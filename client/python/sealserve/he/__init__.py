"""The crypto core, shared by SDK and service: imports neither gRPC nor generated code."""
