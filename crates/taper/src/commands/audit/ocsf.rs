//! A record as an event of the Open Cybersecurity Schema Framework, version 1.3.0.
//!
//! | record | class | activity |
//! |---|---|---|
//! | a decision | 6003 API Activity | 99 Other (the call of a tool, a list …), with `action_id` 1 Allowed or 2 Denied |
//! | a grant, a revocation | 3005 User Access Management | 1 Assign Privileges, 2 Revoke Privileges |
//! | a start, a policy, everything else | 6002 Application Lifecycle | 3 Start, 8 Update |
//!
//! What has no attribute there is in the record itself, which stands beside the event as `payload`.

use serde_json::{Map, Value, json};
use taper_store::{
    DecisionRecord, GrantRecord, Outcome, RecordKind, RevocationKey, RevocationRecord, StoredRecord,
};

const VERSION: &str = "1.3.0";

const API_ACTIVITY: Class = Class(6003, "API Activity");
const USER_ACCESS: Class = Class(3005, "User Access Management");
const LIFECYCLE: Class = Class(6002, "Application Lifecycle");

/// A class of events: its number, of which the thousands are the category, and its name.
#[derive(Clone, Copy)]
struct Class(u32, &'static str);

/// The event's attributes. `journal` names the journal that the record is in.
pub(super) fn event(stored: &StoredRecord, journal: &str) -> Map<String, Value> {
    let mut event = match &stored.record.kind {
        RecordKind::Decision(decision) => decided(decision),
        RecordKind::Grant(grant) => granted(grant),
        RecordKind::Revoked(record) => revoked(record),
        RecordKind::Policy { digest, files } => changed(
            LIFECYCLE,
            (8, "Update"),
            &format!("policy {digest}: {}", files.join(" ")),
        ),
        RecordKind::Started { role } => changed(LIFECYCLE, (3, "Start"), &format!("{role} started")),
        RecordKind::Client(_)
        | RecordKind::RootKeys(_)
        | RecordKind::Refresh(_)
        | RecordKind::Carried { .. }
        | RecordKind::Retired(_)
        | RecordKind::Repaired(_) => {
            changed(LIFECYCLE, (8, "Update"), &super::line::text(&stored.record.kind))
        }
    };
    event.insert("time".to_owned(), stored.record.at_ms.into());
    let metadata = json!({
        "version": VERSION,
        "product": {"name": "taper", "vendor_name": "taper", "version": env!("CARGO_PKG_VERSION")},
        "log_name": journal,
        "sequence": stored.index,
        "profiles": ["security_control"],
    });
    event.insert("metadata".to_owned(), metadata);
    event
}

fn decided(decision: &DecisionRecord) -> Map<String, Value> {
    let (severity, status, action) = match decision.outcome {
        Outcome::Allow => ((1, "Informational"), (1, "Success"), (1, "Allowed")),
        Outcome::Deny => ((3, "Medium"), (2, "Failure"), (2, "Denied")),
        Outcome::Indeterminate => ((2, "Low"), (2, "Failure"), (2, "Denied")),
    };
    let mut event = of(API_ACTIVITY, (99, "Other"), severity);
    let mut set = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    set("status_id", status.0.into());
    set("status", status.1.into());
    set("action_id", action.0.into());
    set("action", action.1.into());
    if let Some(rule) = &decision.rule {
        set("status_code", rule.as_str().into());
    }
    if let Some(reason) = &decision.reason {
        set("status_detail", reason.as_str().into());
    }
    let what = decision
        .tool
        .as_ref()
        .map_or_else(String::new, |tool| format!(" {tool}"));
    set(
        "message",
        format!("{} {} {}{what}", action.1, decision.server, decision.method).into(),
    );
    set(
        "actor",
        json!({
            "user": {"name": decision.subject, "domain": decision.subject_iss},
            "app_uid": decision.client,
            "session": {"uid": decision.grant_id, "issuer": decision.issuer},
        }),
    );
    let operation = decision.tool.as_deref().unwrap_or(&decision.method);
    set(
        "api",
        json!({
            "operation": operation,
            "service": {"name": decision.server},
            "request": {"uid": decision.decision_id},
        }),
    );
    let mut endpoint = json!({"uid": decision.holder_jkt});
    if let (Some(ip), Value::Object(members)) = (decision.client_ip, &mut endpoint) {
        members.insert("ip".to_owned(), ip.to_string().into());
    }
    set("src_endpoint", endpoint);
    let resource = |(kind, value): &(String, String)| json!({"type": kind, "name": value});
    set("resources", decision.resources.iter().map(resource).collect());
    event
}

fn granted(grant: &GrantRecord) -> Map<String, Value> {
    let mut event = of(USER_ACCESS, (1, "Assign Privileges"), (1, "Informational"));
    let mut set = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    set("status_id", 1.into());
    set("status", "Success".into());
    set(
        "user",
        json!({"name": grant.subject, "domain": grant.subject_iss}),
    );
    set("privileges", grant.rights.clone().into());
    set(
        "actor",
        json!({"app_uid": grant.client, "session": {"uid": grant.grant_id, "issuer": grant.issuer}}),
    );
    set(
        "message",
        format!("grant {} to {}", grant.grant_id, grant.subject).into(),
    );
    event
}

fn revoked(record: &RevocationRecord) -> Map<String, Value> {
    let revocation = &record.revocation;
    let mut event = of(USER_ACCESS, (2, "Revoke Privileges"), (2, "Low"));
    let mut set = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    set("status_id", 1.into());
    set("status", "Success".into());
    let user = match &revocation.what {
        RevocationKey::Subject { iss, sub } => json!({"name": sub, "domain": iss}),
        other => json!({"uid": super::line::key(other), "type": other.kind()}),
    };
    set("user", user);
    set(
        "privileges",
        json!([format!(
            "{} {}",
            revocation.what.kind(),
            super::line::key(&revocation.what)
        )]),
    );
    set("actor", json!({"app_name": record.by}));
    set(
        "message",
        format!("revocation {} of the feed", revocation.seq).into(),
    );
    event
}

fn changed(class: Class, activity: (u32, &str), message: &str) -> Map<String, Value> {
    let mut event = of(class, activity, (1, "Informational"));
    event.insert("status_id".to_owned(), 1.into());
    event.insert("status".to_owned(), "Success".into());
    event.insert("app".to_owned(), json!({"name": "taper", "vendor_name": "taper"}));
    event.insert("message".to_owned(), message.into());
    event
}

/// What every event has.
fn of(class: Class, activity: (u32, &str), severity: (u32, &str)) -> Map<String, Value> {
    let (category, category_name) = match class.0 / 1000 {
        3 => (3, "Identity & Access Management"),
        _ => (6, "Application Activity"),
    };
    let event = json!({
        "category_uid": category,
        "category_name": category_name,
        "class_uid": class.0,
        "class_name": class.1,
        "activity_id": activity.0,
        "activity_name": activity.1,
        "type_uid": class.0 * 100 + activity.0,
        "severity_id": severity.0,
        "severity": severity.1,
    });
    match event {
        Value::Object(event) => event,
        _ => Map::new(),
    }
}
