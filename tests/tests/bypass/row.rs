//! One row of a table: a request, its honest twin, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use taper_dpop::ProofClaims;
use taper_tests::call::Call;
use taper_tests::{Answer, get, h2};

use crate::world::{Era, World, said};

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    H1,
    H2,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sent {
    /// Made by [`Call::bytes`] or [`Call::fields`].
    Call(Call),
    /// These bytes, over HTTP/1.1.
    Bytes(Vec<u8>),
    /// These fields and this body, over HTTP/2.
    Fields(Vec<(String, Vec<u8>)>, Vec<u8>),
}

/// Makes the honest request.
type Twin = Box<dyn Fn(&World<'_>, Era) -> Call>;

/// Makes a request wrong.
pub(crate) type Spoil = Box<dyn Fn(&World<'_>, Era, Call) -> Sent>;

/// One row.
pub(crate) struct Row {
    pub(crate) threat: &'static str,
    /// How it differs from its twin.
    pub(crate) name: String,
    twin: Twin,
    spoil: Spoil,
    status: u16,
    code: Option<i64>,
    pub(crate) rule: &'static str,
    eras: &'static [Era],
    wires: &'static [Wire],
    again: bool,
}

/// A row that expects nothing yet.
pub(crate) fn row(
    threat: &'static str,
    name: impl Into<String>,
    spoil: impl Fn(&World<'_>, Era, Call) -> Call + 'static,
) -> Row {
    sent(threat, name, move |world, era, call| {
        Sent::Call(spoil(world, era, call))
    })
}

/// As [`row`], for what no [`Call`] can say.
pub(crate) fn sent(
    threat: &'static str,
    name: impl Into<String>,
    spoil: impl Fn(&World<'_>, Era, Call) -> Sent + 'static,
) -> Row {
    Row {
        threat,
        name: name.into(),
        twin: Box::new(|world, era| world.honest(era)),
        spoil: Box::new(spoil),
        status: 0,
        code: None,
        rule: "",
        eras: &Era::BOTH,
        wires: &[Wire::H1, Wire::H2],
        again: false,
    }
}

impl Row {
    /// What is answered: a status, the code of a JSON-RPC error, and the rule. Without a rule, nobody but
    /// the HTTP library has seen the request.
    pub(crate) fn is(self, status: u16, code: impl Into<Option<i64>>, rule: &'static str) -> Self {
        Self {
            status,
            code: code.into(),
            rule,
            ..self
        }
    }

    /// Of another threat.
    pub(crate) fn of(self, threat: &'static str) -> Self {
        Self { threat, ..self }
    }

    /// 401, by this rule.
    pub(crate) fn unauthorized(self, rule: &'static str) -> Self {
        self.is(401, None, rule)
    }

    /// 403 with the denial in the body, by this rule.
    pub(crate) fn denied(self, rule: &'static str) -> Self {
        self.is(403, 4403, rule)
    }

    /// With another honest twin.
    pub(crate) fn twin(self, twin: impl Fn(&World<'_>, Era) -> Call + 'static) -> Self {
        Self {
            twin: Box::new(twin),
            ..self
        }
    }

    /// In one era only; `_why` the other one does not have it.
    pub(crate) fn only(self, era: Era, _why: &str) -> Self {
        let eras: &[Era] = match era {
            Era::Legacy => &[Era::Legacy],
            Era::Modern => &[Era::Modern],
        };
        Self { eras, ..self }
    }

    /// Over HTTP/1.1 only; `_why` HTTP/2 does not have it.
    pub(crate) fn h1(self, _why: &str) -> Self {
        Self {
            wires: &[Wire::H1],
            ..self
        }
    }

    /// Over HTTP/2 only; `_why` HTTP/1.1 does not have it.
    pub(crate) fn h2(self, _why: &str) -> Self {
        Self {
            wires: &[Wire::H2],
            ..self
        }
    }

    /// The wrong request is the twin once more, byte for byte.
    pub(crate) fn again(self) -> Self {
        Self { again: true, ..self }
    }
}

/// Adds a header.
pub(crate) fn with(
    name: &'static str,
    value: impl AsRef<[u8]> + 'static,
) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |_, _, call| call.header(name, value.as_ref())
}

/// Replaces a header.
pub(crate) fn instead(
    name: &'static str,
    value: impl AsRef<[u8]> + 'static,
) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |_, _, call| call.instead(name, value.as_ref())
}

/// Leaves a header out.
pub(crate) fn without(name: &'static str) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |_, _, call| call.without(name)
}

/// Replaces the first `from` of the body. The proof is over what is sent.
pub(crate) fn edit<T: Into<String>>(
    from: &'static str,
    to: T,
) -> impl Fn(&World<'_>, Era, Call) -> Call + use<T> {
    let to: String = to.into();
    move |_, _, call| call.edit(from, &to)
}

/// Changes the whole body.
pub(crate) fn body(change: impl Fn(Vec<u8>) -> Vec<u8>) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |_, _, call| {
        let body = change(call.body.clone());
        call.body(body)
    }
}

/// Another target of the request line.
pub(crate) fn at(target: &'static str) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |_, _, call| {
        let method = call.method.clone();
        call.line(&method, target)
    }
}

/// Another message, with the headers that fit it.
pub(crate) fn says<T: Into<String>>(
    method: &'static str,
    inner: T,
) -> impl Fn(&World<'_>, Era, Call) -> Call + use<T> {
    let inner: String = inner.into();
    move |_, era, call| said(call, era, method, &inner)
}

/// A message as a twin.
pub(crate) fn saying(method: &'static str, inner: &'static str) -> impl Fn(&World<'_>, Era) -> Call {
    move |world, era| said(world.honest(era), era, method, inner)
}

/// A call of a tool with these arguments.
pub(crate) fn calls(tool: &str, arguments: &str) -> impl Fn(&World<'_>, Era, Call) -> Call + use<> {
    says(
        "tools/call",
        format!(r#""name":"{tool}","arguments":{arguments}"#),
    )
}

/// Changed claims of the proof, signed by the right key.
pub(crate) fn claiming(
    change: impl Fn(&World<'_>, &mut ProofClaims),
) -> impl Fn(&World<'_>, Era, Call) -> Call {
    move |world, _, call| {
        let mut claims = call.claims();
        change(world, &mut claims);
        let key = call.key.clone().unwrap();
        call.proven_by(&key, &claims)
    }
}

/// Sends a request.
pub(crate) fn deliver(world: &World<'_>, wire: Wire, request: &Sent) -> Answer {
    match (request, wire) {
        (Sent::Call(call), Wire::H1) => world.send(&call.bytes()),
        (Sent::Call(call), Wire::H2) => h2::send(&world.at, &call.fields(), &call.body),
        (Sent::Bytes(bytes), _) => world.send(bytes),
        (Sent::Fields(fields, body), _) => h2::send(&world.at, fields, body),
    }
}

/// What the tables found out, told all at once.
#[derive(Default)]
pub(crate) struct Findings {
    /// What did not come out as it should, by row.
    pub(crate) wrong: BTreeMap<String, Vec<String>>,
    /// Rows.
    pub(crate) rows: usize,
    /// Wrong requests that were sent.
    pub(crate) requests: usize,
    /// Rules that were seen in refusals.
    pub(crate) rules: BTreeSet<&'static str>,
}

impl Findings {
    fn note(&mut self, row: &str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.entry(row.to_owned()).or_default().push(what());
        }
    }

    /// Runs a row in each era and over each wire.
    pub(crate) fn run(&mut self, world: &World<'_>, family: &str, row: &Row) {
        self.rows += 1;
        self.rules.insert(row.rule);
        for era in row.eras {
            for wire in row.wires {
                self.run_one(world, family, row, *era, *wire, true);
            }
        }
    }

    /// Runs a row once, and its twin only if it cannot do without.
    pub(crate) fn run_quickly(&mut self, world: &World<'_>, family: &str, row: &Row) {
        self.rows += 1;
        let (era, wire) = (row.eras[0], row.wires[0]);
        // What repeats a request needs the first one.
        self.run_one(world, family, row, era, wire, row.rule == "R-13");
    }

    fn run_one(&mut self, world: &World<'_>, family: &str, row: &Row, era: Era, wire: Wire, with_twin: bool) {
        let id = format!("{family}: {}", row.name);
        let how = format!("{era:?} {wire:?}");
        let twin = (row.twin)(world, era);
        let bad = (row.spoil)(world, era, twin.clone());
        let differs = bad != Sent::Call(twin.clone());
        self.note(&id, differs != row.again, || format!("{how}: it is its own twin"));
        if with_twin {
            let before = world.upstream.count();
            let answer = deliver(world, wire, &Sent::Call(twin.clone()));
            let passed = (200..300).contains(&answer.status);
            self.note(&id, passed, || format!("{how}: the twin: {answer:?}"));
            let seen = world.upstream.count() - before;
            let last = world.upstream.last().map(|request| request.body);
            self.note(&id, seen == 1 && last == Some(payload(&twin)), || {
                format!("{how}: the upstream saw the twin {seen} times")
            });
        }
        let (before, logged) = (world.upstream.count(), world.proxy.logged());
        let answer = deliver(world, wire, &bad);
        self.requests += 1;
        self.note(
            &id,
            answer.status == row.status && code(&answer) == row.code,
            || format!("{how}: expected {} {:?}, got {answer:?}", row.status, row.code),
        );
        let told = told(&answer);
        // What passed is logged nowhere.
        if !row.rule.is_empty() && (answer.status >= 300 || told.is_some()) {
            let rule = world.rule_since(logged);
            self.note(&id, rule.as_deref() == Some(row.rule), || {
                format!("{how}: expected {}, logged {rule:?}", row.rule)
            });
        }
        if let Some(told) = told {
            self.note(&id, told == row.rule, || {
                format!("{how}: expected {}, told {told}", row.rule)
            });
        }
        let seen = world.upstream.count() - before;
        self.note(&id, seen == 0, || format!("{how}: the upstream saw it"));
        self.note(&id, get(&world.at, "/healthz").status == 200, || {
            format!("{how}: the proxy is not healthy afterwards")
        });
    }

    #[track_caller]
    pub(crate) fn none(&self) {
        let lines: Vec<String> = self
            .wrong
            .iter()
            .map(|(row, what)| format!("{row}\n    {}", what.join("\n    ")))
            .collect();
        assert!(
            lines.is_empty(),
            "{} of {} rows:\n{}",
            lines.len(),
            self.rows,
            lines.join("\n")
        );
    }
}

/// The body that a call means: what is in its one chunk, where it comes in chunks.
fn payload(call: &Call) -> Vec<u8> {
    if call.value("transfer-encoding").is_none() {
        return call.body.clone();
    }
    let text = std::str::from_utf8(&call.body).unwrap();
    let chunk = text.split_once("\r\n").unwrap().1;
    let chunk = chunk.strip_suffix("\r\n0\r\n\r\n").unwrap();
    chunk.as_bytes().to_vec()
}

fn code(answer: &Answer) -> Option<i64> {
    document(answer)?["error"]["code"].as_i64()
}

/// The body's JSON, of which HTTP/1.1 may make a chunk.
fn document(answer: &Answer) -> Option<Value> {
    let (from, to) = (answer.body.find('{')?, answer.body.rfind('}')?);
    serde_json::from_str(answer.body.get(from..=to)?).ok()
}

/// The rule that the answer itself names: at the end of a challenge's description, or in the data of an error.
fn told(answer: &Answer) -> Option<String> {
    let data = document(answer).and_then(|body| Some(body["error"]["data"]["rule"].as_str()?.to_owned()));
    data.or_else(|| {
        let description = answer.head.split("error_description=\"").nth(1)?;
        let description = description.split('"').next()?;
        let rule = description.strip_suffix(')')?.rsplit_once('(')?.1;
        Some(rule.to_owned())
    })
}
