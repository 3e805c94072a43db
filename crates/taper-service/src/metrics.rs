//! Numbers for operators, in the OpenMetrics text that Prometheus reads.
//!
//! The names in the code are the names on the page: a counter ends in `_total`, and `_seconds` and `_bytes`
//! are units. What labels may say is fixed when a family is made: a look-up is an index, counting is one
//! atomic addition, and nobody's text can make a series.

mod encoding;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Unit};

/// The media type of [`Registry::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The upper ends of the buckets of [`Durations`], in nanoseconds: 50 µs to one minute.
const BUCKETS: [u64; 19] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// All families of one daemon.
#[derive(Debug, Default)]
pub struct Registry {
    families: prometheus_client::registry::Registry,
}

/// Counts up. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

/// How much there is of something now. Clones share the value.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

/// Time that was spent on something. Clones share the value.
#[derive(Clone, Debug, Default)]
pub struct Spent(Arc<AtomicU64>);

/// How long something took, in buckets. Clones count together.
#[derive(Clone, Debug)]
pub struct Durations(Arc<Cells>);

#[derive(Debug)]
struct Cells {
    /// One for each of [`BUCKETS`], and one for what took longer.
    counts: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
}

/// Counters for every combination of the values of `N` labels. Clones count together.
#[derive(Clone, Debug)]
pub struct Table<const N: usize>(Arc<Grid<N>>);

#[derive(Debug)]
struct Grid<const N: usize> {
    labels: [Label; N],
    cells: Box<[AtomicU64]>,
    shown: Shown,
}

/// A label and everything that it may say.
#[derive(Clone, Debug)]
pub struct Label {
    name: &'static str,
    values: Vec<String>,
}

/// Which combinations of a [`Table`] are on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All, from the start: a rate sees the first count too.
    All,
    /// Those that were counted, where most combinations never are.
    Counted,
}

/// The same kind of metric once for each value of one label.
#[derive(Clone, Debug)]
struct Each<M> {
    label: Label,
    metrics: Vec<M>,
}

impl Label {
    /// The label `name`, which says one of `values`.
    pub fn new(name: &'static str, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let values = values.into_iter().map(|value| value.as_ref().to_owned());
        Self {
            name,
            values: values.collect(),
        }
    }
}

impl Registry {
    /// No families.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter; `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, Counter::default())
    }

    /// Counters by labels; `name` ends in `_total`.
    pub fn table<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [Label; N],
        shown: Shown,
    ) -> Table<N> {
        let cells = labels.iter().map(|label| label.values.len()).product();
        let grid = Grid {
            labels,
            cells: std::iter::repeat_with(AtomicU64::default).take(cells).collect(),
            shown,
        };
        self.add(name, help, Table(Arc::new(grid)))
    }

    /// Time that was spent; `name` ends in `_seconds_total`.
    pub fn spent(&mut self, name: &str, help: &str) -> Spent {
        self.add(name, help, Spent::default())
    }

    /// A gauge.
    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, help, Gauge::default())
    }

    /// A gauge for each value of `label`, in their order.
    pub fn gauges(&mut self, name: &str, help: &str, label: Label) -> Vec<Gauge> {
        self.each(name, help, label)
    }

    /// Durations; `name` ends in `_seconds`.
    pub fn durations(&mut self, name: &str, help: &str) -> Durations {
        self.add(name, help, Durations::default())
    }

    /// Durations for each value of `label`, in their order; `name` ends in `_seconds`.
    pub fn durations_by(&mut self, name: &str, help: &str, label: Label) -> Vec<Durations> {
        self.each(name, help, label)
    }

    /// What never changes, as labels of a 1; `_info` is added to `name`.
    pub fn info(&mut self, name: &str, help: &str, says: &[(&'static str, &str)]) {
        let says: Vec<_> = says
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let help = help.strip_suffix('.').unwrap_or(help);
        self.families.register(name, help, Info::new(says));
    }

    /// The page.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.families);
        text
    }

    fn each<M: Metric + Clone + Default>(&mut self, name: &str, help: &str, label: Label) -> Vec<M>
    where
        Each<M>: Metric,
    {
        let metrics: Vec<M> = label.values.iter().map(|_| M::default()).collect();
        self.add(name, help, Each { label, metrics }).metrics
    }

    /// The library appends suffix and unit itself, and the full stop after the help.
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        let help = help.strip_suffix('.').unwrap_or(help);
        let name = name.strip_suffix("_total").unwrap_or(name);
        let kept = metric.clone();
        if let Some(name) = name.strip_suffix("_seconds") {
            self.families
                .register_with_unit(name, help, Unit::Seconds, metric);
        } else if let Some(name) = name.strip_suffix("_bytes") {
            self.families.register_with_unit(name, help, Unit::Bytes, metric);
        } else {
            self.families.register(name, help, metric);
        }
        kept
    }
}

impl Counter {
    /// Counts one more.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// Counts `n` more.
    pub fn add_many(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes over a count that is kept elsewhere. It never goes back.
    pub fn take_over(&self, count: u64) {
        self.0.fetch_max(count, Ordering::Relaxed);
    }
}

impl Spent {
    /// Takes over a time that is kept elsewhere. It never goes back.
    pub fn take_over(&self, spent: Duration) {
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_max(nanos, Ordering::Relaxed);
    }
}

impl Gauge {
    /// Says how much there is.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Says how many there are.
    pub fn set_count(&self, count: usize) {
        self.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// One more, until the answer is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    /// How much there is.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of what a [`Gauge`] counts.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self(Arc::new(Cells {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            nanos: AtomicU64::new(0),
        }))
    }
}

impl Durations {
    /// Counts one that took this long.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|end| *end < nanos);
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
            self.0.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

impl<const N: usize> Table<N> {
    /// Counts one more where each label says the value with this index. An index without a value counts
    /// nothing; it is a mistake of the caller's that a test of its families finds.
    pub fn add(&self, values: [usize; N]) {
        if let Some(cell) = self.cell(values) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were counted there.
    pub fn get(&self, values: [usize; N]) -> u64 {
        self.cell(values).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// How many were counted in all.
    pub fn sum(&self) -> u64 {
        self.0.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    fn cell(&self, values: [usize; N]) -> Option<&AtomicU64> {
        let mut at = 0;
        for (label, value) in self.0.labels.iter().zip(values) {
            if value >= label.values.len() {
                return None;
            }
            at = at * label.values.len() + value;
        }
        self.0.cells.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_names_units_and_what_was_counted() {
        let mut registry = Registry::new();
        let count = registry.counter("x_things_total", "Things.");
        let gauge = registry.gauge("x_room_bytes", "Room.");
        let ages = registry.gauges("x_age_seconds", "Age.", Label::new("of", ["a", "b\"\n"]));
        let took = registry.durations("x_work_seconds", "Work.");
        registry.info("x_build", "Build.", &[("version", "1.2.3")]);
        count.add();
        count.add_many(2);
        count.take_over(2);
        gauge.set(5);
        ages[1].set_count(7);
        took.observe(Duration::from_micros(50));
        took.observe(Duration::from_micros(51));
        took.observe(Duration::from_secs(61));
        assert_eq!((count.get(), gauge.get(), took.count()), (3, 5, 3));
        let page = registry.render();
        for line in [
            "# HELP x_things Things.",
            "# TYPE x_things counter",
            "x_things_total 3",
            "# UNIT x_room_bytes bytes",
            "x_room_bytes 5",
            "x_age_seconds{of=\"a\"} 0",
            "x_age_seconds{of=\"b\\\"\\n\"} 7",
            "# TYPE x_work_seconds histogram",
            "x_work_seconds_count 3",
            "x_work_seconds_bucket{le=\"0.00005\"} 1",
            "x_work_seconds_bucket{le=\"0.0001\"} 2",
            "x_work_seconds_bucket{le=\"60.0\"} 2",
            "x_work_seconds_bucket{le=\"+Inf\"} 3",
            "x_build_info{version=\"1.2.3\"} 1",
        ] {
            assert!(page.lines().any(|one| one == line), "{line}\n{page}");
        }
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn a_table_has_a_cell_for_every_combination_and_no_other() {
        let mut registry = Registry::new();
        let labels = || [Label::new("a", ["1", "2"]), Label::new("b", ["x", "y", "z"])];
        let counted = registry.table("x_some_total", "Some.", labels(), Shown::Counted);
        let all = registry.table("x_all_total", "All.", labels(), Shown::All);
        for a in 0..3 {
            for b in 0..4 {
                counted.add([a, b]);
            }
        }
        counted.add([1, 2]);
        all.add([0, 1]);
        assert_eq!(
            (counted.sum(), counted.get([1, 2]), counted.get([2, 0])),
            (7, 2, 0)
        );
        let page = registry.render();
        assert!(page.contains("x_some_total{a=\"2\",b=\"z\"} 2\n"), "{page}");
        assert!(page.contains("x_all_total{a=\"1\",b=\"y\"} 1\n"), "{page}");
        assert_eq!(page.matches("x_all_total{").count(), 6);
        let fresh = registry.table("x_none_total", "None.", labels(), Shown::Counted);
        assert_eq!(fresh.sum(), 0);
        assert_eq!(registry.render().matches("x_none_total{").count(), 0);
    }

    #[test]
    fn what_is_held_is_given_back() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.hold(), gauge.hold());
        assert_eq!(gauge.get(), 2);
        drop(one);
        assert_eq!(gauge.get(), 1);
        drop(two);
        assert_eq!(gauge.get(), 0);
    }
}
