//! What a derived capability allows, each capability that it comes from allows.

use crate::asked::any_access;
use crate::given::{GrantCase, any_block, any_grant};
use crate::scene::{Chain, Verdict, ask};
use crate::share::law;
use proptest::prelude::*;

#[test]
fn what_a_child_may_its_parents_may() {
    let given = (
        prop_oneof![2 => Just(GrantCase::generous()), 1 => any_grant()],
        prop::collection::vec(any_block(), 1..4),
        any_access(),
    );
    law("narrowing only", 1_200, given, |(grant, blocks, access)| {
        let chain = Chain::new(&grant, &blocks);
        let verdicts: Vec<Verdict> = chain
            .tokens
            .iter()
            .zip(&chain.holders)
            .map(|(token, holder)| ask(token, *holder, &access))
            .collect();
        prop_assert!(!verdicts.contains(&Verdict::Indeterminate));
        // Once a link denies, all that follow do.
        prop_assert!(
            verdicts.is_sorted_by_key(|verdict| !verdict.allowed()),
            "{verdicts:?}"
        );
        Ok(verdicts[verdicts.len() - 1].allowed())
    });
}
