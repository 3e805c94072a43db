//! Reading a caveat back from the check it compiled to.

use crate::caveat::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch};
use crate::functions::Function;
use biscuit_auth::builder::{Binary, Check, CheckKind, Expression, Op, Predicate, Rule, Term};

impl Caveat {
    /// The caveat that compiles to exactly this check, if there is one.
    #[must_use]
    pub fn from_check(check: &Check) -> Option<Self> {
        let caveat = guess(check)?;
        // What was recognised must say all that the check says: compile it and compare.
        same(&caveat.to_check().ok()?, check).then_some(caveat)
    }
}

fn guess(check: &Check) -> Option<Caveat> {
    let [
        Rule {
            body, expressions, ..
        },
    ] = check.queries.as_slice()
    else {
        return None;
    };
    let first = expressions.first()?.ops.as_slice();
    match body.as_slice() {
        [server, tool] if is(server, "server") && is(tool, "tool") => match server.terms.as_slice() {
            [Term::Str(server)] => Some(Caveat::Tool {
                server: server.clone(),
                tools: members(first)?,
            }),
            _ => None,
        },
        [word] => match word.name.as_str() {
            "server" => Some(Caveat::Server {
                servers: members(first)?,
            }),
            "method" => Some(Caveat::Method {
                methods: members(first)?,
            }),
            "audience" => Some(Caveat::Audience {
                audiences: members(first)?,
            }),
            "resource" => resource(word, first),
            "args" => argument(expressions),
            "client_ip" => match first {
                [_, Op::Value(Term::Set(networks)), Op::Binary(Binary::Ffi(_))] => {
                    Some(Caveat::ClientAddress {
                        networks: strings(networks)?,
                    })
                }
                _ => None,
            },
            "time" => match first {
                [_, Op::Value(Term::Date(at)), _] => Some(Caveat::NotBefore(i64::try_from(*at).ok()?)),
                [_, Op::Value(Term::Str(hours)), Op::Binary(Binary::Ffi(_))] => self::hours(hours),
                _ => None,
            },
            "calls" => match (word.terms.as_slice(), first) {
                ([Term::Str(counter), _], [_, Op::Value(Term::Integer(calls)), _]) => {
                    Some(Caveat::MaxCalls {
                        counter: counter.clone(),
                        calls: *calls,
                    })
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The strings of `{…}.contains(…)`.
fn members(ops: &[Op]) -> Option<Vec<String>> {
    match ops {
        [Op::Value(Term::Set(set)), .., Op::Binary(Binary::Contains)] => strings(set),
        _ => None,
    }
}

fn resource(word: &Predicate, ops: &[Op]) -> Option<Caveat> {
    let [Term::Str(kind), _] = word.terms.as_slice() else {
        return None;
    };
    let matches = match ops {
        [_, Op::Value(Term::Str(prefix)), Op::Binary(Binary::Prefix)] => {
            ResourceMatch::Prefix(prefix.clone())
        }
        ops => ResourceMatch::OneOf(members(ops)?),
    };
    Some(Caveat::Resource {
        kind: kind.clone(),
        matches,
    })
}

fn argument(expressions: &[Expression]) -> Option<Caveat> {
    let of = |path: &[Op], matches| {
        Some(Caveat::Argument {
            pointer: pointer(path)?,
            matches,
        })
    };
    if let Some(found) = range(expressions) {
        let (path, min, max) = found;
        return of(path, ArgumentMatch::Range { min, max });
    }
    let [Expression { ops }] = expressions else {
        return None;
    };
    match ops.as_slice() {
        [
            Op::Value(Term::Set(values)),
            path @ ..,
            Op::Binary(Binary::Contains),
        ] => of(
            path,
            ArgumentMatch::OneOf(values.iter().map(argument_value).collect::<Option<_>>()?),
        ),
        [path @ .., Op::Value(literal), Op::Binary(op)] => of(
            path,
            match (op, literal) {
                (Binary::Prefix, Term::Str(prefix)) => ArgumentMatch::Prefix(prefix.clone()),
                (Binary::Equal, wanted) => ArgumentMatch::Equals(argument_value(wanted)?),
                (Binary::Ffi(name), literal) => match (Function::parse(name)?, literal) {
                    (Function::PathWithin, Term::Str(root)) => ArgumentMatch::PathWithin(root.clone()),
                    (Function::FullMatch, Term::Str(pattern)) => ArgumentMatch::Matches(pattern.clone()),
                    (Function::UrlHost, Term::Set(hosts)) => ArgumentMatch::UrlHost(strings(hosts)?),
                    (Function::InNetwork, Term::Set(networks)) => ArgumentMatch::Network(strings(networks)?),
                    _ => return None,
                },
                _ => return None,
            },
        ),
        _ => None,
    }
}

/// The path and the bounds of `… >= min, … <= max`, or of one of the two.
fn range(expressions: &[Expression]) -> Option<(&[Op], Option<i64>, Option<i64>)> {
    let (mut path, mut min, mut max) = (None, None, None);
    for Expression { ops } in expressions {
        let [of @ .., Op::Value(Term::Integer(bound)), Op::Binary(op)] = ops.as_slice() else {
            return None;
        };
        match op {
            Binary::GreaterOrEqual => min = Some(*bound),
            Binary::LessOrEqual => max = Some(*bound),
            _ => return None,
        }
        path = Some(of);
    }
    Some((path?, min, max))
}

fn hours(text: &str) -> Option<Caveat> {
    let mut parts = text.split('/').map(str::to_owned);
    Some(Caveat::Hours {
        from: parts.next()?,
        to: parts.next()?,
        offset: parts.next()?,
        days: parts
            .next()?
            .bytes()
            .map(|digit| digit.wrapping_sub(b'0'))
            .collect(),
    })
}

fn is(predicate: &Predicate, name: &str) -> bool {
    predicate.name == name
}

fn strings(set: &std::collections::BTreeSet<Term>) -> Option<Vec<String>> {
    set.iter()
        .map(|term| {
            if let Term::Str(s) = term {
                Some(s.clone())
            } else {
                None
            }
        })
        .collect()
}

fn argument_value(term: &Term) -> Option<ArgumentValue> {
    match term {
        Term::Bool(b) => Some(ArgumentValue::Bool(*b)),
        Term::Integer(i) => Some(ArgumentValue::Integer(*i)),
        Term::Str(s) => Some(ArgumentValue::String(s.clone())),
        _ => None,
    }
}

fn pointer(path: &[Op]) -> Option<String> {
    let [Op::Value(Term::Variable(_)), steps @ ..] = path else {
        return None;
    };
    let mut pointer = String::new();
    for step in steps.chunks(2) {
        let [Op::Value(Term::Str(member)), Op::Binary(Binary::Get)] = step else {
            return None;
        };
        pointer.push('/');
        pointer.push_str(&member.replace('~', "~0").replace('/', "~1"));
    }
    Some(pointer)
}

fn same(a: &Check, b: &Check) -> bool {
    let kind = |check: &Check| match check.kind {
        CheckKind::One => 0,
        CheckKind::All => 1,
        CheckKind::Reject => 2,
    };
    kind(a) == kind(b)
        && a.queries.len() == b.queries.len()
        && a.queries.iter().zip(&b.queries).all(|(a, b)| {
            a.head.terms == b.head.terms
                && a.body == b.body
                && a.expressions == b.expressions
                && a.scopes.is_empty()
                && b.scopes.is_empty()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_caveat() -> impl Strategy<Value = Caveat> {
        let name = "[a-z]{1,8}";
        let text = "[ -~é]{1,12}";
        let value = prop_oneof![
            any::<bool>().prop_map(ArgumentValue::Bool),
            (-(1i64 << 53) + 1..(1i64 << 53)).prop_map(ArgumentValue::Integer),
            "[ -~]{0,12}".prop_map(ArgumentValue::String),
        ];
        let set = |s: std::collections::BTreeSet<String>| s.into_iter().collect::<Vec<_>>();
        let some = move |of: &'static str| prop::collection::btree_set(of, 1..4).prop_map(set);
        let network = "10\\.[1-9]\\.0\\.0/16|fd0[0-9]::/16";
        let matches = prop_oneof![
            value.prop_map(ArgumentMatch::Equals),
            some("[ -~]{0,6}")
                .prop_map(|v| ArgumentMatch::OneOf(v.into_iter().map(ArgumentValue::String).collect())),
            "[ -~]{0,6}/".prop_map(ArgumentMatch::Prefix),
            (any::<bool>(), -9i64..9, any::<bool>(), 9i64..99).prop_map(|(a, min, b, max)| {
                ArgumentMatch::Range {
                    min: (a || !b).then_some(min),
                    max: b.then_some(max),
                }
            }),
            "/[a-z]{1,5}(/[a-z]{1,5}){0,2}".prop_map(ArgumentMatch::PathWithin),
            some("(https://)?[a-z]{1,5}\\.example(:8080)?").prop_map(ArgumentMatch::UrlHost),
            some(network).prop_map(ArgumentMatch::Network),
            "[a-z]{1,3}(\\[[a-c]\\])?[*+?]?".prop_map(ArgumentMatch::Matches),
        ];
        prop_oneof![
            (name, some(name)).prop_map(|(server, tools)| Caveat::Tool { server, tools }),
            some(name).prop_map(|servers| Caveat::Server { servers }),
            some(text).prop_map(|methods| Caveat::Method { methods }),
            some(text).prop_map(|audiences| Caveat::Audience { audiences }),
            (name, some(text)).prop_map(|(kind, v)| Caveat::Resource {
                kind,
                matches: ResourceMatch::OneOf(v)
            }),
            (name, text).prop_map(|(kind, p)| Caveat::Resource {
                kind,
                matches: ResourceMatch::Prefix(p + "/")
            }),
            (prop::collection::vec("[a-z~/]{1,6}", 1..4), matches).prop_map(|(path, matches)| {
                Caveat::Argument {
                    pointer: path
                        .iter()
                        .map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1")))
                        .collect(),
                    matches,
                }
            }),
            some(network).prop_map(|networks| Caveat::ClientAddress { networks }),
            (0i64..1 << 40).prop_map(Caveat::NotBefore),
            (
                "0[0-9]:[0-5][0-9]",
                "1[0-9]:[0-5][0-9]",
                "Z|[+-]0[1-9]:30",
                prop::collection::btree_set(1u8..8, 1..7)
            )
                .prop_map(|(from, to, offset, days)| Caveat::Hours {
                    from,
                    to,
                    offset,
                    days: days.into_iter().collect(),
                }),
            ("[A-Za-z0-9_-]{1,8}", 1i64..1000)
                .prop_map(|(counter, calls)| Caveat::MaxCalls { counter, calls }),
        ]
    }

    proptest! {
        #[test]
        fn a_caveat_reads_back_as_itself(caveat in any_caveat()) {
            prop_assert_eq!(Caveat::from_check(&caveat.to_check().unwrap()), Some(caveat.clone()));
            let json = serde_json::to_string(&caveat).unwrap();
            prop_assert_eq!(serde_json::from_str::<Caveat>(&json).unwrap(), caveat);
        }
    }

    #[test]
    fn a_caveat_is_the_datalog_of_its_page() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/caveats.md")).unwrap();
        let mut rows = 0;
        for row in page.lines().filter(|row| row.contains("| `check ")) {
            let (name, source) = row.split_once(" | `").unwrap();
            let check: Check = source.split('`').next().unwrap().parse().unwrap();
            assert!(Caveat::from_check(&check).is_some(), "{name}: {check}");
            rows += 1;
        }
        assert_eq!(rows, 18);
    }

    #[test]
    fn caveats_that_say_nothing_are_refused() {
        let argument = |pointer: &str, matches| Caveat::Argument {
            pointer: pointer.into(),
            matches,
        };
        let hours = |days: Vec<u8>| Caveat::Hours {
            from: "09:00".into(),
            to: "17:00".into(),
            offset: "Z".into(),
            days,
        };
        for caveat in [
            Caveat::Server { servers: vec![] },
            Caveat::Method {
                methods: vec![String::new()],
            },
            Caveat::Resource {
                kind: "Repo".into(),
                matches: ResourceMatch::OneOf(vec!["a".into()]),
            },
            Caveat::Resource {
                kind: "repo".into(),
                matches: ResourceMatch::Prefix("acme".into()),
            },
            argument("a", ArgumentMatch::Equals(ArgumentValue::Bool(true))),
            argument("/", ArgumentMatch::Equals(ArgumentValue::Bool(true))),
            argument("/a~2", ArgumentMatch::Equals(ArgumentValue::Bool(true))),
            argument("/a~", ArgumentMatch::Equals(ArgumentValue::Bool(true))),
            argument("/a", ArgumentMatch::Prefix("acme".into())),
            argument("/a", ArgumentMatch::Range { min: None, max: None }),
            argument(
                "/a",
                ArgumentMatch::Range {
                    min: Some(2),
                    max: Some(1),
                },
            ),
            argument("/a", ArgumentMatch::Equals(ArgumentValue::Integer(1 << 53))),
            argument("/a", ArgumentMatch::PathWithin("/a/".into())),
            argument("/a", ArgumentMatch::UrlHost(vec!["Example.com".into()])),
            argument("/a", ArgumentMatch::Network(vec!["10.0.0.1/8".into()])),
            argument("/a", ArgumentMatch::Matches("(?i)a".into())),
            Caveat::ClientAddress { networks: vec![] },
            hours(vec![]),
            hours(vec![8]),
            hours(vec![10]),
            hours(vec![2, 1]),
            Caveat::MaxCalls {
                counter: "c".into(),
                calls: 0,
            },
            Caveat::MaxCalls {
                counter: "c d".into(),
                calls: 1,
            },
        ] {
            assert!(caveat.to_check().is_err(), "{caveat:?}");
        }
    }

    #[test]
    fn other_checks_do_not_read_as_caveats() {
        for source in [
            r#"check if server("git")"#,
            r#"check if resource("repo", $value), {"a"}.contains($value)"#,
            r#"check all resource("repo", $value), {"a"}.contains($value), $value !== "b""#,
            r#"check if args($args), $args.get("a") === 1 or args($args), $args.get("a") === 2"#,
            r#"reject if time($time), $time >= 2020-01-01T00:00:00Z"#,
        ] {
            let check: Check = source.parse().unwrap();
            assert_eq!(Caveat::from_check(&check), None, "{source}");
        }
        let mut check = Caveat::NotBefore(1).to_check().unwrap();
        check.queries[0].head.terms.push(Term::Integer(1));
        assert_eq!(Caveat::from_check(&check), None);
    }
}
