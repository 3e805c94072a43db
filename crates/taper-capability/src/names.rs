//! The alphabets of names (P-11).

/// Whether `id` is a server id: `[a-z0-9-]{1,64}`.
#[must_use]
pub fn is_server(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether `name` is a tool name: `[A-Za-z0-9_./-]{1,128}`.
#[must_use]
pub fn is_tool(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b))
}

/// Whether `name` is a prompt name: the alphabet of tool names.
#[must_use]
pub fn is_prompt(name: &str) -> bool {
    is_tool(name)
}

/// Whether `kind` names a kind of resource: `[a-z0-9_-]{1,64}`.
pub(crate) fn is_kind(kind: &str) -> bool {
    (1..=64).contains(&kind.len())
        && kind
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

/// Whether `name` names a counter of calls: `[A-Za-z0-9_-]{1,64}`.
pub(crate) fn is_counter(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

/// Whether `id` is a grant id: 128 bits in base64url, 22 characters.
pub(crate) fn is_grant_id(id: &str) -> bool {
    id.len() == 22 && taper_dpop::base64url_decode(id).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabets() {
        let check = |is: fn(&str) -> bool, name: &str, ok: bool| assert_eq!(is(name), ok, "{name:?}");
        check(is_server, "git-2", true);
        check(is_server, "Git", false);
        check(is_server, "", false);
        check(is_server, "a:b", false);
        check(is_server, "*", false);
        check(is_server, &"a".repeat(65), false);
        check(is_tool, "a/b.c_d-E", true);
        check(is_tool, "a b", false);
        check(is_tool, "a:b", false);
        check(is_tool, "é", false);
        check(is_tool, &"a".repeat(129), false);
        check(is_grant_id, "AAAAAAAAAAAAAAAAAAAAAA", true);
        check(is_grant_id, "AAAAAAAAAAAAAAAAAAAAAB", false);
        check(is_grant_id, "AAAA", false);
    }
}
