"""Program that looks up known vulnerabilities: `audit.py PIP_AUDIT LOCK...`.

PIP_AUDIT is the pip-audit to run, and the locks say which packages to look up. Exceptions are in
`advisories.toml` beside this file:

    [[exceptions]]
    id = "GHSA-xxxx-xxxx-xxxx"  # or PYSEC-..., CVE-...
    until = 2030-01-31          # the last day on which it holds
    reason = "why it does not concern us, or what we wait for"

Exit codes: 0, nothing is known; 1, something is, or an exception has expired, has no reason or is
not needed; 2, at least one package could not be looked up.
"""

import json
import subprocess
import sys
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

EXCEPTIONS = Path(__file__).with_name("advisories.toml")
FOUND, UNKNOWN = 1, 2


def main(arguments: list[str]) -> int:
    """Audit the locks and return the exit code."""
    pip_audit, *locks = arguments
    exceptions = tomllib.loads(EXCEPTIONS.read_text()).get("exceptions", [])
    faults = [fault for exception in exceptions if (fault := fault_of(exception, datetime.now(UTC).date()))]
    accepted, used = {exception.get("id") for exception in exceptions}, set[str]()
    for lock in locks:
        dependencies = look_up(pip_audit, lock)
        if skipped := [found for found in dependencies or [] if "skip_reason" in found]:
            print(f"{lock}: {len(skipped)} of {len(dependencies or [])} packages: {skipped[0]['skip_reason']}")
        if skipped or dependencies is None:
            print(
                f"{lock} was NOT audited: pip-audit gets advisories from https://pypi.org/pypi/NAME/VERSION/json, and "
                "this machine does not reach them. Run `make audit` where it does."
            )
            return UNKNOWN
        for found in dependencies:
            for advisory in found["vulns"]:
                if names := accepted & {advisory["id"], *advisory["aliases"]}:
                    used |= names
                else:
                    fixed = ", ".join(advisory["fix_versions"]) or "no version"
                    faults.append(f"{lock}: {found['name']} {found['version']}: {advisory['id']}; fixed in {fixed}")
        print(f"{lock}: {len(dependencies)} packages audited")
    faults += [f"{EXCEPTIONS.name}: {name} concerns no package any more: remove it" for name in sorted(accepted - used)]
    print("\n".join(sorted(set(faults))) or "no known vulnerabilities")
    return FOUND if faults else 0


def fault_of(exception: dict[str, Any], today: date) -> str:
    """Return what is wrong with an exception today; "" if nothing is."""
    name, until, reason = (exception.get(key) for key in ("id", "until", "reason"))
    if not isinstance(name, str) or type(until) is not date or not isinstance(reason, str) or not reason.strip():
        return f"{EXCEPTIONS.name}: an exception has an id, a date until which it holds, and a reason: {exception}"
    return f"{EXCEPTIONS.name}: the exception for {name} expired on {until}" if until < today else ""


def look_up(pip_audit: str, lock: str) -> list[dict[str, Any]] | None:
    """Return what pip-audit says of the packages of a lock; None if it said nothing."""
    options = ["--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    result = subprocess.run(
        [pip_audit, *options, "--requirement", lock], stdout=subprocess.PIPE, text=True, check=False
    )
    try:
        dependencies: list[dict[str, Any]] = json.loads(result.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    return dependencies


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
