//! Requests in a time from one address, of callers of whom nothing else is known (M-48).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use taper_service::clock::SharedClock;

use super::places::{Place, Places};
use super::rate::{self, Buckets, Pace};
use super::table::{Caller, Key};
use crate::config::{Rate, Rates};
use crate::refusal::Refusal;
use crate::rules;

/// What one address may ask before login, unless configured: some clients of one office at once.
const USUAL: Rate = Rate {
    requests: 20,
    per: Duration::from_secs(1),
    burst: Some(200),
};
/// Bodies of callers without a token that are read at once.
const MAX_BODIES: usize = 64;
/// Of them, those of one address.
const BODIES_OF_ONE: usize = 8;

/// What callers without a token may use up of one server.
#[derive(Debug)]
pub(crate) struct Addresses {
    buckets: Buckets,
    bodies: Arc<Places>,
}

impl Addresses {
    /// Nothing is used yet.
    ///
    /// # Errors
    /// Why the rate means nothing.
    pub(crate) fn new(rates: &Rates, clock: SharedClock) -> Result<Self, &'static str> {
        let quota = rate::quota(rates.per_address.as_ref().unwrap_or(&USUAL))?;
        Ok(Self {
            buckets: Buckets::new(quota, Pace::new(clock)),
            bodies: Places::new(MAX_BODIES, BODIES_OF_ONE, BODIES_OF_ONE),
        })
    }

    /// Takes one request of an address, and a place for its body. Callers whose address is not known are
    /// one, and so is a network of IPv6 (/64), which one host has to itself.
    ///
    /// # Errors
    /// M-48, or M-40.
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> Result<Place, Refusal> {
        let address = key(address);
        if !rules::ADDRESS.holds(self.buckets.take(&address).is_ok()) {
            return Err(Refusal::Anonymous(rules::ADDRESS));
        }
        // Nothing else is known of the caller.
        let caller = Caller {
            holder: address,
            grant: address,
            subject: address,
        };
        let place = self.bodies.take(&caller);
        place.map_err(|_| Refusal::Anonymous(rules::PLACES))
    }
}

fn key(address: Option<IpAddr>) -> Key {
    match address {
        None => Key::of(&[b"address"]),
        Some(IpAddr::V4(address)) => Key::of(&[b"address", &address.octets()]),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            let network = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
            Key::of(&[b"address", &network.octets()])
        }
    }
}

#[cfg(test)]
mod tests {
    use taper_service::clock::ManualClock;

    use super::*;

    fn addresses(requests: u32) -> (Arc<ManualClock>, Addresses) {
        let clock = ManualClock::shared(1_000);
        let rates = Rates {
            per_address: Some(Rate {
                requests,
                per: Duration::from_secs(1),
                burst: None,
            }),
            ..Rates::default()
        };
        let addresses = Addresses::new(&rates, Arc::clone(&clock) as _).unwrap();
        (clock, addresses)
    }

    #[test]
    fn an_address_has_its_rate() {
        let (clock, addresses) = addresses(2);
        let ask = |text: &str| addresses.admit(text.parse().ok()).is_ok();
        assert!(ask("10.0.0.1") && ask("10.0.0.1") && !ask("10.0.0.1"));
        assert!(ask("10.0.0.2"));
        assert!(
            ask("2001:db8::1") && ask("2001:db8::2") && !ask("2001:db8::ffff:3"),
            "one network"
        );
        assert!(ask("2001:db8:0:1::1"));
        assert!(ask("") && ask("") && !ask(""), "who has no address shares one");
        clock.advance(1);
        assert!(ask("10.0.0.1"));
    }

    #[test]
    fn few_bodies_are_read_at_once() {
        let (_, addresses) = addresses(1_000);
        let ask = |host: usize| addresses.admit(format!("10.0.0.{host}").parse().ok());
        let held: Vec<_> = (0..MAX_BODIES)
            .map(|body| ask(body / BODIES_OF_ONE).unwrap())
            .collect();
        assert_eq!(ask(100).unwrap_err().rule(), rules::PLACES);
        drop(held);
        assert!(ask(100).is_ok());
    }

    #[test]
    fn one_address_takes_no_place_from_others() {
        let (_, addresses) = addresses(1_000);
        let ask = |text: &str| addresses.admit(text.parse().ok());
        for address in ["10.0.0.1", "2001:db8::1", ""] {
            let mut held: Vec<_> = (0..BODIES_OF_ONE).map(|_| ask(address).unwrap()).collect();
            assert_eq!(ask(address).unwrap_err().rule(), rules::PLACES);
            assert!(ask("10.0.0.2").is_ok());
            held.pop();
            assert!(ask(address).is_ok(), "it is given back");
        }
    }
}
