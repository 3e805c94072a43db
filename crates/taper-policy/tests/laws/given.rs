//! What is generated: small worlds of a few servers, tools, repositories and arguments, so that a failing case
//! can be read.

use crate::grammar::{Raw, any_raw};
use crate::scene::{GIT, MAIL, NOW};
use biscuit_auth::builder::Check;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::fmt;
use taper_capability::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch, Right};

/// A holder. Alice and Carol have Ed25519 keys, Bob and Dave P-256 keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyName {
    Alice,
    Bob,
    Carol,
    Dave,
}

const NAMES: [KeyName; 4] = [KeyName::Alice, KeyName::Bob, KeyName::Carol, KeyName::Dave];

/// To whom a block gives the capability.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hand {
    /// To the holder that many names after the present one.
    Over(usize),
    /// To its own holder.
    Narrow,
}

impl Hand {
    pub(crate) fn holder(self, from: KeyName) -> KeyName {
        match self {
            Self::Over(steps) => NAMES[(from as usize + steps) % NAMES.len()],
            Self::Narrow => from,
        }
    }
}

/// A check, as a caveat of ours or as Datalog of the admitted grammar.
#[derive(Clone)]
pub(crate) enum Restriction {
    Caveat(Caveat),
    Raw(Raw),
}

impl Restriction {
    pub(crate) fn caveat(&self) -> Option<&Caveat> {
        match self {
            Self::Caveat(caveat) => Some(caveat),
            Self::Raw(_) => None,
        }
    }

    pub(crate) fn to_check(&self) -> Check {
        match self {
            Self::Caveat(caveat) => caveat.to_check().unwrap(),
            Self::Raw(raw) => raw.to_check(),
        }
    }
}

impl fmt::Debug for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_check())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) hand: Hand,
    /// Seconds from `NOW` until it expires.
    pub(crate) ttl: i64,
    pub(crate) max_depth: Option<u32>,
    pub(crate) checks: Vec<Restriction>,
}

#[derive(Clone, Debug)]
pub(crate) struct GrantCase {
    pub(crate) holder: KeyName,
    pub(crate) rights: Vec<Right>,
    pub(crate) audiences: Vec<&'static str>,
    pub(crate) actor: bool,
    pub(crate) ttl: i64,
    pub(crate) max_depth: u32,
    pub(crate) caveats: Vec<Caveat>,
}

fn all_rights() -> Vec<Right> {
    let right = |server: &str, tool: &str| Right::Tool {
        server: server.into(),
        tool: tool.into(),
    };
    vec![
        Right::AnyTool { server: "git".into() },
        right("git", "git_log"),
        right("mail", "send"),
        Right::Resource {
            server: "git".into(),
            uri_prefix: "repo://acme/".into(),
        },
        Right::Prompt {
            server: "git".into(),
            name: "review".into(),
        },
    ]
}

impl GrantCase {
    /// Everything there is, for Alice.
    pub(crate) fn generous() -> Self {
        Self {
            holder: KeyName::Alice,
            rights: all_rights(),
            audiences: vec![GIT, MAIL],
            actor: true,
            ttl: 4_000,
            max_depth: 3,
            caveats: vec![],
        }
    }
}

fn owned(values: Vec<&str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}

/// Some of these, mostly most of them, so that about half of all cases are allowed.
fn most(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let few = 1..=values.len();
    let many = values.len().saturating_sub(1).max(1)..=values.len();
    prop_oneof![
        1 => subsequence(values, few),
        4 => subsequence(values, many),
    ]
    .prop_map(owned)
}

pub(crate) const TOOLS: &[&str] = &["git_log", "git_show", "send"];
pub(crate) const REPOS: &[&str] = &["acme/web", "acme/api", "other/x"];
pub(crate) const PATHS: &[&str] = &["/srv/data/a", "/srv/data", "/srv/database", "/srv/data/../x", "a"];
pub(crate) const URLS: &[&str] = &[
    "https://a.example/x",
    "https://b.a.example",
    "http://a.example:8080/",
    "HTTPS://a.example",
];
pub(crate) const ADDRESSES: &[&str] = &["10.1.2.3", "10.9.9.9", "192.0.2.1", "010.1.2.3", "2001:db8::1"];
pub(crate) const REFS: &[&str] = &["main", "v1.2", "feature-x", "Main"];

pub(crate) fn text(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    // The first of each list fits most caveats.
    prop_oneof![3 => Just(of[0].to_owned()), 2 => select(of).prop_map(str::to_owned)]
}

fn one_argument() -> impl Strategy<Value = (&'static str, ArgumentMatch)> {
    let integer = ArgumentValue::Integer;
    let string = |s: String| ArgumentValue::String(s);
    prop_oneof![
        (0i64..3).prop_map(move |n| ("/n", ArgumentMatch::Equals(integer(n)))),
        Just(("/all", ArgumentMatch::Equals(ArgumentValue::Bool(true)))),
        text(REFS).prop_map(move |r| ("/ref", ArgumentMatch::Equals(string(r)))),
        most(REFS).prop_map(move |r| ("/ref", ArgumentMatch::OneOf(r.into_iter().map(string).collect()))),
        Just(("/n", ArgumentMatch::OneOf((0..4).map(integer).collect()))),
        select(vec!["feature-", "v1."]).prop_map(|p| ("/ref", ArgumentMatch::Prefix(p.into()))),
        (0i64..2, 1i64..4).prop_map(|(min, more)| {
            (
                "/n",
                ArgumentMatch::Range {
                    min: Some(min),
                    max: Some(min + more),
                },
            )
        }),
        (0i64..3).prop_map(|max| (
            "/options/limit",
            ArgumentMatch::Range {
                min: None,
                max: Some(max)
            }
        )),
        select(vec!["/srv/data", "/srv", "/"]).prop_map(|r| ("/path", ArgumentMatch::PathWithin(r.into()))),
        most(&["a.example", "https://*.a.example", "a.example:8080"])
            .prop_map(|h| ("/url", ArgumentMatch::UrlHost(h))),
        most(&["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"])
            .prop_map(|n| ("/ip", ArgumentMatch::Network(n))),
        select(vec!["[a-z]+", "[a-zA-Z]{1,8}", "(main|v[0-9]+(\\.[0-9]+)*)"])
            .prop_map(|p| ("/ref", ArgumentMatch::Matches(p.into()))),
    ]
}

/// Every variant of a caveat.
pub(crate) fn any_caveat() -> impl Strategy<Value = Caveat> {
    let repo = |matches| Caveat::Resource {
        kind: "repo".into(),
        matches,
    };
    prop_oneof![
        2 => most(TOOLS).prop_map(|tools| Caveat::Tool { server: "git".into(), tools }),
        1 => most(&["git", "mail"]).prop_map(|servers| Caveat::Server { servers }),
        1 => most(&["tools/call", "tools/list", "resources/read", "prompts/get"])
            .prop_map(|methods| Caveat::Method { methods }),
        1 => most(&[GIT, MAIL]).prop_map(|audiences| Caveat::Audience { audiences }),
        1 => most(REPOS).prop_map(move |r| repo(ResourceMatch::OneOf(r))),
        1 => Just(repo(ResourceMatch::Prefix("acme/".into()))),
        6 => one_argument().prop_map(|(pointer, matches)| Caveat::Argument { pointer: pointer.into(), matches }),
        1 => most(&["10.0.0.0/8", "2001:db8::/32"]).prop_map(|networks| Caveat::ClientAddress { networks }),
        1 => (-400i64..60).prop_map(|before| Caveat::NotBefore(NOW + before)),
        1 => (select(vec!["00:00", "07:00", "08:30"]), select(vec!["18:00", "24:00", "06:00"]), select(vec!["Z", "+02:00"]))
            .prop_map(|(from, to, offset)| Caveat::Hours {
                from: from.into(),
                to: to.into(),
                offset: offset.into(),
                days: vec![1, 2, 3, 4, 5],
            }),
        1 => (select(vec!["a", "b"]), 1i64..6)
            .prop_map(|(counter, calls)| Caveat::MaxCalls { counter: counter.into(), calls }),
    ]
}

pub(crate) fn any_restriction() -> impl Strategy<Value = Restriction> {
    prop_oneof![
        3 => any_caveat().prop_map(Restriction::Caveat),
        2 => any_raw().prop_map(Restriction::Raw),
    ]
}

pub(crate) fn any_block() -> impl Strategy<Value = Block> {
    let hand = prop_oneof![(1usize..4).prop_map(Hand::Over), Just(Hand::Narrow)];
    // Expiries lie on both sides of the times of the accesses.
    let ttl = prop_oneof![1 => -1i64..5, 8 => 5i64..400];
    let depth = prop_oneof![4 => Just(None), 1 => (0u32..5).prop_map(Some)];
    let checks = prop_oneof![
        5 => prop::collection::vec(any_restriction(), 0..2),
        1 => prop::collection::vec(any_restriction(), 2..4),
    ];
    (hand, ttl, depth, checks).prop_map(|(hand, ttl, max_depth, checks)| Block {
        hand,
        ttl,
        max_depth,
        checks,
    })
}

pub(crate) fn any_grant() -> impl Strategy<Value = GrantCase> {
    let all = all_rights();
    let rights = prop_oneof![1 => subsequence(all.clone(), 1..=5), 3 => Just(all)];
    let audiences = prop_oneof![1 => Just(vec![MAIL]), 6 => Just(vec![GIT, MAIL])];
    let caveats = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any_caveat(), 1..2)];
    (
        select(&NAMES[..]),
        rights,
        audiences,
        any::<bool>(),
        300i64..4_000,
        1u32..5,
        caveats,
    )
        .prop_map(
            |(holder, rights, audiences, actor, ttl, max_depth, caveats)| GrantCase {
                holder,
                rights,
                audiences,
                actor,
                ttl,
                max_depth,
                caveats,
            },
        )
}
