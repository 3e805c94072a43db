//! The endpoints, from the request to the answer, against a provider on loopback.

mod admin;
mod discovery;
mod exchange;
mod grants;
mod provider;
mod renewal;
mod revocation;
mod start;
mod support;
mod taking_back;
