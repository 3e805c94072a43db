//! Reading a caveat back from the check it compiled to.

use crate::caveat::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch};
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
    let [Expression { ops }] = expressions.as_slice() else {
        return None;
    };
    match (body.as_slice(), ops.as_slice()) {
        ([server, tool], [Op::Value(Term::Set(tools)), ..]) if is(server, "server") && is(tool, "tool") => {
            let [Term::Str(server)] = server.terms.as_slice() else {
                return None;
            };
            Some(Caveat::Tool {
                server: server.clone(),
                tools: strings(tools)?,
            })
        }
        ([server], [Op::Value(Term::Set(servers)), ..]) if is(server, "server") => Some(Caveat::Server {
            servers: strings(servers)?,
        }),
        ([resource], ops) if is(resource, "resource") => {
            let [Term::Str(kind), _] = resource.terms.as_slice() else {
                return None;
            };
            let matches = match ops {
                [Op::Value(Term::Set(values)), _, Op::Binary(Binary::Contains)] => {
                    ResourceMatch::OneOf(strings(values)?)
                }
                [_, Op::Value(Term::Str(prefix)), Op::Binary(Binary::Prefix)] => {
                    ResourceMatch::Prefix(prefix.clone())
                }
                _ => return None,
            };
            Some(Caveat::Resource {
                kind: kind.clone(),
                matches,
            })
        }
        ([args], ops) if is(args, "args") => {
            let (matches, path) = match ops {
                [
                    Op::Value(Term::Set(values)),
                    path @ ..,
                    Op::Binary(Binary::Contains),
                ] => (
                    ArgumentMatch::OneOf(values.iter().map(argument_value).collect::<Option<_>>()?),
                    path,
                ),
                [
                    path @ ..,
                    Op::Value(Term::Str(prefix)),
                    Op::Binary(Binary::Prefix),
                ] => (ArgumentMatch::Prefix(prefix.clone()), path),
                [path @ .., Op::Value(wanted), Op::Binary(Binary::Equal)] => {
                    (ArgumentMatch::Equals(argument_value(wanted)?), path)
                }
                _ => return None,
            };
            Some(Caveat::Argument {
                pointer: pointer(path)?,
                matches,
            })
        }
        ([time], [_, Op::Value(Term::Date(at)), _]) if is(time, "time") => {
            Some(Caveat::NotBefore(i64::try_from(*at).ok()?))
        }
        _ => None,
    }
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
            a.body == b.body && a.expressions == b.expressions && a.scopes.is_empty() && b.scopes.is_empty()
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
        prop_oneof![
            (name, prop::collection::btree_set(name, 1..4)).prop_map(move |(server, tools)| Caveat::Tool {
                server,
                tools: set(tools)
            }),
            prop::collection::btree_set(name, 1..4).prop_map(move |s| Caveat::Server { servers: set(s) }),
            (name, prop::collection::btree_set(text, 1..4)).prop_map(move |(kind, v)| Caveat::Resource {
                kind,
                matches: ResourceMatch::OneOf(set(v))
            }),
            (name, text).prop_map(|(kind, p)| Caveat::Resource {
                kind,
                matches: ResourceMatch::Prefix(p + "/")
            }),
            (prop::collection::vec("[a-z~/]{1,6}", 1..4), value).prop_map(|(path, v)| Caveat::Argument {
                pointer: path
                    .iter()
                    .map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1")))
                    .collect(),
                matches: ArgumentMatch::Equals(v),
            }),
            (0i64..1 << 40).prop_map(Caveat::NotBefore),
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
    }
}
