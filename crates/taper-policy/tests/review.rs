//! What a review of a caveat claims holds for every access that is decided: a caveat that changes
//! nothing refuses nothing, and after one that allows nothing everything is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use rand_core::OsRng;
use serde_json::{Value, json};
use taper_capability::{
    Access, AccessKind, Caveat, Effective, Grant, Narrowing, Party, Review, Right, RootKey, Roots, Token,
    UnverifiedToken, VerifiedPresentation, Verifier, issue,
};
use taper_dpop::{Algorithm, Expectation, NonceRule, PrivateKey, Proof, ProofClaims};
use taper_policy::PolicyFile;
use taper_policy::boundary::{BoundaryPolicy, Decision, decide};

/// A Saturday, 00:00 UTC.
const NOW: i64 = 1_795_219_200;
const AUDIENCES: [&str; 2] = ["https://a.example/mcp", "https://b.example/mcp"];

/// The caveats of which chains are made, few enough that they often meet.
fn caveats() -> Vec<Caveat> {
    let argument = |matches: Value| json!({"argument": {"pointer": "/n", "matches": matches}});
    let repo = |matches: Value| json!({"resource": {"kind": "repo", "matches": matches}});
    let hours = |from: &str, to: &str, days: &[u8]| json!({"hours": {"from": from, "to": to, "offset": "+01:00", "days": days}});
    let calls = |counter: &str, calls: i64| json!({"max_calls": {"counter": counter, "calls": calls}});
    let all = [
        json!({"tool": {"server": "git", "tools": ["log"]}}),
        json!({"tool": {"server": "git", "tools": ["log", "show"]}}),
        json!({"tool": {"server": "hub", "tools": ["log"]}}),
        json!({"server": {"servers": ["git"]}}),
        json!({"server": {"servers": ["git", "hub"]}}),
        json!({"method": {"methods": ["tools/call"]}}),
        json!({"method": {"methods": ["tools/call", "prompts/get"]}}),
        json!({"audience": {"audiences": [AUDIENCES[0]]}}),
        json!({"audience": {"audiences": [AUDIENCES[1], "https://c.example/mcp"]}}),
        repo(json!({"one_of": ["acme/web"]})),
        repo(json!({"one_of": ["acme/web", "other/x"]})),
        repo(json!({"prefix": "acme/"})),
        repo(json!({"prefix": "acme/web/"})),
        argument(json!({"equals": 5})),
        argument(json!({"equals": "x/a"})),
        argument(json!({"one_of": [1, 5]})),
        argument(json!({"one_of": ["x/a", "10.1.2.3", "/srv/data/x"]})),
        argument(json!({"range": {"min": 1, "max": 5}})),
        argument(json!({"range": {"min": 5}})),
        argument(json!({"range": {"max": 4}})),
        argument(json!({"prefix": "x/"})),
        argument(json!({"prefix": "/"})),
        argument(json!({"path_within": "/srv"})),
        argument(json!({"path_within": "/srv/data"})),
        argument(json!({"path_within": "x"})),
        argument(json!({"network": ["10.0.0.0/8"]})),
        argument(json!({"network": ["10.1.0.0/16", "192.0.2.0/24"]})),
        argument(json!({"url_host": ["a.example"]})),
        argument(json!({"url_host": ["https://a.example", "*.example"]})),
        argument(json!({"url_host": ["b.test"]})),
        argument(json!({"matches": "x/[a-c]"})),
        json!({"client_address": {"networks": ["10.0.0.0/8"]}}),
        json!({"client_address": {"networks": ["10.1.0.0/16", "192.0.2.0/24"]}}),
        json!({"client_address": {"networks": ["fd00::/8"]}}),
        json!({"not_before": NOW + 60}),
        json!({"not_before": NOW + 7_200}),
        json!({"not_before": NOW + 86_400}),
        hours("09:00", "17:00", &[5, 6, 7]),
        hours("10:00", "12:00", &[6]),
        hours("17:00", "09:00", &[6]),
        calls("a", 3),
        calls("a", 5),
        calls("b", 5),
    ];
    all.into_iter()
        .map(|json| serde_json::from_value(json).unwrap())
        .collect()
}

fn rights() -> Vec<Right> {
    let tool = |tool: &str| Right::Tool {
        server: "git".into(),
        tool: tool.into(),
    };
    vec![
        tool("log"),
        tool("show"),
        Right::AnyTool { server: "hub".into() },
        Right::Resource {
            server: "git".into(),
            uri_prefix: "file:///srv/".into(),
        },
        Right::Prompt {
            server: "git".into(),
            name: "review".into(),
        },
    ]
}

/// An access, its time, and how much smaller each counter is than the one before it.
#[derive(Clone, Debug)]
struct Asked {
    access: Access,
    at: i64,
    counts: Vec<i64>,
}

impl Asked {
    /// The access under a chain with these counters: what a later caveat counts, an earlier one
    /// counts too.
    fn under(&self, names: &[String]) -> Access {
        let mut access = self.access.clone();
        let mut n = 8;
        for (name, less) in names.iter().zip(&self.counts) {
            n = (n - less).max(1);
            access.calls.push((name.clone(), n));
        }
        access
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let arguments = [
        "{}",
        r#"{"n":1}"#,
        r#"{"n":5}"#,
        r#"{"n":5.0}"#,
        r#"{"n":null}"#,
        r#"{"n":"5"}"#,
        r#"{"n":"x/a"}"#,
        r#"{"n":"x/d"}"#,
        r#"{"n":"/srv/data/x"}"#,
        r#"{"n":"/srv/data/../x"}"#,
        r#"{"n":"/etc"}"#,
        r#"{"n":"10.1.2.3"}"#,
        r#"{"n":"10.2.2.3"}"#,
        r#"{"n":"https://a.example/x"}"#,
        r#"{"n":"http://b.example/x"}"#,
    ];
    let kinds = [
        AccessKind::ToolCall,
        AccessKind::ToolCall,
        AccessKind::ToolCall,
        AccessKind::ResourceRead,
        AccessKind::PromptGet,
        AccessKind::Completion,
    ];
    (
        (
            select(kinds.to_vec()),
            select(&["git", "git", "hub"][..]),
            select(&["log", "show"][..]),
        ),
        (
            select(&AUDIENCES[..]),
            select(&["tools/call", "prompts/get", "x"][..]),
        ),
        select(arguments.to_vec()),
        subsequence(vec!["acme/web", "acme/web/x", "other/x"], 0..=2),
        select(vec![
            None,
            Some("10.1.2.3"),
            Some("10.2.2.3"),
            Some("192.0.2.7"),
            Some("fd00::1"),
        ]),
        prop_oneof![Just(0), 0..86_400_i64],
        prop::collection::vec(0..5_i64, 8),
    )
        .prop_map(
            |((kind, server, tool), (audience, method), arguments, repos, ip, after, counts)| {
                let mut access = Access::new(kind, server, audience, method);
                match kind {
                    AccessKind::ToolCall => {
                        let limits = taper_capability::json::JsonLimits::default();
                        access.tool = Some(tool.into());
                        access.arguments =
                            Some(taper_capability::json::parse(arguments.as_bytes(), &limits).unwrap());
                        access.resources = repos.iter().map(|repo| ("repo".into(), (*repo).into())).collect();
                    }
                    AccessKind::ResourceRead => access.uri = Some("file:///srv/x".into()),
                    _ => access.prompt = Some("review".into()),
                }
                access.client_ip = ip.map(|ip: &str| ip.parse::<IpAddr>().unwrap());
                Asked {
                    access,
                    at: NOW + after,
                    counts,
                }
            },
        )
}

/// Keys once for all chains.
struct World {
    root: RootKey,
    holder: PrivateKey,
    policy: BoundaryPolicy,
}

impl World {
    fn new() -> Self {
        let file = PolicyFile {
            name: "allow.dl".into(),
            source: "allow if true;".into(),
        };
        Self {
            root: RootKey::generate(1, &mut OsRng),
            holder: PrivateKey::generate(Algorithm::EdDsa, &mut OsRng),
            policy: BoundaryPolicy::load(&[file]).unwrap(),
        }
    }

    fn grant(&self, rights: Vec<Right>, caveats: Vec<Caveat>) -> Token {
        let grant = Grant {
            issuer: "https://issuer.example".into(),
            id: Grant::new_id(&mut OsRng),
            subject: Party {
                iss: "https://idp.example".into(),
                sub: "alice".into(),
            },
            client: "dev".into(),
            actor: None,
            holder: self.holder.public(),
            audiences: AUDIENCES.map(str::to_owned).to_vec(),
            rights,
            claims: vec![],
            issued_at: NOW,
            expires_at: NOW + 86_400,
            max_depth: 3,
            caveats,
        };
        issue(&grant, &self.root, &mut OsRng).unwrap()
    }

    fn present(&self, token: &Token) -> VerifiedPresentation {
        let roots = Roots::new()
            .trust("https://issuer.example", 1, self.root.public(), None)
            .unwrap();
        let chain = Verifier::new(roots)
            .verify(UnverifiedToken::decode(token.as_str()).unwrap(), NOW)
            .unwrap();
        let header = ProofClaims::new("POST", AUDIENCES[0], NOW, &mut OsRng)
            .token(token.as_str())
            .sign(&self.holder)
            .unwrap();
        let expected = Expectation {
            method: "POST",
            url: AUDIENCES[0],
            token: Some(token.hash()),
            nonce: NonceRule::Unused,
            now: NOW,
        };
        let proof = Proof::parse(&header)
            .unwrap()
            .check(&expected)
            .unwrap()
            .verify()
            .unwrap();
        VerifiedPresentation::new(Arc::new(chain), proof).unwrap()
    }

    fn allows(&self, presentation: &VerifiedPresentation, asked: &Asked) -> bool {
        let counters = presentation.chain().counters();
        let names: Vec<_> = counters.into_iter().map(|counter| counter.name).collect();
        match decide(&self.policy, presentation, asked.under(&names), asked.at) {
            Decision::Allow(_) => true,
            Decision::Deny(_) => false,
            Decision::Indeterminate(why) => panic!("{why:?}"),
        }
    }
}

#[test]
fn a_review_claims_only_what_every_decision_bears_out() {
    let world = World::new();
    let (pool, all_rights) = (caveats(), rights());
    let everything = all_rights.len();
    let (nothing_changed, nothing_allowed) = (Cell::new(0), Cell::new(0));
    let (narrowed, allowed) = (Cell::new(0), Cell::new(0));
    let strategy = (
        prop_oneof![Just(all_rights.clone()), subsequence(all_rights, 1..=everything)],
        prop::collection::vec(select(pool.clone()), 0..4),
        any::<Index>(),
        prop::collection::vec(asked(), 40),
    );
    let config = Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&strategy, |(rights, before, new, accesses)| {
            let new = new.get(&pool);
            let parent = world.grant(rights, before);
            let child = Narrowing::new()
                .only(new.clone())
                .sign(&parent, &world.holder, &mut OsRng)
                .unwrap();
            let (parent, child) = (world.present(&parent), world.present(&child));
            let effective = Effective::of_verified(parent.chain());
            let review = effective.review(new);
            for asked in &accesses {
                let (was, is) = (world.allows(&parent, asked), world.allows(&child, asked));
                prop_assert!(was || !is, "a caveat widened: {new} {asked:?}");
                prop_assert!(effective.nothing.is_none() || !was, "{effective} {asked:?}");
                match &review {
                    Review::ChangesNothing(why) => {
                        prop_assert_eq!(was, is, "`{}` on\n{}\n{}: {:?}", new, effective, why, asked);
                    }
                    Review::AllowsNothing(why) => {
                        prop_assert!(!is, "`{}` on\n{}\n{}: {:?}", new, effective, why, asked);
                    }
                    Review::Narrows => narrowed.set(narrowed.get() + u32::from(was && !is)),
                }
                allowed.set(allowed.get() + u32::from(was));
            }
            match review {
                Review::ChangesNothing(_) => nothing_changed.set(nothing_changed.get() + 1),
                Review::AllowsNothing(_) => nothing_allowed.set(nothing_allowed.get() + 1),
                Review::Narrows => {}
            }
            Ok(())
        })
        .unwrap();
    // The claims were met often enough to be tested.
    assert!(nothing_changed.get() > 20, "{nothing_changed:?}");
    assert!(nothing_allowed.get() > 20, "{nothing_allowed:?}");
    assert!(
        narrowed.get() > 20 && allowed.get() > 200,
        "{narrowed:?} {allowed:?}"
    );
}
