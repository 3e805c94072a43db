//! The same question has the same answer, whatever order a hash map has this time.

use crate::asked::any_access;
use crate::given::{any_block, any_grant};
use crate::scene::{ALLOW, Chain, NOW, Verdict, access_of, ask, judged, present};
use crate::share::law;
use proptest::prelude::*;
use taper_policy::boundary::decide;

#[test]
fn the_same_question_has_the_same_answer() {
    let given = (
        any_grant(),
        prop::collection::vec(any_block(), 0..2),
        any_access(),
    );
    law("steady", 400, given, |(grant, blocks, access)| {
        let chain = Chain::new(&grant, &blocks);
        let (token, holder) = chain.last();
        let first = ask(token, holder, &access);
        prop_assert_eq!(ask(token, holder, &access), first);
        let now = NOW + access.later;
        let Ok(presented) = present(token.as_str(), holder, now) else {
            return Ok(first.allowed());
        };
        // Each evaluation has maps and sets of its own, with other seeds.
        for _ in 0..16 {
            let asked = access_of(presented.chain(), &access);
            let again = judged(&decide(&ALLOW, &presented, asked, now));
            // Where several facts match a `check all`, some may be false and some an error: both deny.
            let same = again == first || (denied(again) && denied(first));
            prop_assert!(same, "{first:?}, then {again:?}");
        }
        Ok(first.allowed())
    });
}

/// Denied by a check or by an error in one.
fn denied(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Denied("R-22" | "R-25"))
}
