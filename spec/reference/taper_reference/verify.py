"""One presentation, one verdict, in the order of work of `vectors/README.md`."""

from dataclasses import dataclass

from .decide import Access, decide, read_arguments
from .proof import Request, read_proof
from .refusal import require
from .signatures import Root, verify_signatures
from .token import decode
from .walk import walk


@dataclass(frozen=True)
class Presentation:
    """All that a verifier is given: a capability, a proof, and what its boundary knows."""

    time: int
    roots: list[Root]
    token: str
    proof: str
    request: Request
    access: Access
    policies: list[str]


def verify(presentation: Presentation) -> None:
    """Returns when the presentation is accepted; `Refused` has the rule otherwise."""
    now = presentation.time
    request = presentation.request
    proof = read_proof(presentation.proof, presentation.token, request, now)
    token = decode(presentation.token)
    require(proof.key == token.links()[-1].holder, "R-14")
    require(now < token.expiry(), "P-15")
    proof.verify_signature()
    verify_signatures(token, presentation.roots)
    walk(token)
    body_bound = proof.check_body(request.body)
    arguments = read_arguments(presentation.access)
    decide(token, presentation.access, arguments, body_bound, presentation.policies, now)
