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

pub(crate) use self::definition::{Definition, facts, is_same};
pub(crate) use self::params::proved;
use crate::config::{self, Facts};
use crate::pins::Pinned;
use crate::service::Server;
use crate::upstream::{OwnError, list_tools};

/// The least time between two fetches over HTTP, whoever asks.
const FLOOR: Duration = Duration::from_secs(10);
/// The same where a program is started for each.
const PROGRAM_FLOOR: Duration = Duration::from_secs(60);
/// The first pause after a failure over HTTP; it doubles up to `refresh`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often the file of pins is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
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
    /// What the operator approved, where only that may be called.
    pinned: Option<Arc<Pinned>>,
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

/// Whether a tool may be called, by what the operator approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may: nothing is pinned, or the server describes it as it was approved.
    Free,
    /// It may not, for this reason.
    Barred(&'static str),
    /// The server's list is not known, or too old.
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
    pub(crate) fn new(
        config: &config::Catalogue,
        upstream: &config::Upstream,
        named: bool,
        pinned: Option<Pinned>,
    ) -> Self {
        let over_http = matches!(upstream, config::Upstream::Http { .. });
        let refresh = config.refresh_of(upstream);
        Self {
            facts: config.facts,
            refresh,
            max_age: config.max_age.unwrap_or_else(|| refresh.saturating_mul(AGES)),
            over_http,
            // A program is started for it: only where something depends on its answer.
            eager: over_http || named || pinned.is_some(),
            floor: if over_http { FLOOR } else { PROGRAM_FLOOR }.min(refresh),
            first_pause: if over_http { FIRST_PAUSE } else { PROGRAM_FLOOR }.min(refresh),
            pinned: pinned.map(Arc::new),
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

    /// What the operator approved, if only that may be called.
    pub(crate) fn pinned(&self) -> Option<&Arc<Pinned>> {
        self.pinned.as_ref()
    }

    /// Whether `tool`, of which this is known, may be called (M-44, M-45).
    pub(crate) fn standing(&self, tool: &str, known: &Known) -> Standing {
        let Some(pinned) = &self.pinned else {
            return Standing::Free;
        };
        let pins = pinned.pins();
        match known {
            _ if !pins.names(tool) => Standing::Barred("the tool was never approved"),
            Known::NotYet => Standing::NotYet,
            Known::Nothing => Standing::Barred("the server does not list the tool, or more than once"),
            Known::Described(definition) => {
                if pins.approves(tool, definition.facts.digest.as_deref()) {
                    Standing::Free
                } else {
                    Standing::Barred("the server describes the tool in other words than were approved")
                }
            }
        }
    }

    /// Whether an entry of a list of tools may be shown (M-44). One that may not, and of which the proxy
    /// was not told itself, has the server asked.
    pub(crate) fn shows(&self, entry: &Value, digest: Option<&str>) -> bool {
        let Some(pinned) = &self.pinned else {
            return true;
        };
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let shown = pinned.pins().approves(name, digest);
        if !shown && !pinned.has_told(name) {
            self.want();
        }
        shown
    }

    /// Has the server asked soon. For requests that may pass and depend on what is not known, and for no
    /// others: a program is started for it.
    pub(crate) fn want(&self) {
        self.wanted.send_modify(|wanted| *wanted = wanted.wrapping_add(1));
    }

    /// The server says that its tools changed: it is asked soon, where it is asked before anybody needs it.
    pub(crate) fn changed_upstream(&self) {
        if self.eager {
            self.want();
        }
    }

    /// Whether headers of a caller can reach the server.
    pub(crate) fn sees_headers(&self) -> bool {
        self.over_http && self.facts != Facts::Off
    }

    /// Asks the server once, and keeps its answer. A failure leaves what was known.
    pub(crate) async fn fetch(&self, server: &Server, clock: &SharedClock) -> Result<usize, OwnError> {
        let entries = list_tools(&server.upstream, server.profile.limits.max_list).await?;
        let at = clock.unix();
        let pinned = self.pinned.clone();
        let read = move || {
            if let Some(pinned) = pinned {
                pinned.compare(&entries);
            }
            Listed::new(&entries, at)
        };
        let listed = tokio::task::spawn_blocking(read)
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

/// Looks at the file of pins until `shutdown`, and has the server asked when it has changed.
pub(crate) async fn follow_pins(server: Arc<Server>, shutdown: Shutdown) {
    let Some(pinned) = server.catalogue.pinned() else {
        return;
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let pinned = Arc::clone(pinned);
        match tokio::task::spawn_blocking(move || pinned.reread()).await {
            Ok(true) => server.catalogue.want(),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the pins could not be looked at"),
        }
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
