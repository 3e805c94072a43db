//! A team of agents: an orchestrator that obtains one capability and hands three sub-agents three
//! different slices of it. They work in parallel, and none can do another's work.
//!
//! `examples/agents/README.md` says how to run it, and what the same program looks like in Python and
//! in TypeScript. It reads `TAPER_ISSUER`, `TAPER_URL`, `TAPER_SUBJECT_TOKEN_FILE` and, if it is not
//! `dev`, `TAPER_CLIENT_ID`.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Map, Value, json};
use taper_agent::{Client, Credential, Era, Error, Exchanged, HolderKey, Issuer, McpClient, Refusal, Step};
use taper_capability::{Caveat, ResourceMatch, Token, escaped};
use taper_dpop::{Algorithm, PrivateKey, PublicKey};
use taper_oauth::{ExchangeRequest, Scope, Secret, TokenType};
use taper_service::clock::{Clock as _, SystemClock};
use taper_service::rng;
use tokio::task::JoinSet;

/// What a sub-agent is there for: one tool, one repository, some minutes.
#[derive(Clone, Copy)]
struct Work {
    agent: &'static str,
    tool: &'static str,
    repository: &'static str,
    minutes: i64,
}

const TEAM: [Work; 3] = [
    Work {
        agent: "historian",
        tool: "git_log",
        repository: "acme/web",
        minutes: 10,
    },
    Work {
        agent: "reviewer",
        tool: "git_show",
        repository: "acme/web",
        minutes: 5,
    },
    Work {
        agent: "auditor",
        tool: "git_log",
        repository: "acme/payroll",
        minutes: 2,
    },
];

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What others said must not command a terminal.
            let said = escaped(&error.to_string());
            let _ = writeln!(std::io::stderr(), "failed: {said}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let url = variable("TAPER_URL")?;
    let (capability, key) = obtain().await?;

    let mut team = JoinSet::new();
    for (at, work) in TEAM.into_iter().enumerate() {
        let agent = SubAgent::new(&url);
        // Only the public key leaves the sub-agent, and only a capability comes back.
        let slice = hand_over(&capability, &key, agent.key.public().clone(), work).await?;
        team.spawn(async move { (at, agent.run(&slice, work).await) });
    }
    let mut reports = team.join_all().await;
    reports.sort_by_key(|(at, _)| *at);

    let mut out = std::io::stdout().lock();
    let (mut tried, mut refused) = (0, 0);
    for (_, report) in reports {
        for line in report? {
            tried += usize::from(line.refused.is_some());
            refused += usize::from(line.refused == Some(true));
            writeln!(out, "{}", line.text)?;
        }
    }
    writeln!(out, "{tried} attempts at another's work, {refused} refused")?;
    if refused == tried {
        Ok(())
    } else {
        Err("an agent could do another's work".into())
    }
}

/// The orchestrator's capability, for every tool of the server, and the key that it is bound to.
async fn obtain() -> Result<(Token, HolderKey), Failure> {
    let key = new_key();
    let client = Client {
        id: variable("TAPER_CLIENT_ID").unwrap_or_else(|_| "dev".to_owned()),
        secret: None,
    };
    let subject = std::fs::read_to_string(variable("TAPER_SUBJECT_TOKEN_FILE")?)?;
    let request = ExchangeRequest {
        scope: vec!["git:*".parse::<Scope>()?],
        ..ExchangeRequest::new(Secret::new(subject.trim()), TokenType::AccessToken)
    };
    let issuer = Issuer::discover(&variable("TAPER_ISSUER")?).await?;
    let Exchanged { token, .. } =
        taper_agent::exchange(&issuer, &client, request, &key, &SystemClock).await?;
    Ok((token, key))
}

/// A slice of a capability for another key. This needs no network, and nobody's consent.
async fn hand_over(token: &Token, key: &HolderKey, to: PublicKey, work: Work) -> Result<Token, Error> {
    let tools = Caveat::Tool {
        server: "git".to_owned(),
        tools: vec![work.tool.to_owned()],
    };
    let repository = Caveat::Resource {
        kind: "repo".to_owned(),
        matches: ResourceMatch::OneOf(vec![work.repository.to_owned()]),
    };
    let until = SystemClock.unix() + work.minutes * 60;
    let step = Step::hand_over(to, until)
        .only(tools)
        .only(repository)
        .note(work.agent);
    key.append(token, &step).await
}

fn new_key() -> HolderKey {
    PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()).into()
}

/// A line of a sub-agent's report; whether it was refused, if it tried what it must not do.
struct Line {
    text: String,
    refused: Option<bool>,
}

struct SubAgent {
    url: String,
    key: HolderKey,
}

impl SubAgent {
    fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            key: new_key(),
        }
    }

    /// Does its own work, then tries the others'.
    async fn run(self, slice: &Token, own: Work) -> Result<Vec<Line>, Failure> {
        let credential = Credential::new(slice, self.key)?;
        let mut server = McpClient::new(&self.url, credential, Era::Modern, SystemClock::shared())?;
        let Work {
            agent,
            tool,
            repository,
            minutes,
        } = own;
        let result = call(&mut server, own).await?;
        let text = result.pointer("/content/0/text").and_then(Value::as_str);
        let first = escaped(text.and_then(|text| text.lines().next()).unwrap_or_default());
        if result.get("isError") == Some(&Value::Bool(true)) {
            return Err(format!("{agent} cannot do its work: {first}").into());
        }
        let mut report = vec![Line {
            text: format!("{agent} has {tool} of {repository} for {minutes} minutes: {first}"),
            refused: None,
        }];
        for other in TEAM.iter().filter(|other| other.agent != agent) {
            let refusal = match call(&mut server, *other).await {
                Ok(_) => None,
                Err(Error::Refused(refusal)) => Some(explained(&refusal)?),
                Err(error) => return Err(error.into()),
            };
            let said = refusal.as_deref().unwrap_or("it worked");
            report.push(Line {
                text: format!("{agent} tries the work of {}: {said}", other.agent),
                refused: Some(refusal.is_some()),
            });
        }
        Ok(report)
    }
}

async fn call(server: &mut McpClient, work: Work) -> Result<Value, Error> {
    let mut arguments = Map::from_iter([("repo_path".to_owned(), json!(work.repository))]);
    match work.tool {
        "git_show" => arguments.insert("revision".to_owned(), json!("HEAD")),
        _ => arguments.insert("max_count".to_owned(), json!(1)),
    };
    server.call(work.tool, arguments).await
}

/// What a denial says. Any other refusal, of a server that is down for example, proves nothing.
fn explained(refusal: &Refusal) -> Result<String, Failure> {
    let rule = refusal.data.as_ref().and_then(|data| data.rule.as_deref());
    match (refusal.status, refusal.code, rule) {
        (403, Some(4403), Some(rule)) => {
            Ok(format!("refused, status 403, code 4403, rule {}", escaped(rule)))
        }
        _ => Err(format!("this is no denial: {refusal}").into()),
    }
}

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| format!("the environment variable {name} is not set").into())
}
