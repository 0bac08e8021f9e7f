"""The templates of deploy/aci: both say the same, nothing that Azure would refuse, no secret."""

import copy
import json
import re
from pathlib import Path

import pytest

from sealserve_service.settings.options import read_settings
from tests.support.bicep import BicepError, read_template
from tests.support.container_group import API_VERSION, faults
from tests.support.templates import (
    ACCOUNT_KEY,
    BICEP,
    FILLED_IN,
    IDENTITY,
    SECRETS,
    SECURE,
    VARIABLE,
    YAML,
    container,
    group_of_bicep,
    group_of_yaml,
    template,
)

ROLES = {  # of learn.microsoft.com/azure/role-based-access-control/built-in-roles
    "AcrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    "Storage Blob Data Contributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
}


def test_both_say_the_same() -> None:
    assert group_of_yaml() == group_of_bicep()


def test_the_variables_are_the_ones_that_are_filled_in() -> None:
    assert set(VARIABLE.findall(YAML)) == set(FILLED_IN)


def test_azure_knows_every_field() -> None:
    assert template().resources["group"].api_version == API_VERSION
    assert faults(group_of_bicep()) == []
    assert faults(group_of_yaml()) == []


def test_what_azure_does_not_know_is_found() -> None:
    for change, fault in (
        (lambda group: container(group).update(livenes={}), "containers[0].properties.livenes is unknown"),
        (lambda group: container(group).pop("image"), "containers[0].properties.image is missing"),
        (lambda group: container(group).update(command="sealserve serve"), "'sealserve serve' is no list"),
        (lambda group: container(group)["resources"]["requests"].update(cpu="1"), "cpu: '1' is no float"),
        (lambda group: group["properties"].update(osType="linux"), "'linux' is no OperatingSystemTypes"),
        (lambda group: group["properties"].update(instanceView={}), "instanceView is not for us to set"),
        (lambda group: group["tags"].update(data=1), "group.tags.data: 1 is no str"),
        (lambda group: group.update(containers=[]), "group.containers is unknown"),
    ):
        group = copy.deepcopy(group_of_yaml())
        change(group)
        (found,) = faults(group)
        assert fault in found


def test_one_core_and_one_gigabyte_unless_told_otherwise() -> None:
    one = {"cpu": 1, "memoryInGB": 1}
    assert container(group_of_bicep())["resources"] == {"requests": one, "limits": one}
    more = {"cpu": 2, "memoryInGB": 3.5}
    larger = group_of_bicep(cpu="2", memoryInGB="3.5")
    assert container(larger)["resources"] == {"requests": more, "limits": more}
    assert faults(larger) == []


def test_the_command_and_the_environment_are_sealserve_s_own() -> None:
    group = container(group_of_yaml())
    program, command, flag, model, *others = group["command"]
    assert (program, command, flag) == ("sealserve", "serve", "--model")
    assert others == ["--input-range", "0,1", "--weights", "private"]
    environment = {variable["name"]: variable["value"] for variable in group["environmentVariables"]}
    settings = read_settings({"model": [model]}, environment)
    assert settings.model == (("mnist", Path("mnist.skops"), FILLED_IN["MODEL_SHA256"]),)
    assert settings.key_store == "https://keyaccount.blob.core.windows.net/keys"
    assert settings.identity_client_id == FILLED_IN["IDENTITY_CLIENT_ID"]
    (tls,) = [volume for volume in group_of_yaml()["properties"]["volumes"] if volume["name"] == "tls"]
    mounted = {f"/tls/{file}" for file in tls["secret"]}
    files = {str(file) for file in (settings.tls_certificate, settings.tls_private_key, settings.identities)}
    assert files | {environment["SEALSERVE_CA_CERTIFICATE"]} == mounted
    assert environment["SEALSERVE_SERVER_NAME"] == "scorer.westeurope.azurecontainer.io"


def test_a_pickle_is_trusted_only_on_demand() -> None:
    assert "--trust-pickle" not in container(group_of_bicep())["command"]
    assert container(group_of_bicep(trustPickle=True))["command"][-1] == "--trust-pickle"


def test_probes_are_commands() -> None:
    """Azure Container Instances knows no probes over gRPC."""
    for probe in ("livenessProbe", "readinessProbe"):
        assert container(group_of_yaml())[probe]["exec"] == {"command": ["sealserve", "health"]}


def test_the_tags_of_the_guide() -> None:
    assert group_of_yaml()["tags"] == {
        "data": "MNIST",
        "method": "sklearn",
        "description": "Encrypted Predict MNIST with sklearn + SEAL",
    }


def test_the_identity_may_do_two_things() -> None:
    assignments = {
        resource.body["scope"]["id"]: resource.body["properties"]
        for resource in template().resources.values()
        if resource.type == "Microsoft.Authorization/roleAssignments"
    }
    assert assignments.keys() == {"the registry", "the key container"}
    for scope, role in (("the registry", "AcrPull"), ("the key container", "Storage Blob Data Contributor")):
        assert assignments[scope]["principalId"] == "the identity's principal"
        assert assignments[scope]["roleDefinitionId"].endswith(f"/roleDefinitions/{ROLES[role]}")
    assert group_of_yaml()["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}}


def test_keys_are_open_to_identities_only() -> None:
    account = template().resources["keyAccount"].body
    assert account["name"] == "keyaccount"
    assert account["properties"] == {
        "allowBlobPublicAccess": False,
        "allowSharedKeyAccess": False,
        "minimumTlsVersion": "TLS1_2",
        "supportsHttpsTrafficOnly": True,
    }


def test_secrets_come_from_secure_parameters_and_go_to_secret_fields() -> None:
    parameters = template().parameters
    assert {name for name, parameter in parameters.items() if parameter.is_secure} == SECURE
    assert all(parameters[name].default is None for name in SECURE)
    for group in (group_of_bicep(), group_of_yaml()):
        models, tls = group["properties"]["volumes"]
        assert models["azureFile"].pop("storageAccountKey") == ACCOUNT_KEY
        assert set(tls.pop("secret").values()) == {FILLED_IN[name] for name in SECRETS}
        rest = json.dumps(group)
        assert not [name for name in (*SECRETS, "MODEL_ACCOUNT_KEY") if FILLED_IN[name] in rest]
        assert not [secret for secret in SECRETS.values() if f'"{secret}"' in rest]
    assert template().outputs == {"address": "scorer.westeurope.azurecontainer.io:50051"}


@pytest.mark.parametrize("text", [BICEP, YAML], ids=["bicep", "yaml"])
def test_no_secret_is_written_down(text: str) -> None:
    assert "BEGIN" not in text
    assert not re.findall(r"(?=[A-Za-z+/]*[0-9])[A-Za-z0-9+/]{40,}|(?i:password|sig=|accountkey=)", text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("param a string = b", "line 1: b is not declared"),
        ("var a = 'no end\n'", "line 1: a string has no end"),
        ("\nmodule a 'b' = {}", "line 2: module is no declaration"),
        ("var a = {\n  b: 1\n  b: 2\n}", "line 3: b is there twice"),
        ("var a = [1\n2", "line 2: a name is missing"),
        ("var a 1", "line 1: = is missing"),
    ],
)
def test_bicep_that_is_not_understood_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BicepError, match=re.escape(reason)):
        read_template(text, {}, {})
