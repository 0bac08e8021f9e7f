"""The command: it writes all files of tests/vectors, or of another folder."""

import logging
import sys
import tempfile
from pathlib import Path

import grpc

from sealserve.v1 import keys_pb2, keys_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from tests.support import step_vectors
from tests.support.serving import HANG_SECONDS, registered_keys, running_server
from tests.vectors.make import errors, grid, outputs, packing, refused, refused_steps, seeds
from tests.vectors.make.items import ITEMS, MadeItem
from tests.vectors.make.json_text import json_text
from tests.vectors.make.keys import RingKeys
from tests.vectors.make.malformed import FullAndSeeded, Packed, public_keys
from tests.vectors.make.models import all_models

FOLDER = Path(__file__).parents[1]
RING_NAMES = "2048-44", "2048-54", "4096-92"


def files() -> dict[str, bytes]:
    """Make the contents of all files, by their paths."""
    keys = {name: RingKeys(name) for name in RING_NAMES}
    registered = registered_keys()
    models = all_models(registered.zero_encryptor)
    found: dict[str, bytes] = {}
    registry = ModelRegistry(made.served for made in models.values())
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(registry, keys=registered) as address,
        grpc.insecure_channel(address) as channel,
    ):
        register(channel, keys["4096-92"])
        made = {item.name: MadeItem(item, models[item.model], channel, keys, Path(folder)) for item in ITEMS}
        made_files = {name: item.files() for name, item in made.items()}
        ciphertexts = FullAndSeeded(made["row_open_residues"])
        packed_ciphertexts = Packed(made["row_private"])
        described = made["row_open"].described.model
        contents = {
            "parameters": refused.parameters(described),
            "descriptions": refused.descriptions(described),
            "grid": grid.content(),
            "packing": packing.content(),
            "seeds": seeds.content(),
            "outputs": outputs.content(),
            "errors": errors.content(),
            "ciphertexts": ciphertexts.content(),
            "packed_ciphertexts": packed_ciphertexts.content(),
            "public_keys": public_keys(keys["4096-92"], channel),
            "replies": refused.replies(made, made_files),
            "refused_steps": refused_steps.content(),
        }
    found |= {f"{name}.json": json_text(content) for name, content in contents.items()}
    found |= ciphertexts.files | packed_ciphertexts.files
    for name, ring in keys.items():
        found |= {f"rings/{name}/{file}": data for file, data in ring.files().items()}
    for name, of_item in made_files.items():
        found |= {f"items/{name}/{file}": data for file, data in of_item.items()}
    return found


def register(channel: grpc.Channel, keys: RingKeys) -> None:
    """Register the public key of a ring."""
    header = keys_pb2.KeyHeader(
        key_id=keys.public_key_id,
        kind=keys_pb2.KEY_KIND_PUBLIC_ENCRYPTION_KEY,
        parameter_set=keys.parameter_set.name,
        byte_count=len(keys.public_key),
    )
    request = keys_pb2.PutKeyRequest(header=header, data=keys.public_key)
    keys_pb2_grpc.KeyServiceStub(channel).PutKey(request, timeout=HANG_SECONDS)


def write(folder: Path) -> None:
    """Write all files."""
    for path, data in files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    step_vectors.write(folder / "steps")


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of errors that are made on purpose
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
