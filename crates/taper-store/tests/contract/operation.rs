//! The operations, and which ones can follow a state of the model.

use proptest::prelude::*;

use crate::model::{COUNTERS, KEYS, MARGIN, Model, START};

/// One operation. Small numbers name grants, keys, tokens and the like.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// A grant that lasts `lasts` seconds; its absolute end is `beyond` seconds later. Another `holder`
    /// makes it conflict.
    Grant {
        issuer: u8,
        id: u8,
        holder: u8,
        lasts: i64,
        beyond: Option<i64>,
    },
    /// A revocation of one of [`KEYS`] keys, which may be forgotten after `until` seconds.
    Revoke {
        issuer: u8,
        key: usize,
        until: Option<i64>,
    },
    /// A page of the feed.
    Page { after: u64, limit: usize },
    /// A client's configuration.
    Client {
        issuer: u8,
        client: u8,
        digest: u8,
        removed: bool,
    },
    /// An issuer's root keys.
    RootKeys { issuer: u8, key: u8 },
    /// A refresh family with the next new token, or one that is known.
    Begin {
        issuer: u8,
        grant: u8,
        lasts: i64,
        known: Option<u64>,
    },
    /// A refresh token is presented; the next one is new, or known.
    Rotate { presented: u64, known: Option<u64> },
    /// Its family ends.
    End { token: u64 },
    /// A call under the counters whose bits are set.
    Reserve { counters: u8 },
    /// The call of this position is allowed.
    Commit { call: usize },
    /// It is given back.
    GiveBack { call: usize },
    /// A proof is used.
    Proof { key: u8, id: u8, keep: i64 },
    /// A decision for the log.
    Audit { later: bool },
    /// Time passes.
    Advance { seconds: i64 },
    /// What has ended is forgotten.
    Sweep,
    /// Everything that records speak about is carried over.
    Carry,
    /// An orderly end.
    Reopen,
    /// An end without order.
    Kill,
    /// The state is filled again from the journal.
    Rebuild,
}

/// Operations that make sense now.
pub(crate) fn operations(model: &Model) -> BoxedStrategy<Operation> {
    use Operation as O;
    let issuer = || 0..2_u8;
    let tokens = model.tokens_made();
    let known = move || prop::option::weighted(0.1, 0..=tokens);
    let lasts = || prop::sample::select(vec![60_i64, 3_600, 90_000, 250_000]);
    let calls = model.calls_under_way().max(1);
    prop_oneof![
        6 => (issuer(), 0..3_u8, prop::bool::weighted(0.1), lasts(), prop::option::of(0..100_000_i64)).prop_map(
            |(issuer, id, stolen, lasts, beyond)| O::Grant { issuer, id, holder: u8::from(stolen), lasts, beyond }
        ),
        6 => (issuer(), 0..KEYS, prop::option::of(0..100_000_i64))
            .prop_map(|(issuer, key, until)| O::Revoke { issuer, key, until }),
        3 => (0..8_u64, 1..6_usize).prop_map(|(after, limit)| O::Page { after, limit }),
        2 => (issuer(), 0..3_u8, 0..2_u8, any::<bool>())
            .prop_map(|(issuer, client, digest, removed)| O::Client { issuer, client, digest, removed }),
        1 => (issuer(), 0..2_u8).prop_map(|(issuer, key)| O::RootKeys { issuer, key }),
        4 => (issuer(), 0..3_u8, lasts(), known())
            .prop_map(|(issuer, grant, lasts, known)| O::Begin { issuer, grant, lasts, known }),
        8 => (0..=tokens, known()).prop_map(|(presented, known)| O::Rotate { presented, known }),
        1 => (0..=tokens).prop_map(|token| O::End { token }),
        5 => (1..1_u8 << COUNTERS).prop_map(|counters| O::Reserve { counters }),
        5 => (0..calls).prop_map(|call| O::Commit { call }),
        1 => (0..calls).prop_map(|call| O::GiveBack { call }),
        3 => (0..2_u8, 0..3_u8, 0..=taper_store::LONGEST_LIFE).prop_map(|(key, id, keep)| O::Proof { key, id, keep }),
        2 => any::<bool>().prop_map(|later| O::Audit { later }),
        4 => prop::sample::select(vec![1_i64, 300, 3_600, 50_000, MARGIN, 200_000])
            .prop_map(|seconds| O::Advance { seconds }),
        3 => Just(O::Sweep),
        1 => Just(O::Carry),
        1 => Just(O::Reopen),
        1 => Just(O::Kill),
        2 => Just(O::Rebuild),
    ]
    .boxed()
}

/// Whether an operation can happen: a call names a place that there is, and nobody uses a counter whose
/// link has ended. A call is under way for minutes, so its counter ends a day after it at the earliest.
pub(crate) fn is_possible(model: &Model, operation: &Operation) -> bool {
    match operation {
        Operation::Reserve { counters } => model.bits(*counters).iter().all(|n| model.lives(*n)),
        Operation::Commit { call } | Operation::GiveBack { call } => *call < model.calls_under_way(),
        Operation::Sweep => model.no_call_outlives_its_counter(),
        Operation::Advance { seconds } => model.now() + seconds < START + 20 * MARGIN,
        Operation::Rotate { presented, known } => {
            *presented <= model.tokens_made() && known.is_none_or(|token| token <= model.tokens_made())
        }
        Operation::End { token } => *token <= model.tokens_made(),
        _ => true,
    }
}
