"""RandomNN: a learning signal that knows nothing: a fixed random network of the input, pushing ‖w‖ to a set value.

    Δw = p · s_dir · s_red · W*          W* = Σ_j ⟨r_j(x)⟩ P_j,   r a random tanh network with 4 outputs, P_j random
    p = 1 if ‖W*‖ ≤ 1, else 1/‖W*‖;      s_dir = sign(target − ‖w‖);      s_red = sign(‖w‖ − ‖w − W*‖)

Koplow, Poggio & Ziyin 2025, "Emergence of Hebbian Dynamics in Regularized Non-Local Learners", Appendix B.3. It
shows that Hebbian alignment needs no learning: with weight decay the push must be outwards at equilibrium. The
paper leaves open whether W* is cut to length before s_red looks at it (`clip_first`), and how large P is (`scale`).
Each layer has an r of its own here, and layers that the rule does not govern stay as they were drawn.
‖·‖ is read as the Frobenius norm. As printed, s_red grows ‖w‖ while a step of W* is shorter than about 2‖w‖.
"""

import math
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from hebbbench import Rule, draw_counter

WIDTH, SIGNALS = 128, 4


class RandomNN(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "learns": "a control: its signal knows nothing of the task",
        "knobs": "target acts once weights are near it, scale once W* is shorter than 1",
    }

    target: PositiveFloat = 100.0
    clip_first: bool = True
    scale: PositiveFloat = 1.0  # standard deviation of P
    inputs: PositiveInt = 32  # weights of r's first units; a longer input meets them again

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(int(draw_counter(weight)))

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=source).to(weight)

        return {
            "first": drawn(self.inputs, WIDTH),
            "second": drawn(WIDTH, WIDTH) / math.sqrt(WIDTH),
            "third": drawn(WIDTH, WIDTH) / math.sqrt(WIDTH),
            "last": drawn(WIDTH, SIGNALS) / math.sqrt(WIDTH),
            "projection": self.scale * drawn(SIGNALS, *weight.shape),
        }

    def delta(self, weight: Tensor, input: Tensor, state: dict[str, Tensor]) -> Tensor:
        features = torch.arange(input.shape[1]).to(input.device) % self.inputs
        hidden = torch.tanh(input @ state["first"][features] / math.sqrt(len(features)))
        hidden = torch.tanh(torch.tanh(hidden @ state["second"]) @ state["third"])
        signals = (hidden @ state["last"]).mean(0)
        push = (signals[:, None, None] * state["projection"]).sum(0)
        cut = push / push.norm().clamp_min(1.0)
        seen = cut if self.clip_first else push
        norm = weight.norm()
        return (self.target - norm).sign() * (norm - (weight - seen).norm()).sign() * cut
