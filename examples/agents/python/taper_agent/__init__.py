"""An agent that holds, narrows, hands on and presents capabilities, on the standard Biscuit library.

| module | purpose |
|---|---|
| `keys` | the agent's own key, and the public keys of others |
| `caveats` | restrictions: one Datalog check each (spec/caveats.md) |
| `capability` | narrowing and delegating, offline (spec/delegation.md) |
| `proof` | DPoP proofs, RFC 9449 (spec/presentation.md) |
| `issuer` | the issuer: its root keys, and the token exchange, RFC 8693 |
| `mcp` | calling a tool through the proxy |
| `wire` | HTTP with proofs |
| `text` | text of others: JSON, and what a terminal may get |
| `files` | writing what a command makes |
"""
