//! What can be revoked, as names of 128 bits for the revocation view.
//!
//! A name is 128 bits of a keyed hash (SipHash with a key of this process, std's `RandomState`) over
//! the kind and the parts. The key never leaves the process, so nobody can look for two things of one
//! name beforehand, or for many that crowd one place of the table. Among n entries a look-up of
//! something else meets a name by chance with a probability of n / 2^128: for ten million below
//! 10^-31. It would deny, never allow.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use crate::error::StoreError;
use crate::revocation::{RevocationKey, parse_hex32, parse_thumbprint};

/// A kind of revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Grant,
    Branch,
    Holder,
    Client,
    Subject,
    Delegation,
}

/// One thing that can be revoked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name([u64; 2]);

/// Makes names; those of two makers have nothing in common.
#[derive(Debug, Default)]
pub(crate) struct Namer {
    key: RandomState,
}

impl Kind {
    /// As [`RevocationKey::kind`].
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Branch => "branch",
            Self::Holder => "holder",
            Self::Client => "client",
            Self::Subject => "subject",
            Self::Delegation => "delegation",
        }
    }

    /// Whether a grant's end ends its revocation as well. The others are never forgotten (RULES 29).
    pub(crate) fn ends(self) -> bool {
        match self {
            Self::Grant | Self::Branch | Self::Delegation => true,
            Self::Holder | Self::Client | Self::Subject => false,
        }
    }
}

impl Namer {
    /// The name of a key as the feed spells it.
    ///
    /// # Errors
    /// [`StoreError::MalformedKey`] for one that could never match.
    pub(crate) fn of_key(&self, key: &RevocationKey) -> Result<(Kind, Name), StoreError> {
        key.check()?;
        Ok(match key {
            RevocationKey::Grant(id) => (Kind::Grant, self.grant(id)),
            RevocationKey::Branch(hex) => (Kind::Branch, self.branch(&parse_hex32(hex)?)),
            RevocationKey::Holder(jkt) => (Kind::Holder, self.holder(&parse_thumbprint(jkt)?)),
            RevocationKey::Client(id) => (Kind::Client, self.client(id)),
            RevocationKey::Subject { iss, sub } => (Kind::Subject, self.subject(iss, sub)),
            RevocationKey::Delegation { grant, from, to } => {
                let (from, to) = (parse_thumbprint(from)?, parse_thumbprint(to)?);
                (Kind::Delegation, self.delegation(grant, &from, &to))
            }
        })
    }

    pub(crate) fn grant(&self, id: &str) -> Name {
        self.name(Kind::Grant, &[id.as_bytes()])
    }

    pub(crate) fn branch(&self, id: &[u8; 32]) -> Name {
        self.name(Kind::Branch, &[id])
    }

    pub(crate) fn holder(&self, thumbprint: &[u8; 32]) -> Name {
        self.name(Kind::Holder, &[thumbprint])
    }

    pub(crate) fn client(&self, id: &str) -> Name {
        self.name(Kind::Client, &[id.as_bytes()])
    }

    pub(crate) fn subject(&self, iss: &str, sub: &str) -> Name {
        self.name(Kind::Subject, &[iss.as_bytes(), sub.as_bytes()])
    }

    /// The hand-over within a grant from one thumbprint to another.
    pub(crate) fn delegation(&self, grant: &str, from: &[u8; 32], to: &[u8; 32]) -> Name {
        self.name(Kind::Delegation, &[grant.as_bytes(), from, to])
    }

    fn name(&self, kind: Kind, parts: &[&[u8]]) -> Name {
        let mut hasher = self.key.build_hasher();
        kind.hash(&mut hasher);
        for part in parts {
            // With its length, so that no two lists of parts are the same bytes.
            part.hash(&mut hasher);
        }
        let mut second = hasher.clone();
        second.write_u8(0);
        Name([hasher.finish(), second.finish()])
    }
}

impl Name {
    /// Spreads names evenly over `n` places, `n` a power of two. It takes other bits than [`Hash`].
    pub(crate) fn place(self, n: usize) -> usize {
        let [_, second] = self.0;
        usize::try_from(second % n as u64).unwrap_or_default()
    }
}

/// A name is a keyed hash already: [`Unhashed`] passes it on.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first, _] = self.0;
        state.write_u64(first);
    }
}

/// The hasher of [`Name`]s.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_kind_parts_and_process() {
        let namer = Namer::default();
        assert!(namer.grant("x") == namer.grant("x"));
        assert!(namer.grant("x") != Namer::default().grant("x"), "the key counts");
        let names = [
            namer.grant("x"),
            namer.client("x"),
            namer.grant("y"),
            namer.branch(&[1; 32]),
            namer.holder(&[1; 32]),
            namer.branch(&[2; 32]),
            namer.subject("ab", "c"),
            namer.subject("a", "bc"),
            namer.subject("", "abc"),
            namer.delegation("g", &[1; 32], &[2; 32]),
            namer.delegation("g", &[2; 32], &[1; 32]),
            namer.delegation("h", &[1; 32], &[2; 32]),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{at}");
            let [first, second] = name.0;
            assert_ne!(first, second, "both halves count");
        }
    }

    #[test]
    fn a_key_has_the_name_of_what_it_spells() {
        let namer = Namer::default();
        let check = |key: RevocationKey, kind: Kind, name: Name| {
            assert!(namer.of_key(&key).unwrap() == (kind, name), "{key:?}");
            assert_eq!(key.kind(), kind.as_str());
        };
        check(RevocationKey::Grant("g".into()), Kind::Grant, namer.grant("g"));
        check(
            RevocationKey::Branch("07".repeat(32)),
            Kind::Branch,
            namer.branch(&[7; 32]),
        );
        check(RevocationKey::Client("c".into()), Kind::Client, namer.client("c"));
        let (iss, sub) = ("i".to_owned(), "s".to_owned());
        check(
            RevocationKey::Subject { iss, sub },
            Kind::Subject,
            namer.subject("i", "s"),
        );
        assert!(namer.of_key(&RevocationKey::Holder("x".into())).is_err());
    }
}
