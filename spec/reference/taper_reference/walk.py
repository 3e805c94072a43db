"""The walk along the chain (D-02, D-05), with the admission of each check (P-16 to P-20)."""

from .admission import admit
from .refusal import require
from .token import Token


def walk(token: Token) -> None:
    """Refuses a chain in which a block is not the holder's, a check is not admitted, or the depth is exceeded."""
    depth = 0
    holder = token.authority.link.holder
    for block in token.later:
        require(block.external_key == holder, "D-02")
        depth += block.link.holder != holder
        holder = block.link.holder
    for link in token.links():
        for check in link.checks:
            admit(check)
    allowed = min(link.max_depth for link in token.links() if link.max_depth is not None)
    require(depth <= allowed, "D-05")
