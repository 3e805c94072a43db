//! A page of the revocation feed: the signature's header on the first line, the page after it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_dpop::DetachedJws;
use taper_oauth::json;
use taper_store::{FEED_PAGE_BYTES, FEED_TYP, FeedPage, FeedPosition, RevocationView};

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, rest) = bytes.split_at(end);
    if let Ok(text) = std::str::from_utf8(header) {
        let _ = DetachedJws::parse(text, FEED_TYP);
    }
    let Ok(page) = json::read::<FeedPage>(rest.get(1..).unwrap_or_default(), FEED_PAGE_BYTES) else {
        return;
    };
    let again = serde_json::to_vec(&page).ok();
    let again = again.and_then(|text| json::read(&text, FEED_PAGE_BYTES).ok());
    assert_eq!(again.as_ref(), Some(&page));
    // What a signed page may say, a view takes or refuses, and takes again.
    let view = RevocationView::new(page.issuer.clone(), FeedPosition::START);
    if view.apply(&page, Some(page.time)).is_ok() {
        assert_eq!(view.reached().seq, page.upto);
    }
    let _ = view.sweep(page.time);
});
