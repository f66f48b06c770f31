"""Operators of core: `ElementOperator`, `MapOperator`, and those that are made of operators.

The others come with the packages that own them.
"""

from pkgutil import extend_path

from datarax.core.config import ElementOperatorConfig as ElementOperatorConfig
from datarax.operators.composite_operator import CompositeOperatorConfig as CompositeOperatorConfig
from datarax.operators.composite_operator import CompositeOperatorModule as CompositeOperatorModule
from datarax.operators.element_operator import ElementOperator as ElementOperator
from datarax.operators.map_operator import MapOperator as MapOperator
from datarax.operators.map_operator import MapOperatorConfig as MapOperatorConfig
from datarax.operators.multi_modal_operator import MultiModalOperator as MultiModalOperator
from datarax.operators.multi_modal_operator import (
    MultiModalOperatorConfig as MultiModalOperatorConfig,
)
from datarax.operators.probabilistic_operator import ProbabilisticOperator as ProbabilisticOperator
from datarax.operators.probabilistic_operator import (
    ProbabilisticOperatorConfig as ProbabilisticOperatorConfig,
)
from datarax.operators.repeat_operator import RepeatOperator as RepeatOperator
from datarax.operators.repeat_operator import RepeatOperatorConfig as RepeatOperatorConfig
from datarax.operators.selector_operator import SelectorOperator as SelectorOperator
from datarax.operators.selector_operator import SelectorOperatorConfig as SelectorOperatorConfig

# Other distributions add modules to this package; editable installs need their folders named here.
__path__ = extend_path(__path__, __name__)
