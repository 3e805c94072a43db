//! Keys in the keyring of the operating system, with the feature `keyring`: a private JWK under the service
//! `taper` and a name.
//!
//! | on | it is | kept |
//! |---|---|---|
//! | Linux | the kernel's keyrings of the session and the user, `keyring:NAME@taper` | until the machine is restarted, or until nobody used it for as long as the kernel keeps a user's keyring |
//! | macOS | the login keychain | for ever |
//! | Windows | the Credential Manager | for ever |
//!
//! Without the feature a key is still named by `keyring:NAME`, and using it says how to build. See
//! `spec/keys.md`.

use taper_dpop::PrivateKey;
use zeroize::Zeroizing;

use crate::Error;

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// Reads a private key.
///
/// # Errors
/// [`Error::Keyring`] when there is none of this name or the keyring cannot be read, and without the feature
/// `keyring`.
pub fn load(name: &str) -> Result<PrivateKey, Error> {
    let bytes = os::read(name)?.ok_or_else(|| {
        let make = format!("there is none of this name; `taper keygen --out keyring:{name}` makes one");
        unusable(name, make)
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable(name, "it is no private JWK"))?;
    PrivateKey::from_jwk_str(text).map_err(|error| unusable(name, error))
}

/// Puts `key` under a name that is not taken yet. Keyrings know no such condition: of two processes that do
/// it in the same instant with one name, the key of the second stays.
///
/// # Errors
/// [`Error::Exists`] when the name is taken, [`Error::Keyring`] when nothing can be written, and without the
/// feature `keyring`.
pub fn create(name: &str, key: &PrivateKey) -> Result<(), Error> {
    if !is_name(name) {
        return Err(unusable(name, crate::keys::KeySourceError::NotKeyringName));
    }
    if os::read(name)?.is_some() {
        return Err(Error::Exists {
            path: format!("keyring:{name}").into(),
        });
    }
    os::write(name, key.to_jwk_string().as_bytes())
}

/// Removes a key, for good.
///
/// # Errors
/// [`Error::Keyring`] when there is none of this name or it cannot be removed, and without the feature
/// `keyring`.
pub fn remove(name: &str) -> Result<(), Error> {
    os::remove(name)
}

/// Whether a key may be called so: 1 to 64 letters, digits, `.`, `_` and `-`.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

fn unusable(name: &str, reason: impl std::fmt::Display) -> Error {
    Error::Keyring {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(all(feature = "keyring", any(target_os = "linux", target_os = "macos", windows)))]
mod os {
    #[cfg(target_os = "macos")]
    use apple_native_keyring_store::keychain::Store;
    use keyring_core::api::CredentialStoreApi as _;
    use keyring_core::{Entry, Error as StoreError};
    #[cfg(target_os = "linux")]
    use linux_keyutils_keyring_store::Store;
    #[cfg(windows)]
    use windows_native_keyring_store::Store;

    use super::{Error, Zeroizing, unusable};

    /// What keys are found under, beside their name.
    const SERVICE: &str = "taper";

    pub(super) fn read(name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        match entry(name)?.get_secret() {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(StoreError::NoEntry) => Ok(None),
            Err(error) => Err(failed(name, error)),
        }
    }

    pub(super) fn write(name: &str, secret: &[u8]) -> Result<(), Error> {
        entry(name)?
            .set_secret(secret)
            .map_err(|error| failed(name, error))
    }

    pub(super) fn remove(name: &str) -> Result<(), Error> {
        entry(name)?
            .delete_credential()
            .map_err(|error| failed(name, error))
    }

    fn entry(name: &str) -> Result<Entry, Error> {
        let store = Store::new().map_err(|error| failed(name, error))?;
        // A thread without a session keyring (a container, a service) is given one by the first access, and with it
        // the user's persistent keyring; the entry of that access itself would still look elsewhere.
        #[cfg(target_os = "linux")]
        store
            .build(SERVICE, name, None)
            .map_err(|error| failed(name, error))?;
        store
            .build(SERVICE, name, None)
            .map_err(|error| failed(name, error))
    }

    /// What was read is never shown: two of the store's errors carry it.
    fn failed(name: &str, error: StoreError) -> Error {
        match error {
            StoreError::BadEncoding(bytes) | StoreError::BadDataFormat(bytes, _) => {
                drop(Zeroizing::new(bytes));
                unusable(name, "what the keyring holds under this name is malformed")
            }
            error => unusable(name, error),
        }
    }
}

#[cfg(not(all(feature = "keyring", any(target_os = "linux", target_os = "macos", windows))))]
mod os {
    use super::{Error, Zeroizing, unusable};

    pub(super) fn read(name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        Err(not_built(name))
    }

    pub(super) fn write(name: &str, _: &[u8]) -> Result<(), Error> {
        Err(not_built(name))
    }

    pub(super) fn remove(name: &str) -> Result<(), Error> {
        Err(not_built(name))
    }

    fn not_built(name: &str) -> Error {
        unusable(
            name,
            "this program was built without the feature `keyring` (Linux, macOS, Windows); \
             `cargo build --release -p taper --features keyring` builds it in",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taper_dpop::Algorithm;
    use taper_service::rng;

    #[cfg(not(feature = "keyring"))]
    #[tokio::test]
    async fn without_the_feature_it_is_said_how_to_build() {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let source: crate::KeySource = "keyring:agent".parse().unwrap();
        let errors = [
            create("agent", &key),
            remove("agent"),
            source.open().await.map(|_| ()),
        ];
        for error in errors {
            let text = error.unwrap_err().to_string();
            assert!(
                text.contains("`keyring:agent`") && text.contains("--features keyring"),
                "{text}"
            );
        }
    }

    /// A key of the machine's own keyring, taken out again however the test ends.
    #[cfg(all(feature = "keyring", target_os = "linux"))]
    struct Named(String);

    #[cfg(all(feature = "keyring", target_os = "linux"))]
    impl Named {
        fn new() -> Self {
            Self(format!("test-{}", rng::random_id_128(&mut rng::os())))
        }
    }

    #[cfg(all(feature = "keyring", target_os = "linux"))]
    impl Drop for Named {
        fn drop(&mut self) {
            let _ = remove(&self.0);
        }
    }

    #[cfg(all(feature = "keyring", target_os = "linux"))]
    const NAME: &str = "TAPER_TEST_KEYRING_NAME";

    /// The other half of the next test, which starts it in a process of its own.
    #[cfg(all(feature = "keyring", target_os = "linux"))]
    #[test]
    fn another_process_has_the_key() {
        if let Ok(name) = std::env::var(NAME) {
            println!("has {}", load(&name).unwrap().public().thumbprint());
        }
    }

    #[cfg(all(feature = "keyring", target_os = "linux"))]
    #[tokio::test]
    async fn a_key_of_the_kernels_keyring_signs_and_is_never_overwritten() {
        if std::env::var("TAPER_NOT_RUN")
            .is_ok_and(|left_out| left_out.split(' ').any(|one| one == "keyring"))
        {
            return;
        }
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let name = Named::new();
            let source: crate::KeySource = format!("keyring:{}", name.0).parse().unwrap();
            let absent = source.open().await.unwrap_err().to_string();
            assert!(absent.contains("taper keygen --out keyring:test-"), "{absent}");
            let key = PrivateKey::generate(algorithm, &mut rng::os());
            create(&name.0, &key).unwrap();
            let opened = source.open().await.unwrap();
            assert_eq!(opened.public(), &key.public());
            let claims = taper_dpop::ProofClaims::new("POST", "https://a.example/", 0, &mut rng::os());
            let proof = opened.prove(&claims).await.unwrap();
            assert!(taper_dpop::Proof::parse(&proof).is_ok());
            let other = PrivateKey::generate(algorithm, &mut rng::os());
            assert!(matches!(create(&name.0, &other), Err(Error::Exists { .. })));
            assert_eq!(source.open().await.unwrap().public(), &key.public());
            os::write(&name.0, b"no key").unwrap();
            let wrong = source.open().await.unwrap_err().to_string();
            assert!(wrong.contains(&name.0) && !wrong.contains("no key"), "{wrong}");
            remove(&name.0).unwrap();
        }
        let name = Named::new();
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        create(&name.0, &key).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["another_process_has_the_key", "--nocapture"])
            .env(NAME, &name.0)
            .output()
            .unwrap();
        let told = String::from_utf8(child.stdout).unwrap();
        let expected = format!("has {}", key.public().thumbprint());
        assert!(told.contains(&expected), "{told}");
        assert!(create("a b", &PrivateKey::generate(Algorithm::EdDsa, &mut rng::os())).is_err());
    }
}
