"""Checks of the operators that a composition is made of."""

from __future__ import annotations

from typing import Any

from datarax.core.operator import OperatorModule
from datarax.operators._composition import Composition, family


def checked_members(
    owner: str, operators: Any, *, record_by_record: bool
) -> list[OperatorModule[Any]]:
    """The operators as a list.

    Args:
      owner: what the errors call the composition.
      operators: a list or tuple of operators.
      record_by_record: whether each must be able to transform a record on its own.

    Raises:
      TypeError: if it is not a list or tuple, or one is not an operator.
      ValueError: if there is none, if one is there twice, or if one works on whole batches.
    """
    if not isinstance(operators, list | tuple):
        raise TypeError(
            f"operators of {owner} must be a list or tuple of operators, got "
            f"{type(operators).__name__}; write operators=[operator]"
        )
    if not operators:
        raise ValueError(f"operators of {owner} must have at least one operator, got none")
    named = [(f"operators[{at}]", operator) for at, operator in enumerate(operators)]
    return [
        checked_member(owner, name, operator, [other for _, other in named[:at]], record_by_record)
        for at, (name, operator) in enumerate(named)
    ]


def checked_member(
    owner: str, name: str, operator: Any, others: list[Any], record_by_record: bool
) -> OperatorModule[Any]:
    """One operator, that is none of the others; see `checked_members`."""
    if not isinstance(operator, OperatorModule):
        kind = type(operator).__name__
        came = f"the class {operator.__name__}" if isinstance(operator, type) else kind
        raise TypeError(
            f"{name} of {owner} must be an operator, got {came}; wrap a function of a record: "
            "ElementOperator(ElementOperatorConfig(), fn=function), or one of a field: "
            "MapOperator(MapOperatorConfig(fields=('image',)), fn=function)"
        )
    taken = {id(module) for other in others for module in family(other)}
    if any(id(module) in taken for module in family(operator)):
        raise ValueError(
            f"{name} of {owner} is, or holds, the same object as an operator before it, so that "
            "both would draw the same numbers and share their counts; build another one"
        )
    if record_by_record and (whole := on_batches(operator)):
        raise ValueError(
            f"{name} of {owner} must transform records one by one, but {whole._label()} works on "
            "whole batches; put it beside this composition, as in CompositeOperatorModule("
            "CompositeOperatorConfig(), operators=[composition, operator])"
        )
    return operator


def on_batches(operator: OperatorModule[Any]) -> OperatorModule[Any] | None:
    """The first operator in this one that cannot transform a record on its own, if there is any."""
    for module in family(operator):
        kind = type(module)
        by_record = (OperatorModule.apply_batch, Composition.apply_batch)
        if not module.per_record_params:
            return module
        if kind.apply_batch not in by_record and not isinstance(module, Composition):
            return module
    return None
