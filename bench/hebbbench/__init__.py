"""HebbBench: Hebbian and biologically plausible learning rules against backpropagation, under fixed protocols.

    from hebbbench import run
    result = run("digits-mlp", "ghl", seed=0)

A rule is one class with one equation:

    from hebbbench import Pre, Rule, decay, hebb, soft_wta

The names below are loaded when first used, so that `import hebbbench` and the command line start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Block": "hebbbench.plasticity.chain",
    "Chain": "hebbbench.plasticity.chain",
    "HebbBenchError": "hebbbench.errors",
    "Pre": "hebbbench.plasticity.signals",
    "Protocol": "hebbbench.protocol",
    "Result": "hebbbench.record.schema",
    "Rule": "hebbbench.plasticity.rule",
    "activity": "hebbbench.plasticity.terms",
    "correlation": "hebbbench.plasticity.terms",
    "cosine": "hebbbench.plasticity.terms",
    "decay": "hebbbench.plasticity.terms",
    "draw_counter": "hebbbench.plasticity.terms",
    "hebb": "hebbbench.plasticity.terms",
    "k_wta": "hebbbench.plasticity.competition",
    "layer_max": "hebbbench.plasticity.terms",
    "losers_flipped": "hebbbench.plasticity.competition",
    "norm_rate": "hebbbench.plasticity.terms",
    "permuted": "hebbbench.plasticity.terms",
    "resampled": "hebbbench.plasticity.terms",
    "run": "hebbbench.api",
    "soft_wta": "hebbbench.plasticity.competition",
    "standardized": "hebbbench.plasticity.constraint",
    "uniform": "hebbbench.plasticity.terms",
    "unit_norm": "hebbbench.plasticity.constraint",
}

__all__ = sorted([*_PUBLIC, "__version__"])

if TYPE_CHECKING:
    from hebbbench.api import run as run
    from hebbbench.errors import HebbBenchError as HebbBenchError
    from hebbbench.plasticity.chain import Block as Block
    from hebbbench.plasticity.chain import Chain as Chain
    from hebbbench.plasticity.competition import k_wta as k_wta
    from hebbbench.plasticity.competition import losers_flipped as losers_flipped
    from hebbbench.plasticity.competition import soft_wta as soft_wta
    from hebbbench.plasticity.constraint import standardized as standardized
    from hebbbench.plasticity.constraint import unit_norm as unit_norm
    from hebbbench.plasticity.rule import Rule as Rule
    from hebbbench.plasticity.signals import Pre as Pre
    from hebbbench.plasticity.terms import activity as activity
    from hebbbench.plasticity.terms import correlation as correlation
    from hebbbench.plasticity.terms import cosine as cosine
    from hebbbench.plasticity.terms import decay as decay
    from hebbbench.plasticity.terms import draw_counter as draw_counter
    from hebbbench.plasticity.terms import hebb as hebb
    from hebbbench.plasticity.terms import layer_max as layer_max
    from hebbbench.plasticity.terms import norm_rate as norm_rate
    from hebbbench.plasticity.terms import permuted as permuted
    from hebbbench.plasticity.terms import resampled as resampled
    from hebbbench.plasticity.terms import uniform as uniform
    from hebbbench.protocol import Protocol as Protocol
    from hebbbench.record.schema import Result as Result


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hebbbench' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
