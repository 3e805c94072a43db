//! Chains that verified before, by the exact text of their capability (RULES 23).
//!
//! A holder calls many times with one capability; its signatures and the shape of its blocks say the
//! same each time. What may change is never kept: expiry, revocation and the proof are checked on every
//! use. An entry counts for the set of root keys that verified it and no other.
//!
//! Memory is bounded in bytes, and so is each grant's part of it: a holder can make as many capabilities
//! as it likes, and all of them verify. When there is no room, the entries that were not used since the
//! last look leave first, of the grant itself when it is over its share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use taper_capability::VerifiedChain;
use taper_dpop::TokenHash;
use taper_service::metrics::Counter;

/// A grant has at most this part of the memory.
const SHARE: usize = 16;
/// What an entry costs beside its text, in bytes.
const FIXED: usize = 2048;
/// The longest head of a proof that is kept, in bytes. Ours has 150, one for P-256 has 240.
const MAX_HEAD: usize = 384;
/// What a byte of the text costs once it is decoded. Ordinary chains were measured at 2.5 to 4.5; checks
/// with many short values cost most, about 12 by the sizes of their terms.
const PER_BYTE: usize = 16;
/// What a compiled pattern costs; the largest of the dialect were measured at 38 KB.
const PATTERN: usize = 64 * 1024;

/// The cache.
#[derive(Debug)]
pub(crate) struct Chains {
    /// Bytes in all; with 0 nothing is kept.
    max: usize,
    state: Mutex<State>,
    hits: Counter,
    misses: Counter,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<TokenHash, Entry>,
    /// What each grant has, by its issuer and id.
    grants: HashMap<Grant, Held>,
    /// All entries by their numbers, the next to look at first.
    order: BTreeMap<u64, TokenHash>,
    bytes: usize,
    next: u64,
}

type Grant = (String, String);

/// What is known of a text.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) chain: Arc<VerifiedChain>,
    /// The first segment of the proof that it came with.
    pub(crate) head: Option<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    found: Found,
    roots: u64,
    cost: usize,
    /// Its place in the orders.
    number: u64,
    /// Since it was last looked at to make room.
    used: bool,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    order: BTreeMap<u64, TokenHash>,
}

impl Chains {
    /// A cache of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            state: Mutex::default(),
            hits: Counter::default(),
            misses: Counter::default(),
        }
    }

    /// What is known of this text, if it verified with these root keys before. Its expiry, its revocation
    /// and its holder's proof are the caller's to check.
    pub(crate) fn find(&self, text: &TokenHash, roots: u64) -> Option<Found> {
        let found = self.look_up(text, roots);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.add();
        found
    }

    /// The same of a chain that is `wanted`. One that is not found, or not wanted, is not counted: it is
    /// looked for again.
    pub(crate) fn find_if(
        &self,
        text: &TokenHash,
        roots: u64,
        wanted: impl Fn(&VerifiedChain) -> bool,
    ) -> Option<Found> {
        let found = self.look_up(text, roots).filter(|found| wanted(&found.chain));
        if found.is_some() {
            self.hits.add();
        }
        found
    }

    fn look_up(&self, text: &TokenHash, roots: u64) -> Option<Found> {
        if self.max == 0 {
            return None;
        }
        let mut state = self.lock();
        let entry = state.entries.get_mut(text).filter(|entry| entry.roots == roots)?;
        entry.used = true;
        Some(entry.found.clone())
    }

    /// Keeps a chain whose capability, `length` bytes of text, verified with these root keys and came
    /// with a good proof, which began with `head`, if there is room.
    pub(crate) fn keep(&self, chain: &Arc<VerifiedChain>, length: usize, head: Option<&str>, roots: u64) {
        let patterns = chain.patterns().saturating_mul(PATTERN);
        let cost = length
            .saturating_mul(PER_BYTE)
            .saturating_add(FIXED)
            .saturating_add(patterns);
        let head = head.filter(|head| head.len() <= MAX_HEAD);
        let share = self.max / SHARE;
        if cost > share {
            return;
        }
        let text = chain.token_hash();
        let grant = grant_of(chain);
        let mut state = self.lock();
        state.take(&text);
        while state.held(&grant).saturating_add(cost) > share {
            state.make_room(Some(&grant));
        }
        while state.bytes.saturating_add(cost) > self.max {
            state.make_room(None);
        }
        let entry = Entry {
            found: Found {
                chain: Arc::clone(chain),
                head: head.map(Arc::from),
            },
            roots,
            cost,
            number: 0,
            used: false,
        };
        state.put(text, entry);
    }

    /// How many were found since the start, and how many were not.
    pub(crate) fn lookups(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    /// How many there are, and what they cost in bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.lock();
        (state.entries.len(), state.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn held(&self, grant: &Grant) -> usize {
        self.grants.get(grant).map_or(0, |held| held.bytes)
    }

    /// Removes one entry that was not used since the last look, of one grant or of all. A look takes the
    /// mark of a used entry away and puts it last, so this ends.
    fn make_room(&mut self, of: Option<&Grant>) {
        loop {
            let first = match of {
                Some(grant) => self
                    .grants
                    .get(grant)
                    .and_then(|held| held.order.first_key_value()),
                None => self.order.first_key_value(),
            };
            let Some(text) = first.map(|(_, text)| *text) else {
                return;
            };
            let Some(mut entry) = self.take(&text) else {
                return;
            };
            if !std::mem::take(&mut entry.used) {
                return;
            }
            self.put(text, entry);
        }
    }

    /// Puts an entry last.
    fn put(&mut self, text: TokenHash, mut entry: Entry) {
        entry.number = self.next;
        self.next = self.next.wrapping_add(1);
        self.order.insert(entry.number, text);
        self.bytes = self.bytes.saturating_add(entry.cost);
        let held = self.grants.entry(grant_of(&entry.found.chain)).or_default();
        held.order.insert(entry.number, text);
        held.bytes = held.bytes.saturating_add(entry.cost);
        self.entries.insert(text, entry);
    }

    fn take(&mut self, text: &TokenHash) -> Option<Entry> {
        let entry = self.entries.remove(text)?;
        self.order.remove(&entry.number);
        self.bytes = self.bytes.saturating_sub(entry.cost);
        let grant = grant_of(&entry.found.chain);
        if let Some(held) = self.grants.get_mut(&grant) {
            held.order.remove(&entry.number);
            held.bytes = held.bytes.saturating_sub(entry.cost);
            if held.order.is_empty() {
                self.grants.remove(&grant);
            }
        }
        Some(entry)
    }
}

fn grant_of(chain: &VerifiedChain) -> Grant {
    (chain.issuer().to_owned(), chain.grant_id().to_owned())
}

#[cfg(test)]
mod tests {
    use taper_capability::{
        ArgumentMatch, Caveat, Grant, Party, Right, RootKey, Roots, UnverifiedToken, Verifier, issue,
    };
    use taper_dpop::{Algorithm, PrivateKey};
    use taper_service::rng;

    use super::*;

    const ISSUER: &str = "https://issuer.test";
    /// Room for sixteen entries of a grant and 256 in all.
    const ENTRY: usize = FIXED + LENGTH * PER_BYTE;
    const LENGTH: usize = 1000;

    /// Verified chains, each of another text; several may be of one grant.
    struct World {
        root: RootKey,
        verifier: Verifier,
    }

    impl World {
        fn new() -> Self {
            let root = RootKey::generate(1, &mut rng::os());
            let roots = Roots::new().trust(ISSUER, 1, root.public(), None).unwrap();
            Self {
                root,
                verifier: Verifier::new(roots),
            }
        }

        fn chain(&self, grant: &str) -> Arc<VerifiedChain> {
            self.with(grant, Vec::new())
        }

        fn with(&self, grant: &str, caveats: Vec<Caveat>) -> Arc<VerifiedChain> {
            let grant = Grant {
                issuer: ISSUER.into(),
                id: grant.into(),
                subject: Party {
                    iss: "https://idp.test".into(),
                    sub: "alice".into(),
                },
                client: "dev".into(),
                actor: None,
                holder: PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()).public(),
                audiences: vec!["https://proxy.test/git/mcp".into()],
                rights: vec![Right::AnyTool { server: "git".into() }],
                claims: vec![],
                issued_at: 0,
                expires_at: 1000,
                max_depth: 3,
                caveats,
            };
            let token = issue(&grant, &self.root, &mut rng::os()).unwrap();
            let token = UnverifiedToken::decode(token.as_str()).unwrap();
            Arc::new(self.verifier.verify(token, 1).unwrap())
        }
    }

    fn id(n: usize) -> String {
        taper_dpop::base64url_encode(&[u8::try_from(n).unwrap(); 16])
    }

    fn whole(chains: &Chains) {
        let state = chains.lock();
        let costs: usize = state.entries.values().map(|entry| entry.cost).sum();
        let held: usize = state.grants.values().map(|held| held.bytes).sum();
        let orders: usize = state.grants.values().map(|held| held.order.len()).sum();
        assert_eq!((state.bytes, state.order.len()), (costs, state.entries.len()));
        assert_eq!((held, orders), (costs, state.entries.len()));
        assert!(state.bytes <= chains.max);
        assert!(state.grants.values().all(|held| held.bytes <= chains.max / SHARE));
    }

    #[test]
    fn a_chain_is_found_by_its_text_and_its_root_keys() {
        let (world, chains) = (World::new(), Chains::new(ENTRY * SHARE));
        let (one, other) = (world.chain(&id(1)), world.chain(&id(1)));
        chains.keep(&one, LENGTH, None, 7);
        let found = chains.find(&one.token_hash(), 7).unwrap();
        assert!(Arc::ptr_eq(&found.chain, &one));
        assert!(chains.find(&one.token_hash(), 8).is_none(), "other root keys");
        assert!(chains.find(&other.token_hash(), 7).is_none(), "another text");
        chains.keep(&one, LENGTH, None, 8);
        assert!(chains.find(&one.token_hash(), 7).is_none() && chains.find(&one.token_hash(), 8).is_some());
        whole(&chains);
        let none = Chains::new(0);
        none.keep(&one, LENGTH, None, 7);
        assert!(none.find(&one.token_hash(), 7).is_none());
    }

    #[test]
    fn a_grant_has_its_share_and_all_of_them_their_bytes() {
        let (world, chains) = (World::new(), Chains::new(ENTRY * SHARE * 2));
        let honest = world.chain(&id(0));
        chains.keep(&honest, LENGTH, None, 0);
        for _ in 0..10 {
            chains.keep(&world.chain(&id(1)), LENGTH, None, 0);
            whole(&chains);
        }
        assert_eq!(
            chains.lock().entries.len(),
            3,
            "two of one grant, one of the other"
        );
        assert!(chains.find(&honest.token_hash(), 0).is_some());
        for n in 2..60 {
            assert!(chains.find(&honest.token_hash(), 0).is_some(), "in use: {n}");
            chains.keep(&world.chain(&id(n)), LENGTH, None, 0);
            whole(&chains);
        }
        assert_eq!(chains.lock().entries.len(), SHARE * 2);
        chains.keep(&world.chain(&id(70)), LENGTH * 3, None, 0);
        whole(&chains);
        let large = world.chain(&id(71));
        chains.keep(&large, LENGTH * 30, None, 0);
        assert!(
            chains.find(&large.token_hash(), 0).is_none(),
            "larger than a share"
        );
        whole(&chains);
    }

    #[test]
    fn a_chain_counts_with_its_patterns() {
        let (world, chains) = (World::new(), Chains::new(4 * PATTERN * SHARE));
        let caveat = |n: usize| Caveat::Argument {
            pointer: "/a".into(),
            matches: ArgumentMatch::Matches(format!("a{{{n}}}")),
        };
        let patterns = |n: usize| world.with(&id(n), (1..=n).map(caveat).collect());
        let (few, many) = (patterns(3), patterns(4));
        assert_eq!((few.patterns(), many.patterns()), (3, 4));
        chains.keep(&few, LENGTH, None, 0);
        chains.keep(&many, LENGTH, None, 0);
        assert!(chains.find(&few.token_hash(), 0).is_some());
        assert!(
            chains.find(&many.token_hash(), 0).is_none(),
            "larger than a share"
        );
        assert_eq!(chains.lock().bytes, ENTRY + 3 * PATTERN);
        whole(&chains);
    }
}
