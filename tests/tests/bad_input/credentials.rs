//! Credentials presented to the proxy.

use taper_tests::call::Call;
use taper_tests::raw;

use super::proxies::Proxies;
use super::{Spoil, bad_proofs, claiming, spoil, stranger};

#[test]
fn credentials() {
    let proxies = Proxies::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| proxies.check(name, spoil, status, says);
    let scheme = |scheme: &'static str| {
        spoil(move |call| {
            let token = call.token.clone().unwrap();
            call.instead("authorization", format!("{scheme}{token}"))
        })
    };
    check(
        "no credentials",
        spoil(|call| call.without("authorization")),
        401,
        "www-authenticate: DPoP ",
    );
    check("a bearer token", scheme("Bearer "), 401, "M-10");
    check("a bearer token in small letters", scheme("bearer "), 401, "M-10");
    check("a basic one", scheme("Basic "), 401, "R-15");
    check("no scheme", scheme(""), 401, "R-15");
    check("a tab for a space", scheme("DPoP\t"), 401, "R-15");
    check("two spaces", scheme("DPoP  "), 401, "R-09");
    check(
        "no token",
        spoil(|call| call.instead("authorization", "DPoP")),
        401,
        "R-15",
    );
    check(
        "two authorizations",
        spoil(|call| call.header("authorization", "DPoP x")),
        401,
        "R-15",
    );
    check(
        "the same twice",
        spoil(|call| {
            let token = call.token.clone().unwrap();
            call.header("authorization", format!("DPoP {token}"))
        }),
        401,
        "R-15",
    );
    check(
        "beside a bearer token",
        spoil(|call| call.header("authorization", "Bearer x")),
        401,
        "R-15",
    );
    check(
        "bytes beyond ASCII",
        spoil(|call| call.instead("authorization", b"DPoP \xff\xfe")),
        401,
        "R-15",
    );
    check("no proof", spoil(|call| call.proofs(&[])), 401, "R-15");
    check(
        "two proofs",
        spoil(|call| {
            let (first, second) = (call.proof(), call.proof());
            call.proofs(&[&first, &second])
        }),
        401,
        "R-15",
    );
    check(
        "two proofs in one",
        spoil(|call| {
            let both = format!("{}, {}", call.proof(), call.proof());
            call.proofs(&[&both])
        }),
        401,
        "R-01",
    );

    for (name, spoil, rule) in bad_proofs() {
        check(name, spoil, 401, rule);
    }
    check("no ath", claiming(|claims| claims.ath = None), 401, "R-09");
    check(
        "ath of another token",
        claiming(|claims| *claims = claims.clone().token("other")),
        401,
        "R-09",
    );
    check(
        "an empty ath",
        claiming(|claims| claims.ath = Some(String::new())),
        401,
        "R-09",
    );
    check(
        "a proof of a stranger",
        spoil(|call| Call {
            key: Some(stranger()),
            ..call
        }),
        401,
        "R-14",
    );
    let once = proxies.honest().bytes();
    assert_eq!(raw(&proxies.up.mcp(), &once).status, 200);
    proxies.pair("the same request once more", &once, &once, 401, "R-13");

    // The proof is the right one for the token that is sent.
    let token = |change: &dyn Fn(&str) -> String| {
        let call = proxies.honest();
        let token = change(call.token.as_ref().unwrap());
        let call = call.instead("authorization", format!("DPoP {token}"));
        Call {
            token: Some(token),
            ..call
        }
    };
    let garbled = |name: &str, change: &dyn Fn(&str) -> String| {
        proxies.pair(
            name,
            &proxies.honest().bytes(),
            &token(change).bytes(),
            401,
            "invalid_token",
        );
    };
    garbled("a token of one letter", &|_| "x".into());
    garbled("a token that is not base64url", &|_| "%%%".into());
    garbled("a token of zeros", &|_| "A".repeat(400));
    garbled("a token of 12,000 letters", &|_| "A".repeat(12_000));
    garbled("half a token", &|token| token[..token.len() / 2].to_owned());
    garbled("a token without its end", &|token| {
        token[..token.len() - 1].to_owned()
    });
    garbled("a padded token", &|token| format!("{token}="));
    garbled("a token twice", &|token| token.repeat(2));
    garbled("a token in two parts", &|token| format!("{token},{token}"));
    for at in [0, 40, 200, 400] {
        garbled(&format!("letter {at} changed"), &|token| {
            let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            format!("{}{other}{}", &token[..at], &token[at + 1..])
        });
    }
    garbled("an access token", &|_| {
        std::fs::read_to_string(proxies.up.dir().join("access-token"))
            .unwrap()
            .trim()
            .to_owned()
    });
    proxies.end();
}
