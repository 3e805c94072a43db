//! The decision agrees with the Biscuit library evaluating the whole token by itself; and what a
//! limit does to a decision.
//!
//! The production path reads checks natively, admits them and evaluates them in one scope with facts that it made
//! itself. The reference path gives the token to the library as it is, third-party blocks included, adds
//! the facts of the request and `allow if true`, and looks at rights, expiry and depth by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "laws/asked.rs"]
mod asked;
#[path = "laws/given.rs"]
mod given;
#[path = "laws/grammar.rs"]
mod grammar;
#[path = "laws/scene.rs"]
mod scene;
#[path = "laws/share.rs"]
mod share;

use asked::{AccessCase, any_access};
use biscuit_auth::builder::Algorithm;
use biscuit_auth::{AuthorizerBuilder, AuthorizerLimits, Biscuit, PublicKey};
use given::{Block, GrantCase, any_block, any_grant};
use proptest::prelude::*;
use scene::{Chain, KEYS, NOW, Verdict, access_of, ask, bytes, judged, policy, present, verify};
use share::law;
use std::time::Duration;
use taper_capability::vocabulary::{self, Origin};
use taper_capability::{Access, AccessKind, ArgumentMatch, Caveat, Right, VerifiedChain};
use taper_policy::boundary::decide;

/// Whether the library, given the whole token, finds that all its checks pass.
fn library_allows(token: &[u8], chain: &VerifiedChain, access: &Access, now: i64) -> bool {
    let root = PublicKey::from_bytes(&KEYS.root.public().to_bytes(), Algorithm::Ed25519).unwrap();
    let biscuit = Biscuit::from(token, root).unwrap();
    let limits = AuthorizerLimits {
        max_time: Duration::from_secs(60),
        ..AuthorizerLimits::default()
    };
    let of_request = |name: &str| vocabulary::word(name).is_some_and(|word| word.origin == Origin::Request);
    // Those of the grant stand in block 0, where each block sees them.
    let facts = vocabulary::facts(chain, access, now).into_iter();
    let facts = facts.filter(|fact| of_request(&fact.predicate.name));
    let start = AuthorizerBuilder::new()
        .set_limits(limits)
        // Without what was read at admission.
        .set_extern_funcs(vocabulary::externs([]))
        .policy("allow if true")
        .unwrap();
    let builder = facts.fold(start, |builder, fact| builder.fact(fact).unwrap());
    builder.build(&biscuit).unwrap().authorize().is_ok()
}

/// Rights, audience, expiry and depth, as the case says them.
fn granted(grant: &GrantCase, blocks: &[Block], case: &AccessCase) -> bool {
    let access = &case.access;
    let alive = blocks.iter().all(|block| case.later < block.ttl) && case.later < grant.ttl;
    let hand_overs = blocks
        .iter()
        .filter(|block| matches!(block.hand, given::Hand::Over(_)))
        .count();
    let deepest = blocks
        .iter()
        .filter_map(|block| block.max_depth)
        .chain([grant.max_depth])
        .min();
    let has = |tool: &str, server: &str| {
        let of = |right: &Right| match right {
            Right::Tool { server: s, tool: t } => s == server && t == tool,
            Right::AnyTool { server: s } => s == server,
            _ => false,
        };
        grant.rights.iter().any(of)
    };
    let resource = |uri: &str| {
        let of = |right: &Right| matches!(right, Right::Resource { server, .. } if *server == access.server);
        grant.rights.iter().any(of) && uri == "repo://acme/web"
    };
    let prompt = || {
        let of = |right: &Right| matches!(right, Right::Prompt { server, .. } if *server == access.server);
        grant.rights.iter().any(of)
    };
    let right = match (access.kind, &access.tool, &access.uri) {
        (AccessKind::Plumbing, ..) => true,
        (AccessKind::Task | AccessKind::LoggingLevel, ..) => {
            grant.rights.iter().any(|right| right.server() == access.server)
        }
        (_, Some(tool), _) => has(tool, &access.server),
        (_, _, Some(uri)) => resource(uri),
        _ => prompt(),
    };
    alive
        && hand_overs <= usize::try_from(deepest.unwrap()).unwrap()
        && grant.audiences.contains(&access.audience.as_str())
        && right
}

#[test]
fn the_library_agrees() {
    let given = (
        any_grant(),
        prop::collection::vec(any_block(), 0..3),
        any_access(),
    );
    law("agreement", 1_500, given, |(grant, blocks, case)| {
        let chain = Chain::new(&grant, &blocks);
        let (token, holder) = chain.last();
        let verdict = ask(token, holder, &case);
        prop_assert!(verdict != Verdict::Indeterminate);
        let now = NOW + case.later;
        // What does not verify has no checks to ask about: then it is expired or too deep.
        let Ok(verified) = verify(token.as_str(), now) else {
            prop_assert!(!granted(&grant, &blocks, &case), "{verdict:?}");
            return Ok(false);
        };
        let access = access_of(&verified, &case);
        let checks = library_allows(&bytes(token), &verified, &access, now);
        let reference = checks && granted(&grant, &blocks, &case);
        let skips = vocabulary::skips_unsupplied(case.access.kind)
            && verified
                .links()
                .iter()
                .flat_map(|link| &link.caveats)
                .any(|check| {
                    check
                        .words()
                        .any(|word| !vocabulary::supplies(case.access.kind, word))
                });
        if skips {
            // The library cannot skip a check, so it may only say no more often.
            prop_assert!(!reference || verdict.allowed(), "{verdict:?}");
        } else {
            prop_assert_eq!(
                verdict.allowed(),
                reference,
                "{:?}, checks pass: {}",
                verdict,
                checks
            );
        }
        Ok(verdict.allowed())
    });
}

/// What is said of a caveat without an evaluation is what the evaluation says, in one direction for safety
/// and in the other for speed: patterns alone are left out.
#[test]
fn a_caveat_that_holds_beyond_doubt_passes() {
    let given = (
        any_grant(),
        prop::collection::vec(any_block(), 1..3),
        any_access(),
    );
    law("beyond doubt", 400, given, |(grant, blocks, case)| {
        let chain = Chain::new(&grant, &blocks);
        let now = NOW + case.later;
        let Ok(verified) = verify(chain.last().0.as_str(), now) else {
            return Ok(false);
        };
        let access = access_of(&verified, &case);
        let mut all = true;
        for check in verified.links().iter().flat_map(|link| &link.caveats) {
            let facts = vocabulary::facts(&verified, &access, now).into_iter();
            let start = AuthorizerBuilder::new()
                .set_extern_funcs(vocabulary::externs([]))
                .check(check.check().clone())
                .and_then(|builder| builder.policy("allow if true"))
                .unwrap();
            let builder = facts.fold(start, |builder, fact| builder.fact(fact).unwrap());
            let limits = AuthorizerLimits {
                max_time: Duration::from_secs(60),
                ..AuthorizerLimits::default()
            };
            let passes = builder
                .set_limits(limits)
                .build_unauthenticated()
                .unwrap()
                .authorize()
                .is_ok();
            let satisfied = check.is_satisfied(&access, now);
            let is_pattern = matches!(
                check.caveat(),
                Some(Caveat::Argument {
                    matches: ArgumentMatch::Matches(_),
                    ..
                })
            );
            if check.caveat().is_none() || is_pattern {
                prop_assert!(!satisfied, "{}", check.datalog());
            } else {
                prop_assert_eq!(satisfied, passes, "{} of {:?}", check.datalog(), access);
            }
            all &= satisfied;
        }
        Ok(all)
    });
}

///
#[test]
fn a_limit_is_no_denial_and_no_permission() {
    let grant = GrantCase::generous();
    let chain = Chain::new(&grant, &[]);
    let presented = present(chain.last().0.as_str(), grant.holder, NOW).unwrap();
    let mut access = Access::new(AccessKind::ToolCall, "git", scene::GIT, "tools/call");
    access.tool = Some("git_log".into());
    let verdict = |source: &str| judged(&decide(&policy(source), &presented, access.clone(), NOW));
    // 65 × 65 pairs are more than 4,096 facts; 200 steps are more than 128 iterations.
    let pairs = |n: usize| {
        let facts: String = (0..n).map(|i| format!("d({i}); ")).collect();
        format!("{facts} pair($a, $b) <- d($a), d($b);")
    };
    let steps = |n: usize| {
        let edges: String = (0..n).map(|i| format!("edge({i}, {}); ", i + 1)).collect();
        format!("n(0); {edges} n($y) <- n($x), edge($x, $y);")
    };
    for (source, expected) in [
        ("allow if true;".to_owned(), Verdict::Allowed),
        (format!("{} allow if true;", pairs(20)), Verdict::Allowed),
        (format!("{} allow if true;", pairs(65)), Verdict::Indeterminate),
        (format!("{} deny if true;", pairs(65)), Verdict::Indeterminate),
        (
            format!("{} check if tool(\"x\"); allow if true;", pairs(65)),
            Verdict::Indeterminate,
        ),
        (
            format!("{} deny if pair(1, 2); allow if true;", pairs(20)),
            Verdict::Denied("R-23"),
        ),
        (format!("{} allow if true;", steps(100)), Verdict::Allowed),
        (format!("{} allow if true;", steps(200)), Verdict::Indeterminate),
        (
            format!("{} deny if n(100); allow if true;", steps(100)),
            Verdict::Denied("R-23"),
        ),
    ] {
        let shown = source.get(source.len().saturating_sub(60)..).unwrap();
        assert_eq!(verdict(&source), expected, "{shown}");
    }
}
