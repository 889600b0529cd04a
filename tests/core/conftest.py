"""The first example of a property test also compiles the shape checks: a time limit per example would measure that."""

from hypothesis import settings

settings.register_profile("core", deadline=None, max_examples=60)
settings.load_profile("core")
