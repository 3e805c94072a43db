//! A capability without hand-over for tests, and everybody's keys.

use std::path::PathBuf;

use taper_agent::keyfile;
use taper_capability::{Grant, Party, Right, RootKey, Token, issue};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::rng;
use tempfile::TempDir;

use crate::context::testing::NOW;

pub(super) struct Chain {
    pub(super) issuer: String,
    pub(super) root: RootKey,
    pub(super) token: Token,
    pub(super) folder: TempDir,
}

impl Chain {
    /// A capability that was granted a minute ago and ends then.
    pub(super) fn new(expires_at: i64) -> Self {
        let root = RootKey::generate(1, &mut rng::os());
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let issuer = "https://issuer.example".to_owned();
        let grant = Grant {
            issuer: issuer.clone(),
            id: Grant::new_id(&mut rng::os()),
            subject: Party {
                iss: "https://idp.example".into(),
                sub: "alice".into(),
            },
            client: "dev".into(),
            actor: None,
            holder: key.public(),
            audiences: vec!["https://proxy.example/git/mcp".into()],
            rights: vec![Right::AnyTool { server: "git".into() }],
            claims: Vec::new(),
            issued_at: NOW - 60,
            expires_at,
            max_depth: 3,
            caveats: Vec::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        keyfile::create(&folder.path().join("key"), &key).unwrap();
        Self {
            token: issue(&grant, &root, &mut rng::os()).unwrap(),
            issuer,
            root,
            folder,
        }
    }

    /// The holder's key file.
    pub(super) fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }
}
