//! The statements of a block, good ones to begin with.

use taper_dpop::{Algorithm, PrivateKey};

/// When the grant ends: an hour after now.
pub(crate) const GRANT_ENDS: &str = "2027-01-15T09:00:00Z";
/// When a later block ends: half an hour after now.
pub(crate) const LINK_ENDS: &str = "2027-01-15T08:30:00Z";

/// A block as statements of Datalog, each without its semicolon.
#[derive(Clone)]
pub(crate) struct Block(Vec<String>);

impl Block {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Block 0: every tool of `git`, to be handed on three times at most.
    pub(crate) fn grant(issuer: &str, id: &str, audience: &str, key: &PrivateKey) -> Self {
        Self(vec![
            "taper(1)".into(),
            format!("issuer(\"{issuer}\")"),
            format!("grant(\"{id}\")"),
            "subject(\"https://idp.example\", \"alice\")".into(),
            "client(\"dev\")".into(),
            holder(key),
            format!("for_audience(\"{audience}\")"),
            "right_any_tool(\"git\")".into(),
            "claim(\"groups\", \"eng\")".into(),
            "issued_at(2027-01-15T08:00:00Z)".into(),
            "max_depth(3)".into(),
            expiry(GRANT_ENDS),
        ])
    }

    /// A later block that names this holder.
    pub(crate) fn later(holder: &str) -> Self {
        Self(vec![holder.to_owned(), expiry(LINK_ENDS)])
    }

    /// Adds a statement.
    pub(crate) fn add(&mut self, statement: &str) -> &mut Self {
        self.0.push(statement.to_owned());
        self
    }

    /// Adds a statement several times.
    pub(crate) fn fill(&mut self, times: usize, statement: &str) {
        self.0.extend(vec![statement.to_owned(); times]);
    }

    /// Puts a statement in the place of the one that begins with `start`.
    pub(crate) fn swap(&mut self, start: &str, statement: &str) -> &mut Self {
        let at = self.position(start);
        self.0[at] = statement.to_owned();
        self
    }

    /// Takes out the statement that begins with `start`.
    pub(crate) fn drop(&mut self, start: &str) -> &mut Self {
        let at = self.position(start);
        self.0.remove(at);
        self
    }

    /// Another end.
    pub(crate) fn ends(&mut self, date: &str) -> &mut Self {
        self.swap(EXPIRY, &expiry(date))
    }

    /// The statement that begins with `start`.
    pub(crate) fn statement(&self, start: &str) -> String {
        self.0[self.position(start)].clone()
    }

    /// The text.
    pub(crate) fn source(&self) -> String {
        self.0.iter().map(|statement| format!("{statement};\n")).collect()
    }

    fn position(&self, start: &str) -> usize {
        let at = self.0.iter().position(|statement| statement.starts_with(start));
        at.unwrap_or_else(|| panic!("no `{start}` in {:?}", self.0))
    }
}

/// How an expiry begins.
pub(crate) const EXPIRY: &str = "check if time(";

/// The one accepted form of an expiry.
pub(crate) fn expiry(date: &str) -> String {
    format!("{EXPIRY}$time), $time < {date}")
}

/// The fact that names a holder.
pub(crate) fn holder(key: &PrivateKey) -> String {
    let algorithm = match key.algorithm() {
        Algorithm::EdDsa => "ed25519",
        Algorithm::Es256 => "secp256r1",
    };
    holder_of(algorithm, &key.public().to_bytes())
}

/// A fact `holder` with any terms of the right types.
pub(crate) fn holder_of(algorithm: &str, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("holder(\"{algorithm}\", hex:{hex})")
}
