"""Secure aggregation: the coordinator learns the weighted sum of the sites' updates, and not one of them.

Bonawitz et al. 2017, CCS, arXiv:1611.04482 (pairwise and self masks, Shamir shares for who drops out); among more than a hundred sites
on the sparse graph of Bell et al. 2020, ePrint 2020/704. All primitives are kept ones: X25519, Ed25519, HKDF-SHA256, ChaCha20 and
ChaCha20-Poly1305 of `cryptography`, Shamir's sharing of `pycryptodome`. Flower's SecAgg+ is not used: it draws its masks from 32 bits.

One round, five exchanges; `client` and `server` are pure but for fresh randomness:

    (0) advertise      client.advertise -> Advertisement   server.gather -> Roster to all
    (1) share          client.share     -> SealedShares    server.route  -> one Inbox to each
    (2) masked input   client.mask      -> MaskedInput     server.add_up -> UnmaskRequest to all
    (3) confirm        client.confirm   -> Confirmation    server.confirm -> Confirmations to all
    (4) unmask         client.reveal    -> Revealed        server.unmask -> SecureSum

What it protects, and from whom. n sites, of which at least `quorum` must be in the sum; a site's two secrets lie as shares with its
`holders` (in the complete graph all n, itself among them), of which any `threshold` rebuild one.

- A coordinator that follows the protocol and reads everything it gets learns the sum, who took part and their public weights. If it is
  joined by c sites, it learns the sum of the others, who are at least quorum - c.
- A coordinator that lies about who survived, telling some that a site is there and others that it is gone, could collect both kinds of
  shares, or unmask the sum of a few. So no site reveals anything before a quorum has signed the very list that it was shown itself, and
  each signs one: two lists cannot both find a quorum while 2 quorum > n + c. (Bonawitz's consistency check; it costs one exchange.)
- It cannot put its own keys in a site's place: advertisements are signed with the site's long-term key, which the others have pinned.
- It can leave sites out, down to the quorum, pass nothing on, or spoil the sum. A spoilt sum is noticed by the secrets that do not fit
  what was advertised, or by values that no sites could have sent, unless whoever spoils it is one of the sites: any site can add what
  it likes within the declared range, and no rule that compares updates can see it.
- In the sparse graph this is claimed of a coordinator that follows the protocol, of so many sites on its side as `graph.sparse` was told,
  and of dropouts by chance; the lists of survivors are signed all the same. The order of the sites comes from a hash of all advertised
  keys: who advertises last, and tries many, can bend it.
- The sum is not private. Between sites, the sum minus one's own is what the others did, so fewer than three are refused; what a sum of
  few hospitals, or of many rounds, tells of one patient is limited by differential privacy alone.
- Losses, counts and evaluations that a site sends beside its update are not covered.
"""

from rainhill.secagg.layout import Layout
from rainhill.secagg.messages import (
    Advertisement,
    Confirmation,
    Confirmations,
    Inbox,
    MaskedInput,
    Revealed,
    Roster,
    SealedShares,
    UnmaskRequest,
)
from rainhill.secagg.quantise import Quantiser
from rainhill.secagg.refusals import check_encoding, check_sites, check_strategy
from rainhill.secagg.server import SecureSum
from rainhill.secagg.terms import Terms, agree

__all__ = [
    "Advertisement",
    "Confirmation",
    "Confirmations",
    "Inbox",
    "Layout",
    "MaskedInput",
    "Quantiser",
    "Revealed",
    "Roster",
    "SealedShares",
    "SecureSum",
    "Terms",
    "UnmaskRequest",
    "agree",
    "check_encoding",
    "check_sites",
    "check_strategy",
]
