//! The official Biscuit samples, as they ship with the library: each decodes to a refusal by a known
//! rule, and none to a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::PathBuf;

use cargo_metadata::MetadataCommand;
use taper_capability::UnverifiedToken;
use taper_dpop::base64url_encode;

fn samples() -> PathBuf {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(vec!["--offline".into()])
        .exec()
        .unwrap();
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "biscuit-auth")
        .expect("the library is a dependency");
    package.manifest_path.parent().unwrap().join("samples").into()
}

/// The rule that refuses a token of these bytes.
fn refusing(token: &[u8]) -> String {
    let decoded = UnverifiedToken::decode(&base64url_encode(token));
    decoded
        .map(|token| format!("{token:?}"))
        .unwrap_err()
        .rule()
        .to_string()
}

#[test]
fn every_sample_is_refused_by_the_rule_that_it_breaks() {
    let mut found = Vec::new();
    for file in std::fs::read_dir(samples()).unwrap().map(Result::unwrap) {
        let name = file.file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".bc") {
            let bytes = std::fs::read(file.path()).unwrap();
            // The field `rootKeyId`, which no signature covers, is the first of a token.
            let named = [[0x08, 0x01].as_slice(), &bytes].concat();
            found.push(format!("{name} {} {}", refusing(&bytes), refusing(&named)));
        }
    }
    found.sort();
    assert_eq!(found.join("\n"), EXPECTED.trim());
}

/// The rule that refuses the sample as it is, and with a root key id: no sample names one, and P-03 is asked
/// early.
const EXPECTED: &str = "
test001_basic P-03 P-10
test002_different_root_key P-03 P-10
test003_invalid_signature_format P-03 P-10
test004_random_block P-03 P-10
test005_invalid_signature P-03 P-10
test006_reordered_blocks P-03 P-10
test007_scoped_rules P-03 P-10
test008_scoped_checks P-03 P-10
test009_expired_token P-03 P-10
test010_authorizer_scope P-03 P-10
test011_authorizer_authority_caveats P-03 P-10
test012_authority_caveats P-03 P-10
test013_block_rules P-03 P-10
test014_regex_constraint P-03 P-10
test015_multi_queries_caveats P-03 P-10
test016_caveat_head_name P-03 P-10
test017_expressions P-03 P-21
test018_unbound_variables_in_rule P-03 P-10
test019_generating_ambient_from_variables P-03 P-10
test020_sealed P-03 P-10
test021_parsing P-03 P-10
test022_default_symbols P-03 P-10
test023_execution_scope P-03 P-10
test024_third_party P-03 P-07
test025_check_all P-03 P-10
test026_public_keys_interning P-03 P-07
test027_integer_wraparound P-03 P-10
test028_expressions_v4 P-03 P-10
test029_reject_if P-03 P-10
test030_null P-03 P-10
test031_heterogeneous_equal P-03 P-10
test032_laziness_closures P-03 P-10
test033_typeof P-03 P-10
test034_array_map P-03 P-10
test035_ffi P-03 P-10
test036_secp256r1 P-03 P-14
test037_secp256r1_third_party P-03 P-14
test038_try_op P-03 P-10
";
