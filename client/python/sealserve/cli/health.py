"""`sealserve health`: the health check of a service, for containers. Loads no NumPy and no SEAL."""

from argparse import ArgumentParser, Namespace

from sealserve.cli.command import Command, add_service_options, credentials


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_service_options(parser)
    parser.set_defaults(timeout=5.0)
    parser.add_argument("--service", default="", metavar="NAME", help="one service; by default the whole server")


def run(arguments: Namespace) -> int:
    """Print the state of the service. The exit code is 0 only if it is SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from sealserve._rpc.channel import open_channel

    with open_channel(arguments.address, credentials(arguments)) as channel:
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=arguments.service), timeout=arguments.timeout
            )
        except grpc.RpcError as error:
            print(error.code().name)
            return 1
    names = health_pb2.HealthCheckResponse.ServingStatus
    print(names.Name(response.status) if response.status in names.values() else "UNKNOWN")
    return int(response.status != health_pb2.HealthCheckResponse.SERVING)


COMMAND = Command(
    "health", "ask whether a service is serving", "  sealserve health --address 127.0.0.1:50051", configure, run
)
