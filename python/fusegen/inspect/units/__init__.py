"""Units that mean something: which tokens drive one, what can be read off them, text coloured by one."""

from .colouring import Coloured, coloured
from .drivers import Drivers, drivers
from .labels import text_labels
from .probes import Probe, probe

__all__ = ["Coloured", "Drivers", "Probe", "coloured", "drivers", "probe", "text_labels"]
