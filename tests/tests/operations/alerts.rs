//! The file of alerts, in the part of YAML that it is written in: everything else is refused, so that what is read here is what
//! Prometheus reads.

/// One alert.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
    /// How long it has to hold, if that is said.
    pub(crate) lasts: Option<String>,
    pub(crate) severity: String,
    pub(crate) summary: String,
    pub(crate) action: String,
}

/// Reads the file.
///
/// # Errors
/// The line that is not as it should be.
pub(crate) fn read(text: &str) -> Result<Vec<Alert>, String> {
    let mut lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .peekable();
    for head in ["groups:", "  - name: taper", "    rules:"] {
        let line = lines.next().unwrap_or_default();
        if line != head {
            return Err(format!("`{line}` instead of `{head}`"));
        }
    }
    let mut found = Vec::new();
    while lines.peek().is_some() {
        let mut value = |key: &str| -> Result<String, String> {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(key);
            value
                .map(str::to_owned)
                .ok_or_else(|| format!("`{line}` instead of `{key}`"))
        };
        let name = value("      - alert: ")?;
        let expr = plain(value("        expr: ")?)?;
        let (mut lasts, mut labels) = (None, value("        ")?);
        if let Some(time) = labels.strip_prefix("for: ") {
            lasts = Some(time.to_owned());
            labels = value("        ")?;
        }
        let severity = labels
            .strip_prefix("labels: { severity: ")
            .and_then(|rest| rest.strip_suffix(" }"))
            .ok_or_else(|| format!("no severity: `{labels}`"))?
            .to_owned();
        value("        annotations:")?;
        let (summary, action) = (value("          summary: ")?, value("          action: ")?);
        found.push(Alert {
            name,
            expr,
            lasts,
            severity,
            summary: quoted(&summary)?,
            action: quoted(&action)?,
        });
    }
    Ok(found)
}

/// A scalar without quotes: nothing in it may mean anything else.
fn plain(text: String) -> Result<String, String> {
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '(');
    if begins
        && !text.contains(": ")
        && !text.contains(" #")
        && text.trim_end() == text
        && !text.ends_with(':')
    {
        Ok(text)
    } else {
        Err(format!("it needs quotes: {text}"))
    }
}

/// A scalar in double quotes; what JSON has there, YAML has too.
fn quoted(text: &str) -> Result<String, String> {
    serde_json::from_str(text).map_err(|error| format!("{text}: {error}"))
}

#[test]
fn what_is_no_file_of_alerts_is_refused() {
    let good = "# What.\ngroups:\n  - name: taper\n    rules:\n      - alert: A\n        expr: up == 0\n        for: 1m\n\
                \u{20}       labels: { severity: page }\n        annotations:\n          summary: \"s: {{ $labels.x }}\"\n          action: \"a\"\n";
    let alerts = read(good).unwrap();
    assert_eq!(
        (alerts[0].name.as_str(), alerts[0].lasts.as_deref()),
        ("A", Some("1m"))
    );
    let check = |from: &str, to: &str| {
        assert!(good.contains(from));
        let said = read(&good.replace(from, to));
        assert!(said.is_err(), "{to}: {said:?}");
    };
    check("        expr", "       expr");
    check("up == 0", "up == 0: 1");
    check("up == 0", "up == 0 # why");
    check("up == 0", "{ up }");
    check("severity", "severty");
    check("\"a\"", "a");
    check("\"a\"", "\"a\"b\"");
    check("          action: \"a\"\n", "");
    check("rules", "rule");
}
