//! Root keys (P-03, P-09, P-13).

use std::rc::Rc;

use taper_dpop::Algorithm;

use crate::book::Book;
use crate::kit;
use crate::parts::Root;
use crate::scene::ISSUER;

pub(crate) fn vectors(book: &mut Book) {
    roots(book);
    servers(book);
}

const OTHER: &str = "https://other.example";

fn roots(book: &mut Book) {
    book.accept(
        "root/one-of-two",
        "The issuer has two keys, the token names the second.",
        |s| {
            let first = s.key(Algorithm::EdDsa);
            s.roots.insert(0, root(ISSUER, 2, &first));
        },
    );
    book.accept(
        "root/same-id-of-two-issuers",
        "Two issuers have a key 1; the issuer that the token names decides.",
        |s| {
            let other = s.key(Algorithm::EdDsa);
            s.roots.insert(0, root(OTHER, 1, &other));
        },
    );
    book.refuse(
        "root/no-id",
        "The token names no root key.",
        "P-03",
        "accepted",
        |s| {
            s.root_key_id = None;
        },
    );
    book.refuse(
        "root/unknown-id",
        "The token names a root key that is not configured.",
        "P-03",
        "accepted",
        |s| s.root_key_id = Some(9),
    );
    book.refuse(
        "root/no-roots",
        "No root key is trusted at all.",
        "P-03",
        "P-03",
        |s| s.roots.clear(),
    );
    book.refuse(
        "root/other-issuer",
        "A configured issuer signs a token that names another one.",
        "P-09",
        "accepted",
        |s| {
            s.grant.swap("issuer", &format!("issuer(\"{OTHER}\")"));
        },
    );
    book.refuse(
        "root/issuer-with-slash",
        "The token's issuer has a slash at the end, the configured one has none.",
        "P-09",
        "accepted",
        |s| {
            s.grant.swap("issuer", &format!("issuer(\"{ISSUER}/\")"));
        },
    );
    book.refuse(
        "root/key-of-another-issuer",
        "An issuer signs for another one that has a key of the same id.",
        "P-04",
        "accepted",
        |s| {
            let victim = s.key(Algorithm::EdDsa);
            s.roots.insert(0, root(OTHER, 1, &victim));
            s.grant.swap("issuer", &format!("issuer(\"{OTHER}\")"));
        },
    );
    book.refuse(
        "root/stranger",
        "Somebody makes a token with a root key of their own.",
        "P-04",
        "accepted",
        |s| s.root = Rc::clone(&s.keys.mallory),
    );
    book.refuse(
        "root/other-key-of-the-issuer",
        "The token names key 2 of its issuer and is signed with key 1.",
        "P-04",
        "accepted",
        |s| {
            let second = s.key(Algorithm::EdDsa);
            s.roots.push(root(ISSUER, 2, &second));
            s.root_key_id = Some(2);
        },
    );
}

fn servers(book: &mut Book) {
    book.accept(
        "root/its-server",
        "The root key may grant rights for this server.",
        |s| {
            s.roots[0].servers = Some(vec!["web", "git"]);
        },
    );
    book.refuse(
        "root/other-server",
        "A right is for a server that the root key may not grant; another right covers the call.",
        "P-13",
        "accepted",
        |s| {
            s.roots[0].servers = Some(vec!["git"]);
            s.grant.add("right(\"payroll\", \"pay\")");
        },
    );
    book.refuse(
        "root/server-by-prefix",
        "The root key may grant rights for `git`, and the right is for `git-2`.",
        "P-13",
        "accepted",
        |s| {
            s.roots[0].servers = Some(vec!["git"]);
            s.grant.add("right_any_tool(\"git-2\")");
        },
    );
    book.refuse(
        "root/no-server",
        "The root key may grant no rights.",
        "P-13",
        "accepted",
        |s| s.roots[0].servers = Some(Vec::new()),
    );
}

fn root(issuer: &str, key_id: u32, key: &kit::Key) -> Root {
    Root {
        issuer: issuer.into(),
        key_id,
        key: Rc::clone(key),
        servers: None,
    }
}
