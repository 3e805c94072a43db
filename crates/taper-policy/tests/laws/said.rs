//! What is not said is not allowed.

use crate::asked::{AccessCase, any_access};
use crate::given::{Block, Hand, Restriction, TOOLS, any_caveat, any_grant};
use crate::scene::{Chain, NOW, Verdict, access_of, ask, present};
use crate::share::{cases, law};
use proptest::prelude::*;
use taper_capability::json::Value;
use taper_capability::{AccessKind, Caveat};

fn handed_over(grant: &crate::given::GrantCase, caveat: Caveat) -> Chain {
    let block = Block {
        hand: Hand::Over(1),
        ttl: 200,
        max_depth: None,
        checks: vec![Restriction::Caveat(caveat)],
    };
    Chain::new(grant, &[block])
}

fn asked(chain: &Chain, case: &AccessCase) -> Verdict {
    let (token, holder) = chain.last();
    ask(token, holder, case)
}

#[test]
fn a_missing_argument_satisfies_no_argument_caveat() {
    let argument = any_caveat().prop_filter("an argument caveat", |c| matches!(c, Caveat::Argument { .. }));
    let call = any_access().prop_filter("a call", |case| case.access.kind == AccessKind::ToolCall);
    law(
        "arguments",
        500,
        (any_grant(), argument, call),
        |(grant, caveat, case)| {
            let chain = handed_over(&grant, caveat.clone());
            let Caveat::Argument { pointer, .. } = &caveat else {
                unreachable!()
            };
            let mut without = case.clone();
            without.access.arguments = Some(removed(case.access.arguments.as_ref().unwrap(), pointer));
            let verdict = asked(&chain, &without);
            prop_assert!(!verdict.allowed(), "{verdict:?}");
            let mut none = case.clone();
            none.access.arguments = None;
            prop_assert!(!asked(&chain, &none).allowed());
            Ok(asked(&chain, &case).allowed())
        },
    );
}

/// The object without the member that the pointer begins with.
fn removed(arguments: &Value, pointer: &str) -> Value {
    let first = pointer.split('/').nth(1).unwrap();
    let members = arguments.as_object().unwrap().iter();
    Value::Object(members.filter(|(name, _)| name != first).cloned().collect())
}

#[test]
fn one_more_resource_allows_nothing_more() {
    let resource = any_caveat().prop_filter("a resource caveat", |c| matches!(c, Caveat::Resource { .. }));
    let call = any_access().prop_filter("a call", |case| case.access.kind == AccessKind::ToolCall);
    let more = prop::sample::select(crate::given::REPOS);
    law(
        "resources",
        500,
        (any_grant(), resource, call, more),
        |(grant, caveat, case, more)| {
            let chain = handed_over(&grant, caveat);
            let mut one_more = case.clone();
            one_more.access.resources.push(("repo".into(), more.to_owned()));
            let of_kind = case.access.resources.iter().any(|(kind, _)| kind == "repo");
            let (before, after) = (asked(&chain, &case), asked(&chain, &one_more));
            prop_assert!(
                of_kind || !before.allowed(),
                "no resource of the kind, and allowed"
            );
            prop_assert!(
                !after.allowed() || before.allowed() || !of_kind,
                "{before:?}, then {after:?}"
            );
            Ok(after.allowed())
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(200), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counted_calls_end(most in 1i64..6, used in prop::option::of(1i64..8), grant in any_grant(), mut case in any_access()) {
        case.used = used.map(|n| vec![n]);
        let caveat = Caveat::MaxCalls { counter: "c".into(), calls: most };
        let skipped = matches!(case.access.kind, AccessKind::Plumbing | AccessKind::ListEntry);
        let chain = handed_over(&grant, caveat);
        let verdict = asked(&chain, &case);
        if !skipped {
            // Nobody counts: denied. One call more than allowed: denied.
            prop_assert!(used.is_some_and(|n| n <= most) || !verdict.allowed(), "{:?}", verdict);
        }
        let (root, holder) = (&chain.tokens[0], chain.holders[0]);
        if used.is_none_or(|n| n <= most) && (skipped || used.is_some()) {
            prop_assert_eq!(verdict.allowed(), ask(root, holder, &case).allowed() && case.later < 200);
        }
    }

    #[test]
    fn a_permit_says_what_was_asked(grant in any_grant(), case in any_access()) {
        let chain = Chain::new(&grant, &[]);
        let now = NOW + case.later;
        if let Ok(presented) = present(chain.last().0.as_str(), grant.holder, now) {
            let access = access_of(presented.chain(), &case);
            let decision = taper_policy::boundary::decide(&crate::scene::ALLOW, &presented, access.clone(), now);
            if let taper_policy::boundary::Decision::Allow(permit) = decision {
                prop_assert_eq!(permit.access(), &access);
                prop_assert!(now < permit.expires_at() && permit.expires_at() == NOW + grant.ttl);
                prop_assert!(access.tool.is_none_or(|tool| TOOLS.contains(&tool.as_str())));
            }
        }
    }
}
