//! The proxy's own rules, M-nn, as `spec/proxy.md` lists them. What a proof, a chain or a policy
//! breaks has the number of its own crate.

use taper_dpop::RuleId;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: RuleId = RuleId::new($number);)+

        /// Every rule with its sentence, in the order of their numbers.
        pub const ALL: &[(RuleId, &str)] = &[$(($name, concat!($($doc),+)),)+];
    };
}

rules! {
    /// Only the paths of configured servers, their metadata, the proxy's own keys and the health pages exist.
    PATH = "M-01";
    /// A server is reached by POST, GET and DELETE, and no header may change the method.
    METHOD = "M-02";
    /// A request has no query string.
    QUERY = "M-03";
    /// A body is sent as it is, without a content encoding.
    ENCODING = "M-04";
    /// A page of a foreign origin is refused.
    ORIGIN = "M-05";
    /// The request names one host, that of the public URL or a configured one.
    HOST = "M-06";
    /// A request is not the start of another protocol.
    UPGRADE = "M-07";
    /// A body has at most the configured size and arrives in time.
    BODY = "M-08";
    /// A message is sent as `application/json`, in UTF-8.
    MEDIA_TYPE = "M-09";
    /// A bearer token is never accepted.
    BEARER = "M-10";
    /// The capability's issuer is a configured one whose keys are known.
    ISSUER = "M-11";
    /// Nothing of the presentation is revoked.
    REVOKED = "M-12";
    /// The revocation feed is fresh.
    STALE = "M-13";
    /// The body's digest is in the proof, tools listed as read-only, and plumbing of a server that has such, apart.
    BINDING = "M-14";
    /// A body is one strict JSON text.
    JSON = "M-15";
    /// A body is one JSON-RPC 2.0 request or notification, never a batch.
    MESSAGE = "M-16";
    /// The keys of the envelope, of `params` and of the arguments differ beyond letter case, from each other and from those of the protocol; and no key in the arguments is another spelling of one on the way to what a template, a check or a policy reads.
    FOLDED_KEYS = "M-17";
    /// A header that repeats a part of the message equals it.
    HEADERS = "M-18";
    /// A method is one of the protocol's, or configured; a configured one needs some right on the server.
    UNKNOWN_METHOD = "M-19";
    /// An answer of the client belongs to an outstanding request of its session, and is the first.
    CLIENT_ANSWER = "M-20";
    /// Every template of a tool yields its resource, at most 64 of them and 64 KiB in all, from the arguments.
    TEMPLATE = "M-21";
    /// A resource value and a URI are canonical.
    CANONICAL = "M-22";
    /// A tool with templates gets only arguments that its profile lists, one with argument caveats those of the first link that has such as well.
    ARGUMENTS = "M-23";
    /// A session belongs to the issuer, grant and last holder that opened it.
    SESSION = "M-24";
    /// An upstream is spoken to in a revision that it has.
    REVISION = "M-25";
    /// A grant has at most so many live proofs.
    QUOTA = "M-26";
    /// A decision is in the journal before its request is forwarded; of an access that changes nothing it is at least handed in, where the profile says so.
    AUDIT = "M-27";
    /// A proof that may have been used and forgotten, before the start or while the clock was ahead, carries a nonce from after that.
    RESTART = "M-28";
    /// CPU work waits in a bounded queue; but over HTTP/1.1 an Ed25519 proof under a known chain is checked at once, one at a time of each connection.
    BUSY = "M-29";
    /// The upstream answers in time, with an answer that may be passed on.
    UPSTREAM = "M-30";
    /// The programs of a stdio upstream are bounded in number, in all and per owner, and so are the requests that wait for one.
    CHILDREN = "M-31";
    /// A list shows only entries that the caller could use.
    LIST = "M-32";
    /// A stream ends when its capability expires, is revoked or is denied.
    STREAM = "M-33";
    /// A handle of a task belongs to the issuer, grant and last holder that created it.
    TASK = "M-34";
    /// A call under max-calls caveats is counted before it is decided, and in the journal before it is forwarded.
    CALLS = "M-35";
    /// A page of a revocation feed is signed by a root key of its issuer, before anything of it is read.
    FEED_SIGNATURE = "M-36";
    /// A revocation feed never goes back, and never tells another history than it told before.
    FEED_HISTORY = "M-37";
    /// A session of a program has one stream at a time.
    ONE_STREAM = "M-38";
    /// A holder, a grant and a subject make no more requests than the rates of the server allow.
    RATE = "M-39";
    /// So many requests and streams run at once and so many bodies are read: in all, per grant and per last holder.
    PLACES = "M-40";
    /// Who makes many decisions run into a limit waits before the next one.
    COSTLY = "M-41";
    /// What a policy or a check says of a tool's hints or digest is decided only over what the server itself told the proxy of that tool.
    FACTS = "M-42";
    /// An `Mcp-Param-*` header is forwarded only where the server's own list has it for an argument, and it equals that.
    PARAMS = "M-43";
    /// Where tools are pinned, only one that the server lists exactly as it was approved is called, and only such entries are shown.
    PINS = "M-44";
    /// Where tools are pinned, no call passes before the server's list is known, or when it is too old.
    PINS_KNOWN = "M-45";
    /// Without credentials only what the operator approved is told, where that is configured, and nothing goes to the server.
    LOGIN = "M-47";
    /// One address makes no more requests without credentials than its rate allows.
    ADDRESS = "M-48";
    /// An upstream that takes tokens gets one that its own authorization server issued to the proxy, or no request.
    TOKEN = "M-50";
    /// A token on behalf of a subject is asked for and used under one grant only, whose subject the authorization server knows by that name.
    TOKEN_SUBJECT = "M-51";
    /// What an authorization server answers is a bearer token of the kind that was asked for, and lives for a while.
    TOKEN_ANSWER = "M-52";
    /// An authorization server is asked once for all who wait, and after a failure not before a pause is over.
    TOKEN_PAUSE = "M-53";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order_and_the_page_lists_them() {
        let page = include_str!("../../../spec/proxy.md");
        assert!(
            ALL.iter()
                .map(|(rule, _)| rule.as_str())
                .is_sorted_by(|a, b| a < b)
        );
        for (rule, sentence) in ALL {
            let row = format!("| {rule} | {} |", sentence.trim());
            assert!(page.contains(&row), "{row}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| M-")).count();
        assert_eq!(rows, ALL.len());
    }
}
