"""Operators. `ElementOperator` is here; the others come with the packages that own them."""

from pkgutil import extend_path

from datarax.core.config import ElementOperatorConfig as ElementOperatorConfig
from datarax.operators.element_operator import ElementOperator as ElementOperator

# Other distributions add modules to this package; editable installs need their folders named here.
__path__ = extend_path(__path__, __name__)
