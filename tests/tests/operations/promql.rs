//! Queries of alerts and panels, read far enough to hold every name in them against a page that was scraped: families, labels,
//! what a label may say, and which labels the result has.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::vec::IntoIter;

/// What Prometheus adds to everything that it scrapes.
const ADDED: [&str; 2] = ["instance", "job"];
const RANGED: [&str; 3] = ["rate", "increase", "predict_linear"];
const AGGREGATES: [&str; 4] = ["sum", "max", "min", "count"];

type Labels = BTreeSet<String>;

/// The series that there are, and what each label says in them.
#[derive(Debug, Default)]
pub(crate) struct Scraped {
    series: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    types: BTreeMap<String, String>,
}

impl Scraped {
    /// Reads a page. Of a family without a series yet, `unseen` says which labels it has.
    pub(crate) fn add(&mut self, page: &str, unseen: &[(&str, &[&str])]) {
        for line in page.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                for name in names(name, kind) {
                    self.types.insert(name.clone(), kind.to_owned());
                    self.series.entry(name).or_default();
                }
            } else if !line.starts_with('#') {
                let (name, labels) = sample(line).unwrap_or_else(|| panic!("no sample: {line}"));
                let series = self
                    .series
                    .get_mut(&name)
                    .unwrap_or_else(|| panic!("no type: {line}"));
                for (label, value) in labels {
                    series.entry(label).or_default().insert(value);
                }
            }
        }
        for (name, labels) in unseen {
            let series = self.series.get_mut(*name).unwrap_or_else(|| panic!("{name}"));
            for label in *labels {
                series.entry((*label).to_owned()).or_default();
            }
        }
    }

    /// Reads a query; `said` are words that a label may say before there is a series with them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, query: &str, said: &dyn Fn(&str) -> bool) -> Result<Labels, String> {
        let mut reader = Reader {
            scraped: self,
            said,
            tokens: tokens(query)?.into_iter().peekable(),
        };
        let found = reader.expression(0)?;
        match reader.tokens.next() {
            None => found.ok_or_else(|| "it has no series".to_owned()),
            Some(token) => Err(format!("`{token}` is too much")),
        }
    }
}

/// The series of a family.
fn names(name: &str, kind: &str) -> Vec<String> {
    let ends: &[&str] = match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        _ => &[""],
    };
    ends.iter().map(|end| format!("{name}{end}")).collect()
}

fn sample(line: &str) -> Option<(String, Vec<(String, String)>)> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, _) = line.split_once(' ')?;
        return Some((name.to_owned(), Vec::new()));
    };
    let (labels, _) = rest.rsplit_once('}')?;
    let mut found = Vec::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        found.push((label.to_owned(), value.to_owned()));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some((name.to_owned(), found))
}

/// Words, numbers with their units, texts in quotes, signs.
fn tokens(query: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || "_.:$".contains(c);
        let length = if first == '"' {
            let end = rest[1..].find('"').ok_or("a text has no end")?;
            end + 2
        } else if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if ["==", "!=", ">=", "<=", "=~", "!~"]
            .iter()
            .any(|sign| rest.starts_with(sign))
        {
            2
        } else if "(){}[],=<>+-*/".contains(first) {
            1
        } else {
            return Err(format!("what is `{first}`?"));
        };
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

fn strength(sign: &str) -> Option<u8> {
    match sign {
        "or" => Some(1),
        "and" | "unless" => Some(2),
        "==" | "!=" | "<" | ">" | "<=" | ">=" => Some(3),
        "+" | "-" => Some(4),
        "*" | "/" => Some(5),
        _ => None,
    }
}

struct Reader<'a> {
    scraped: &'a Scraped,
    said: &'a dyn Fn(&str) -> bool,
    tokens: Peekable<IntoIter<String>>,
}

/// The labels of a vector; none of a number.
type Found = Option<Labels>;

impl Reader<'_> {
    fn next(&mut self) -> Result<String, String> {
        self.tokens.next().ok_or_else(|| "it ends early".to_owned())
    }

    fn is(&mut self, token: &str) -> bool {
        self.tokens.next_if(|next| next == token).is_some()
    }

    fn want(&mut self, token: &str) -> Result<(), String> {
        let next = self.next()?;
        if next == token {
            Ok(())
        } else {
            Err(format!("`{token}` is wanted, not `{next}`"))
        }
    }

    fn expression(&mut self, above: u8) -> Result<Found, String> {
        let mut left = self.operand()?;
        while let Some((sign, strong)) = self
            .tokens
            .peek()
            .and_then(|sign| Some((sign.clone(), strength(sign)?)))
            .filter(|(_, strong)| *strong > above)
        {
            self.next()?;
            let on = if self.is("on") { Some(self.labels()?) } else { None };
            let many = ["group_left", "group_right"]
                .into_iter()
                .find(|side| self.is(side));
            let right = self.expression(strong)?;
            left = match (left, right) {
                (None, None) => None,
                (Some(one), None) | (None, Some(one)) => Some(one),
                (Some(left), Some(right)) => Some(joined(&sign, left, right, on, many)?),
            };
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Found, String> {
        let first = self.next()?;
        if first == "(" {
            let inner = self.expression(0)?;
            self.want(")")?;
            return Ok(inner);
        }
        if first.starts_with(|c: char| c.is_ascii_digit()) {
            return first
                .parse::<f64>()
                .map(|_| None)
                .map_err(|e| format!("{first}: {e}"));
        }
        if AGGREGATES.contains(&first.as_str()) {
            let by = if self.is("by") {
                self.labels()?
            } else {
                Labels::new()
            };
            self.want("(")?;
            let inner = self.expression(0)?.ok_or("a number has nothing to sum up")?;
            self.want(")")?;
            return match by.difference(&inner).next() {
                None => Ok(Some(by)),
                Some(label) => Err(format!("there is no label `{label}` to sum up by")),
            };
        }
        if self.is("(") {
            return self.call(&first);
        }
        self.series(&first, false).map(Some)
    }

    fn call(&mut self, function: &str) -> Result<Found, String> {
        let found = match function {
            "time" => None,
            "histogram_quantile" => {
                self.expression(0)?;
                self.want(",")?;
                let mut found = self.expression(0)?.ok_or("a quantile is of a histogram")?;
                if !found.remove("le") {
                    return Err("a quantile needs `le`".to_owned());
                }
                Some(found)
            }
            _ if RANGED.contains(&function) => {
                let name = self.next()?;
                let found = self.series(&name, true)?;
                let counts = self.scraped.types[&name] != "gauge";
                if counts == (function == "predict_linear") {
                    return Err(format!("`{function}` of `{name}`"));
                }
                if function == "predict_linear" {
                    self.want(",")?;
                    self.expression(0)?;
                }
                Some(found)
            }
            _ => return Err(format!("what is `{function}`?")),
        };
        self.want(")")?;
        Ok(found)
    }

    fn labels(&mut self) -> Result<Labels, String> {
        let mut found = Labels::new();
        self.want("(")?;
        while !self.is(")") {
            found.insert(self.next()?);
            self.is(",");
        }
        Ok(found)
    }

    fn series(&mut self, name: &str, ranged: bool) -> Result<Labels, String> {
        let usual = BTreeMap::new();
        let known = match self.scraped.series.get(name) {
            Some(known) => known,
            None if name == "up" => &usual,
            None => return Err(format!("there is no `{name}`")),
        };
        if self.is("{") {
            while !self.is("}") {
                let (label, sign, text) = (self.next()?, self.next()?, self.next()?);
                let text = text.trim_matches('"').to_owned();
                self.is(",");
                if ADDED.contains(&label.as_str()) {
                    continue;
                }
                let values = known
                    .get(&label)
                    .ok_or_else(|| format!("`{name}` has no label `{label}`"))?;
                let wanted: Vec<&str> = match sign.as_str() {
                    "=" | "!=" => vec![&text],
                    "=~" | "!~" => text.split('|').collect(),
                    _ => return Err(format!("what is `{sign}`?")),
                };
                for value in wanted {
                    if !values.contains(value) && !(self.said)(value) {
                        return Err(format!("`{label}` of `{name}` never says `{value}`"));
                    }
                }
            }
        }
        if self.is("[") != ranged {
            return Err(format!("`{name}` over a time, or not"));
        }
        if ranged {
            self.next()?;
            self.want("]")?;
        }
        if self.is("offset") {
            self.next()?;
        }
        let added = ADDED.iter().map(|label| (*label).to_owned());
        Ok(known.keys().cloned().chain(added).collect())
    }
}

/// The labels of what two vectors yield.
fn joined(
    sign: &str,
    left: Labels,
    right: Labels,
    on: Option<Labels>,
    many: Option<&str>,
) -> Result<Labels, String> {
    if sign == "or" {
        return Ok(left.intersection(&right).cloned().collect());
    }
    let Some(on) = on else {
        return if left == right {
            Ok(left)
        } else {
            Err(format!("nothing matches: {left:?} {sign} {right:?}"))
        };
    };
    if let Some(label) = on
        .iter()
        .find(|label| !left.contains(*label) || !right.contains(*label))
    {
        return Err(format!("`{label}` is not on both sides"));
    }
    // On the side of one, what is matched tells the series apart.
    let only = |side: &Labels| *side == on;
    match (sign, many) {
        ("and" | "unless", None) => Ok(left),
        (_, Some("group_left")) if only(&right) => Ok(left),
        (_, Some("group_right")) if only(&left) => Ok(right),
        (_, None) if only(&left) && only(&right) => Ok(on),
        _ => Err(format!("many match: {left:?} {sign} {right:?}")),
    }
}

#[test]
fn what_is_wrong_with_a_query_is_found() {
    let page = "# TYPE x_things counter\nx_things_total{server=\"git\",outcome=\"good\"} 1\n\
                # TYPE x_now gauge\nx_now{server=\"git\"} 1\n# TYPE x_most gauge\nx_most{server=\"git\"} 1\n\
                # TYPE x_seconds histogram\nx_seconds_bucket{le=\"+Inf\"} 1\nx_seconds_sum 1\nx_seconds_count 1\n\
                # TYPE x_cuts counter\n";
    let mut scraped = Scraped::default();
    scraped.add(page, &[("x_cuts_total", &["rule"])]);
    let check = |query: &str, expected: Result<&str, &str>| {
        let found = scraped.check(query, &|word| word == "bad");
        match (found, expected) {
            (Ok(labels), Ok(expected)) => {
                assert_eq!(Vec::from_iter(labels).join(" "), expected, "{query}");
            }
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{query}: {said}"),
            (found, _) => panic!("{query}: {found:?}"),
        }
    };
    check("x_now", Ok("instance job server"));
    check("up{job=\"taper\"} == 0", Ok("instance job"));
    check(
        "sum by (server) (rate(x_things_total{outcome=\"good\"}[5m])) / sum by (server) (rate(x_things_total[5m])) > 0.05",
        Ok("server"),
    );
    check("sum by (rule) (increase(x_cuts_total[1m]))", Ok("rule"));
    check(
        "x_now / x_most > 0.9 or predict_linear(x_now[6h], 604800) < 0",
        Ok("instance job server"),
    );
    check(
        "max by (server) (x_now offset 1m) - on (server) group_right min by (server, instance) (x_most) > 0",
        Ok("instance server"),
    );
    check(
        "histogram_quantile(0.99, sum by (instance, le) (rate(x_seconds_bucket[5m]))) > 2",
        Ok("instance"),
    );
    check(
        "x_now - time() < 1209600 and on (instance) x_most == 1",
        Ok("instance job server"),
    );
    check(
        "rate(x_things_total{outcome=~\"good|bad\"}[5m])",
        Ok("instance job outcome server"),
    );

    check("x_then", Err("there is no `x_then`"));
    check("x_things", Err("there is no `x_things`"));
    check("sum by (instnce) (x_now)", Err("no label `instnce`"));
    check(
        "rate(x_things_total{outcom=\"good\"}[5m])",
        Err("no label `outcom`"),
    );
    check(
        "rate(x_things_total{outcome=~\"good|ugly\"}[5m])",
        Err("never says `ugly`"),
    );
    check("rate(x_things_total)", Err("over a time"));
    check("x_things_total[5m] > 0", Err("over a time"));
    check("rate(x_now[5m])", Err("`rate` of `x_now`"));
    check(
        "predict_linear(x_things_total[5m], 1)",
        Err("`predict_linear` of"),
    );
    check("rates(x_things_total[5m])", Err("what is `rates`"));
    check("x_now / sum by (server) (x_most)", Err("nothing matches"));
    check("x_now / on (server) x_most", Err("many match"));
    check("x_now / on (outcome) x_most", Err("not on both sides"));
    check(
        "histogram_quantile(0.9, sum by (instance) (rate(x_seconds_bucket[5m])))",
        Err("needs `le`"),
    );
    check("sum by (server) (x_now", Err("ends early"));
    check("x_now > 0)", Err("too much"));
    check("x_now > ", Err("ends early"));
    check("x_now % 2", Err("what is `%`"));
    check("1 > 2", Err("no series"));
}
