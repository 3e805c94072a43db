//! `POST /token`: what is asked for, what a policy makes of it, and what stands in its way.

use serde_json::{Value, json};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::clock::{ManualClock, SharedClock};
use taper_service::config::parse;
use taper_service::rng;
use taper_service::shutdown::Shutdown;

use super::provider::Provider;
use super::support::{Answer, Ask, GIT, NOW, Rig, config_text, send, write_files};
use crate::{Config, Issuer};

#[tokio::test]
async fn scopes_targets_and_details() {
    let rig = Rig::new().await;
    let ask = || rig.ask();
    ask()
        .without("scope")
        .refused("nothing asked", 400, "invalid_scope")
        .await;
    ask()
        .set("scope", "git")
        .refused("malformed", 400, "invalid_scope")
        .await;
    ask()
        .set("scope", "mail:*")
        .refused("unknown server", 400, "invalid_target")
        .await;
    ask()
        .set("resource", "https://x.example")
        .refused("resource", 400, "invalid_target")
        .await;
    ask()
        .set("audience", "mail")
        .refused("audience", 400, "invalid_target")
        .await;
    ask()
        .set("resource", "git")
        .refused("id as resource", 400, "invalid_target")
        .await;
    ask()
        .set("audience", "wiki")
        .refused("other target", 400, "invalid_target")
        .await;
    ask().set("resource", GIT).accepted("resource").await;
    ask()
        .set("audience", "git")
        .add("audience", GIT)
        .accepted("audience")
        .await;
    let any = ask().set("scope", "git:*").accepted("any tool").await;
    assert_eq!(any.json["scope"], "git:*");

    let detail = |tool: &str, rest: Value| {
        let mut entry = json!({"type": "mcp", "server": "git", "tools": [tool]});
        entry
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        entry
    };
    let web = || detail("git_log", json!({"resources": {"repo": ["acme/web"]}}));
    let asked = |entries: Value| {
        ask()
            .without("scope")
            .set("authorization_details", entries.to_string())
    };
    let refused = async |name: &str, ask: Ask<'_>| {
        ask.refused(name, 400, "invalid_authorization_details").await;
    };
    let answer = asked(json!([web()])).accepted("details").await;
    assert_eq!(answer.json["scope"], "git:git_log");
    let granted: &Value = &answer.json["authorization_details"][0];
    assert_eq!(granted["tools"], json!(["git_log"]));
    assert_eq!(granted["resources"], json!({"repo": ["acme/web"]}));
    let chain = rig.verify(answer.json["access_token"].as_str().unwrap());
    let caveats: Vec<String> = chain.links()[0]
        .caveats
        .iter()
        .filter_map(|check| check.caveat().map(ToString::to_string))
        .collect();
    assert!(
        caveats.iter().any(|caveat| caveat.contains("acme/web")),
        "{caveats:?}"
    );

    let payroll = detail("git_show", json!({"resources": {"repo": ["acme/payroll"]}}));
    let show = detail("git_show", json!({"resources": {"repo": ["acme/web"]}}));
    asked(json!([web(), show])).accepted("same resources").await;
    refused("different resources", asked(json!([web(), payroll]))).await;
    refused(
        "one without",
        asked(json!([web(), detail("git_show", json!({}))])),
    )
    .await;
    refused("scope beside", asked(json!([web()])).set("scope", "git:git_show")).await;
    refused(
        "kind",
        asked(json!([detail("git_log", json!({"resources": {"Repo": ["a"]}}))])),
    )
    .await;
    refused(
        "past",
        asked(json!([detail(
            "git_log",
            json!({"until": "2020-01-01T00:00:00Z"})
        )])),
    )
    .await;
    refused("malformed", ask().set("authorization_details", "[]")).await;
    let soon = taper_service::clock::rfc3339(NOW + 60);
    let until = asked(json!([detail("git_log", json!({"until": soon}))]))
        .accepted("until")
        .await;
    assert_eq!(until.json["expires_in"], 60);
}

/// nothing is granted that no verifier takes.
#[tokio::test]
async fn what_is_granted_can_be_used() {
    let rig = Rig::new().await;
    let tools = |entries: usize| {
        let entry = |i: usize| {
            let names: Vec<_> = (0..100).map(|n| format!("t{}", i * 100 + n)).collect();
            json!({"type": "mcp", "server": "git", "tools": names})
        };
        let entries: Vec<_> = (0..entries).map(entry).collect();
        rig.ask()
            .without("scope")
            .set("authorization_details", json!(entries).to_string())
    };
    let granted = tools(2).accepted("200 tools").await;
    let chain = rig.verify(granted.json["access_token"].as_str().unwrap());
    assert_eq!(chain.rights().len(), 200);
    let refused = tools(3).refused("300 tools", 400, "invalid_scope").await;
    assert!(refused.text.contains("ask for less"), "{}", refused.text);
}

#[tokio::test]
async fn policies_decide() {
    let rig = Rig::new().await;
    let subject = |change: &dyn Fn(&mut Value)| rig.ask().set("subject_token", rig.token(|c| change(c)));
    let none = subject(&|c| c["groups"] = json!(["sales"]))
        .refused("none", 400, "invalid_scope")
        .await;
    assert!(
        none.json["error_description"]
            .as_str()
            .unwrap()
            .contains("grants nothing")
    );
    let denied = subject(&|c| c["sub"] = json!("mallory"))
        .refused("denied", 400, "invalid_scope")
        .await;
    assert!(
        !denied.text.contains("mallory gets nothing"),
        "policy text stays inside"
    );
    let long: Answer = subject(&|c| c["exp"] = json!(NOW + 90_000))
        .accepted("long")
        .await;
    assert_eq!(long.json["expires_in"], 3600, "the policy's ttl");
    let rig = Rig::with(|text| format!("max_ttl = '10m'\ndefault_ttl = '5m'\nmax_depth = 2\n{text}")).await;
    let capped = rig.ask().accepted("capped").await;
    assert_eq!(capped.json["expires_in"], 600, "the configured maximum");
    assert_eq!(
        rig.verify(capped.json["access_token"].as_str().unwrap())
            .max_depth(),
        2
    );
}

#[tokio::test]
async fn nonces_when_demanded() {
    let rig = Rig::with(|text| text.replace("nonce = \"off\"", "nonce = \"demand\"")).await;
    let answer = rig.ask().refused("no nonce", 400, "use_dpop_nonce").await;
    let nonce = answer.headers["dpop-nonce"].to_str().unwrap().to_owned();
    let ask = |nonce: &str| {
        let nonce = nonce.to_owned();
        rig.ask().change(|a| a.claims.nonce = Some(nonce))
    };
    let answer = ask(&nonce).accepted("nonce").await;
    assert!(
        answer.headers.contains_key("dpop-nonce"),
        "the next one is handed out"
    );
    ask("made-up").refused("made up", 400, "use_dpop_nonce").await;
    rig.clock.advance(301);
    ask(&nonce).refused("stale", 400, "use_dpop_nonce").await;
}

#[tokio::test]
async fn a_node_that_may_have_forgotten_proofs_asks_for_a_nonce() {
    let provider = Provider::start().await;
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let config: Config = parse(&config_text(&provider.issuer), "issuer.toml").unwrap();
    let clock: SharedClock = ManualClock::shared(NOW - 100);
    let bound = Issuer::open(config, folder.path(), clock)
        .unwrap()
        .bind()
        .await
        .unwrap();
    let shutdown = Shutdown::new();
    shutdown.trigger();
    bound.serve(shutdown).await;
    let state = std::fs::read_dir(folder.path().join("state")).unwrap();
    for file in state
        .map(Result::unwrap)
        .filter(|file| file.file_name().to_string_lossy().starts_with("seen"))
    {
        std::fs::remove_file(file.path()).unwrap();
    }

    let rig = Rig::open(provider, folder, |text| text);
    let answer = rig.ask().refused("from before", 400, "use_dpop_nonce").await;
    let nonce = answer.headers["dpop-nonce"].to_str().unwrap().to_owned();
    let ask = || rig.ask().change(|a| a.claims.nonce = Some(nonce.clone()));
    ask().accepted("with a nonce").await;
    ask()
        .change(|a| a.claims.nonce = Some("made-up".to_owned()))
        .refused("made up", 400, "use_dpop_nonce")
        .await;
    // A proof may be dated ahead: one used before the start could carry a time after it.
    rig.clock.advance(taper_dpop::MAX_FUTURE);
    rig.ask()
        .refused("dated ahead, perhaps", 400, "use_dpop_nonce")
        .await;
    rig.clock.advance(1);
    rig.ask().accepted("from after").await;
}

#[tokio::test]
async fn what_is_revoked_gets_nothing() {
    let rig = Rig::new().await;
    let admin = |what: Value| async {
        let token = Some("Bearer the-admin-token".to_owned());
        let path = "/admin/v1/revocations";
        let answer = send(&rig.admin, "POST", path, token, Some(what)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    rig.ask().accepted("before").await;
    admin(json!({"holder": rig.holder.public().thumbprint().to_string()})).await;
    rig.ask().refused("key", 400, "invalid_dpop_proof").await;
    let other = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let ask = || rig.ask().change(|a| a.key = Some(&other));
    ask().accepted("another key").await;
    admin(json!({"client": "other"})).await;
    ask()
        .set("client_id", "other")
        .refused("client", 400, "unauthorized_client")
        .await;
    ask().accepted("another client").await;
    admin(json!({"subject": {"iss": rig.provider.issuer, "sub": "alice"}})).await;
    ask().refused("subject", 400, "invalid_request").await;
    let bob = rig.token(|c| c["sub"] = json!("bob"));
    ask().set("subject_token", bob).accepted("another subject").await;
}

#[tokio::test]
async fn policies_that_go_beyond_the_subject_token_or_fail() {
    let open = async |rule: &str| {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        let path = folder.path().join("grant.datalog");
        let policy = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{policy}\n{rule}\n")).unwrap();
        Rig::open(Provider::start().await, folder, |text| text)
    };
    let rig = open("renew_until(1800090000) <- client(\"agent\");").await;
    let renewed = rig.ask().accepted("renew_until").await;
    assert_eq!(
        renewed.json["expires_in"], 3600,
        "the subject token ends after 1800 s"
    );
    let other = rig
        .ask()
        .set("client_id", "other")
        .accepted("no renew_until")
        .await;
    assert_eq!(other.json["expires_in"], 1800);
    let rig = open("renew_until(1700000000) <- client(\"agent\");").await;
    rig.ask().refused("ended", 400, "invalid_scope").await;
    let rig = open("grant_depth(-1) <- client(\"agent\");").await;
    rig.ask()
        .refused("a policy that fails", 500, "server_error")
        .await;
    rig.ask()
        .set("client_id", "other")
        .accepted("not for others")
        .await;
}

#[tokio::test]
async fn what_does_not_fit_into_a_capability_is_refused() {
    let rig = Rig::new().await;
    let scopes = |count: usize| {
        let scope = |i: usize| format!("git:{i:a>120}");
        (0..count).map(scope).collect::<Vec<_>>().join(" ")
    };
    rig.ask().set("scope", scopes(20)).accepted("many").await;
    rig.ask()
        .set("scope", scopes(128))
        .refused("too many", 400, "invalid_scope")
        .await;
}

#[tokio::test]
async fn resources_and_prompts_are_granted_as_far_as_both_say() {
    let rig = Rig::new().await;
    let ask = |uris: Value, prompts: Value| {
        let entry = json!([{"type": "mcp", "server": "git", "uris": uris, "prompts": prompts}]);
        let ask = rig.ask().without("scope");
        ask.set("authorization_details", entry.to_string())
    };
    let answer = ask(
        json!(["repo://acme/web/", "repo://other/"]),
        json!(["review", "other"]),
    )
    .accepted("both")
    .await;
    assert!(answer.json.get("scope").is_none());
    let granted = &answer.json["authorization_details"][0];
    assert_eq!(
        (&granted["uris"], &granted["prompts"], granted.get("tools")),
        (&json!(["repo://acme/web/"]), &json!(["review"]), None)
    );
    let chain = rig.verify(answer.json["access_token"].as_str().unwrap());
    let rights: Vec<String> = chain.rights().iter().map(ToString::to_string).collect();
    assert_eq!(rights, ["git resource repo://acme/web/", "git prompt review"]);
    ask(json!(["repo://other/"]), json!(["other"]))
        .refused("neither", 400, "invalid_scope")
        .await;
    ask(json!(["repo://acme/../other/"]), json!(["review"]))
        .refused("not canonical", 400, "invalid_authorization_details")
        .await;
    let any = rig.ask().set("scope", "git:*").accepted("tools only").await;
    let chain = rig.verify(any.json["access_token"].as_str().unwrap());
    assert_eq!(chain.rights().len(), 1);
}
