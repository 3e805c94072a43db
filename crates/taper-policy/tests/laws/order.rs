//! Where and in which order a holder writes its checks does not matter.

use crate::asked::any_access;
use crate::given::{Block, GrantCase, Hand, Restriction, any_restriction};
use crate::scene::{Chain, ask};
use crate::share::law;
use proptest::prelude::*;

/// The checks, cut into blocks of the holder's own.
fn blocks(checks: &[Restriction], cuts: &[usize]) -> Vec<Block> {
    let narrowing = |checks: &[Restriction]| Block {
        hand: Hand::Narrow,
        ttl: 200,
        max_depth: None,
        checks: checks.to_vec(),
    };
    let mut blocks = Vec::new();
    let mut rest = checks;
    for cut in cuts {
        let (part, after) = rest.split_at((*cut).min(rest.len()));
        blocks.push(narrowing(part));
        rest = after;
    }
    blocks.push(narrowing(rest));
    blocks
}

#[test]
fn order_and_place_of_checks_do_not_matter() {
    let checks = prop_oneof![
        4 => prop::collection::vec(any_restriction(), 2..=2),
        1 => prop::collection::vec(any_restriction(), 3..=4),
    ];
    let given = checks.prop_flat_map(|checks| {
        let shuffled = Just(checks.clone()).prop_shuffle();
        let cuts = prop::collection::vec(0usize..3, 0..3);
        (
            Just(GrantCase::generous()),
            Just(checks),
            shuffled,
            cuts,
            any_access(),
        )
    });
    law("order", 600, given, |(grant, checks, shuffled, cuts, access)| {
        let one = Chain::new(&grant, &blocks(&checks, &[]));
        let other = Chain::new(&grant, &blocks(&shuffled, &cuts));
        let allowed = |chain: &Chain| {
            let (token, holder) = chain.last();
            ask(token, holder, &access).allowed()
        };
        prop_assert_eq!(allowed(&one), allowed(&other), "{:?}", shuffled);
        Ok(allowed(&one))
    });
}
