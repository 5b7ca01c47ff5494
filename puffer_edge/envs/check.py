"""The one checker of environments: run it over your own before you train on it, ``puffer-edge envs check my_module:MINE``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from puffer_edge.envs.checking.places import of_error
from puffer_edge.envs.checking.rules import RULES
from puffer_edge.envs.checking.subject import Finding, Rule, Subject
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import ContractError, PufferEdgeError


@dataclass(frozen=True)
class Verdict:
    """What became of one rule.

    Attributes:
        rule: its name.
        promise: what it asks, in words.
        findings: what breaks it; nothing where it holds.
        note: what else is worth knowing.
        waits: the broken rule that must hold first; then this one was not tried.
    """

    rule: str
    promise: str
    findings: tuple[Finding, ...] = ()
    note: str = ""
    waits: str = ""


def verdicts(environment: Environment, seed: int = 0) -> Iterator[Verdict]:
    """Try every rule on random legal actions, one after the other; none stops the others but those that need it.

    Args:
        environment: what to check.
        seed: of the start states and actions.
    """
    subject, broken = Subject(environment, seed), set()
    for rule in RULES:
        if not rule.applies(subject):
            continue
        waits = next((name for name in rule.needs if name in broken), "")
        if waits:
            verdict = Verdict(rule.name, rule.promise, waits=waits)
        else:
            verdict = Verdict(rule.name, rule.promise, _found(rule, subject), subject.notes.get(rule.name, ""))
        if waits or verdict.findings:
            broken.add(rule.name)
        yield verdict


def check(environment: Environment, seed: int = 0) -> None:
    """See that an environment keeps what ``Environment`` promises; ``verdicts`` says it rule by rule.

    Args:
        environment: what to check.
        seed: of the start states and actions.

    Raises:
        ContractError: a promise is broken; the message says which, and where.
        InvalidInput: the default shield names something that does not exist, or numba cannot compile a function.
        RangeError: the default shield may leave the shared range.
    """
    for verdict in verdicts(environment, seed):
        for finding in verdict.findings:
            where = f" ({finding.place.file}:{finding.place.line})" if finding.place else ""
            raise finding.error or ContractError(f"{environment.name}: {finding.message}{where}")


def _found(rule: Rule, subject: Subject) -> tuple[Finding, ...]:
    try:
        return tuple(rule.broken(subject))
    except PufferEdgeError as error:
        return (Finding(str(error), of_error(error) or rule.line(subject), error),)
    except Exception as error:  # whatever a function of somebody's own raises
        return (Finding(f"{rule.name} raised {type(error).__name__}: {error}", of_error(error) or rule.line(subject)),)
