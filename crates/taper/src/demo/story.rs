//! The steps of the story, each with what must come out.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use taper_agent::inspect::Report;
use taper_agent::{Client, HolderKey, Issuer, exchange, revoke};
use taper_capability::{Caveat, Delegation, ResourceMatch, Token, UnverifiedToken, Verifier, forgery};
use taper_dpop::{Algorithm, PrivateKey};
use taper_oauth::{ExchangeRequest, Secret, TokenType, scope};
use taper_service::clock::SharedClock;
use taper_service::rng;
use taper_store::{Outcome, RecordKind, find_journals, read_records, verify_dir};

use crate::commands::verify;
use crate::context::Context;
use crate::demo::wire::{Answer, Call};
use crate::dev;
use crate::failure::{Failure, Kind};
use crate::world::{CLIENT_ID, World};

const WEB: &str = "acme/web";
const PAYROLL: &str = "acme/payroll";

/// The story: its people, and what was decided so far.
pub(crate) struct Story<'a> {
    world: &'a World,
    clock: SharedClock,
    context: &'a mut Context,
    steps: Vec<&'static str>,
    /// What the proxy's journal must say of tool calls: outcome, rule.
    decisions: Vec<(Outcome, Option<&'static str>)>,
    /// How many calls the MCP server must have seen.
    forwarded: u64,
}

/// An agent: a key, and the capability that it holds.
struct Agent {
    name: &'static str,
    key: Arc<PrivateKey>,
    token: Token,
}

impl<'a> Story<'a> {
    pub(crate) fn new(world: &'a World, clock: SharedClock, context: &'a mut Context) -> Self {
        Self {
            world,
            clock,
            context,
            steps: Vec::new(),
            decisions: Vec::new(),
            forwarded: 0,
        }
    }

    /// The names of the steps that came out as told.
    pub(crate) fn steps(&self) -> Vec<&'static str> {
        self.steps.clone()
    }

    pub(crate) async fn tell(&mut self) -> Result<(), Failure> {
        self.say("taper: authority for AI agents that narrows at every hop\n");
        self.say(
            "Running on this machine: an identity provider (development only), an issuer, a boundary proxy,",
        );
        self.say(
            "and behind it a small MCP server over two real git repositories, acme/web and acme/payroll.",
        );
        let issuer = self.step("discovery", Self::discover(self.world).await)?;
        self.title("Getting a capability");
        let refused = self.exchange(&issuer, "mallory", &[]).await;
        self.stranger_gets_nothing(refused)?;
        let granted = self.exchange(&issuer, "alice", &["eng".to_owned()]).await;
        let orchestrator = self.step("exchange", granted)?;
        self.say("  alice's token is exchanged: the orchestrator holds a capability for git:*, one hour, bound to its key");
        self.title("Handing it on, offline");
        let researcher = self.step("delegate-researcher", self.delegate_to_researcher(&orchestrator))?;
        self.say("  orchestrator → researcher: git_log and git_show, acme/web only, 10 minutes");
        let summariser = self.step("delegate-summariser", self.delegate_to_summariser(&researcher))?;
        self.say("  researcher → summariser: git_log only, 1 minute. No server was asked, both times.");
        self.title("Calls that pass");
        self.allowed(&summariser, &researcher).await?;
        self.title("Calls that do not, each for its own reason");
        self.refusals(&orchestrator, &researcher, &summariser).await?;
        self.forgeries(&researcher, &summariser).await?;
        self.title("Taking it back");
        self.revocation(&issuer, &[&orchestrator, &researcher, &summariser])
            .await?;
        self.title("What is left on record");
        let seen = self.upstream_saw();
        self.step("upstream-calls", seen)?;
        let record = self.audit();
        let lines = self.step("audit", record)?;
        self.say(&lines);
        let drawn = self.draw(&issuer, &summariser).await;
        let chain = self.step("chain", drawn)?;
        self.title("The summariser's chain, as `taper verify` draws it");
        self.say(&chain);
        Ok(())
    }

    async fn discover(world: &World) -> Result<Issuer> {
        Ok(Issuer::discover(&world.urls.issuer).await?)
    }

    async fn exchange(&self, issuer: &Issuer, name: &str, groups: &[String]) -> Result<Agent> {
        let subject = dev::Subject {
            name,
            groups,
            ttl: 3600,
        };
        let access_token = dev::mint(&self.world.dir, &subject, self.clock.unix())?;
        let mut request = ExchangeRequest::new(Secret::new(access_token), TokenType::AccessToken);
        request.scope = scope::parse_list("git:*")?;
        let key = new_key();
        let client = Client {
            id: CLIENT_ID.to_owned(),
            secret: None,
        };
        let holder = HolderKey::from(key.clone());
        let granted = exchange(issuer, &client, request, &holder, self.clock.as_ref()).await?;
        Ok(Agent {
            name: "orchestrator",
            key,
            token: granted.token,
        })
    }

    fn stranger_gets_nothing(&mut self, result: Result<Agent>) -> Result<(), Failure> {
        let outcome = match result {
            Ok(_) => Err(anyhow::anyhow!(
                "mallory, who is in no group, was granted something"
            )),
            Err(error) if error.to_string().contains("invalid_scope") => Ok(error.to_string()),
            Err(error) => Err(error),
        };
        self.step("issuer-policy", outcome)?;
        self.say("  mallory, who is in no group, asks the issuer: refused, invalid_scope (the grant policy derives nothing)");
        Ok(())
    }

    fn delegate_to_researcher(&self, from: &Agent) -> Result<Agent> {
        let key = new_key();
        let token = Delegation::to(key.public())
            .until(self.clock.unix() + 600)
            .only(tools(&["git_log", "git_show"]))
            .only(Caveat::Resource {
                kind: "repo".into(),
                matches: ResourceMatch::OneOf(vec![WEB.into()]),
            })
            .note("find out what changed last week")
            .sign(&from.token, &from.key, &mut rng::os())?;
        Ok(Agent {
            name: "researcher",
            key,
            token,
        })
    }

    fn delegate_to_summariser(&self, from: &Agent) -> Result<Agent> {
        let key = new_key();
        let token = Delegation::to(key.public())
            .until(self.clock.unix() + 60)
            .only(tools(&["git_log"]))
            .sign(&from.token, &from.key, &mut rng::os())?;
        Ok(Agent {
            name: "summariser",
            key,
            token,
        })
    }

    async fn allowed(&mut self, summariser: &Agent, researcher: &Agent) -> Result<(), Failure> {
        let log = self
            .call(summariser, "git_log", &json!({ "repo_path": WEB }))
            .await;
        let log = self.permitted("allowed-log", log)?;
        let same = self.equals_git(&log);
        self.step("same-as-git", same)?;
        let first = log.text().lines().next().unwrap_or_default().to_owned();
        self.say(&format!(
            "  summariser calls git_log on acme/web: allowed; it begins “{first}”"
        ));
        let show = self
            .call(
                researcher,
                "git_show",
                &json!({ "repo_path": WEB, "revision": "HEAD" }),
            )
            .await;
        self.permitted("allowed-show", show)?;
        self.say("  researcher calls git_show on acme/web: allowed");
        let list = self.message(summariser, "tools/list", &json!({})).await;
        let names = list.map(|answer| tool_names(&answer)).and_then(|names| {
            ensure!(names == ["git_log"], "the summariser sees the tools {names:?}");
            Ok(names)
        });
        self.step("filtered-list", names)?;
        self.say("  summariser lists tools: it sees git_log and nothing else");
        Ok(())
    }

    async fn refusals(&mut self, top: &Agent, researcher: &Agent, summariser: &Agent) -> Result<(), Failure> {
        let web = json!({ "repo_path": WEB });
        let show = json!({ "repo_path": WEB, "revision": "HEAD" });
        let payroll = json!({ "repo_path": PAYROLL });
        let secret = json!({ "repo_path": PAYROLL, "revision": "HEAD" });

        let answer = self.call(summariser, "git_show", &show).await;
        self.denied(
            "wrong-tool",
            answer,
            "R-22",
            "summariser calls git_show: its link allows git_log only",
        )?;
        let answer = self.call(researcher, "git_log", &payroll).await;
        self.denied(
            "wrong-repository",
            answer,
            "R-22",
            "researcher reads acme/payroll: its link allows acme/web only",
        )?;
        let answer = self.call(top, "git_show", &secret).await;
        self.denied("policy", answer, "R-23", "orchestrator shows acme/payroll: its capability would allow it, the security team's policy does not")?;

        let thief = new_key();
        let stolen = self.request(summariser, &thief, "git_log", &web);
        let answer = self.send(stolen).await;
        self.refused(
            "thief",
            answer,
            "R-14",
            "a thief presents the stolen token with a key of its own",
        )?;
        let answer = self
            .send(
                self.request(summariser, &summariser.key, "git_log", &web)
                    .map(Call::with_bearer_scheme),
            )
            .await;
        self.refused("bearer", answer, "M-10", "a thief presents it as a bearer token")?;

        let request = self.request(summariser, &summariser.key, "git_log", &web);
        let replay = request
            .as_ref()
            .map(Clone::clone)
            .map_err(|error| anyhow::anyhow!("{error:#}"));
        let first = self.send(request).await;
        self.permitted("replay-first", first)?;
        let answer = self.send(replay).await;
        self.refused(
            "replayed-request",
            answer,
            "R-13",
            "the same request once more, byte for byte",
        )?;
        let changed = self
            .request(researcher, &researcher.key, "git_log", &web)
            .map(|call| call.with_body(WEB, PAYROLL));
        let answer = self.send(changed).await;
        self.refused(
            "changed-body",
            answer,
            "R-12",
            "a request whose body was changed on the way",
        )
    }

    async fn forgeries(&mut self, researcher: &Agent, summariser: &Agent) -> Result<(), Failure> {
        let web = json!({ "repo_path": WEB });
        let now = self.clock.unix();
        let key = new_key();
        let brief = Delegation::to(key.public()).until(now + 1).sign(
            &summariser.token,
            &summariser.key,
            &mut rng::os(),
        );
        let brief = self.step("brief-link", brief.map_err(anyhow::Error::from))?;
        while self.clock.unix() <= now {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let expired = Agent {
            name: "late",
            key,
            token: brief,
        };
        let answer = self.call(&expired, "git_log", &web).await;
        self.refused(
            "expired-link",
            answer,
            "P-15",
            "a link of one second, used after two",
        )?;

        let (stranger, child) = (new_key(), new_key());
        let forged = forgery::hand_over_by(
            &stranger,
            &child.public(),
            now + 60,
            &researcher.token,
            &mut rng::os(),
        );
        let forged = self.step("forge-hand-over", forged.map_err(anyhow::Error::from))?;
        let forged = Agent {
            name: "stranger's child",
            key: child,
            token: forged,
        };
        let answer = self.call(&forged, "git_log", &web).await;
        self.refused(
            "stranger",
            answer,
            "D-02",
            "a hand-over signed by a stranger (a valid Biscuit all the same)",
        )?;

        let plain = forgery::plain_block(now + 60, &summariser.token, &mut rng::os());
        let plain = self.step("forge-plain-block", plain.map_err(anyhow::Error::from))?;
        let call = Call::tool(
            &self.world.urls.mcp.git,
            &plain,
            &summariser.key,
            "git_log",
            &web,
            self.clock.unix(),
        );
        let answer = self.send(call).await;
        self.refused(
            "plain-block",
            answer,
            "D-01",
            "a plain block, appended by someone who only saw the token",
        )
    }

    async fn revocation(&mut self, issuer: &Issuer, agents: &[&Agent]) -> Result<(), Failure> {
        let [top, ..] = agents else { return Ok(()) };
        let key = HolderKey::from(top.key.clone());
        let client = Client {
            id: CLIENT_ID.to_owned(),
            secret: None,
        };
        let revoked = revoke::revoke(issuer, &client, &top.token, &key, self.clock.as_ref()).await;
        self.step("revoke", revoked.map_err(Into::into))?;
        self.say("  the orchestrator revokes its grant at the issuer");
        let enforced = self.until_revoked(top).await;
        self.step("revocation-arrives", enforced)?;
        for (agent, name) in
            agents
                .iter()
                .zip(["revoked-orchestrator", "revoked-researcher", "revoked-summariser"])
        {
            let answer = self.call(agent, "git_log", &json!({ "repo_path": WEB })).await;
            self.refused(
                name,
                answer,
                "M-12",
                &format!("{} calls git_log on acme/web", agent.name),
            )?;
        }
        Ok(())
    }

    /// The proxy learns of a revocation within milliseconds; a ping, which needs no right and leaves no
    /// decision about a tool, shows when.
    async fn until_revoked(&self, agent: &Agent) -> Result<()> {
        for _ in 0..100 {
            if self.message(agent, "ping", &json!({})).await?.status == 401 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the proxy did not learn of the revocation within two seconds")
    }

    fn upstream_saw(&mut self) -> Result<()> {
        let seen = self.world.calls.count();
        ensure!(
            seen == self.forwarded,
            "the MCP server saw {seen} calls, {} were permitted",
            self.forwarded
        );
        let text = format!(
            "  the MCP server saw {seen} calls: those that were permitted, and none of the refused ones"
        );
        self.say(&text);
        Ok(())
    }

    /// Both journals verify, and the proxy's has each decision about a tool, in order.
    fn audit(&self) -> Result<String> {
        let journals = find_journals(&self.world.dir)?;
        ensure!(journals.len() == 2, "{} journals instead of two", journals.len());
        let mut lines = Vec::new();
        for dir in &journals {
            let report = verify_dir(dir)?;
            ensure!(
                report.is_ok(),
                "the journal {} does not verify: {report:?}",
                dir.display()
            );
            let name = dir
                .strip_prefix(&self.world.dir)
                .unwrap_or(dir)
                .display()
                .to_string();
            lines.push(format!(
                "  audit verify: {name}: {} records, tree and signed checkpoint are right",
                report.records
            ));
        }
        let recorded = tool_decisions(&self.world.dir.join("proxy/state"))?;
        let told: Vec<_> = self
            .decisions
            .iter()
            .map(|(o, rule)| (*o, rule.map(str::to_owned)))
            .collect();
        ensure!(
            recorded == told,
            "the journal has the decisions {recorded:?}, told were {told:?}"
        );
        lines.push(format!(
            "  every one of the {} decisions about a tool is in the journal, in order",
            told.len()
        ));
        Ok(lines.join("\n"))
    }

    async fn draw(&self, issuer: &Issuer, agent: &Agent) -> Result<String> {
        let keys = issuer.keys().await?;
        let roots =
            verify::roots(&self.world.urls.issuer, &keys).map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let now = self.clock.unix();
        let chain = Verifier::new(roots).verify(UnverifiedToken::decode(agent.token.as_str())?, now)?;
        Ok(Report::verified(&chain).to_text(now))
    }

    fn equals_git(&self, answer: &Answer) -> Result<()> {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.world.repositories().join(WEB))
            .args(["log", "--format=%s"])
            .output()
            .context("cannot run `git`")?;
        let subjects = String::from_utf8(output.stdout)?;
        ensure!(!subjects.is_empty(), "`git log` printed nothing");
        for subject in subjects.lines() {
            ensure!(
                answer.text().contains(subject),
                "the answer lacks the commit “{subject}”"
            );
        }
        Ok(())
    }

    fn request(&self, agent: &Agent, key: &PrivateKey, tool: &str, arguments: &Value) -> Result<Call> {
        Call::tool(
            &self.world.urls.mcp.git,
            &agent.token,
            key,
            tool,
            arguments,
            self.clock.unix(),
        )
    }

    async fn send(&self, call: Result<Call>) -> Result<Answer> {
        call?.send().await
    }

    async fn call(&self, agent: &Agent, tool: &str, arguments: &Value) -> Result<Answer> {
        self.send(self.request(agent, &agent.key, tool, arguments)).await
    }

    async fn message(&self, agent: &Agent, method: &str, params: &Value) -> Result<Answer> {
        let now = self.clock.unix();
        self.send(Call::message(
            &self.world.urls.mcp.git,
            &agent.token,
            &agent.key,
            method,
            params,
            now,
        ))
        .await
    }

    fn permitted(&mut self, name: &'static str, answer: Result<Answer>) -> Result<Answer, Failure> {
        let outcome = answer.and_then(|answer| {
            let worked =
                answer.status == 200 && answer.body.pointer("/result/isError") != Some(&Value::Bool(true));
            ensure!(
                worked && answer.body.get("result").is_some(),
                "expected a result, got {}",
                answer.summary()
            );
            Ok(answer)
        });
        let answer = self.step(name, outcome)?;
        self.decisions.push((Outcome::Allow, None));
        self.forwarded += 1;
        Ok(answer)
    }

    /// A refusal by a decision: 403, code 4403, and on record.
    fn denied(
        &mut self,
        name: &'static str,
        answer: Result<Answer>,
        rule: &'static str,
        what: &str,
    ) -> Result<(), Failure> {
        self.outcome(name, answer, 403, rule, what)?;
        self.decisions.push((Outcome::Deny, Some(rule)));
        Ok(())
    }

    /// A refusal before any decision: 401.
    fn refused(
        &mut self,
        name: &'static str,
        answer: Result<Answer>,
        rule: &'static str,
        what: &str,
    ) -> Result<(), Failure> {
        self.outcome(name, answer, 401, rule, what)
    }

    fn outcome(
        &mut self,
        name: &'static str,
        answer: Result<Answer>,
        status: u16,
        rule: &str,
        what: &str,
    ) -> Result<(), Failure> {
        let outcome = answer.and_then(|answer| {
            let fits = answer.status == status && answer.rule.as_deref() == Some(rule);
            ensure!(
                fits,
                "expected {status} with rule {rule}, got {}",
                answer.summary()
            );
            Ok(answer)
        });
        let answer = self.step(name, outcome)?;
        self.say(&format!("  {what}\n      → {}", answer.summary()));
        Ok(())
    }

    fn step<T>(&mut self, name: &'static str, outcome: Result<T>) -> Result<T, Failure> {
        match outcome {
            Ok(value) => {
                self.steps.push(name);
                Ok(value)
            }
            Err(error) => Err(Failure::new(
                Kind::Failure,
                format!("step `{name}` did not come out as told: {error:#}"),
            )),
        }
    }

    fn title(&mut self, text: &str) {
        self.say(&format!("\n{text}"));
    }

    fn say(&mut self, text: &str) {
        self.context.tell(text);
    }
}

fn new_key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()))
}

fn tools(names: &[&str]) -> Caveat {
    Caveat::Tool {
        server: "git".into(),
        tools: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn tool_names(answer: &Answer) -> Vec<String> {
    let tools = answer.body.pointer("/result/tools").and_then(Value::as_array);
    let name = |tool: &Value| tool.get("name").and_then(Value::as_str).map(str::to_owned);
    tools.into_iter().flatten().filter_map(name).collect()
}

fn tool_decisions(journal: &Path) -> Result<Vec<(Outcome, Option<String>)>> {
    let mut decisions = Vec::new();
    for stored in read_records(journal)? {
        if let RecordKind::Decision(decision) = stored?.record.kind
            && decision.method == "tools/call"
        {
            decisions.push((decision.outcome, decision.rule));
        }
    }
    Ok(decisions)
}
