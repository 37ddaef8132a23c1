"""Prints a bill of materials as CycloneDX 1.6 JSON: what is installed, from which files, and the weights.

    python -m requirements.sbom [--set gpu] > sbom.cdx.json

Equal requirements give equal bytes: it has no time, and its serial number is a function of its content.
"""

import argparse
import hashlib
import json
import sys
import tomllib
import uuid
from typing import Any

from requirements.cards import Card, read_cards
from requirements.licence import licence_of
from requirements.pinned import FOLDER, Pinned, read_pinned

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"


def bill(name: str = "cpu") -> dict[str, Any]:
    """The document for requirements/NAME.txt. Licences are those of what is installed here."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    components = [*map(_distribution, read_pinned(FOLDER / f"{name}.txt")), *map(_weights, read_cards())]
    content = json.dumps(components, sort_keys=True).encode()
    serial = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": project["name"],
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": components,
    }


def _distribution(one: Pinned) -> dict[str, Any]:
    url = f"pkg:pypi/{one.name.lower().replace('_', '-')}@{one.version}"
    licence = licence_of(one.name)
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": url,
        "name": one.name,
        "version": one.version,
        "purl": url,
        # Each of the files that may be installed; the hash says which file it is.
        "externalReferences": [
            {"type": "distribution", "url": url, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for digest in one.sha256
        ],
    }
    if licence not in (None, "unknown"):
        found["licenses"] = [{"expression": licence}]
    return found


def _weights(card: Card) -> dict[str, Any]:
    short = hashlib.sha256(repr(card).encode()).hexdigest()[:12]
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"weights/{card.name}-{short}",
        "name": card.name,
        "description": f"weights of the pipelines {', '.join(card.pipelines)}",
        "licenses": [{"license": {"name": card.licence}}],
        "properties": [
            {"name": "persona:commercial", "value": str(card.commercial).lower()},
            {"name": "persona:source", "value": card.source},
        ],
    }
    if card.sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": card.sha256}]
    return found


def main() -> int:
    """Prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", choices=("cpu", "gpu"), default="cpu", help="default %(default)s")
    print(json.dumps(bill(parser.parse_args().set), indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
