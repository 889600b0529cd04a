"""Little languages, for claims (`learn.little`)."""

from guerdon.learn.little import copy_of, finish, new_policy, taught

__all__ = ["copy_of", "finish", "new_policy", "taught"]
