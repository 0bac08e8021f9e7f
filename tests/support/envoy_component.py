"""The configuration of deploy/kubernetes/components/envoy, made of deploy/envoy/envoy.yaml.

`python -m tests.support.envoy_component` writes it. It differs in addresses, and in that it speaks
TLS to clients and to pods.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.support.azurite import free_port
from tests.support.serving import HANG_SECONDS, ROOT

PODS = "sealserve-pods.sealserve.svc.cluster.local"
"""The name of the pods, which their certificate has."""

_ENVOY = ROOT / "build/envoy/bin/envoy"
SHIPPED = ROOT / "deploy/envoy/envoy.yaml"
COMPONENT = ROOT / "deploy/kubernetes/components/envoy/envoy.yaml"

_NOTICE = "# Made of deploy/envoy/envoy.yaml by `python -m tests.support.envoy_component`: change that file.\n"
_LISTENER = "127.0.0.1, port_value: 8080 "
_PODS = "127.0.0.1, port_value: 50051 "
_FILTERS = "        - filters:\n"
_ENDPOINTS = "      load_assignment:\n        cluster_name: sealserve\n"

_TO_CLIENTS = """\
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificate_sds_secret_configs:
                  - name: certificate
                    sds_config: { path_config_source: { path: /etc/envoy/certificate.yaml } }
          filters:
"""
_TO_PODS = """\
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: sealserve-pods.sealserve.svc.cluster.local
          common_tls_context:
            alpn_protocols: [h2]
            validation_context_sds_secret_config:
              name: authority
              sds_config: { path_config_source: { path: /etc/envoy/authority.yaml } }
"""


def configuration() -> str:
    """Return the component's configuration."""
    text = SHIPPED.read_text()
    for old, new in (
        (_LISTENER, "0.0.0.0, port_value: 8443 "),
        (_PODS, f"{PODS}, port_value: 50051 "),
        (_ENDPOINTS, _TO_PODS + _ENDPOINTS),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    # The first listener is that of calls.
    assert text.index(_FILTERS) > text.index("0.0.0.0, port_value: 8443 ")
    return _NOTICE + text.replace(_FILTERS, _TO_CLIENTS, 1)


@contextmanager
def running_component(pods: str, folder: Path) -> Iterator[str]:
    """Run Envoy with the component's files before pods at an address; gives its own address.

    Args:
        pods: their address.
        folder: for the configuration and the log, with what the volumes of Envoy's pods have:
            `tls` with tls.crt and tls.key, and `authority` with ca.crt.
    """
    port, log, etc = free_port(), folder / "envoy.log", folder / "etc"
    etc.mkdir()
    changes = {
        "/etc/envoy": str(etc),
        "/tls": str(folder / "tls"),
        "/authority": str(folder / "authority"),
        "0.0.0.0, port_value: 8443 ": f"127.0.0.1, port_value: {port} ",
        f"{PODS}, port_value: 50051 ": f"127.0.0.1, port_value: {pods.rpartition(':')[2]} ",
    }
    olds = re.compile("|".join(rf"(?<![\w.]){re.escape(old)}" for old in changes))
    texts = {
        file.name: olds.sub(lambda found: changes[found[0]], file.read_text())
        for file in COMPONENT.parent.glob("*.yaml")
    }
    for name, text in texts.items():
        # Whatever else listens has fixed ports.
        (etc / name).write_text(re.sub(r"(?<=port_value: )99\d\d\b", lambda _: str(free_port()), text))
    (container,) = yaml.safe_load(texts["deployment.yaml"])["spec"]["template"]["spec"]["containers"]
    # What it logs into a file of its own is there 10 s later.
    with log.open("w") as written:
        process = subprocess.Popen(
            [_ENVOY, *container["args"]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=written
        )
    try:
        while "starting main dispatch loop" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


if __name__ == "__main__":
    COMPONENT.write_text(configuration())
