//! A client for the official MCP conformance suite, which starts it with the URL of a server
//! (`client --command … --scenario auth/dpop`): logs in, and asks the server for its tools.
//!
//! Everything that is tested is the library's; only the browser is played here, which follows the one
//! redirect that the suite answers with.

use taper_agent::login::{Login, Redirect};
use taper_agent::{Era, HolderKey, McpClient, fetcher_for};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::clock::SystemClock;
use taper_service::fetch::Request;
use taper_service::rng;
use url::Url;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let server = std::env::args().nth(1).ok_or("usage: conformance-client URL")?;
    let key = HolderKey::from(PrivateKey::generate(Algorithm::Es256, &mut rng::os()));

    let login = Login::to_resource(&server).await?;
    let redirect = Redirect::listen().await?;
    let client = login.register("taper-conformance", &redirect).await?;
    let pending = login.authorize(client, &redirect, login.scopes(), &key)?;
    let browser = browse(pending.url().clone());
    let (answer, browsed) = tokio::join!(redirect.answer(&pending), browser);
    browsed?;
    let token = pending.redeem(&answer?, &SystemClock).await?;

    let era = match std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION") {
        Ok(version) if version.as_str() < "2026" => Era::Legacy,
        _ => Era::Modern,
    };
    let mut client = McpClient::new(&server, token.into_credential(), era, SystemClock::shared())?;
    client.list_tools().await?;
    client.close().await?;
    Ok(())
}

/// Opens `url` as a browser does, up to the page on loopback.
async fn browse(url: Url) -> Result<(), Failure> {
    let page = fetcher_for(url.as_str())?
        .send(Request::get(url.as_str()).returning_redirects())
        .await?;
    let location = page.headers.get("location").ok_or("there is no redirect")?;
    let location = location.to_str()?;
    let last = fetcher_for(location)?.send(Request::get(location)).await?;
    if last.status.is_success() {
        Ok(())
    } else {
        Err(format!("the login page says {}", last.status).into())
    }
}
