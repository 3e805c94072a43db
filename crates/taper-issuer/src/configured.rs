//! Which clients and root keys are in force, in the audit log: a record where something differs from
//! what the log said last.

use serde_json::json;
use sha2::{Digest as _, Sha256};
use taper_store::{ClientRecord, Clients as _, RootKeyRecord, RootKeysRecord, StoreError};

use crate::clients::Client;
use crate::state::Shared;

/// Records every client that is new, changed or gone, and the root keys if they are others.
///
/// # Errors
/// When one could not be recorded; the issuer does not start then.
pub(crate) async fn record(shared: &Shared) -> Result<(), StoreError> {
    let (parts, store) = (&shared.parts, &shared.store);
    let configured: Vec<ClientRecord> = parts
        .clients
        .all()
        .map(|client| client_record(&parts.issuer, client))
        .collect();
    for known in store.clients(&parts.issuer).await? {
        if !known.removed && configured.iter().all(|client| client.client != known.client) {
            tracing::info!(client.id = known.client, "the client is removed");
            let removed = ClientRecord {
                removed: true,
                ..known
            };
            store.put_client(removed).await?;
        }
    }
    for client in configured {
        let id = client.client.clone();
        if store.put_client(client).await?.is_some() {
            tracing::info!(client.id = id, "the client is new or changed");
        }
    }
    let key = |key: &taper_capability::RootKey| RootKeyRecord {
        id: key.id(),
        thumbprint: key.public().thumbprint().to_string(),
    };
    let keys = RootKeysRecord {
        issuer: parts.issuer.clone(),
        keys: parts.keys.iter().map(key).collect(),
    };
    if store.put_root_keys(keys).await?.is_some() {
        tracing::info!("the root keys are new or changed");
    }
    Ok(())
}

/// What the log says of a client. A changed secret changes nothing here: its hash would let a weak one
/// be guessed from the log.
fn client_record(issuer: &str, client: &Client) -> ClientRecord {
    let method = if client.is_confidential() {
        "client_secret_basic"
    } else {
        "none"
    };
    let configuration = json!({
        "id": client.id(),
        "method": method,
        "feed": client.may_read_feed(),
        "introspect": client.may_introspect(),
    });
    let digest = Sha256::digest(configuration.to_string());
    ClientRecord {
        issuer: issuer.to_owned(),
        client: client.id().to_owned(),
        method: method.to_owned(),
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        removed: false,
    }
}
