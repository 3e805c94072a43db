//! What a daemon counts of the connections of its listeners: those that are open, and those from which no
//! request came, for what cannot become one has no other trace.

use crate::metrics::{Gauge, Held, Label, Registry, Shown, Table};

/// Why a connection ended before a request came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The peer showed no certificate, or one that does not count.
    Certificate,
    /// Another failure of the TLS handshake.
    Handshake,
    /// The handshake or the first head took too long.
    Slow,
    /// A head that HTTP does not allow or that is too large, or a transfer coding that nobody decodes.
    Malformed,
}

impl Refused {
    const NAMES: [&str; 4] = ["certificate", "handshake", "slow", "malformed"];
}

/// The families of a daemon's listeners.
#[derive(Debug)]
pub struct Listeners {
    open: Vec<Gauge>,
    limits: Vec<Gauge>,
    full: Table<1>,
    refused: Table<2>,
}

/// One of them, for its [`Bound`](super::Bound); the default counts nothing.
#[derive(Clone, Debug, Default)]
pub struct Counted(Option<Families>);

#[derive(Clone, Debug)]
struct Families {
    listener: usize,
    open: Gauge,
    limit: Gauge,
    full: Table<1>,
    refused: Table<2>,
}

impl Listeners {
    /// Puts the families on the page; their names begin with `program`. `names` are the values of the label
    /// `listener`.
    pub fn new(registry: &mut Registry, program: &str, names: &[&str]) -> Self {
        let name = |what: &str| format!("{program}_{what}");
        let label = || Label::new("listener", names);
        Self {
            open: registry.gauges(&name("connections"), "Connections that are open.", label()),
            limits: registry.gauges(
                &name("connections_limit"),
                "Connections that may be open (`edge.max_connections`).",
                label(),
            ),
            full: registry.table(
                &name("connections_full_total"),
                "Times that so many were open, and further ones waited.",
                [label()],
                Shown::All,
            ),
            refused: registry.table(
                &name("connections_refused_total"),
                "Connections that ended for what is no request.",
                [label(), Label::new("reason", Refused::NAMES)],
                Shown::All,
            ),
        }
    }

    /// The listener at `place` of the names. One that is not there counts nothing.
    pub fn of(&self, place: usize) -> Counted {
        let families = self.open.get(place).zip(self.limits.get(place));
        Counted(families.map(|(open, limit)| Families {
            listener: place,
            open: open.clone(),
            limit: limit.clone(),
            full: self.full.clone(),
            refused: self.refused.clone(),
        }))
    }
}

impl Counted {
    pub(super) fn limit(&self, connections: usize) {
        if let Some(families) = &self.0 {
            families.limit.set_count(connections);
        }
    }

    /// All places are taken.
    pub(super) fn full(&self) {
        if let Some(families) = &self.0 {
            families.full.add([families.listener]);
        }
    }

    /// One more connection, until the answer is dropped.
    pub(super) fn open(&self) -> Option<Held> {
        self.0.as_ref().map(|families| families.open.hold())
    }

    pub(super) fn refused(&self, reason: Refused) {
        if let Some(families) = &self.0 {
            families.refused.add([families.listener, reason as usize]);
        }
    }
}
