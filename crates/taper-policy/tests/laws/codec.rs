//! Texts and caveats come back as they went.

use crate::given::{Block, Hand, Restriction, any_block, any_caveat, any_grant};
use crate::scene::{Chain, NOW, bytes, verify};
use crate::share::cases;
use biscuit_auth::format::schema;
use proptest::prelude::*;
use prost::Message as _;
use taper_capability::{ArgumentMatch, Caveat, ResourceMatch, Token};
use taper_dpop::base64url_encode;

/// The caveat with its lists in the order in which a set has them.
fn sorted(mut caveat: Caveat) -> Caveat {
    match &mut caveat {
        Caveat::Tool { tools: list, .. }
        | Caveat::Server { servers: list }
        | Caveat::Method { methods: list }
        | Caveat::Audience { audiences: list }
        | Caveat::ClientAddress { networks: list }
        | Caveat::Resource {
            matches: ResourceMatch::OneOf(list),
            ..
        }
        | Caveat::Argument {
            matches: ArgumentMatch::UrlHost(list) | ArgumentMatch::Network(list),
            ..
        } => list.sort(),
        Caveat::Argument {
            matches: ArgumentMatch::OneOf(list),
            ..
        } => list.sort(),
        _ => {}
    }
    caveat
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(200), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_token_has_one_text(grant in any_grant(), blocks in prop::collection::vec(any_block(), 0..3)) {
        let chain = Chain::new(&grant, &blocks);
        for token in &chain.tokens {
            prop_assert_eq!(base64url_encode(&bytes(token)), token.as_str());
            let parsed = Token::parse(token.as_str()).unwrap();
            prop_assert_eq!(parsed.as_str(), token.as_str());
            let decoded = schema::Biscuit::decode(bytes(token).as_slice()).unwrap();
            prop_assert_eq!(decoded.encode_to_vec(), bytes(token));
        }
    }

    #[test]
    fn caveats_read_back_from_a_verified_chain(
        grant in any_grant(),
        caveats in prop::collection::vec(any_caveat(), 1..4),
    ) {
        let checks = caveats.iter().cloned().map(Restriction::Caveat).collect();
        let block = Block { hand: Hand::Over(1), ttl: 100, max_depth: None, checks };
        let chain = Chain::new(&grant, &[block]);
        let verified = verify(chain.last().0.as_str(), NOW).unwrap();
        let of_link = |link: usize| -> Vec<_> {
            verified.links()[link].caveats.iter().map(|check| check.caveat().cloned()).collect()
        };
        let wanted = |caveats: &[Caveat]| -> Vec<_> {
            caveats.iter().cloned().map(|caveat| Some(sorted(caveat))).collect()
        };
        prop_assert_eq!(of_link(0), wanted(&grant.caveats));
        prop_assert_eq!(of_link(1), wanted(&caveats));
    }
}
