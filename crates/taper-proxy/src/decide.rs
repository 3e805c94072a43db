//! The decision of the gate: what a message asks for, which calls it uses up, whether it may pass.

use std::sync::Arc;

use http::HeaderName;
use taper_capability::json::Value;
use taper_capability::{Access, AccessKind, AdmittedCheck, VerifiedChain, vocabulary};
use taper_dpop::ContentDigest;
use taper_policy::DenialKind;
use taper_policy::boundary::{self, Decision, Permit};
use taper_store::{Counter, CounterKey, DecisionRecord, LinkRecord, Outcome, Reservation};

use crate::catalogue::{Known, Needed, Standing, proved};
use crate::gate::{Asked, Gate, Read, refused};
use crate::headers::has_params;
use crate::message::{Era, Message};
use crate::methods::Subject;
use crate::outstanding::Answering;
use crate::pins::diff::cut;
use crate::refusal::{Denied, Refusal};
use crate::rules;
use crate::session::Owner;

/// Resources that one `subscriptions/listen` may name.
const MAX_SUBSCRIPTIONS: usize = 16;

/// How much of a method or a tool is in the journal, in bytes: any that exists is there whole, and no request
/// writes into it at length, or too much for a record.
const MAX_NAME: usize = 128;
/// How much of the reason of a refusal is, in bytes.
const MAX_REASON: usize = 1024;

/// What an answer of the client has in place of a method.
const RESPONSE: &str = "response";

/// What a request asks for.
pub(crate) struct Wanted {
    access: Access,
    /// The rest of it, or why it cannot be asked for.
    rest: Result<Rest, Refusal>,
}

struct Rest {
    subscribed: Vec<Access>,
    answers: Option<Answering>,
}

/// What was allowed.
pub(crate) struct Allowed {
    pub(crate) permit: Permit,
    /// The call that it uses up, if something counts it; to be journaled with its record.
    pub(crate) calls: Option<Reservation>,
    /// The reads that a subscription amounts to, which were allowed as well.
    pub(crate) subscribed: Vec<Access>,
    /// The request of the server that is answered.
    pub(crate) answers: Option<Answering>,
    /// The headers that repeat an argument as it is.
    pub(crate) params: Vec<HeaderName>,
}

impl Gate {
    /// What a request asks for that was read and whose proof was taken.
    pub(crate) fn wanted(asked: &Asked, read: &Read) -> Wanted {
        let profile = &asked.profile;
        let method = match (&read.message, &read.answer) {
            (Some(message), _) => message.method.as_str(),
            (None, Some(_)) => RESPONSE,
            (None, None) => asked.method.as_str(),
        };
        let kind = read.class.map_or(AccessKind::Plumbing, |class| class.kind);
        let mut access = Access::new(kind, &profile.id, &profile.resource, method);
        access.body_bound = read.bound;
        access.client_ip = asked.client_ip;
        let rest = rest(asked, read, &mut access);
        Wanted { access, rest }
    }

    /// Whether the decision is a short one: it evaluates nothing and reads no counter.
    pub(crate) fn is_short(&self, asked: &Asked, wanted: &Wanted, now: i64) -> bool {
        let chain = asked.presentation.chain();
        let is_short = |access: &Access| boundary::is_short(&self.policy, chain, access, now);
        let Ok(rest) = &wanted.rest else {
            return true;
        };
        is_short(&wanted.access) && rest.subscribed.iter().all(is_short) && chain.counters().is_empty()
    }

    /// Decides it. Of a refusal nothing stays reserved.
    pub(crate) fn decide(
        &self,
        asked: &Asked,
        read: &Read,
        wanted: Wanted,
        now: i64,
    ) -> (Arc<Access>, Result<Allowed, Refusal>) {
        let Wanted { access, rest } = wanted;
        let mut access = Arc::new(access);
        let decided = rest.and_then(|rest| self.permit(asked, read, &mut access, rest, now));
        (access, decided)
    }

    fn permit(
        &self,
        asked: &Asked,
        read: &Read,
        access: &mut Arc<Access>,
        rest: Rest,
        now: i64,
    ) -> Result<Allowed, Refusal> {
        let Rest {
            mut subscribed,
            answers,
        } = rest;
        let known = match &access.tool {
            Some(tool) if access.kind == AccessKind::ToolCall => asked.catalogue.get(tool, now),
            _ => Known::Nothing,
        };
        self.approved(asked, access, &known, now)?;
        // Nobody else has it yet.
        self.describe(asked, Arc::make_mut(access), &known, now)?;
        let mut kinds = vec![access.kind];
        kinds.extend(subscribed.iter().map(|one| one.kind));
        let calls = self.reserve(asked.presentation.chain(), &kinds, Arc::make_mut(access))?;
        // Whatever a subscription names is asked for by itself; all of it is one call.
        for one in &mut subscribed {
            one.calls.clone_from(&access.calls);
            self.ask(asked, one.clone(), now)?;
        }
        let permit = self.ask(asked, Arc::clone(access), now)?;
        // Last, so that only who may call a tool learns what is read of its arguments, and which have headers.
        self.check_spellings(asked, access, now)?;
        let params = match read.era {
            Era::Modern if access.kind == AccessKind::ToolCall => repeating(asked, access, &known)?,
            _ => Vec::new(),
        };
        Ok(Allowed {
            permit,
            calls,
            subscribed,
            answers,
            params,
        })
    }

    /// Refuses arguments of which a server that ignores case could find others where a template, a check or
    /// the policy reads (M-17).
    fn check_spellings(&self, asked: &Asked, access: &Access, now: i64) -> Result<(), Refusal> {
        let (Some(tool), Some(arguments)) = (&access.tool, &access.arguments) else {
            return Ok(());
        };
        let chain = asked.presentation.chain();
        let checks = || chain.links().iter().flat_map(|link| &link.caveats);
        let is_named = |word: &str| {
            self.policy.names(word) || checks().any(|check| check.words().any(|named| named == word))
        };
        let is_ambiguous = self.policy.reads().are_ambiguous(
            checks().map(AdmittedCheck::reads),
            asked.profile.reads(tool),
            arguments,
            // A name may be a text of any fact that they see.
            || vocabulary::texts_of(chain, access, now, is_named),
        );
        if rules::FOLDED_KEYS.holds(!is_ambiguous) {
            Ok(())
        } else {
            Err(Refusal::FoldedKeys)
        }
    }

    /// Refuses a tool that the server does not describe as the operator approved it (M-44), and one of
    /// which that is not known (M-45). Who has no right to the tool hears that first.
    fn approved(&self, asked: &Asked, access: &Access, known: &Known, now: i64) -> Result<(), Refusal> {
        let tool = access
            .tool
            .as_ref()
            .filter(|_| access.kind == AccessKind::ToolCall);
        let standing = tool.map_or(Standing::Free, |tool| asked.catalogue.standing(tool, known));
        match standing {
            Standing::Free => Ok(()),
            Standing::NotYet if rules::PINS_KNOWN.holds(false) => Ok(()),
            Standing::NotYet => Err(self.right_first(asked, access, known, now, Refusal::Unpinned)),
            Standing::Barred(_) if rules::PINS.holds(false) => Ok(()),
            Standing::Barred(reason) => {
                let refusal = Refusal::Denied(Denied::by_profile(rules::PINS, reason.to_owned()));
                Err(self.right_first(asked, access, known, now, refusal))
            }
        }
    }

    /// Why a request is refused of which too little is known: that its caller has no right, or `refusal`,
    /// and then the server is asked.
    fn right_first(
        &self,
        asked: &Asked,
        access: &Access,
        known: &Known,
        now: i64,
        refusal: Refusal,
    ) -> Refusal {
        match self.ask(asked, access.clone(), now) {
            Err(Refusal::Denied(denied))
                if matches!(
                    denied.kind,
                    DenialKind::NoRight | DenialKind::Audience | DenialKind::Expired
                ) =>
            {
                Refusal::Denied(denied)
            }
            _ => {
                if !matches!(known, Known::Described(_)) {
                    asked.catalogue.want();
                }
                refusal
            }
        }
    }

    /// Puts what the server says of the tool into `access`, where the decision depends on it (M-42). Who
    /// has no right to the tool hears that first, and nothing of what is known; nobody is asked for it.
    fn describe(&self, asked: &Asked, access: &mut Access, known: &Known, now: i64) -> Result<(), Refusal> {
        let needed = Needed::by(&self.policy, asked.presentation.chain());
        if access.kind != AccessKind::ToolCall || !needed.any() {
            return Ok(());
        }
        let refusal = match known {
            Known::Described(tool) if needed.met_by(&tool.facts) => {
                access.tool_facts = Some(tool.facts.clone());
                return Ok(());
            }
            Known::NotYet => Refusal::Undescribed,
            Known::Described(_) | Known::Nothing => {
                let reason = "the decision depends on what the server says of the tool, which does not list it once, \
                              or not in a readable way, or is not asked (`catalogue`)";
                Refusal::Denied(Denied::by_profile(rules::FACTS, reason.to_owned()))
            }
        };
        if rules::FACTS.holds(false) {
            return Ok(());
        }
        Err(self.right_first(asked, access, known, now, refusal))
    }

    /// Reserves the call under every max-calls caveat of the chain (RULES 16, M-35), and puts into
    /// `access` how many calls there are with it. What no fact can tell a caveat is not counted.
    fn reserve(
        &self,
        chain: &VerifiedChain,
        kinds: &[AccessKind],
        access: &mut Access,
    ) -> Result<Option<Reservation>, Refusal> {
        let Some(counters) = &self.counters else {
            return Ok(None);
        };
        if !kinds.iter().any(|kind| vocabulary::supplies(*kind, "calls")) {
            return Ok(None);
        }
        let counted = chain.counters();
        if counted.is_empty() {
            return Ok(None);
        }
        let key = |counter: &taper_capability::Counter| {
            let index = u32::try_from(counter.index).ok()?;
            let branch = counter.branch;
            Some(Counter {
                key: CounterKey { branch, index },
                until: counter.until,
            })
        };
        let keys: Option<Vec<Counter>> = counted.iter().map(key).collect();
        let reserved = counters.reserve(chain.issuer(), &keys.ok_or(Refusal::Uncounted)?);
        let calls = match reserved {
            Ok(calls) => Some(calls),
            Err(_) if rules::CALLS.holds(false) => None,
            Err(error) => {
                tracing::error!(%error, "a call cannot be counted");
                return Err(Refusal::Uncounted);
            }
        };
        let values = calls.as_ref().map_or(&[][..], Reservation::values);
        // Without a value, which only a sabotage build has, every call is the first.
        let values = values.iter().copied().chain(std::iter::repeat(1));
        access.calls = counted
            .into_iter()
            .zip(values)
            .map(|(counter, n)| (counter.name, i64::try_from(n).unwrap_or(i64::MAX)))
            .collect();
        Ok(calls)
    }

    fn ask(&self, asked: &Asked, access: impl Into<Arc<Access>>, now: i64) -> Result<Permit, Refusal> {
        match boundary::decide(&self.policy, &asked.presentation, access, now) {
            Decision::Allow(permit) => Ok(permit),
            Decision::Deny(mut denial) => {
                let obtainable = match denial.kind {
                    DenialKind::NoRight => asked.profile.obtainable(std::mem::take(&mut denial.obtainable)),
                    _ => Vec::new(),
                };
                Err(refused(denial, obtainable))
            }
            Decision::Indeterminate(reason) => Err(Refusal::Indeterminate(reason)),
        }
    }

    /// What the journal says of a decision. The store adds what was counted.
    pub(crate) fn record(&self, asked: &Asked, access: &Access, refusal: Option<&Refusal>) -> DecisionRecord {
        let chain = asked.presentation.chain();
        let outcome = match refusal {
            None => Outcome::Allow,
            Some(
                Refusal::Indeterminate(_)
                | Refusal::Uncounted
                | Refusal::Undescribed
                | Refusal::Unpinned
                | Refusal::Unlisted,
            ) => Outcome::Indeterminate,
            Some(_) => Outcome::Deny,
        };
        let link = |link: &taper_capability::Link| LinkRecord {
            holder_jkt: link.holder.thumbprint().to_string(),
            depth: link.depth,
        };
        DecisionRecord {
            decision_id: asked.decision_id.clone(),
            outcome,
            rule: refusal.map(|refusal| refusal.rule().to_string()),
            reason: refusal.map(|refusal| cut(refusal.to_string(), MAX_REASON)),
            issuer: chain.issuer().to_owned(),
            grant_id: chain.grant_id().to_owned(),
            holder_jkt: chain.last_holder().thumbprint().to_string(),
            depth: chain.depth(),
            links: chain.links().iter().map(link).collect(),
            subject_iss: chain.subject().iss.clone(),
            subject: chain.subject().sub.clone(),
            client: chain.client().to_owned(),
            server: access.server.clone(),
            method: cut(access.method.clone(), MAX_NAME),
            tool: access.tool.clone().map(|tool| cut(tool, MAX_NAME)),
            resources: access.resources.clone(),
            body_sha256: (!asked.body.is_empty()).then(|| hex(ContentDigest::of(&asked.body).as_bytes())),
            token_sha256: hex(chain.token_hash().as_bytes()),
            policy_digest: self.policy.digest().to_owned(),
            client_ip: asked.client_ip,
            counted: Vec::new(),
        }
    }
}

/// Fills `access`; what the request asks for beside it.
fn rest(asked: &Asked, read: &Read, access: &mut Access) -> Result<Rest, Refusal> {
    let Some(class) = read.class else {
        return Err(Refusal::UnknownMethod(read.era));
    };
    let answers = answered(asked, read)?;
    let mut subscribed = Vec::new();
    if let Some(message) = &read.message {
        fill(access, message, class.subject, asked)?;
        subscribed = subscriptions(message, class.subject, asked, access)?;
    }
    Ok(Rest { subscribed, answers })
}

/// The headers that repeat an argument as it is, of a modern call that is allowed otherwise (M-18, M-43).
fn repeating(asked: &Asked, access: &Access, known: &Known) -> Result<Vec<HeaderName>, Refusal> {
    if let Known::Described(tool) = known {
        let nothing = Value::Null;
        let arguments = access.arguments.as_ref().unwrap_or(&nothing);
        return match proved(&tool.params, arguments, &asked.headers) {
            Err(_) if rules::HEADERS.holds(false) => Ok(Vec::new()),
            Err(_) => Err(Refusal::HeaderMismatch("Mcp-Param")),
            Ok(proved) => Ok(proved),
        };
    }
    if asked.catalogue.sees_headers() && has_params(&asked.headers) {
        asked.catalogue.want();
        // Without them, a server that demands them would blame its caller.
        if !rules::PARAMS.holds(*known != Known::NotYet) {
            return Err(Refusal::Unlisted);
        }
    }
    Ok(Vec::new())
}

/// The request of the server that is answered, if the message answers one: of the caller's own session,
/// and not answered yet (M-20). It stays so when the answer is refused. The modern era has no such requests.
fn answered(asked: &Asked, read: &Read) -> Result<Option<Answering>, Refusal> {
    let Some(answer) = &read.answer else {
        return Ok(None);
    };
    let session = read.session.as_deref();
    let taken = session.and_then(|session| {
        let owner = Owner::of(asked.presentation.chain());
        asked.sessions.answer(session, &owner, &answer.id)
    });
    if rules::CLIENT_ANSWER.holds(taken.is_some()) {
        Ok(taken)
    } else {
        Err(Refusal::ClientAnswer)
    }
}

/// Puts into `access` what the message names, by the profile (M-21 to M-23).
fn fill(access: &mut Access, message: &Message, subject: Subject, asked: &Asked) -> Result<(), Refusal> {
    let profile = &asked.profile;
    let text = |name: &str, missing: &'static str| {
        let value = message.text(name).filter(|value| !value.is_empty());
        value.map(str::to_owned).ok_or(Refusal::Message(missing))
    };
    match subject {
        Subject::Nothing | Subject::Subscriptions => {}
        Subject::Tool => {
            let tool = text("name", "`params.name` is not a text")?;
            let empty = Value::Object(Vec::new());
            let arguments = message.params.get("arguments").unwrap_or(&empty);
            profile
                .check_arguments(&tool, arguments, asked.presentation.chain())
                .map_err(Refusal::Denied)?;
            access.resources = profile.resources(&tool, arguments).map_err(Refusal::Denied)?;
            access.arguments = Some(arguments.clone());
            access.tool = Some(tool);
        }
        Subject::Uri => {
            let uri = text("uri", "`params.uri` is not a text")?;
            profile.check_uri(&uri).map_err(Refusal::Denied)?;
            access.uri = Some(uri);
        }
        Subject::Prompt => access.prompt = Some(text("name", "`params.name` is not a text")?),
        Subject::Reference => {
            let member = |name: &str| {
                let value = message.params.pointer(&format!("/ref/{name}"))?.as_str();
                value.map(str::to_owned)
            };
            match member("type").as_deref() {
                Some("ref/prompt") => access.prompt = member("name"),
                Some("ref/resource") => access.uri = member("uri"),
                _ => {
                    return Err(Refusal::Message(
                        "`params.ref` is neither a prompt nor a resource",
                    ));
                }
            }
            if access.prompt.is_none() && access.uri.is_none() {
                return Err(Refusal::Message("`params.ref` names nothing"));
            }
        }
        Subject::Task => {
            let task = text("taskId", "`params.taskId` is not a text")?;
            owned_task(asked, &task)?;
        }
    }
    Ok(())
}

/// Refuses a task that the caller did not make, as if it did not exist (M-34).
fn owned_task(asked: &Asked, task: &str) -> Result<(), Refusal> {
    let owner = Owner::of(asked.presentation.chain());
    if rules::TASK.holds(asked.tasks.is_owned(task, &owner)) {
        Ok(())
    } else {
        Err(Refusal::Task)
    }
}

/// What a subscription amounts to: a read of each resource that it names, and a request for its tasks,
/// which are the caller's.
fn subscriptions(
    message: &Message,
    subject: Subject,
    asked: &Asked,
    access: &Access,
) -> Result<Vec<Access>, Refusal> {
    let mut amounts = Vec::new();
    if subject != Subject::Subscriptions {
        return Ok(amounts);
    }
    let named = |pointer: &str, wrong: &'static str| {
        let Some(named) = message.params.pointer(pointer) else {
            return Ok(Vec::new());
        };
        let named = named.as_array().filter(|named| named.len() <= MAX_SUBSCRIPTIONS);
        let texts = named.and_then(|named| named.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts.ok_or(Refusal::Message(wrong))
    };
    for uri in named(
        "/notifications/resourceSubscriptions",
        "`resourceSubscriptions` is not a short array of texts",
    )? {
        asked.profile.check_uri(uri).map_err(Refusal::Denied)?;
        amounts.push(Access {
            kind: AccessKind::ResourceRead,
            uri: Some(uri.to_owned()),
            ..access.clone()
        });
    }
    let tasks = named(
        "/notifications/taskIds",
        "`taskIds` is not a short array of texts",
    )?;
    for task in &tasks {
        owned_task(asked, task)?;
    }
    if !tasks.is_empty() {
        amounts.push(Access {
            kind: AccessKind::Task,
            ..access.clone()
        });
    }
    Ok(amounts)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    text.extend(
        bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]),
    );
    text
}
