//! What a chain allows, for people: one line for each part, its name in a column of its own.

use super::{Effective, EffectiveTools, listed};
use crate::print::{escaped, quoted};
use crate::{ArgumentMatch, Caveat};
use std::fmt;

/// The width of the column of names.
const COLUMN: usize = 10;

impl fmt::Display for Effective {
    /// Several lines without a line end after the last, everything a stranger wrote escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        let mut line = |name: &str, text: String| lines.push(format!("{name:<COLUMN$}  {text}"));
        if let Some(reason) = &self.nothing {
            line("NOTHING", format!("is allowed: {reason}"));
        }
        for (server, rights) in &self.servers {
            let server = escaped(server);
            match &rights.tools {
                EffectiveTools::Any => line("tools", format!("{server}: any")),
                EffectiveTools::Only(tools) if tools.is_empty() => {}
                EffectiveTools::Only(tools) => line("tools", format!("{server}: {}", listed(tools))),
            }
            for uri in &rights.resources {
                line("read", format!("{server}: {}", escaped(uri)));
            }
            if !rights.prompts.is_empty() {
                line("prompts", format!("{server}: {}", listed(&rights.prompts)));
            }
        }
        for (kind, resource) in &self.resources {
            let below = resource.below.as_ref();
            let text = match (&resource.one_of, below) {
                (Some(values), _) if values.is_empty() => "none".to_owned(),
                (Some(values), _) => quoted_list(values),
                (None, below) => format!("below {}", quoted(below.map_or("", String::as_str))),
            };
            line("resource", format!("{}: {text}", escaped(kind)));
        }
        for (pointer, argument) in &self.arguments {
            let texts: Vec<_> = argument
                .matches()
                .iter()
                .map(|matches| match matches {
                    ArgumentMatch::OneOf(values) if values.is_empty() => "none".to_owned(),
                    other => other.to_string(),
                })
                .collect();
            line(
                "argument",
                format!("{}: {}", escaped(pointer), texts.join(", and ")),
            );
        }
        if let Some(methods) = &self.methods {
            line("methods", listed(methods));
        }
        line("audiences", listed(&self.audiences));
        if let Some(networks) = &self.networks {
            line("from", listed(networks));
        }
        if let Some(at) = self.not_before {
            line("not before", date(at));
        }
        line("until", date(self.expires_at));
        for hours in &self.hours {
            let caveat = Caveat::Hours {
                from: hours.from.clone(),
                to: hours.to.clone(),
                offset: hours.offset.clone(),
                days: hours.days.clone(),
            };
            line("hours", caveat.to_string());
        }
        for limit in &self.max_calls {
            line(
                "calls",
                format!("at most {}, counter {}", limit.calls, escaped(&limit.counter)),
            );
        }
        line(
            "hand on",
            format!("{} more, {} so far", self.hand_overs_left, self.depth),
        );
        for check in &self.other_checks {
            line("also", check.clone());
        }
        f.write_str(&lines.join("\n"))
    }
}

fn quoted_list<'a>(values: impl IntoIterator<Item = &'a String>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| quoted(value)).collect();
    values.join(", ")
}

/// RFC 3339 in UTC; a number where there is no such date.
fn date(unix: i64) -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| format!("{unix} (Unix time)"))
}
