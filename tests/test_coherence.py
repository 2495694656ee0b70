"""What does not go together in a protocol is refused before anything runs, by `run` and by `show protocol` alike."""

from __future__ import annotations

import re
from itertools import product

import pytest

from conftest import command_line
from hebbbench import registry
from hebbbench.errors import ProtocolError
from hebbbench.protocol import Protocol
from hebbbench.training.coherence import check_work


@pytest.fixture
def call(lab, monkeypatch, capsys):
    monkeypatch.chdir(lab.root)
    return command_line(monkeypatch, capsys)


@pytest.mark.parametrize("name", registry.protocol_names())
def test_every_protocol_of_the_registry_goes_together_at_every_axis_value(name):
    protocol = registry.protocol(name)
    for values in product(*(axis.values for axis in protocol.axes.values())):
        check_work(protocol.at(dict(zip(protocol.axes, values, strict=True))))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data.validation": 1442}, r"data.validation = 1442 of 1442 training samples of 'digits'.*Choose 0 to 1441"),
        (
            {"data.mean": [0.5] * 3, "data.std": [0.5] * 3},
            r"3 values each, and 'digits' needs one for each of its 1 ch",
        ),
        ({"data.mean": [], "data.std": []}, r"0 values each, and 'digits' needs one for each of its 1 channels"),
        ({"data.augment": "resized-crop-flip"}, r"data.augment = 'resized-crop-flip' .* Valid: none, crop-flip\."),
        ({"data.unlabelled": "cifar10"}, r"'cifar10' has samples of 32×32×3, 'digits' of 8×8×1: a network takes one"),
        ({"data.dataset": "digit"}, r"no dataset 'digit'. Did you mean 'digits'"),
        ({"loss": "mse"}, r"loss = 'mse', and 'digits' has classes. Set loss: cross_entropy"),
        ({"architecture.options.widths": [16, 0]}, r"a layer of no units: body.fc2.weight is 0×16. Give each layer"),
        ({"training.batch_size": 1}, r"training.batch_size = 1 leaves batch normalisation 'body.norm1' .* Choose 2"),
        ({"training.optimizer.lr": [0.1, 0.1, 0.1]}, r"3 values for 2 plastic layers"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_what_cannot_be_run_is_not_shown_either(lab, call, changes, told):
    path = lab.protocol_file(changes=changes)
    for command in (("show", "protocol", path), ("run", "--protocol", path, "--rule", "bp")):
        code, _, err = call(*command)
        assert code == 2
        assert re.search(told, " ".join(err.split())), err
    assert not list(lab.root.glob("results/**/*.json"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": "cross_entropy"}, r"'teacher-mlp' has numbers to be predicted. Set loss: mse"),
        ({"data": {"mean": [0.5], "std": [0.5]}}, r"needs empty lists: its inputs are numbers already"),
        ({"data": {"augment": "crop-flip"}}, r"data.augment = 'crop-flip' .* Valid: none\."),
        ({"data": {"validation": 100}}, r"data.validation = 100: .*has no classes. Set validation: 0"),
        ({"precision": "bfloat16"}, r"precision = 'bfloat16' with alignment: .* Leave precision out, or alignment"),
        ({"headline": "probe.test.accuracy", "chance": 0.1}, r"probe is of classes, and 'teacher-mlp' has none"),
    ],
)
def test_a_teachers_answers_are_no_classes(changes, told):
    plain = registry.protocol("sre-mlp").model_dump(mode="json")
    probe = registry.protocol("digits-mlp").model_dump(mode="json")["probe"]
    plain |= {"probe": probe} if "headline" in changes else {}
    plain |= {key: {**plain[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    with pytest.raises(ProtocolError, match=told):
        check_work(Protocol.model_validate(plain | {"axes": {}, "published": []}))


def test_images_that_are_decoded_as_they_are_used_stay_images():
    plain = registry.protocol("imagenet-deephebb").model_dump(mode="json")
    flat = {**plain, "architecture": {"name": "mlp"}, "free": [], "axes": {}, "published": []}
    with pytest.raises(ProtocolError, match=r"'mlp' takes flat rows.*Choose an architecture whose layout is image"):
        check_work(Protocol.model_validate(flat))


def test_batches_of_one_are_for_networks_that_do_not_normalise_over_them(lab, call):
    path = lab.protocol_file(changes={"training.batch_size": 1, "architecture.options.norm": "layer"})
    assert call("show", "protocol", path)[0] == 0
    path = lab.protocol_file("digits-deephebb", {"training.batch_size": 1})
    code, _, err = call("show", "protocol", path)
    assert (code, err) == (0, "")  # a batch norm of images has many places to take its mean of


def test_a_hyperparameter_that_no_recipe_sets_is_told(lab, call):
    path = lab.protocol_file(changes={"hyperparameters": {"temperatur": 3.0}, "training.epochs": 0})
    code, out, err = call("run", "--protocol", path, "--rule", "random")
    assert code == 0, err
    assert "hyperparameters.temperatur of tiny is in no rule's recipe for it, so it changes nothing" in out
