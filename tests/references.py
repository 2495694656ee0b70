"""The learning rules once more, written from the papers as plain loops: slow, obvious, and not our code.

Everything here works on Python floats (float64) and knows nothing of the harness. Rows are (B, in); B counts
samples, and for a convolution every output position of every sample.

    Oja: J. Math. Biology 15:267 (1982). SoftHebb: arXiv:2107.05747, arXiv:2209.11883. GHL: arXiv:2601.21367.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Rows = list[list[float]]


def patches(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    sides: tuple[int, int, int, int] = (0, 0, 0, 0),
    mode: str = "zeros",
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """The patches a convolution sees, (samples × positions, kernel rows × kernel columns × channels).

    Args:
        x: images, (samples, channels, height, width).
        sides: padding at the top, left, bottom, right.
        mode: zeros, or reflect (the border pixel is not repeated).
    """
    images = x.double().tolist()
    height, width = x.shape[2], x.shape[3]
    top, left, bottom, right = sides

    def pixel(image: list[Rows], channel: int, row: int, column: int) -> float:
        if mode == "reflect":
            row, column = _mirrored(row, height), _mirrored(column, width)
        elif not (0 <= row < height and 0 <= column < width):
            return 0.0
        return image[channel][row][column]

    rows_out = (height + top + bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    columns_out = (width + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    result = []
    for image in images:
        for i in range(rows_out):
            for j in range(columns_out):
                patch = []
                for a in range(kernel[0]):
                    for b in range(kernel[1]):
                        row = i * stride[0] + a * dilation[0] - top
                        column = j * stride[1] + b * dilation[1] - left
                        patch += [pixel(image, channel, row, column) for channel in range(len(image))]
                result.append(patch)
    return torch.tensor(result, dtype=torch.float64)


def _mirrored(index: int, size: int) -> int:
    if index < 0:
        return -index
    if index >= size:
        return 2 * (size - 1) - index
    return index


def potentials(x: Rows, w: Rows) -> Rows:
    """u_nk = Σ_i w_ki x_ni."""
    return [[sum(a * b for a, b in zip(sample, unit, strict=True)) for unit in w] for sample in x]


def softmax(u: list[float], tau: float) -> list[float]:
    """exp(u_k/τ) / Σ_l exp(u_l/τ) over the units of one row."""
    powers = [math.exp((value - max(u)) / tau) for value in u]
    return [power / sum(powers) for power in powers]


def forgetful_hebb(y: Rows, u: Rows, x: Rows, w: Rows) -> Rows:
    """Σ_n y_nk (x_ni − u_nk w_ki), one term a sample."""
    total = [[0.0] * len(w[0]) for _ in w]
    for n in range(len(x)):
        for k in range(len(w)):
            for i in range(len(w[k])):
                total[k][i] += y[n][k] * (x[n][i] - u[n][k] * w[k][i])
    return total


def over_largest(d: Rows) -> Rows:
    """d divided by the largest |entry| of the layer."""
    largest = max(abs(value) for row in d for value in row) + 1e-30
    return [[value / largest for value in row] for row in d]


def reference_oja(x_patches: Tensor, weight: Tensor) -> Tensor:
    """Δw_k = mean over rows of u_k (x − u_k w_k)."""
    x, w = _floats(x_patches), _floats(weight)
    u = potentials(x, w)
    return _tensor(forgetful_hebb(u, u, x, w)) / len(x)


def reference_softhebb(
    x_patches: Tensor, weight: Tensor, tau: float, power: float, anti_hebbian: bool = True
) -> Tensor:
    """Δw_k = |‖w_k‖ − 1|^q · D_k / max|D|, D summed over rows; losers' y is negated if anti-Hebbian."""
    x, w = _floats(x_patches), _floats(weight)
    u = potentials(x, w)
    y = []
    for row in u:
        p = softmax(row, tau)
        winner = row.index(max(row))
        y.append([mass if k == winner or not anti_hebbian else -mass for k, mass in enumerate(p)])
    d = over_largest(forgetful_hebb(y, u, x, w))
    for k, unit in enumerate(w):
        norm = math.sqrt(sum(value * value for value in unit))
        rate = (abs(norm - 1.0) + 1e-10) ** power
        d[k] = [rate * value for value in d[k]]
    return _tensor(d)


def reference_ghl(x_patches: Tensor, weight: Tensor, grad: Tensor, tau: float) -> Tensor:
    """Δw = −|H| / max|H| · sign(∂L/∂w), H summed over rows before its magnitude is taken; sign(0) = 0."""
    x, w, g = _floats(x_patches), _floats(weight), _floats(grad)
    u = potentials(x, w)
    h = over_largest(forgetful_hebb([softmax(row, tau) for row in u], u, x, w))
    return _tensor([[-abs(h[k][i]) * _sign(g[k][i]) for i in range(len(w[k]))] for k in range(len(w))])


def reference_sign(grad: Tensor) -> Tensor:
    """Δw = −sign(∂L/∂w)."""
    return _tensor([[-_sign(value) for value in row] for row in _floats(grad)])


def reference_bp(grad: Tensor) -> Tensor:
    """Δw = −∂L/∂w."""
    return _tensor([[-value for value in row] for row in _floats(grad)])


def reference_random(weight: Tensor) -> Tensor:
    """Δw = 0."""
    return _tensor([[0.0 for _ in row] for row in _floats(weight)])


def triangle(u: Tensor, power: float) -> Tensor:
    """max(0, u_c − mean over channels)^power at each position of (samples, channels, height, width)."""
    result = torch.zeros(u.shape, dtype=torch.float64)
    for n in range(u.shape[0]):
        for i in range(u.shape[2]):
            for j in range(u.shape[3]):
                column = u[n, :, i, j].double().tolist()
                mean = sum(column) / len(column)
                for c, value in enumerate(column):
                    result[n, c, i, j] = max(0.0, value - mean) ** power
    return result


def _sign(value: float) -> float:
    return float(value > 0) - float(value < 0)


def _floats(tensor: Tensor) -> Rows:
    return tensor.double().tolist()


def _tensor(rows: Rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)
