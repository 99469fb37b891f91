"""The layers of the audit, each by the name it has on the command line, in the order from cheap and certain to dear and statistical."""

from collections.abc import Callable, Mapping

from client.privacy.audit.finding import Finding, Trial
from client.privacy.audit.membership import membership
from client.privacy.audit.noise import noise
from client.privacy.audit.one_run import one_run
from client.privacy.audit.sampling import sampling
from client.privacy.audit.sensitivity import order, sensitivity

Layer = Callable[[Trial], Finding]

LAYERS: Mapping[str, Layer] = {
    "sensitivity": sensitivity,
    "order": order,
    "noise": noise,
    "sampling": sampling,
    "one_run": one_run,
    "membership": membership,
}
