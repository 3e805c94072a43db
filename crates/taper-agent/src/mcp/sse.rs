//! Server-sent events: the `data` of each event in a complete stream (HTML standard, section 9.2).

/// The data of every event that was sent completely. An event without data, comments and other
/// fields are passed over.
pub(super) fn events(stream: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut events = Vec::new();
    let mut data: Option<String> = None;
    for line in text.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else {
            break;
        };
        if line.is_empty() {
            events.extend(data.take());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => data = Some(value.to_owned()),
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn streams() {
        let check =
            |stream: &str, expected: &[&str]| assert_eq!(events(stream.as_bytes()), expected, "{stream:?}");
        check("", &[]);
        check("data: a\n\n", &["a"]);
        check("data:a\n\n", &["a"]);
        check("data:  a\n\n", &[" a"]);
        check("data: a\ndata: b\n\n", &["a\nb"]);
        check("data\n\n", &[""]);
        check("data: a\r\n\r\ndata: b\r\r", &["a", "b"]);
        check("\u{feff}data: a\n\n", &["a"]);
        check(": comment\n\nevent: x\nid: 1\nretry: 2\n\n", &[]);
        check("data: a\n\ndata: cut", &["a"]);
        check("data: a\n\ndata: cut\n", &["a"]);
        check("datax: a\n\n", &[]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec("[ -~]{0,20}", 0..5), end in "\n|\r\n|\r") {
            let stream: String = values.iter().map(|v| format!("data: {v}{end}{end}")).collect();
            prop_assert_eq!(events(stream.as_bytes()), values);
        }
    }
}
