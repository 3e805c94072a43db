//! Requests as bytes, so that each part of one can be made wrong on purpose.

use rand_core::OsRng;
use taper_dpop::{PrivateKey, ProofClaims};

use crate::{Answer, authority, raw};

/// Seconds since the Unix epoch.
#[allow(clippy::disallowed_methods)]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    since.as_secs().try_into().unwrap()
}

/// One HTTP/1.1 request. What is not made wrong is right: length, host, and the proof over the bytes
/// that are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The whole URL, as proofs name it.
    pub url: String,
    /// The request line's method.
    pub method: String,
    /// The request line's target.
    pub target: String,
    /// Headers beside the ones made by [`Call::bytes`].
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// What the proof's `ath` is made of.
    pub token: Option<String>,
    /// The proof's key; without one there is no proof.
    pub key: Option<String>,
    /// Proofs that are sent instead of the right one.
    pub proofs: Option<Vec<String>>,
    /// Whether `content-length` is sent.
    pub length: bool,
}

impl Call {
    /// A request without credentials.
    pub fn new(method: &str, url: &str) -> Self {
        let target = url
            .split("://")
            .nth(1)
            .unwrap()
            .split_once('/')
            .map_or("", |(_, path)| path);
        Self {
            url: url.to_owned(),
            method: method.to_owned(),
            target: format!("/{target}"),
            headers: Vec::new(),
            body: Vec::new(),
            token: None,
            key: None,
            proofs: None,
            length: method == "POST",
        }
    }

    /// A form to an issuer's endpoint, proven with a private JWK.
    pub fn form(url: &str, form: &str, key: &str) -> Self {
        let call = Self {
            key: Some(key.to_owned()),
            ..Self::new("POST", url)
        };
        call.header("content-type", "application/x-www-form-urlencoded")
            .body(form)
    }

    /// A message of MCP, presented with a capability.
    pub fn mcp(url: &str, token: &str, key: &str, message: &str) -> Self {
        let call = Self {
            token: Some(token.to_owned()),
            key: Some(key.to_owned()),
            ..Self::new("POST", url)
        };
        call.header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("authorization", format!("DPoP {token}"))
            .body(message)
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }

    /// With another header of this name.
    #[must_use]
    pub fn instead(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).header(name, value)
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// With the first occurrence of `from` in the body replaced.
    #[must_use]
    pub fn edit(mut self, from: &str, to: &str) -> Self {
        let body = String::from_utf8(self.body).unwrap();
        assert!(body.contains(from), "{from} is not in {body}");
        self.body = body.replacen(from, to, 1).into_bytes();
        self
    }

    /// With another request line.
    #[must_use]
    pub fn line(mut self, method: &str, target: &str) -> Self {
        (self.method, self.target) = (method.to_owned(), target.to_owned());
        self
    }

    /// With these proofs instead of the right one.
    #[must_use]
    pub fn proofs(mut self, proofs: &[&str]) -> Self {
        self.proofs = Some(proofs.iter().map(|&proof| proof.to_owned()).collect());
        self
    }

    /// With the proof that these claims make.
    #[must_use]
    pub fn proven_by(self, key: &str, claims: &ProofClaims) -> Self {
        let proof = claims.sign(&PrivateKey::from_jwk_str(key).unwrap()).unwrap();
        self.proofs(&[&proof])
    }

    /// The claims of the right proof, a new one each time.
    pub fn claims(&self) -> ProofClaims {
        let claims = ProofClaims::new(&self.method, &self.url, now(), &mut OsRng);
        let claims = if self.body.is_empty() {
            claims
        } else {
            claims.body(&self.body)
        };
        match &self.token {
            Some(token) => claims.token(token),
            None => claims,
        }
    }

    /// The right proof, a new one each time.
    pub fn proof(&self) -> String {
        self.claims()
            .sign(&PrivateKey::from_jwk_str(self.key.as_ref().unwrap()).unwrap())
            .unwrap()
    }

    /// The value of a header, as text.
    pub fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(given, _)| given == name)?;
        std::str::from_utf8(value).ok()
    }

    fn sent_proofs(&self) -> Vec<String> {
        let right = || self.key.iter().map(|_| self.proof()).collect();
        self.proofs.clone().unwrap_or_else(right)
    }

    /// The request as HTTP/2 sends it: the same, with the host as `:authority`.
    pub fn fields(&self) -> Vec<(String, Vec<u8>)> {
        let host = self
            .value("host")
            .unwrap_or_else(|| authority(&self.url))
            .as_bytes();
        let mut fields = vec![
            (":method".to_owned(), self.method.clone().into_bytes()),
            (":scheme".to_owned(), b"http".to_vec()),
            (":authority".to_owned(), host.to_vec()),
            (":path".to_owned(), self.target.clone().into_bytes()),
        ];
        for proof in self.sent_proofs() {
            fields.push(("dpop".to_owned(), proof.into_bytes()));
        }
        let others = self.headers.iter().filter(|(name, _)| name != "host");
        fields.extend(others.cloned());
        fields
    }

    /// The whole request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "{} {} HTTP/1.1\r\nconnection: close\r\n",
            self.method, self.target
        )
        .into_bytes();
        let mut put = |name: &str, value: &[u8]| {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        if !self.headers.iter().any(|(name, _)| name == "host") {
            put("host", authority(&self.url).as_bytes());
        }
        if self.length {
            put("content-length", self.body.len().to_string().as_bytes());
        }
        for proof in self.sent_proofs() {
            put("dpop", proof.as_bytes());
        }
        for (name, value) in &self.headers {
            put(name, value);
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends it.
    pub fn send(&self) -> Answer {
        raw(&self.url, &self.bytes())
    }
}
