//! What a block may have beside facts and checks, and of which version it is (P-07, P-08).

use biscuit_auth::format::schema::op::Content as Op;
use biscuit_auth::format::schema::{self, term::Content};

use crate::book::Book;
use crate::kit;
pub(crate) fn vectors(book: &mut Book) {
    forbidden(book);
    versions(book);
    not_datalog(book);
}

fn forbidden(book: &mut Book) {
    let mut block = |name: &str, description: &str, at: usize, bend: fn(&mut schema::Block)| {
        book.refuse(&format!("block/{name}"), description, "P-07", "accepted", |s| {
            s.hand_to_bob();
            s.payload(at, bend);
        });
    };
    let rule = |block: &mut schema::Block| {
        let other = kit::payload("right(\"git\", \"x\") <- client(\"dev\")");
        block.rules = other.rules;
        // Names that are no default symbols stand in the tables; both begin with the same ones.
        let names = block.symbols.len() as u64;
        block.symbols.extend(other.symbols);
        shift(&mut block.rules, names);
    };
    block("rule-in-block-0", "Block 0 has a rule.", 0, rule);
    block("rule-in-later-block", "Block 1 has a rule.", 1, rule);
    let scope = |block: &mut schema::Block| {
        block.version = Some(6);
        block.scope.push(schema::Scope {
            content: Some(schema::scope::Content::ScopeType(1)),
        });
    };
    block(
        "scope-in-block-0",
        "Block 0 trusts the blocks before it.",
        0,
        scope,
    );
    block(
        "scope-in-later-block",
        "Block 1 trusts the blocks before it.",
        1,
        scope,
    );
    let key = |block: &mut schema::Block| {
        block.public_keys.push(schema::PublicKey {
            algorithm: 0,
            key: hex_one(),
        });
    };
    block("key-in-block-0", "Block 0 lists a public key.", 0, key);
    block("key-in-later-block", "Block 1 lists a public key.", 1, key);
    let context = |block: &mut schema::Block| block.context = Some("hello".into());
    block("context-in-block-0", "Block 0 has a context.", 0, context);
    block("context-in-later-block", "Block 1 has a context.", 1, context);
    block(
        "empty-context",
        "Block 1 has a context of no characters.",
        1,
        |block| {
            block.context = Some(String::new());
        },
    );
}

/// The Ed25519 public key of the RFC 8032 section 7.1 test 1.
fn hex_one() -> Vec<u8> {
    vec![
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ]
}

/// Moves the symbols of rules behind `names` others.
fn shift(rules: &mut [schema::Rule], names: u64) {
    let moved = |index: &mut u64| {
        if *index >= 1024 {
            *index += names;
        }
    };
    for predicate in rules
        .iter_mut()
        .flat_map(|r| std::iter::once(&mut r.head).chain(&mut r.body))
    {
        moved(&mut predicate.name);
        for term in &mut predicate.terms {
            if let Some(Content::String(index)) = &mut term.content {
                moved(index);
            }
        }
    }
}

fn versions(book: &mut Book) {
    for version in [3, 4, 5] {
        book.accept(
            &format!("version/{version}-in-block-0"),
            "Block 0 has a version that suffices for what is in it.",
            |s| s.payload(0, move |block| block.version = Some(version)),
        );
    }
    book.accept("version/6-throughout", "All blocks have version 6.", |s| {
        s.hand_to_bob();
        s.payload(0, |block| block.version = Some(6));
        s.payload(1, |block| block.version = Some(6));
    });
    book.accept(
        "version/kind-stated",
        "A check of version 6 states that it is of the usual kind.",
        |s| {
            s.check("check if tool(\"git_log\")");
            s.payload(1, |block| {
                block.version = Some(6);
                block.checks[1].kind = Some(0);
            });
        },
    );
    book.accept("version/5-with-get", "`.get` needs no version of its own.", |s| {
        s.arguments(r#"{"n":1}"#);
        s.check("check if args($a), $a.get(\"n\") === 1");
        s.payload(1, |block| block.version = Some(5));
    });
    let mut version = |name: &str, description: &str, without: &str, at: usize, version: Option<u32>| {
        book.refuse(&format!("version/{name}"), description, "P-08", without, |s| {
            s.hand_to_bob();
            s.payload(at, move |block| block.version = version);
        });
    };
    version("2-in-block-0", "Block 0 has version 2.", "P-08", 0, Some(2));
    version("7-in-block-0", "Block 0 has version 7.", "P-08", 0, Some(7));
    version("none-in-block-0", "Block 0 has no version.", "P-08", 0, None);
    version("3-later", "Block 1 has version 3.", "accepted", 1, Some(3));
    version("4-later", "Block 1 has version 4.", "accepted", 1, Some(4));
    version("7-later", "Block 1 has version 7.", "P-08", 1, Some(7));
    version("none-later", "Block 1 has no version.", "P-08", 1, None);
    version(
        "largest",
        "Block 1 has version 2^32 − 1.",
        "P-08",
        1,
        Some(u32::MAX),
    );
    let mut low = |name: &str, description: &str, at: usize, version: u32, check: &str| {
        book.refuse(&format!("version/{name}"), description, "P-08", "P-08", |s| {
            s.access.resources = vec![("repo", "acme/web")];
            s.arguments(r#"{"n":1}"#);
            s.narrow();
            let block = if at == 0 {
                &mut s.grant
            } else {
                &mut s.links[0].block
            };
            block.add(check);
            s.payload(at, move |block| block.version = Some(version));
        });
    };
    low(
        "3-with-check-all",
        "`check all` stands in a block of version 3.",
        0,
        3,
        "check all resource(\"repo\", $r), $r.starts_with(\"acme/\")",
    );
    low(
        "3-with-not-equal",
        "`!==` stands in a block of version 3.",
        0,
        3,
        "check if tool($t), $t !== \"git_push\"",
    );
    low(
        "5-with-reject",
        "`reject if` stands in a block of version 5.",
        1,
        5,
        "reject if tool(\"git_push\")",
    );
    low(
        "5-with-lenient-equal",
        "`==` stands in a block of version 5.",
        1,
        5,
        "check if tool($t), $t == \"git_log\"",
    );
    book.refuse(
        "version/3-with-kind",
        "A check states its kind in a block of version 3.",
        "P-08",
        "P-08",
        |s| {
            s.payload(0, |block| {
                block.version = Some(3);
                block.checks[0].kind = Some(0);
            });
        },
    );
}

/// Payloads that are well-formed protobuf and no Datalog.
fn not_datalog(book: &mut Book) {
    book.accept(
        "version/symbol-twice",
        "The table of symbols lists a symbol twice.",
        |s| {
            s.hand_to_bob().add("note(\"hello\")");
            s.payload(1, |block| block.symbols.push("hello".into()));
        },
    );
    let mut block = |name: &str, description: &str, bend: fn(&mut schema::Block)| {
        book.refuse(&format!("version/{name}"), description, "P-08", "P-08", |s| {
            s.check("check if tool($t), {\"git_log\", \"git_show\"}.contains($t)");
            s.payload(1, move |block| {
                block.version = Some(6);
                bend(block);
            });
        });
    };
    block(
        "unknown-kind",
        "A check is of a kind that there is not.",
        |block| {
            block.checks[1].kind = Some(3);
        },
    );
    block("unknown-operator", "An operator that there is not.", |block| {
        let ops = &mut block.checks[1].queries[0].expressions[0].ops;
        let Some(Op::Binary(binary)) = &mut ops[2].content else {
            panic!("an operator stands third")
        };
        binary.kind = 99;
    });
    block("empty-operation", "An operation without content.", |block| {
        block.checks[1].queries[0].expressions[0].ops[2].content = None;
    });
    block("empty-term", "A term without content.", |block| {
        block.checks[1].queries[0].body[0].terms[0].content = None;
    });
    block(
        "unknown-symbol",
        "A fact's name is a symbol that the block does not have.",
        |block| {
            block.checks[1].queries[0].body[0].name = 5000;
        },
    );
    block(
        "symbol-in-the-gap",
        "A name between the default symbols and the block's own.",
        |block| {
            block.checks[1].queries[0].body[0].name = 28;
        },
    );
    block(
        "unknown-variable",
        "A variable is a symbol that the block does not have.",
        |block| {
            block.checks[1].queries[0].body[0].terms[0].content = Some(Content::Variable(5000));
        },
    );
    block("mixed-set", "A set with a text and a number.", |block| {
        set(block).push(schema::Term {
            content: Some(Content::Integer(1)),
        });
    });
    block("set-in-a-set", "A set within a set.", |block| {
        let inner = schema::TermSet { set: Vec::new() };
        *set(block) = vec![schema::Term {
            content: Some(Content::Set(inner)),
        }];
    });
    block(
        "default-symbol-again",
        "The table of symbols lists a default symbol.",
        |block| {
            block.symbols.push("read".into());
        },
    );
}

fn set(block: &mut schema::Block) -> &mut Vec<schema::Term> {
    let ops = &mut block.checks[1].queries[0].expressions[0].ops;
    match &mut ops[0].content {
        Some(Op::Value(schema::Term {
            content: Some(Content::Set(set)),
        })) => &mut set.set,
        _ => panic!("a set stands first"),
    }
}
