"""Checks that the measured card agrees with the signals a rule declares."""

from __future__ import annotations

import torch
from torch import Tensor

from hebbbench.checks.network import CLASSES
from hebbbench.checks.probes import Evidence
from hebbbench.checks.rig import differs
from hebbbench.checks.spy import copied, dense, seed_draws
from hebbbench.checks.subject import Failed, Skipped, Subject
from hebbbench.plasticity.rule import Rule
from hebbbench.plasticity.signals import LinearPre


def repeats(subject: Subject) -> str:
    """Nothing changed, nothing changes: the control without which no probe could be read."""
    if not subject.evidence.repeats:
        raise Failed(
            "the same two steps, run again, gave another update, so no card can be measured. What the rule remembers "
            "belongs in `state`; its draws come from a counter there (hebbbench.draw_counter)."
        )
    return ""


def _measured(subject: Subject) -> Evidence:
    """What the probes saw, if it can be trusted."""
    if not subject.evidence.repeats:
        raise Skipped("the update does not repeat")
    return subject.evidence


def no_hidden_labels(subject: Subject) -> str:
    """An update that changes with the labels asks for labels, error or grad."""
    evidence = _measured(subject)
    if evidence.labels and not _asks(subject.kind, "labels", "error", "grad"):
        raise Failed(
            "its update changes with the labels, which none of its signals carries: they reach it through a global, "
            "its state or the harness's own frames. Ask for `labels`."
        )
    return "the update changes with the labels" if evidence.labels else "the update is blind to the labels"


def no_hidden_backward(subject: Subject) -> str:
    """Autograd records the body or the rule's own work only for a rule that asks for grad."""
    evidence = _measured(subject)
    if subject.kind.shape == "step":
        return f"gradients {'cross' if evidence.body_recorded else 'never cross'} from layer to layer"
    if _asks(subject.kind, "grad"):
        if not evidence.body_recorded:
            raise Failed("it asks for `grad`, but no backward pass reached its layers. This is the harness's defect.")
        return "a backward pass, as asked for"
    if evidence.rule_built_graph or evidence.body_recorded:
        where = "delta itself" if evidence.rule_built_graph else "the network's body"
        raise Failed(
            f"autograd recorded {where}, though the rule does not ask for `grad`. Ask, or write the derivative out."
        )
    return "runs with autograd disabled"


def no_earlier_layers(subject: Subject) -> str:
    """Nothing of earlier layers reaches an update but through the layer's own input."""
    subject.need_layer_update()
    evidence = _measured(subject)
    if evidence.network_input and not _asks(subject.kind, "input"):
        raise Failed(
            "with the layer's own input and output held, another network input changes its update, which none of its "
            "signals carries. Ask for `input`."
        )
    if evidence.earlier_layers:
        raise Failed(
            "with the layer's own input and output held, other weights in earlier layers change its update. No signal "
            "carries these: the rule shares something between layers, such as a global."
        )
    return "sees the network's input" if evidence.network_input else ""


def no_hidden_later_layers(subject: Subject) -> str:
    """What depends on later layers asks for error or grad."""
    subject.need_layer_update()
    evidence = _measured(subject)
    if evidence.later_layers and not _asks(subject.kind, "error", "grad"):
        raise Failed(
            "later layers' weights or activity change its update, which none of its signals carries. Ask for `error` "
            "or `grad`."
        )
    return "sees later layers" if evidence.later_layers else "blind to later layers"


def no_hidden_transport(subject: Subject) -> str:
    """Later weights steer an update only through grad on a feedback path that uses them."""
    subject.need_layer_update()
    evidence = _measured(subject)
    if evidence.weight_transport and not _asks(subject.kind, "grad"):
        raise Failed(
            "later weights that leave every activity as it was change its update, so it reads them; no signal but "
            "`grad` carries them."
        )
    return "transports weights" if evidence.weight_transport else "no weight transport"


def one_pass(subject: Subject) -> str:
    """A `delta` rule runs the network once for an update."""
    subject.need_layer_update()
    if _measured(subject).forwards > 1:
        raise Failed(
            f"the network ran forward {_measured(subject).forwards} times for one update; `delta` rules have one."
        )
    return ""


def no_phantom_signals(subject: Subject) -> str:
    """Every signal asked for but weight and state changes the update; a costly one asked for in vain is paid by all."""
    subject.need_layer_update()
    if not _measured(subject).learns:
        raise Skipped("its update is always zero")
    idle = [name for name in subject.kind.signals if name not in ("weight", "state") and not _acts(subject, name)]
    if idle:
        raise Failed(
            f"changing {' and '.join(f'`{name}`' for name in idle)} alone changes no update. Take "
            f"{'it' if len(idle) == 1 else 'them'} out of delta's parameters."
        )
    return ", ".join(subject.kind.signals)


def _asks(kind: type[Rule], *signals: str) -> bool:
    return any(signal in kind.signals for signal in signals)


def _acts(subject: Subject, name: str) -> bool:
    """Whether some call answers another value of one signal, all others as they were, with another update."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for call in _measured(subject).calls:
            for other in _others(dense(call.signals[name])):
                given = copied(call.signals)
                given[name] = LinearPre(other) if name == "pre" else other
                seed_draws(call.layer, call.number)
                if differs(call.delta, subject.build().delta(**given)):
                    return True
    return False


def _others(value: Tensor) -> list[Tensor]:
    """Other values of a signal: for classes, another for all samples and another for one."""
    if value.is_floating_point():
        return [1 - 2 * value.flip(0)]
    return [(value + 1) % CLASSES, torch.cat([(value[:1] + 1) % CLASSES, value[1:]])]
