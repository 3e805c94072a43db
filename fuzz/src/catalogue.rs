//! What the proxy reads of a tool's description: its modules themselves, and stand-ins of what they compare
//! a caller's headers by. For one target, which names this file.

#[path = "../../crates/taper-proxy/src/catalogue/decimal.rs"]
mod decimal;
#[path = "../../crates/taper-proxy/src/catalogue/definition.rs"]
mod definition;
#[path = "../../crates/taper-proxy/src/catalogue/params.rs"]
mod params;

pub(crate) use definition::{Definition, facts};
