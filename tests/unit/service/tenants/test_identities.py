"""Identities: what their file says, and what makes it unusable."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sealserve_service.tenants.identities import new_token, read_identities
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import Tenant
from sealserve_service.watched_files import UnusableFileError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATH = Path("identities.toml")
DIGEST = "ab" * 32


def test_reads_a_file() -> None:
    text = f"""
        [tenants.clinic]
        models = ["mnist", "iris"]
        list_models = true
        private_columns = false
        certificates = ["CN=gateway, of a kind", "URI=spiffe://example.org/clinic"]
        [tenants.lab]
        models = ["*"]
        register_keys = true
        quota = {{ rows_per_minute = 600, key_bytes = 50_000_000 }}
        [[tokens]]
        tenant = "clinic"
        sha256 = "{DIGEST}"
        expires = 2026-06-01T02:00:00+02:00
        [tenants.nobody]
        [[tokens]]
        tenant = "lab"
        sha256 = "{"cd" * 32}"
        revoked = true
        """
    identities = read_identities(PATH, text.encode())
    clinic = Tenant(
        "clinic",
        frozenset({"mnist", "iris"}),
        may_list_models=True,
        may_register_keys=False,
        may_use_private_columns=False,
    )
    quota = Quota(rows_per_minute=600, key_bytes=50_000_000)
    lab = Tenant("lab", None, may_list_models=False, may_register_keys=True, quota=quota)
    nobody = Tenant("nobody", frozenset(), may_list_models=False, may_register_keys=False)
    assert identities.tenants == {"clinic": clinic, "lab": lab, "nobody": nobody}
    assert lab.may_use_private_columns
    assert nobody.may_use_private_columns, "it is withdrawn, not granted"
    assert set(identities.subjects) == {"CN=gateway, of a kind", "URI=spiffe://example.org/clinic"}
    assert set(identities.subjects.values()) == {clinic}
    token = identities.tokens[DIGEST]
    assert token.tenant is identities.tenants["clinic"]
    assert [token.fault(NOW - HOUR), token.fault(NOW), token.fault(NOW + HOUR)] == ["", "expired", "expired"]
    assert identities.tokens["cd" * 32].fault(NOW) == "revoked"


TENANT = '[tenants.a]\nmodels = ["*"]\n'
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no tenant"),
    "no tenants": (f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"', "no tenant"),
    "no TOML": ("[tenants.a", "Expected"),
    "no text": (b"\xff\xfe\0", "decode"),
    "a second table": (TENANT + TENANT, "twice|Cannot declare"),
    "an unknown word": (TENANT + "list_model = true", "'list_model'"),
    "an unknown table": ("[tenant.a]\n", "'tenant'"),
    "tenants that are none": ("tenants = 3", "tenants is not a table"),
    "a tenant that is none": ("[tenants]\na = 3", "tenant 'a' is not a table"),
    "a name in capitals": ("[tenants.A]", "tenant 'A'"),
    "a name with a slash": ('[tenants."a/b"]', "tenant 'a/b'"),
    "the anonymous tenant": ("[tenants.anonymous]", "is taken"),
    "models that are no list": ('[tenants.a]\nmodels = "*"', "tenant 'a': models is not an array"),
    "a model that is no name": ("[tenants.a]\nmodels = [3]", "models is not a string"),
    "a permission that is no bool": ('[tenants.a]\nlist_models = "no"', "list_models is not true or false"),
    "private columns that are no bool": (TENANT + "private_columns = 0", "private_columns is not true or false"),
    "a quota that is none": (TENANT + "quota = 3", "quota is not a table"),
    "an unknown quota": (TENANT + "quota = { rows = 3 }", "not 'rows'"),
    "a quota of nothing": (TENANT + "quota = { key_bytes = 0 }", "key_bytes is not a number above 0"),
    "a quota that is no number": (TENANT + "quota = { key_bytes = true }", "key_bytes is not a number above 0"),
    "a certificate by its serial": ('[tenants.a]\ncertificates = ["serial=3"]', "neither CN="),
    "two tenants of one certificate": (
        '[tenants.a]\ncertificates = ["CN=x"]\n[tenants.b]\ncertificates = ["CN=x"]',
        "two tenants have the certificate 'CN=x'",
    ),
    "a token of nobody": (TENANT + f'[[tokens]]\ntenant = "b"\nsha256 = "{DIGEST}"', "token 1: there is no tenant 'b'"),
    "a token without a digest": (TENANT + '[[tokens]]\ntenant = "a"', "token 1: its sha256"),
    "a token twice": (TENANT + 2 * f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\n', "token 2 appears twice"),
    "a token's unknown word": (TENANT + f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\nexpiry = 3', "'expiry'"),
    "an expiry without a zone": (
        TENANT + f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\nexpires = 2026-06-01T00:00:00',
        "lacks a time zone",
    ),
    "an expiry that is a day": (
        TENANT + f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\nexpires = 2026-06-01',
        "expires is not a date with a time",
    ),
    "tokens that are a table": (TENANT + "[tokens]", "tokens is not an array"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_refuses_a_file_that_is_not_right(name: str) -> None:
    content, message = BAD_FILES[name]
    with pytest.raises(UnusableFileError, match=message) as caught:
        read_identities(PATH, content if isinstance(content, bytes) else content.encode())
    assert str(caught.value).startswith("identities.toml: ")


@pytest.mark.parametrize(
    "text",
    [
        '[[tokens]]\ntenant = "a"\nsha256 = "{token}"',
        '[[tokens]]\ntenant = "{token}"\nsha256 = "' + DIGEST + '"',
        '[[tokens]]\ntenant = "a"\n{token} = "' + DIGEST + '"',
        "[tenants.{token}]",
        "{token}",
    ],
)
def test_never_repeats_a_token_that_stands_in_the_wrong_place(text: str) -> None:
    token = new_token()
    with pytest.raises(UnusableFileError) as caught:
        read_identities(PATH, (TENANT + text.format(token=token)).encode())
    assert token[10:20] not in str(caught.value)
