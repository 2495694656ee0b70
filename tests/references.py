"""The learning rules once more, written from the papers as plain loops: slow, obvious, and not our code.

Everything here works on Python floats (float64) and knows nothing of the harness. Rows are (B, in); B counts
samples, and for a convolution every output position of every sample.

    Oja: J. Math. Biology 15:267 (1982). SoftHebb: arXiv:2107.05747, arXiv:2209.11883. GHL: arXiv:2601.21367.
    Sanger: Neural Networks 2:459 (1989). SWTA-FH: arXiv:2207.03172. Thresholds of k-WTA: arXiv:2107.01729.
    Krotov-Hopfield: PNAS 116:7723 (2019). BCM: J. Neuroscience 2:32 (1982). HWTA-BCM: arXiv:2501.17266. HebbNet:
    ICASSP 2021. Liuson: "Learning Dynamics in Competitive Hebbian Learning" (2023). EGHR: Sci. Reports 6:28073 (2016).

A rule's own tensors are given as they stand before the step; without them they are as the rule starts.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

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


def reference_oja_post(x_patches: Tensor, weight: Tensor, activity: str) -> Tensor:
    """Δw_k = mean over rows of y_k (x − y_k w_k), y the activity."""
    x, w = _floats(x_patches), _floats(weight)
    y = fired(potentials(x, w), activity)
    return _tensor(forgetful_hebb(y, y, x, w)) / len(x)


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


def reference_softhebb_plain(x_patches: Tensor, weight: Tensor, temperature: float, anti_hebbian: bool) -> Tensor:
    """Δw_k = mean over rows of y_k (x − u_k w_k), y the softmax with the losers' sign negated if anti-Hebbian."""
    x, w = _floats(x_patches), _floats(weight)
    u = potentials(x, w)
    d = [[0.0 for _ in unit] for unit in w]
    for n, row in enumerate(u):
        p = softmax(row, temperature)
        winner = row.index(max(row))
        for k, unit in enumerate(w):
            y = p[k] if k == winner or not anti_hebbian else -p[k]
            d[k] = [old + y * (x[n][i] - row[k] * unit[i]) / len(u) for i, old in enumerate(d[k])]
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


def fired(u: Rows, kind: str) -> Rows:
    """f(u), entry by entry: linear, relu or tanh."""
    functions = {"linear": lambda value: value, "relu": lambda value: max(0.0, value), "tanh": math.tanh}
    return [[functions[kind](value) for value in row] for row in u]


def norm(row: list[float]) -> float:
    return math.sqrt(sum(value * value for value in row))


def ranking(row: list[float]) -> list[int]:
    """Units from the largest value to the smallest; of those that tie, the first comes first."""
    return sorted(range(len(row)), key=lambda k: (-row[k], k))


def mean_of(y: Rows, k: int) -> float:
    return sum(row[k] for row in y) / len(y)


def mean_outer(a: Rows, x: Rows) -> Rows:
    """Mean over rows of a_k x_i."""
    total = [[0.0] * len(x[0]) for _ in a[0]]
    for row_a, row_x in zip(a, x, strict=True):
        for k, value in enumerate(row_a):
            for i, other in enumerate(row_x):
                total[k][i] += value * other / len(x)
    return total


def cosines(x: Rows, w: Rows) -> Rows:
    """x·w_k / (‖x‖ ‖w_k‖)."""
    return [
        [u / (norm(sample) * norm(unit)) for u, unit in zip(row, w, strict=True)]
        for row, sample in zip(potentials(x, w), x, strict=True)
    ]


def reference_hebb(x_patches: Tensor, weight: Tensor, activity: str) -> Tensor:
    """Δw_k = mean over rows of y_k x."""
    x, w = _floats(x_patches), _floats(weight)
    return _tensor(mean_outer(fired(potentials(x, w), activity), x))


def reference_anti_hebb(x_patches: Tensor, weight: Tensor, activity: str) -> Tensor:
    """Δw_k = −(mean over rows of y_k x)."""
    return -reference_hebb(x_patches, weight, activity)


def reference_subspace(x_patches: Tensor, weight: Tensor) -> Tensor:
    """Δw_k = mean over rows of y_k (x − what all units together make of x)."""
    x, w = _floats(x_patches), _floats(weight)
    return _tensor(_residual_hebb(potentials(x, w), x, w, lambda k: range(len(w))))


def reference_hpca(x_patches: Tensor, weight: Tensor, activity: str, scaled: bool) -> Tensor:
    """Δw_k = mean over rows of y_k (x − Σ_{j≤k} y_j w_j), over √fan_in: one sample, one unit, one residual a time."""
    x, w = _floats(x_patches), _floats(weight)
    y = fired(potentials(x, w), activity)
    d = _residual_hebb(y, x, w, lambda k: range(k + 1))
    return _tensor(d) / (math.sqrt(len(w[0])) if scaled else 1.0)


def _residual_hebb(y: Rows, x: Rows, w: Rows, explaining: Callable[[int], range]) -> Rows:
    total = [[0.0] * len(w[0]) for _ in w]
    for sample, response in zip(x, y, strict=True):
        for k in range(len(w)):
            for i, value in enumerate(sample):
                residual = value - sum(response[j] * w[j][i] for j in explaining(k))
                total[k][i] += response[k] * residual / len(x)
    return total


def reference_swta_fh(x_patches: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Δw_k = Σ_n c_nk r_nk (x_n − w_k), c_nk = r_nk / Σ_n r_nk, r = softmax(((cos + 1)/2)² / τ)."""
    x, w = _floats(x_patches), _floats(weight)
    r = [softmax([((value + 1) / 2) ** 2 for value in row], temperature) for row in cosines(x, w)]
    total = [[0.0] * len(w[0]) for _ in w]
    for k, unit in enumerate(w):
        mass = sum(row[k] for row in r)
        for n, sample in enumerate(x):
            for i, value in enumerate(sample):
                total[k][i] += r[n][k] / mass * r[n][k] * (value - unit[i])
    return _tensor(total)


def reference_kwta(x_patches: Tensor, weight: Tensor, k: int, threshold: list[float] | None = None) -> Tensor:
    """Δw_i = mean over rows of (x − w_i) over the rows in which u_i − θ_i is among the k largest."""
    x, w = _floats(x_patches), _floats(weight)
    theta = threshold or [0.0] * len(w)
    total = [[0.0] * len(w[0]) for _ in w]
    for sample, row in zip(x, potentials(x, w), strict=True):
        for unit in ranking([u - t for u, t in zip(row, theta, strict=True)])[:k]:
            for i, value in enumerate(sample):
                total[unit][i] += (value - w[unit][i]) / len(x)
    return _tensor(total)


def reference_krotov(x_patches: Tensor, weight: Tensor, p: float, k: int, unlearning: float) -> Tensor:
    """D_i = Σ_n g (x − q w_i), g = 1 for rank 1, −Δ for rank k; over its largest entry."""
    x, w = _floats(x_patches), _floats(weight)
    q = potentials(x, [[_sign(value) * abs(value) ** (p - 1) for value in unit] for unit in w])
    g = [[0.0] * len(w) for _ in x]
    for n, row in enumerate(q):
        order = ranking(row)
        g[n][order[0]] = 1.0
        g[n][order[k - 1]] = -unlearning
    return _tensor(over_largest(forgetful_hebb(g, q, x, w)))


def reference_bcm(
    x_patches: Tensor, weight: Tensor, threshold_rate: float, threshold: list[float] | None = None
) -> Tensor:
    """θ_k moves towards the mean of y_k²; then Δw_k = mean over rows of y_k (y_k − θ_k) x, y = relu(u)."""
    x, w = _floats(x_patches), _floats(weight)
    return _tensor(_bcm(fired(potentials(x, w), "relu"), x, threshold_rate, threshold))


def reference_hwta_bcm(
    x_patches: Tensor, weight: Tensor, threshold_rate: float, threshold: list[float] | None = None
) -> Tensor:
    """As BCM, y the cosine of the row's winner and 0 for the losers; over the layer's largest entry."""
    x, w = _floats(x_patches), _floats(weight)
    y = [[value if k == ranking(row)[0] else 0.0 for k, value in enumerate(row)] for row in cosines(x, w)]
    return _tensor(over_largest(_bcm(y, x, threshold_rate, threshold)))


def reference_hwta_bcm_published(
    x_patches: Tensor, weight: Tensor, channels: int, threshold_rate: float, threshold: list[float] | None = None
) -> Tensor:
    """As HWTA-BCM, but each position's share of a unit's weights is divided by its own length."""
    x, w = _floats(x_patches), _floats(weight)
    for unit in w:
        for start in range(0, len(unit), channels):
            length = math.sqrt(sum(value**2 for value in unit[start : start + channels]))
            unit[start : start + channels] = [value / length for value in unit[start : start + channels]]
    y = []
    for row, patch in zip(potentials(x, w), x, strict=True):
        length = math.sqrt(sum(value**2 for value in patch))
        y.append([value / length if k == ranking(row)[0] else 0.0 for k, value in enumerate(row)])
    return _tensor(over_largest(_bcm(y, x, threshold_rate, threshold)))


def _bcm(y: Rows, x: Rows, rate: float, threshold: list[float] | None) -> Rows:
    theta = list(threshold or [1.0] * len(y[0]))
    for k in range(len(theta)):
        theta[k] = (1 - rate) * theta[k] + rate * sum(row[k] ** 2 for row in y) / len(y)
    return mean_outer([[value * (value - theta[k]) for k, value in enumerate(row)] for row in y], x)


def reference_hebbnet(
    x_patches: Tensor, weight: Tensor, sparsity: float, keep: str, mean: list[float] | None = None
) -> Tensor:
    """Δw_k = mean over rows of (y_k − T_k) x, of which the share 1 − p is kept: see the rule for what is ranked."""
    x, w = _floats(x_patches), _floats(weight)
    u = potentials(x, w)
    y = fired(u, "relu")
    t = mean or [0.0] * len(w)
    units = max(1, round((1 - sparsity) * len(w)))
    above = [[value - t[k] for k, value in enumerate(row)] for row in y]
    if keep == "sample":
        kept = [ranking(row)[:units] for row in u]
    elif keep == "unit":
        kept = [ranking([mean_of(y, k) for k in range(len(w))])[:units]] * len(x)
    else:
        kept = [list(range(len(w)))] * len(x)
    above = [[value if k in kept[n] else 0.0 for k, value in enumerate(row)] for n, row in enumerate(above)]
    d = mean_outer(above, x)
    if keep == "weight":
        flat = [abs(value) for row in d for value in row]
        largest = ranking(flat)[: max(1, round((1 - sparsity) * len(flat)))]
        d = [[v if k * len(row) + i in largest else 0.0 for i, v in enumerate(row)] for k, row in enumerate(d)]
    return _tensor(d)


def reference_liuson(
    x_patches: Tensor, weight: Tensor, temperature: float, mask: str, mean: list[float] | None = None
) -> Tensor:
    """Δw_k = mean over rows of s_k y*_k x, y* = softmax((relu(u) − ȳ)/τ)."""
    x, w = _floats(x_patches), _floats(weight)
    return _liuson_term(x, w, fired(potentials(x, w), "relu"), temperature, mask, mean)


def reference_liuson_triangle(
    x_patches: Tensor, weight: Tensor, temperature: float, mean: list[float] | None = None
) -> Tensor:
    """The same with y = relu(u − mean of u over units), and the mask as it is meant."""
    x, w = _floats(x_patches), _floats(weight)
    centred = [[value - sum(row) / len(row) for value in row] for row in potentials(x, w)]
    return _liuson_term(x, w, fired(centred, "relu"), temperature, "intended", mean)


def _liuson_term(x: Rows, w: Rows, y: Rows, temperature: float, mask: str, mean: list[float] | None) -> Tensor:
    average = mean or [0.0] * len(w)
    a = []
    for row in y:
        rival = softmax([value - average[k] for k, value in enumerate(row)], temperature)
        best = ranking(rival)[0]
        signed = []
        for k, value in enumerate(rival):
            if k == best:
                sign = 1.0
            elif mask == "intended":
                sign = 0.0 if value < 1 / len(w) else -1.0
            else:
                sign = 0.0 if value > 1 / len(w) else -1.0
            signed.append(sign * value)
        a.append(signed)
    return _tensor(mean_outer(a, x))


def reference_eghr(x_patches: Tensor, weight: Tensor, target: float | None) -> Tensor:
    """Δw_k = mean over rows of (E₀ − E) g(u_k) x, with minus the logarithm of a Laplacian of variance 1 for E."""
    x, w = _floats(x_patches), _floats(weight)
    aim = len(w) + 1.0 if target is None else target
    a = []
    for row in potentials(x, w):
        surprise = sum(math.sqrt(2) * abs(value) for value in row)
        a.append([(aim - surprise) * math.sqrt(2) * _sign(value) for value in row])
    return _tensor(mean_outer(a, x))


def _ghl_term(x: Rows, w: Rows, tau: float) -> Rows:
    u = potentials(x, w)
    return over_largest(forgetful_hebb([softmax(row, tau) for row in u], u, x, w))


def reference_ghl_hebbian(x_patches: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Δw = H / max|H|."""
    return _tensor(_ghl_term(_floats(x_patches), _floats(weight), temperature))


def reference_ghl_reward(
    x_patches: Tensor, weight: Tensor, error: Tensor, temperature: float, expected: float = 1.0
) -> Tensor:
    """Δw = R H / max|H|, R the sign of the fall of 1 − p(label), which is minus the label's entry of the error."""
    wrong = [-min(row) for row in _floats(error)]
    reward = _sign(expected - sum(wrong) / len(wrong))
    return reward * _tensor(_ghl_term(_floats(x_patches), _floats(weight), temperature))


def reference_ghl_shuffled(x_patches: Tensor, weight: Tensor, grad: Tensor, temperature: float) -> Tensor:
    """Δw = −|H| in another order / max|H| · sign(∂L/∂w). The order: torch's permutation from the weights' bits."""
    source = torch.Generator().manual_seed(_bits(weight))
    return _displaced(x_patches, weight, grad, temperature, torch.randperm(weight.numel(), generator=source))


def reference_ghl_matched(x_patches: Tensor, weight: Tensor, grad: Tensor, temperature: float) -> Tensor:
    """As shuffled, each entry of |H| drawn on its own."""
    source = torch.Generator().manual_seed(_bits(weight))
    count = weight.numel()
    return _displaced(x_patches, weight, grad, temperature, torch.randint(count, (count,), generator=source))


def reference_hah(
    x_patches: Tensor,
    weight: Tensor,
    grad: Tensor,
    strength: float,
    unlearning: float,
    active: float,
    sparsity: float,
) -> Tensor:
    """Hebb for the K units that respond most, anti-Hebb for the others, through the norm that divides u."""
    x, w, g = _floats(x_patches), _floats(weight), _floats(grad)
    u = potentials(x, w)
    norms = [norm(row) for row in w]
    k = math.ceil(active * len(w))
    delta = [[-g[i][j] - sparsity * _sign(w[i][j]) for j in range(len(w[0]))] for i in range(len(w))]
    for n, row in enumerate(u):
        order = ranking([max(0.0, value / norms[i]) for i, value in enumerate(row)])
        for place, i in enumerate(order):
            if row[i] <= 0:
                continue
            share = 1 / k if place < k else -unlearning / max(1, len(w) - k)
            for j in range(len(w[0])):
                slope = (x[n][j] - row[i] / norms[i] ** 2 * w[i][j]) / norms[i]
                delta[i][j] += strength * share * slope / len(u)
    return _tensor(delta)


def reference_ib(
    x_patches: Tensor,
    weight: Tensor,
    input: Tensor,
    labels: Tensor,
    balance: float,
    width_input: float,
    width_label: float,
    width_layer: float,
    classes: int,
) -> Tensor:
    """The three-factor form: a Hebbian term of each sample's positions times the modulator ξ of its layer."""
    x, w, seen = _floats(x_patches), _floats(weight), _floats(input)
    count, positions = len(seen), len(x) // len(seen)
    told = [[float(c == label) for c in range(classes)] for label in labels.tolist()]
    u = potentials(x, w)
    potential = [[value for row in u[n * positions : (n + 1) * positions] for value in row] for n in range(count)]
    z, spread = [], []
    for row in potential:
        fired_row = [max(0.0, value) for value in row]
        mean = sum(fired_row) / len(fired_row)
        spread.append(math.sqrt(sum((value - mean) ** 2 for value in fired_row) / len(fired_row) + 1e-5))
        z.append([(value - mean) / spread[-1] for value in fired_row])
    wanted_x, wanted_y = _centred(_kernel(seen, width_input)), _centred(_kernel(told, width_label))
    near = _kernel(z, width_layer)
    size = len(z[0])
    delta = [[0.0] * len(w[0]) for _ in w]
    for n in range(count):
        modulator = [0.0] * size
        for m in range(count):
            pull = (wanted_x[n][m] - balance * wanted_y[n][m]) * near[n][m]
            for i in range(size):
                modulator[i] -= 2 * pull * (z[n][i] - z[m][i]) / (width_layer**2 * size * (count - 1) ** 2)
        mean = sum(modulator) / size
        along = sum(a * b for a, b in zip(modulator, z[n], strict=True)) / size
        for i in range(size):
            if potential[n][i] > 0:
                xi = (modulator[i] - mean - along * z[n][i]) / spread[n]
                position, unit = divmod(i, len(w))
                for j in range(len(w[0])):
                    delta[unit][j] -= xi * x[n * positions + position][j]
    return _tensor(delta)


def reference_local_sim(x_patches: Tensor, weight: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Each pair's miss pulls at the directions of both activities, which lie across them; then through std and relu."""
    x, w, told = _floats(x_patches), _floats(weight), labels.tolist()
    count, positions = len(told), len(x) // len(told)
    r = fired(potentials(x, w), "relu")
    y, length, direction = [], [], []
    for n in range(count):
        rows = r[n * positions : (n + 1) * positions]
        if positions == 1:
            y.append(rows[0])
        else:
            y.append([])
            for k in range(len(w)):
                mean = sum(row[k] for row in rows) / positions
                y[-1].append(math.sqrt(sum((row[k] - mean) ** 2 for row in rows) / (positions - 1) + 1e-12))
        centre = sum(y[n]) / len(w)
        length.append(max(norm([value - centre for value in y[n]]), 1e-12))
        direction.append([(value - centre) / length[n] for value in y[n]])
    delta = [[0.0] * len(w[0]) for _ in w]
    for n in range(count):
        pull = [0.0] * len(w)
        for m in range(count):
            alike = sum(a * b for a, b in zip(direction[n], direction[m], strict=True))
            wanted = 1.0 if told[n] == told[m] else -1 / (classes - 1)
            for k in range(len(w)):
                pull[k] += 4 * (alike - wanted) * direction[m][k] / count**2
        along = sum(a * b for a, b in zip(pull, direction[n], strict=True))
        across = [(a - along * b) / length[n] for a, b in zip(pull, direction[n], strict=True)]
        centre = sum(across) / len(w)
        for k in range(len(w)):
            rows = range(n * positions, (n + 1) * positions)
            mean = sum(r[row][k] for row in rows) / positions
            for row in rows:
                share = 1.0 if positions == 1 else (r[row][k] - mean) / ((positions - 1) * y[n][k])
                if r[row][k] > 0:
                    for j in range(len(w[0])):
                        delta[k][j] -= (across[k] - centre) * share * x[row][j]
    return _tensor(delta)


def _kernel(rows: Rows, width: float) -> Rows:
    size = len(rows[0])
    return [
        [math.exp(-sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / (2 * width**2 * size)) for q in rows]
        for p in rows
    ]


def _centred(k: Rows) -> Rows:
    means = [sum(row) / len(row) for row in k]
    mean = sum(means) / len(means)
    return [[k[n][m] - means[n] - means[m] + mean for m in range(len(k))] for n in range(len(k))]


def _bits(weight: Tensor) -> int:
    """The sum of the weights' bit patterns as single-precision numbers, read as signed integers."""
    return sum(struct.unpack("i", struct.pack("f", value))[0] for row in _floats(weight) for value in row)


def _displaced(x_patches: Tensor, weight: Tensor, grad: Tensor, tau: float, source: Tensor) -> Tensor:
    h = _ghl_term(_floats(x_patches), _floats(weight), tau)
    flat = [abs(value) for row in h for value in row]
    drawn = [flat[index] for index in source.tolist()]
    width = weight.shape[1]
    return _tensor(
        [[-drawn[k * width + i] * _sign(g) for i, g in enumerate(row)] for k, row in enumerate(_floats(grad))]
    )


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
