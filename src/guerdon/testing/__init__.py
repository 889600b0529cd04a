"""Conformance kits: what a reward, an objective, an estimator, a policy or a recipe promises, as checks that anyone can run.

A failure is an AssertionError that says what was given, what was expected and how to fix it.
"""

from guerdon.testing.credit_kit import check_credit
from guerdon.testing.objective_kit import check_objective
from guerdon.testing.policy_kit import check_policy
from guerdon.testing.recipe_kit import check_reachable, check_recipe
from guerdon.testing.reward_kit import check_reward, sample_rollouts
from guerdon.testing.toys import ToyPolicy, ToyReward, toy_demos, toy_pairs, toy_pools, toy_prompts, toy_unpaired

__all__ = [
    "ToyPolicy",
    "ToyReward",
    "check_credit",
    "check_objective",
    "check_policy",
    "check_reachable",
    "check_recipe",
    "check_reward",
    "sample_rollouts",
    "toy_demos",
    "toy_pairs",
    "toy_pools",
    "toy_prompts",
    "toy_unpaired",
]
