//! What the agents' libraries write is what ours reads: caveat for caveat, not just some check.

use taper_capability::{ArgumentMatch, ArgumentValue, Caveat, ResourceMatch};
use taper_tests::Up;

use super::{BOTH, decoded, obtain};

#[test]
fn every_caveat_reads_back_as_itself() {
    let up = Up::start();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
        let start = ["narrow", &cap, "--key", &key, "--roots", "roots.json"];
        let words = [
            "--until",
            "2030-01-31T09:30:00Z",
            "--tool",
            "git:git_show",
            "--tool",
            "git:git_log",
            "--server",
            "git",
            "--server",
            "files",
            "--resource",
            "repo=acme/web",
            "--resource",
            "repo=\"}.contains($value) or true; ",
            "--resource",
            "path=srv/*",
            "--arg",
            "repo_path=acme/web",
            "--arg",
            "n=5",
            "--arg",
            "n=10",
            "--arg",
            "flag=true",
            "--arg",
            "/deep/a~1b=\"5\"",
            "--arg-range",
            "max_count=1..5",
            "--arg-range",
            "least=-7..",
            "--arg-range",
            "most=..9007199254740991",
            "--not-before",
            // The same moment, from another time zone.
            "2026-01-01T02:00:00+02:00",
            "--max-depth",
            "2",
            "--note",
            "a \"note\"",
            "--out",
            "all.cap",
        ];
        agent.ok(up.dir(), &[&start[..], &words].concat());
        let token = decoded(up.dir(), "all.cap");
        let link = token.links().last().unwrap();
        let (caveats, others) = link.caveats();
        assert_eq!(others, 0, "{agent:?}: {:?}", link.other_checks());
        let strings = |values: &[&str]| values.iter().map(|&v| v.to_owned()).collect::<Vec<_>>();
        let argument = |pointer: &str, matches| Caveat::Argument {
            pointer: pointer.to_owned(),
            matches,
        };
        let expected = [
            Caveat::Tool {
                server: "git".to_owned(),
                tools: strings(&["git_log", "git_show"]),
            },
            Caveat::Server {
                servers: strings(&["files", "git"]),
            },
            Caveat::Resource {
                kind: "repo".to_owned(),
                matches: ResourceMatch::OneOf(strings(&["\"}.contains($value) or true; ", "acme/web"])),
            },
            Caveat::Resource {
                kind: "path".to_owned(),
                matches: ResourceMatch::Prefix("srv/".to_owned()),
            },
            argument(
                "/repo_path",
                ArgumentMatch::Equals(ArgumentValue::String("acme/web".to_owned())),
            ),
            argument(
                "/n",
                ArgumentMatch::OneOf(vec![ArgumentValue::Integer(5), ArgumentValue::Integer(10)]),
            ),
            argument("/flag", ArgumentMatch::Equals(ArgumentValue::Bool(true))),
            argument(
                "/deep/a~1b",
                ArgumentMatch::Equals(ArgumentValue::String("5".to_owned())),
            ),
            argument(
                "/max_count",
                ArgumentMatch::Range {
                    min: Some(1),
                    max: Some(5),
                },
            ),
            argument(
                "/least",
                ArgumentMatch::Range {
                    min: Some(-7),
                    max: None,
                },
            ),
            argument(
                "/most",
                ArgumentMatch::Range {
                    min: None,
                    max: Some((1 << 53) - 1),
                },
            ),
            Caveat::NotBefore(1_767_225_600),
        ];
        assert_eq!(caveats, expected, "{agent:?}");
        assert_eq!(link.note.as_deref(), Some("a \"note\""));
        assert_eq!((token.max_depth(), token.depth()), (2, 0));
        // 2030 lies behind the grant's own end.
        let parent = decoded(up.dir(), &cap);
        assert_eq!(token.expires_at(), parent.expires_at());
        assert_eq!(token.last_holder(), parent.last_holder());
    }
}
