"""Local similarity matching: samples of one class are to be alike in every layer, samples of two are not.

    L = mean over pairs of samples of (S(y_n, y_m) − S_nm)²       y = relu(u),  u = w x
    S(a, b) = cos(a − ā, b − b̄)                                    ā = mean over the entries of a
    S_nm = 1 within a class, −1/(classes − 1) between two, which is S of their one-hot labels

Nøkland & Eidnes 2019, arXiv:1901.06656: their `sim` loss without the convolution between layer and loss, so that
nothing is carried back through other weights. A convolution's y is each channel's standard deviation over positions.
"""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from hebbbench import Rule


class LocalSimilarity(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "convolution": "a sample is one activity y, so its positions are no samples of their own"
    }

    classes: Annotated[int, Field(ge=2)] = 10

    def loss(self, post: Tensor, labels: Tensor) -> Tensor:
        y = post.relu().view(len(labels), -1, post.shape[1])
        y = y.squeeze(1) if y.shape[1] == 1 else (y.var(1) + 1e-12).sqrt()
        a = F.normalize(y - y.mean(1, keepdim=True), dim=1)
        same = (labels.unsqueeze(0) == labels.unsqueeze(1)).to(a.dtype)
        wanted = same - (1 - same) / (self.classes - 1)
        return (a @ a.T - wanted).square().mean()
