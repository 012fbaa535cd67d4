"""Localization: where a strip lies, by fusing what its windows say, and how sure that is."""

from sarmatch.localization.fusion import Likelihood, Posterior, fuse, posterior_of, track

__all__ = ["Likelihood", "Posterior", "fuse", "posterior_of", "track"]
