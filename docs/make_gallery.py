"""Write docs/gallery.md and its pictures from the committed results: python docs/make_gallery.py.

Pictures of features and updates need weights, which results do not hold: those of a few small networks lie in
docs/gallery/weights, kept by `--save-weights` (and `--diagnostics`, for updates).
"""

from __future__ import annotations

from pathlib import Path

from hebbbench.plots.draw import Request, draw

DOCS = Path(__file__).parent
ROOT = DOCS.parent
WEIGHTS = DOCS / "gallery" / "weights"
HEAD = """\
# Gallery

Pictures of the committed results, written by `python docs/make_gallery.py`; beside each PNG lies an SVG. Bands and bars
are ± one standard deviation over seeds. What the numbers mean is in [findings.md](findings.md).
"""
SOME = ["bp", "sign", "ghl", "fa", "softhebb", "hpca", "swta_fh", "pc", "ep", "dtp", "pepita", "ff", "random"]
AGAINST_DECAY: dict[str, object] = {"kind": "axis", "x": "decay"}
PICTURES: dict[str, tuple[str, list[str], dict[str, object]]] = {
    "digits-mlp-ranking": (
        "Every rule on digits-mlp by the accuracy of a linear read-out on what it learnt, beside backprop and a "
        "network that learns nothing; marks say what a weight's update was measured to depend on.",
        ["digits-mlp"],
        {"kind": "accuracy"},
    ),
    "cifar10-deephebb-ranking": (
        "The full network of SoftHebb's and GHL's papers after two half hours of a GPU; hollow: what they print.",
        ["cifar10-deephebb-bf16"],
        {"kind": "accuracy", "published": True},
    ),
    "cifar10-fasthebb-learning": (
        "At decays as large as were found best for backprop and sign-only, and at GHL's own, accuracy on validation "
        "comes as the rate falls.",
        ["cifar10-fasthebb-bf16"],
        {"kind": "curve", "curve": "end_to_end.validation.accuracy"},
    ),
    "cifar10-small-readout": (
        "How fast the read-out learns on each rule's frozen features, cifar10-small; its rate is halved on the way.",
        ["cifar10-small"],
        {
            "kind": "curve",
            "curve": "probe.validation.accuracy",
            "rules": ["bp", "ghl", "sign", "softhebb", "hpca", "random", "oja"],
        },
    ),
    "mnist-competitive-accuracy": (
        "Accuracy of a converged linear read-out on one hidden layer, by its width, on MNIST; hollow: Liuson 2023.",
        ["mnist-competitive"],
        {"kind": "accuracy", "published": True},
    ),
    "cifar10-competitive-accuracy": (
        "The same on CIFAR-10.",
        ["cifar10-competitive"],
        {"kind": "accuracy", "published": True},
    ),
    "mnist-competitive-gini": (
        "How unequally the updates are spread over the units: the Gini coefficient of the running mean of each unit's "
        "step size, MNIST.",
        ["mnist-competitive"],
        {"kind": "gini"},
    ),
    "mnist-liuson-gini": (
        "Liuson's rule with a competition fifty times harder and the sum over the batch: the coefficients that the "
        "paper prints, from .61, .92, .98 and 1.00 to .12, .52, .91 and .985, but for the end at 128 units.",
        ["mnist-liuson"],
        {"kind": "gini", "rules": ["liuson"], "axes": ["temperature=0.02"]},
    ),
    "cifar10-competitive-gini": ("The same on CIFAR-10.", ["cifar10-competitive"], {"kind": "gini"}),
    "mnist-competitive-alignment": (
        "Cosine of each update with plain Hebb's ⟨u xᵀ⟩ on the same batch, MNIST. `hebbnet` becomes plain Hebb on the "
        "units it keeps; `bp` goes neither with it nor against it.",
        ["mnist-competitive"],
        {"kind": "alignment"},
    ),
    "mnist-mlp-cost": (
        "Accuracy against the time of training, mnist-mlp, one thread of a machine that had other work as well.",
        ["mnist-mlp"],
        {
            "kind": "accuracy",
            "x": "train_seconds",
            "rules": SOME,
        },
    ),
    "sre-mlp-decay": (
        "How Hebbian the second layer's update is when training ends, against weight decay: backprop with SGD and "
        "Adam, direct feedback alignment, a random network's signal and one that never changes; ten seeds. "
        "Half-filled: some seeds have no cosine, as where weights collapsed under Adam. Hollow: Koplow's Table 1.",
        ["sre-mlp"],
        {"kind": "axis", "published": True},
    ),
    "sre-transformer-decay": (
        "The same for the perceptron behind a transformer's encoder, ten seeds; published numbers of its first "
        "layer are left out.",
        ["sre-transformer"],
        {"kind": "axis", "published": True},
    ),
    "sre-noise-map": (
        "How Hebbian backprop is under noise, mean of three seeds, and the line on which it is zero.",
        ["sre-noise"],
        {"kind": "heatmap", "x": "noise", "y": "decay"},
    ),
    "sre-noise-loss": (
        "The test loss of the same networks against their alignment, Koplow's Figure 11.",
        ["sre-noise"],
        {"kind": "scatter", "x": "alignment.fc2", "metric": "end_to_end.test.loss"},
    ),
    "sre-noise-loss-map": (
        "And on the map of noise and decay.",
        ["sre-noise"],
        {"kind": "heatmap", "x": "noise", "y": "decay", "metric": "end_to_end.test.loss"},
    ),
    "sre-noise-adam-map": (
        "The same under Adam at a rate of 0.01, three seeds; other ranges of noise and decay.",
        ["sre-noise-adam"],
        {"kind": "heatmap", "x": "noise", "y": "decay"},
    ),
    "sre-activation": ("Backprop's alignment by the activation function.", ["sre-activation"], AGAINST_DECAY),
    "sre-depth": ("By the number of pairs of hidden layers.", ["sre-depth"], AGAINST_DECAY),
    "sre-width": ("By the units of a hidden layer.", ["sre-width"], AGAINST_DECAY),
    "sre-rate": ("By the learning rate.", ["sre-rate"], AGAINST_DECAY),
    "sre-batch": ("By the batch size.", ["sre-batch"], AGAINST_DECAY),
    "sre-norm": ("With batch normalisation.", ["sre-norm"], AGAINST_DECAY),
    "sre-sparsity": ("With a penalty on activity.", ["sre-sparsity"], {"kind": "axis", "x": "sparsity"}),
    "sre-l1": ("With an L1 penalty in place of weight decay.", ["sre-l1"], {"kind": "axis"}),
    "sre-hebbian": (
        "How like gradient descent Hebbian rules move the second layer over training, mean over the last 200 steps, "
        "beside a read-out that learns.",
        ["sre-hebbian"],
        {
            "kind": "alignment",
            "curve": "alignment.fc2.sgd",
            "axes": ["activity=linear", "norm=unit", "rate=0.01", "readout=trained"],
        },
    ),
    "cifar10-sce-hebbian": (
        "The same on the paper's own network and data, CIFAR-10 under cross-entropy, one seed.",
        ["cifar10-sce-hebbian"],
        {
            "kind": "alignment",
            "curve": "alignment.fc2.sgd",
            "axes": ["activity=linear", "norm=unit", "rate=0.001", "readout=trained"],
        },
    ),
    "liuson-features": (
        "What 32 units learn on MNIST under `liuson` (mask as intended, temperature 1): three digits, and one "
        "negative of the mean image that nearly all other units were pushed to.",
        ["liuson-mnist-32.safetensors"],
        {"kind": "features"},
    ),
    "hebbnet-features": (
        "The same under `hebbnet`: six units share one prototype, and the others still are as they were drawn.",
        ["hebbnet-mnist-32.safetensors"],
        {"kind": "features"},
    ),
    "liuson-updates": (
        "The last update of that `liuson` network beside Hebb's for the same batch.",
        ["liuson-mnist-32.safetensors"],
        {"kind": "updates"},
    ),
    "cifar10-sce-rate": (
        "How Hebbian backprop's update is in classification, second layer, against the learning rate at two decays.",
        ["cifar10-sce-rate"],
        {"kind": "axis", "x": "rate"},
    ),
    "cifar10-sce-activation": (
        "The same at a rate of 0.01 against weight decay, with three activation functions.",
        ["cifar10-sce-activation"],
        {"kind": "axis", "x": "decay"},
    ),
    "cifar10-sce-batch": (
        "The same with three batch sizes.",
        ["cifar10-sce-batch"],
        {"kind": "axis", "x": "decay"},
    ),
    "sce-updates": (
        "The last update of backprop without decay on cifar10-sce, second layer, beside Hebb's for the same batch.",
        ["bp-sce-decay-0.safetensors"],
        {"kind": "updates"},
    ),
    "sce-updates-decay": (
        "The same with a decay of 0.05: blocks of units go Hebb's way.",
        ["bp-sce-decay-0.05.safetensors"],
        {"kind": "updates"},
    ),
}


def _flags(name: str, value: object) -> list[str]:
    """An option as one gives it on the command line."""
    if isinstance(value, list):
        return [f"--{'rule' if name == 'rules' else 'axis'} {one}" for one in value]
    return [f"--{name}" if value is True else f"--{name} {value}"]


def main() -> None:
    lines = [HEAD]
    for stem, (caption, targets, options) in PICTURES.items():
        tensors = options["kind"] in ("features", "updates")
        places = [str(WEIGHTS / target) if tensors else target for target in targets]
        draw(Request(targets=places, root=ROOT / "results", output=DOCS / "gallery" / stem, **options))  # type: ignore[arg-type]
        shown = " ".join(f"docs/gallery/weights/{target}" if tensors else target for target in targets)
        flags = " ".join(flag for name, value in options.items() for flag in _flags(name, value))
        lines.append(f"## {stem}\n\n![{caption}](gallery/{stem}.png)\n\n{caption} `hebbbench plot {shown} {flags}`\n")
    (DOCS / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
