use super::*;
use crate::sample::sample_repositories;

const NOW: i64 = 1_790_000_000;

fn sample() -> (tempfile::TempDir, Git) {
    let folder = tempfile::tempdir().unwrap();
    sample_repositories(folder.path(), NOW).unwrap();
    let git = Git::new(folder.path().to_owned());
    (folder, git)
}

#[tokio::test]
async fn a_history_is_read_newest_first_and_counted() {
    let (_folder, git) = sample();
    let all = git.log("acme/web", 100).await.unwrap();
    assert!(all.matches("commit ").count() >= 3, "{all}");
    let one = git.log("acme/web", 1).await.unwrap();
    assert_eq!(one.matches("commit ").count(), 1);
    assert!(all.starts_with(&one));
}

#[tokio::test]
async fn a_commit_is_shown_with_its_patch() {
    let (_folder, git) = sample();
    let text = git.show("acme/payroll", "HEAD~1").await.unwrap();
    assert!(text.starts_with("commit "), "{text}");
    assert!(text.contains("diff --git"), "{text}");
}

#[tokio::test]
async fn only_repositories_below_the_root_can_be_named() {
    let (folder, git) = sample();
    let outside = tempfile::tempdir().unwrap();
    sample_repositories(outside.path(), NOW).unwrap();
    let link = |to: &Path, at: &str| {
        std::os::unix::fs::symlink(to, folder.path().join(at)).unwrap();
    };
    link(&outside.path().join("acme/web"), "acme/link");
    link(&outside.path().join("acme"), "linked");
    link(&folder.path().join("acme/web"), "acme/alias");
    std::fs::create_dir_all(folder.path().join("acme/pointer")).unwrap();
    std::fs::write(
        folder.path().join("acme/pointer/.git"),
        format!("gitdir: {}", outside.path().join("acme/web/.git").display()),
    )
    .unwrap();
    std::fs::create_dir_all(folder.path().join("acme/empty/.git")).unwrap();
    std::fs::create_dir_all(folder.path().join("acme/plain")).unwrap();

    let absolute = folder.path().join("acme/web").display().to_string();
    for repo_path in [
        "",
        "/",
        "acme",
        "acme/",
        "/web",
        "acme//web",
        "acme/web/",
        "acme/web/.git",
        "acme/../acme/web",
        "../acme/web",
        "acme/..",
        "./web",
        "acme/.",
        "acme/web\0",
        "acme/web\n",
        "acme\\web",
        "acme/%77eb",
        "--upload-pack=x/web",
        "acme/--help",
        "~/web",
        "acme/none",
        "acme/link",
        "acme/alias",
        "linked/web",
        "acme/pointer",
        "acme/plain",
        &absolute,
    ] {
        let result = git.log(repo_path, 1).await;
        assert!(
            matches!(result, Err(GitError::Repository(_))),
            "`{repo_path}`: {result:?}"
        );
    }
    // A `.git` folder that is no repository: git says no, and does not look further up.
    let result = git.log("acme/empty", 1).await;
    assert!(matches!(result, Err(GitError::NotFound { .. })), "{result:?}");
}

#[tokio::test]
async fn a_revision_is_neither_an_option_nor_a_range_nor_a_file() {
    let (folder, git) = sample();
    let written = folder.path().join("written");
    let output = format!("--output={}", written.display());
    for revision in [
        "",
        "-p",
        "--help",
        "--output=/tmp/x",
        &output,
        "--all",
        "HEAD..main",
        "HEAD:README.md",
        ":/first",
        "HEAD^{/fix}",
        "@{upstream}",
        "^HEAD",
        "HEAD --stat",
        "HEAD\n--stat",
        "HEAD\0",
        "HEAD;id",
        "$(id)",
        "*",
        &"a".repeat(MAX_REVISION + 1),
    ] {
        let result = git.show("acme/web", revision).await;
        assert!(
            matches!(result, Err(GitError::Revision(_))),
            "`{revision}`: {result:?}"
        );
    }
    for revision in ["none", "HEAD~99", "0000000", "README.md"] {
        let result = git.show("acme/web", revision).await;
        assert!(
            matches!(result, Err(GitError::NotFound { .. })),
            "`{revision}`: {result:?}"
        );
    }
    assert!(!written.exists());
}

#[tokio::test]
async fn the_configuration_of_a_repository_starts_no_program() {
    let (folder, git) = sample();
    let marker = folder.path().join("started");
    let script = folder.path().join("program");
    std::fs::write(&script, format!("#!/bin/sh\ntouch '{}'\n", marker.display())).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let program = script.display();
    let repository = folder.path().join("acme/web");
    std::fs::write(
        repository.join(".git/config"),
        format!(
            "[core]\nrepositoryformatversion = 0\npager = {program}\nfsmonitor = {program}\n\
             [diff]\nexternal = {program}\n[diff \"x\"]\ncommand = {program}\ntextconv = {program}\n\
             [log]\nshowSignature = true\n[gpg]\nprogram = {program}\n"
        ),
    )
    .unwrap();
    std::fs::create_dir_all(repository.join(".git/info")).unwrap();
    std::fs::write(repository.join(".git/info/attributes"), "* diff=x\n").unwrap();
    git.show("acme/web", "HEAD").await.unwrap();
    git.log("acme/web", 5).await.unwrap();
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_long_answer_is_cut() {
    let (folder, git) = sample();
    let repository = folder.path().join("acme/web");
    std::fs::write(repository.join("long.txt"), "line of text\n".repeat(200_000)).unwrap();
    crate::sample::commit(&repository, NOW, ("Ada", "ada@acme.example"), "Add a long file").unwrap();
    let text = git.show("acme/web", "HEAD").await.unwrap();
    assert!(text.ends_with("[cut: the rest is too long]\n"));
    assert!(text.len() < MAX_OUTPUT + 64);
}
