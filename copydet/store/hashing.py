"""Content hashes of files: xxh3 with 128 bits, which finds damage; it is no protection against an attacker."""

from pathlib import Path

import xxhash

_BLOCK = 1 << 22


def hash_bytes(data: bytes) -> str:
    """xxh3-128 as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def hash_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, read in blocks of 4 MiB."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
