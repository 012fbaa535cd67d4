"""Stub."""
def simulate_towns(profile):
    raise NotImplementedError
