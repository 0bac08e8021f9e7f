"""The configuration of deploy/kubernetes/components/envoy, made of deploy/envoy/envoy.yaml.

`python -m tests.support.envoy_component` writes it. It differs in addresses, and in that it speaks
TLS to clients and to pods.
"""

from tests.support.serving import ROOT

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
        (_PODS, "sealserve-pods.sealserve.svc.cluster.local, port_value: 50051 "),
        (_ENDPOINTS, _TO_PODS + _ENDPOINTS),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    # The first listener is that of calls.
    assert text.index(_FILTERS) > text.index("0.0.0.0, port_value: 8443 ")
    return _NOTICE + text.replace(_FILTERS, _TO_CLIENTS, 1)


if __name__ == "__main__":
    COMPONENT.write_text(configuration())
