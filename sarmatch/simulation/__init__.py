"""The simulated city: procedural ground, its optical map and its SAR strips."""
