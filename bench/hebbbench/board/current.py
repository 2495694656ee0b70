"""Which stored results count: those of today's protocol, code, recipe and arithmetic, on the same data.

Every other file is named with the reason, never silently mixed in and never silently dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from hebbbench.errors import ProtocolError
from hebbbench.plan import Ignored, Sifted, Sources, axis_points
from hebbbench.recipe import resolve
from hebbbench.record.schema import NUMERICS_VERSION, Result
from hebbbench.record.store import Stored
from hebbbench.validation import canonical_json, differences


def sift(sources: Sources) -> Sifted:
    """Part the results that count from the files that do not."""
    ignored = [
        Ignored(sources.place(item.path), problem_text(item, sources)) for item in sources.stored if item.problem
    ]
    found = {sources.place(item.path): item.result for item in sources.stored if item.result is not None}
    for refuse in (_outdated, _unlike_its_row, _other_data):
        reasons = refuse(found, sources)
        ignored += [Ignored(path, reason) for path, reason in reasons.items()]
        found = {path: result for path, result in found.items() if path not in reasons}
    current = sorted(found.values(), key=lambda r: (r.protocol.name, r.rule.name, canonical_json(r.axes), r.seed))
    return Sifted(tuple(current), tuple(sorted(ignored, key=lambda item: item.path)))


def problem_text(item: Stored, sources: Sources) -> str:
    """The store's complaint, without the path (the board prints it) and this machine's folders."""
    text = (item.problem or "").removeprefix(str(item.path)).lstrip(": ")
    return text.replace(f"{sources.root}/", "results/").removesuffix(".")


def _outdated(found: Mapping[str, Result], sources: Sources) -> dict[str, str]:
    """Results of another protocol, code, recipe or arithmetic than today's."""
    hashes = {name: protocol.hash for name, protocol in sources.protocols.items()}
    points = {
        (name, canonical_json(axes)): protocol.at(axes)
        for name, protocol in sources.protocols.items()
        for axes in axis_points(protocol)
    }
    recipes: dict[tuple[str, str, str], object] = {}

    def reason(result: Result) -> str | None:
        name, rule = result.protocol.name, result.rule.name
        if name not in sources.protocols:
            return f"there is no protocol '{name}' in this repository"
        protocol = sources.protocols[name]
        if result.protocol.hash != hashes[name]:
            return (
                f"measured under another protocol: version {result.protocol.version}, hash "
                f"{result.protocol.hash[:12]} (today: version {protocol.version}, hash {hashes[name][:12]})"
            )
        if result.numerics_version != NUMERICS_VERSION:
            return f"measured with numerics version {result.numerics_version} (today: {NUMERICS_VERSION})"
        point = points.get((name, canonical_json(result.axes)))
        if point is None:
            return f"the protocol does not list the axis values {canonical_json(result.axes)}"
        if result.seed not in protocol.seeds:
            return f"seed {result.seed} is not one of the protocol's seeds {protocol.seeds}"
        metric = result.metrics.get(protocol.headline)
        if metric and metric.value is not None and not protocol.scores_accuracy and abs(metric.value) > 1 + 1e-5:
            return f"{protocol.headline} = {metric.value} is no cosine"
        if (
            metric
            and metric.value is not None
            and protocol.scores_accuracy
            and (metric.split != "test" or not 0 <= metric.value <= 1)
        ):
            return f"{protocol.headline} = {metric.value} on the {metric.split} split is no test accuracy"
        network = point.architecture.name
        if network in sources.architectures:
            code = sources.architectures[network]
            measured = code.first_hash if result.architecture is None else result.architecture.source_hash
            if measured != code.source_hash:
                return (
                    f"measured with other code of architecture '{network}': hash {(measured or 'not recorded')[:12]} "
                    f"(today: {code.source_hash[:12]})"
                )
        known = sources.rules.get(rule)
        if known is None:
            return None
        if result.rule.source_hash != known.source_hash:
            return (
                f"measured with other code of rule '{rule}': hash {result.rule.source_hash[:12]} "
                f"(today: {known.source_hash[:12]})"
            )
        key = (name, canonical_json(result.axes), rule)
        if key not in recipes:
            try:
                recipes[key] = resolve(point, known.recipe_for(name), rule).identity()
            except ProtocolError as error:
                recipes[key] = str(error)
        expected, used = recipes[key], result.recipe.identity()
        if isinstance(expected, str):
            return f"the rule's recipe no longer fits the protocol: {expected.removesuffix('.')}"
        changes = "; ".join(f"{at}: {was}, today {now}" for at, was, now in differences(used, expected))
        return f"measured with another recipe ({changes})" if changes else None

    return {path: text for path, result in found.items() if (text := reason(result)) is not None}


def _unlike_its_row(found: Mapping[str, Result], sources: Sources) -> dict[str, str]:
    """Seeds of a rule from outside this repository that were not measured with one code and one recipe."""
    rows: defaultdict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for path, result in found.items():
        if result.rule.name not in sources.rules:
            row = (result.protocol.name, canonical_json(result.axes), result.rule.name)
            rows[row][path] = result.rule.source_hash + canonical_json(result.recipe.identity())
    reason = "the seeds of this rule, which is not in this repository, differ in code or recipe"
    return {path: reason for row in rows.values() if len(set(row.values())) > 1 for path in row}


def _other_data(found: Mapping[str, Result], sources: Sources) -> dict[str, str]:
    """Results on other samples than the rest of their table: the pinned identity wins, else the commonest.

    Split by split, because only rules that see no label learn from unlabelled images, where there are any.
    """
    groups: defaultdict[tuple[str, str, str], dict[str, Result]] = defaultdict(dict)
    for path, result in found.items():
        for split in result.data.identity:
            groups[result.protocol.name, canonical_json(result.axes), split][path] = result
    reasons = {}
    for (_, _, split), group in groups.items():
        text = {path: result.data.identity[split] for path, result in group.items()}
        counts = Counter(text.values())
        checked = {text[path] for path, result in group.items() if result.data.pinned}
        reference = max(counts, key=lambda identity: (identity in checked, counts[identity], identity))
        for path, identity in text.items():
            if identity != reference:
                reasons[path] = "measured on other data than the rest of the table"
    return reasons
