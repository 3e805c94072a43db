//! Capabilities that are somebody else's, from elsewhere, over, not yet begun, revoked or reshaped.

use rand_core::OsRng;
use taper_capability::{Caveat, Delegation, Grant, Narrowing, Right, RootKey, Token, forgery, issue};
use taper_dpop::PrivateKey;
use taper_tests::call::{Call, now};

use crate::row::{Row, row};
use crate::world::{Era, HONEST, Key, NARROW_MINT, World, new_key};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = grants();
    rows.extend(chains());
    rows.extend(revoked());
    rows.extend(texts());
    rows
}

/// The call with another token, proven by this key.
fn presented(call: Call, token: &str, key: &PrivateKey) -> Call {
    Call {
        token: Some(token.to_owned()),
        key: Some(key.to_jwk_string().to_string()),
        ..call
    }
    .instead("authorization", format!("DPoP {token}"))
    // A session is of its holder; what is told here comes before that.
    .without("mcp-session-id")
}

/// The call with a grant that differs in what `change` changes.
fn granted(
    change: impl Fn(&World<'_>, &mut Grant),
    root: impl for<'a> Fn(&'a World<'_>) -> &'a RootKey,
) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |world, _, call| {
        let mut grant = world.base.grant(&world.alice.public());
        change(world, &mut grant);
        let token = issue(&grant, root(world), &mut OsRng).unwrap();
        presented(call, token.as_str(), &world.alice.key)
    }
}

fn mint<'a>(world: &'a World<'_>) -> &'a RootKey {
    &world.base.root
}

/// The honest call with a grant of its own, so that the wrong one differs in one fact.
fn freshly_granted(world: &World<'_>, era: Era) -> Call {
    granted(|_, _| {}, mint)(world, era, world.honest(era))
}

fn grants() -> Vec<Row> {
    let grant = |threat, name: &'static str, change: fn(&World<'_>, &mut Grant)| {
        row(threat, name, granted(change, mint)).twin(freshly_granted)
    };
    vec![
        grant("T-66", "of an issuer that nobody configured", |_, g| {
            g.issuer = "https://evil.example".into()
        })
        .unauthorized("M-11"),
        grant("T-66", "of the issuer with a slash more", |_, g| {
            g.issuer.push('/')
        })
        .unauthorized("M-11"),
        grant("T-66", "of the issuer in capitals", |_, g| {
            g.issuer = g.issuer.to_uppercase()
        })
        .unauthorized("M-11"),
        grant("T-83", "in the name of another configured issuer", |_, g| {
            g.issuer = NARROW_MINT.into()
        })
        .unauthorized("P-09"),
        row(
            "T-18",
            "signed by another root key of the same number",
            granted(|_, _| {}, |w| &w.base.stranger_root),
        )
        .twin(freshly_granted)
        .unauthorized("P-04"),
        row(
            "T-71",
            "by an issuer of other servers",
            granted(|_, g| g.issuer = NARROW_MINT.into(), |w| &w.base.narrow_root),
        )
        .twin(freshly_granted)
        .unauthorized("P-13"),
        row(
            "T-18",
            "with a root key's number that is not there",
            |world, _, call| {
                let root = RootKey::from_seed(99, &world.base.root.seed()).unwrap();
                let grant = world.base.grant(&world.alice.public());
                let token = issue(&grant, &root, &mut OsRng).unwrap();
                presented(call, token.as_str(), &world.alice.key)
            },
        )
        .twin(freshly_granted)
        .unauthorized("P-03"),
        grant("T-64", "for another server's audience", |w, g| {
            g.audiences = vec![w.base.url("notes")]
        })
        .unauthorized("R-20"),
        grant("T-64", "for the audience with a slash more", |w, g| {
            g.audiences = vec![format!("{}/", w.base.url("git"))]
        })
        .unauthorized("R-20"),
        grant("T-64", "for the proxy as a whole", |w, g| {
            g.audiences = vec![w.base.url("git").replace("/git/mcp", "")];
        })
        .unauthorized("R-20"),
        grant("T-64", "for the audience in another case", |w, g| {
            g.audiences = vec![w.base.url("git").replace("/git/", "/Git/")];
        })
        .unauthorized("R-20"),
        grant("T-16", "that has expired", |_, g| {
            (g.issued_at, g.expires_at) = (now() - 100, now() - 1)
        })
        .unauthorized("P-15"),
        grant("T-24", "that is not valid yet", |_, g| {
            g.caveats = vec![Caveat::NotBefore(now() + 600)]
        })
        .denied("R-22"),
        grant("T-44", "for other tools", |_, g| {
            g.rights = vec![Right::Tool {
                server: "git".into(),
                tool: "git_show".into(),
            }];
        })
        .is(403, None, "R-21"),
        grant("T-44", "for another server's tool of that name", |_, g| {
            g.rights = vec![Right::Tool {
                server: "notes".into(),
                tool: "git_log".into(),
            }];
        })
        .is(403, None, "R-21"),
        grant("T-44", "for every tool of another server", |_, g| {
            g.rights = vec![Right::AnyTool {
                server: "notes".into(),
            }];
        })
        .is(403, None, "R-21"),
        grant("T-44", "for a tool that begins so", |_, g| {
            g.rights = vec![Right::Tool {
                server: "git".into(),
                tool: "git_lo".into(),
            }];
        })
        .is(403, None, "R-21"),
        grant("T-44", "for the tool in another case", |_, g| {
            g.rights = vec![Right::Tool {
                server: "git".into(),
                tool: "Git_log".into(),
            }];
        })
        .is(403, None, "R-21"),
        grant("T-44", "for the tool as a prompt", |_, g| {
            g.rights = vec![Right::Prompt {
                server: "git".into(),
                name: "git_log".into(),
            }];
        })
        .is(403, None, "R-21"),
    ]
}

/// The child of alice's capability with the key that it is for.
fn child(world: &World<'_>, until: i64) -> (Token, Key) {
    let key = new_key();
    let token = Delegation::to(key.public())
        .until(until)
        .sign(&world.alice.token, &world.alice.key, &mut OsRng)
        .unwrap();
    (token, key)
}

fn as_child(world: &World<'_>, era: Era) -> Call {
    let (token, key) = child(world, now() + 900);
    presented(world.honest(era), token.as_str(), &key)
}

/// A chain and the key that presents it, each time a new one.
fn chain(make: impl Fn(&World<'_>) -> (Token, Key)) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |world, _, call| {
        let (token, key) = make(world);
        presented(call, token.as_str(), &key)
    }
}

fn narrowed(caveat: Caveat) -> impl Fn(&World<'_>, Era, Call) -> Call {
    chain(move |w| {
        let token = Narrowing::new()
            .only(caveat.clone())
            .sign(&w.alice.token, &w.alice.key, &mut OsRng)
            .unwrap();
        (token, w.alice.key.clone())
    })
}

fn chains() -> Vec<Row> {
    let of_child = |threat, name: &'static str, make: fn(&World<'_>) -> (Token, Key)| {
        row(threat, name, chain(make)).twin(as_child)
    };
    vec![
        of_child("T-30", "the parent's capability with the child's key", |w| {
            (w.alice.token.clone(), child(w, now() + 900).1)
        })
        .unauthorized("R-14"),
        of_child("T-29", "the child's capability with the parent's key", |w| {
            (child(w, now() + 900).0, w.alice.key.clone())
        })
        .unauthorized("R-14"),
        of_child("T-29", "the child's capability with its sibling's key", |w| {
            (w.bob.token.clone(), w.carol.key.clone())
        })
        .unauthorized("R-14"),
        of_child("T-01", "the child's capability with a stranger's key", |w| {
            (w.bob.token.clone(), new_key())
        })
        .unauthorized("R-14"),
        of_child("T-16", "a child that has expired", |w| child(w, now() - 1)).unauthorized("P-15"),
        of_child("T-02", "a plain block behind it", |w| {
            let token = forgery::plain_block(now() + 900, &w.alice.token, &mut OsRng).unwrap();
            (token, w.alice.key.clone())
        })
        .unauthorized("D-01"),
        of_child("T-02", "a plain block behind the child's", |w| {
            let (token, key) = child(w, now() + 900);
            (
                forgery::plain_block(now() + 900, &token, &mut OsRng).unwrap(),
                key,
            )
        })
        .unauthorized("D-01"),
        of_child("T-02", "a hand-over that a stranger signed", |w| {
            let (stranger, key) = (new_key(), new_key());
            let token =
                forgery::hand_over_by(&stranger, &key.public(), now() + 900, &w.alice.token, &mut OsRng);
            (token.unwrap(), key)
        })
        .unauthorized("D-02"),
        of_child("T-02", "a hand-over that the child signed for itself", |w| {
            let key = new_key();
            let token = forgery::hand_over_by(&key, &key.public(), now() + 900, &w.alice.token, &mut OsRng);
            (token.unwrap(), key)
        })
        .unauthorized("D-02"),
        of_child(
            "T-02",
            "a hand-over of the child's that its sibling signed",
            |w| {
                let key = new_key();
                let token =
                    forgery::hand_over_by(&w.carol.key, &key.public(), now() + 900, &w.bob.token, &mut OsRng);
                (token.unwrap(), key)
            },
        )
        .unauthorized("D-02"),
        of_child("T-17", "handed on once more than allowed", |w| {
            let mut grant = w.base.grant(&w.alice.public());
            grant.max_depth = 0;
            let key = new_key();
            let token = w.base.issue(&grant);
            let token = forgery::hand_over_by(&w.alice.key, &key.public(), now() + 900, &token, &mut OsRng);
            (token.unwrap(), key)
        })
        .unauthorized("D-05"),
        of_child(
            "T-19",
            "the child's last block stripped, with the child's key",
            |w| {
                let (token, key) = child(w, now() + 900);
                (stripped(&token), key)
            },
        )
        .unauthorized("R-14"),
        of_child(
            "T-19",
            "the child's last block stripped, with the parent's key",
            |w| {
                let (token, _) = child(w, now() + 900);
                (stripped(&token), w.alice.key.clone())
            },
        )
        .unauthorized("P-04"),
        of_child("T-19", "the last block of a sealed chain stripped", |w| {
            let (token, _) = child(w, now() + 900);
            (stripped(&token.sealed().unwrap()), w.alice.key.clone())
        })
        .unauthorized("P-04"),
        row(
            "T-30",
            "the child asks for a tool of its parent",
            |world, era, _| {
                world.ask(
                    &world.bob,
                    era,
                    "git",
                    "tools/call",
                    r#""name":"git_show","arguments":{"repo_path":"acme/web"}"#,
                )
            },
        )
        .twin(|world, era| world.ask(&world.bob, era, "git", "tools/call", HONEST))
        .denied("R-22"),
        row(
            "T-30",
            "the child asks for a resource of its parent",
            |world, era, _| {
                world.ask(
                    &world.bob,
                    era,
                    "git",
                    "tools/call",
                    r#""name":"git_log","arguments":{"repo_path":"other/web"}"#,
                )
            },
        )
        .twin(|world, era| world.ask(&world.bob, era, "git", "tools/call", HONEST))
        .denied("R-22"),
        row(
            "T-14",
            "narrowed to another tool",
            narrowed(Caveat::Tool {
                server: "git".into(),
                tools: vec!["git_show".into()],
            }),
        )
        .twin(freshly_granted)
        .denied("R-22"),
        row(
            "T-14",
            "narrowed to another server's tool of that name",
            narrowed(Caveat::Tool {
                server: "notes".into(),
                tools: vec!["git_log".into()],
            }),
        )
        .twin(freshly_granted)
        .denied("R-22"),
        row(
            "T-14",
            "narrowed to another server",
            narrowed(Caveat::Server {
                servers: vec!["notes".into()],
            }),
        )
        .twin(freshly_granted)
        .denied("R-22"),
        row(
            "T-14",
            "narrowed to another method",
            narrowed(Caveat::Method {
                methods: vec!["tools/list".into()],
            }),
        )
        .twin(freshly_granted)
        .denied("R-22"),
        row(
            "T-14",
            "narrowed to another network",
            narrowed(Caveat::ClientAddress {
                networks: vec!["10.0.0.0/8".into()],
            }),
        )
        .twin(freshly_granted)
        .denied("R-22"),
        row("T-33", "a call more than may be", |world, era, _| {
            let token = Narrowing::new()
                .only(Caveat::MaxCalls {
                    counter: Grant::new_id(&mut OsRng),
                    calls: 1,
                })
                .sign(&world.alice.token, &world.alice.key, &mut OsRng)
                .unwrap();
            let call = || presented(world.honest(era), token.as_str(), &world.alice.key);
            // The one call that may be.
            assert_eq!(world.send(&call().bytes()).status, 200);
            call()
        })
        .twin(freshly_granted)
        .denied("R-22"),
    ]
}

/// The token without its last block, its proof as it was.
fn stripped(token: &Token) -> Token {
    use prost::Message as _;
    let bytes = taper_dpop::base64url_decode(token.as_str()).unwrap();
    let mut biscuit = biscuit_auth::format::schema::Biscuit::decode(&bytes[..]).unwrap();
    biscuit.blocks.pop().unwrap();
    Token::parse(&taper_dpop::base64url_encode(&biscuit.encode_to_vec())).unwrap()
}

fn revoked() -> Vec<Row> {
    let t = "T-32";
    let of_up = |world: &World<'_>, era: Era, name: &str| {
        let (_, token, key) = world.base.of_up.iter().find(|(one, ..)| *one == name).unwrap();
        presented(world.honest(era), token.as_str(), key)
    };
    let gone = |name: &'static str, which: &'static str, twin: &'static str| {
        row(t, name, move |world, era, _| of_up(world, era, which))
            .twin(move |world, era| of_up(world, era, twin))
            .unauthorized("M-12")
    };
    vec![
        gone("of a grant that was revoked", "gone", "live"),
        gone("of a branch that was revoked", "branch", "spared"),
        gone("of a hand-over that was taken back", "hand-over", "spared"),
        gone("of a key that was revoked", "key", "spared"),
        row(t, "below a key that was revoked", move |world, era, _| {
            let (_, token, key) = world.base.of_up.iter().find(|(one, ..)| *one == "key").unwrap();
            let child = new_key();
            let token = Delegation::to(child.public())
                .until(now() + 600)
                .sign(token, key, &mut OsRng)
                .unwrap();
            presented(world.honest(era), token.as_str(), &child)
        })
        .twin(move |world, era| of_up(world, era, "spared"))
        .unauthorized("M-12"),
        row(
            t,
            "of a branch that was revoked, narrowed",
            move |world, era, _| {
                let (_, token, key) = world
                    .base
                    .of_up
                    .iter()
                    .find(|(one, ..)| *one == "branch")
                    .unwrap();
                let token = Narrowing::new().sign(token, key, &mut OsRng).unwrap();
                presented(world.honest(era), token.as_str(), key)
            },
        )
        .twin(move |world, era| of_up(world, era, "spared"))
        .unauthorized("M-12"),
    ]
}

/// Other spellings of a token.
fn texts() -> Vec<Row> {
    let text = |name: &'static str, rule: &'static str, change: fn(&World<'_>, String) -> String| {
        row("T-22", name, move |world, _, call| {
            let token = change(world, call.token.clone().unwrap());
            let call = call.instead("authorization", format!("DPoP {token}"));
            Call {
                token: Some(token),
                ..call
            }
        })
        .unauthorized(rule)
    };
    vec![
        text("one letter", "P-01", |_, _| "x".into()),
        text("padded", "P-01", |_, token| format!("{token}=")),
        text("in the other alphabet", "P-01", |_, token| {
            format!("{}+/", &token[..token.len() - 2])
        }),
        text("half of it", "P-02", |_, token| {
            let half = token.len() / 8 * 4;
            token[..half].to_owned()
        }),
        text("twice", "P-02", |_, token| token.repeat(2)),
        text("two, with a comma", "P-01", |_, token| format!("{token},{token}")),
        text("12,000 letters", "P-02", |_, _| "A".repeat(12_000)),
        text("an access token", "P-01", |world, _| {
            std::fs::read_to_string(world.base.up.dir().join("access-token"))
                .unwrap()
                .trim()
                .to_owned()
        }),
    ]
}
