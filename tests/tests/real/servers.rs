//! Other people's MCP servers behind one proxy: each is a program that speaks over stdin and stdout and knows
//! nothing of capabilities. What the proxy is told of their tools is what an operator would write.

use std::path::{Path, PathBuf};

use rand_core::OsRng;
use serde_json::{Value, json};
use taper_capability::{Grant, Party, Right, RootKey, issue};
use taper_dpop::{Algorithm, PrivateKey};
use taper_tests::call::now;
use taper_tests::daemon::{self, free_port, write_private};
use taper_tests::{Running, taper_ok};
use tempfile::TempDir;

use crate::parts::real;
use crate::ts_client;

/// The issuer of the test's own capabilities. Nobody ever calls it.
const ISSUER: &str = "https://issuer.example.com";
const SERVERS: [&str; 3] = ["filesystem", "memory", "everything"];

/// The proxy with its servers, and `alice.cap` for all that they have, held by `alice.jwk`.
struct Guarded {
    _proxy: Running,
    folder: TempDir,
    url: String,
}

impl Guarded {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let dir = folder.path();
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let root = RootKey::generate(7, &mut OsRng);
        let mut jwk = serde_json::to_value(root.public().to_jwk()).unwrap();
        jwk["kid"] = json!(root.id().to_string());
        std::fs::write(dir.join("jwks.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
        std::fs::write(dir.join("boundary.dl"), "allow if true;\n").unwrap();
        for (file, text) in [
            ("web/a.txt", "web a"),
            ("web/b.txt", "web b"),
            ("payroll/c.txt", "c"),
        ] {
            let file = files(dir).join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let proxy = daemon::start(dir, "proxy", &config(dir, port, &url), &url);
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let token = issue(&everything(&url, &key), &root, &mut OsRng).unwrap();
        write_private(&dir.join("alice.cap"), token.as_str());
        write_private(&dir.join("alice.jwk"), &key.to_jwk_string());
        Self {
            _proxy: proxy,
            folder,
            url,
        }
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> String {
        files(self.dir()).join(name).display().to_string()
    }

    /// `narrow.cap`: what is left of alice's capability with these restrictions.
    fn narrow(&self, restrictions: &[&str]) {
        let made = ["narrow", "alice.cap", "--key", "alice.jwk", "--out", "narrow.cap"];
        taper_ok(self.dir(), &[&made[..], restrictions].concat());
        std::fs::copy(self.dir().join("alice.jwk"), self.dir().join("narrow.jwk")).unwrap();
    }

    /// What the TypeScript client reports, which does what `wanted` says at `server`. The servers speak the
    /// legacy era only. Proofs cover the bodies: these tools do more than read.
    #[track_caller]
    fn client(&self, name: &str, server: &str, wanted: &Value) -> Value {
        let url = format!("{}/{server}/mcp", self.url);
        let mut wanted = wanted.clone();
        wanted["bound"] = json!(true);
        let report = ts_client(self.dir(), &url, name, "auto", &wanted);
        assert_eq!(report.get("error"), None, "{report:#}");
        assert_eq!(report["version"], "2025-11-25", "{report:#}");
        report
    }
}

/// Where the server of files has its files: the path that has no symbolic link in it.
fn files(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap().join("files")
}

fn config(dir: &Path, port: u16, url: &str) -> String {
    let node = real("bin/node").display().to_string();
    let server = |name: &str| {
        let script = real("node_modules/@modelcontextprotocol").join(format!("server-{name}/dist/index.js"));
        script.display().to_string()
    };
    let (filesystem, memory, everything) = (server("filesystem"), server("memory"), server("everything"));
    let (files, graph) = (files(dir).display().to_string(), dir.join("graph.jsonl"));
    let graph = graph.display();
    format!(
        r#"
listen = "127.0.0.1:{port}"
public_url = "{url}"
state = "state"
policies = ["boundary.dl"]

[[issuers]]
issuer = "{ISSUER}"
jwks_file = "jwks.json"
without_feed = true

[servers.filesystem]
upstream = {{ stdio = ["{node}", "{filesystem}", "{files}"] }}
kinds.file = {{ form = "absolute_path" }}
tools.read_text_file = {{ resources = {{ file = "{{path}}" }}, arguments = ["head", "tail"] }}
tools.read_multiple_files = {{ resources = {{ file = "{{paths[]}}" }} }}
tools.list_directory = {{ resources = {{ file = "{{path}}" }} }}
tools.write_file = {{ resources = {{ file = "{{path}}" }}, arguments = ["content"] }}
tools.move_file = {{ resources = {{ file = ["{{source}}", "{{destination}}"] }} }}

[servers.memory]
upstream = {{ stdio = ["{node}", "{memory}"], env = {{ MEMORY_FILE_PATH = "{graph}" }} }}
kinds.entity = {{ form = "text" }}
tools.open_nodes = {{ resources = {{ entity = "{{names[]}}" }} }}
tools.delete_entities = {{ resources = {{ entity = "{{entityNames[]}}" }} }}

[servers.everything]
upstream = {{ stdio = ["{node}", "{everything}"] }}
"#
    )
}

/// Every tool of every server, and a part of the resources and prompts of `everything`.
fn everything(url: &str, key: &PrivateKey) -> Grant {
    let mut rights: Vec<_> = SERVERS
        .map(|server| Right::AnyTool {
            server: server.to_owned(),
        })
        .into();
    rights.push(Right::Prompt {
        server: "everything".to_owned(),
        name: "simple-prompt".to_owned(),
    });
    Grant {
        issuer: ISSUER.to_owned(),
        id: Grant::new_id(&mut OsRng),
        subject: Party {
            iss: ISSUER.to_owned(),
            sub: "alice".to_owned(),
        },
        client: "test".to_owned(),
        actor: None,
        holder: key.public(),
        audiences: SERVERS.map(|server| format!("{url}/{server}/mcp")).into(),
        rights,
        claims: Vec::new(),
        issued_at: now(),
        expires_at: now() + 600,
        max_depth: 1,
        caveats: Vec::new(),
    }
}

fn call(tool: &str, arguments: Value) -> Value {
    json!({ "tool": tool, "arguments": arguments })
}

/// The text of a call that came out.
#[track_caller]
fn text(done: &Value) -> &str {
    assert_ne!(done["result"]["isError"], true, "{done:#}");
    let text = done["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text: {done:#}"))
}

/// Denied at the proxy by `rule`; the server never saw it.
#[track_caller]
fn refused(done: &Value, rule: &str) {
    let body = done["answer"]["error"].as_str().unwrap_or("null");
    let error = &serde_json::from_str::<Value>(body).unwrap()["error"];
    assert_eq!(
        (&done["answer"]["status"], &error["code"], &error["data"]["rule"]),
        (&json!(403), &json!(4403), &json!(rule)),
        "{done:#}"
    );
}

#[test]
fn files_below_one_folder() {
    let guarded = Guarded::start();
    let (a, b, c) = (
        guarded.file("web/a.txt"),
        guarded.file("web/b.txt"),
        guarded.file("payroll/c.txt"),
    );
    let wanted = json!({ "calls": [
        call("read_text_file", json!({ "path": a })),
        call("read_text_file", json!({ "path": c })),
    ] });
    let report = guarded.client("alice", "filesystem", &wanted);
    let tools = report["tools"].as_array().unwrap();
    assert!(
        tools.len() > 10 && tools.contains(&json!("write_file")),
        "{tools:?}"
    );
    assert_eq!(
        (text(&report["calls"][0]), text(&report["calls"][1])),
        ("web a", "c")
    );

    let below = format!("file={}", guarded.file("web/*"));
    let tools =
        ["read_text_file", "read_multiple_files", "move_file"].map(|tool| format!("filesystem:{tool}"));
    let mut restrictions = vec!["--resource", &below];
    restrictions.extend(tools.iter().flat_map(|tool| ["--tool", tool.as_str()]));
    guarded.narrow(&restrictions);
    let (moved, stolen) = (guarded.file("web/moved.txt"), guarded.file("web/stolen.txt"));
    let up = guarded.file("web/../payroll/c.txt");
    let wanted = json!({ "calls": [
        call("read_text_file", json!({ "path": a, "head": 1 })),
        call("read_multiple_files", json!({ "paths": [a, b] })),
        call("move_file", json!({ "source": b, "destination": moved })),
        call("read_text_file", json!({ "path": c })),
        call("read_multiple_files", json!({ "paths": [a, c] })),
        call("move_file", json!({ "source": c, "destination": stolen })),
        call("move_file", json!({ "source": a, "destination": guarded.file("payroll/a.txt") })),
        call("read_text_file", json!({ "path": up })),
        call("read_text_file", json!({ "path": guarded.file("web") })),
        call("write_file", json!({ "path": a, "content": "" })),
    ] });
    let report = guarded.client("narrow", "filesystem", &wanted);
    let mut listed: Vec<_> = report["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool.as_str().unwrap())
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, ["move_file", "read_multiple_files", "read_text_file"]);
    let calls = report["calls"].as_array().unwrap();
    assert_eq!(text(&calls[0]), "web a");
    assert!(text(&calls[1]).contains("web b"), "{:#}", calls[1]);
    assert!(text(&calls[2]).contains("moved"), "{:#}", calls[2]);
    for (at, rule) in [
        (3, "R-22"),
        (4, "R-22"),
        (5, "R-22"),
        (6, "R-22"),
        (7, "M-22"),
        (8, "R-22"),
        (9, "R-22"),
    ] {
        refused(&calls[at], rule);
    }
    let exists = |name: &str| Path::new(&guarded.file(name)).exists();
    assert_eq!(
        [
            "web/a.txt",
            "web/b.txt",
            "web/moved.txt",
            "web/stolen.txt",
            "payroll/a.txt",
            "payroll/c.txt"
        ]
        .map(exists),
        [true, false, true, false, false, true]
    );
}

#[test]
fn one_entity_of_a_memory() {
    let guarded = Guarded::start();
    let entity = |name: &str| json!({ "name": name, "entityType": "person", "observations": [format!("about {name}")] });
    let wanted = json!({ "calls": [
        call("create_entities", json!({ "entities": [entity("Ada"), entity("Grace")] })),
        call("create_relations", json!({ "relations": [{ "from": "Ada", "to": "Grace", "relationType": "inspires" }] })),
        call("read_graph", json!({})),
    ] });
    let report = guarded.client("alice", "memory", &wanted);
    let graph = text(&report["calls"][2]);
    assert!(
        graph.contains("about Ada") && graph.contains("inspires"),
        "{graph}"
    );

    guarded.narrow(&[
        "--resource",
        "entity=Ada",
        "--tool",
        "memory:open_nodes",
        "--tool",
        "memory:read_graph",
        "--tool",
        "memory:delete_entities",
    ]);
    let wanted = json!({ "calls": [
        call("open_nodes", json!({ "names": ["Ada"] })),
        call("open_nodes", json!({ "names": ["Ada", "Grace"] })),
        // What touches no named entity may touch each.
        call("read_graph", json!({})),
        call("delete_entities", json!({ "entityNames": ["Grace"] })),
        call("create_entities", json!({ "entities": [] })),
    ] });
    let report = guarded.client("narrow", "memory", &wanted);
    let calls = report["calls"].as_array().unwrap();
    let found = text(&calls[0]);
    assert!(
        found.contains("about Ada") && !found.contains("about Grace"),
        "{found}"
    );
    for denied in &calls[1..] {
        refused(denied, "R-22");
    }
    let graph = std::fs::read_to_string(guarded.dir().join("graph.jsonl")).unwrap();
    assert!(graph.contains("about Grace"), "{graph}");
}

#[test]
fn what_a_server_asks_its_client() {
    let guarded = Guarded::start();
    let root = "file:///srv/projects";
    let wanted = json!({
        "answers": {
            "sampling/createMessage": { "role": "assistant", "model": "none", "content": { "type": "text", "text": "a sampled line" } },
            "elicitation/create": { "action": "decline" },
            "roots/list": { "roots": [{ "uri": root, "name": "projects" }] },
        },
        "calls": [
            call("echo", json!({ "message": "hello" })),
            call("trigger-long-running-operation", json!({ "duration": 0.2, "steps": 4 })),
            call("trigger-sampling-request", json!({ "prompt": "a line", "maxTokens": 10 })),
            call("trigger-elicitation-request", json!({})),
            call("get-roots-list", json!({})),
            call("get-env", json!({})),
        ],
    });
    let report = guarded.client("alice", "everything", &wanted);
    let calls = report["calls"].as_array().unwrap();
    assert_eq!(text(&calls[0]), "Echo: hello");
    assert!(text(&calls[1]).contains("completed"), "{:#}", calls[1]);
    let steps: Vec<_> = (1..=4)
        .map(|step| json!({ "progress": step, "total": 4 }))
        .collect();
    assert_eq!(calls[1]["progress"], json!(steps));
    assert!(text(&calls[2]).contains("a sampled line"), "{:#}", calls[2]);
    assert!(text(&calls[3]).contains("declined"), "{:#}", calls[3]);
    assert!(text(&calls[4]).contains(root), "{:#}", calls[4]);
    // Of the proxy's environment a program gets `PATH`, and nothing else.
    let environment: Value = serde_json::from_str(text(&calls[5])).unwrap();
    assert_eq!(
        environment.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["PATH"]
    );
    let asked: Vec<_> = report["asked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|asked| &asked["method"])
        .collect();
    for method in ["sampling/createMessage", "elicitation/create", "roots/list"] {
        assert!(asked.contains(&&json!(method)), "{asked:?}");
    }

    guarded.narrow(&["--tool", "everything:echo", "--arg", "message=hello-*"]);
    let wanted = json!({
        "answers": { "sampling/createMessage": {} },
        "calls": [
            call("echo", json!({ "message": "hello-again" })),
            call("echo", json!({ "message": "goodbye" })),
            call("get-env", json!({})),
            call("trigger-sampling-request", json!({ "prompt": "a line", "maxTokens": 10 })),
        ],
    });
    let report = guarded.client("narrow", "everything", &wanted);
    assert_eq!(report["tools"], json!(["echo"]));
    let calls = report["calls"].as_array().unwrap();
    assert_eq!(text(&calls[0]), "Echo: hello-again");
    // Where the argument is missing its check is an error, and arguments that nobody described are refused before.
    for (denied, rule) in calls[1..].iter().zip(["R-22", "R-25", "M-23"]) {
        refused(denied, rule);
    }
    assert_eq!(report.get("asked"), None, "{report:#}");
}
