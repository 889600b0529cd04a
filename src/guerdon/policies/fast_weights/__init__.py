"""Language models with fast weights: a memory of fixed size that is rewritten while the text is read.

Importing this package tells transformers' Auto classes of them; `guerdon` does so whenever it loads a model.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from guerdon.policies.fast_weights.delta_net import DeltaNetConfig, DeltaNetForCausalLM, DeltaNetModel
from guerdon.policies.fast_weights.lact import LactConfig, LactForCausalLM, LactModel
from guerdon.policies.fast_weights.state import State

__all__ = ["DeltaNetConfig", "DeltaNetForCausalLM", "DeltaNetModel", "LactConfig", "LactForCausalLM", "LactModel", "State"]

KINDS = ((DeltaNetConfig, DeltaNetModel, DeltaNetForCausalLM), (LactConfig, LactModel, LactForCausalLM))
for config, model, causal in KINDS:
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
    AutoModelForCausalLM.register(config, causal, exist_ok=True)
