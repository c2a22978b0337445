"""Random streams to enter anywhere: the n-th batch depends on (seed, stream, n) and on nothing drawn before."""

import hashlib

import torch


def generator(seed: int, stream: str, index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for the index-th draw of a named stream."""
    return torch.Generator(device).manual_seed(seed_of(seed, stream, index))


def seed_of(seed: int, stream: str, index: int) -> int:
    """What that generator starts from, in 63 bits: to seed one again that a CUDA graph holds on to."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
