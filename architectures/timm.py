"""Any network of the timm library by its name there: ImageNet's VGG and ResNet, vision transformers, and the rest.

timm builds the body, with random weights, up to the features in front of its classifier; the read-out is a linear layer
of our own. https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn


class Timm(nn.Module):
    """
    Args:
        input_shape: (channels, height, width).
        classes: number of classes.
        model: the network's name in timm; `timm.list_models()` lists them.
        arguments: of timm's constructor for it, such as img_size, patch_size, depth or drop_rate.
    """

    layout: ClassVar[Literal["image", "flat"]] = "image"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        model: str = "resnet18",
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise RuntimeError("timm is not installed; run: pip install 'hebbbench[models]'") from error
        self.body = timm.create_model(model, in_chans=input_shape[0], num_classes=0, **(arguments or {}))
        self.head = nn.Linear(self.body.head_hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
