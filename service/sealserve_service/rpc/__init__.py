"""The gRPC server: interceptors, servicers, status codes and certificates."""
