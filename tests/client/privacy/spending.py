"""What patients of a site have spent in an earlier run."""

from collections.abc import Sequence

from client.privacy import accountant
from client.privacy.events import Charged, Members
from client.privacy.ledger import Ledger


def spend(ledger: Ledger, patients: Sequence[str], epsilon: float) -> None:
    """Charges these patients for another run, up to this epsilon."""
    sigma = accountant.noise_multiplier(epsilon, 1e-5, 0.5, 10)
    members = Members.of(patients)
    ledger.append(
        members,
        Charged(
            run="earlier", recipe="0" * 64, round=1, cohort="c", what="update", members=members.digest, noise_multiplier=sigma,
            sample_rate=0.5, steps=10, delta=1e-5, draw="1" * 64, plan="2" * 64,
        ),
    )  # fmt: skip
