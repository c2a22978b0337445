"""Random streams to enter anywhere: the n-th batch depends on (seed, stream, n) and on nothing drawn before."""

import hashlib

import torch


def generator(seed: int, stream: str, index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for the index-th draw of a named stream."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
