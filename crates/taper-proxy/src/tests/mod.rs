//! The proxy on loopback in front of a recording upstream. Each refusal has an honest twin beside it,
//! and of what was refused the upstream saw nothing.

mod accounts;
mod answers;
mod before_login;
mod calls;
mod catalogue;
mod counting;
mod exchanging;
mod following;
mod limiting;
mod opening;
mod pinning;
mod programs;
mod proofs;
mod protocols;
mod recording;
mod remembering;
mod returning;
mod spellings;
mod support;
mod tasks;
mod token_settings;
mod tokens;
mod transparent;
mod unread;
mod upstreams;
