//! `taper store`: a state folder is moved, or its database built anew.

use std::path::{Path, PathBuf};

use serde_json::json;
use taper_store::{Moved, StoreError, export, import, rebuild};

use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper store`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Copy the journal of a state folder with its keys, checked, up to a signed checkpoint, and how far feeds were
    /// followed. The daemon may run meanwhile; only one of the two may be written afterwards.
    Export {
        /// The state folder of an issuer or a proxy.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The folder to fill; it must be new or empty.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make a state folder from an export: everything is checked, and the database built.
    Import {
        /// The export.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The state folder to make; it must be new or empty.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Throw the database of a state folder away and build it from the journal. The daemon must be stopped.
    Rebuild {
        /// The state folder of an issuer or a proxy.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Exports, imports or rebuilds.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    match args.command {
        Command::Export { dir, out } => {
            let moved = export(&dir, &out).map_err(|e| failed(e, &dir))?;
            told("exported", &moved, &out, context)?;
            context.talk(format_args!(
                "It holds `journal.key`, which signs for the journal: keep it as secret as the state folder."
            ));
            Ok(())
        }
        Command::Import { from, dir } => {
            let moved = import(&from, &dir).map_err(|e| failed(e, &from))?;
            told("imported", &moved, &dir, context)
        }
        Command::Rebuild { dir } => {
            let replayed = rebuild(&dir).map_err(|e| failed(e, &dir))?;
            let text = format!("rebuilt from {replayed} records");
            context.result(text, &json!({"dir": dir, "replayed": replayed}))
        }
    }
}

fn told(what: &str, moved: &Moved, to: &Path, context: &mut Context) -> Result<(), Failure> {
    let text = format!(
        "{what} {} to {}\nrecords   {} to {}, all checked\nroot      {}",
        moved.origin,
        to.display(),
        moved.first,
        moved.tree_size,
        moved.root
    );
    let mut json = serde_json::to_value(moved).map_err(Failure::failed)?;
    if let serde_json::Value::Object(members) = &mut json {
        members.insert("to".to_owned(), to.to_string_lossy().into());
    }
    context.result(text, &json)
}

/// What to do next depends on what is wrong.
fn failed(error: StoreError, dir: &Path) -> Failure {
    let next = match &error {
        StoreError::InUse { .. } => Some("stop the daemon that has it, then once more".to_owned()),
        StoreError::NotEmpty { .. } | StoreError::Damaged { .. } => None,
        _ => Some(format!("`taper audit verify --dir {}`", dir.display())),
    };
    let failure = Failure::failed(error);
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use taper_service::rng;
    use taper_store::{Audit as _, EmbeddedStore, Grants as _, Record, RecordKind};

    use super::*;
    use crate::context::Format;
    use crate::context::testing::{NOW, context};

    async fn folder(dir: &Path) -> EmbeddedStore {
        let (store, _) = EmbeddedStore::open(dir, "issuer", Arc::new(|| NOW * 1000), rng::os()).unwrap();
        for _ in 0..3 {
            let kind = RecordKind::Started {
                role: "issuer".into(),
            };
            store.append(Record { at_ms: 0, kind }).await.unwrap();
        }
        store
    }

    fn run_with(command: Command) -> Result<String, String> {
        let (mut context, out, _) = context(Format::Text, "");
        run(Args { command }, &mut context)
            .map(|()| out.text())
            .map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_running_store_is_exported_and_comes_up_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let store = folder(&at("state")).await;
        let export = |out: &str| {
            run_with(Command::Export {
                dir: at("state"),
                out: at(out),
            })
        };
        let told = export("copy").unwrap();
        assert!(told.contains("records   0 to 3, all checked"), "{told}");
        assert!(export("copy").unwrap_err().contains("is not empty"));
        let in_use = run_with(Command::Rebuild { dir: at("state") }).unwrap_err();
        assert!(
            in_use.contains("in use") && in_use.contains("stop the daemon"),
            "{in_use}"
        );
        store.close().await.unwrap();

        let told = run_with(Command::Import {
            from: at("copy"),
            dir: at("new"),
        })
        .unwrap();
        assert!(told.starts_with("imported "), "{told}");
        let told = run_with(Command::Rebuild { dir: at("new") }).unwrap();
        assert_eq!(told, "rebuilt from 3 records\n");
        let (moved, report) =
            EmbeddedStore::open(&at("new"), "issuer", Arc::new(|| NOW * 1000), rng::os()).unwrap();
        assert_eq!((report.records, report.replayed), (3, 0));
        assert!(moved.grant("i", "g").await.unwrap().is_none());
    }
}
