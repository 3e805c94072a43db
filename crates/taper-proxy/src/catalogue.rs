//! What a server says of its tools to the proxy itself (RULES 20, 25; `spec/proxy.md`, "What a server says
//! of its tools").
//!
//! The list is fetched with a message of the proxy's own ([`crate::upstream::list_tools`]), at the start,
//! every `refresh`, and when a request needs it. Until the first answer, and when the last one is older than
//! `max_age`, nothing is known: what depends on it is not decided (M-42). The server's word never makes
//! anything easier for a caller: body binding and the journal go by the operator's profile alone.

mod decimal;
mod definition;
mod params;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use taper_capability::json::Value;
use taper_capability::{ToolFacts, VerifiedChain};
use taper_policy::boundary::{BoundaryPolicy, depends_on};
use taper_service::clock::SharedClock;
use taper_service::shutdown::Shutdown;
use tokio::sync::watch;

pub(crate) use self::definition::{Definition, facts};
pub(crate) use self::params::proved;
use crate::config::{self, Facts};
use crate::service::Server;
use crate::upstream::{OwnError, list_tools};

/// The least time between two fetches over HTTP, whoever asks.
const FLOOR: Duration = Duration::from_secs(10);
/// The same where a program is started for each.
const PROGRAM_FLOOR: Duration = Duration::from_secs(60);
/// The first pause after a failure over HTTP; it doubles up to `refresh`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How many times `refresh` a list counts, unless configured.
const AGES: u32 = 12;
/// Seconds by which a list may be ahead of a request: it may come while the request is decided. Of one that
/// is further ahead, since the clock was set back, nobody can tell the age.
const AHEAD: i64 = 5;

/// One server's tools, as far as they are known.
pub(crate) struct Catalogue {
    facts: Facts,
    refresh: Duration,
    max_age: Duration,
    /// Whether the server sees headers.
    over_http: bool,
    /// Whether it is fetched before anybody asks.
    eager: bool,
    floor: Duration,
    first_pause: Duration,
    listed: watch::Sender<Option<Arc<Listed>>>,
    /// How often a request needed more than was known.
    wanted: watch::Sender<u64>,
}

/// One complete list.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    /// `None` for a name that was listed twice.
    tools: HashMap<String, Option<Arc<Definition>>>,
    /// When it was complete, in seconds since the Unix epoch.
    at: i64,
}

/// What is known of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// What the server says of it.
    Described(Arc<Definition>),
    /// The server does not list it, or more than once; or nobody asks the server.
    Nothing,
    /// There is no list yet, or none that is young enough.
    NotYet,
}

/// Which facts of a tool a decision depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) hints: bool,
    pub(crate) digest: bool,
}

impl Needed {
    /// What the policy and the checks of a chain name.
    pub(crate) fn by(policy: &BoundaryPolicy, chain: &VerifiedChain) -> Self {
        Self {
            hints: depends_on(policy, chain, "tool_hint"),
            digest: depends_on(policy, chain, "tool_digest"),
        }
    }

    /// Whether any is.
    pub(crate) fn any(self) -> bool {
        self.hints || self.digest
    }

    /// Whether `facts` has what is needed.
    pub(crate) fn met_by(self, facts: &ToolFacts) -> bool {
        (facts.hints.is_some() || !self.hints) && (facts.digest.is_some() || !self.digest)
    }
}

impl Catalogue {
    /// A catalogue of which nothing is known. `named` is whether the policy depends on it.
    pub(crate) fn new(config: &config::Catalogue, upstream: &config::Upstream, named: bool) -> Self {
        let over_http = matches!(upstream, config::Upstream::Http { .. });
        let refresh = config.refresh_of(upstream);
        Self {
            facts: config.facts,
            refresh,
            max_age: config.max_age.unwrap_or_else(|| refresh.saturating_mul(AGES)),
            over_http,
            // A program is started for it: only where something depends on its answer.
            eager: over_http || named,
            floor: if over_http { FLOOR } else { PROGRAM_FLOOR }.min(refresh),
            first_pause: if over_http { FIRST_PAUSE } else { PROGRAM_FLOOR }.min(refresh),
            listed: watch::channel(None).0,
            wanted: watch::channel(0).0,
        }
    }

    /// What is known of `tool` at `now`. Looking asks nobody: see [`Self::want`].
    pub(crate) fn get(&self, tool: &str, now: i64) -> Known {
        if self.facts == Facts::Off {
            return Known::Nothing;
        }
        let max_age = i64::try_from(self.max_age.as_secs()).unwrap_or(i64::MAX);
        let listed = self.listed.borrow().clone();
        let fresh = listed.filter(|listed| (-AHEAD..=max_age).contains(&now.saturating_sub(listed.at)));
        match fresh.as_ref().map(|listed| listed.tools.get(tool)) {
            None => Known::NotYet,
            Some(Some(Some(definition))) => Known::Described(Arc::clone(definition)),
            Some(_) => Known::Nothing,
        }
    }

    /// Has the server asked soon. For requests that may pass and depend on what is not known, and for no
    /// others: a program is started for it.
    pub(crate) fn want(&self) {
        self.wanted.send_modify(|wanted| *wanted = wanted.wrapping_add(1));
    }

    /// Whether headers of a caller can reach the server.
    pub(crate) fn sees_headers(&self) -> bool {
        self.over_http && self.facts != Facts::Off
    }

    /// Asks the server once, and keeps its answer. A failure leaves what was known.
    pub(crate) async fn fetch(&self, server: &Server, clock: &SharedClock) -> Result<usize, OwnError> {
        let entries = list_tools(&server.upstream, server.profile.limits.max_list).await?;
        let at = clock.unix();
        let listed = tokio::task::spawn_blocking(move || Listed::new(&entries, at))
            .await
            .map_err(|_| OwnError::Broken)?;
        let tools = listed.tools.len();
        self.listed.send_replace(Some(Arc::new(listed)));
        Ok(tools)
    }

    /// How often a request needed more than was known.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> u64 {
        *self.wanted.borrow()
    }

    /// When the next list has come.
    #[cfg(test)]
    pub(crate) async fn changed(&self) {
        let mut listed = self.listed.subscribe();
        let _ = listed.wait_for(Option::is_some).await;
    }
}

impl Listed {
    fn new(entries: &[Value], at: i64) -> Self {
        let mut tools: HashMap<String, Option<Arc<Definition>>> = HashMap::new();
        for entry in entries {
            let Some(name) = entry.get("name").and_then(Value::as_str) else {
                continue;
            };
            // Which of two would be called is the server's secret.
            tools
                .entry(name.to_owned())
                .and_modify(|definition| *definition = None)
                .or_insert_with(|| Some(Arc::new(Definition::of(entry))));
        }
        Self { tools, at }
    }
}

/// Keeps a server's list young until `shutdown`.
pub(crate) async fn follow(server: Arc<Server>, clock: SharedClock, shutdown: Shutdown) {
    let catalogue = &server.catalogue;
    if catalogue.facts == Facts::Off {
        return;
    }
    let mut wanted = catalogue.wanted.subscribe();
    let mut pause = catalogue.first_pause;
    let mut rest = if catalogue.eager {
        Duration::ZERO
    } else {
        Duration::MAX
    };
    let mut floor = Duration::ZERO;
    loop {
        let due = async {
            tokio::time::sleep(floor).await;
            let left = rest.saturating_sub(floor);
            let _ = tokio::time::timeout(left, wanted.changed()).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = due => {}
        }
        let fetched = tokio::select! {
            () = shutdown.cancelled() => return,
            fetched = catalogue.fetch(&server, &clock) => fetched,
        };
        let id = &server.profile.id;
        match fetched {
            Ok(tools) => {
                tracing::debug!(mcp.server = id, tools, "the tools of a server were listed");
                pause = catalogue.first_pause;
                rest = catalogue.refresh;
                floor = catalogue.floor;
            }
            Err(error) => {
                tracing::warn!(mcp.server = id, %error, "the tools of a server cannot be listed");
                rest = pause;
                floor = pause;
                pause = pause.saturating_mul(2).min(catalogue.refresh);
            }
        }
    }
}
