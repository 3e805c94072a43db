//! Another access token without a browser: the refresh token of a login (RFC 6749 section 6, RFC 9700
//! section 4.14.2).

use http::StatusCode;
use taper_oauth::{Secret, response};
use taper_service::clock::Clock;

use super::{FORM, LoggedIn, Login};
use crate::issuer::{refusal, unusable};
use crate::proven::{self, Outgoing, Prover};
use crate::{Client, Error, HolderKey};

impl Login {
    /// Redeems a refresh token for another access token that is bound to `key`, the key of the login. A server
    /// that rotates gives another refresh token with it, after which the old one is worth nothing, or less:
    /// who presents it again may end the login. So only one process at a time may do this, and must keep what it
    /// gets before it uses it.
    ///
    /// # Errors
    /// [`Error::Issuer`] when the server refuses, with `invalid_grant` for good; [`Error::Answer`] when the token
    /// is not bound to the key; [`Error::Fetch`].
    pub async fn refresh(
        &self,
        client: &Client,
        refresh_token: &Secret,
        key: &HolderKey,
        clock: &dyn Clock,
    ) -> Result<LoggedIn, Error> {
        let url = self.endpoint("token_endpoint", self.server.token_endpoint.as_deref())?;
        let mut outgoing = Outgoing::post(url, FORM, self.refresh_form(client, refresh_token));
        outgoing.headers = client.headers()?;
        outgoing.max_bytes = response::MAX_ANSWER;
        let prover = Prover {
            key,
            token: None,
            presents: false,
        };
        let now = clock.unix();
        let answer = proven::send(&self.fetcher, clock, prover, outgoing, &mut None).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(url, &answer));
        }
        let mut refreshed =
            LoggedIn::parse(&answer, key.clone(), now).map_err(|reason| unusable(url, reason))?;
        // A server that does not rotate says nothing of it: the old one stays.
        refreshed
            .refresh_token
            .get_or_insert_with(|| Secret::new(refresh_token.expose()));
        Ok(refreshed)
    }

    fn refresh_form(&self, client: &Client, refresh_token: &Secret) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh_token.expose())
            .append_pair("client_id", &client.id);
        if let Some(resource) = &self.resource {
            form.append_pair("resource", resource);
        }
        form.finish()
    }
}
